// A token as multiply_stream has it in shared memory, on the host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cuda/matmul/stream_token.h"
#include "backend/cuda/plan/weight_dispatch.h"

namespace lk::test {

using cuda::Floats2;
using cuda::Floats4;
using cuda::SharedBytes;
using cuda::StreamActivations;
using cuda::StreamStep;
using cuda::Words4;

constexpr WeightType kStreamTypes[] = {WeightType::F16,  WeightType::BF16, WeightType::Q8_0, WeightType::Q4_0,
                                       WeightType::Q4_K, WeightType::Q5_K, WeightType::Q6_K};

// Bytes at a multiple of 16.
class Bytes {
public:
    explicit Bytes(size_t size, uint8_t value = 0xff) : words_((size + 15) / 16), size_(size) {
        std::fill_n(data(), 16 * words_.size(), value);
    }
    uint8_t* data() { return reinterpret_cast<uint8_t*>(words_.data()); }
    const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(words_.data()); }
    size_t size() const { return size_; }

private:
    std::vector<Words4> words_;
    size_t size_;
};

// Floats as kernels read them.
class Fours {
public:
    explicit Fours(const std::vector<float>& x) : bytes_(4 * x.size()) {
        std::memcpy(bytes_.data(), x.data(), 4 * x.size());
    }
    const Floats4* data() const { return reinterpret_cast<const Floats4*>(bytes_.data()); }

private:
    Bytes bytes_;
};

// A row of activations as multiply_stream has it in shared memory, and the values that it stands for.
struct Token {
    Token(WeightType type, const std::vector<float>& x)
        : values(x), shared(StreamActivations::bytes(type, static_cast<int>(x.size()))) {
        const int n = static_cast<int>(x.size());
        Bytes row(4 * x.size());
        std::vector<Floats2> blocks;
        if (cuda::is_float(type)) {
            std::memcpy(row.data(), x.data(), 4 * x.size());
        }
        for (int begin = 0; begin < n && !cuda::is_float(type); begin += kBlock) {
            float largest = 0;
            for (int i = begin; i < begin + kBlock; ++i) {
                largest = std::max(largest, std::fabs(x[i]));
            }
            const float scale = largest / 127;
            const float inverse = 127 / largest;
            int sum = 0;
            for (int i = begin; i < begin + kBlock; ++i) {
                const auto code = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
                std::memcpy(row.data() + i, &code, 1);
                values[i] = scale * code;
                sum += code;
            }
            blocks.push_back({{scale, scale * static_cast<float>(sum)}});
        }
        cuda::dispatch("test", type, [&](auto t) {
            constexpr WeightType kType = decltype(t)::value;
            constexpr int kThreads = StreamStep::kWarps * 32;
            if constexpr (cuda::stream_piece(kType) > 0) {
                const SharedBytes to(shared.data());
                for (int thread = 0; thread < kThreads; ++thread) {
                    if constexpr (cuda::is_float(kType)) {
                        cuda::load_floats<kType, kThreads>(thread, n, cuda::PlainToken{Fours(x).data()}, to,
                                                           [] { ADD_FAILURE() << "finite values are reported"; });
                    } else {
                        cuda::load_codes<kType, kThreads>(thread, n, reinterpret_cast<const Words4*>(row.data()),
                                                          blocks.data(), to,
                                                          to + StreamActivations::blocks_offset(type, n));
                    }
                }
            }
        });
    }

    std::vector<float> values;
    Bytes shared;
};

}  // namespace lk::test
