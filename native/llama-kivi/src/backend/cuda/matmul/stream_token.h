// The token of multiply_stream in shared memory. C++17 for hosts and devices; the tests run it without a GPU.
#pragma once

#include "backend/cuda/device/both.h"
#include "backend/cuda/device/shared_bytes.h"
#include "backend/cuda/plan/stream_plan.h"
#include "base/finite.h"

namespace lk::cuda {

// Power of two by which StreamPiece's integer dot products with block i exceed the result.
template <WeightType kType>
LK_BOTH constexpr float stream_excess(int i) {
    return kType == WeightType::Q4_0   ? 16.0f
           : kType == WeightType::Q4_K ? (i % 2 == 0 ? 1.0f : 16.0f)
           : kType == WeightType::Q5_K ? (i % 2 == 0 ? 8.0f : 16.0f)
           : kType == WeightType::Q6_K ? (i % 4 < 2 ? 1.0f : 16.0f)
                                       : 1.0f;
}

// Block i: the scale of its codes, and the sum of its dequantized values.
template <WeightType kType>
LK_BOTH Floats2 stream_block(int i, const Floats2& block) {
    return {{block.v[0] * (1 / stream_excess<kType>(i)), block.v[1]}};
}

// Q6_K: half a block.
struct alignas(8) StreamChunk {
    float scale;
    int offset;  // -32 times the sum of the codes, divided by 16 and multiplied by 4^quarter; see StreamPiece

    // i: the index of the first element / 16. sum: of the codes.
    LK_BOTH static StreamChunk of(int i, float scale, int sum) {
        return {scale * (1 / stream_excess<WeightType::Q6_K>(i / 2)), sum * -(2 << i / 2 % 4 * 2)};
    }
};

LK_BOTH int sum_codes(const Words4& codes) {
    int sum = 0;
    LK_UNROLL
    for (int k = 0; k < 4; ++k) {
        sum = dot_signed(codes.w[k], 0x01010101u, sum);
    }
    return sum;
}

// The token as floats, four at a time.
struct PlainToken {
    const Floats4* x;

    LK_BOTH Floats4 operator[](int i) const { return x[i]; }
};

// Its RMS norm.
struct NormedToken {
    const Floats4* x;
    const Floats4* weight;
    float scale;  // 1 / rms(x)

    LK_BOTH Floats4 operator[](int i) const {
        Floats4 v = x[i];
        const Floats4 w = weight[i];
        LK_UNROLL
        for (int k = 0; k < 4; ++k) {
            v.v[k] = v.v[k] * scale * w.v[k];
        }
        return v;
    }
};

LK_BOTH bool all_finite(const Floats4& v) {
    return lk::is_finite(v.v[0]) && lk::is_finite(v.v[1]) && lk::is_finite(v.v[2]) && lk::is_finite(v.v[3]);
}

// A thread's part of the copy of a token to shared memory, for float weights; see StreamActivations. Stores wait for
// loads, so that several loads precede them. Calls report() if a value is not finite. Values: PlainToken or
// NormedToken.
template <WeightType kType, int kThreads, class Values, class Report>
LK_BOTH void load_floats(int thread, int n_cols, const Values& values, SharedBytes x, Report&& report) {
    static_assert(is_float(kType));
    constexpr int kLoads = 2;
    for (int first = thread; first < n_cols / 4; first += kLoads * kThreads) {
        Floats4 fours[kLoads] = {};
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads;
            if (i < n_cols / 4) {
                fours[k] = values[i];
            }
        }
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads;
            if (i < n_cols / 4) {
                x.write(StreamActivations::offset(kType, 4 * i), fours[k]);
                if (!all_finite(fours[k])) {
                    report();
                }
            }
        }
    }
}

// The same for quantized weights, of a token in codes. token_blocks: scales and sums; see make_codes.
template <WeightType kType, int kThreads>
LK_BOTH void load_codes(int thread, int n_cols, const Words4* codes, const Floats2* token_blocks, SharedBytes x,
                        SharedBytes blocks) {
    static_assert(!is_float(kType));
    constexpr int kEach = 16;  // codes at once
    constexpr int kLoads = 2;  // they belong to a block
    constexpr bool kChunks = kType == WeightType::Q6_K;
    const int n = n_cols / kEach;
    for (int first = 0; first < n; first += kLoads * kThreads) {
        Words4 words[kLoads] = {};
        float scales[kLoads] = {};
        Floats2 block{};
        const int b = first / 2 + thread;
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads + thread;
            if (i < n) {
                words[k] = codes[i];
                if constexpr (kChunks) {
                    scales[k] = token_blocks[i / 2].v[0];
                }
            }
        }
        if (!kChunks && b < n / 2) {
            block = token_blocks[b];
        }
        LK_UNROLL
        for (int k = 0; k < kLoads; ++k) {
            const int i = first + k * kThreads + thread;
            if (i < n) {
                const int at = StreamActivations::offset(kType, i * kEach);
                x.write(at, words[k]);
                if constexpr (kChunks) {
                    blocks.write(at / 2, StreamChunk::of(i, scales[k], sum_codes(words[k])));
                }
            }
        }
        if (!kChunks && b < n / 2) {
            blocks.write(8 * b, stream_block<kType>(b, block));
        }
    }
}

// The same from floats: quantizes as make_codes does. Calls report() if a value is not finite. Values: see load_floats;
// Lanes: see lanes.cuh.
template <WeightType kType, int kThreads, class Lanes, class Values, class Report>
LK_BOTH void quantize_token(const Lanes& lanes, int n_cols, const Values& values, SharedBytes x, SharedBytes blocks,
                            Report&& report) {
    static_assert(!is_float(kType));
    const auto sum_with = [&lanes](int sum, int mask) {
        return sum + static_cast<int>(lanes.exchange(static_cast<uint32_t>(sum), mask));
    };
    // A lane has eight elements; four neighbours share a block.
    for (int first = 0; first < n_cols / 8; first += kThreads) {
        const int i = first + lanes.thread();
        const bool has = i < n_cols / 8;
        float v[8] = {};
        if (has) {
            const Floats4 fours[2] = {values[2 * i], values[2 * i + 1]};
            LK_UNROLL
            for (int k = 0; k < 8; ++k) {
                v[k] = fours[k / 4].v[k % 4];
            }
        }
        float largest = 0;
        bool finite = true;
        LK_UNROLL
        for (int k = 0; k < 8; ++k) {
            largest = larger_magnitude(largest, v[k]);
            finite = finite && lk::is_finite(v[k]);
        }
        largest = larger_magnitude(largest, lanes.exchange(largest, 2));
        largest = larger_magnitude(largest, lanes.exchange(largest, 1));
        const float scale = largest / 127;
        const float inverse = finite_quotient(127, largest);
        unsigned words[2] = {};
        int sum = 0;
        LK_UNROLL
        for (int k = 0; k < 8; ++k) {
            const int code = nearest(v[k] * inverse);
            words[k / 4] |= (static_cast<unsigned>(code) & 255u) << k % 4 * 8;
            sum += code;
        }
        const int chunk_sum = sum_with(sum, 1);
        const int block_sum = sum_with(chunk_sum, 2);
        if (!has) {
            continue;
        }
        if (!finite) {
            report();
        }
        const int at = StreamActivations::offset(kType, 8 * i);
        x.write(at, uint64_t{words[1]} << 32 | words[0]);
        if constexpr (kType == WeightType::Q6_K) {
            if (i % 2 == 0) {
                blocks.write(at / 2, StreamChunk::of(i / 2, scale, chunk_sum));
            }
        } else if (i % 4 == 0) {
            blocks.write(2 * i, stream_block<kType>(i / 4, {{scale, scale * static_cast<float>(block_sum)}}));
        }
    }
}

// Activations of a lane's piece.
struct StreamX {
    SharedBytes values;  // floats or codes; chunks of 16 bytes, 512 bytes apart
    SharedBytes blocks;

    LK_BOTH Words4 codes(int chunk) const { return values.read<Words4>(512 * chunk); }
    LK_BOTH Floats4 floats(int chunk) const { return values.read<Floats4>(512 * chunk); }
};

}  // namespace lk::cuda
