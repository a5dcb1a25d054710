// Attention of few query rows over whole pages of codes, on the matrix units: what decoding spends its time on.
//
// A warp takes a page by itself, and needs no other until the end. Codes are never turned into numbers: masked where
// they lie, two of them are halves far below the smallest normal one (code * 4^place * 2^-24), which the matrix units
// multiply exactly. Scales go to the other side: to q for keys, to the probabilities for values; powers of two to the
// end. mma.m16n8k16 multiplies 16 tokens (or channels) with 8 query rows. With g = lane / 4 and j = lane % 4:
//   keys    a step takes 16 code rows, of which quad j is lane j's; a word of 2-bit codes holds tokens g, 8 + g, 16 + g
//           and 24 + g of its tile. A lane ends with the scores of tokens 8 t + g for rows 2 j and 2 j + 1.
//   values  a word holds 16 tokens of a channel (8 with 4 bits); a lane takes those of channels g and g + 8 in blocks
//           j and 4 + j of 16 tokens, and ends with these channels for rows 2 j and 2 j + 1.
// Both halves of a page lie in shared memory while they are used; the next page's are fetched as soon as they are not.
#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

constexpr int kRows = kPagesRows;
constexpr int kTiles = 4;      // of 32 tokens in a page
constexpr int kProbRow = 136;  // halves of a row of probabilities: rows in banks of their own

struct Kind {
    int head_size;
    int bits;
    bool paper;  // scales are pairs of halves

    __host__ __device__ constexpr bool rotated() const { return bits == 2 && !paper; }  // and keys refined
    __host__ __device__ constexpr int code_rows() const { return rotated() ? head_size * 5 / 4 : head_size; }
    __host__ __device__ constexpr int value_words() const { return head_size * bits / 2; }  // of 16 tokens
    __host__ __device__ constexpr int value_stride() const { return value_words() + 8; }    // lanes j in other banks
    // Powers of two that probabilities are multiplied with, so that their products with scales are normal halves and
    // no product with a zero point or a minimum leaves the range.
    __host__ __device__ constexpr int lift() const { return paper ? 0 : rotated() ? 10 : 6; }
};

// Shared memory of a warp, in bytes: a page of keys as it lies; of values, blocks of 16 tokens apart, then their
// scales.
struct Layout {
    int values;
    int value_scales;
    int refined;  // uint8 [4 groups, D/4]: scales of the refined channels, then their zero points
    int prob;     // half [rows, kProbRow]
    int bytes;

    __host__ __device__ Layout(Kind kind, const kv::PageFormat& k, const kv::PageFormat& v) {
        values = static_cast<int>(k.page_bytes);
        value_scales = values + 8 * kind.value_stride() * 4;
        refined = value_scales + static_cast<int>(v.page_bytes - v.scales_offset);
        prob = refined + (kind.rotated() ? 2 * kTiles * kind.head_size / 4 : 0);
        bytes = prob + kRows * kProbRow * 2;
    }
};

// Transposes an 8 x 8 matrix of halves, of which a lane has columns 2 j and 2 j + 1 of row g.
__device__ unsigned transpose(unsigned x) {
    unsigned y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(y) : "r"(x));
    return y;
}

__device__ unsigned times(unsigned a, unsigned b) {
    return bits(__hmul2(halves(a), halves(b)));
}

// Halves 0 and 2, or 1 and 3, of four.
__device__ unsigned low_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x5410);
}

__device__ unsigned high_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x7632);
}

// Byte scales 0 and 2 of a word as halves; and 1 and 3.
constexpr unsigned kScaleMask = 0x3fc03fc0u;

__device__ unsigned even_scales(unsigned word) {
    return word << 6 & kScaleMask;
}

__device__ unsigned odd_scales(unsigned word) {
    return word >> 2 & kScaleMask;
}

// Signed bytes 0 and 2 of a word as halves: 1024 + 128 + x has x in its low bits.
__device__ unsigned even_zeros(unsigned word) {
    const unsigned raised = (word & 0x00ff00ffu) ^ 0x64806480u;
    return bits(__hsub2(halves(raised), __half2half2(__ushort_as_half(0x6480))));
}

// Waits for all copies of the warp but the last group.
__device__ void wait_for_copies() {
    copy_wait<1>();
    __syncwarp();
}

// Over the lanes of one j.
__device__ float max_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
}

__device__ float sum_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

__device__ float power2(int e) {
    return __int_as_float((127 + e) << 23);
}

// kBlocks: of a multiprocessor.
template <int kD, int kBits, bool kPaper, int kBlocks>
__global__ void __launch_bounds__(kJoinWarps * 32, kBlocks) attention_pages_kernel(const AttentionWork a) {
    beside_previous();
    extern __shared__ __align__(16) char shared[];
    constexpr Kind kKind{kD, kBits, kPaper};
    constexpr bool kRotated = kKind.rotated();
    constexpr int kSteps = kKind.code_rows() / 16;
    constexpr int kBaseSteps = kD / 16;
    constexpr int kQuads = kKind.code_rows() / 4;
    constexpr int kQuadWords = 4 * kBits;
    constexpr unsigned kMask = kBits == 2 ? 0x00030003u : 0x000f000fu;
    constexpr int kRefined = kTiles * kD / 4;
    // The greatest |q|.
    constexpr float kTop = kPaper ? 2.0f : 1024.0f;

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
    const int g = lane / 4;
    const int j = lane % 4;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * fv.page_bytes;
    const uint8_t* const k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* const v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const int n_sinks = seg.k.n_sinks;
    const int per_split = (seg.page_runs + a.n_page_splits - 1) / a.n_page_splits;
    const int begin = blockIdx.y * per_split;
    const int end = min(begin + per_split, seg.page_runs);
    const Layout at(kKind, fk, fv);
    char* const own = shared + warp * at.bytes;

    // ---- q of row g, for the code rows of quads 4 step + j: channels 0 and 2, then 1 and 3
    unsigned q[kSteps][2];
    float factor[2];  // from products with q of rows 2 j and 2 j + 1 to scores, in powers of two
    const auto* refined = reinterpret_cast<const uint16_t*>(k_table + 4);
    {
        uint8_t* const wide = reinterpret_cast<uint8_t*>(shared);  // [D]: 4 for refined channels
        for (int i = threadIdx.x; i < kD; i += blockDim.x) {
            wide[i] = 1;
        }
        __syncthreads();
        if (kRotated && threadIdx.x < kD / 4) {
            wide[refined[threadIdx.x]] = 4;
        }
        __syncthreads();
        const float* const row = a.q + rows.output(min(g, rows.n - 1)) * kD;
        const auto value = [&](int step, int i) {
            const int code_row = 16 * step + 4 * j + i;
            return code_row < kD ? row[code_row] * wide[code_row] : row[refined[code_row - kD]];
        };
        float top = 0;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                top = fmaxf(top, fabsf(value(step, i)));
            }
        }
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
        const float lift = g < rows.n ? finite_quotient(kTop, top) : 0.0f;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            q[step][0] = pack(value(step, 0) * lift, value(step, 2) * lift);
            q[step][1] = pack(value(step, 1) * lift, value(step, 3) * lift);
        }
        const float k_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
        // Never 0, with which the score of what is masked would be NaN.
        const float back = lift > 0 ? fmaxf(top / kTop * a.scale * k_factor * 1.44269504f, FLT_MIN) : 1.0f;
        factor[0] = __shfl_sync(kAllLanes, back, 8 * j);
        factor[1] = __shfl_sync(kAllLanes, back, 8 * j + 4);
        __syncthreads();
    }

    const int own_refined = kRotated ? refined[lane % (kD / 4)] : 0;

    float largest[2] = {-INFINITY, -INFINITY};  // in powers of two
    float sum[2] = {0, 0};                      // of the lane's tokens
    float shift[4] = {0, 0, 0, 0};              // sums of probabilities times scales: what all channels lack
    float out[kD / 16][4];
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            out[i][k] = 0;
        }
    }

    // ---- fetching, with where pages are read one page ahead
    const auto run_at = [&](const Run* runs, int p) { return runs[min(p, end - 1)]; };
    const auto fetch_keys = [&](const uint8_t* page) {
        for (int i = lane * 16; i < static_cast<int>(fk.page_bytes); i += 32 * 16) {
            copy_async(own + i, page + i);
        }
    };
    const auto fetch_values = [&](const uint8_t* page) {
        constexpr int kPieces = kKind.value_words() / 4;  // of a block
#pragma unroll
        for (int i = lane; i < 8 * kPieces; i += 32) {
            copy_async(own + at.values + (i / kPieces * kKind.value_stride() + i % kPieces * 4) * 4, page + i * 16);
        }
        const int codes = static_cast<int>(fv.scales_offset);
        for (int i = lane * 16; i < static_cast<int>(fv.page_bytes) - codes; i += 32 * 16) {
            copy_async(own + at.value_scales + i, page + codes + i);
        }
    };
    Run run{};
    Run next{};
    const uint8_t* next_values = nullptr;
    if (begin + warp < end) {
        run = run_at(k_runs, begin + warp);
        fetch_keys(run.block + k_offset);
        copy_commit();
        fetch_values(run_at(v_runs, begin + warp).block + v_offset);
        copy_commit();
        next = run_at(k_runs, begin + warp + kJoinWarps);
        next_values = run_at(v_runs, begin + warp + kJoinWarps).block;
    }
    for (int p = begin + warp; p < end; p += kJoinWarps) {
        const bool more = p + kJoinWarps < end;
        const Run after = run_at(k_runs, p + 2 * kJoinWarps);
        const uint8_t* const after_values = run_at(v_runs, p + 2 * kJoinWarps).block;
        wait_for_copies();

        // ---- scores of tokens 8 (4 tile + t) + g, before the factor
        float score[kTiles][4][2];
        if (kRotated) {
            // A zero point belongs to the fine step, which a refined channel has in the second plane alone.
#pragma unroll
            for (int n = 0; n < kRefined / 32; ++n) {
                const int i = 32 * n + lane;
                const int from = i / (kD / 4) * kD + own_refined;
                if (i >= fk.scale_groups * (kD / 4)) {
                    break;
                }
                own[at.refined + i] = own[fk.scales_offset + from];
                own[at.refined + kRefined + i] = own[fk.zeros_offset + from];
                own[fk.zeros_offset + from] = 0;
            }
            __syncwarp();
        }
        unsigned weights[kSteps][2];
        float bias[4] = {0, 0, 0, 0};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            if (tile * 32 % fk.group == 0) {
                const int token_group = tile * 32 / fk.group;
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    bias[k] = 0;
                }
                const char* const scales = own + fk.scales_offset + (token_group * kD + 4 * j) * (kPaper ? 4 : 1);
                const char* const zeros = own + fk.zeros_offset + token_group * kD + 4 * j;
#pragma unroll
                for (int step = 0; step < kSteps; ++step) {
                    if (kPaper) {
                        const uint4 pairs = *reinterpret_cast<const uint4*>(scales + step * 64);
                        weights[step][0] = times(q[step][0], low_halves(pairs.x, pairs.z));
                        weights[step][1] = times(q[step][1], low_halves(pairs.y, pairs.w));
                        const unsigned low0 = high_halves(pairs.x, pairs.z);
                        const unsigned low1 = high_halves(pairs.y, pairs.w);
                        multiply(bias, low0, low0, low1, low1, q[step][0], q[step][1]);
                        continue;
                    }
                    const char* const more =
                        own + at.refined + token_group * (kD / 4) + (step - kBaseSteps) * 16 + 4 * j;
                    const unsigned s =
                        *reinterpret_cast<const unsigned*>(step < kBaseSteps ? scales + step * 16 : more);
                    const unsigned z =
                        *reinterpret_cast<const unsigned*>(step < kBaseSteps ? zeros + step * 16 : more + kRefined);
                    weights[step][0] = times(q[step][0], even_scales(s));
                    weights[step][1] = times(q[step][1], odd_scales(s));
                    const unsigned z0 = even_zeros(z);
                    const unsigned z1 = even_zeros(z >> 8);
                    multiply(bias, z0, z0, z1, z1, weights[step][0], weights[step][1]);
                }
            }
            // Zero points are fourths of a step.
            const float more[2] = {bias[0] * (kPaper ? 1.0f : 0.25f), bias[1] * (kPaper ? 1.0f : 0.25f)};
            const unsigned* const codes = reinterpret_cast<const unsigned*>(own) + (tile * kQuads + j) * kQuadWords + g;
            float dot[2][4] = {};
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                const unsigned w0 = codes[step * 4 * kQuadWords];
                const unsigned w1 = kBits == 2 ? w0 : codes[step * 4 * kQuadWords + 8];
#pragma unroll
                for (int h = 0; h < 2; ++h) {  // tokens 16 h ..
                    const unsigned m0 = kMask << (4 * h);
                    const unsigned m1 = kBits == 2 ? m0 << 2 : m0;
                    multiply(dot[h], w0 & m0, w1 & m1, w0 >> 8 & m0, w1 >> 8 & m1, weights[step][0], weights[step][1]);
                }
            }
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                // Codes of rows g + 8 of 2 bits lie a place higher.
                const int place = t / 2 * 4 + (kBits == 2 ? t % 2 * 2 : 0);
                const float unit = power2(24 - place);
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    score[tile][t][e] = dot[t / 2][t % 2 * 2 + e] * unit + more[e];
                }
            }
        }
        __syncwarp();  // the keys are used
        if (more) {
            fetch_keys(next.block + k_offset);
        }
        copy_commit();

        // ---- softmax; score becomes the probability, up to the sum, times 2^lift and as much less as its place is
        // higher
        if (run.count < kv::kPageTokens || run.start < n_sinks || a.window > 0) {
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                const int in_run = 8 * t + g - run.first;
                const int token = run.start + in_run;
                const bool there = in_run >= 0 && in_run < run.count && token >= n_sinks;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int last = rows.position(min(2 * j + e, rows.n - 1));
                    const bool seen = there && (a.window == 0 || token > last - a.window);
                    score[t / 4][t % 4][e] = seen ? score[t / 4][t % 4][e] : -INFINITY;
                }
            }
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float top = -INFINITY;
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                top = fmaxf(top, score[t / 4][t % 4][e]);
            }
            const float now = fmaxf(largest[e], max_of_column(top) * factor[e]);
            const float base = now == -INFINITY ? 0.0f : now;
            if (__any_sync(kAllLanes, now > largest[e])) {
                const float correction = exp2_fast(largest[e] - base);  // of nothing: 0
                sum[e] *= correction;
                shift[e] *= correction;
                shift[2 + e] *= correction;
#pragma unroll
                for (int i = 0; i < kD / 16; ++i) {
                    out[i][e] *= correction;
                    out[i][2 + e] *= correction;
                }
            }
            largest[e] = now;
            // Token 8 t + g of a block of 16 has place (g / 4 + 2 (t % 2)) of 2 bits, t % 2 of 4 bits.
            const int place = kBits == 2 ? g / 4 * 2 : 0;
            const float lift0 = static_cast<float>(kKind.lift() - place) - base;
            const float lift1 = lift0 - 4;
            float total[2] = {0, 0};
#pragma unroll
            for (int t = 0; t < 4 * kTiles; ++t) {
                const float x = exp2_fast(score[t / 4][t % 4][e] * factor[e] + (t % 2 == 0 ? lift0 : lift1));
                score[t / 4][t % 4][e] = x;
                total[t % 2] += x;
            }
            sum[e] += (total[0] + 16 * total[1]) * power2(place - kKind.lift());
        }
        unsigned* const prob = reinterpret_cast<unsigned*>(own + at.prob);
#pragma unroll
        for (int t = 0; t < 4 * kTiles; ++t) {
            prob[g * (kProbRow / 2) + 4 * t + j] = transpose(pack(score[t / 4][t % 4][0], score[t / 4][t % 4][1]));
        }
        wait_for_copies();

        // ---- values
        const unsigned* const words = reinterpret_cast<const unsigned*>(own + at.values) + j * kKind.value_stride() + g;
        unsigned b[2][4][2];  // of tokens 64 h + 16 j + 4 p + (0, 2), then (1, 3)
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
            if (i == 0 || (!kRotated && 16 * i % fv.group == 0)) {
                const int channel_group = kRotated ? 0 : 16 * i / fv.group;
                float zero[4] = {0, 0, 0, 0};
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int token = 64 * h + 16 * j;
                    const uint4* const row = reinterpret_cast<const uint4*>(prob + g * (kProbRow / 2) + token / 2);
                    const uint4 first = row[0];
                    const uint4 second = row[1];
                    const unsigned pairs[8] = {first.x,  first.y,  first.z,  first.w,
                                               second.x, second.y, second.z, second.w};
                    uint4 scales{};
                    if (kRotated) {
                        scales = *reinterpret_cast<const uint4*>(own + at.value_scales + token);
                    }
                    const unsigned scale_words[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
                    for (int quad = 0; quad < 4; ++quad) {
                        const unsigned p0 = low_halves(pairs[2 * quad], pairs[2 * quad + 1]);
                        const unsigned p1 = high_halves(pairs[2 * quad], pairs[2 * quad + 1]);
                        const int place = kBits == 2 ? 2 * quad : quad / 2 * 4;
                        const unsigned one = 0x00010001u << place;
                        if (kRotated) {
                            b[h][quad][0] = times(p0, even_scales(scale_words[quad]));
                            b[h][quad][1] = times(p1, odd_scales(scale_words[quad]));
                            const unsigned three = 3 * one;
                            multiply(shift, three, three, three, three, b[h][quad][0], b[h][quad][1]);
                            continue;
                        }
                        const int s = (token + 4 * quad) * fv.scale_groups + channel_group;
                        if (kPaper) {
                            const unsigned* const from = reinterpret_cast<const unsigned*>(own + at.value_scales) + s;
                            const unsigned w0 = from[0];
                            const unsigned w1 = from[fv.scale_groups];
                            const unsigned w2 = from[2 * fv.scale_groups];
                            const unsigned w3 = from[3 * fv.scale_groups];
                            b[h][quad][0] = times(p0, low_halves(w0, w2));
                            b[h][quad][1] = times(p1, low_halves(w1, w3));
                            multiply(zero, one, one, one, one, times(p0, high_halves(w0, w2)),
                                     times(p1, high_halves(w1, w3)));
                            continue;
                        }
                        const uint8_t* const from = reinterpret_cast<const uint8_t*>(own + at.value_scales) + s;
                        const uint8_t* const zeros = from + (fv.zeros_offset - fv.scales_offset);
                        const auto word = [&](const uint8_t* x) {
                            return x[0] | static_cast<unsigned>(x[fv.scale_groups]) << 8 |
                                   static_cast<unsigned>(x[2 * fv.scale_groups]) << 16 |
                                   static_cast<unsigned>(x[3 * fv.scale_groups]) << 24;
                        };
                        const unsigned scale = word(from);
                        const unsigned z = word(zeros);
                        b[h][quad][0] = times(p0, even_scales(scale));
                        b[h][quad][1] = times(p1, odd_scales(scale));
                        multiply(zero, one, one, one, one, times(b[h][quad][0], even_zeros(z)),
                                 times(b[h][quad][1], even_zeros(z >> 8)));
                    }
                }
                if (!kRotated) {
                    // Into the channels of the group; those of a whole group have the same.
#pragma unroll
                    for (int n = 0; n < kD / 16; ++n) {
                        if (n >= i && 16 * n / fv.group == channel_group) {
#pragma unroll
                            for (int k = 0; k < 4; ++k) {
                                out[n][k] += zero[k] * (kPaper ? 1.0f : 0.25f);
                            }
                        }
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                unsigned w[2][2];  // of channels g and g + 8; 4 bits: of tokens 8 n + (0..3), then 8 n + 4 + (0..3)
                const unsigned* const from = words + 4 * h * kKind.value_stride() + i * 8 * kBits;
                w[0][0] = from[0];
                w[0][1] = kBits == 2 ? w[0][0] : from[8];
                w[1][0] = from[4 * kBits];
                w[1][1] = kBits == 2 ? w[1][0] : from[4 * kBits + 8];
#pragma unroll
                for (int quad = 0; quad < 4; ++quad) {
                    const unsigned mask = kMask << (kBits == 2 ? 2 * quad : quad / 2 * 4);
                    const unsigned w0 = w[0][quad % 2];
                    const unsigned w1 = w[1][quad % 2];
                    multiply(out[i], w0 & mask, w1 & mask, w0 >> 8 & mask, w1 >> 8 & mask, b[h][quad][0],
                             b[h][quad][1]);
                }
            }
        }
        __syncwarp();  // the values are used
        if (more) {
            fetch_values(next_values + v_offset);
        }
        copy_commit();
        run = next;
        next = after;
        next_values = after_values;
    }

    __syncthreads();
    float* const sums = reinterpret_cast<float*>(shared);
    const float v_factor = kPaper ? 1.0f : ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));
    const float back = v_factor * power2(24 - kKind.lift());
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        float* to = warp_part<kRows, kD>(sums, warp, 2 * j + e);
        const float total = sum_of_column(sum[e]);
        if (g == 0) {
            to[0] = largest[e] * 0.69314718f;
            to[1] = total;
        }
        const float less = kRotated ? 0.5f * shift[e] : 0.0f;  // of three halves, in codes
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
            to[2 + 16 * i + g] = (out[i][e] - less) * back;
            to[2 + 16 * i + 8 + g] = (out[i][2 + e] - less) * back;
        }
    }
    join_parts<kRows, kD, kRotated>(a, blockIdx.y, rows, reinterpret_cast<const uint16_t*>(v_table + 4), sums);
    after_previous();
}

template <int kD, int kBits, bool kPaper, int kBlocks>
AttentionFunction function(const kv::PageFormat& k, const kv::PageFormat& v) {
    const int joined = join_bytes(kRows, kD);
    const int pages = kJoinWarps * Layout(Kind{kD, kBits, kPaper}, k, v).bytes;
    return {reinterpret_cast<const void*>(attention_pages_kernel<kD, kBits, kPaper, kBlocks>),
            joined > pages ? joined : pages};
}

template <int kBits, bool kPaper, int kBlocks>
AttentionFunction function_of_width(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    switch (variant.width) {
    case 64:
        return function<64, kBits, kPaper, 4>(k, v);
    case 128:
        return function<128, kBits, kPaper, kBlocks>(k, v);
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction pages_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    switch (variant.type) {
    case LK_CACHE_KIVI2:
        return function_of_width<2, false, 3>(variant, k, v);
    case LK_CACHE_KIVI4:
        return function_of_width<4, false, 2>(variant, k, v);
    case LK_CACHE_KIVI2_PAPER:
        return function_of_width<2, true, 3>(variant, k, v);
    case LK_CACHE_KIVI4_PAPER:
        return function_of_width<4, true, 2>(variant, k, v);
    default:
        fail_variant(variant);
    }
}

}  // namespace lk::cuda
