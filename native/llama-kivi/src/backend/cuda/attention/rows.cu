// Attention of few query rows over tokens stored row by row. Either full precision: pages of f16, or sinks, ring (f16
// or q8_0) and staged rows beside pages of codes. Or pages of q8_0 or q4_0, with queries and values in their rotated
// frame. Each warp processes 32 tokens at a time; warps synchronize only at the end.
//   scores  8 lanes per token, 4 tokens at once; a lane ends with the score of its own token
//   values  one token at a time, kCh channels per lane
#include <type_traits>

#include "backend/cuda/attention/half_blocks.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/words.cuh"

namespace lk::cuda {

namespace {

// A segment's full-precision tokens in order: sinks, then tokens from page_tokens on. In an f16 cache page_tokens is 0,
// so these are all tokens.
struct ExactTokens {
    int n_sinks;
    int rest;  // the token after the sinks

    __device__ explicit ExactTokens(const SegmentWork& s)
        : n_sinks(min(s.k.n_sinks, s.page_tokens)), rest(s.page_tokens) {}
    __device__ int count(int n_tokens) const { return n_sinks + n_tokens - rest; }
    __device__ int token(int i) const { return i < n_sinks ? i : rest + i - n_sinks; }
};

// A segment's tokens in pages of q8_0 or q4_0.
struct PagedTokens {
    static constexpr int n_sinks = 0;
    static constexpr int rest = 0;
    int n;

    __device__ explicit PagedTokens(const SegmentWork& s) : n(s.page_tokens) {}
    __device__ int count(int) const { return n; }
    __device__ int token(int i) const { return i; }
};

// A token's row of q8_0 or q4_0 blocks.
__device__ const uint8_t* block_row(const SideWork& side, const SideShape& shape, int head, int token) {
    const Run& run = side.runs[find_run(side.runs, side.n_runs, token)];
    return run.block + static_cast<size_t>(head) * shape.format.page_bytes +
           static_cast<size_t>(run.first + token - run.start) * shape.format.row_bytes();
}

// Channels [c, c + kCount) of a row as stored; c is a multiple of kCount.
template <int kBits, int kCount>
struct Channels {
    static constexpr int kWords = kBits == 16 ? kCount / 2 : (kCount + 3) / 4;
    unsigned words[kWords];
    uint16_t scale = 0;  // q8_0, q4_0: scale of the block
    int shift = 0;

    __device__ Channels() = default;

    __device__ Channels(const uint8_t* row, int c) {
        if constexpr (kBits == 16) {
            const uint8_t* const p = row + 2 * c;
            if constexpr (kCount == 8) {
                const uint4 w = *reinterpret_cast<const uint4*>(p);
                words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
            } else if constexpr (kCount == 4) {
                const uint2 w = *reinterpret_cast<const uint2*>(p);
                words[0] = w.x, words[1] = w.y;
            } else {
                words[0] = *reinterpret_cast<const unsigned*>(p);
            }
        } else {
            const uint8_t* const block = row + c / 32 * (2 + 4 * kBits);
            const uint8_t* const p = block + 2 + c % (4 * kBits);
            scale = load_u16(block);
            shift = c % 32 / (4 * kBits) * 4;
            if constexpr (kCount == 8) {
                load_words(p, words);
            } else {
                words[0] = kCount == 4 ? load_u32(p) : load_u16(p);
            }
        }
    }

    // Decodes channels of a block without their scale, and returns the scale.
    __device__ float decode(float (&x)[kCount]) const {
        if constexpr (kBits == 16) {
#pragma unroll
            for (int i = 0; i < kWords; ++i) {
                const float2 pair = __half22float2(halves(words[i]));
                x[2 * i] = pair.x;
                x[2 * i + 1] = pair.y;
            }
            return 1;
        } else {
            // Byte b in the mantissa of 2^23 is the float 2^23 + b.
            constexpr unsigned kMantissa = 0x4b000000u;
            constexpr float kLess = 8388608.0f + (kBits == 8 ? 128 : 8);
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                const unsigned word = kBits == 8 ? words[i / 4] ^ 0x80808080u : words[i / 4] >> shift & 0x0f0f0f0fu;
                x[i] = __uint_as_float(__byte_perm(word, kMantissa, 0x7440 | i % 4)) - kLess;
            }
            return half_bits_to_float(scale);
        }
    }
};

// The same of a full-precision row: halves, or blocks of a q8_0 ring.
template <int kCount>
struct RingChannels : Channels<16, kCount> {
    using Codes = Channels<8, kCount>;
    bool in_blocks = false;

    __device__ RingChannels() = default;

    __device__ RingChannels(ExactRow row, int c) : in_blocks(row.in_blocks()) {
        if (!in_blocks) {
            static_cast<Channels<16, kCount>&>(*this) = Channels<16, kCount>(row.bytes(), c);
            return;
        }
        const Codes codes(row.bytes(), c);
#pragma unroll
        for (int i = 0; i < Codes::kWords; ++i) {
            this->words[i] = codes.words[i];
        }
        this->scale = codes.scale;
    }

    __device__ float decode(float (&x)[kCount]) const {
        if (!in_blocks) {
            return Channels<16, kCount>::decode(x);
        }
        Codes codes;
#pragma unroll
        for (int i = 0; i < Codes::kWords; ++i) {
            codes.words[i] = this->words[i];
        }
        codes.scale = this->scale;
        return codes.decode(x);
    }
};

// kBits: bits per channel; 16 for full-precision rows. kRing: some of them may be in a q8_0 ring.
template <int kRows, int kCh, int kBits, bool kRing>
__device__ __forceinline__ void attend_rows(const AttentionWork& a) {
    constexpr bool kExact = kBits == 16;
    if constexpr (kExact) {
        after_previous();
    } else {
        beside_previous();
    }
    extern __shared__ __align__(16) float joined[];
    constexpr int kD = kCh * 32;
    constexpr int kParts = kD / 64;  // loads of 8 channels per lane and token
    constexpr int kTogether = 4;     // steps of 4 tokens whose loads are in flight together
    constexpr bool kHalfBlocks = kRing && kRows == 1;
    constexpr int kOut = kHalfBlocks ? HalfBlock::kChannels : kCh;  // channels of a lane

    const SegmentWork& seg = a.segments[blockIdx.z];
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int n_splits = kExact ? a.n_splits : a.n_page_splits;
    const int head = rows.head();
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int position = rows.position(rows.n - 1);  // of the last row
    const std::conditional_t<kExact, ExactTokens, PagedTokens> tokens(seg);
    const int count = tokens.count(position + 1);
    const int first_seen = a.window > 0 ? max(0, rows.position(0) + 1 - a.window) : 0;
    const int first_tile = first_seen > tokens.rest ? (tokens.n_sinks + first_seen - tokens.rest) / 32 : 0;
    const int n_tiles = (count + 31) / 32 - first_tile;
    const SplitRange range(a, n_tiles, n_splits);
    const int begin = first_tile + range.begin;
    const int end = first_tile + range.end;

    if (!kExact) {
        for (int i = threadIdx.x; i < kRows * kD; i += blockDim.x) {
            joined[i] = a.q[rows.output(min(i / kD, rows.n - 1)) * kD + i % kD];
        }
        __syncthreads();
        hadamard_rows<kRows, kD>(joined);
    }
    const float factor = kExact ? a.scale : a.scale * rsqrtf(static_cast<float>(kD));
    float q[kRows][8 * kParts];
    int last[kRows];
    float largest[kRows];
    float sum[kRows];
    float out[kRows][kOut];
    const HalfBlocks<kD> half_blocks{lane};
    [[maybe_unused]] float q_part[HalfBlock::kChannels];
    if constexpr (kHalfBlocks) {
#pragma unroll
        for (int c = 0; c < HalfBlock::kChannels; ++c) {
            q_part[c] = a.q[rows.output(0) * kD + lane % HalfBlocks<kD>::kLanes * HalfBlock::kChannels + c] * factor;
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const float* row = kExact ? a.q + rows.output(min(r, rows.n - 1)) * kD : joined + r * kD;
#pragma unroll
        for (int j = 0; j < kParts; ++j) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                q[r][8 * j + i] = row[64 * j + lane % 8 * 8 + i] * factor;
            }
        }
        last[r] = rows.position(min(r, rows.n - 1));
        largest[r] = -INFINITY;
        sum[r] = 0;
#pragma unroll
        for (int c = 0; c < kOut; ++c) {
            out[r][c] = 0;
        }
    }

    // A row from its address, which the lane that computed it passes to the others.
    using Row = std::conditional_t<kRing, ExactRow, const uint8_t*>;
    const auto row_at = [](unsigned long long address) {
        if constexpr (kRing) {
            return ExactRow(address);
        } else {
            return reinterpret_cast<const uint8_t*>(address);
        }
    };
    for (int tile = begin + warp; tile < end; tile += kJoinWarps) {
        const int index = tile * 32 + lane;
        const int token = tokens.token(min(index, count - 1));
        const auto row_of = [&](const SideWork& side, const SideShape& shape) {
            if constexpr (kExact) {
                return exact_row(side, shape, head, kD, token).bits;
            } else {
                return reinterpret_cast<unsigned long long>(block_row(side, shape, head, token));
            }
        };
        const unsigned long long k_row = row_of(seg.k, a.k);
        const unsigned long long v_row = row_of(seg.v, a.v);

        float score[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            score[r] = 0;
        }
        if constexpr (kHalfBlocks) {
            score[0] = half_blocks.score(k_row, q_part);
        } else {
#pragma unroll
            for (int batch = 0; batch < 8; batch += kTogether) {
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
                for (int c = 0; c < kOut; ++c) {
                    out[r][c] *= correction;
                }
                largest[r] = now;
            }
            score[r] = __expf(score[r] - base);
            sum[r] += score[r];
        }

        if constexpr (kHalfBlocks) {
            half_blocks.add(v_row, score[0], out[0]);
        } else {
#pragma unroll 8
            for (int t = 0; t < 32; ++t) {
                const Row row = row_at(__shfl_sync(kAllLanes, v_row, t));
                float v[kCh];
                const std::conditional_t<kRing, RingChannels<kCh>, Channels<kBits, kCh>> channels(row, lane * kCh);
                const float v_scale = channels.decode(v);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    const float p = v_scale * __shfl_sync(kAllLanes, score[r], t);
#pragma unroll
                    for (int c = 0; c < kCh; ++c) {
                        out[r][c] += p * v[c];
                    }
                }
            }
        }
    }
    float own[kRows][kCh] = {};
    if constexpr (kHalfBlocks) {
        half_blocks.template spread<kCh>(out[0], own[0]);
    } else {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                own[r][c] = out[r][c];
            }
        }
    }
    join_warps<kRows, kCh, !kExact>(a, (kExact ? a.n_page_splits : 0) + blockIdx.y, largest, sum, own, rows, nullptr,
                                    joined);
    if (!kExact) {
        after_previous();
    }
}

template <int kRows, int kCh, int kBits, bool kRing>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_rows_kernel(const AttentionWork a) {
    attend_rows<kRows, kCh, kBits, kRing>(a);
}

// One query row over a q8_0 ring: waits for memory more than it computes, so six thread blocks share a multiprocessor.
template <int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32, 6) attention_ring_row_kernel(const AttentionWork a) {
    attend_rows<1, kCh, 16, true>(a);
}

template <int kRows, int kD, int kBits, bool kRing>
AttentionFunction function() {
    const void* kernel = nullptr;
    if constexpr (kRing && kRows == 1) {
        kernel = reinterpret_cast<const void*>(attention_ring_row_kernel<kD / 32>);
    } else {
        kernel = reinterpret_cast<const void*>(attention_rows_kernel<kRows, kD / 32, kBits, kRing>);
    }
    return {kernel, join_bytes(kRows, kD)};
}

template <int kBits, bool kRing = false>
AttentionFunction function_of_shape(const AttentionVariant& variant) {
    const bool one = variant.n_rows == 1;
    if (!one && variant.n_rows != kFewRows) {
        fail_variant(variant);
    }
    switch (variant.width) {
    case 64:
        return one ? function<1, 64, kBits, kRing>() : function<kFewRows, 64, kBits, kRing>();
    case 128:
        return one ? function<1, 128, kBits, kRing>() : function<kFewRows, 128, kBits, kRing>();
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction rows_function(const AttentionVariant& variant) {
    switch (variant.type) {
    case LK_CACHE_F16:
        return variant.kernel == AttentionKernel::ring_rows ? function_of_shape<16, true>(variant)
                                                            : function_of_shape<16>(variant);
    case LK_CACHE_Q8_0:
        return function_of_shape<8>(variant);
    case LK_CACHE_Q4_0:
        return function_of_shape<4>(variant);
    default:
        fail_variant(variant);
    }
}

}  // namespace lk::cuda
