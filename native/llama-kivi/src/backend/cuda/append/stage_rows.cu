// Stages the rows of a layer: RoPE, rounding to half, and checks for NaN, infinity and range.
#include "backend/cuda/append/blocks.cuh"
#include "backend/cuda/append/rows.cuh"
#include "backend/cuda/device/watch.h"
#include "base/finite.h"

namespace lk::cuda {

namespace {

// Element c of a head after RoPE.
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

// Stores a row as a q8_0 ring does, with one warp, and replaces it by what the ring means. See kv::encode_q8_row.
__device__ void round_to_ring(int d, float (&x)[kLaneChannels], uint8_t* blocks) {
    const int lane = threadIdx.x % 32;
    for (int j = 0; j < kLaneChannels; ++j) {
        if (32 * j >= d) {
            break;
        }
        uint8_t* const block = blocks + j * kRingBlockBytes;
        const float scale = kv::smaller(kv::q8_scale(warp_max(fabsf(x[j]))), kv::kLargestQ8Scale);
        const int code = kv::q8_code(x[j], scale);
        const uint16_t stored = float_to_half_bits(scale);
        if (lane == 0) {
            *reinterpret_cast<uint16_t*>(block) = stored;
        }
        if (lane + 32 * j < d) {
            block[2 + lane] = static_cast<uint8_t>(code);
        }
        x[j] = half_bits_to_float(stored) * static_cast<float>(code);
    }
}

// Stores a row of f32 or bf16 as its page will hold it, with one warp. Returns whether it is finite.
__device__ bool store_floats(const PageFormat& f, const float (&x)[kLaneChannels], uint16_t* out) {
    bool finite = true;
    for (int j = 0; j < kLaneChannels; ++j) {
        const int c = threadIdx.x % 32 + 32 * j;
        if (c >= f.head_size) {
            break;
        }
        finite = finite && is_finite(x[j]);
        if (f.type == LK_CACHE_F32) {
            reinterpret_cast<float*>(out)[c] = x[j];
        } else {
            out[c] = kv::rounded_bf16(x[j]);
            finite = finite && (out[c] & 0x7f80u) != 0x7f80u;
        }
    }
    return finite;
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

// One warp per row and head of queries, keys or values. Without a window, rows in blocks are quantized and dequantized,
// so that attention reads what the page will hold, as on the CPU.
__global__ void __launch_bounds__(kThreads, 5) stage_kernel(const __grid_constant__ StageWork w) {
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
    const size_t staged_row = static_cast<size_t>(head) * shape.n_ubatch + row;
    uint16_t* const out = (is_key ? w.staged_k : w.staged_v) + staged_row * shape.staged_width;
    if (f.floats()) {
        if (__any_sync(kAllLanes, !store_floats(f, x, out))) {
            report(w.broken, is_key ? w.k_place : w.v_place);
        }
        return;
    }
    bool finite = true;
    bool large = false;
    for (int j = 0; j < kLaneChannels; ++j) {
        finite = finite && is_finite(x[j]);
        large |= (float_to_half_bits(x[j]) & 0x7c00u) == 0x7c00u;
    }
    if (uint8_t* const blocks = is_key ? w.blocks_k : w.blocks_v; blocks != nullptr) {
        float ring[kLaneChannels];
        for (int j = 0; j < kLaneChannels; ++j) {
            ring[j] = x[j];
        }
        round_to_ring(d, ring, blocks + staged_row * shape.ring_row_bytes);
        const bool sink = (is_key ? w.sink_rows_k : w.sink_rows_v)[row] != 0;
        for (int j = 0; j < kLaneChannels; ++j) {
            x[j] = sink ? x[j] : ring[j];
        }
    }
    for (int j = 0; j < kLaneChannels; ++j) {
        x[j] = half_bits_to_float(float_to_half_bits(x[j]));
    }
    if (f.blocks()) {
        float stored[kLaneChannels];
        for (int j = 0; j < kLaneChannels; ++j) {
            stored[j] = x[j];
        }
        large |= !round_to_blocks(f, stored);
        for (int j = 0; j < kLaneChannels; ++j) {
            x[j] = shape.all_paged() ? stored[j] : x[j];
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

}  // namespace

void stage(const StageWork& work, Stream& stream) {
    const int n_blocks = (work.n * (work.n_head + 2 * work.n_head_kv) + kWarps - 1) / kWarps;
    queue(stage_kernel, n_blocks, kThreads, 0, stream, work);
}

}  // namespace lk::cuda
