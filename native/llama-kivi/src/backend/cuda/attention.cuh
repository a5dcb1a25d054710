// Attention over the paged cache. One read of a KV head's codes serves all its query heads.
//
// A block of four warps takes one KV head of one segment, up to kRows query rows (query heads times the call's rows), and
// a range of the sequence cut in chunks of 128 tokens. Per chunk: scores into shared memory, an online softmax, the sum
// of values. Codes are multiplied as they lie: a masked word holds four codes, and dp4a multiplies them with four weights
// of 8 bits, into which the scales of the codes were folded (the same folding as on the CPU).
//   keys    a warp takes a tile of T tokens; a word holds 4 channels of 8/b tokens
//   values  a warp takes 32 tokens; a word holds a channel of 16 tokens (2 bits) or 8 (4 bits)
// Sums over quantized values stay apart from those over exact ones until the end, where the rotation is undone once.
#pragma once

#include <cmath>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kChunk = 128;  // tokens; also a page
static_assert(kChunk == kv::kPageTokens && kChunk == kThreads);

// How a side is stored.
enum class Store { exact, codes2, codes4, blocks8, blocks4 };

__host__ __device__ constexpr bool coded(Store s) {
    return s == Store::codes2 || s == Store::codes4;
}

__host__ __device__ constexpr int bits_of(Store s) {
    return s == Store::codes2 ? 2 : 4;
}

__host__ __device__ constexpr int round_up(int n, int step) {
    return (n + step - 1) / step * step;
}

// Shared memory of a block, in bytes from its start. Computed alike on the host and the device.
struct Layout {
    int q;         // float [rows, D], times the softmax scale
    int q_framed;  // float [rows, D], turned into the frame of the page's keys; rotated for blocks
    int scores;    // float [rows, 128], then the probabilities
    int k_row;     // const half* [128], null where the token is in a page of codes or blocks
    int v_row;
    int stats;       // float [3, rows]: maximum, sum, correction; [4 warps, rows]: mass on quantized values
    int multiplier;  // float [D]: 4 for refined channels
    int refined;     // uint16 [D/4]
    int fold_k;      // int8 [4 warps, rows, code rows]
    int fold_v;      // int8 [4 warps, channel groups, rows, 32]
    int step_v;      // float2 [4 warps, channel groups, rows]: step and bias
    int page_k;      // bytes of a page
    int page_v;
    int reduce;  // float [4 warps, rows, D], in the place of the pages and foldings
    int bytes;

    __host__ __device__ Layout(const PageFormat& k, const PageFormat& v, int rows) {
        const int d = k.head_size;
        int at = 0;
        const auto take = [&at](int size) {
            const int here = at;
            at = round_up(at + size, 16);
            return here;
        };
        q = take(rows * d * 4);
        q_framed = take(rows * d * 4);
        scores = take(rows * kChunk * 4);
        k_row = take(kChunk * 8);
        v_row = take(kChunk * 8);
        stats = take((3 + kWarps) * rows * 4);
        multiplier = take(d * 4);
        refined = take(d / 2);
        reduce = at;
        fold_k = take(kWarps * rows * round_up(k.rows, 4));
        fold_v = take(kWarps * v.scale_groups * rows * 32);
        step_v = take(kWarps * v.scale_groups * rows * 8);
        page_k = take(k.quantized() && !k.blocks() ? static_cast<int>(k.page_bytes) : 0);
        page_v = take(v.quantized() && !v.blocks() ? static_cast<int>(v.page_bytes) : 0);
        const int reduced = reduce + kWarps * rows * d * 4;
        bytes = at > reduced ? at : reduced;
    }
};

__device__ inline void copy_async(void* shared, const void* global) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global));
}

__device__ inline void copy_commit() {
    asm volatile("cp.async.commit_group;\n" ::);
}

template <int kPending>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

// kv::byte_scale_decode; factor is 2^k.
__device__ inline float decode_byte_scale(uint8_t byte, float factor) {
    return half_bits_to_float(static_cast<uint16_t>(byte << 6)) * factor;
}

// The part of a run that lies in a chunk.
struct Part {
    const uint8_t* page;
    int token;  // in the page, of the part's first token
    int at;     // in the chunk
    int n;
    int frame;
};

__device__ inline int first_run(const SideWork& side, int token) {
    int i = min(token / kv::kPageTokens, side.n_runs - 1);  // runs are at most a page long
    while (i + 1 < side.n_runs && side.runs[i + 1].start <= token) {
        ++i;
    }
    return i;
}

// Its tokens [begin, end), in a chunk that begins at t0.
__device__ inline Part part_of(const Run& run, size_t page_offset, int t0, int begin, int end) {
    const int from = max(run.start, begin);
    const int to = min(run.start + run.count, end);
    return {run.block + page_offset, run.first + from - run.start, from - t0, to - from, run.frame};
}

// One block's work. kCh: channels a lane owns, lane * kCh on.
template <int kRows, Store kK, Store kV, int kCh>
struct Block {
    static constexpr int kFoldSteps = (kCh * 32 * 5 / 4 + 31) / 32;  // 32 code rows each

    const AttentionWork& a;
    const SegmentWork seg;  // a copy: in registers
    const Layout at;
    char* shared;
    const int d;
    const int kv_head;
    const int head_index;  // layer * n_head_kv + kv_head
    const int group;       // query heads of the KV head
    const int row0;        // first row of the block
    const int n_rows;      // of the block
    const int warp;
    const int lane;
    const size_t k_offset;  // of the head's page in a block
    const size_t v_offset;
    float k_factor;  // 2^k of byte scales
    float v_factor;
    int frame;
    float exact[kRows][kCh];
    float quantized[kRows][kCh];

    __device__ Block(const AttentionWork& work, const SegmentWork& segment, char* memory, int kv_head_, int first_row)
        : a(work),
          seg(segment),
          at(work.k.format, work.v.format, kRows),
          shared(memory),
          d(work.head_size),
          kv_head(kv_head_),
          head_index(work.layer * work.n_head_kv + kv_head_),
          group(work.n_head / work.n_head_kv),
          row0(first_row),
          n_rows(min(kRows, segment.n_rows * (work.n_head / work.n_head_kv) - first_row)),
          warp(threadIdx.x / 32),
          lane(threadIdx.x % 32),
          k_offset(static_cast<size_t>(head_index) * work.k.format.page_bytes),
          v_offset(static_cast<size_t>(head_index) * work.v.format.page_bytes),
          k_factor(1),
          v_factor(1),
          frame(0) {}

    template <class T>
    __device__ T* in_shared(int offset) const {
        return reinterpret_cast<T*>(shared + offset);
    }

    __device__ int position_of(int r) const { return seg.length + (row0 + r) / group; }
    __device__ size_t output_row(int r) const {
        return static_cast<size_t>(seg.row + (row0 + r) / group) * a.n_head + kv_head * group + (row0 + r) % group;
    }

    __device__ void start() {
        float* q = in_shared<float>(at.q);
        for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
            const int r = i / d;
            q[i] = r < n_rows ? a.q[output_row(r) * d + i % d] * a.scale : 0.0f;
        }
        float* stats = in_shared<float>(at.stats);
        if (threadIdx.x < kRows) {
            stats[threadIdx.x] = -INFINITY;
            stats[kRows + threadIdx.x] = 0;
        }
        if (threadIdx.x < kWarps * kRows) {
            stats[3 * kRows + threadIdx.x] = 0;
        }
        if constexpr (coded(kK)) {
            const uint8_t* table = seg.k.tables + static_cast<size_t>(head_index) * a.k.table_bytes;
            k_factor = ldexpf(1.0f, *reinterpret_cast<const int*>(table));
            float* multiplier = in_shared<float>(at.multiplier);
            uint16_t* refined = in_shared<uint16_t>(at.refined);
            for (int i = threadIdx.x; i < d; i += kThreads) {
                multiplier[i] = 1.0f;
            }
            __syncthreads();
            if (seg.k.n_paged > seg.k.n_sinks) {
                for (int i = threadIdx.x; i < a.k.format.rows - d; i += kThreads) {
                    refined[i] = *reinterpret_cast<const uint16_t*>(table + 4 + 2 * i);
                    multiplier[refined[i]] = 4.0f;
                }
            }
        }
        if constexpr (coded(kV)) {
            v_factor = ldexpf(
                1.0f, *reinterpret_cast<const int*>(seg.v.tables + static_cast<size_t>(head_index) * a.v.table_bytes));
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int i = 0; i < kCh; ++i) {
                exact[r][i] = 0;
                quantized[r][i] = 0;
            }
        }
        __syncthreads();
        enter_frame(0);
    }

    // Turns q to meet keys that were rotated for positions `new_frame` higher than theirs are now.
    __device__ void enter_frame(int new_frame) {
        frame = new_frame;
        const float* q = in_shared<float>(at.q);
        float* framed = in_shared<float>(at.q_framed);
        const int pairs = a.n_rot / 2;
        for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
            framed[i] = q[i];
        }
        __syncthreads();
        if (new_frame != 0) {
            for (int i = threadIdx.x; i < kRows * pairs; i += kThreads) {
                const int r = i / pairs;
                const int j = i % pairs;
                const int first = r * d + (a.halves ? j : 2 * j);
                const int second = r * d + (a.halves ? j + pairs : 2 * j + 1);
                double s;
                double c;
                sincos(static_cast<double>(new_frame) * a.frequency[j], &s, &c);
                framed[first] = q[first] * static_cast<float>(c) - q[second] * static_cast<float>(s);
                framed[second] = q[first] * static_cast<float>(s) + q[second] * static_cast<float>(c);
            }
            __syncthreads();
        }
        if constexpr (kK == Store::blocks8 || kK == Store::blocks4) {
            hadamard(framed);
        }
    }

    // Of kRows rows of D floats in shared memory, orthonormal over blocks of D's largest power of two.
    __device__ void hadamard(float* x) {
        const int block = d & -d;
        for (int half = 1; half < block; half *= 2) {
            for (int i = threadIdx.x; i < kRows * d / 2; i += kThreads) {
                const int first = i / half * 2 * half + i % half;
                const float u = x[first];
                const float v = x[first + half];
                x[first] = u + v;
                x[first + half] = u - v;
            }
            __syncthreads();
        }
        const float norm = rsqrtf(static_cast<float>(block));
        for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
            x[i] *= norm;
        }
        __syncthreads();
    }

    // Where a token of a chunk lies in full precision; null if it does not.
    template <Store kStore>
    __device__ const uint16_t* row_of(const SideWork& side, const SideShape& shape, size_t page_offset, int token,
                                      int end) const {
        if (token >= end) {
            return nullptr;
        }
        if (token < side.n_sinks) {
            return side.sinks + (static_cast<size_t>(head_index) * shape.sinks + token) * d;
        }
        if (token < side.n_paged) {
            if constexpr (kStore == Store::exact) {
                const Run& run = side.runs[first_run(side, token)];
                return reinterpret_cast<const uint16_t*>(run.block + page_offset) +
                       static_cast<size_t>(run.first + token - run.start) * d;
            }
            return nullptr;
        }
        const int i = token - side.n_paged;
        if (i < side.n_ring) {
            return side.ring +
                   (static_cast<size_t>(head_index) * shape.trigger + (side.ring_start + i) % shape.trigger) * d;
        }
        return side.staged + (static_cast<size_t>(head_index) * shape.n_ubatch + i - side.n_ring) * d;
    }

    // ---- scores

    // Eight lanes take a token, four tokens a warp; q as floats.
    __device__ void score_exact(const float* q, int t0) {
        const uint16_t* const* rows = in_shared<const uint16_t*>(at.k_row);
        float* scores = in_shared<float>(at.scores);
        const int part = lane % 8;
#pragma unroll 2
        for (int i = warp * 4 + lane / 8; i < kChunk; i += kWarps * 4) {
            const uint16_t* row = rows[i];
            float sum[kRows] = {};
            if (row != nullptr) {
                for (int c = part * 8; c < d; c += 64) {
                    const uint4 words = *reinterpret_cast<const uint4*>(row + c);
                    const __half2* pairs = reinterpret_cast<const __half2*>(&words);
                    float k[8];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const float2 pair = __half22float2(pairs[j]);
                        k[2 * j] = pair.x;
                        k[2 * j + 1] = pair.y;
                    }
#pragma unroll
                    for (int r = 0; r < kRows; ++r) {
                        const float4 u = *reinterpret_cast<const float4*>(q + r * d + c);
                        const float4 v = *reinterpret_cast<const float4*>(q + r * d + c + 4);
                        sum[r] += k[0] * u.x + k[1] * u.y + k[2] * u.z + k[3] * u.w + k[4] * v.x + k[5] * v.y +
                                  k[6] * v.z + k[7] * v.w;
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                for (int offset = 4; offset > 0; offset /= 2) {
                    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], offset);
                }
                if (part == 0 && row != nullptr) {
                    scores[r * kChunk + i] = sum[r];
                }
            }
        }
    }

    // Folds the scales of a token group into q: weights of 8 bits in fold_k, and step and bias of each row.
    __device__ void fold_keys(const uint8_t* page, int token_group, float* step, float* bias) {
        const PageFormat& f = a.k.format;
        const float* framed = in_shared<float>(at.q_framed);
        const float* multiplier = in_shared<float>(at.multiplier);
        const uint16_t* refined = in_shared<uint16_t>(at.refined);
        const float middle = 0.5f * static_cast<float>((1 << bits_of(kK)) - 1);
        float scale[kFoldSteps];
        float zero[kFoldSteps];
        int channel[kFoldSteps];
#pragma unroll
        for (int i = 0; i < kFoldSteps; ++i) {
            const int row = lane + 32 * i;
            scale[i] = 0;
            zero[i] = 0;
            channel[i] = row < d ? row : row < f.rows ? refined[row - d] : 0;
            if (row < f.rows) {
                const int c = token_group * d + channel[i];
                if (f.scale_kind == ScaleKind::half_pair) {
                    const uint8_t* pair = page + f.scales_offset + c * 4;
                    scale[i] = half_bits_to_float(load_u16(pair));
                    zero[i] = half_bits_to_float(load_u16(pair + 2));
                } else {
                    const float s = decode_byte_scale(page[f.scales_offset + c], k_factor);
                    scale[i] = row < d ? s * multiplier[row] : s;
                    zero[i] = row < d ? s * 0.25f * static_cast<float>(static_cast<int8_t>(page[f.zeros_offset + c])) : 0;
                }
            }
        }
        int8_t* folded = in_shared<int8_t>(at.fold_k) + warp * kRows * round_up(f.rows, 4);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float w[kFoldSteps];
            float largest = 0;
            float constant = 0;
#pragma unroll
            for (int i = 0; i < kFoldSteps; ++i) {
                const float x = framed[r * d + channel[i]];
                w[i] = x * scale[i];
                largest = fmaxf(largest, fabsf(w[i]));
                constant += x * zero[i] + w[i] * middle;
            }
            largest = warp_max(largest);
            const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
            int codes = 0;
#pragma unroll
            for (int i = 0; i < kFoldSteps; ++i) {
                const int code = __float2int_rn(w[i] * inverse);
                codes += code;
                if (lane + 32 * i < f.rows) {
                    folded[r * round_up(f.rows, 4) + lane + 32 * i] = static_cast<int8_t>(code);
                }
            }
            step[r] = largest / 127.0f;
            bias[r] = warp_sum(constant) - step[r] * middle * static_cast<float>(warp_sum(codes));
        }
        __syncwarp();
    }

    __device__ void score_codes(const uint8_t* page, const Part& part) {
        constexpr int kBits = bits_of(kK);
        constexpr int kTokens = 8 / kBits;  // of a word
        constexpr unsigned kMask = kBits == 2 ? 0x03030303u : 0x0f0f0f0fu;
        const PageFormat& f = a.k.format;
        const int words = f.tile_tokens / kTokens;  // of a quad of rows
        const int n_quads = f.rows / 4;
        float* scores = in_shared<float>(at.scores);
        const int* folded = in_shared<int>(at.fold_k) + warp * kRows * round_up(f.rows, 4) / 4;
        float step[kRows];
        float bias[kRows];
        int group_folded = -1;
        for (int tile = warp; tile < kv::kPageTokens / f.tile_tokens; tile += kWarps) {
            const int first = tile * f.tile_tokens;
            if (first >= part.token + part.n || first + f.tile_tokens <= part.token) {
                continue;
            }
            if (first / f.group != group_folded) {
                group_folded = first / f.group;
                __syncwarp();
                fold_keys(page, group_folded, step, bias);
            }
            int sum[kRows][kTokens] = {};
            const unsigned* codes = reinterpret_cast<const unsigned*>(page) + tile * n_quads * words + lane;
#pragma unroll 5
            for (int quad = lane / words; quad < n_quads; quad += 32 / words, codes += 32) {
                const unsigned word = *codes;
                unsigned parts[kTokens];
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    parts[t] = word >> (kBits * t) & kMask;
                }
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    const int weights = folded[r * round_up(f.rows, 4) / 4 + quad];
#pragma unroll
                    for (int t = 0; t < kTokens; ++t) {
                        sum[r][t] = __dp4a(static_cast<int>(parts[t]), weights, sum[r][t]);
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    int total = sum[r][t];
                    for (int offset = words; offset < 32; offset *= 2) {
                        total += __shfl_xor_sync(kAllLanes, total, offset);
                    }
                    const int token = first + words * t + lane;
                    if (lane < words && token >= part.token && token < part.token + part.n) {
                        scores[r * kChunk + part.at + token - part.token] =
                            step[r] * static_cast<float>(total) + bias[r];
                    }
                }
            }
        }
    }

    // A byte or nibble of a block as ggml lays it out; q8_0 and q4_0.
    template <Store kStore>
    __device__ static float block_element(const uint8_t* row, int c) {
        if constexpr (kStore == Store::blocks8) {
            const uint8_t* b = row + c / 32 * static_cast<int>(sizeof(BlockQ8_0));
            return half_bits_to_float(load_u16(b)) * static_cast<float>(static_cast<int8_t>(b[2 + c % 32]));
        } else {
            const uint8_t* b = row + c / 32 * static_cast<int>(sizeof(BlockQ4_0));
            return half_bits_to_float(load_u16(b)) *
                   static_cast<float>((b[2 + c % 16] >> (c % 32 / 16 * 4) & 15) - 8);
        }
    }

    __device__ void score_blocks(const Part& part) {
        const PageFormat& f = a.k.format;
        const float* framed = in_shared<float>(at.q_framed);
        float* scores = in_shared<float>(at.scores);
        const int eighth = lane % 8;
        for (int i = warp * 4 + lane / 8; i < round_up(part.n, 16); i += kWarps * 4) {
            const uint8_t* row = part.page + static_cast<size_t>(part.token + min(i, part.n - 1)) * f.row_bytes();
            float sum[kRows] = {};
            for (int c = eighth; c < d; c += 8) {
                const float k = block_element<kK>(row, c);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    sum[r] += k * framed[r * d + c];
                }
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                for (int offset = 4; offset > 0; offset /= 2) {
                    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], offset);
                }
                if (eighth == 0 && i < part.n) {
                    scores[r * kChunk + part.at + i] = sum[r];
                }
            }
        }
    }

    __device__ void fetch(int offset, const uint8_t* page, size_t bytes) {
        for (size_t i = threadIdx.x * 16; i < bytes; i += kThreads * 16) {
            copy_async(shared + offset + i, page + i);
        }
    }

    // Starts copying the pages that a chunk begins with.
    __device__ void fetch_first(int t0) {
        t0 = max(t0, seg.page_tokens);
        if constexpr (coded(kK)) {
            if (t0 < seg.k.n_paged) {
                fetch(at.page_k, seg.k.runs[first_run(seg.k, t0)].block + k_offset, a.k.format.page_bytes);
            }
        }
        copy_commit();
        if constexpr (coded(kV)) {
            if (t0 < seg.v.n_paged) {
                fetch(at.page_v, seg.v.runs[first_run(seg.v, t0)].block + v_offset, a.v.format.page_bytes);
            }
        }
        copy_commit();
    }

    // Calls body(part, first) for the parts of runs in [t0, t1); the page of the first is on its way to `offset`.
    template <bool kFetch, class Body>
    __device__ void for_parts(const SideWork& side, size_t page_offset, size_t page_bytes, int offset, int t0, int t1,
                              const Body& body) {
        const int end = min(t1, side.n_paged);
        const int from = max(t0, seg.page_tokens);
        if (from >= end) {
            return;
        }
        int i = first_run(side, from);
        for (bool first = true; i < side.n_runs && side.runs[i].start < end; ++i, first = false) {
            const Part part = part_of(side.runs[i], page_offset, t0, from, end);
            if (kFetch && !first) {
                __syncthreads();
                fetch(offset, part.page, page_bytes);
                copy_commit();
                copy_wait<0>();
                __syncthreads();
            }
            body(part);
        }
    }

    __device__ void score_parts(int t0, int t1) {
        for_parts<coded(kK)>(seg.k, k_offset, a.k.format.page_bytes, at.page_k, t0, t1, [&](const Part& part) {
            if (part.frame != frame) {
                __syncthreads();
                enter_frame(part.frame);
            }
            if constexpr (coded(kK)) {
                score_codes(reinterpret_cast<const uint8_t*>(shared + at.page_k), part);
            } else {
                score_blocks(part);
            }
        });
    }

    __device__ void score(int t0, int t1, bool any_exact) {
        if constexpr (kK == Store::exact) {
            // Pages of other frames are rare: one frame of q at a time, over the tokens it is for.
            if (t0 < seg.k.n_paged && seg.k.runs[seg.k.n_runs - 1].frame != 0) {
                score_framed_pages(t0, t1);
            } else {
                score_exact(in_shared<float>(at.q), t0);
            }
        } else {
            score_parts(t0, t1);
            if (any_exact) {
                __syncthreads();  // sinks lie over codes of the same tokens
                score_exact(in_shared<float>(at.q), t0);
            }
        }
    }

    // Exact pages that moved. Rows in other frames are hidden while one is scored.
    __device__ void score_framed_pages(int t0, int t1) {
        const uint16_t** rows = in_shared<const uint16_t*>(at.k_row);
        const uint16_t* own = rows[threadIdx.x];
        const int token = t0 + threadIdx.x;
        int own_frame = 0;
        if (token < t1 && token >= seg.k.n_sinks && token < seg.k.n_paged) {
            own_frame = seg.k.runs[first_run(seg.k, token)].frame;
        }
        const int last = first_run(seg.k, min(t1, seg.k.n_paged) - 1);
        for (int i = first_run(seg.k, t0) - 1; i <= last; ++i) {
            // First the rows of frame 0, then those of each run that has another.
            const int wanted = i < first_run(seg.k, t0) ? 0 : seg.k.runs[i].frame;
            if (i >= first_run(seg.k, t0) && wanted == 0) {
                continue;
            }
            __syncthreads();
            rows[threadIdx.x] = own_frame == wanted ? own : nullptr;
            enter_frame(wanted);
            score_exact(in_shared<float>(at.q_framed), t0);
        }
        __syncthreads();
    }

    // ---- softmax

    __device__ void softmax(int t0, int t1) {
        float* scores = in_shared<float>(at.scores);
        float* stats = in_shared<float>(at.stats);
        for (int r = warp; r < kRows; r += kWarps) {
            const int last = r < n_rows ? position_of(r) : -1;
            const int first = a.window > 0 ? last - a.window + 1 : 0;
            float x[kChunk / 32];
            float largest = -INFINITY;
#pragma unroll
            for (int j = 0; j < kChunk / 32; ++j) {
                const int token = t0 + lane + 32 * j;
                const bool elsewhere = token >= seg.k.n_sinks && token < seg.page_tokens;
                const bool seen = token < t1 && token <= last && token >= first && !elsewhere;
                x[j] = seen ? scores[r * kChunk + lane + 32 * j] : -INFINITY;
                largest = fmaxf(largest, x[j]);
            }
            const float before = stats[r];
            const float now = fmaxf(before, warp_max(largest));
            float sum = 0;
#pragma unroll
            for (int j = 0; j < kChunk / 32; ++j) {
                const float p = x[j] == -INFINITY ? 0.0f : __expf(x[j] - now);
                scores[r * kChunk + lane + 32 * j] = p;
                sum += p;
            }
            sum = warp_sum(sum);
            __syncwarp();
            if (lane == 0) {
                const float correction = before == -INFINITY ? 0.0f : __expf(before - now);
                stats[r] = now;
                stats[kRows + r] = stats[kRows + r] * correction + sum;
                stats[2 * kRows + r] = correction;
            }
        }
    }

    // ---- values

    __device__ void accumulate_exact() {
        const uint16_t* const* rows = in_shared<const uint16_t*>(at.v_row);
        const float* p = in_shared<float>(at.scores);
        if (lane * kCh >= d) {
            return;
        }
#pragma unroll 4
        for (int i = warp; i < kChunk; i += kWarps) {
            const uint16_t* row = rows[i];
            if (row == nullptr) {
                continue;
            }
            float v[kCh];
#pragma unroll
            for (int c = 0; c < kCh; c += 2) {
                const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(row + lane * kCh + c));
                v[c] = pair.x;
                v[c + 1] = pair.y;
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const float weight = p[r * kChunk + i];
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    exact[r][c] += weight * v[c];
                }
            }
        }
    }

    // The probability of a token of a page: 0 outside the part, and for sinks, whose codes are masked.
    __device__ float probability(int r, const Part& part, int token, int t0) const {
        const int i = token - part.token;
        const bool inside = i >= 0 && i < part.n && t0 + part.at + i >= seg.v.n_sinks;
        return inside ? in_shared<float>(at.scores)[r * kChunk + part.at + i] : 0.0f;
    }

    // Folds the scales of 32 tokens into their probabilities; lane: token.
    __device__ void fold_values(const uint8_t* page, const Part& part, int t0) {
        const PageFormat& f = a.v.format;
        const float middle = 0.5f * static_cast<float>((1 << bits_of(kV)) - 1);
        const int token = warp * 32 + lane;
        float p[kRows];
        float* mass = in_shared<float>(at.stats) + (3 + warp) * kRows;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            p[r] = probability(r, part, token, t0);
            const float total = warp_sum(p[r]);
            if (lane == 0) {
                mass[r] += total;
            }
        }
        int8_t* folded = in_shared<int8_t>(at.fold_v) + warp * f.scale_groups * kRows * 32;
        float2* steps = in_shared<float2>(at.step_v) + warp * f.scale_groups * kRows;
        for (int g = 0; g < f.scale_groups; ++g) {
            const int i = token * f.scale_groups + g;
            float scale;
            float zero;
            if (f.scale_kind == ScaleKind::byte_token) {
                scale = decode_byte_scale(page[f.scales_offset + token], v_factor);
                zero = -1.5f * scale;
            } else if (f.scale_kind == ScaleKind::half_pair) {
                scale = half_bits_to_float(load_u16(page + f.scales_offset + i * 4));
                zero = half_bits_to_float(load_u16(page + f.scales_offset + i * 4 + 2));
            } else {
                scale = decode_byte_scale(page[f.scales_offset + i], v_factor);
                zero = scale * 0.25f * static_cast<float>(static_cast<int8_t>(page[f.zeros_offset + i]));
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                const float w = p[r] == 0 ? 0.0f : p[r] * scale;  // what is not there may be anything
                const float constant = p[r] == 0 ? 0.0f : p[r] * zero + w * middle;
                const float largest = warp_max(fabsf(w));
                const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
                const int code = __float2int_rn(w * inverse);
                folded[(g * kRows + r) * 32 + lane] = static_cast<int8_t>(code);
                const float step = largest / 127.0f;
                const float bias = warp_sum(constant) - step * middle * static_cast<float>(warp_sum(code));
                if (lane == 0) {
                    steps[g * kRows + r] = make_float2(step, bias);
                }
            }
        }
        __syncwarp();
    }

    __device__ void accumulate_codes(const uint8_t* page, const Part& part, int t0) {
        constexpr int kBits = bits_of(kV);
        constexpr unsigned kMask = kBits == 2 ? 0x03030303u : 0x0f0f0f0fu;
        constexpr int kHalves = kBits == 2 ? 1 : 2;  // words of a channel for 16 tokens
        const PageFormat& f = a.v.format;
        if (warp * 32 >= part.token + part.n || warp * 32 + 32 <= part.token) {
            return;
        }
        fold_values(page, part, t0);
        const int c0 = lane * kCh;
        if (c0 >= d) {
            return;
        }
        const int g = f.scale_groups == 1 ? 0 : c0 / f.group;  // groups are multiples of 16 channels, kCh at most 8
        const int4* folded =
            in_shared<int4>(at.fold_v) + (static_cast<size_t>(warp) * f.scale_groups + g) * kRows * 2;
        const float2* steps = in_shared<float2>(at.step_v) + (warp * f.scale_groups + g) * kRows;
        int sum[kRows][kCh] = {};
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            int4 weights[kRows];
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                weights[r] = folded[r * 2 + b];
            }
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
#pragma unroll
                for (int h = 0; h < kHalves; ++h) {
                    const int channel = c0 + c;
                    const int index = kBits == 2 ? (2 * warp + b) * d + channel
                                                 : ((2 * warp + b) * (d / 8) + channel / 8) * 16 + channel % 8 + 8 * h;
                    const unsigned word = reinterpret_cast<const unsigned*>(page)[index];
#pragma unroll
                    for (int s = 0; s < 8 / kBits; ++s) {
                        const int codes = static_cast<int>(word >> (kBits * s) & kMask);
                        const int quad = kBits == 2 ? s : 2 * s + h;  // of four tokens
#pragma unroll
                        for (int r = 0; r < kRows; ++r) {
                            const int w = quad == 0   ? weights[r].x
                                          : quad == 1 ? weights[r].y
                                          : quad == 2 ? weights[r].z
                                                      : weights[r].w;
                            sum[r][c] = __dp4a(codes, w, sum[r][c]);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float2 step = steps[r];
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                quantized[r][c] += step.x * static_cast<float>(sum[r][c]) + step.y;
            }
        }
    }

    __device__ void accumulate_blocks(const Part& part, int t0) {
        const PageFormat& f = a.v.format;
        if (lane * kCh >= d) {
            return;
        }
        for (int i = warp; i < part.n; i += kWarps) {
            const uint8_t* row = part.page + static_cast<size_t>(part.token + i) * f.row_bytes();
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                const float v = block_element<kV>(row, lane * kCh + c);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    quantized[r][c] += probability(r, part, part.token + i, t0) * v;
                }
            }
        }
    }

    __device__ void accumulate(int t0, int t1) {
        const float* stats = in_shared<float>(at.stats);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float correction = stats[2 * kRows + r];
#pragma unroll
            for (int c = 0; c < kCh; ++c) {
                exact[r][c] *= correction;
                quantized[r][c] *= correction;
            }
        }
        if constexpr (kV != Store::exact) {
            for_parts<coded(kV)>(seg.v, v_offset, a.v.format.page_bytes, at.page_v, t0, t1, [&](const Part& part) {
                if constexpr (coded(kV)) {
                    accumulate_codes(reinterpret_cast<const uint8_t*>(shared + at.page_v), part, t0);
                } else {
                    accumulate_blocks(part, t0);
                }
            });
        }
    }

    // ---- the whole

    // Chunks are counted over the tokens that attention_pages leaves: the first one if sinks are in it, and those from the
    // end of the pages on.
    __device__ int extra_chunk() const { return seg.k.n_sinks > 0 && seg.page_tokens >= kChunk ? 1 : 0; }
    __device__ int start_of(int chunk) const {
        const int extra = extra_chunk();
        return chunk < extra ? 0 : (seg.page_tokens / kChunk + chunk - extra) * kChunk;
    }

    __device__ void run(int begin, int end, int n_tokens) {
        start();
        if (begin < end) {
            fetch_first(start_of(begin));
        }
        for (int chunk = begin; chunk < end; ++chunk) {
            const int t0 = start_of(chunk);
            const int t1 = min(t0 + kChunk, n_tokens);
            const int token = t0 + threadIdx.x;
            const uint16_t* k_row = row_of<kK>(seg.k, a.k, k_offset, token, t1);
            const uint16_t* v_row = row_of<kV>(seg.v, a.v, v_offset, token, t1);
            in_shared<const uint16_t*>(at.k_row)[threadIdx.x] = k_row;
            in_shared<const uint16_t*>(at.v_row)[threadIdx.x] = v_row;
            copy_wait<1>();
            const bool any_k = __syncthreads_or(k_row != nullptr);
            score(t0, t1, any_k);
            __syncthreads();
            softmax(t0, t1);
            copy_wait<0>();
            const bool any_v = __syncthreads_or(v_row != nullptr);
            if constexpr (coded(kV)) {
                if (threadIdx.x < kWarps * kRows) {
                    in_shared<float>(at.stats)[3 * kRows + threadIdx.x] *=
                        in_shared<float>(at.stats)[2 * kRows + threadIdx.x % kRows];
                }
                __syncthreads();
            }
            accumulate(t0, t1);
            if (any_v) {
                accumulate_exact();
            }
            __syncthreads();
            if (chunk + 1 < end) {
                fetch_first(start_of(chunk + 1));
            }
        }
        finish();
    }

    __device__ void reduce(const float (&sums)[kRows][kCh]) {
        float* all = in_shared<float>(at.reduce);
        __syncthreads();
        if (lane * kCh < d) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
#pragma unroll
                for (int c = 0; c < kCh; ++c) {
                    all[(warp * kRows + r) * d + lane * kCh + c] = sums[r][c];
                }
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
            float total = 0;
            for (int w = 0; w < kWarps; ++w) {
                total += all[w * kRows * d + i];
            }
            all[i] = total;  // read by this thread alone
        }
        __syncthreads();
    }

    __device__ void finish() {
        const float* stats = in_shared<float>(at.stats);
        float* sums = in_shared<float>(at.reduce);
        float* total = in_shared<float>(at.q);  // [rows, D]; q is not needed any more
        if constexpr (kV != Store::exact) {
            reduce(quantized);
            if (a.v.format.scale_kind == ScaleKind::byte_token || a.v.format.blocks()) {
                hadamard(sums);
            }
            const uint16_t* mu = reinterpret_cast<const uint16_t*>(
                seg.v.tables + static_cast<size_t>(head_index) * a.v.table_bytes + 4);
            const bool centred =
                a.v.format.scale_kind == ScaleKind::byte_token && seg.v.n_paged > seg.v.n_sinks;
            for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
                float mass = 0;
                for (int w = 0; w < kWarps; ++w) {
                    mass += stats[(3 + w) * kRows + i / d];
                }
                total[i] = sums[i] + (centred ? mass * half_bits_to_float(mu[i % d]) : 0.0f);
            }
        } else {
            for (int i = threadIdx.x; i < kRows * d; i += kThreads) {
                total[i] = 0;
            }
        }
        reduce(exact);
        for (int i = threadIdx.x; i < n_rows * d; i += kThreads) {
            const int r = i / d;
            const float x = total[i] + sums[i];
            if (a.n_page_splits + a.n_splits == 1) {
                a.out[output_row(r) * d + i % d] = x / stats[kRows + r];
            } else {
                float* part =
                    a.partial + (static_cast<size_t>(a.n_page_splits + blockIdx.y) * a.n_rows * a.n_head + output_row(r)) * (d + 2);
                part[2 + i % d] = x;
                if (i % d == 0) {
                    part[0] = stats[r];
                    part[1] = stats[kRows + r];
                }
            }
        }
    }
};

// Grid: KV heads times groups of kRows rows, splits, segments.
template <int kRows, Store kK, Store kV, int kCh>
__global__ void __launch_bounds__(kThreads) attention_kernel(const AttentionWork a) {
    extern __shared__ __align__(16) char shared[];
    const SegmentWork& seg = a.segments[blockIdx.z];
    const int group = a.n_head / a.n_head_kv;
    const int row0 = blockIdx.x / a.n_head_kv * kRows;
    if (row0 >= seg.n_rows * group) {
        return;
    }
    const int last_row = min(row0 + kRows, seg.n_rows * group) - 1;
    const int n_tokens = seg.length + last_row / group + 1;
    Block<kRows, kK, kV, kCh> block(a, seg, shared, blockIdx.x % a.n_head_kv, row0);
    const int before = seg.page_tokens / kChunk - block.extra_chunk();  // chunks that are not counted
    const int first = a.window > 0 ? max(0, seg.length + row0 / group + 1 - a.window) : 0;
    const int begin = seg.page_tokens > 0 ? max(0, first / kChunk - before) : first / kChunk;
    const int end = (n_tokens + kChunk - 1) / kChunk - before;
    const int per_split = (end - begin + a.n_splits - 1) / a.n_splits;
    const int from = begin + static_cast<int>(blockIdx.y) * per_split;
    block.run(min(from, end), min(from + per_split, end), n_tokens);
}

template <int kRows, Store kK, Store kV, int kCh>
void launch(const AttentionWork& a, cudaStream_t stream) {
    const int bytes = Layout(a.k.format, a.v.format, kRows).bytes;
    if (bytes > 48 << 10) {
        cudaFuncSetAttribute(attention_kernel<kRows, kK, kV, kCh>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    }
    const int group = a.n_head / a.n_head_kv;
    const dim3 grid(a.n_head_kv * ((a.max_rows * group + kRows - 1) / kRows), a.n_splits, a.n_segments);
    attention_kernel<kRows, kK, kV, kCh><<<grid, kThreads, bytes, stream>>>(a);
}

template <Store kK, Store kV, int kCh>
void launch_rows(const AttentionWork& a, cudaStream_t stream) {
    const int rows = a.max_rows * (a.n_head / a.n_head_kv);
    if (rows == 1) {
        launch<1, kK, kV, kCh>(a, stream);
    } else if (rows <= 4) {
        launch<4, kK, kV, kCh>(a, stream);
    } else if constexpr (kCh <= 4) {
        launch<8, kK, kV, kCh>(a, stream);
    } else {
        launch<4, kK, kV, kCh>(a, stream);
    }
}

template <Store kK, Store kV>
void launch_width(const AttentionWork& a, cudaStream_t stream) {
    if (a.head_size <= 64) {
        launch_rows<kK, kV, 2>(a, stream);
    } else if (a.head_size <= 128) {
        launch_rows<kK, kV, 4>(a, stream);
    } else {
        launch_rows<kK, kV, 8>(a, stream);
    }
}

}  // namespace

}  // namespace lk::cuda
