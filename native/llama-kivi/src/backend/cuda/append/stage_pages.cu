// Quantizes the rows that leave the ring into pages: the formats that stage_tiles.cu does not support. One thread block
// per step and head.
#include "backend/cuda/append/blocks.cuh"
#include "backend/cuda/append/rows.cuh"
#include "backend/cuda/append/stage_tiles.h"

namespace lk::cuda {

namespace {

// Scale and zero point of a group, and the quantizer they define.
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

// Quantizes keys [first_row, first_row + G) of the *-paper types into token group `token / G` of a page. codes: shared
// uint8 [G, D].
template <class Rows>
__device__ void quantize_keys(const PageFormat& f, const Rows& rows, int first_row, int token, int sinks,
                              uint8_t* codes, uint8_t* page) {
    const int d = f.head_size;
    const int c = threadIdx.x;
    if (c < d) {
        float low = 0;
        float high = 0;
        if (sinks < f.group) {
            range_of(rows, first_row + sinks, first_row + f.group, c, low, high);
        }
        const Group group(f.scale_kind, low, high, 1 << f.bits, 0);
        group.store(f, token / f.group * d + c, page);
        for (int t = 0; t < f.group; ++t) {
            codes[t * d + c] = static_cast<uint8_t>(t < sinks ? 0 : group.code(rows.at(first_row + t, c)));
        }
    }
    __syncthreads();
    const int per_word = 8 / f.bits;             // tokens per word
    const int words = f.tile_tokens / per_word;  // words per quad of rows
    const int tile_words = f.head_size / 4 * words;
    unsigned* out = reinterpret_cast<unsigned*>(page) + token / f.tile_tokens * tile_words;
    for (int i = threadIdx.x; i < f.group / f.tile_tokens * tile_words; i += kThreads) {
        const int tile = i / tile_words;
        const int quad = i % tile_words / words;
        const int w = i % words;
        unsigned word = 0;
        for (int s = 0; s < per_word; ++s) {
            const uint8_t* four = codes + (tile * f.tile_tokens + s * words + w) * d + quad * 4;
            for (int r = 0; r < 4; ++r) {
                word |= static_cast<unsigned>(four[r]) << (8 * r + f.bits * s);
            }
        }
        out[i] = word;
    }
    __syncthreads();
}

// A plane of the codes of a block of values: bits [first, first + bits) of each code, from word `word` of the block on.
struct ValuePlane {
    int bits;
    int first;
    int word;
};

// Packs a plane of the codes of tokens [token + sinks, token + n). A word holds tokens of one block of 16 and of one
// channel, or with one bit of two channels. Other tokens keep their codes.
__device__ void pack_values(const PageFormat& f, const ValuePlane& plane, int n, int token, int sinks,
                            const uint8_t* codes, uint8_t* page) {
    const int d = f.head_size;
    const int block_words = f.block_bytes() / 4;
    const int words = 4 * plane.bits;  // of the plane: 4 tokens of a channel are 4 bytes at one place of the bits
    const int first_block = token / kv::kValueBlockTokens;
    const int n_blocks = (token + n - 1) / kv::kValueBlockTokens - first_block + 1;
    const int row_blocks = d / kv::kValueBlockChannels;
    const unsigned mask = (1u << plane.bits) - 1;
    for (int i = threadIdx.x; i < n_blocks * row_blocks * words; i += kThreads) {
        const int w = i % words;
        const int block = i / words;
        unsigned* const out =
            reinterpret_cast<unsigned*>(page) + (first_block * row_blocks + block) * block_words + plane.word + w;
        unsigned word = *out;
        for (int s = 0; s < 8 / plane.bits; ++s) {
            // Four tokens of a channel: codes [32 quad + 4 channel, ... + 3] of the block.
            const int four = words * s + w;
            const int c = block % row_blocks * kv::kValueBlockChannels + four % kv::kValueBlockChannels;
            const int first = (first_block + block / row_blocks) * kv::kValueBlockTokens + four / 8 * 4 - token;
            for (int b = 0; b < 4; ++b) {
                const int t = first + b;
                if (t >= sinks && t < n) {
                    const int shift = 8 * b + plane.bits * s;
                    word = (word & ~(mask << shift)) | (codes[t * d + c] >> plane.first & mask) << shift;
                }
            }
        }
        *out = word;
    }
}

// Quantizes values [first_row, first_row + n) into tokens [token, token + n) of a page, except the first `sinks` rows.
// codes: shared uint8 [n, D].
template <class Rows>
__device__ void quantize_values(const PageFormat& f, const Rows& rows, int first_row, int n, int token, int sinks,
                                const uint8_t* table, uint8_t* codes, uint8_t* page) {
    const int d = f.head_size;
    const int lane = threadIdx.x % 32;
    const int k = f.scale_kind == ScaleKind::half_pair ? 0 : *reinterpret_cast<const int*>(table);
    const uint16_t* mu = reinterpret_cast<const uint16_t*>(table + 4);
    if (f.scale_kind == ScaleKind::byte_token) {
        for (int t = sinks + threadIdx.x / 32; t < n; t += kWarps) {
            float w[kLaneChannels];
            uint8_t own[kLaneChannels];
            load_row(rows, first_row + t, w);
            for (int j = 0; j < kLaneChannels; ++j) {
                const int c = lane + 32 * j;
                w[j] = c < d ? w[j] - half_bits_to_float(mu[c]) : 0.0f;
            }
            const float scale = rotated_value(f, w, own);
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
            const int row = first_row + t;
            const int begin = g * f.group;
            const int end = min(begin + f.group, d);
            float low = rows.at(row, begin);
            float high = low;
            for (int c = begin; c < end; ++c) {
                low = fminf(low, rows.at(row, c));
                high = fmaxf(high, rows.at(row, c));
            }
            const Group group(f.scale_kind, low, high, 1 << f.bits, k);
            group.store(f, (token + t) * f.scale_groups + g, page);
            for (int c = begin; c < end; ++c) {
                codes[t * d + c] = static_cast<uint8_t>(group.code(rows.at(row, c)));
            }
        }
    }
    __syncthreads();
    if (f.bits == 3) {
        pack_values(f, ValuePlane{2, 0, 0}, n, token, sinks, codes, page);
        pack_values(f, ValuePlane{1, 2, 8}, n, token, sinks, codes, page);
    } else {
        pack_values(f, ValuePlane{f.bits, 0, 0}, n, token, sinks, codes, page);
    }
    __syncthreads();
}

// Quantizes a row to ggml blocks with one warp.
__device__ void store_blocks(const PageFormat& f, const HeadRows& rows, int row, uint8_t* out) {
    const int block_bytes = kv::stock_format(f.type).block_bytes;
    float x[kLaneChannels];
    load_row(rows, row, x);
    hadamard(x, f.head_size);
    for (int j = 0; j < kLaneChannels; ++j) {
        if (32 * j >= f.head_size) {
            break;
        }
        store_block(f.type, encode_block(f.type, x[j]), out + j * block_bytes);
    }
}

// KIVI types: keys of *-paper, and values. Shared memory: the codes of the step, and with kCopies at offset `copy` a
// copy of its rows.
template <Side kSide, bool kCopies>
__global__ void __launch_bounds__(kThreads) stage_pages_kernel(const SideShape shape, const AppendWork* works,
                                                               const PageStep* steps, int first_head, int copy) {
    after_previous();
    extern __shared__ __align__(16) uint8_t shared[];
    const PageStep& step = steps[blockIdx.x];
    const AppendWork& work = works[step.work];
    const PageFormat& f = shape.format;
    const int head = first_head + blockIdx.y;
    const uint8_t* const table = work.tables + static_cast<size_t>(head) * shape.table_bytes;
    uint8_t* const page = step.block + static_cast<size_t>(head) * f.page_bytes;
    const int sinks = min(max(work.sink_limit - (work.first_token + step.row), 0), step.n_rows);
    const HeadRows source(shape, work, head);
    const auto quantize = [&](const auto& rows, int first) {
        if constexpr (kSide == Side::keys) {
            quantize_keys(f, rows, first, step.token, sinks, shared, page);
        } else {
            quantize_values(f, rows, first, step.n_rows, step.token, sinks, table, shared, page);
        }
    };
    if constexpr (kCopies) {
        quantize(copy_rows(source, step.row, step.n_rows, reinterpret_cast<uint16_t*>(shared + copy),
                           shape.format.head_size),
                 0);
    } else {
        quantize(source, step.row);
    }
}

// Stock types. One warp per row; the rows of sinks are zeros.
__global__ void stage_rows_kernel(const SideShape shape, const AppendWork* works, const PageStep* steps,
                                  int first_head) {
    after_previous();
    const PageStep& step = steps[blockIdx.x];
    const AppendWork& work = works[step.work];
    const PageFormat& f = shape.format;
    const int head = first_head + blockIdx.y;
    const int lane = threadIdx.x % 32;
    const int row_bytes = static_cast<int>(f.row_bytes());
    const HeadRows rows(shape, work, head);
    for (int i = threadIdx.x / 32; i < step.n_rows; i += kWarps) {
        const int row = step.row + i;
        uint8_t* const out =
            step.block + static_cast<size_t>(head) * f.page_bytes + static_cast<size_t>(step.token + i) * row_bytes;
        if (f.blocks() && work.first_token + row >= work.sink_limit) {
            store_blocks(f, rows, row, out);
            continue;
        }
        // f32 and bf16 are staged as stored.
        for (int c = lane; c < row_bytes / 2; c += 32) {
            reinterpret_cast<uint16_t*>(out)[c] = f.blocks() ? 0 : f.floats() ? rows.row(row)[c] : rows.half(row, c);
        }
    }
}

}  // namespace

void stage_pages(const SideShape& shape, const AppendWork* works, const PageStep* steps, int n_steps, HeadRange heads,
                 Stream& stream) {
    if (stage_tiles(shape, works, steps, n_steps, heads, stream)) {
        return;
    }
    const dim3 grid(n_steps, heads.count);
    const PageFormat& f = shape.format;
    if (!kv::is_kivi(f.type)) {
        queue(stage_rows_kernel, grid, kThreads, 0, stream, shape, works, steps, heads.first);
        return;
    }
    const int n_rows = f.side == Side::keys ? f.group : kStepTokens;
    const SharedLayout shared(n_rows * f.rows, n_rows * f.head_size * 2);
    const auto kernel =
        f.side == Side::keys
            ? (shared.copy > 0 ? stage_pages_kernel<Side::keys, true> : stage_pages_kernel<Side::keys, false>)
            : (shared.copy > 0 ? stage_pages_kernel<Side::values, true> : stage_pages_kernel<Side::values, false>);
    shared.allow(kernel);
    queue(kernel, grid, kThreads, shared.bytes, stream, shape, works, steps, heads.first, shared.copy);
}

}  // namespace lk::cuda
