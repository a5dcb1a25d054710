// Batch invariance on the CPU: a token's result depends on the weights and that token's activations alone, bit for bit.
// The number of tokens in a call, the token's place among them, the range of rows and the threads do not matter.
#include <gtest/gtest.h>

#include <bit>
#include <memory>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"
#include "base/error.h"
#include "support/tiny_model.h"
#include "support/weight_rows.h"

namespace lk {
namespace {

using cpu::Kernels;
using cpu::NamedKernels;
using test::Activations;

constexpr int kRows = 45;  // two tiles of 16 rows and 13 more
constexpr int kMostTokens = 65;

class BatchInvariance : public testing::Test, protected test::NormalValues {
protected:
    BatchInvariance() : NormalValues(5) {}
};

struct Weights {
    WeightType type;
    int n_cols;
    std::vector<uint8_t> bytes;

    Tensor tensor(int n_rows = kRows) const { return {type, bytes.data(), n_cols, n_rows, bytes.size() / n_rows}; }
    std::string name() const { return format("%s, %d columns", weight_type_traits(type)->name, n_cols); }
};

// Random weights of every type: a short row, and one longer than any tile, with a remainder. For blocks also the
// largest codes, whose integer sums do not fit a float's mantissa.
std::vector<Weights> draw_weights(std::mt19937& random) {
    std::vector<Weights> all;
    for (const WeightType type : test::kWeightTypes) {
        const WeightTypeTraits& traits = *weight_type_traits(type);
        const int block = static_cast<int>(traits.block_elements);
        for (const int n : {block == 1 ? 77 : 3 * block, block == 1 ? 1101 : 2048 + 5 * block}) {
            all.push_back({type, n, test::draw_weights(type, int64_t{kRows} * n, random)});
        }
        if (block > 1) {
            const int n = 2048;
            std::vector<uint8_t> bytes(kRows * n / block * traits.block_bytes);
            std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<uint8_t>(random() % 2 ? 0x7f : 0x80); });
            std::fill_n(bytes.begin(), bytes.size() / 2, uint8_t{0xff});
            test::set_scales(type, bytes, random);
            all.push_back({type, n, bytes});
        }
    }
    return all;
}

// The first element whose bits differ, or -1.
int first_difference(std::span<const float> a, std::span<const float> b) {
    EXPECT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
        if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) {
            return static_cast<int>(i);
        }
    }
    return -1;
}

// One call per token.
std::vector<float> token_by_token(const Kernels& kernels, const Tensor& w, const Activations& x) {
    std::vector<float> y(x.rows.size() * kRows);
    for (size_t i = 0; i < x.rows.size(); ++i) {
        kernels.matmul(w, 0, kRows, &x.rows[i], 1, &y[i * kRows], kRows);
    }
    return y;
}

TEST_F(BatchInvariance, MatmulOfAnyNumberOfTokens) {
    for (const Weights& weights : draw_weights(random_)) {
        const Tensor w = weights.tensor();
        std::vector<float> values = draw(size_t{kMostTokens} * w.n_cols);
        std::fill_n(values.begin() + w.n_cols, w.n_cols, 1.0f);  // largest activation codes
        for (const NamedKernels& table : cpu::available_kernels()) {
            SCOPED_TRACE(weights.name() + ", " + table.id);
            const Kernels& kernels = *table.kernels;
            const Activations x(kernels, values, weights.n_cols);
            const std::vector<float> expected = token_by_token(kernels, w, x);
            for (const int n : {2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 33, 64, 65}) {
                const int first = kMostTokens - n;  // so that a token has several places
                std::vector<float> y(static_cast<size_t>(n) * kRows);
                kernels.matmul(w, 0, kRows, &x.rows[first], n, y.data(), kRows);
                const int at = first_difference(y, std::span(expected).subspan(first * kRows));
                if (at >= 0) {
                    ADD_FAILURE() << n << " tokens: " << y[at] << " instead of " << expected[first * kRows + at];
                    break;
                }
            }
        }
    }
}

TEST_F(BatchInvariance, MatmulOfAnyRangeOfRows) {
    for (const Weights& weights : draw_weights(random_)) {
        if (weights.n_cols > 2048) {
            continue;
        }
        const Tensor w = weights.tensor();
        const std::vector<float> values = draw(size_t{9} * w.n_cols);
        for (const NamedKernels& table : cpu::available_kernels()) {
            SCOPED_TRACE(weights.name() + ", " + table.id);
            const Kernels& kernels = *table.kernels;
            const Activations x(kernels, values, weights.n_cols);
            const std::vector<float> expected = token_by_token(kernels, w, x);
            for (const int n : {1, 3, 9}) {
                for (int split = 1; split < kRows; ++split) {
                    std::vector<float> y(static_cast<size_t>(n) * kRows);
                    kernels.matmul(w, 0, split, x.rows.data(), n, y.data(), kRows);
                    kernels.matmul(w, split, kRows, x.rows.data(), n, y.data(), kRows);
                    if (first_difference(y, std::span(expected).first(y.size())) >= 0) {
                        ADD_FAILURE() << n << " tokens, rows split at " << split;
                        break;
                    }
                }
            }
        }
    }
}

// Norms and elementwise operations of a row at any address.
TEST_F(BatchInvariance, RowsAtAnyAddress) {
    for (const int n : {1, 7, 100, 576}) {
        const std::vector<float> x = draw(n, 3);
        const std::vector<float> weight = draw(n);
        const std::vector<float> bias = draw(n);
        for (const NamedKernels& table : cpu::available_kernels()) {
            const Kernels& k = *table.kernels;
            std::vector<std::vector<float>> expected;
            for (int shift = 0; shift < 16; ++shift) {
                const auto moved = [&](const std::vector<float>& row) {
                    std::vector<float> all(16 + row.size());
                    std::copy(row.begin(), row.end(), all.begin() + shift);
                    return all;
                };
                std::vector<float> from = moved(x);
                const std::vector<float> w = moved(weight);
                const std::vector<float> b = moved(bias);
                std::vector<float> out(n + 16);
                std::vector<std::vector<float>> results;
                const auto keep = [&](const std::vector<float>& all) {
                    results.emplace_back(all.begin() + shift, all.begin() + shift + n);
                };
                k.rms_norm(&from[shift], &w[shift], 1e-5f, n, &out[shift]);
                keep(out);
                k.layer_norm(&from[shift], &w[shift], &b[shift], 1e-5f, n, &out[shift]);
                keep(out);
                k.swiglu(&from[shift], &w[shift], n);
                keep(from);
                from = moved(x);
                k.gelu(&from[shift], n);
                keep(from);
                from = moved(x);
                k.add(&from[shift], &b[shift], n);
                keep(from);
                if (shift == 0) {
                    expected = results;
                }
                for (size_t i = 0; i < results.size(); ++i) {
                    ASSERT_EQ(first_difference(results[i], expected[i]), -1)
                        << table.id << ", operation " << i << ", n " << n << ", address + " << shift;
                }
            }
        }
    }
}

// The backend's matmul: lazy rows, several products, sums into y, split between threads.
TEST_F(BatchInvariance, BackendMatmulOfAnyTokensAndThreads) {
    constexpr int kIn = 512;
    constexpr int kOut = 200;
    constexpr int kTokens = 70;
    const std::vector<float> input = draw(size_t{kTokens} * kIn);
    const std::vector<float> up = draw(size_t{kTokens} * kIn);
    const std::vector<float> weight = draw(kIn);
    const std::vector<float> bias = draw(kIn);
    const std::vector<float> before = draw(size_t{kTokens} * kOut);
    std::vector<Weights> all;
    for (const WeightType type : test::kWeightTypes) {
        all.push_back({type, kIn, test::draw_weights(type, int64_t{kOut} * kIn, random_)});
    }
    const auto run = [&](Backend& backend, int form, const Weights& weights, int first, int n) {
        const float* const x = &input[first * kIn];
        const Rows rows[] = {Rows::plain(x), Rows::rms_norm(x, weight.data(), 1e-5f),
                             Rows::layer_norm(x, weight.data(), bias.data(), 1e-5f), Rows::swiglu(x, &up[first * kIn]),
                             Rows::gelu(x)};
        const Tensor w = weights.tensor(kOut);
        std::vector<float> y(2 * size_t(n) * kOut);
        std::copy_n(&before[first * kOut], n * kOut, y.begin());
        const Product products[] = {{&w, y.data(), true}, {&w, y.data() + n * kOut}};
        backend.matmul(rows[form], n, products);
        return y;
    };
    for (const NamedKernels& table : cpu::available_kernels()) {
        const test::TableInUse in_use(table.id);
        const std::unique_ptr<Backend> alone = make_cpu_backend(1);
        std::vector<std::unique_ptr<Backend>> backends;
        for (const int n_threads : {1, 2, 3, 8}) {
            backends.push_back(make_cpu_backend(n_threads));
        }
        for (size_t i = 0; i < all.size(); ++i) {
            SCOPED_TRACE(all[i].name() + ", " + table.id);
            const int form = static_cast<int>(i) % 5;
            std::vector<float> added;
            std::vector<float> plain;
            for (int t = 0; t < kTokens; ++t) {
                const std::vector<float> y = run(*alone, form, all[i], t, 1);
                added.insert(added.end(), y.begin(), y.begin() + kOut);
                plain.insert(plain.end(), y.begin() + kOut, y.end());
            }
            for (const auto& backend : backends) {
                for (const int n : {1, 2, 5, 16, 70}) {
                    const int first = (kTokens - n) / 2;
                    const std::vector<float> y = run(*backend, form, all[i], first, n);
                    std::vector<float> expected(added.begin() + first * kOut, added.begin() + (first + n) * kOut);
                    expected.insert(expected.end(), plain.begin() + first * kOut, plain.begin() + (first + n) * kOut);
                    ASSERT_EQ(first_difference(y, expected), -1)
                        << n << " tokens, backend " << (&backend - backends.data());
                }
            }
        }
    }
}

}  // namespace
}  // namespace lk
