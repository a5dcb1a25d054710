// Keys in four bits.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

void attention_codes4_exact(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes4, Store::exact>(a, stream);
}

void attention_codes4_codes2(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes4, Store::codes2>(a, stream);
}

void attention_codes4_codes4(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes4, Store::codes4>(a, stream);
}

}  // namespace lk::cuda
