// Copies full-precision rows into sinks and rings.
#include "backend/cuda/append/rows.cuh"

namespace lk::cuda {

namespace {

// Copies n bytes, an even number, with one warp.
__device__ void copy_bytes(const uint8_t* from, int n, uint8_t* to) {
    for (int i = threadIdx.x % 32; i < n / 2; i += 32) {
        reinterpret_cast<uint16_t*>(to)[i] = reinterpret_cast<const uint16_t*>(from)[i];
    }
}

// Copies a row of d halves with one warp.
__device__ void copy_row(const uint16_t* from, int d, uint16_t* to) {
    for (int c = threadIdx.x % 32; c < d / 2; c += 32) {
        reinterpret_cast<uint32_t*>(to)[c] = reinterpret_cast<const uint32_t*>(from)[c];
    }
}

// A thread block copies row blockIdx.x of several heads of a work, either to the sinks or to the ring.
__global__ void commit_rows_kernel(const SideShape shape, const AppendWork* works, int n_heads, bool to_sinks) {
    after_previous();
    const AppendWork& work = works[blockIdx.z];
    const int d = shape.format.head_size;
    const int head = blockIdx.y * kWarps + threadIdx.x / 32;
    if (head >= n_heads) {
        return;
    }
    const HeadRows rows(shape, work, head);
    if (to_sinks) {
        const int i = work.sink_begin + blockIdx.x;
        if (i < work.sink_end) {
            const int token = work.first_token + i;
            copy_row(rows.row(i), d, work.sinks + (static_cast<size_t>(head) * shape.sinks + token) * d);
        }
        return;
    }
    const int i = work.first_kept + blockIdx.x;
    if (i >= work.n_ring + work.n_rows) {
        return;
    }
    const size_t to = static_cast<size_t>(head) * shape.ring_rows + (work.ring_start + i) % shape.ring_rows;
    if (work.ring_blocks != nullptr) {
        const size_t from = static_cast<size_t>(head) * shape.n_ubatch + i - work.n_ring;
        copy_bytes(work.staged_blocks + from * shape.ring_row_bytes, shape.ring_row_bytes,
                   work.ring_blocks + to * shape.ring_row_bytes);
        return;
    }
    copy_row(rows.row(i), d, work.ring + to * d);
}

}  // namespace

void commit_rows(const SideShape& shape, const AppendWork* works, int n_works, int max_sinks, int max_kept, int n_heads,
                 Stream& stream) {
    const auto copy = [&](int max_rows, bool to_sinks) {
        if (max_rows > 0) {
            const dim3 grid(max_rows, (n_heads + kWarps - 1) / kWarps, n_works);
            queue(commit_rows_kernel, grid, kThreads, 0, stream, shape, works, n_heads, to_sinks);
        }
    };
    copy(max_sinks, true);  // sinks first: a new row may overwrite the ring row of a sink
    copy(max_kept, false);
}

}  // namespace lk::cuda
