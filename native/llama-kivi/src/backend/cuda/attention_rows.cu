// Attention of few query rows over rows in full precision: pages of f16; or sinks, ring and the call's own rows beside pages
// of codes. A warp takes 32 tokens by itself, and needs no other until the end.
//   scores  8 lanes a token, 4 tokens at once; a lane ends with the score of its own token
//   values  a token at a time, kCh channels a lane
#include "backend/cuda/attention_common.cuh"

namespace lk::cuda {

namespace {

// The tokens a segment has in full precision, in order: sinks, then those from page_tokens on. In a cache of f16 these are
// all tokens, and page_tokens is 0.
struct ExactTokens {
    int n_sinks;
    int rest;  // the token that follows the sinks

    __device__ explicit ExactTokens(const SegmentWork& s) : n_sinks(min(s.k.n_sinks, s.page_tokens)), rest(s.page_tokens) {}
    __device__ int count(int n_tokens) const { return n_sinks + n_tokens - rest; }
    __device__ int token(int i) const { return i < n_sinks ? i : rest + i - n_sinks; }
};

template <int kRows, int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_rows_kernel(const AttentionWork a) {
    extern __shared__ __align__(16) float joined[];
    constexpr int kD = kCh * 32;
    constexpr int kParts = kD / 64;  // loads of 8 channels a lane for a token
    constexpr int kTogether = 4;     // steps of 4 tokens whose loads are under way at once

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int head = rows.head();
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int position = rows.position(rows.n - 1);  // of the last row
    const ExactTokens tokens(seg);
    const int count = tokens.count(position + 1);
    const int first_seen = a.window > 0 ? max(0, rows.position(0) + 1 - a.window) : 0;
    const int first_tile = first_seen > tokens.rest ? (tokens.n_sinks + first_seen - tokens.rest) / 32 : 0;
    const int n_tiles = (count + 31) / 32 - first_tile;
    const int per_split = (n_tiles + a.n_splits - 1) / a.n_splits;
    const int begin = first_tile + blockIdx.y * per_split;
    const int end = min(begin + per_split, first_tile + n_tiles);

    float q[kRows][8 * kParts];
    int last[kRows];
    float largest[kRows];
    float sum[kRows];
    float out[kRows][kCh];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const float* row = a.q + rows.output(min(r, rows.n - 1)) * kD;
#pragma unroll
        for (int j = 0; j < kParts; ++j) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                q[r][8 * j + i] = row[64 * j + lane % 8 * 8 + i] * a.scale;
            }
        }
        last[r] = rows.position(min(r, rows.n - 1));
        largest[r] = -INFINITY;
        sum[r] = 0;
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            out[r][c] = 0;
        }
    }

    for (int tile = begin + warp; tile < end; tile += kJoinWarps) {
        const int index = tile * 32 + lane;
        const int token = tokens.token(min(index, count - 1));
        const auto k_row = reinterpret_cast<unsigned long long>(exact_row(seg.k, a.k, head, kD, token));
        const auto v_row = reinterpret_cast<unsigned long long>(exact_row(seg.v, a.v, head, kD, token));

        float score[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            score[r] = 0;
        }
#pragma unroll
        for (int batch = 0; batch < 8; batch += kTogether) {
            uint4 words[kTogether][kParts];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                const auto* row = reinterpret_cast<const uint16_t*>(
                    __shfl_sync(kAllLanes, k_row, 4 * (batch + i) + lane / 8));
#pragma unroll
                for (int j = 0; j < kParts; ++j) {
                    words[i][j] = *reinterpret_cast<const uint4*>(row + 64 * j + lane % 8 * 8);
                }
            }
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                float dot[kRows] = {};
#pragma unroll
                for (int j = 0; j < kParts; ++j) {
                    const unsigned w[4] = {words[i][j].x, words[i][j].y, words[i][j].z, words[i][j].w};
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&w[c]));
#pragma unroll
                        for (int r = 0; r < kRows; ++r) {
                            dot[r] += pair.x * q[r][8 * j + 2 * c] + pair.y * q[r][8 * j + 2 * c + 1];
                        }
                    }
                }
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    dot[r] += __shfl_xor_sync(kAllLanes, dot[r], 1);
                    dot[r] += __shfl_xor_sync(kAllLanes, dot[r], 2);
                    dot[r] += __shfl_xor_sync(kAllLanes, dot[r], 4);
                    const float mine = __shfl_sync(kAllLanes, dot[r], lane % 4 * 8);
                    score[r] = lane / 4 == batch + i ? mine : score[r];
                }
            }
        }

#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const bool seen = index < count && token <= last[r] && (a.window == 0 || token > last[r] - a.window);
            score[r] = seen ? score[r] : -INFINITY;
            const float now = fmaxf(largest[r], warp_max_any(score[r]));
            const float base = now == -INFINITY ? 0.0f : now;
            if (now > largest[r]) {
                const float correction = __expf(largest[r] - base);
                sum[r] *= correction;
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    out[r][c] *= correction;
                }
                largest[r] = now;
            }
            score[r] = __expf(score[r] - base);
            sum[r] += score[r];
        }

#pragma unroll 8
        for (int t = 0; t < 32; ++t) {
            const auto* row = reinterpret_cast<const uint16_t*>(__shfl_sync(kAllLanes, v_row, t)) + lane * kCh;
            float v[kCh];
            if constexpr (kCh == 4) {
                const uint2 two = *reinterpret_cast<const uint2*>(row);
                const float2 x = __half22float2(*reinterpret_cast<const __half2*>(&two.x));
                const float2 y = __half22float2(*reinterpret_cast<const __half2*>(&two.y));
                v[0] = x.x, v[1] = x.y, v[2] = y.x, v[3] = y.y;
            } else {
                const float2 x = __half22float2(*reinterpret_cast<const __half2*>(row));
                v[0] = x.x, v[1] = x.y;
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const float p = __shfl_sync(kAllLanes, score[r], t);
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    out[r][c] += p * v[c];
                }
            }
        }
    }
    join_warps<kRows, kCh, false>(a, a.n_page_splits + blockIdx.y, largest, sum, out, rows, nullptr,
                                  joined);
}

template <int kRows, int kCh>
AttentionKernel kernel() {
    return {reinterpret_cast<const void*>(attention_rows_kernel<kRows, kCh>), join_bytes(kRows, kCh * 32), kRows};
}

}  // namespace

AttentionKernel rows_kernel(const AttentionWork& a) {
    const bool one = a.max_rows * (a.n_head / a.n_head_kv) == 1;
    if (a.head_size == 128) {
        return one ? kernel<1, 4>() : kernel<4, 4>();
    }
    return one ? kernel<1, 2>() : kernel<4, 2>();
}

}  // namespace lk::cuda
