// Attention of one query row over whole pages of codes. Where no other row shares the codes, dp4a is nearer to the
// memory's speed than the matrix units of pages.cu.
//
// A warp takes a page by itself and needs no other warp until the end: it reads the codes from memory as they lie, each
// of them once for all query rows, straight into registers.
//   keys    32 tokens at a time: scales folded into weights of 8 bits, dp4a over the quads of channels; a lane ends
//   with
//           the score of its own token
//   values  a lane owns kCh channels; the probabilities of the page's 128 tokens, times their scales, are folded into
//           weights of 8 bits once for each group of channels
// Rows in full precision (sinks, ring, the call's own) are another split, by rows.cu; join.cu merges the splits.
#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

constexpr int kTiles = 4;  // of 32 tokens in a page

// The greatest of a warp, for floats that are not negative.
__device__ inline float warp_max_positive(float x) {
    return __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(x)));
}

// x rounded to an integer of -127..127, in the low byte: adding 1.5 * 2^23 leaves it there.
__device__ inline unsigned low_byte(float x) {
    return __float_as_uint(x + 12582912.0f);
}

// Four low bytes in a word.
__device__ inline unsigned pack(unsigned a, unsigned b, unsigned c, unsigned d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

__device__ inline float signed_byte(unsigned word, int i) {
    return static_cast<float>(static_cast<int8_t>(word >> (8 * i)));
}

// Shared memory of a warp: weights of keys, int8 [rows, code rows]; of values, int8 [channel groups, rows, 128].
__host__ __device__ inline int page_warp_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int fold_k = (rows * k.rows + 15) / 16 * 16;
    return fold_k + v.scale_groups * rows * kv::kPageTokens;
}

// Of a block: what its warps need, and at the end their sums.
__host__ __device__ inline int page_block_bytes(const kv::PageFormat& k, const kv::PageFormat& v, int rows) {
    const int work = kJoinWarps * page_warp_bytes(k, v, rows);
    const int sums = join_bytes(rows, k.head_size);
    return work > sums ? work : sums;
}

// kBits: of a code. kPaper: scales are pairs of halves. Byte scales of 2-bit codes mean refined keys and rotated
// values.
template <int kRows, int kBits, bool kPaper, int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_pages_row_kernel(const AttentionWork a) {
    beside_previous();
    extern __shared__ __align__(16) char shared[];
    constexpr bool kRotated = kBits == 2 && !kPaper;
    constexpr int kD = kCh * 32;
    constexpr int kCodeRows = kRotated ? kD * 5 / 4 : kD;
    constexpr int kQuads = kCodeRows / 4;
    constexpr int kWords = 32 * kBits / 8;        // of a quad in a tile
    constexpr int kTokens = 8 / kBits;            // of a word
    constexpr int kSteps = kQuads * kWords / 32;  // loads of a lane for a tile
    constexpr unsigned kMask = kBits == 2 ? 0x03030303u : 0x0f0f0f0fu;
    constexpr float kMiddle = 0.5f * ((1 << kBits) - 1);
    static_assert(kQuads * kWords % 32 == 0);

    const SegmentWork& seg = a.segments[blockIdx.z];
    const kv::PageFormat& fk = a.k.format;
    const kv::PageFormat& fv = a.v.format;
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int head = rows.head();
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * fv.page_bytes;
    const uint8_t* k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const int n_sinks = seg.k.n_sinks;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const int per_split = (seg.page_runs + a.n_page_splits - 1) / a.n_page_splits;
    const int begin = blockIdx.y * per_split;
    const int end = min(begin + per_split, seg.page_runs);
    char* const own = shared + warp * page_warp_bytes(fk, fv, kRows);
    int8_t* const fold_k = reinterpret_cast<int8_t*>(own);
    int8_t* const fold_v = reinterpret_cast<int8_t*>(own) + (kRows * kCodeRows + 15) / 16 * 16;

    // A lane folds code rows 4 lane .. + 3 (quad `lane`), and refined row `lane`.
    const bool has_quad = lane < kD / 4;
    const float k_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    const float v_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));
    const bool has_refined = kRotated && lane < kD / 4;
    const int refined = has_refined ? *reinterpret_cast<const uint16_t*>(k_table + 4 + 2 * lane) : 0;
    float wide[4] = {1, 1, 1, 1};  // 4 for refined channels, whose base plane holds the high bits
    if (kRotated) {
        for (int i = 0; i < kD / 4; ++i) {
            const int c = __shfl_sync(kAllLanes, refined, i) - 4 * lane;
            if (c >= 0 && c < 4) {
                wide[0] = c == 0 ? 4.0f : wide[0];
                wide[1] = c == 1 ? 4.0f : wide[1];
                wide[2] = c == 2 ? 4.0f : wide[2];
                wide[3] = c == 3 ? 4.0f : wide[3];
            }
        }
    }
    float q[kRows][4];
    float q_refined[kRows];
    int last[kRows];  // position of the row
    float largest[kRows];
    float sum[kRows];  // of the lane's tokens
    float out[kRows][kCh];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const float* row = a.q + rows.output(min(r, rows.n - 1)) * kD;
        const float scale = a.scale * k_factor;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            q[r][i] = has_quad ? row[4 * lane + i] * scale : 0.0f;
        }
        q_refined[r] = has_refined ? row[refined] * scale : 0.0f;
        last[r] = rows.position(r);
        largest[r] = -INFINITY;
        sum[r] = 0;
#pragma unroll
        for (int c = 0; c < kCh; ++c) {
            out[r][c] = 0;
        }
    }

    for (int p = begin + warp; p < end; p += kJoinWarps) {
        const Run run = k_runs[p];
        const uint8_t* const k_page = run.block + k_offset;
        const uint8_t* const v_page = v_runs[p].block + v_offset;

        // Scales of the values of the lane's four tokens; the rotated ones have one each.
        float v_scale[kTiles];
        if (kRotated) {
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                v_scale[t] = byte_scale(v_page[fv.scales_offset + 32 * t + lane]) * v_factor;
            }
        }

        // ---- scores
        float score[kRows][kTiles];
        float step[kRows];
        float bias[kRows];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const unsigned* codes = reinterpret_cast<const unsigned*>(k_page) + tile * kQuads * kWords + lane;
            unsigned words[kSteps];
#pragma unroll
            for (int i = 0; i < kSteps; ++i) {
                words[i] = __ldg(codes + 32 * i);
            }
            if (tile * 32 % fk.group == 0) {
                const int g = tile * 32 / fk.group;
                float s[4] = {};
                float z[4] = {};
                float s_refined = 0;
                if (has_quad) {
                    if (kPaper) {
                        const uint4 pairs =
                            *reinterpret_cast<const uint4*>(k_page + fk.scales_offset + (g * kD + 4 * lane) * 4);
                        const unsigned w[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            s[i] = half_bits_to_float(static_cast<uint16_t>(w[i]));
                            z[i] = half_bits_to_float(static_cast<uint16_t>(w[i] >> 16));
                        }
                    } else {
                        const unsigned w =
                            *reinterpret_cast<const unsigned*>(k_page + fk.scales_offset + g * kD + 4 * lane);
                        const unsigned zeros =
                            *reinterpret_cast<const unsigned*>(k_page + fk.zeros_offset + g * kD + 4 * lane);
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            s[i] = byte_scale(w >> (8 * i) & 0xffu);
                            z[i] = s[i] * 0.25f * signed_byte(zeros, i);
                        }
                    }
                }
                if (has_refined) {
                    s_refined = byte_scale(k_page[fk.scales_offset + g * kD + refined]);
                }
                __syncwarp();  // the weights of the group before are used
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    float w[4];
                    float constant = 0;
                    const float w_refined = q_refined[r] * s_refined;
                    float top = fabsf(w_refined);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        w[i] = q[r][i] * s[i] * wide[i];
                        constant += q[r][i] * z[i] + w[i] * kMiddle;
                        top = fmaxf(top, fabsf(w[i]));
                    }
                    constant += w_refined * kMiddle;
                    top = warp_max_positive(top);
                    const float inverse = finite_quotient(127.0f, top);
                    const unsigned packed = pack(low_byte(w[0] * inverse), low_byte(w[1] * inverse),
                                                 low_byte(w[2] * inverse), low_byte(w[3] * inverse));
                    int total = __dp4a(static_cast<int>(packed), 0x01010101, 0);
                    if (has_quad) {
                        *reinterpret_cast<unsigned*>(fold_k + r * kCodeRows + 4 * lane) = packed;
                    }
                    if (kRotated) {
                        const int8_t code = static_cast<int8_t>(low_byte(w_refined * inverse));
                        total += code;
                        if (has_refined) {
                            fold_k[r * kCodeRows + kD + lane] = code;
                        }
                    }
                    total = __reduce_add_sync(kAllLanes, total);
                    step[r] = top / 127.0f;
                    bias[r] = warp_sum(constant) - step[r] * kMiddle * static_cast<float>(total);
                }
                __syncwarp();
            }

            int dot[kRows][kTokens];
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    dot[r][t] = 0;
                }
            }
#pragma unroll
            for (int i = 0; i < kSteps; ++i) {
                const int quad = lane / kWords + 32 / kWords * i;
                int parts[kTokens];
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    parts[t] = static_cast<int>(words[i] >> (kBits * t) & kMask);
                }
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    const int weights = *reinterpret_cast<const int*>(fold_k + r * kCodeRows + 4 * quad);
#pragma unroll
                    for (int t = 0; t < kTokens; ++t) {
                        dot[r][t] = __dp4a(parts[t], weights, dot[r][t]);
                    }
                }
            }
            // Token kWords * t + w of the tile has its sums in the lanes of word w: lane kWords * t + w takes it.
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                int mine = 0;
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    int total = dot[r][t];
#pragma unroll
                    for (int offset = kWords; offset < 32; offset *= 2) {
                        total += __shfl_xor_sync(kAllLanes, total, offset);
                    }
                    mine = lane / kWords == t ? total : mine;
                }
                score[r][tile] = step[r] * static_cast<float>(mine) + bias[r];
            }
        }

        // ---- softmax; score becomes the probability, up to the sum
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float top = -INFINITY;
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                const int in_run = 32 * t + lane - run.first;
                const int token = run.start + in_run;
                const bool seen = in_run >= 0 && in_run < run.count && token >= n_sinks &&
                                  (a.window == 0 || token > last[r] - a.window);
                score[r][t] = seen ? score[r][t] : -INFINITY;
                top = fmaxf(top, score[r][t]);
            }
            const float now = fmaxf(largest[r], warp_max_any(top));
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
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                score[r][t] = __expf(score[r][t] - base);
                sum[r] += score[r][t];
            }
        }

        // ---- values
        __syncwarp();
        float v_step[kRows];  // of the lane's group of channels
        float v_bias[kRows];
        const int n_groups = kRotated ? 1 : fv.scale_groups;
        const int own_group = kRotated ? 0 : lane * kCh / fv.group;
        for (int g = 0; g < n_groups; ++g) {
            float v_zero[kTiles];
            if (!kRotated) {
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const int at = (32 * t + lane) * fv.scale_groups + g;
                    if (kPaper) {
                        const unsigned pair = *reinterpret_cast<const unsigned*>(v_page + fv.scales_offset + at * 4);
                        v_scale[t] = half_bits_to_float(static_cast<uint16_t>(pair));
                        v_zero[t] = half_bits_to_float(static_cast<uint16_t>(pair >> 16));
                    } else {
                        v_scale[t] = byte_scale(v_page[fv.scales_offset + at]) * v_factor;
                        v_zero[t] =
                            v_scale[t] * 0.25f * static_cast<float>(static_cast<int8_t>(v_page[fv.zeros_offset + at]));
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                float w[kTiles];
                float top = 0;
                float constant = 0;
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const bool there = score[r][t] > 0;  // what is not may have any scale
                    w[t] = there ? score[r][t] * v_scale[t] : 0.0f;
                    top = fmaxf(top, fabsf(w[t]));
                    if (!kRotated) {
                        constant += there ? score[r][t] * v_zero[t] + w[t] * kMiddle : 0.0f;
                    }
                }
                top = warp_max_positive(top);
                const float inverse = finite_quotient(127.0f, top);
                int total = 0;
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const int8_t code = static_cast<int8_t>(low_byte(w[t] * inverse));
                    total += code;
                    fold_v[(g * kRows + r) * kv::kPageTokens + 32 * t + lane] = code;
                }
                total = __reduce_add_sync(kAllLanes, total);
                const float group_step = top / 127.0f;
                float group_bias = -group_step * kMiddle * static_cast<float>(total);
                if (!kRotated) {
                    group_bias += warp_sum(constant);  // levels of rotated values lie around 0: there it is 0
                }
                if (g == own_group) {
                    v_step[r] = group_step;
                    v_bias[r] = group_bias;
                }
            }
        }
        __syncwarp();
        int total[kRows][kCh];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                total[r][c] = 0;
            }
        }
        const int4* const weights = reinterpret_cast<const int4*>(fold_v + own_group * kRows * kv::kPageTokens);
#pragma unroll(kRows == 1 ? 8 : 4)
        for (int b = 0; b < kv::kPageTokens / kv::kValueBlockTokens; ++b) {
            constexpr int kHalves = kBits / 2;  // words of a channel
            unsigned words[kHalves][kCh];
#pragma unroll
            for (int h = 0; h < kHalves; ++h) {
                // 8 channels by kHalves words lie together.
                const int index = (b * (kD / 8) + lane * kCh / 8) * 8 * kHalves + 8 * h + lane * kCh % 8;
                const unsigned* from = reinterpret_cast<const unsigned*>(v_page) + index;
                if (kCh == 4) {
                    const uint4 four = __ldg(reinterpret_cast<const uint4*>(from));
                    words[h][0] = four.x;
                    words[h][1] = four.y;
                    words[h][kCh - 2] = four.z;
                    words[h][kCh - 1] = four.w;
                } else {
                    const uint2 two = __ldg(reinterpret_cast<const uint2*>(from));
                    words[h][0] = two.x;
                    words[h][1] = two.y;
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const int4 w4 = weights[r * (kv::kPageTokens / 16) + b];
                const int w[4] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
                for (int h = 0; h < kHalves; ++h) {
#pragma unroll
                    for (int c = 0; c < kCh; ++c) {
#pragma unroll
                        for (int s = 0; s < kTokens; ++s) {
                            total[r][c] = __dp4a(static_cast<int>(words[h][c] >> (kBits * s) & kMask),
                                                 w[kHalves * s + h], total[r][c]);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                out[r][c] += v_step[r] * static_cast<float>(total[r][c]) + v_bias[r];
            }
        }
    }

    join_warps<kRows, kCh, kRotated>(a, blockIdx.y, largest, sum, out, rows,
                                     kRotated ? reinterpret_cast<const uint16_t*>(v_table + 4) : nullptr,
                                     reinterpret_cast<float*>(shared));
    after_previous();
}

template <int kBits, bool kPaper>
AttentionFunction function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    constexpr int kRows = 1;
    const int bytes = page_block_bytes(k, v, kRows);
    switch (variant.width) {
    case 64:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, 2>), bytes};
    case 128:
        return {reinterpret_cast<const void*>(attention_pages_row_kernel<kRows, kBits, kPaper, 4>), bytes};
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction pages_row_function(const AttentionVariant& variant, const kv::PageFormat& k,
                                     const kv::PageFormat& v) {
    switch (variant.type) {
    case LK_CACHE_KIVI2:
        return function<2, false>(variant, k, v);
    case LK_CACHE_KIVI4:
        return function<4, false>(variant, k, v);
    case LK_CACHE_KIVI2_PAPER:
        return function<2, true>(variant, k, v);
    case LK_CACHE_KIVI4_PAPER:
        return function<4, true>(variant, k, v);
    default:
        fail_variant(variant);
    }
}

}  // namespace lk::cuda
