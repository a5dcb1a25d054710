// Flash attention, stage "load tile": dequantizes tokens of any type to rows of halves in shared memory. Called by the
// S::kLoaders threads of a team. flash_raw.cuh copies codes to shared memory first.
#pragma once

#include "backend/cuda/attention/flash_stock.cuh"
#include "backend/cuda/attention/flash_tile.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/words.cuh"
#include "quant/blocks.h"

namespace lk::cuda {

namespace {

// What the compiler knows of a page's format. kBits 0: nothing; the other constants are ignored then.
template <int kD, int kBits, ScaleKind kKind = ScaleKind::none, bool kRefined = false>
struct Known {
    static constexpr bool kUsual = kBits > 0;
    const PageFormat& f;
    __device__ int d() const { return kBits > 0 ? kD : f.head_size; }
    __device__ int bits() const { return kBits > 0 ? kBits : f.bits; }
    __device__ int tile_tokens() const { return kBits > 0 ? 32 : f.tile_tokens; }
    __device__ ScaleKind scale_kind() const { return kBits > 0 ? kKind : f.scale_kind; }
    __device__ bool refined() const { return kBits > 0 ? kRefined : f.bits == 2 && f.refined_keys(); }
};

// Where codes and scales of a page are. Each pointer is to the page's first, even if only those of a tile exist.
struct CodePointers {
    const uint8_t* codes;
    const uint8_t* scales;
    const uint8_t* zeros;

    __device__ CodePointers(const uint8_t* c, const uint8_t* s, const uint8_t* z) : codes(c), scales(s), zeros(z) {}
    __device__ CodePointers(const PageFormat& f, const uint8_t* page)
        : codes(page), scales(page + f.scales_offset), zeros(page + f.zeros_offset) {}
};

// No low bits: an entry of refined_at.
constexpr uint16_t kNotRefined = 0xffff;

// Dequantizes keys to halves. A thread converts four words of a quad at once.
// token: the first in the page. refined_at: uint16 [D], index of a refined channel, or kNotRefined.
template <class S, class K>
__device__ void load_keys(const K known, const CodePointers& from, int token, int n, float factor,
                          const uint16_t* refined_at, typename S::Rows to) {
    const PageFormat& f = known.f;
    const int n_quads = known.d() / 4;
    const int n_words = known.tile_tokens() * known.bits() / 8;  // per quad
    const unsigned mask = known.bits() == 2 ? 0x03030303u : 0x0f0f0f0fu;
    const int first = token / known.tile_tokens();
    const int count = (token + n - 1) / known.tile_tokens() - first + 1;
    const int group_shift = 31 - __clz(f.group);  // groups are powers of two
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = S::loader(); unit < count * n_quads * (n_words / 4); unit += S::kLoaders) {
        const int w0 = unit % (n_words / 4) * 4;
        const int quad = unit / (n_words / 4) % n_quads;
        const int part = first + unit / (n_words / 4) / n_quads;
        const auto words_of = [&](int of) {
            return *reinterpret_cast<const uint4*>(from.codes + ((part * (f.rows / 4) + of) * n_words + w0) * 4);
        };
        const uint4 words = words_of(quad);
        const unsigned word[4] = {words.x, words.y, words.z, words.w};
        unsigned low[4] = {0, 0, 0, 0};  // low bits of refined channels
        const int at = (part * known.tile_tokens() >> group_shift) * known.d() + 4 * quad;
        float s[4];
        float z[4];
        if (known.scale_kind() == ScaleKind::half_pair) {
            const uint4 pairs = *reinterpret_cast<const uint4*>(from.scales + at * 4);
            const unsigned both[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[i] = half_bits_to_float(static_cast<uint16_t>(both[i]));
                z[i] = half_bits_to_float(static_cast<uint16_t>(both[i] >> 16));
            }
        } else {
            const unsigned scales = *reinterpret_cast<const unsigned*>(from.scales + at);
            const unsigned zeros = *reinterpret_cast<const unsigned*>(from.zeros + at);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[i] = byte_scale(scales >> (8 * i) & 0xffu) * factor;
                z[i] = s[i] * 0.25f * static_cast<float>(static_cast<int8_t>(zeros >> (8 * i)));
            }
        }
        if (known.refined()) {
            const uint2 indices = *reinterpret_cast<const uint2*>(refined_at + 4 * quad);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned index = (i < 2 ? indices.x : indices.y) >> (16 * (i % 2)) & 0xffffu;
                const bool refined = index != kNotRefined;
                s[i] *= refined ? 1.0f : 0.25f;  // codes of the others are the upper two of four bits
                const uint4 extra = words_of((known.d() + static_cast<int>(refined ? index : 0)) / 4);
                // Byte i from byte index % 4 of `extra`.
                const unsigned select = refined ? (0x3210u & ~(0xfu << (4 * i))) | (4 + index % 4) << (4 * i) : 0x3210u;
                low[0] = __byte_perm(low[0], extra.x, select);
                low[1] = __byte_perm(low[1], extra.y, select);
                low[2] = __byte_perm(low[2], extra.z, select);
                low[3] = __byte_perm(low[3], extra.w, select);
            }
        }
        const __half2 s0 = __floats2half2_rn(s[0], s[1]);
        const __half2 s1 = __floats2half2_rn(s[2], s[3]);
        const __half2 z0 = __floats2half2_rn(z[0], z[1]);
        const __half2 z1 = __floats2half2_rn(z[2], z[3]);
        const int row0 = part * known.tile_tokens() + w0 - token;
        // Byte c below byte 0x64 is the half 1024 + c.
        const auto store = [&](int row, unsigned codes) {
            const __half2 c0 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4140)), less);
            const __half2 c1 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4342)), less);
            const uint2 x = make_uint2(bits(__hfma2(c0, s0, z0)), bits(__hfma2(c1, s1, z1)));
            if (static_cast<unsigned>(row) < static_cast<unsigned>(n)) {
                *reinterpret_cast<uint2*>(to.at(row, 4 * quad)) = x;
            }
        };
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int t = 0; t < 8 / known.bits(); ++t) {
                const int row = row0 + i + n_words * t;
                if (known.refined()) {
                    const unsigned high = t == 0 ? word[i] << 2 : word[i] >> (2 * t - 2);
                    store(row, (high & 0x0c0c0c0cu) | (low[i] >> (2 * t) & 0x03030303u));
                } else {
                    store(row, word[i] >> (known.bits() * t) & mask);
                }
            }
        }
    }
}

// Dequantizes values to halves in the frame of the codes. A thread converts four channels of 16 tokens (8 with 4 bits).
// first_token: in the page.
template <class S, class K>
__device__ void load_values(const K known, const CodePointers& from, int first_token, int n, typename S::Rows to) {
    const PageFormat& f = known.f;
    constexpr int kBlock = kv::kValueBlockTokens;
    const int n_quads = known.d() / 4;
    const int n_halves = known.bits() / 2;  // with 4 bits, odd quads of tokens have separate words
    const int first = first_token / kBlock;
    const int count = (first_token + n - 1) / kBlock - first + 1;
    const unsigned mask = known.bits() == 2 ? 0x00030003u : 0x000f000fu;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    // With eight warps, the four that have few units of keys begin.
    const int thread = S::loader() ^ (S::kLoaders == 256 ? S::kLoaders / 2 : 0);
    for (int unit = thread; unit < count * n_quads * n_halves; unit += S::kLoaders) {
        const int quad = unit % n_quads;
        const int h = unit / n_quads % n_halves;
        const int block = first + unit / n_quads / n_halves;
        const int group = f.scale_groups == 1 ? 0 : 4 * quad / f.group;
        const uint4 w = reinterpret_cast<const uint4*>(
            from.codes)[(block * (n_quads / 2) + quad / 2) * 2 * n_halves + 2 * h + quad % 2];
        uint4 scales{};  // of the block's tokens
        if (K::kUsual && known.scale_kind() == ScaleKind::byte_token) {
            scales = *reinterpret_cast<const uint4*>(from.scales + block * kBlock);
        }
        const unsigned scale_words[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {  // tokens of a quad: one byte of each word
            const unsigned select = 0x0040u + lane * 0x0011u;
            const unsigned x0 = __byte_perm(__byte_perm(w.x, w.y, select), 0, 0x4140);
            const unsigned x1 = __byte_perm(__byte_perm(w.z, w.w, select), 0, 0x4140);
#pragma unroll
            for (int i = 0; i < 8 / known.bits(); ++i) {
                const int token = block * kBlock + (known.bits() == 2 ? i : 2 * i + h) * 4 + lane;
                const int row = token - first_token;
                const int at = token * f.scale_groups + group;
                __half2 s;
                __half2 z;
                if (known.scale_kind() == ScaleKind::half_pair) {
                    const unsigned pair = *reinterpret_cast<const unsigned*>(from.scales + at * 4);
                    s = halves(__byte_perm(pair, 0, 0x1010));
                    z = halves(__byte_perm(pair, 0, 0x3232));
                } else if (K::kUsual && known.scale_kind() == ScaleKind::byte_token) {
                    s = halves(__byte_perm(scale_words[i], 0, 0x4040 | lane * 0x0101) << 6);
                    z = __hmul2(s, __float2half2_rn(-1.5f));
                } else {
                    s = halves(from.scales[at] * 0x00400040u);
                    const float zero = known.scale_kind() == ScaleKind::byte_token
                                           ? -1.5f
                                           : 0.25f * static_cast<float>(static_cast<int8_t>(from.zeros[at]));
                    z = __hmul2(s, __float2half2_rn(zero));
                }
                const __half2 c0 = __hadd2(halves((x0 >> (known.bits() * i) & mask) | 0x64006400u), less);
                const __half2 c1 = __hadd2(halves((x1 >> (known.bits() * i) & mask) | 0x64006400u), less);
                const uint2 x = make_uint2(bits(__hfma2(c0, s, z)), bits(__hfma2(c1, s, z)));
                if (static_cast<unsigned>(row) < static_cast<unsigned>(n)) {
                    *reinterpret_cast<uint2*>(to.at(row, 4 * quad)) = x;
                }
            }
        }
    }
}

// load_keys for formats that copies_codes() accepts.
template <class S>
__device__ void load_usual_keys(const PageFormat& f, const CodePointers& from, int token, int n, float factor,
                                const uint16_t* refined_at, typename S::Rows to) {
    const auto load = [&](auto known) { load_keys<S>(known, from, token, n, factor, refined_at, to); };
    const bool halves = f.scale_kind == ScaleKind::half_pair;
    if (f.bits == 4) {
        halves ? load(Known<S::kD, 4, ScaleKind::half_pair>{f}) : load(Known<S::kD, 4, ScaleKind::byte_pair>{f});
    } else if (halves) {
        load(Known<S::kD, 2, ScaleKind::half_pair>{f});
    } else if (f.refined_keys()) {
        load(Known<S::kD, 2, ScaleKind::byte_pair, true>{f});
    } else {
        load(Known<S::kD, 2, ScaleKind::byte_pair>{f});
    }
}

// load_values for formats that copies_codes() accepts.
template <class S>
__device__ void load_usual_values(const PageFormat& f, const CodePointers& from, int token, int n,
                                  typename S::Rows to) {
    const auto load = [&](auto known) { load_values<S>(known, from, token, n, to); };
    const bool halves = f.scale_kind == ScaleKind::half_pair;
    if (f.bits == 4) {
        halves ? load(Known<S::kD, 4, ScaleKind::half_pair>{f}) : load(Known<S::kD, 4, ScaleKind::byte_pair>{f});
    } else {
        halves ? load(Known<S::kD, 2, ScaleKind::half_pair>{f}) : load(Known<S::kD, 2, ScaleKind::byte_token>{f});
    }
}

// Dequantizes consecutive rows of ggml blocks, starting at `rows`. A thread converts 16 elements.
template <class S>
__device__ void load_blocks(const PageFormat& f, const uint8_t* rows, int n, typename S::Rows to) {
    constexpr int kPieces = S::kD / 16;
    if (f.type != LK_CACHE_Q8_0 && f.type != LK_CACHE_Q4_0) {
        load_other_blocks(f.type, f.head_size, rows, n, to);
        return;
    }
    const int size = f.bits == 8 ? static_cast<int>(sizeof(BlockQ8_0)) : static_cast<int>(sizeof(BlockQ4_0));
    for (int i = S::loader(); i < n * kPieces; i += S::kLoaders) {
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
        *reinterpret_cast<uint4*>(to.at(i / kPieces, c)) = make_uint4(x[0], x[1], x[2], x[3]);
        *reinterpret_cast<uint4*>(to.at(i / kPieces, c + 8)) = make_uint4(x[4], x[5], x[6], x[7]);
    }
}

// Copies rows of d halves asynchronously, a piece of 16 bytes per thread and turn.
template <class S>
__device__ void load_halves(const uint8_t* rows, int n, int d, typename S::Rows to) {
    constexpr unsigned kPieces = S::kD / 8;
    constexpr unsigned kThreads = S::kLoaders / kPieces * kPieces;  // whole rows
    constexpr unsigned kTurns = (kTile * kPieces + kThreads - 1) / kThreads;
    const unsigned thread = S::loader();
    const int c = static_cast<int>(thread % kPieces * 8);
    const int first = static_cast<int>(thread / kPieces);
    const int last = thread < kThreads && c < d ? n : 0;
    const uint8_t* from = rows + (first * d + c) * 2;
#pragma unroll
    for (int turn = 0; turn < static_cast<int>(kTurns); ++turn) {
        constexpr int kRows = kThreads / kPieces;
        if (first + turn * kRows < last) {
            copy_async(to.at(first + turn * kRows, c), from + turn * (kRows * 2 * d));
        }
    }
}

// Dequantizes rows of a q8_0 ring.
template <class S>
__device__ void load_ring_rows(const uint8_t* rows, int n, int d, typename S::Rows to) {
    constexpr int kPieces = S::kD / 8;
    const int row_bytes = static_cast<int>(kv::row_bytes(kv::RowType::q8_0, d));
#pragma unroll 1
    for (int i = S::loader(); i < n * kPieces; i += S::kLoaders) {
        const int c = i % kPieces * 8;
        if (c >= d) {
            continue;
        }
        const uint8_t* const block = rows + i / kPieces * row_bytes + c / 32 * sizeof(BlockQ8_0);
        const __half2 s = __half2half2(__ushort_as_half(load_u16(block)));
        unsigned x[4];
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const unsigned codes = load_u32(block + 2 + c % 32 + 4 * part) ^ 0x80808080u;
            x[2 * part] = bits(__hmul2(bytes_to_halves(codes, 0x4140, 128), s));
            x[2 * part + 1] = bits(__hmul2(bytes_to_halves(codes, 0x4342, 128), s));
        }
        *reinterpret_cast<uint4*>(to.at(i / kPieces, c)) = make_uint4(x[0], x[1], x[2], x[3]);
    }
}

}  // namespace

}  // namespace lk::cuda
