// Queues matmuls: a kernel of this folder, or cuBLAS.
#pragma once

#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/device/stream.h"
#include "backend/cuda/device/watch.h"
#include "backend/cuda/device/weight_map.h"
#include "backend/cuda/matmul/matmul.h"
#include "backend/cuda/plan/matmul_plan.h"
#include "base/memory.h"

namespace lk::cuda {

// Activations of a matmul, in the forms that its kernels take.
struct MatmulInput {
    int n;
    int n_cols;
    Rows rows;                    // one token; plain but for multiply_stream without codes
    VectorCodes codes;            // one token, weight types with takes_codes
    const uint16_t* halves;       // the other kernels
    const uint16_t* lane_halves;  // kernels with takes_lane_halves
    RowsWatch watch;              // of rows, for multiply_stream
};

class MatmulQueue {
public:
    // invariant: see select_matmul.
    MatmulQueue(const WeightMap& weights, const Processors& processors, bool invariant, Stream& stream)
        : weights_(weights), processors_(processors), invariant_(invariant), stream_(stream) {}

    // products: the matmuls of one launch; see next_launch.
    void run(MatmulKernel kernel, std::span<const Product> products, const MatmulInput& input);

private:
    FewProducts products_of(WeightType type, std::span<const Product> products) const;
    // of_first_type: the products of the first one's type.
    void run_stream(const FewProducts& of_first_type, std::span<const Product> products, const MatmulInput& input);
    void run_tiles(WeightType type, FewProducts products, size_t row_bytes, const MatmulInput& input);
    // These two are compiled only with LK_CUDA_WGMMA.
    void run_quantized_wgmma(WeightType type, OrderedProducts products, size_t row_bytes, const MatmulInput& input);
    void run_few_wgmma(OrderedProducts products, const MatmulInput& input);
    void run_ordered(OrderedProducts products, const MatmulInput& input);
    void multiply_f16(const FewProducts& matrices, const MatmulInput& input);
    void multiply_halves(MatmulKernel kernel, const Product& product, const MatmulInput& input);

    const WeightMap& weights_;
    Processors processors_;
    bool invariant_;
    Stream& stream_;
    Buffer<uint16_t> half_w_;  // scratch
    Buffer<float> tile_sums_;
    Buffer<int> tile_counts_;
    Buffer<float> segment_sums_;
    Buffer<int> segment_counts_;
};

}  // namespace lk::cuda
