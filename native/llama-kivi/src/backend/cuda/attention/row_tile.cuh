// Attention of query rows over tokens stored row by row, 32 tokens of a warp at a time.
//   scores  8 lanes per token, 4 tokens at once; a lane ends with the score of its own token
//   values  one token at a time, kCh channels per lane
#pragma once

#include <type_traits>

#include "backend/cuda/attention/row_channels.cuh"

namespace lk::cuda {

namespace {

// kBits: bits per channel; 16 for full-precision rows. kRing: some of them may be in a q8_0 ring.
template <int kRows, int kCh, int kBits, bool kRing>
struct RowTile {
    static constexpr int kD = kCh * 32;
    static constexpr int kParts = kD / 64;  // loads of 8 channels per lane and token
    static constexpr int kTogether = 4;     // steps of 4 tokens whose loads are in flight together

    float q[kRows][8 * kParts];
    int last[kRows];  // positions
    int window;
    int lane;

    // A row from its address, which the lane that computed it passes to the others.
    using Row = std::conditional_t<kRing, ExactRow, const uint8_t*>;
    __device__ static Row row_at(unsigned long long address) {
        if constexpr (kRing) {
            return ExactRow(address);
        } else {
            return reinterpret_cast<const uint8_t*>(address);
        }
    }

    __device__ void load_query(int r, const float* row, float factor, int position) {
#pragma unroll
        for (int j = 0; j < kParts; ++j) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                q[r][8 * j + i] = row[64 * j + lane % 8 * 8 + i] * factor;
            }
        }
        last[r] = position;
    }

    // Scores of the lane's own token. k_row: address of its keys. n: tokens of the tile.
    __device__ __forceinline__ void multiply_keys(unsigned long long k_row, int n, float (&score)[kRows]) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            score[r] = 0;
        }
#pragma unroll
        for (int batch = 0; batch < 8; batch += kTogether) {
            if (4 * batch >= n) {
                break;
            }
            std::conditional_t<kRing, RingChannels<8>, Channels<kBits, 8>> k[kTogether][kParts];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                const Row row = row_at(__shfl_sync(kAllLanes, k_row, 4 * (batch + i) + lane / 8));
#pragma unroll
                for (int j = 0; j < kParts; ++j) {
                    k[i][j] = {row, 64 * j + lane % 8 * 8};
                }
            }
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                float dot[kRows] = {};
#pragma unroll
                for (int j = 0; j < kParts; ++j) {
                    float x[8];
                    const float scale = k[i][j].decode(x);
#pragma unroll
                    for (int r = 0; r < kRows; ++r) {
                        float part = 0;
#pragma unroll
                        for (int c = 0; c < 8; ++c) {
                            part += x[c] * q[r][8 * j + c];
                        }
                        dot[r] += scale * part;
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
    }

    // Adds values, weighted by probabilities.
    __device__ __forceinline__ void add_values(unsigned long long v_row, int n, const float (&probability)[kRows],
                                               float (&out)[kRows][kCh]) const {
        constexpr int kStep = 8;
#pragma unroll
        for (int first = 0; first < 32; first += kStep) {
            if (first >= n) {
                break;
            }
#pragma unroll
            for (int t = first; t < first + kStep; ++t) {
                const Row row = row_at(__shfl_sync(kAllLanes, v_row, t));
                float v[kCh];
                const std::conditional_t<kRing, RingChannels<kCh>, Channels<kBits, kCh>> channels(row, lane * kCh);
                const float scale = channels.decode(v);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    const float p = scale * __shfl_sync(kAllLanes, probability[r], t);
#pragma unroll
                    for (int c = 0; c < kCh; ++c) {
                        out[r][c] += p * v[c];
                    }
                }
            }
        }
    }

    // Adds the first n <= 32 tokens of a tile. token, k_row, v_row: the lane's token and the addresses of its rows,
    // which are valid in every lane.
    __device__ __forceinline__ void add(int n, int token, unsigned long long k_row, unsigned long long v_row,
                                        Softmax<kRows, kCh>& sum) const {
        float score[kRows];
        multiply_keys(k_row, n, score);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const bool seen = lane < n && token <= last[r] && (window == 0 || token > last[r] - window);
            score[r] = sum.add(r, seen ? score[r] : -INFINITY);
        }
        add_values(v_row, n, score, sum.out);
    }
};

}  // namespace

}  // namespace lk::cuda
