// Rows of the stock cache types in ggml blocks, with one warp: block j of a row is channels 32 j + lane. The arithmetic
// and its order are those of kv/codec/stock_blocks.cpp.
#pragma once

#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/warp.cuh"
#include "kv/codec/kivi_format.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// A quantized block: the lane's code, and what all codes share.
struct BlockCode {
    int code;
    uint16_t scale;
    uint16_t least;  // q4_1, q5_1: minimum
};

constexpr bool has_least(lk_cache_type type) {
    return type == LK_CACHE_Q4_1 || type == LK_CACHE_Q5_1;
}

// Element of largest magnitude, with its sign; the first one of several.
__device__ inline float extreme_of(float x) {
    const float top = warp_max(fabsf(x));
    const unsigned owners = __ballot_sync(kAllLanes, fabsf(x) == top);
    return top > 0 ? __shfl_sync(kAllLanes, x, __ffs(owners) - 1) : 0.0f;
}

// Scale of iq4_nl: fitted to the codes of the scale `first`, by sums in the order of the channels.
__device__ inline float fitted_scale(float x, float first) {
    const float level = static_cast<float>(kv::iq4_level(kv::iq4_code(x, first)));
    const float weight = x * x;
    const float own_along = weight * level * x;
    const float own_square = weight * level * level;
    float along = 0;
    float square = 0;
    for (int lane = 0; lane < 32; ++lane) {
        along += __shfl_sync(kAllLanes, own_along, lane);
        square += __shfl_sync(kAllLanes, own_square, lane);
    }
    return square > 0 ? along / square : 0.0f;
}

// Quantizes a block; x is the lane's element.
__device__ inline BlockCode encode_block(lk_cache_type type, float x) {
    switch (type) {
    case LK_CACHE_Q8_0: {
        const float d = kv::q8_scale(warp_max(fabsf(x)));
        return {kv::q8_code(x, d), float_to_half_bits(d), 0};
    }
    case LK_CACHE_Q5_1:
    case LK_CACHE_Q4_1: {
        const int steps = type == LK_CACHE_Q5_1 ? kv::kQ5Largest : kv::kQ4Largest;
        // Of equal elements, 0 and -0, the first is the least and the last is the greatest.
        const float low = -warp_max(-x);
        const float high = warp_max(x);
        const float least = __shfl_sync(kAllLanes, x, __ffs(__ballot_sync(kAllLanes, x == low)) - 1);
        const float most = __shfl_sync(kAllLanes, x, 31 - __clz(__ballot_sync(kAllLanes, x == high)));
        const float d = kv::span_scale(least, most, steps);
        return {kv::span_code(x, least, d, steps), float_to_half_bits(d), float_to_half_bits(least)};
    }
    case LK_CACHE_IQ4_NL: {
        const float first = extreme_of(x) / static_cast<float>(kv::iq4_level(0));
        return {kv::iq4_code(x, first), float_to_half_bits(fitted_scale(x, first)), 0};
    }
    default: {
        const int zero = type == LK_CACHE_Q5_0 ? kv::kQ5Zero : kv::kQ4Zero;
        const float d = kv::signed_scale(extreme_of(x), zero);
        return {kv::signed_code(x, d, zero), float_to_half_bits(d), 0};
    }
    }
}

// The lane's element as stored.
__device__ inline float decode_block(lk_cache_type type, const BlockCode& b) {
    const float d = half_bits_to_float(b.scale);
    switch (type) {
    case LK_CACHE_Q8_0:
        return static_cast<float>(b.code) * d;
    case LK_CACHE_Q5_1:
    case LK_CACHE_Q4_1:
        return static_cast<float>(b.code) * d + half_bits_to_float(b.least);
    case LK_CACHE_IQ4_NL:
        return d * static_cast<float>(kv::iq4_level(b.code));
    default:
        return static_cast<float>(b.code - (type == LK_CACHE_Q5_0 ? kv::kQ5Zero : kv::kQ4Zero)) * d;
    }
}

// Stores a block: scale, minimum, fifth bits, then codes; types have the fields that they need.
__device__ inline void store_block(lk_cache_type type, const BlockCode& b, uint8_t* out) {
    const int lane = threadIdx.x % 32;
    uint16_t* fields = reinterpret_cast<uint16_t*>(out);
    if (lane == 0) {
        *fields = b.scale;
    }
    ++fields;
    if (type == LK_CACHE_Q8_0) {
        reinterpret_cast<int8_t*>(fields)[lane] = static_cast<int8_t>(b.code);
        return;
    }
    if (has_least(type)) {
        if (lane == 0) {
            *fields = b.least;
        }
        ++fields;
    }
    if (kv::stock_format(type).bits == 5) {
        const unsigned fifth = __ballot_sync(kAllLanes, (b.code & 16) != 0);
        if (lane < 2) {
            fields[lane] = static_cast<uint16_t>(fifth >> (16 * lane));
        }
        fields += 2;
    }
    const int high = __shfl_xor_sync(kAllLanes, b.code, 16);
    if (lane < 16) {
        reinterpret_cast<uint8_t*>(fields)[lane] = static_cast<uint8_t>((b.code & 15) | (high & 15) << 4);
    }
}

}  // namespace lk::cuda
