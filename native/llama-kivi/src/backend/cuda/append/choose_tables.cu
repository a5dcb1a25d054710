// Chooses head tables at the first flush: refined channels, centres and exponents; see kv/codec/head_table.cpp.
#include "backend/cuda/append/channel_median.h"
#include "backend/cuda/append/rows.cuh"
#include "backend/cuda/device/lanes.cuh"

namespace lk::cuda {

namespace {

constexpr int kTableThreads = 1024;
constexpr int kTableWarps = kTableThreads / 32;

__device__ float block_max(float x, float* scratch) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    x = threadIdx.x % 32 < kTableWarps ? scratch[threadIdx.x % 32] : 0.0f;
    return warp_max(x);
}

// Chooses refined channels and exponent of keys from the first n rows.
template <class Rows>
__device__ void choose_key_table(const PageFormat& f, const Rows& rows, int n, int first, int sinks, double* widths,
                                 float* scratch, uint8_t* table) {
    const int d = f.head_size;
    const int c = threadIdx.x;
    const int n_refined = f.rows - d;
    uint16_t* refined = reinterpret_cast<uint16_t*>(table + 4);
    double width = 0;
    if (c < d) {
        for (int begin = 0; begin < n; begin += f.group) {
            const int end = min(begin + f.group, n);
            const int from = min(end, max(begin, sinks - first));
            if (from < end) {
                float low;
                float high;
                range_of(rows, from, end, c, low, high);
                width += static_cast<double>(high) - low;
            }
        }
        widths[c] = width;
    }
    __syncthreads();
    bool is_refined = false;
    if (c < d && n_refined > 0) {
        int rank = 0;
        for (int o = 0; o < d; ++o) {
            rank += widths[o] > width || (widths[o] == width && o < c);
        }
        is_refined = rank < n_refined;
    }
    __syncthreads();
    if (c < d) {
        widths[c] = is_refined ? 1.0 : 0.0;
    }
    __syncthreads();
    float largest = 0;
    if (c < d) {
        int place = 0;
        for (int o = 0; o < c; ++o) {
            place += widths[o] != 0;
        }
        if (is_refined) {
            refined[place] = static_cast<uint16_t>(c);
        }
        const int levels = kv::code_levels(f.bits, is_refined);
        for (int begin = 0; begin < n; begin += f.group) {
            const int end = min(begin + f.group, n);
            const int from = min(end, max(begin, sinks - first));
            if (from < end) {
                float low;
                float high;
                range_of(rows, from, end, c, low, high);
                largest = fmaxf(largest, kv::byte_pair_scale(low, high, levels));
            }
        }
    }
    largest = block_max(largest, scratch);
    if (threadIdx.x == 0) {
        *reinterpret_cast<int*>(table) = kv::byte_scale_exponent(largest);
    }
    __syncthreads();
}

// The same by one thread, for any number of rows: median of channel c over rows [skip, n).
template <class Rows>
__device__ float median(const Rows& rows, int skip, int n, int c) {
    const int count = n - skip;
    const int rank = count / 2;
    unsigned upper = 0;
    for (int bit = 15; bit >= 0; --bit) {
        const unsigned trial = upper | 1u << bit;
        int below = 0;
        for (int i = skip; i < n; ++i) {
            below += ordered_key(rows.half(i, c)) < trial;
        }
        upper = below <= rank ? trial : upper;
    }
    int below = 0;
    unsigned lower = 0;  // greatest smaller key
    for (int i = skip; i < n; ++i) {
        const unsigned x = ordered_key(rows.half(i, c));
        below += x < upper;
        lower = x < upper ? max(lower, x) : lower;
    }
    if (count % 2 == 1) {
        return key_value(upper);
    }
    return 0.5f * (key_value(below == rank ? lower : upper) + key_value(upper));
}

// Medians of the channels over rows [skip, n).
template <class Rows>
__device__ void choose_centre(const Rows& rows, int skip, int n, uint16_t* mu) {
    if (n - skip <= kMedianRows) {
        for (int c = threadIdx.x / 32; c < rows.d; c += kTableWarps) {
            const float x = channel_median(Lanes(), n - skip, [&](int i) { return rows.half(skip + i, c); });
            if (threadIdx.x % 32 == 0) {
                mu[c] = float_to_half_bits(x);
            }
        }
    } else if (threadIdx.x < rows.d) {
        mu[threadIdx.x] = float_to_half_bits(median(rows, skip, n, threadIdx.x));
    }
    __syncthreads();
}

// Medians over rows [skip, n) of the mean square of row - mu and of row. One warp per row; half of the block ranks the
// one or the other. squares: [2, n] scratch.
struct MeanSquares {
    float centred;
    float plain;
};

template <class Rows>
__device__ MeanSquares median_mean_squares(const Rows& rows, int skip, int n, const uint16_t* mu, float* squares,
                                           float* scratch) {
    const int d = rows.d;
    const int count = n - skip;
    for (int i = threadIdx.x / 32; i < count; i += kTableWarps) {
        double centred = 0;
        double plain = 0;
        for (int c = threadIdx.x % 32; c < d; c += 32) {
            const float x = rows.at(skip + i, c);
            const double y = x - half_bits_to_float(mu[c]);
            centred += y * y;
            plain += static_cast<double>(x) * x;
        }
        centred = warp_sum(centred);
        plain = warp_sum(plain);
        if (threadIdx.x % 32 == 0) {
            squares[i] = static_cast<float>(centred / d);
            squares[count + i] = static_cast<float>(plain / d);
        }
    }
    __syncthreads();
    // Each thread ranks its own rows.
    constexpr int kHalf = kTableThreads / 2;
    const int which = threadIdx.x / kHalf;
    const float* const own = squares + which * count;
    for (int i = threadIdx.x % kHalf; i < count; i += kHalf) {
        const float x = own[i];
        int rank = 0;
#pragma unroll 8
        for (int o = 0; o < count; ++o) {
            rank += own[o] < x || (own[o] == x && o < i);
        }
        if (rank == count / 2) {
            scratch[2 * which] = x;
        }
        if (rank == count / 2 - 1) {
            scratch[2 * which + 1] = x;
        }
    }
    __syncthreads();
    const auto middle = [&](const float* two) { return count % 2 == 1 ? two[0] : 0.5f * (two[1] + two[0]); };
    const MeanSquares result{middle(scratch), middle(scratch + 2)};
    __syncthreads();
    return result;
}

// Chooses centre and exponent of values from the first n rows. squares: [2, n] scratch.
template <class Rows>
__device__ void choose_value_table(const PageFormat& f, const Rows& rows, int n, int skip, float* squares,
                                   float* scratch, uint8_t* table) {
    const int d = f.head_size;
    uint16_t* mu = reinterpret_cast<uint16_t*>(table + 4);
    float largest = 0;
    if (f.scale_kind == ScaleKind::byte_token) {
        choose_centre(rows, skip, n, mu);
        const MeanSquares squared = median_mean_squares(rows, skip, n, mu, squares, scratch);
        if (!kv::centring_pays(squared.centred, squared.plain) && threadIdx.x < d) {
            mu[threadIdx.x] = 0;
        }
        __syncthreads();
        for (int i = skip + threadIdx.x / 32; i < n; i += kTableWarps) {
            float w[kLaneChannels];
            uint8_t codes[kLaneChannels];
            load_row(rows, i, w);
            for (int j = 0; j < kLaneChannels; ++j) {
                const int ch = threadIdx.x % 32 + 32 * j;
                w[j] = ch < d ? w[j] - half_bits_to_float(mu[ch]) : 0.0f;
            }
            largest = fmaxf(largest, rotated_value(f, w, codes));
        }
    } else {
        for (int i = threadIdx.x; i < (n - skip) * f.scale_groups; i += kTableThreads) {
            const int row = skip + i / f.scale_groups;
            const int begin = i % f.scale_groups * f.group;
            float low = rows.at(row, begin);
            float high = low;
            for (int c = begin; c < min(begin + f.group, d); ++c) {
                low = fminf(low, rows.at(row, c));
                high = fmaxf(high, rows.at(row, c));
            }
            largest = fmaxf(largest, kv::byte_pair_scale(low, high, 1 << f.bits));
        }
    }
    largest = block_max(largest, scratch);
    if (threadIdx.x == 0) {
        *reinterpret_cast<int*>(table) = kv::byte_scale_exponent(largest);
    }
    __syncthreads();
}

// One thread block per head and work. Shared memory: double widths[256], float squares[2, trigger], and with kCopies
// at offset `copy` a copy of the rows in order, which are read many times. Its rows are a word longer than D: a warp
// that reads a channel of 32 rows accesses all banks.
template <bool kCopies>
__global__ void __launch_bounds__(kTableThreads)
    choose_tables_kernel(const SideShape shape, const AppendWork* works, int first_head, int copy) {
    after_previous();
    extern __shared__ __align__(16) uint8_t shared[];
    __shared__ float scratch[32];
    const AppendWork& work = works[blockIdx.y];
    if (!work.choose_tables) {
        return;
    }
    double* const widths = reinterpret_cast<double*>(shared);
    float* const squares = reinterpret_cast<float*>(widths + kMaxHead);
    const PageFormat& f = shape.format;
    const int head = first_head + blockIdx.x;
    const int n = shape.trigger;
    uint8_t* const table = work.tables + static_cast<size_t>(head) * shape.table_bytes;
    const HeadRows source(shape, work, head);
    const auto choose = [&](const auto& rows) {
        if (f.side == Side::keys) {
            choose_key_table(f, rows, n, work.first_token, work.sink_limit, widths, scratch, table);
        } else {
            const int skip = min(max(work.sink_limit - work.first_token, 0), n - 1);
            choose_value_table(f, rows, n, skip, squares, scratch, table);
        }
    };
    if constexpr (kCopies) {
        choose(copy_rows(source, 0, n, reinterpret_cast<uint16_t*>(shared + copy), f.head_size + 2));
    } else {
        choose(source);
    }
}

}  // namespace

void choose_tables(const SideShape& shape, const AppendWork* works, int n_works, HeadRange heads, Stream& stream) {
    const SharedLayout shared(kMaxHead * 8 + shape.trigger * 2 * 4, shape.trigger * (shape.format.head_size + 2) * 2);
    const auto kernel = shared.copy > 0 ? choose_tables_kernel<true> : choose_tables_kernel<false>;
    shared.allow(kernel);
    queue(kernel, dim3(heads.count, n_works), kTableThreads, shared.bytes, stream, shape, works, heads.first,
          shared.copy);
}

}  // namespace lk::cuda
