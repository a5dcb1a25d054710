// Keys in two bits.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

void attention_codes2_exact(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes2, Store::exact>(a, stream);
}

void attention_codes2_codes2(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes2, Store::codes2>(a, stream);
}

void attention_codes2_codes4(const AttentionWork& a, cudaStream_t stream) {
    launch_width<Store::codes2, Store::codes4>(a, stream);
}

}  // namespace lk::cuda
