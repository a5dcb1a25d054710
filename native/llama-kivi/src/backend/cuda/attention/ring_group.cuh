// Attention of up to four query rows of one token over the rows of a q8_0 ring, on the integer units of tensor cores:
// the variant of ring_blocks.cuh for grouped heads. mma of 16 x 8 x 32 has columns for 4 pairs (query row, plane), and
// blocks are multiplied one after another. With g = lane / 4 and j = lane % 4, lane g has column g of the second
// operand: plane g % 2 of query row g / 2; lane j the result's columns 2 j and 2 j + 1: both planes of query row j.
//   scores  rows are tokens 2 g and 2 g + 1 of 16; the inner dimension has the 32 codes of a block
//   values  rows are channels of word g; the inner dimension has the 32 tokens
#pragma once

#include "backend/cuda/attention/ring_blocks.cuh"

namespace lk::cuda {

namespace {

template <int kD>
struct RingGroup {
    using Blocks = RingBlocks<kD>;
    static constexpr int kTokens = Blocks::kTokens;
    static constexpr int kRowBytes = Blocks::kRowBytes;
    static constexpr int kBlocks = kD / 32;
    static constexpr int kProbRow = kTokens + 8;  // padded so that lanes j write to different banks
    static constexpr int kSharedBytes = 2 * Blocks::kTileBytes + kFewRows * kProbRow * 4;
    static_assert(kSharedBytes % 16 == 0 && kFewRows == 4);

    // The query rows: two planes of signed bytes.
    struct Queries {
        unsigned b[kBlocks][2];
        float step;  // of row j
    };

    // The softmax state of row j, and channels channel(b, 0) to channel(b, 3) of its values.
    struct Sums {
        float largest = -INFINITY;
        float sum = 0;  // over the lane's tokens
        float out[kBlocks][4] = {};
    };

    Blocks blocks;
    int g;
    int j;

    __device__ RingGroup(char* own, int lane) : blocks(own, lane), g(lane / 4), j(lane % 4) {}

    __device__ float* probabilities() const { return blocks.probabilities(); }  // [row, kProbRow]

    // Zeros what the copies leave: rows after a tile's last one are multiplied by zeros, so they must not be NaN.
    __device__ void clear() const {
#pragma unroll
        for (int i = 0; i < 2 * Blocks::kTileBytes; i += 16 * 32) {
            const int at = i + 16 * blocks.lane;
            if (at < 2 * Blocks::kTileBytes) {
                *reinterpret_cast<uint4*>(blocks.shared + at) = uint4{};
            }
        }
        __syncwarp();
    }

    __device__ void load_queries(const AttentionWork& a, const QueryRows& rows, Queries& q) const {
        const float* const row = a.q + rows.output(min(g / 2, rows.n - 1)) * kD;
        float x[kBlocks][8];
        float top = 0;
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                x[b][i] = row[32 * b + Blocks::query_channel(b, j, i)] * a.scale;
                top = fmaxf(top, fabsf(x[b][i]));
            }
        }
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
        constexpr float kLargest = 127 * 128;
        const float inverse = finite_quotient(kLargest, top);
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            q.b[b][0] = q.b[b][1] = 0;
            Blocks::pack_query(x[b], inverse, g % 2, q.b[b]);
        }
        q.step = __shfl_sync(kAllLanes, top / kLargest, 8 * j);
    }

    // The token of score i of 4.
    __device__ int token(int i) const {
        return 16 * (i / 2) + 2 * g + i % 2;
    }

    // Scores of row j. rows: the tile's first row in shared memory.
    __device__ void multiply_keys(const char* rows, const Queries& q, float (&score)[4]) const {
        const int split_word = j < 3 ? 5 + j : 0;
        const unsigned split = j < 3 ? 0x3210u : 0x3254u;  // codes 30, 31, 0 and 1 of a first block
        const auto word = [](const char* row, int i) { return Blocks::word(row, i); };
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const char* const pair = rows + (16 * h + 2 * g) * kRowBytes;  // the rows of two tokens
            float total[2] = {};
#pragma unroll
            for (int p = 0; p < kBlocks / 2; ++p) {
                const char* const a = pair + 68 * p;
                const char* const b = a + kRowBytes;
                const unsigned middle[2] = {word(a, 8), word(b, 8)};
                int first[4] = {};
                multiply_signed(first, word(a, 1 + j), word(b, 1 + j),
                                __byte_perm(word(a, split_word), middle[0], split),
                                __byte_perm(word(b, split_word), middle[1], split), q.b[2 * p][0], q.b[2 * p][1]);
                int second[4] = {};
                multiply_signed(second, word(a, 9 + j), word(b, 9 + j), word(a, 13 + j), word(b, 13 + j),
                                q.b[2 * p + 1][0], q.b[2 * p + 1][1]);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const float scale = half_bits_to_float(*reinterpret_cast<const uint16_t*>(r == 0 ? a : b));
                    const float next = half_bits_to_float(static_cast<uint16_t>(middle[r] >> 16));
                    total[r] += static_cast<float>(128 * first[2 * r] + first[2 * r + 1]) * scale;
                    total[r] += static_cast<float>(128 * second[2 * r] + second[2 * r + 1]) * next;
                }
            }
            score[2 * h] = total[0] * q.step;
            score[2 * h + 1] = total[1] * q.step;
        }
    }

    // Turns scores into unnormalized probabilities and stores them for add_values.
    __device__ void update_softmax(float (&score)[4], Sums& sums) const {
        float top = fmaxf(fmaxf(score[0], score[1]), fmaxf(score[2], score[3]));
#pragma unroll
        for (int other = 4; other < 32; other *= 2) {
            top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, other));
        }
        const float now = fmaxf(sums.largest, top);
        const float base = now == -INFINITY ? 0.0f : now;
        if (__any_sync(kAllLanes, now > sums.largest)) {
            const float correction = __expf(sums.largest - base);  // 0 if there was nothing before
            sums.sum *= correction;
#pragma unroll
            for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    sums.out[b][c] *= correction;
                }
            }
        }
        sums.largest = now;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            score[i] = __expf(score[i] - base);
            sums.sum += score[i];
        }
        float* const to = probabilities() + j * kProbRow + 2 * g;
        *reinterpret_cast<float2*>(to) = make_float2(score[0], score[1]);
        *reinterpret_cast<float2*>(to + 16) = make_float2(score[2], score[3]);
    }

    // Adds the values of the tile's tokens, weighted by probabilities().
    __device__ void add_values(const char* rows, Sums& sums) const {
        const float4* const p = reinterpret_cast<const float4*>(probabilities() + g / 2 * kProbRow) + j;
        const float4 early = p[0];
        const float4 late = p[4];
        const float probability[8] = {early.x, early.y, early.z, early.w, late.x, late.y, late.z, late.w};
        const char* const own = rows + 4 * j * kRowBytes;  // tokens 4 j + i and 16 + 4 j + i
        const auto row = [&](int i) { return own + (i / 4 * 16 + i % 4) * kRowBytes; };
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            const int first = 17 * (b / 2) + 8 * (b % 2);  // the word with the scale
            unsigned extra[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                extra[i] = Blocks::word(row(i), first);
            }
            unsigned packed[2];
            const float step = pack_weights(probability, extra, b % 2 * 16, packed);
            // Lane 7 of g has codes 30, 31, 0 and 1 of a first block.
            const unsigned split = g == 7 ? 0x7610u : 0x3210u;
            unsigned a[4][2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                unsigned t[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    t[i] = Blocks::word(row(4 * h + i), first + 1 + g);
                    if (b % 2 == 0) {
                        t[i] = __byte_perm(t[i], extra[4 * h + i], split);
                    }
                }
                Blocks::transpose(t, h, a);
            }
            int sum[2][4] = {};
            multiply_unsigned(sum[0], a[0][0], a[1][0], a[0][1], a[1][1], packed[0], packed[1]);
            multiply_unsigned(sum[1], a[2][0], a[3][0], a[2][1], a[3][1], packed[0], packed[1]);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int* const both = sum[c / 2] + 2 * (c % 2);
                sums.out[b][c] += step * static_cast<float>(256 * both[0] + both[1]);
            }
        }
    }

    // Stores the state as float [kD + 2]: maximum, sum, values. Called by all lanes; to: of row j.
    __device__ void write(const Sums& sums, float* to) const {
        float total = sums.sum;
#pragma unroll
        for (int other = 4; other < 32; other *= 2) {
            total += __shfl_xor_sync(kAllLanes, total, other);
        }
        if (g == 0) {
            *reinterpret_cast<float2*>(to) = make_float2(sums.largest, total);
        }
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            const int first = 4 * g + (b % 2 == 0 ? 2 : 0);
            float* const own = to + 2 + 32 * b;
            *reinterpret_cast<float2*>(own + first) = make_float2(sums.out[b][0], sums.out[b][1]);
            *reinterpret_cast<float2*>(own + (first + 2) % 32) = make_float2(sums.out[b][2], sums.out[b][3]);
        }
    }

private:
    // Probabilities times the scales in `words` as bytes of the lane's plane. Returns the unit of row j.
    __device__ float pack_weights(const float (&probability)[8], const unsigned (&words)[8], unsigned shift,
                                  unsigned (&packed)[2]) const {
        float weight[8];
        float top = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            weight[i] = probability[i] * half_bits_to_float(static_cast<uint16_t>(words[i] >> shift));
            top = fmaxf(top, weight[i]);
        }
        return __shfl_sync(kAllLanes, Blocks::pack_weights(weight, top, g % 2, packed), 8 * j);
    }
};

}  // namespace

}  // namespace lk::cuda
