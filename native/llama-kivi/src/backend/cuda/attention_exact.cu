// Keys in full precision.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

void attention_exact_exact(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::exact, Store::exact>(a, stream);
}

void attention_exact_codes2(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::exact, Store::codes2>(a, stream);
}

void attention_exact_codes4(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::exact, Store::codes4>(a, stream);
}

}  // namespace lk::cuda
