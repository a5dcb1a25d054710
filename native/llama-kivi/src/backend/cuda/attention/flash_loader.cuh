// Flash attention, stages "fetch codes" and "load tile", for every form of a tile's sides.
#pragma once

#include "backend/cuda/attention/flash_frames.cuh"

namespace lk::cuda {

namespace {

// Called by the S::kLoaders threads of a team. n: tokens of the tile.
template <class S>
struct TileLoader {
    using Rows = typename S::Rows;
    const AttentionWork& a;
    float k_factor;
    const uint16_t* refined_at;  // see load_keys
    bool copies_keys = copies_codes(a.k.format, S::kD);
    bool copies_values = copies_codes(a.v.format, S::kD);

    // Copy codes and scales asynchronously, for decode_keys and decode_values.
    __device__ __forceinline__ void fetch_keys(int n, const TileSide k, uint8_t* raw) const {
        if (copies_keys && n > 0 && k.coded()) {
            fetch_codes<S>(a.k.format, FlashCodes::of_keys(a.k.format, k.token, n), k.from, raw);
        }
    }
    __device__ __forceinline__ void fetch_values(int n, const TileSide v, uint8_t* raw) const {
        if (copies_values && n > 0 && v.coded()) {
            fetch_codes<S>(a.v.format, FlashCodes::of_values(a.v.format, v.token, n), v.from, raw);
        }
    }

    // Copies rows of halves asynchronously. decode_keys and decode_values load the other forms.
    __device__ __forceinline__ void copy_rows(int n, const TileSide side, Rows to) const {
        if (n > 0 && side.form == TileSide::Form::halves) {
            load_halves<S>(side.from, n, a.head_size, to);
        }
    }
    __device__ __forceinline__ void decode_keys(int n, const TileSide k, const uint8_t* raw, Rows to) const {
        const PageFormat& f = a.k.format;
        if (copies_keys && k.coded()) {
            load_usual_keys<S>(f, fetched_codes<S>(FlashCodes::of_keys(f, k.token, n), raw), k.token, n, k_factor,
                               refined_at, to);
        } else if (k.form == TileSide::Form::q8_rows) {
            load_ring_rows<S>(k.from, n, a.head_size, to);
        } else if (k.form == TileSide::Form::floats) {
            load_float_rows(f.type, a.head_size, k.from, k.token, n, to);
        } else if (!k.coded()) {
            return;
        } else if (f.blocks()) {
            load_blocks<S>(f, k.from + k.token * f.row_bytes(), n, to);
        } else {
            load_keys<S>(Known<0, 0>{f}, CodePointers(f, k.from), k.token, n, k_factor, refined_at, to);
        }
    }
    __device__ __forceinline__ void decode_values(int n, const TileSide v, const uint8_t* raw, Rows to) const {
        const PageFormat& f = a.v.format;
        if (v.form == TileSide::Form::q8_rows) {
            load_ring_rows<S>(v.from, n, a.head_size, to);
        } else if (v.form == TileSide::Form::floats) {
            load_float_rows(f.type, a.head_size, v.from, v.token, n, to);
        } else if (!v.coded()) {
            return;
        } else if (f.blocks()) {
            load_blocks<S>(f, v.from + v.token * f.row_bytes(), n, to);
        } else if (copies_values) {
            const CodePointers from = fetched_codes<S>(FlashCodes::of_values(f, v.token, n), raw);
            if (f.bits == 3) {
                load_three_bit_values(a.head_size, from.codes, from.scales, v.token, n, to);
            } else {
                load_usual_values<S>(f, from, v.token, n, to);
            }
        } else if (f.bits == 3) {
            load_three_bit_values(a.head_size, v.from, v.from + f.scales_offset, v.token, n, to);
        } else {
            load_values<S>(Known<0, 0>{f}, CodePointers(f, v.from), v.token, n, to);
        }
    }
};

}  // namespace

}  // namespace lk::cuda
