// Merges the softmax states of a thread block's warps into a split's result, and undoes the rotation of values.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

// Shared memory of join_parts: float [warps, rows, D + 2].
__host__ __device__ inline int join_bytes(int rows, int d, int n_warps = kJoinWarps) {
    return n_warps * rows * (d + 2) * 4;
}

// Where a warp stores its part of a row for join_parts: maximum, sum, D values.
template <int kRows, int kD>
__device__ float* warp_part(float* shared, int warp, int r) {
    return shared + (warp * kRows + r) * (kD + 2);
}

// Hadamard transform, times sqrt(kCh * 32), of a row of which lanes have kCh consecutive channels each.
template <int kCh>
__device__ __forceinline__ void hadamard_row(int lane, float (&x)[kCh]) {
#pragma unroll
    for (int half = 1; half < kCh; half *= 2) {
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            if ((c & half) == 0) {
                const float u = x[c];
                const float v = x[c + half];
                x[c] = u + v;
                x[c + half] = u - v;
            }
        }
    }
#pragma unroll
    for (int other = 1; other < 32; other *= 2) {
        const float sign = (lane & other) != 0 ? -1.0f : 1.0f;
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            x[c] = fmaf(sign, x[c], __shfl_xor_sync(kAllLanes, x[c], other));
        }
    }
}

// Reads or writes a lane's consecutive channels, two at a time where kCh is even: rows start at even distances.
template <int kCh>
__device__ __forceinline__ void read_channels(const float* from, float (&x)[kCh]) {
#pragma unroll
    for (int c = 0; c < kCh; c += kCh % 2 == 0 ? 2 : 1) {
        if constexpr (kCh % 2 == 0) {
            const float2 two = *reinterpret_cast<const float2*>(from + c);
            x[c] = two.x;
            x[c + 1] = two.y;
        } else {
            x[c] = from[c];
        }
    }
}
template <int kCh>
__device__ __forceinline__ void write_channels(const float (&x)[kCh], int n, float* to) {
#pragma unroll
    for (int c = 0; c < kCh; c += kCh % 2 == 0 ? 2 : 1) {
        if (c >= n) {
            break;
        }
        if constexpr (kCh % 2 == 0) {
            *reinterpret_cast<float2*>(to + c) = make_float2(x[c], x[c + 1]);
        } else {
            to[c] = x[c];
        }
    }
}

// Merges the parts stored by the warps and writes the block's rows to a.partial, or to a.out if there is one split. A
// warp merges whole rows. kRotated: values are rotated. mu: their centre, null if it is zero.
template <int kRows, int kD, bool kRotated, int kWarps = kJoinWarps>
__device__ void join_parts(const AttentionWork& a, int split, const QueryRows& rows, const uint16_t* mu,
                           float* shared) {
    constexpr int kCh = kD / 32;
    const int lane = threadIdx.x % 32;
    const int own = lane * kCh;           // first channel
    const int n_own = a.head_size - own;  // the row may be padded: channels from here on are not written
    __syncthreads();
#pragma unroll 1
    for (int r = warp_index(); r < rows.n; r += kWarps) {
        float largest[kWarps];
        float top = -INFINITY;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            largest[w] = warp_part<kRows, kD>(shared, w, r)[0];
            top = fmaxf(top, largest[w]);
        }
        float mass = 0;
        float x[kCh] = {};
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            const float* const part = warp_part<kRows, kD>(shared, w, r);
            float values[kCh];
            read_channels<kCh>(part + 2 + own, values);
            const float weight = largest[w] == -INFINITY ? 0.0f : __expf(largest[w] - top);
            mass += weight * part[1];
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                x[c] += weight * values[c];
            }
        }
        if constexpr (kRotated) {
            hadamard_row<kCh>(lane, x);
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                const float centre = mu != nullptr && mass > 0 ? mass * half_bits_to_float(mu[own + c]) : 0.0f;
                x[c] = x[c] * rsqrtf(static_cast<float>(kD)) + centre;
            }
        }
        const int d = a.head_size;
        if (a.n_page_splits + a.n_splits == 1) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                x[c] /= mass;
            }
            write_channels<kCh>(x, n_own, a.out + rows.output(r) * d + own);
            continue;
        }
        float* const to = a.partial + (static_cast<size_t>(split) * a.n_rows * a.n_head + rows.output(r)) * (d + 2);
        write_channels<kCh>(x, n_own, to + 2 + own);
        if (lane == 0) {
            *reinterpret_cast<float2*>(to) = make_float2(top, mass);
        }
    }
}

// The same from registers. A lane has kCh consecutive channels.
template <int kRows, int kCh, bool kRotated, int kWarps = kJoinWarps>
__device__ void join_warps(const AttentionWork& a, int split, const Softmax<kRows, kCh>& own, const QueryRows& rows,
                           const uint16_t* mu, float* shared) {
    constexpr int kD = kCh * 32;
    const int lane = threadIdx.x % 32;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        float* to = warp_part<kRows, kD>(shared, threadIdx.x / 32, r);
        const float total = warp_sum(own.sum[r]);
        if (lane == 0) {
            to[0] = own.largest[r];
            to[1] = total;
        }
        write_channels<kCh>(own.out[r], kCh, to + 2 + lane * kCh);
    }
    join_parts<kRows, kD, kRotated, kWarps>(a, split, rows, mu, shared);
}

}  // namespace

}  // namespace lk::cuda
