// Rows into the cache: staging, the ring, and the quantizers of pages. The arithmetic is that of kv/scalar_codec.h and
// kv/quantizer.cpp, in the same order wherever that decides a code; compiled without contraction for that reason.
#include <cmath>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/queue.h"
#include "kv/scalar_codec.h"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;
using kv::Side;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxHead = kv::kMaxHeadSize;
constexpr int kLaneChannels = kMaxHead / 32;  // channel lane + 32 j

static_assert(kThreads == kMaxHead, "a thread takes a channel");

// Scale and zero of a group, and how they quantize.
struct Group {
    float s;
    float m;
    uint8_t bytes[4];  // as stored: half scale, half min; or byte scale, byte zero
    int levels;

    __device__ Group(ScaleKind kind, float min, float max, int n_levels, int k)
        : s(0), m(0), bytes{}, levels(n_levels) {
        if (kind == ScaleKind::half_pair) {
            const kv::HalfPair pair(min, max, levels);
            s = pair.s;
            m = pair.m;
            bytes[0] = static_cast<uint8_t>(pair.scale);
            bytes[1] = static_cast<uint8_t>(pair.scale >> 8);
            bytes[2] = static_cast<uint8_t>(pair.min);
            bytes[3] = static_cast<uint8_t>(pair.min >> 8);
        } else {
            const kv::BytePair pair(min, max, levels, k);
            s = pair.s;
            m = pair.m;
            bytes[0] = pair.scale;
            bytes[1] = static_cast<uint8_t>(pair.zero);
        }
    }

    __device__ int code(float x) const { return kv::group_code(x, s, m, levels); }

    __device__ void store(const PageFormat& f, int at, uint8_t* page) const {
        if (f.scale_kind == ScaleKind::half_pair) {
            *reinterpret_cast<uint32_t*>(page + f.scales_offset + at * 4) =
                bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
        } else {
            page[f.scales_offset + at] = bytes[0];
            page[f.zeros_offset + at] = bytes[1];
        }
    }
};

// ---- a row of D channels in a warp: lane + 32 j

// Orthonormal Hadamard transform over blocks of D's largest power of two, with kv::hadamard's additions.
__device__ void hadamard(float (&x)[kLaneChannels], int d) {
    const int lane = threadIdx.x % 32;
    const int block = d & -d;
    for (int half = 1; half < block && half < 32; half *= 2) {
        for (int j = 0; j < kLaneChannels; ++j) {
            const float other = __shfl_xor_sync(kAllLanes, x[j], half);
            x[j] = lane & half ? other - x[j] : x[j] + other;
        }
    }
    for (int half = 32; half < block; half *= 2) {
        const int step = half / 32;
#pragma unroll
        for (int j = 0; j < kLaneChannels; ++j) {
            if (!(j & step) && j + step < kLaneChannels) {
                // A constant index after unrolling, for each step in turn.
#pragma unroll
                for (int s = 1; s < kLaneChannels; s *= 2) {
                    if (s == step && j + s < kLaneChannels) {
                        const float u = x[j];
                        const float v = x[j + s];
                        x[j] = u + v;
                        x[j + s] = u - v;
                    }
                }
            }
        }
    }
    const float norm = 1.0f / sqrtf(static_cast<float>(block));
    for (int j = 0; j < kLaneChannels; ++j) {
        x[j] *= norm;
    }
}

// A value of kivi2: centred and rotated in place; gives its codes and its unbiased scale.
__device__ float rotated_value(float (&w)[kLaneChannels], uint8_t (&codes)[kLaneChannels], int d) {
    const int lane = threadIdx.x % 32;
    hadamard(w, d);
    double square = 0;
    for (int j = 0; j < kLaneChannels; ++j) {
        if (lane + 32 * j < d) {
            square += static_cast<double>(w[j]) * w[j];
        }
    }
    square = warp_sum(square);
    const float step = kv::value_step(square / d);
    double along = 0;
    for (int j = 0; j < kLaneChannels; ++j) {
        const int code = kv::value_code(w[j], step);
        codes[j] = static_cast<uint8_t>(code);
        if (lane + 32 * j < d) {
            along += static_cast<double>(w[j]) * kv::value_level(code);
        }
    }
    along = warp_sum(along);
    return kv::unbiased_scale(square, along);
}

// ggml's blocks of 32 channels: block j is channels 32 j + lane. codes: as stored, before packing; d: their scale.
__device__ void quantize_blocks(const float (&x)[kLaneChannels], int n_blocks, int bits, int (&codes)[kLaneChannels],
                                uint16_t (&scales)[kLaneChannels]) {
    for (int j = 0; j < kLaneChannels; ++j) {
        if (j >= n_blocks) {
            break;
        }
        if (bits == 8) {
            const float d = kv::q8_scale(warp_max(fabsf(x[j])));
            scales[j] = float_to_half_bits(d);
            codes[j] = kv::q8_code(x[j], d);
        } else {
            // What is largest in magnitude, the first of equals, with its sign.
            float largest = x[j];
            int owner = threadIdx.x % 32;
            for (int offset = 16; offset > 0; offset /= 2) {
                const float other = __shfl_xor_sync(kAllLanes, largest, offset);
                const int other_owner = __shfl_xor_sync(kAllLanes, owner, offset);
                const bool better =
                    fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && other_owner < owner);
                largest = better ? other : largest;
                owner = better ? other_owner : owner;
            }
            const float d = kv::q4_scale(largest);
            scales[j] = float_to_half_bits(d);
            codes[j] = kv::q4_code(x[j], d);
        }
    }
}

// A warp's row of halves.
__device__ void load_row(const uint16_t* row, int d, float (&x)[kLaneChannels]) {
    for (int j = 0; j < kLaneChannels; ++j) {
        const int c = threadIdx.x % 32 + 32 * j;
        x[j] = c < d ? half_bits_to_float(row[c]) : 0.0f;
    }
}

// ---- staging

// Element c of a head after its rotation.
__device__ float rotated(const float* head, const float* angles, int c, int n_rot, bool halves) {
    if (c >= n_rot) {
        return head[c];
    }
    const int pairs = n_rot / 2;
    const int pair = halves ? c % pairs : c / 2;
    const bool second = halves ? c >= pairs : c % 2 == 1;
    const float a = head[halves ? pair : 2 * pair];
    const float b = head[halves ? pair + pairs : 2 * pair + 1];
    const float cosine = angles[2 * pair];
    const float sine = angles[2 * pair + 1];
    return second ? a * sine + b * cosine : a * cosine - b * sine;
}

// A warp takes a row of a head: of the queries, the keys or the values. Rows for blocks become what their page will
// give back, as on the CPU.
__global__ void stage_kernel(const __grid_constant__ StageWork w) {
    after_previous();
    const int d = w.k_shape.format.head_size;
    const int lane = threadIdx.x % 32;
    const int n_heads = w.n_head + 2 * w.n_head_kv;
    const int index = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int row = index / n_heads;
    if (row >= w.n) {
        return;
    }
    const int h = index % n_heads;
    const bool is_query = h < w.n_head;
    const bool is_key = !is_query && h < w.n_head + w.n_head_kv;
    const int head = is_query ? h : is_key ? h - w.n_head : h - w.n_head - w.n_head_kv;
    float x[kLaneChannels];
    if (is_query || is_key) {
        float* const in = is_query ? w.q + (static_cast<size_t>(row) * w.n_head + head) * d
                                   : w.k + (static_cast<size_t>(row) * w.n_head_kv + head) * d;
        for (int j = 0; j < kLaneChannels; ++j) {
            const int c = lane + 32 * j;
            x[j] = c < d ? rotated(in, w.cos_sin + static_cast<size_t>(row) * w.n_rot, c, w.n_rot, w.halves) : 0.0f;
        }
        __syncwarp();
        bool finite = true;
        for (int j = 0; j < kLaneChannels; ++j) {
            if (lane + 32 * j < d) {
                in[lane + 32 * j] = x[j];
                finite = finite && is_finite(x[j]);
            }
        }
        if (is_query) {
            if (!finite) {
                report(w.broken, w.q_place);
            }
            return;
        }
    } else {
        const float* const in = w.v + (static_cast<size_t>(row) * w.n_head_kv + head) * d;
        for (int j = 0; j < kLaneChannels; ++j) {
            x[j] = lane + 32 * j < d ? in[lane + 32 * j] : 0.0f;
        }
    }
    const SideShape& shape = is_key ? w.k_shape : w.v_shape;
    const PageFormat& f = shape.format;
    uint16_t* const out = (is_key ? w.staged_k : w.staged_v) + (static_cast<size_t>(head) * shape.n_ubatch + row) * d;
    bool finite = true;
    bool large = false;
    for (int j = 0; j < kLaneChannels; ++j) {
        const uint16_t half = float_to_half_bits(x[j]);
        finite = finite && is_finite(x[j]);
        large |= (half & 0x7c00u) == 0x7c00u;
        x[j] = half_bits_to_float(half);
    }
    if (f.blocks()) {
        int codes[kLaneChannels];
        uint16_t scales[kLaneChannels];
        hadamard(x, d);
        quantize_blocks(x, d / 32, f.bits, codes, scales);
        for (int j = 0; j < kLaneChannels; ++j) {
            const bool inside = lane + 32 * j < d;
            large |= inside && (scales[j] & 0x7c00u) == 0x7c00u;
            x[j] = inside ? half_bits_to_float(scales[j]) *
                                static_cast<float>(f.bits == 8 ? codes[j] : codes[j] - kv::kQ4Zero)
                          : 0;
        }
        hadamard(x, d);
        for (int j = 0; j < kLaneChannels; ++j) {
            x[j] = kv::clamped(x[j], -kv::kLargestHalf, kv::kLargestHalf);
        }
    }
    for (int j = 0; j < kLaneChannels; ++j) {
        if (lane + 32 * j < d) {
            out[lane + 32 * j] = float_to_half_bits(x[j]);
        }
    }
    if (__any_sync(kAllLanes, !finite)) {
        report(w.broken, is_key ? w.k_place : w.v_place);
    } else if (large) {
        report(w.broken, is_key ? w.large_k_place : w.large_v_place);
    }
}

// ---- formats without a ring: rows go straight to their pages

__global__ void append_rows_kernel(const SideShape shape, const AppendWork* works) {
    after_previous();
    const AppendWork& work = works[blockIdx.z];
    const PageFormat& f = shape.format;
    const int d = f.head_size;
    const int head = blockIdx.y;
    const int lane = threadIdx.x % 32;
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= work.n_rows) {
        return;
    }
    const uint16_t* row = work.staged + (static_cast<size_t>(head) * shape.n_ubatch + i) * d;
    const int token = work.page_token + i;
    uint8_t* out = work.blocks[token / kv::kPageTokens] + static_cast<size_t>(head) * f.page_bytes +
                   static_cast<size_t>(token % kv::kPageTokens) * f.row_bytes();
    if (!f.quantized()) {
        for (int c = lane; c < d; c += 32) {
            reinterpret_cast<uint16_t*>(out)[c] = row[c];
        }
        return;
    }
    float x[kLaneChannels];
    int codes[kLaneChannels];
    uint16_t scales[kLaneChannels];
    load_row(row, d, x);
    hadamard(x, d);
    quantize_blocks(x, d / 32, f.bits, codes, scales);
    for (int j = 0; j < kLaneChannels; ++j) {
        if (j >= d / 32) {
            break;
        }
        if (f.bits == 8) {
            uint8_t* b = out + j * sizeof(BlockQ8_0);
            b[2 + lane] = static_cast<uint8_t>(codes[j]);
            if (lane == 0) {
                *reinterpret_cast<uint16_t*>(b) = scales[j];
            }
        } else {
            uint8_t* b = out + j * sizeof(BlockQ4_0);
            const int high = __shfl_xor_sync(kAllLanes, codes[j], 16);
            if (lane < 16) {
                b[2 + lane] = static_cast<uint8_t>(codes[j] | high << 4);
            }
            if (lane == 0) {
                *reinterpret_cast<uint16_t*>(b) = scales[j];
            }
        }
    }
}

// ---- rows that fit in the ring: nothing leaves it

__global__ void append_to_ring_kernel(const SideShape shape, const AppendWork* works) {
    after_previous();
    const AppendWork& work = works[blockIdx.z];
    const int d = shape.format.head_size;
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int head = blockIdx.y * kWarps + i % kWarps;
    const int row = i / kWarps;
    if (head >= work.n_heads || row >= work.n_rows) {
        return;
    }
    const int at = (work.ring_start + work.n_ring + row) % shape.trigger;
    const auto* from =
        reinterpret_cast<const uint32_t*>(work.staged + (static_cast<size_t>(head) * shape.n_ubatch + row) * d);
    auto* to = reinterpret_cast<uint32_t*>(work.ring + (static_cast<size_t>(head) * shape.trigger + at) * d);
    for (int c = threadIdx.x % 32; c < d / 2; c += 32) {
        to[c] = from[c];
    }
}

// ---- the ring and what leaves it: a block for each head of a segment

struct Ring {
    const uint16_t* rows;  // [trigger, D]
    int start;
    int trigger;
    int d;

    __device__ const uint16_t* row(int i) const {
        const int at = start + i;
        return rows + static_cast<size_t>(at < trigger ? at : at - trigger) * d;
    }
    __device__ float at(int i, int c) const { return half_bits_to_float(row(i)[c]); }
};

__device__ float block_max(float x, float* scratch) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    x = threadIdx.x % 32 < kWarps ? scratch[threadIdx.x % 32] : 0.0f;
    return warp_max(x);
}

// Range of channel c over rows [from, to) of the ring.
__device__ void range_of(const Ring& ring, int from, int to, int c, float& min, float& max) {
    min = max = ring.at(from, c);
    for (int i = from + 1; i < to; ++i) {
        const float x = ring.at(i, c);
        min = fminf(min, x);
        max = fmaxf(max, x);
    }
}

// Refined channels and exponent of keys, over the n rows in the ring.
__device__ void choose_key_table(const PageFormat& f, const Ring& ring, int n, int first, int sinks, double* widths,
                                 float* scratch, uint8_t* table) {
    const int d = f.head_size;
    const int c = threadIdx.x;
    const int n_refined = f.rows - d;
    uint16_t* refined = reinterpret_cast<uint16_t*>(table + 4);
    double width = 0;
    if (c < d) {
        for (int begin = 0; begin < n; begin += f.group) {
            const int end = min(begin + f.group, n);
            const int from = min(end, max(begin, sinks - first));
            if (from < end) {
                float low;
                float high;
                range_of(ring, from, end, c, low, high);
                width += static_cast<double>(high) - low;
            }
        }
        widths[c] = width;
    }
    __syncthreads();
    bool is_refined = false;
    if (c < d && n_refined > 0) {
        int rank = 0;
        for (int o = 0; o < d; ++o) {
            rank += widths[o] > width || (widths[o] == width && o < c);
        }
        is_refined = rank < n_refined;
    }
    __syncthreads();
    if (c < d) {
        widths[c] = is_refined ? 1.0 : 0.0;
    }
    __syncthreads();
    float largest = 0;
    if (c < d) {
        int place = 0;
        for (int o = 0; o < c; ++o) {
            place += widths[o] != 0;
        }
        if (is_refined) {
            refined[place] = static_cast<uint16_t>(c);
        }
        const int levels = kv::code_levels(f.bits, is_refined);
        for (int begin = 0; begin < n; begin += f.group) {
            const int end = min(begin + f.group, n);
            const int from = min(end, max(begin, sinks - first));
            if (from < end) {
                float low;
                float high;
                range_of(ring, from, end, c, low, high);
                largest = fmaxf(largest, kv::byte_pair_scale(low, high, levels));
            }
        }
    }
    largest = block_max(largest, scratch);
    if (threadIdx.x == 0) {
        *reinterpret_cast<int*>(table) = kv::byte_scale_exponent(largest);
    }
    __syncthreads();
}

// Bits of a half, in the order of the numbers.
__device__ unsigned ordered(uint16_t half) {
    return half & 0x8000u ? 0xffffu & ~static_cast<unsigned>(half) : half | 0x8000u;
}

// Median of channel c over rows [skip, n) of the ring: bit by bit, the number that n / 2 rows are below.
__device__ float median(const Ring& ring, int skip, int n, int c) {
    const int count = n - skip;
    const int rank = count / 2;
    unsigned upper = 0;
    for (int bit = 15; bit >= 0; --bit) {
        const unsigned trial = upper | 1u << bit;
        int below = 0;
        for (int i = skip; i < n; ++i) {
            below += ordered(ring.row(i)[c]) < trial;
        }
        upper = below <= rank ? trial : upper;
    }
    int below = 0;
    unsigned lower = 0;  // the greatest below
    for (int i = skip; i < n; ++i) {
        const unsigned x = ordered(ring.row(i)[c]);
        below += x < upper;
        lower = x < upper ? max(lower, x) : lower;
    }
    const auto value = [](unsigned key) {
        return half_bits_to_float(static_cast<uint16_t>(key & 0x8000u ? key & 0x7fffu : ~key));
    };
    if (count % 2 == 1) {
        return value(upper);
    }
    return 0.5f * (value(below == rank ? lower : upper) + value(upper));
}

// Median over rows [skip, n) of the mean square of row - mu; warps take rows, then thread 0 the median.
__device__ float median_mean_square(const Ring& ring, int skip, int n, const uint16_t* mu, float* squares,
                                    float* scratch) {
    const int d = ring.d;
    __syncthreads();
    for (int i = skip + threadIdx.x / 32; i < n; i += kWarps) {
        double sum = 0;
        for (int c = threadIdx.x % 32; c < d; c += 32) {
            const double x = ring.at(i, c) - (mu != nullptr ? half_bits_to_float(mu[c]) : 0.0f);
            sum += x * x;
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) {
            squares[i - skip] = static_cast<float>(sum / d);
        }
    }
    __syncthreads();
    // Every thread ranks its own rows.
    const int count = n - skip;
    for (int i = threadIdx.x; i < count; i += kThreads) {
        int rank = 0;
        for (int o = 0; o < count; ++o) {
            rank += squares[o] < squares[i] || (squares[o] == squares[i] && o < i);
        }
        if (rank == count / 2) {
            scratch[0] = squares[i];
        }
        if (rank == count / 2 - 1) {
            scratch[1] = squares[i];
        }
    }
    __syncthreads();
    const float result = count % 2 == 1 ? scratch[0] : 0.5f * (scratch[1] + scratch[0]);
    __syncthreads();
    return result;
}

// Centre and exponent of values, over the n rows in the ring. squares: n floats.
__device__ void choose_value_table(const PageFormat& f, const Ring& ring, int n, int skip, float* squares,
                                   float* scratch, uint8_t* table) {
    const int d = f.head_size;
    uint16_t* mu = reinterpret_cast<uint16_t*>(table + 4);
    float largest = 0;
    if (f.scale_kind == ScaleKind::byte_token) {
        const int c = threadIdx.x;
        if (c < d) {
            mu[c] = float_to_half_bits(median(ring, skip, n, c));
        }
        __syncthreads();
        const float centred = median_mean_square(ring, skip, n, mu, squares, scratch);
        const float plain = median_mean_square(ring, skip, n, nullptr, squares, scratch);
        if (!kv::centring_pays(centred, plain) && c < d) {
            mu[c] = 0;
        }
        __syncthreads();
        for (int i = skip + threadIdx.x / 32; i < n; i += kWarps) {
            float w[kLaneChannels];
            uint8_t codes[kLaneChannels];
            load_row(ring.row(i), d, w);
            for (int j = 0; j < kLaneChannels; ++j) {
                const int ch = threadIdx.x % 32 + 32 * j;
                w[j] = ch < d ? w[j] - half_bits_to_float(mu[ch]) : 0.0f;
            }
            largest = fmaxf(largest, rotated_value(w, codes, d));
        }
    } else {
        for (int i = threadIdx.x; i < (n - skip) * f.scale_groups; i += kThreads) {
            const uint16_t* row = ring.row(skip + i / f.scale_groups);
            const int begin = i % f.scale_groups * f.group;
            float low = half_bits_to_float(row[begin]);
            float high = low;
            for (int c = begin; c < min(begin + f.group, d); ++c) {
                low = fminf(low, half_bits_to_float(row[c]));
                high = fmaxf(high, half_bits_to_float(row[c]));
            }
            largest = fmaxf(largest, kv::byte_pair_scale(low, high, 1 << f.bits));
        }
    }
    largest = block_max(largest, scratch);
    if (threadIdx.x == 0) {
        *reinterpret_cast<int*>(table) = kv::byte_scale_exponent(largest);
    }
    __syncthreads();
}

// Rows [i, i + G) of the ring into token group `token / G` of a page. codes: uint8 [G, rows] of shared memory.
__device__ void quantize_keys(const PageFormat& f, const Ring& ring, int first_row, int token, int sinks,
                              const uint8_t* table, uint8_t* codes, uint8_t* page) {
    const int d = f.head_size;
    const int c = threadIdx.x;
    const int k = f.scale_kind == ScaleKind::half_pair ? 0 : *reinterpret_cast<const int*>(table);
    const uint16_t* refined = reinterpret_cast<const uint16_t*>(table + 4);
    if (c < d) {
        int low_row = -1;
        for (int i = 0; i < f.rows - d; ++i) {
            low_row = refined[i] == c ? d + i : low_row;
        }
        const int levels = kv::code_levels(f.bits, low_row >= 0);
        float low = 0;
        float high = 0;
        if (sinks < f.group) {
            range_of(ring, first_row + sinks, first_row + f.group, c, low, high);
        }
        const Group group(f.scale_kind, low, high, levels, k);
        group.store(f, token / f.group * d + c, page);
        for (int t = 0; t < f.group; ++t) {
            const int code = t < sinks ? 0 : group.code(ring.at(first_row + t, c));
            codes[t * f.rows + c] = static_cast<uint8_t>(low_row >= 0 ? code >> 2 : code);
            if (low_row >= 0) {
                codes[t * f.rows + low_row] = static_cast<uint8_t>(code & 3);
            }
        }
    }
    __syncthreads();
    const int per_word = 8 / f.bits;             // tokens
    const int words = f.tile_tokens / per_word;  // of a quad of rows
    const int tile_words = f.rows / 4 * words;
    unsigned* out = reinterpret_cast<unsigned*>(page) + token / f.tile_tokens * tile_words;
    for (int i = threadIdx.x; i < f.group / f.tile_tokens * tile_words; i += kThreads) {
        const int tile = i / tile_words;
        const int quad = i % tile_words / words;
        const int w = i % words;
        unsigned word = 0;
        for (int s = 0; s < per_word; ++s) {
            const uint8_t* four = codes + (tile * f.tile_tokens + s * words + w) * f.rows + quad * 4;
            for (int r = 0; r < 4; ++r) {
                word |= static_cast<unsigned>(four[r]) << (8 * r + f.bits * s);
            }
        }
        out[i] = word;
    }
    __syncthreads();
}

// Rows [first_row, first_row + n) of the ring into tokens [token, token + n) of a page; the first `sinks` are left out.
// codes: uint8 [n, D] of shared memory.
__device__ void quantize_values(const PageFormat& f, const Ring& ring, int first_row, int n, int token, int sinks,
                                const uint8_t* table, uint8_t* codes, uint8_t* page) {
    const int d = f.head_size;
    const int lane = threadIdx.x % 32;
    const int k = f.scale_kind == ScaleKind::half_pair ? 0 : *reinterpret_cast<const int*>(table);
    const uint16_t* mu = reinterpret_cast<const uint16_t*>(table + 4);
    if (f.scale_kind == ScaleKind::byte_token) {
        for (int t = sinks + threadIdx.x / 32; t < n; t += kWarps) {
            float w[kLaneChannels];
            uint8_t own[kLaneChannels];
            load_row(ring.row(first_row + t), d, w);
            for (int j = 0; j < kLaneChannels; ++j) {
                const int c = lane + 32 * j;
                w[j] = c < d ? w[j] - half_bits_to_float(mu[c]) : 0.0f;
            }
            const float scale = rotated_value(w, own, d);
            for (int j = 0; j < kLaneChannels; ++j) {
                if (lane + 32 * j < d) {
                    codes[t * d + lane + 32 * j] = own[j];
                }
            }
            if (lane == 0) {
                page[f.scales_offset + token + t] = kv::byte_scale_round_nearest(scale, k);
            }
        }
    } else {
        for (int i = threadIdx.x; i < (n - sinks) * f.scale_groups; i += kThreads) {
            const int t = sinks + i / f.scale_groups;
            const int g = i % f.scale_groups;
            const uint16_t* row = ring.row(first_row + t);
            const int begin = g * f.group;
            const int end = min(begin + f.group, d);
            float low = half_bits_to_float(row[begin]);
            float high = low;
            for (int c = begin; c < end; ++c) {
                low = fminf(low, half_bits_to_float(row[c]));
                high = fmaxf(high, half_bits_to_float(row[c]));
            }
            const Group group(f.scale_kind, low, high, 1 << f.bits, k);
            group.store(f, (token + t) * f.scale_groups + g, page);
            for (int c = begin; c < end; ++c) {
                codes[t * d + c] = static_cast<uint8_t>(group.code(half_bits_to_float(row[c])));
            }
        }
    }
    __syncthreads();
    // A word holds tokens of one block of 16; those that are not among these rows keep their codes.
    const int halves = f.bits / 2;  // words of a channel: 16 tokens of 2 bits are one word
    const int per_word = 8 / f.bits;
    const int first_block = token / kv::kValueBlockTokens;
    const int n_blocks = (token + n - 1) / kv::kValueBlockTokens - first_block + 1;
    const unsigned mask = (1u << f.bits) - 1;
    for (int i = threadIdx.x; i < n_blocks * d * halves; i += kThreads) {
        const int block = first_block + i / (d * halves);
        const int h = i % (d * halves) / d;
        const int c = i % d;
        const size_t index = (static_cast<size_t>(block) * (d / 8) + c / 8) * 8 * halves + 8 * h + c % 8;
        unsigned* out = reinterpret_cast<unsigned*>(page) + index;
        unsigned word = *out;
        for (int s = 0; s < per_word; ++s) {
            const int quad = halves * s + h;
            for (int b = 0; b < 4; ++b) {
                const int t = block * kv::kValueBlockTokens + 4 * quad + b - token;
                if (t >= sinks && t < n) {
                    const int shift = 8 * b + f.bits * s;
                    word = (word & ~(mask << shift)) | static_cast<unsigned>(codes[t * d + c]) << shift;
                }
            }
        }
        *out = word;
    }
    __syncthreads();
}

// Rows with a ring. Shared memory: widths double [256], squares float [trigger], codes, and from `copy` on, if it is
// not 0, the ring in order, which is read many times.
__global__ void __launch_bounds__(kThreads) append_kernel(const SideShape shape, const AppendWork* works, int copy) {
    after_previous();
    extern __shared__ __align__(16) uint8_t shared[];
    __shared__ float scratch[32];
    double* widths = reinterpret_cast<double*>(shared);
    float* squares = reinterpret_cast<float*>(widths + kMaxHead);
    uint8_t* codes = reinterpret_cast<uint8_t*>(squares + shape.trigger);

    const AppendWork& work = works[blockIdx.y];
    const PageFormat& f = shape.format;
    const int d = f.head_size;
    const int head = blockIdx.x;
    uint16_t* rows = work.ring + static_cast<size_t>(head) * shape.trigger * d;
    uint16_t* sink_rows = work.sinks + static_cast<size_t>(head) * shape.sinks * d;
    uint8_t* table = work.tables + static_cast<size_t>(head) * shape.table_bytes;
    const uint16_t* staged = work.staged + static_cast<size_t>(head) * shape.n_ubatch * d;
    int start = work.ring_start;
    int count = work.n_ring;
    int first_token = work.first_token;
    int token = work.page_token;  // from the start of the first block
    bool choose = work.choose_tables != 0;
    for (int done = 0; done < work.n_rows;) {
        const int n = min(work.n_rows - done, shape.trigger - count);
        for (int i = threadIdx.x; i < n * d; i += kThreads) {
            rows[static_cast<size_t>((start + count + i / d) % shape.trigger) * d + i % d] =
                staged[static_cast<size_t>(done) * d + i];
        }
        done += n;
        count += n;
        __syncthreads();
        if (count < shape.trigger) {
            break;
        }
        uint16_t* const copied = reinterpret_cast<uint16_t*>(shared + copy);
        const int n_copied = choose ? shape.trigger : shape.leave;
        if (copy > 0) {
            const Ring whole{rows, start, shape.trigger, d};
            for (int i = threadIdx.x; i < n_copied * d / 2; i += kThreads) {
                reinterpret_cast<uint32_t*>(copied)[i] =
                    reinterpret_cast<const uint32_t*>(whole.row(2 * i / d))[i % (d / 2)];
            }
            __syncthreads();
        }
        const Ring ring = copy > 0 ? Ring{copied, 0, shape.trigger, d} : Ring{rows, start, shape.trigger, d};
        const int limit = work.sink_limit;
        for (int i = 0; i < shape.leave && first_token + i < limit; ++i) {
            for (int c = threadIdx.x; c < d; c += kThreads) {
                sink_rows[static_cast<size_t>(first_token + i) * d + c] = ring.row(i)[c];
            }
        }
        if (choose && f.scale_kind != ScaleKind::half_pair) {
            if (f.side == Side::keys) {
                choose_key_table(f, ring, shape.trigger, first_token, limit, widths, scratch, table);
            } else {
                const int skip = min(max(limit - first_token, 0), shape.trigger - 1);
                choose_value_table(f, ring, shape.trigger, skip, squares, scratch, table);
            }
        }
        choose = false;
        for (int i = 0; i < shape.leave;) {
            const int in_page = token % kv::kPageTokens;
            const int step = f.side == Side::keys ? f.group : min(shape.leave - i, kv::kPageTokens - in_page);
            const int sinks = min(max(limit - (first_token + i), 0), step);
            uint8_t* page = work.blocks[token / kv::kPageTokens] + static_cast<size_t>(head) * f.page_bytes;
            if (f.side == Side::keys) {
                quantize_keys(f, ring, i, in_page, sinks, table, codes, page);
            } else {
                quantize_values(f, ring, i, step, in_page, sinks, table, codes, page);
            }
            i += step;
            token += step;
        }
        start = (start + shape.leave) % shape.trigger;
        count -= shape.leave;
        first_token += shape.leave;
        __syncthreads();
    }
}

}  // namespace

void stage(const StageWork& work, cudaStream_t stream) {
    const int n_blocks = (work.n * (work.n_head + 2 * work.n_head_kv) + kWarps - 1) / kWarps;
    queue(stage_kernel, n_blocks, kThreads, 0, stream, work);
}

void append_to_ring(const SideShape& shape, const AppendWork* work, int max_rows, int n_segments, int n_heads,
                    cudaStream_t stream) {
    // A block takes a row of several heads.
    const dim3 grid(max_rows, (n_heads + kWarps - 1) / kWarps, n_segments);
    queue(append_to_ring_kernel, grid, kThreads, 0, stream, shape, work);
}

void append(const SideShape& shape, const AppendWork* work, int max_rows, int n_segments, int n_heads,
            cudaStream_t stream) {
    if (!kv::is_kivi(shape.format.type)) {
        const dim3 grid((max_rows + kWarps - 1) / kWarps, n_heads, n_segments);
        queue(append_rows_kernel, grid, kThreads, 0, stream, shape, work);
        return;
    }
    const int rows = shape.format.side == Side::keys ? shape.format.rows : shape.format.head_size;
    const int group = shape.format.side == Side::keys ? shape.format.group : min(shape.leave, kv::kPageTokens);
    constexpr int kMostShared = 100 << 10;  // two blocks of a multiprocessor
    int bytes = (kMaxHead * 8 + shape.trigger * 4 + group * rows + 15) / 16 * 16;
    int copy = 0;
    const int ring_bytes = shape.trigger * shape.format.head_size * 2;
    if (bytes + ring_bytes <= kMostShared) {
        copy = bytes;
        bytes += ring_bytes;
    }
    if (bytes > 48 << 10) {
        cudaFuncSetAttribute(append_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    }
    queue(append_kernel, dim3(n_heads, n_segments), kThreads, bytes, stream, shape, work, copy);
}

}  // namespace lk::cuda
