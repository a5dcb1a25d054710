// Merges the partial attention results of splits.
#include <cmath>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// One thread block of D threads per row and query head of a segment.
__global__ void join_kernel(const AttentionWork a) {
    after_previous();
    const SegmentWork& seg = a.segments[blockIdx.y];
    const int i = blockIdx.x / a.n_head;
    if (i >= seg.n_rows) {
        return;
    }
    const int d = a.head_size;
    const int n_splits = a.n_page_splits + a.n_splits;
    const size_t n_rows = static_cast<size_t>(a.n_rows) * a.n_head;
    const size_t row = static_cast<size_t>(seg.row + i) * a.n_head + blockIdx.x % a.n_head;
    const float* const parts = a.partial + row * (d + 2);
    float largest = -INFINITY;
    for (int s = 0; s < n_splits; ++s) {
        largest = fmaxf(largest, parts[s * n_rows * (d + 2)]);
    }
    float sum = 0;
    float x = 0;
    for (int s = 0; s < n_splits; ++s) {
        const float* const part = parts + s * n_rows * (d + 2);
        const float weight = part[0] == -INFINITY ? 0.0f : __expf(part[0] - largest);
        sum += weight * part[1];
        x += weight * part[2 + threadIdx.x];
    }
    a.out[row * d + threadIdx.x] = x / sum;
}

}  // namespace

void attention_join(const AttentionWork& a, Stream& stream) {
    queue(join_kernel, dim3(a.max_rows * a.n_head, a.n_segments), a.head_size, 0, stream, a);
}

}  // namespace lk::cuda
