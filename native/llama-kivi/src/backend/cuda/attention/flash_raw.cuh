// Flash attention, stage "fetch codes": asynchronous copies of the codes and scales of a tile to shared memory, one
// tile ahead, so that dequantizing does not wait for global memory. Only for formats that is_usual() accepts.
#pragma once

#include "backend/cuda/attention/flash_load.cuh"

namespace lk::cuda {

namespace {

template <int kD>
struct RawSizes {
    static constexpr int kCodes = kTile * kD / 2;  // 4 bits, or 2 bits with all channels refined
    // Keys: two token groups of scale and minimum, or of byte scales and zero points.
    static constexpr int kKeyScales = 2 * kD * 4;
    static constexpr int kKeys = kCodes + kKeyScales;
    // Values: a scale and a minimum per 16 channels.
    static constexpr int kValueScales = kTile * kD / 16 * 4;
    static constexpr int kValues = kCodes + kValueScales;
};

__device__ inline void fetch_bytes(uint8_t* to, const uint8_t* from, int n) {
    for (int i = threadIdx.x * 16; i < n; i += kThreads * 16) {
        copy_async(to + i, from + i);
    }
}

// Ranges of bytes in a page that a tile needs, multiples of 16.
struct RawTile {
    int codes;
    int n_codes;
    int scales;  // from scales_offset, and from zeros_offset
    int n_scales;

    // At most two parts of 32 tokens, because tiles do not cross multiples of 64 tokens.
    __device__ static RawTile of_keys(const PageFormat& f, int token, int n) {
        const int part_bytes = f.rows * 4 * f.bits;
        const int part = token / 32;
        const int group_bytes = f.head_size * (f.scale_kind == ScaleKind::half_pair ? 4 : 1);
        const int group = token / f.group;
        return {part * part_bytes, ((token + n - 1) / 32 - part + 1) * part_bytes, group * group_bytes,
                ((token + n - 1) / f.group - group + 1) * group_bytes};
    }

    __device__ static RawTile of_values(const PageFormat& f, int token, int n) {
        constexpr int kBlock = kv::kValueBlockTokens;
        const int block_bytes = kBlock * f.head_size * f.bits / 8;
        const int block = token / kBlock;
        const int blocks = (token + n - 1) / kBlock - block + 1;
        const int scale_bytes = kBlock * f.scale_groups * (f.scale_kind == ScaleKind::half_pair ? 4 : 1);
        return {block * block_bytes, blocks * block_bytes, block * scale_bytes, blocks * scale_bytes};
    }

    // to: codes, then scales, then zero points.
    __device__ void fetch(const PageFormat& f, const uint8_t* page, int max_codes, uint8_t* to) const {
        fetch_bytes(to, page + codes, n_codes);
        fetch_bytes(to + max_codes, page + f.scales_offset + scales, n_scales);
        if (f.scale_kind == ScaleKind::byte_pair) {
            fetch_bytes(to + max_codes + n_scales, page + f.zeros_offset + scales, n_scales);
        }
    }

    __device__ CodePointers pointers(int max_codes, const uint8_t* raw) const {
        return {raw - codes, raw + max_codes - scales, raw + max_codes + n_scales - scales};
    }
};

}  // namespace

}  // namespace lk::cuda
