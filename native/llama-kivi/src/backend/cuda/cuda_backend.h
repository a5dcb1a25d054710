// A context's work on a device: lk::Backend with the pass as the engine describes it. Tensors of a call must not move
// until finish, because errors name them. A decode step runs when it is finished; see device/stream.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/cuda_pass.h"
#include "backend/plugin.h"

namespace lk::cuda {

class CudaBackend {
public:
    virtual ~CudaBackend() = default;

    virtual std::unique_ptr<CudaPass> begin(const lk_plugin_pass_rows& rows) = 0;
    virtual void finish() = 0;
    virtual void embed(const Tensor& table, const int32_t* tokens, int n, float* out) = 0;
    virtual void make(const Rows& rows, int n, int dim, float* out) = 0;
    virtual void matmul(const Rows& rows, int n, std::span<const Product> products) = 0;
    virtual void stage(CudaPass& pass, const lk_plugin_stage& args) = 0;
    virtual void attention(CudaPass& pass, const lk_plugin_attention& args) = 0;
    virtual void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) = 0;
    virtual void stage_pages(CudaPass& pass, kv::Layers layers) = 0;
    virtual void commit(CudaPass& pass) = 0;
};

std::unique_ptr<CudaBackend> make_backend(CudaDevice& device, bool batch_invariant);

}  // namespace lk::cuda
