// Flash attention, stage "load tile": rows of the stock types without a decoding kernel, and 3-bit values. One loader
// serves several types and head sizes, which are known at run time. The functions are not inlined, because registers of
// the kernel are scarce, and take no reference to the kernel's argument, which would be copied to local memory.
#pragma once

#include "backend/cuda/attention/flash_rows.cuh"
#include "backend/cuda/device/words.cuh"

namespace lk::cuda {

namespace {

__device__ inline float in_half_range(float x) {
    return kv::clamped(x, -kv::kLargestHalf, kv::kLargestHalf);
}

// Rounds rows of f32 or bf16, d elements each and row_stride bytes apart, to halves. A thread converts 8 elements.
template <class Rows>
__device__ __noinline__ void load_float_rows(lk_cache_type type, int d, const uint8_t* rows, int row_stride, int n,
                                             Rows to) {
    const int pieces = d / 8;
    for (int i = Rows::thread(); i < n * pieces; i += Rows::threads()) {
        const int c = i % pieces * 8;
        const uint8_t* const row = rows + i / pieces * row_stride;
        float x[8];
        if (type == LK_CACHE_F32) {
            const float4* const from = reinterpret_cast<const float4*>(row + 4 * c);
            const float4 low = from[0];
            const float4 high = from[1];
            x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
            x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
        } else {
            const uint4 from = *reinterpret_cast<const uint4*>(row + 2 * c);
            const unsigned words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                x[2 * k] = __uint_as_float(words[k] << 16);
                x[2 * k + 1] = __uint_as_float(words[k] & 0xffff0000u);
            }
        }
        unsigned out[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            out[k] = pack(in_half_range(x[2 * k]), in_half_range(x[2 * k + 1]));
        }
        *reinterpret_cast<uint4*>(to.at(i / pieces, c)) = make_uint4(out[0], out[1], out[2], out[3]);
    }
}

// Levels of four codes of iq4_nl, one per byte, plus 128.
__device__ inline unsigned iq4_levels(unsigned codes) {
    const unsigned pairs = codes | codes >> 4;
    const unsigned select = __byte_perm(pairs, 0, 0x4420) & 0x7777u;  // the low three bits of each code
    const unsigned upper = (codes >> 3 & 0x01010101u) * 0xffu;
    constexpr unsigned k0 = kv::iq4_word(0);
    constexpr unsigned k4 = kv::iq4_word(4);
    constexpr unsigned k8 = kv::iq4_word(8);
    constexpr unsigned k12 = kv::iq4_word(12);
    const unsigned low = __byte_perm(k0, k4, select);
    const unsigned high = __byte_perm(k8, k12, select);
    return ((low & ~upper) | (high & upper)) ^ 0x80808080u;
}

// Dequantizes consecutive rows of q5_1, q5_0, q4_1 or iq4_nl blocks, starting at `rows`. A thread converts 16 elements.
template <class Rows>
__device__ __noinline__ void load_other_blocks(lk_cache_type type, int d, const uint8_t* rows, int n, Rows to) {
    const int pieces = d / 16;
    const kv::StockFormat format = kv::stock_format(type);
    const bool has_least = type == LK_CACHE_Q5_1 || type == LK_CACHE_Q4_1;
    const float zero = type == LK_CACHE_Q5_0 ? kv::kQ5Zero : type == LK_CACHE_IQ4_NL ? 128.0f : 0.0f;
    for (int i = Rows::thread(); i < n * pieces; i += Rows::threads()) {
        const int c = i % pieces * 16;
        const uint8_t* block = rows + (i / pieces * (d / 32) + c / 32) * format.block_bytes;
        const __half2 scale = __half2half2(__ushort_as_half(load_u16(block)));
        const __half2 least = __half2half2(__ushort_as_half(has_least ? load_u16(block + 2) : uint16_t{0}));
        block += has_least ? 4 : 2;
        unsigned fifth = 0;
        if (format.bits == 5) {
            fifth = load_u32(block) >> (c % 32);
            block += 4;
        }
        unsigned x[8];
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            unsigned codes = load_u32(block + 4 * part) >> (c % 32 / 4) & 0x0f0f0f0fu;
            // Four bits, each at bit 4 of its byte.
            codes |= ((fifth >> (4 * part) & 0xfu) * 0x00204081u & 0x01010101u) << 4;
            codes = type == LK_CACHE_IQ4_NL ? iq4_levels(codes) : codes;
            x[2 * part] = bits(__hfma2(bytes_to_halves(codes, 0x4140, zero), scale, least));
            x[2 * part + 1] = bits(__hfma2(bytes_to_halves(codes, 0x4342, zero), scale, least));
        }
        *reinterpret_cast<uint4*>(to.at(i / pieces, c)) = make_uint4(x[0], x[1], x[2], x[3]);
        *reinterpret_cast<uint4*>(to.at(i / pieces, c + 8)) = make_uint4(x[4], x[5], x[6], x[7]);
    }
}

// Dequantizes values of kivi3, n tokens of d elements from `token` of the page on, to halves in the frame of the codes.
// A thread converts four channels of 16 tokens.
template <class Rows>
__device__ __noinline__ void load_three_bit_values(int d, const uint8_t* page, const uint8_t* scales, int token, int n,
                                                   Rows to) {
    constexpr int kBlock = kv::kValueBlockTokens;
    const int n_quads = d / 4;
    const int first = token / kBlock;
    const int count = (token + n - 1) / kBlock - first + 1;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = Rows::thread(); unit < count * n_quads; unit += Rows::threads()) {
        const int quad = unit % n_quads;
        const int block = first + unit / n_quads;
        // Two quads of channels: two words of low bits per pair of channels, and one of high bits for both quads.
        const uint4* const from = reinterpret_cast<const uint4*>(page) + (block * (n_quads / 2) + quad / 2) * 3;
        const uint4 w = from[quad % 2];
        uint4 h = from[2];
        h = make_uint4(h.x >> (quad % 2), h.y >> (quad % 2), h.z >> (quad % 2), h.w >> (quad % 2));
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {  // tokens of a quad: one byte of each word
            const unsigned select = 0x0040u + lane * 0x0011u;
            const unsigned w0 = __byte_perm(__byte_perm(w.x, w.y, select), 0, 0x4140);
            const unsigned w1 = __byte_perm(__byte_perm(w.z, w.w, select), 0, 0x4140);
            const unsigned h0 = __byte_perm(__byte_perm(h.x, h.y, select), 0, 0x4140) << 2;
            const unsigned h1 = __byte_perm(__byte_perm(h.z, h.w, select), 0, 0x4140) << 2;
#pragma unroll
            for (int four = 0; four < 4; ++four) {
                const int row = block * kBlock + 4 * four + lane - token;
                if (row < 0 || row >= n) {
                    continue;
                }
                const unsigned scale = static_cast<unsigned>(scales[token + row]) << 6;
                const __half2 s = halves(scale | scale << 16);
                const __half2 z = __hmul2(s, __float2half2_rn(-kv::kValueLevelOffset3));
                const auto code = [&](unsigned low, unsigned high) {
                    const unsigned x = (low >> (2 * four) & 0x00030003u) | (high >> (2 * four) & 0x00040004u);
                    return __hadd2(halves(x | 0x64006400u), less);
                };
                *reinterpret_cast<uint2*>(to.at(row, 4 * quad)) =
                    make_uint2(bits(__hfma2(code(w0, h0), s, z)), bits(__hfma2(code(w1, h1), s, z)));
            }
        }
    }
}

}  // namespace

}  // namespace lk::cuda
