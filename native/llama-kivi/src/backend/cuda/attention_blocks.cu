// Keys and values in blocks of ggml.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

void attention_blocks8_blocks8(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::blocks8, Store::blocks8>(a, stream);
}

void attention_blocks4_blocks4(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::blocks4, Store::blocks4>(a, stream);
}

}  // namespace lk::cuda
