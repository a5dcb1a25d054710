// Weight formats: ggml's block layouts, the table of types, and the scalar reference for dequantization.
//
// A row is a sequence of blocks of 32 or 256 elements with their scales. d and m are halves; an element is q * d or
// q * d + m. The structs are packed, because a file may place them at any byte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace lk {

// Weight types, numbered as in GGUF files.
enum class WeightType : uint32_t {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    BF16 = 30,
};

struct WeightTypeTraits {
    const char* name;
    uint32_t block_elements;
    uint32_t block_bytes;
};

// Traits of a type by its number in the file; nullptr for an unknown number.
const WeightTypeTraits* weight_type_traits(uint32_t ggml_type);

inline const WeightTypeTraits* weight_type_traits(WeightType type) {
    return weight_type_traits(static_cast<uint32_t>(type));
}

constexpr int kBlock = 32;        // elements per plain block
constexpr int kSuperBlock = 256;  // elements per K block

#pragma pack(push, 1)

struct BlockQ8_0 {  // q * d
    half_t d;
    int8_t qs[32];
};

// In Q4_0, Q4_1, Q5_0 and Q5_1, the low nibble of qs[j] belongs to element j and the high nibble to element j + 16.

struct BlockQ4_0 {  // (q - 8) * d
    half_t d;
    uint8_t qs[16];
};

struct BlockQ4_1 {  // q * d + m
    half_t d, m;
    uint8_t qs[16];
};

struct BlockQ5_0 {  // (q - 16) * d; bit j of qh, a little-endian u32, is bit 4 of element j
    half_t d;
    uint8_t qh[4];
    uint8_t qs[16];
};

struct BlockQ5_1 {  // q * d + m; qh as in Q5_0
    half_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
};

struct BlockQ2_K {       // d * sc * q - dmin * m, one pair (sc, m) per 16 elements
    uint8_t scales[16];  // sc in the low nibble, m in the high nibble
    uint8_t qs[64];      // 32 bytes hold 128 elements; bits 0-1 hold the first 32, bits 2-3 the next 32, ...
    half_t d, dmin;
};

struct BlockQ3_K {       // d * sc * q, one scale per 16 elements
    uint8_t hmask[32];   // bit i of byte l: if 0, 4 is subtracted from element 32 i + l
    uint8_t qs[64];      // low 2 bits, as in Q2_K
    uint8_t scales[12];  // 16 scales, see get_scale_q3_k
    half_t d;
};

struct BlockQ4_K {  // d * sc * q - dmin * m, one 6-bit pair (sc, m) per 32 elements
    half_t d, dmin;
    uint8_t scales[12];  // 8 pairs, see get_scale_min_k4
    uint8_t qs[128];     // 32 bytes hold 64 elements; the low nibbles hold the first 32
};

struct BlockQ5_K {  // as Q4_K
    half_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];   // bit i of byte l: bit 4 of element 32 i + l
    uint8_t qs[128];  // low 4 bits, as in Q4_K
};

struct BlockQ6_K {    // d * scale * (q - 32), one scale per 16 elements
    uint8_t ql[128];  // low 4 bits; 64 bytes hold 128 elements
    uint8_t qh[64];   // high 2 bits; 32 bytes hold 128 elements
    int8_t scales[16];
    half_t d;
};

#pragma pack(pop)

static_assert(sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ4_0) == 18);
static_assert(sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210);

// Returns pair j (0..7) of the 6-bit scales and minimums of a Q4_K or Q5_K block. Bytes 0-3 hold the scales of pairs
// 0-3 in their low 6 bits and the top 2 bits of the scales of pairs 4-7; bytes 4-7 hold the minimums likewise. Bytes
// 8-11 hold the low 4 bits of pairs 4-7, scale in the low nibble, minimum in the high nibble.
inline void get_scale_min_k4(int j, const uint8_t* scales, uint8_t& sc, uint8_t& m) {
    if (j < 4) {
        sc = scales[j] & 63;
        m = scales[j + 4] & 63;
    } else {
        sc = static_cast<uint8_t>((scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4));
        m = static_cast<uint8_t>((scales[j + 4] >> 4) | ((scales[j] >> 6) << 4));
    }
}

// Returns scale j (0..15) of a Q3_K block, -32..31. Bytes 0-7 hold the low 4 bits: of scales 0-7 in the low nibbles, of
// scales 8-15 in the high nibbles. Bytes 8-11 hold the top 2 bits: of scale j at bit 2 (j / 4) of byte 8 + j % 4.
inline int get_scale_q3_k(int j, const uint8_t* scales) {
    const int low = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
    const int high = (scales[8 + j % 4] >> (j / 4 * 2)) & 3;
    return (low | high << 4) - 32;
}

inline float bf16_to_float(uint16_t bits) {
    return bits_as<float>(static_cast<uint32_t>(bits) << 16);
}

// Dequantizes a row of n elements. n is a multiple of the type's block_elements; blocks needs no alignment.
// Throws LK_UNSUPPORTED for an unknown type.
void dequantize_row(WeightType type, const void* blocks, float* out, int64_t n);

}  // namespace lk
