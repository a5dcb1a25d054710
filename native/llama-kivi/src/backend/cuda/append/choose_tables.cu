// Chooses head tables at the first flush: refined channels, centres and exponents; see kv/head_table.cpp.
#include "backend/cuda/append/rows.cuh"

namespace lk::cuda {

namespace {

__device__ float block_max(float x, float* scratch) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
    }
    __syncthreads();
    x = threadIdx.x % 32 < kWarps ? scratch[threadIdx.x % 32] : 0.0f;
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

// Maps a half to an unsigned key of the same order.
__device__ unsigned ordered(uint16_t half) {
    return half & 0x8000u ? 0xffffu & ~static_cast<unsigned>(half) : half | 0x8000u;
}

// Median of channel c over rows [skip, n): determines, bit by bit, the ordered key that n / 2 rows are below.
template <class Rows>
__device__ float median(const Rows& rows, int skip, int n, int c) {
    const int count = n - skip;
    const int rank = count / 2;
    unsigned upper = 0;
    for (int bit = 15; bit >= 0; --bit) {
        const unsigned trial = upper | 1u << bit;
        int below = 0;
        for (int i = skip; i < n; ++i) {
            below += ordered(rows.half(i, c)) < trial;
        }
        upper = below <= rank ? trial : upper;
    }
    int below = 0;
    unsigned lower = 0;  // greatest smaller key
    for (int i = skip; i < n; ++i) {
        const unsigned x = ordered(rows.half(i, c));
        below += x < upper;
        lower = x < upper ? max(lower, x) : lower;
    }
    const auto value = [](unsigned key) {
        return half_bits_to_float(static_cast<uint16_t>(key & 0x8000u ? key & 0x7fffu : ~key));
    };
    if (count % 2 == 1) {
        return value(upper);
    }
    return 0.5f * (value(below == rank ? lower : upper) + value(upper));
}

// Median over rows [skip, n) of the mean square of row - mu. One warp per row; thread 0 returns the median.
template <class Rows>
__device__ float median_mean_square(const Rows& rows, int skip, int n, const uint16_t* mu, float* squares,
                                    float* scratch) {
    const int d = rows.d;
    __syncthreads();
    for (int i = skip + threadIdx.x / 32; i < n; i += kWarps) {
        double sum = 0;
        for (int c = threadIdx.x % 32; c < d; c += 32) {
            const double x = rows.at(i, c) - (mu != nullptr ? half_bits_to_float(mu[c]) : 0.0f);
            sum += x * x;
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) {
            squares[i - skip] = static_cast<float>(sum / d);
        }
    }
    __syncthreads();
    // Each thread ranks its own rows.
    const int count = n - skip;
    for (int i = threadIdx.x; i < count; i += kThreads) {
        int rank = 0;
        for (int o = 0; o < count; ++o) {
            rank += squares[o] < squares[i] || (squares[o] == squares[i] && o < i);
        }
        if (rank == count / 2) {
            scratch[0] = squares[i];
        }
        if (rank == count / 2 - 1) {
            scratch[1] = squares[i];
        }
    }
    __syncthreads();
    const float result = count % 2 == 1 ? scratch[0] : 0.5f * (scratch[1] + scratch[0]);
    __syncthreads();
    return result;
}

// Chooses centre and exponent of values from the first n rows. squares: [n] scratch.
template <class Rows>
__device__ void choose_value_table(const PageFormat& f, const Rows& rows, int n, int skip, float* squares,
                                   float* scratch, uint8_t* table) {
    const int d = f.head_size;
    uint16_t* mu = reinterpret_cast<uint16_t*>(table + 4);
    float largest = 0;
    if (f.scale_kind == ScaleKind::byte_token) {
        const int c = threadIdx.x;
        if (c < d) {
            mu[c] = float_to_half_bits(median(rows, skip, n, c));
        }
        __syncthreads();
        const float centred = median_mean_square(rows, skip, n, mu, squares, scratch);
        const float plain = median_mean_square(rows, skip, n, nullptr, squares, scratch);
        if (!kv::centring_pays(centred, plain) && c < d) {
            mu[c] = 0;
        }
        __syncthreads();
        for (int i = skip + threadIdx.x / 32; i < n; i += kWarps) {
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
        for (int i = threadIdx.x; i < (n - skip) * f.scale_groups; i += kThreads) {
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

// One thread block per head and work. Shared memory: double widths[256], float squares[trigger], and with kCopies at
// offset `copy` a copy of the rows in order, which are read many times.
template <bool kCopies>
__global__ void __launch_bounds__(kThreads)
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
        choose(copy_rows(source, 0, n, reinterpret_cast<uint16_t*>(shared + copy)));
    } else {
        choose(source);
    }
}

}  // namespace

void choose_tables(const SideShape& shape, const AppendWork* works, int n_works, HeadRange heads, Stream& stream) {
    const SharedLayout shared(kMaxHead * 8 + shape.trigger * 4, shape.trigger * shape.format.head_size * 2);
    const auto kernel = shared.copy > 0 ? choose_tables_kernel<true> : choose_tables_kernel<false>;
    shared.allow(kernel);
    queue(kernel, dim3(heads.count, n_works), kThreads, shared.bytes, stream, shape, works, heads.first, shared.copy);
}

}  // namespace lk::cuda
