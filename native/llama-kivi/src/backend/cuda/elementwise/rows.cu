// Elementwise operations: embedding lookup, and evaluation of lazy rows to the input form of matmuls.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/elementwise/elementwise.h"
#include "backend/cuda/elementwise/norms.cuh"
#include "backend/cuda/elementwise/row_targets.cuh"
#include "backend/cuda/plan/rows_form.h"
#include "backend/cuda/plan/weight_dispatch.h"
#include "base/finite.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = 256;

// Thread blocks for n elements of work, per_thread for each thread.
int blocks_for(int64_t n, int per_thread = 1) {
    const int64_t per_block = int64_t{kThreads} * per_thread;
    return static_cast<int>((n + per_block - 1) / per_block);
}

template <WeightType kType>
__global__ void embed_kernel(const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n_cols, float* out,
                             const Watch watch) {
    after_previous();
    const uint8_t* row = table + static_cast<size_t>(tokens[blockIdx.x]) * row_bytes;
    for (int i = threadIdx.x * 8; i < n_cols; i += blockDim.x * 8) {
        float x[8];
        decode8<kType>(row, i, x);
        for (int j = 0; j < 8; ++j) {
            out[static_cast<size_t>(blockIdx.x) * n_cols + i + j] = x[j];
            if (!lk::is_finite(x[j])) {
                report(watch.broken, watch.place);
            }
        }
    }
}

__global__ void check_finite_kernel(const float* x, int64_t n, const Watch watch) {
    after_previous();
    bool bad = false;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        bad |= !lk::is_finite(x[i]);
    }
    if (bad) {
        report(watch.broken, watch.place);
    }
}

// ---- activations: kGroups groups of four elements per thread, loaded before the first is used

constexpr int kGroups = 2;

template <Rows::Form kForm, class To>
__global__ void __launch_bounds__(kThreads)
    activation_kernel(const float* x, const float* up, int64_t n, const To to, const RowsWatch watch) {
    const auto silu = [](float g) { return g / (1.0f + expf(-g)); };
    const auto gelu = [](float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678f)); };
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * kGroups * kThreads + threadIdx.x) * 4;
    float4 xs[kGroups];
    float4 ups[kGroups];
    start_next();
    wait_for_previous();
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        const int64_t i = first + g * kThreads * 4;
        if (i < n) {
            xs[g] = *reinterpret_cast<const float4*>(x + i);
            if constexpr (kForm == Rows::Form::swiglu) {
                ups[g] = *reinterpret_cast<const float4*>(up + i);
            }
        }
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        const int64_t i = first + g * kThreads * 4;
        if (i >= n) {
            return;
        }
        float4 v = xs[g];
        if (!is_finite(v)) {
            report(watch.broken, watch.x);
        }
        if constexpr (kForm == Rows::Form::swiglu) {
            const float4 u = ups[g];
            if (!is_finite(u)) {
                report(watch.broken, watch.up);
            }
            v = make_float4(silu(v.x) * u.x, silu(v.y) * u.y, silu(v.z) * u.z, silu(v.w) * u.w);
        } else if constexpr (kForm == Rows::Form::gelu) {
            v = make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w));
        }
        if (!To::fits(v)) {
            report(watch.broken, watch.made);
        }
        to(i, v);
    }
}

template <class To>
void make_rows(const Rows& r, int n, int dim, const To& to, const RowsWatch& watch, Stream& stream) {
    const int64_t size = static_cast<int64_t>(n) * dim;
    const auto activate = [&](auto kernel) {
        queue(kernel, blocks_for(size / 4, kGroups), kThreads, 0, stream, r.x, r.up, size, to, watch);
    };
    switch (r.form) {
    case Rows::Form::plain:
        return activate(activation_kernel<Rows::Form::plain, To>);
    case Rows::Form::rms_norm:
    case Rows::Form::layer_norm:
        return norm_rows(r, n, dim, to, watch, stream);
    case Rows::Form::swiglu:
        return activate(activation_kernel<Rows::Form::swiglu, To>);
    case Rows::Form::gelu:
        return activate(activation_kernel<Rows::Form::gelu, To>);
    }
    fail_form(static_cast<int>(r.form), n, dim);
}

}  // namespace

void embed(WeightType type, const uint8_t* table, size_t row_bytes, const int32_t* tokens, int n, int n_cols,
           float* out, const Watch& watch, Stream& stream) {
    dispatch("embed", type, [&](auto t) {
        queue(embed_kernel<decltype(t)::value>, n, 128, 0, stream, table, row_bytes, tokens, n_cols, out, watch);
    });
}

void make_floats(const Rows& rows, int n, int dim, float* out, const RowsWatch& watch, Stream& stream) {
    make_rows(rows, n, dim, ToFloats{out}, watch, stream);
}

void make_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, Stream& stream) {
    make_rows(rows, n, dim, ToHalves{out}, watch, stream);
}

void make_lane_halves(const Rows& rows, int n, int dim, uint16_t* out, const RowsWatch& watch, Stream& stream) {
    make_rows(rows, n, dim, ToLaneHalves{out}, watch, stream);
}

void make_codes(const Rows& rows, int dim, int8_t* codes, float2* blocks, const RowsWatch& watch, Stream& stream) {
    make_rows(rows, 1, dim, ToCodes{codes, blocks}, watch, stream);
}

void check_finite(const float* x, int64_t n, const Watch& watch, Stream& stream) {
    constexpr int kMostBlocks = 1024;
    queue(check_finite_kernel, std::min(kMostBlocks, blocks_for(n)), kThreads, 0, stream, x, n, watch);
}

}  // namespace lk::cuda
