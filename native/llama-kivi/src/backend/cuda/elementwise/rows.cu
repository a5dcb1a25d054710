// Elementwise operations: embedding lookup, and evaluation of lazy rows to the input form of matmuls.
#include <algorithm>

#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/halves.cuh"
#include "backend/cuda/device/queue.h"
#include "backend/cuda/device/warp.cuh"
#include "backend/cuda/device/weights.cuh"
#include "backend/cuda/elementwise/elementwise.h"
#include "backend/cuda/plan/rows_form.h"
#include "backend/cuda/plan/weight_dispatch.h"
#include "base/finite.h"

namespace lk::cuda {

namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t n) {
    return static_cast<int>((n + kThreads - 1) / kThreads);
}

__device__ float greatest(float4 v) {
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

__device__ bool is_finite(float4 v) {
    return lk::is_finite(v.x) && lk::is_finite(v.y) && lk::is_finite(v.z) && lk::is_finite(v.w);
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

// ---- destinations of rows: four elements at a time; i is a multiple of four

struct ToFloats {
    float* out;

    __device__ static bool fits(float4 v) { return is_finite(v); }

    __device__ void operator()(int64_t i, float4 v) const { *reinterpret_cast<float4*>(out + i) = v; }
};

struct ToHalves {
    uint16_t* out;

    // From 65520 on, rounding to half gives infinity.
    __device__ static bool fits(float4 v) { return is_finite(v) && greatest(v) < 65520.0f; }

    __device__ void operator()(int64_t i, float4 v) const {
        *reinterpret_cast<uint2*>(out + i) = make_uint2(pack(v.x, v.y), pack(v.z, v.w));
    }
};

// Eight neighbouring threads share a block of 32.
struct ToCodes {
    int8_t* codes;
    float2* blocks;

    __device__ static bool fits(float4 v) { return is_finite(v); }

    __device__ void operator()(int64_t i, float4 v) const {
        const unsigned neighbours = 0xffu << (threadIdx.x % 32 / 8 * 8);
        float largest = greatest(v);
        for (int offset = 4; offset > 0; offset /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(neighbours, largest, offset));
        }
        const float scale = largest / 127;
        const float inverse = finite_quotient(127, largest);
        const int q[4] = {__float2int_rn(v.x * inverse), __float2int_rn(v.y * inverse), __float2int_rn(v.z * inverse),
                          __float2int_rn(v.w * inverse)};
        int sum = q[0] + q[1] + q[2] + q[3];
        for (int offset = 4; offset > 0; offset /= 2) {
            sum += __shfl_xor_sync(neighbours, sum, offset);
        }
        *reinterpret_cast<char4*>(codes + i) =
            make_char4(static_cast<signed char>(q[0]), static_cast<signed char>(q[1]), static_cast<signed char>(q[2]),
                       static_cast<signed char>(q[3]));
        if (threadIdx.x % 8 == 0) {
            blocks[i / 32] = make_float2(scale, scale * static_cast<float>(sum));
        }
    }
};

// ---- norms: one thread block per row

// The row's first elements are kept in registers between the passes.
class Row {
public:
    static constexpr int kHeld = 2;

    __device__ Row(const float* x, int dim) : x_(x), dim_(dim) {
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            const int i = (threadIdx.x + k * blockDim.x) * 4;
            held_[k] = i < dim ? load(x, i) : make_float4(0, 0, 0, 0);
        }
    }

    __device__ static float4 load(const float* x, int i) {
        return *reinterpret_cast<const float4*>(x + i);
    }

    // Calls f(i, elements i to i + 3) for each of this thread's groups of four.
    template <class F>
    __device__ void for_each(F&& f) const {
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            const int i = (threadIdx.x + k * blockDim.x) * 4;
            if (i < dim_) {
                f(i, held_[k]);
            }
        }
        for (int i = (threadIdx.x + kHeld * blockDim.x) * 4; i < dim_; i += blockDim.x * 4) {
            f(i, load(x_, i));
        }
    }

private:
    float4 held_[kHeld];
    const float* x_;
    int dim_;
};

// Lets the next kernel start, which may be a matmul that prefetches weights, prefetches those of the norm into the L2
// cache, and waits for the preceding kernels.
__device__ void begin_norm(int dim, const float* weight, const float* bias) {
    start_next();
    constexpr int kLine = 32;  // floats
    for (int i = threadIdx.x * kLine; i < dim; i += blockDim.x * kLine) {
        prefetch_line(weight + i);
        if (bias != nullptr) {
            prefetch_line(bias + i);
        }
    }
    wait_for_previous();
}

// Reports why the mean square of a row is not finite. Called by all threads of the block.
__device__ void report_square(const Row& row, const RowsWatch& watch) {
    row.for_each([&](int, float4 v) {
        if (!is_finite(v)) {
            report(watch.broken, watch.x);
        }
    });
    __syncthreads();
    report(watch.broken, watch.made);  // inputs are finite; their squares overflow
}

template <class To>
__global__ void __launch_bounds__(1024)
    rms_norm_kernel(const float* x, const float* weight, float eps, int dim, const To to, const RowsWatch watch) {
    __shared__ float scratch[32];
    begin_norm(dim, weight, nullptr);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * dim;
    const Row row(x + begin, dim);
    float sum = 0;
    row.for_each([&](int, float4 v) { sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; });
    const float square = block_sum(sum, scratch) / dim;
    if (!lk::is_finite(square)) {
        report_square(row, watch);
    }
    const float scale = rsqrtf(square + eps);
    bool fits = true;
    row.for_each([&](int i, float4 v) {
        const float4 w = Row::load(weight, i);
        v = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
        fits = fits && To::fits(v);
        to(begin + i, v);
    });
    if (!fits) {
        report(watch.broken, watch.made);
    }
}

template <class To>
__global__ void __launch_bounds__(1024) layer_norm_kernel(const float* x, const float* weight, const float* bias,
                                                          float eps, int dim, const To to, const RowsWatch watch) {
    __shared__ float scratch[32];
    begin_norm(dim, weight, bias);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * dim;
    const Row row(x + begin, dim);
    float sum = 0;
    row.for_each([&](int, float4 v) { sum += v.x + v.y + v.z + v.w; });
    const float mean = block_sum(sum, scratch) / dim;
    float square = 0;
    row.for_each([&](int, float4 v) {
        const float4 d = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
        square += d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
    });
    const float mean_square = block_sum(square, scratch) / dim;
    if (!lk::is_finite(mean_square)) {
        report_square(row, watch);
    }
    const float scale = rsqrtf(mean_square + eps);
    bool fits = true;
    row.for_each([&](int i, float4 v) {
        const float4 w = Row::load(weight, i);
        const float4 b = Row::load(bias, i);
        v = make_float4((v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                        (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w);
        fits = fits && To::fits(v);
        to(begin + i, v);
    });
    if (!fits) {
        report(watch.broken, watch.made);
    }
}

// Threads per row: one per four elements, rounded up to whole warps.
int norm_threads(int dim) {
    return std::min(1024, (dim / 4 + 31) / 32 * 32);
}

// ---- activations: one thread per four elements

template <Rows::Form kForm, class To>
__global__ void activation_kernel(const float* x, const float* up, int64_t n, const To to, const RowsWatch watch) {
    start_next();
    wait_for_previous();
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (i >= n) {
        return;
    }
    const auto silu = [](float g) { return g / (1.0f + expf(-g)); };
    const auto gelu = [](float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678f)); };
    float4 v = *reinterpret_cast<const float4*>(x + i);
    if (!is_finite(v)) {
        report(watch.broken, watch.x);
    }
    if constexpr (kForm == Rows::Form::swiglu) {
        const float4 u = *reinterpret_cast<const float4*>(up + i);
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

template <class To>
void make_rows(const Rows& r, int n, int dim, const To& to, const RowsWatch& watch, Stream& stream) {
    const int64_t size = static_cast<int64_t>(n) * dim;
    switch (r.form) {
    case Rows::Form::plain:
        queue(activation_kernel<Rows::Form::plain, To>, blocks_for(size / 4), kThreads, 0, stream, r.x, r.up, size, to,
              watch);
        return;
    case Rows::Form::rms_norm:
        queue(rms_norm_kernel<To>, n, norm_threads(dim), 0, stream, r.x, r.weight, r.eps, dim, to, watch);
        return;
    case Rows::Form::layer_norm:
        queue(layer_norm_kernel<To>, n, norm_threads(dim), 0, stream, r.x, r.weight, r.bias, r.eps, dim, to, watch);
        return;
    case Rows::Form::swiglu:
        queue(activation_kernel<Rows::Form::swiglu, To>, blocks_for(size / 4), kThreads, 0, stream, r.x, r.up, size, to,
              watch);
        return;
    case Rows::Form::gelu:
        queue(activation_kernel<Rows::Form::gelu, To>, blocks_for(size / 4), kThreads, 0, stream, r.x, r.up, size, to,
              watch);
        return;
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

void make_codes(const Rows& rows, int dim, int8_t* codes, float2* blocks, const RowsWatch& watch, Stream& stream) {
    make_rows(rows, 1, dim, ToCodes{codes, blocks}, watch, stream);
}

void check_finite(const float* x, int64_t n, const Watch& watch, Stream& stream) {
    constexpr int kMostBlocks = 1024;
    queue(check_finite_kernel, std::min(kMostBlocks, blocks_for(n)), kThreads, 0, stream, x, n, watch);
}

}  // namespace lk::cuda
