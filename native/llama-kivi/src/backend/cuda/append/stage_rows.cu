// Stages the rows of a layer: RoPE, rounding to half, and checks for NaN, infinity and range.
#include "backend/cuda/append/blocks.cuh"
#include "backend/cuda/append/rows.cuh"
#include "backend/cuda/device/watch.h"
#include "base/finite.h"

namespace lk::cuda {

namespace {

// Four consecutive channels; a warp has a row of D channels in quads: quad j of a lane is channels 4 (lane + 32 j) to
// 4 (lane + 32 j) + 3, or zeros from channel D on. D is a multiple of 8.
struct Quad {
    float x[4];

    __device__ static Quad load(const float* from) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        return {{v.x, v.y, v.z, v.w}};
    }
    __device__ void store(float* to) const { *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]); }
    __device__ void store_halves(uint16_t* to) const {
        *reinterpret_cast<uint2*>(to) = make_uint2(pack(x[0], x[1]), pack(x[2], x[3]));
    }
    // Whether f holds for every channel.
    template <class F>
    __device__ bool all(F&& f) const {
        return f(x[0]) && f(x[1]) && f(x[2]) && f(x[3]);
    }
};

__device__ int quad_channel(int j) {
    return 4 * (threadIdx.x % 32 + 32 * j);
}

// Channel c of a head after RoPE.
__device__ float rotated_channel(const float* head, const float* angles, int c, int n_rot, bool halves) {
    if (c >= n_rot) {
        return head[c];
    }
    const int pairs = n_rot / 2;
    const bool second = halves ? c >= pairs : c % 2 == 1;
    const int pair = !halves ? c / 2 : second ? c - pairs : c;
    const float a = head[halves ? pair : 2 * pair];
    const float b = head[halves ? pair + pairs : 2 * pair + 1];
    const float cosine = angles[2 * pair];
    const float sine = angles[2 * pair + 1];
    return second ? a * sine + b * cosine : a * cosine - b * sine;
}

// Channels c to c + 3 of a head after RoPE.
__device__ Quad rotated(const float* head, const float* angles, int c, int n_rot, bool halves) {
    if (c >= n_rot) {
        return Quad::load(head + c);
    }
    Quad y;
    if (n_rot % 8 != 0) {  // a quad may have channels of both halves, or channels that are not rotated
        for (int i = 0; i < 4; ++i) {
            y.x[i] = rotated_channel(head, angles, c + i, n_rot, halves);
        }
        return y;
    }
    if (!halves) {
        const Quad x = Quad::load(head + c);
        const Quad turn = Quad::load(angles + c);
        for (int i = 0; i < 4; i += 2) {
            y.x[i] = x.x[i] * turn.x[i] - x.x[i + 1] * turn.x[i + 1];
            y.x[i + 1] = x.x[i] * turn.x[i + 1] + x.x[i + 1] * turn.x[i];
        }
        return y;
    }
    const int pairs = n_rot / 2;
    const bool second = c >= pairs;
    const int pair = second ? c - pairs : c;
    const Quad a = Quad::load(head + pair);
    const Quad b = Quad::load(head + pair + pairs);
    const Quad turns[2] = {Quad::load(angles + 2 * pair), Quad::load(angles + 2 * pair + 4)};
    for (int i = 0; i < 4; ++i) {
        const float cosine = turns[i / 2].x[2 * i % 4];
        const float sine = turns[i / 2].x[2 * i % 4 + 1];
        y.x[i] = second ? a.x[i] * sine + b.x[i] * cosine : a.x[i] * cosine - b.x[i] * sine;
    }
    return y;
}

// Returns the part of a row that a q8_0 ring would return, and stores the part at `row` as the ring does. Called by a
// warp; eight lanes share a block. See kv::encode_q8_row.
__device__ Quad ringed(int d, int c, const Quad& q, uint8_t* row) {
    float largest = 0;
    for (int i = 0; i < 4; ++i) {
        largest = fmaxf(largest, fabsf(q.x[i]));
    }
    for (int offset = 4; offset > 0; offset /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
    }
    const float scale = kv::smaller(kv::q8_scale(largest), kv::kLargestQ8Scale);
    const uint16_t stored = float_to_half_bits(scale);
    int codes[4];
    Quad y;
    for (int i = 0; i < 4; ++i) {
        codes[i] = kv::q8_code(q.x[i], scale);
        y.x[i] = half_bits_to_float(stored) * static_cast<float>(codes[i]);
    }
    if (c < d) {
        uint8_t* const block = row + c / 32 * kRingBlockBytes;
        uint16_t* const pairs = reinterpret_cast<uint16_t*>(block + 2 + c % 32);  // blocks have even addresses
        pairs[0] = static_cast<uint16_t>((codes[0] & 0xff) | codes[1] << 8);
        pairs[1] = static_cast<uint16_t>((codes[2] & 0xff) | codes[3] << 8);
        if (c % 32 == 0) {
            *reinterpret_cast<uint16_t*>(block) = stored;
        }
    }
    return y;
}

// Stores channels of f32 or bf16 as their page will hold them. Returns whether they are finite.
__device__ bool store_floats(bool bf16, const Quad& q, int c, uint16_t* row) {
    const bool finite = q.all([](float x) { return is_finite(x); });
    if (!bf16) {
        q.store(reinterpret_cast<float*>(row) + c);
        return finite;
    }
    unsigned bits[4];
    bool fits = finite;
    for (int i = 0; i < 4; ++i) {
        bits[i] = kv::rounded_bf16(q.x[i]);
        fits = fits && (bits[i] & 0x7f80u) != 0x7f80u;
    }
    *reinterpret_cast<uint2*>(row + c) = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
    return fits;
}

// Quantizes and dequantizes a row as its page will, with one warp. Returns whether the stored elements are in the range
// of half, in which attention reads blocks.
__device__ bool round_to_blocks(const PageFormat& f, float (&x)[kLaneChannels]) {
    bool fits = true;
    hadamard(x, f.head_size);
    for (int j = 0; j < kLaneChannels; ++j) {
        if (32 * j >= f.head_size) {
            break;
        }
        x[j] = decode_block(f.type, encode_block(f.type, x[j]));
        fits = fits && fabsf(x[j]) <= kv::kLargestHalf;
    }
    hadamard(x, f.head_size);
    for (int j = 0; j < kLaneChannels; ++j) {
        x[j] = kv::clamped(x[j], -kv::kLargestHalf, kv::kLargestHalf);
    }
    return fits;
}

// A row of a stock type as its page will hold it, by way of `scratch`, floats [D] of the warp. Returns false if an
// element is beyond the range of half.
template <int kQuads>
__device__ bool paged(const PageFormat& f, Quad (&x)[kQuads], float* scratch) {
    const int lane = threadIdx.x % 32;
    for (int j = 0; j < kQuads; ++j) {
        if (quad_channel(j) < f.head_size) {
            x[j].store(scratch + quad_channel(j));
        }
    }
    __syncwarp();
    float stored[kLaneChannels];
    for (int j = 0; j < kLaneChannels; ++j) {
        stored[j] = lane + 32 * j < f.head_size ? scratch[lane + 32 * j] : 0.0f;
    }
    const bool fits = round_to_blocks(f, stored);
    __syncwarp();
    for (int j = 0; j < kLaneChannels; ++j) {
        if (lane + 32 * j < f.head_size) {
            scratch[lane + 32 * j] = stored[j];
        }
    }
    __syncwarp();
    for (int j = 0; j < kQuads; ++j) {
        if (quad_channel(j) < f.head_size) {
            x[j] = Quad::load(scratch + quad_channel(j));
        }
    }
    return fits;
}

// One warp per row and head of queries, keys or values: blockIdx.x is the row, blockIdx.y a group of heads. kQuads: of
// a lane. kBlocks: a side may have ggml blocks; without a window, such rows are quantized and dequantized, so that
// attention reads what the page will hold, as on the CPU.
template <int kQuads, bool kBlocks>
__global__ void __launch_bounds__(kThreads) stage_kernel(const __grid_constant__ StageWork w) {
    start_next();  // attention reads what is cached meanwhile
    const int d = w.k_shape.format.head_size;
    const int row = blockIdx.x;
    const int h = blockIdx.y * kWarps + threadIdx.x / 32;
    const bool is_query = h < w.n_head;
    const bool is_key = !is_query && h < w.n_head + w.n_head_kv;
    const int head = is_query ? h : is_key ? h - w.n_head : h - w.n_head - w.n_head_kv;
    wait_for_previous();
    if (h >= w.n_head + 2 * w.n_head_kv) {
        return;
    }
    const auto side = [is_key](auto of_keys, auto of_values) { return is_key ? of_keys : of_values; };
    uint8_t* const blocks = is_query ? nullptr : side(w.blocks_k, w.blocks_v);
    const bool sink = blocks != nullptr && side(w.sink_rows_k, w.sink_rows_v)[row] != 0;
    const size_t at = static_cast<size_t>(row) * (is_query ? w.n_head : w.n_head_kv) + head;
    Quad x[kQuads];
    if (is_query || is_key) {
        float* const in = (is_query ? w.q : w.k) + at * d;
        const float* const angles = w.cos_sin + static_cast<size_t>(row) * w.n_rot;
        for (int j = 0; j < kQuads; ++j) {
            const int c = quad_channel(j);
            x[j] = c < d ? rotated(in, angles, c, w.n_rot, w.halves) : Quad{};
        }
        __syncwarp();  // other lanes have read their pairs
        for (int j = 0; j < kQuads; ++j) {
            if (quad_channel(j) < d) {
                x[j].store(in + quad_channel(j));
            }
        }
    } else {
        for (int j = 0; j < kQuads; ++j) {
            x[j] = quad_channel(j) < d ? Quad::load(w.v + at * d + quad_channel(j)) : Quad{};
        }
    }
    bool finite = true;
    for (int j = 0; j < kQuads; ++j) {
        finite = finite && x[j].all([](float e) { return is_finite(e); });
    }
    if (is_query) {
        if (!finite) {
            report(w.broken, w.q_place);
        }
        return;
    }
    const size_t staged_row = static_cast<size_t>(head) * w.k_shape.n_ubatch + row;
    const int width = side(w.k_shape.staged_width, w.v_shape.staged_width);
    uint16_t* const out = side(w.staged_k, w.staged_v) + staged_row * width;
    const lk_cache_type type = side(w.k_shape.format.type, w.v_shape.format.type);
    if (type == LK_CACHE_F32 || type == LK_CACHE_BF16) {
        for (int j = 0; j < kQuads; ++j) {
            if (quad_channel(j) < d) {
                finite = store_floats(type == LK_CACHE_BF16, x[j], quad_channel(j), out) && finite;
            }
        }
        if (!finite) {
            report(w.broken, side(w.k_place, w.v_place));
        }
        return;
    }
    bool large = false;
    for (int j = 0; j < kQuads; ++j) {
        // From 65520 on, rounding to half gives infinity.
        large = large || !x[j].all([](float e) { return fabsf(e) < 65520.0f; });
    }
    if (blocks != nullptr) {
        uint8_t* const ring_row = blocks + staged_row * side(w.k_shape.ring_row_bytes, w.v_shape.ring_row_bytes);
        for (int j = 0; j < kQuads; ++j) {
            const Quad ring = ringed(d, quad_channel(j), x[j], ring_row);
            x[j] = sink ? x[j] : ring;
        }
    }
    if constexpr (kBlocks) {
        __shared__ float scratch[kWarps][kMaxHead];
        const SideShape& shape = is_key ? w.k_shape : w.v_shape;
        if (shape.format.blocks()) {
            Quad stored[kQuads];
            for (int j = 0; j < kQuads; ++j) {
                for (int i = 0; i < 4; ++i) {
                    stored[j].x[i] = half_bits_to_float(float_to_half_bits(x[j].x[i]));
                }
            }
            large |= !paged(shape.format, stored, scratch[threadIdx.x / 32]);
            for (int j = 0; j < kQuads; ++j) {
                x[j] = shape.all_paged() ? stored[j] : x[j];
            }
        }
    }
    for (int j = 0; j < kQuads; ++j) {
        if (quad_channel(j) < d) {
            x[j].store_halves(out + quad_channel(j));
        }
    }
    if (__any_sync(kAllLanes, !finite)) {
        report(w.broken, side(w.k_place, w.v_place));
    } else if (large) {
        report(w.broken, side(w.large_k_place, w.large_v_place));
    }
}

}  // namespace

void stage(const StageWork& work, Stream& stream) {
    const int n_heads = work.n_head + 2 * work.n_head_kv;
    const dim3 grid(work.n, (n_heads + kWarps - 1) / kWarps);
    const bool blocks = work.k_shape.format.blocks() || work.v_shape.format.blocks();
    const auto kernel = work.k_shape.format.head_size <= 128
                            ? (blocks ? stage_kernel<1, true> : stage_kernel<1, false>)
                            : (blocks ? stage_kernel<2, true> : stage_kernel<2, false>);
    queue(kernel, grid, kThreads, 0, stream, work);
}

}  // namespace lk::cuda
