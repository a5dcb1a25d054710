// Flash attention, stage "load tile": dequantizes tokens of any type to rows of halves in shared memory. Called by all
// threads of a block.
#pragma once

#include "backend/cuda/attention/flash_stock.cuh"
#include "backend/cuda/attention/flash_tile.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/words.cuh"
#include "quant/blocks.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = AttentionFunction::kThreads;

// The compile-time constants of a page's format; 0: known only at run time.
template <int kD, int kBits, int kRefined = 0>
struct Known {
    const PageFormat& f;
    __device__ int d() const { return kD > 0 ? kD : f.head_size; }
    __device__ int bits() const { return kBits > 0 ? kBits : f.bits; }
    __device__ int tile_tokens() const { return kBits > 0 ? 32 : f.tile_tokens; }
    __device__ int n_refined() const { return kRefined > 0 ? kRefined : f.rows - d(); }
};

// Calls load(Known) with the bits as a constant, and the head size if it equals kD.
template <int kD, class Load>
__device__ void with_known(const PageFormat& f, const Load& load) {
    const bool usual = f.head_size == kD && (f.side == kv::Side::values || f.tile_tokens == 32);
    if (usual && f.bits == 2) {
        load(Known<kD, 2>{f});
    } else if (usual && f.bits == 4) {
        load(Known<kD, 4>{f});
    } else {
        load(Known<0, 0>{f});
    }
}

// The same for keys of kivi2 and kivi3, with the number of refined channels as a constant if it is that of a recipe.
template <int kD, class Load>
__device__ void with_refined(const PageFormat& f, const Load& load) {
    const bool usual = f.head_size == kD && f.tile_tokens == 32;
    if (usual && f.rows == kD + kD / 4) {
        load(Known<kD, 2, kD / 4>{f});
    } else if (usual && f.rows == kD + kD * 3 / 8) {
        load(Known<kD, 2, kD * 3 / 8>{f});
    } else {
        load(Known<0, 0>{f});
    }
}

// Squares the byte scales of a tile's token groups, for score correction. to: half [4, stride].
template <int kStride>
__device__ void square_scales(const PageFormat& f, const Tile& tile, uint16_t* to) {
    const int first = tile.k_token / f.group;
    const int count = (tile.k_token + tile.n - 1) / f.group - first + 1;
    for (int i = 0; i < count; ++i) {
        const uint8_t* const scales = tile.k_page + f.scales_offset + (first + i) * f.head_size;
        for (int c = threadIdx.x; c < f.head_size; c += kThreads) {
            const float s = byte_scale(scales[c]);
            to[i * kStride + c] = float_to_half_bits(s * s);
        }
    }
}

// Dequantizes keys to halves, without the low bits of refined channels. A thread converts four words of a quad at once.
template <int kStride, class K>
__device__ void load_keys(const K known, const Tile& tile, float factor, const uint8_t* wide, uint16_t* to) {
    const PageFormat& f = known.f;
    const int n_quads = known.d() / 4;
    const int n_words = known.tile_tokens() * known.bits() / 8;  // per quad
    const unsigned mask = known.bits() == 2 ? 0x03030303u : 0x0f0f0f0fu;
    const int first = tile.k_token / known.tile_tokens();
    const int count = (tile.k_token + tile.n - 1) / known.tile_tokens() - first + 1;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = threadIdx.x; unit < count * n_quads * (n_words / 4); unit += kThreads) {
        const int w0 = unit % (n_words / 4) * 4;
        const int quad = unit / (n_words / 4) % n_quads;
        const int part = first + unit / (n_words / 4) / n_quads;
        const uint4 words =
            *reinterpret_cast<const uint4*>(tile.k_page + ((part * (f.rows / 4) + quad) * n_words + w0) * 4);
        const unsigned word[4] = {words.x, words.y, words.z, words.w};
        const int at = part * known.tile_tokens() / f.group * known.d() + 4 * quad;
        float s[4];
        float z[4];
        if (f.scale_kind == ScaleKind::half_pair) {
            const uint4 pairs = *reinterpret_cast<const uint4*>(tile.k_page + f.scales_offset + at * 4);
            const unsigned both[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[i] = half_bits_to_float(static_cast<uint16_t>(both[i]));
                z[i] = half_bits_to_float(static_cast<uint16_t>(both[i] >> 16));
            }
        } else {
            const unsigned scales = *reinterpret_cast<const unsigned*>(tile.k_page + f.scales_offset + at);
            const unsigned zeros = *reinterpret_cast<const unsigned*>(tile.k_page + f.zeros_offset + at);
            const unsigned times = *reinterpret_cast<const unsigned*>(wide + 4 * quad);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float step = byte_scale(scales >> (8 * i) & 0xffu) * factor;
                s[i] = step * static_cast<float>(times >> (8 * i) & 0xffu);
                z[i] = step * 0.25f * static_cast<float>(static_cast<int8_t>(zeros >> (8 * i)));
            }
        }
        const __half2 s0 = __floats2half2_rn(s[0], s[1]);
        const __half2 s1 = __floats2half2_rn(s[2], s[3]);
        const __half2 z0 = __floats2half2_rn(z[0], z[1]);
        const __half2 z1 = __floats2half2_rn(z[2], z[3]);
        const int row0 = part * known.tile_tokens() + w0 - tile.k_token;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int t = 0; t < 8 / known.bits(); ++t) {
                const int row = row0 + i + n_words * t;
                if (row < 0 || row >= tile.n) {
                    continue;
                }
                // Byte c below byte 0x64 is the half 1024 + c.
                const unsigned codes = word[i] >> (known.bits() * t) & mask;
                const __half2 c0 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4140)), less);
                const __half2 c1 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4342)), less);
                *reinterpret_cast<uint2*>(to + row * kStride + 4 * quad) =
                    make_uint2(bits(__hfma2(c0, s0, z0)), bits(__hfma2(c1, s1, z1)));
            }
        }
    }
}

// Adds the low two bits of refined channels.
template <int kStride, class K>
__device__ void refine_keys(const K known, const uint8_t* table, const Tile& tile, float factor, uint16_t* to) {
    const PageFormat& f = known.f;
    const int n_rows = known.n_refined();
    const int n_words = known.tile_tokens() / 4;
    const int first = tile.k_token / known.tile_tokens();
    const int count = (tile.k_token + tile.n - 1) / known.tile_tokens() - first + 1;
    const auto* refined = reinterpret_cast<const uint16_t*>(table + 4);
    for (int unit = threadIdx.x; unit < count * n_rows * n_words; unit += kThreads) {
        const int i = unit % n_rows;
        const int w = unit / n_rows % n_words;
        const int part = first + unit / n_rows / n_words;
        const int quad = (known.d() + i) / 4;
        const int channel = refined[i];
        const unsigned byte = tile.k_page[((part * (f.rows / 4) + quad) * n_words + w) * 4 + i % 4];
        const uint8_t scale = tile.k_page[f.scales_offset + part * known.tile_tokens() / f.group * known.d() + channel];
        const float s = byte_scale(scale) * factor;
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            const int row = part * known.tile_tokens() + w + n_words * t - tile.k_token;
            if (row >= 0 && row < tile.n) {
                uint16_t* const x = to + row * kStride + channel;
                *x = float_to_half_bits(half_bits_to_float(*x) + s * static_cast<float>(byte >> (2 * t) & 3));
            }
        }
    }
}

// Dequantizes values to halves in the frame of the codes. A thread converts four channels of 16 tokens (8 with 4 bits).
template <int kStride, class K>
__device__ void load_values(const K known, const Tile& tile, uint16_t* to) {
    const PageFormat& f = known.f;
    if (known.bits() == 3) {  // never with the bits as a constant
        load_three_bit_values(f.head_size, tile.v_page, tile.v_page + f.scales_offset, tile.v_token, tile.n, to,
                              kStride);
        return;
    }
    constexpr int kBlock = kv::kValueBlockTokens;
    const int n_quads = known.d() / 4;
    const int n_halves = known.bits() / 2;  // with 4 bits, odd quads of tokens have separate words
    const int first = tile.v_token / kBlock;
    const int count = (tile.v_token + tile.n - 1) / kBlock - first + 1;
    const unsigned mask = known.bits() == 2 ? 0x00030003u : 0x000f000fu;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = threadIdx.x; unit < count * n_quads * n_halves; unit += kThreads) {
        const int quad = unit % n_quads;
        const int h = unit / n_quads % n_halves;
        const int block = first + unit / n_quads / n_halves;
        const int group = f.scale_groups == 1 ? 0 : 4 * quad / f.group;
        const uint4 w = reinterpret_cast<const uint4*>(
            tile.v_page)[(block * (n_quads / 2) + quad / 2) * 2 * n_halves + 2 * h + quad % 2];
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {  // tokens of a quad: one byte of each word
            const unsigned select = 0x0040u + lane * 0x0011u;
            const unsigned x0 = __byte_perm(__byte_perm(w.x, w.y, select), 0, 0x4140);
            const unsigned x1 = __byte_perm(__byte_perm(w.z, w.w, select), 0, 0x4140);
#pragma unroll
            for (int n = 0; n < 8 / known.bits(); ++n) {
                const int token = block * kBlock + (known.bits() == 2 ? n : 2 * n + h) * 4 + lane;
                const int row = token - tile.v_token;
                if (row < 0 || row >= tile.n) {
                    continue;
                }
                const int at = token * f.scale_groups + group;
                __half2 s;
                __half2 z;
                if (f.scale_kind == ScaleKind::half_pair) {
                    const unsigned pair = *reinterpret_cast<const unsigned*>(tile.v_page + f.scales_offset + at * 4);
                    s = halves(__byte_perm(pair, 0, 0x1010));
                    z = halves(__byte_perm(pair, 0, 0x3232));
                } else {
                    const unsigned scale = static_cast<unsigned>(tile.v_page[f.scales_offset + at]) << 6;
                    s = halves(scale | scale << 16);
                    const float zero =
                        f.scale_kind == ScaleKind::byte_token
                            ? -1.5f
                            : 0.25f * static_cast<float>(static_cast<int8_t>(tile.v_page[f.zeros_offset + at]));
                    z = __hmul2(s, __float2half2_rn(zero));
                }
                const __half2 c0 = __hadd2(halves((x0 >> (known.bits() * n) & mask) | 0x64006400u), less);
                const __half2 c1 = __hadd2(halves((x1 >> (known.bits() * n) & mask) | 0x64006400u), less);
                *reinterpret_cast<uint2*>(to + row * kStride + 4 * quad) =
                    make_uint2(bits(__hfma2(c0, s, z)), bits(__hfma2(c1, s, z)));
            }
        }
    }
}

// Dequantizes consecutive rows of ggml blocks, starting at `rows`. A thread converts 16 elements.
template <int kD, int kStride>
__device__ void load_blocks(const PageFormat& f, const uint8_t* rows, int n, uint16_t* to) {
    constexpr int kPieces = kD / 16;
    if (f.type != LK_CACHE_Q8_0 && f.type != LK_CACHE_Q4_0) {
        load_other_blocks(f.type, f.head_size, rows, n, to, kStride);
        return;
    }
    const int size = f.bits == 8 ? static_cast<int>(sizeof(BlockQ8_0)) : static_cast<int>(sizeof(BlockQ4_0));
    for (int i = threadIdx.x; i < n * kPieces; i += kThreads) {
        const int c = i % kPieces * 16;
        if (c >= f.head_size) {
            continue;
        }
        const uint8_t* const block =
            rows + static_cast<size_t>(i / kPieces) * (f.head_size / 32 * size) + c / 32 * size;
        const __half2 s = __half2half2(__ushort_as_half(load_u16(block)));
        unsigned x[8];
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            // Four elements as unsigned bytes, and the offset to subtract.
            unsigned codes;
            __half2 less;
            if (f.bits == 8) {
                codes = load_u32(block + 2 + c % 32 + 4 * part) ^ 0x80808080u;
                less = __floats2half2_rn(-1152.0f, -1152.0f);
            } else {
                codes = load_u32(block + 2 + 4 * part) >> (c % 32 / 4) & 0x0f0f0f0fu;
                less = __floats2half2_rn(-1032.0f, -1032.0f);
            }
            x[2 * part] = bits(__hmul2(__hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4140)), less), s));
            x[2 * part + 1] = bits(__hmul2(__hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4342)), less), s));
        }
        uint4* const out = reinterpret_cast<uint4*>(to + i / kPieces * kStride + c);
        out[0] = make_uint4(x[0], x[1], x[2], x[3]);
        out[1] = make_uint4(x[4], x[5], x[6], x[7]);
    }
}

// Copies full-precision rows of d elements.
template <int kD, int kStride>
__device__ void load_halves(const ExactRow* rows, int n, int d, uint16_t* to) {
    constexpr int kPieces = kD / 8;
    for (int i = threadIdx.x; i < n * kPieces; i += kThreads) {
        if (i % kPieces * 8 >= d) {
            continue;
        }
        copy_async(to + i / kPieces * kStride + i % kPieces * 8, rows[i / kPieces].bytes() + i % kPieces * 16);
    }
}

// The same for rows some of which may be in a q8_0 ring, which it decodes.
template <int kD, int kStride>
__device__ void load_ring_rows(const ExactRow* rows, int n, int d, uint16_t* to) {
    constexpr int kPieces = kD / 8;
    for (int i = threadIdx.x; i < n * kPieces; i += kThreads) {
        const int c = i % kPieces * 8;
        if (c >= d) {
            continue;
        }
        const ExactRow row = rows[i / kPieces];
        uint16_t* const out = to + i / kPieces * kStride + c;
        if (!row.in_blocks()) {
            copy_async(out, row.bytes() + 2 * c);
            continue;
        }
        const uint8_t* const block = row.bytes() + c / 32 * sizeof(BlockQ8_0);
        const __half2 s = __half2half2(__ushort_as_half(load_u16(block)));
        unsigned x[4];
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const unsigned codes = load_u32(block + 2 + c % 32 + 4 * part) ^ 0x80808080u;
            x[2 * part] = bits(__hmul2(bytes_to_halves(codes, 0x4140, 128), s));
            x[2 * part + 1] = bits(__hmul2(bytes_to_halves(codes, 0x4342, 128), s));
        }
        *reinterpret_cast<uint4*>(out) = make_uint4(x[0], x[1], x[2], x[3]);
    }
}

// The row of a token that is not in a page of codes.
__device__ ExactRow row_of(const SideWork& side, const SideShape& shape, int head, int d, int token) {
    if (!shape.format.floats()) {
        return exact_row(side, shape, head, d, token);
    }
    return float_row(
        side, static_cast<size_t>(head) * shape.format.page_bytes, static_cast<int>(shape.format.row_bytes()),
        side.staged.rows + static_cast<size_t>(head) * shape.n_ubatch * shape.staged_width, shape.staged_width, token);
}

template <int kD, int kStride>
__device__ void load_rows(const PageFormat& f, const ExactRow* rows, int n, int d, uint16_t* to) {
    if (f.floats()) {
        load_float_rows(f.type, d, rows, n, to, kStride);
    } else if (f.recipe.ring == kv::RowType::q8_0) {
        load_ring_rows<kD, kStride>(rows, n, d, to);
    } else {
        load_halves<kD, kStride>(rows, n, d, to);
    }
}

}  // namespace

}  // namespace lk::cuda
