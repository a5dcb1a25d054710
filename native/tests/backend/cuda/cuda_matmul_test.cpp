// The CUDA backend's matmuls against double precision. Without a GPU the tests are skipped.
#include "backend/cuda/plan/matmul_plan.h"
#include "support/cuda_helpers.h"

namespace lk {
namespace {

// Row lengths of types without blocks, with blocks of 32 elements and of 256.
struct Lengths {
    int plain, blocks, super_blocks;

    int of(WeightType type) const {
        const int elements = weight_type_traits(type)->block_elements;
        return elements == 1 ? plain : elements == 32 ? blocks : super_blocks;
    }
};

class CudaProducts : public CudaOperations {
protected:
    void compare(std::initializer_list<Lengths> lengths);
    void compare_batches(std::initializer_list<Lengths> lengths);
    void compare_twice(WeightType type, int n_rows, int n_cols, std::initializer_list<int> tokens);
};

// One token: 8-bit vectors for low-bit weights. More tokens: halves.
void CudaProducts::compare(std::initializer_list<Lengths> lengths) {
    for (const WeightType type : test::kWeightTypes) {
        const char* const name = weight_type_traits(type)->name;
        double worst = 0;
        double worst_vector = 0;
        for (const Lengths& length : lengths) {
            const int n_cols = length.of(type);
            const Tensor first = random_tensor(type, 37, n_cols);
            const Tensor second = random_tensor(type, 130, n_cols);
            for (const int n : {1, 2, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 128, 300}) {
                const std::vector<float> x = random_floats(static_cast<size_t>(n) * n_cols);
                const std::vector<float> before = random_floats(static_cast<size_t>(n) * 130);
                const Buffer<float> device_x = upload(x);
                Buffer<float> y = upload(std::vector<float>(n * 37, std::nanf("")));
                Buffer<float> added = upload(before);
                const Product products[] = {{&first, y.data()}, {&second, added.data(), true}};
                backend_->matmul(Rows::plain(device_x.data()), n, products);
                backend_->finish();
                const double error = test::worse(product_error(first, x, n, {}, download(y)),
                                                 product_error(second, x, n, before, download(added)));
                double& kind = n == 1 ? worst_vector : worst;
                kind = std::max(kind, error);
                // The rounding errors of a token in few blocks of codes do not even out.
                const double one_token = cuda::takes_codes(type) && n_cols < 256 ? 4e-3 : 2e-3;
                EXPECT_LT(error, n == 1 ? one_token : 5e-4)
                    << name << ", " << n_cols << " columns, " << n << " rows of x";
            }
        }
        std::printf("matmul, %s: worst error %.2g, one token %.2g\n", name, worst, worst_vector);
    }
}

// Few, for the tools that look for races. Rows of blocks of 32 end inside a step of the tiled GEMM.
TEST_F(CudaProducts, OfShortRows) {
    compare({{352, 352, 256}, {360, 32, 512}, {40, 64, 768}});
}

// One token and the types that files of K formats mix, with every form of rows.
TEST_F(CudaProducts, OfTwoTypes) {
    for (const WeightType type : {WeightType::Q4_K, WeightType::Q5_K}) {
        for (const int n_cols : {256, 4096, 11008}) {
            const Tensor first = random_tensor(type, 301, n_cols);
            const Tensor second = random_tensor(WeightType::Q6_K, 77, n_cols);
            const Tensor third = random_tensor(type, 5, n_cols);
            const float* const weight = kept_floats(n_cols);
            const std::vector<float> x = random_floats(n_cols);
            const std::vector<float> up = random_floats(n_cols);
            const Buffer<float> device_x = upload(x);
            const Buffer<float> device_up = upload(up);
            const auto forms = [&](const float* a, const float* b) {
                return std::vector<Rows>{Rows::plain(a), Rows::rms_norm(a, weight, 1e-5f), Rows::swiglu(a, b),
                                         Rows::gelu(a)};
            };
            const std::vector<Rows> there = forms(device_x.data(), device_up.data());
            const std::vector<Rows> here = forms(x.data(), up.data());
            for (size_t i = 0; i < here.size(); ++i) {
                SCOPED_TRACE(format("%s, form %zu, %d columns", weight_type_traits(type)->name, i, n_cols));
                std::vector<float> made(n_cols);
                cpu_->make(here[i], 1, n_cols, made.data());
                Buffer<float> y = upload(std::vector<float>(301, std::nanf("")));
                Buffer<float> z = upload(std::vector<float>(77, std::nanf("")));
                Buffer<float> u = upload(std::vector<float>(5, std::nanf("")));
                const Product products[] = {{&first, y.data()}, {&second, z.data()}, {&third, u.data()}};
                backend_->matmul(there[i], 1, products);
                backend_->finish();
                EXPECT_LT(product_error(first, made, 1, {}, download(y)), 4e-3);
                EXPECT_LT(product_error(second, made, 1, {}, download(z)), 4e-3);
                EXPECT_LT(product_error(third, made, 1, {}, download(u)), 4e-3);
            }
        }
    }
}

TEST_F(CudaProducts, OfLongRows) {
    compare({{2304, 2304, 2304}, {16384, 16384, 16384}});
}

// Batch-invariant: each row of the result has the bits of that row alone.
void CudaProducts::compare_batches(std::initializer_list<Lengths> lengths) {
    constexpr int kMost = 300;
    for (const WeightType type : test::kWeightTypes) {
        const char* const name = weight_type_traits(type)->name;
        double worst = 0;
        for (const Lengths& length : lengths) {
            const int n_cols = length.of(type);
            const Tensor first = random_tensor(type, 37, n_cols);
            const Tensor second = random_tensor(type, 270, n_cols);
            const std::vector<float> x = random_floats(static_cast<size_t>(kMost) * n_cols);
            const std::vector<float> before = random_floats(static_cast<size_t>(kMost) * 270);
            const Buffer<float> device_x = upload(x);
            const auto multiply = [&](int row, int n) {
                Buffer<float> y = upload(std::vector<float>(n * 37, std::nanf("")));
                Buffer<float> added = upload({before.begin() + row * 270, before.begin() + (row + n) * 270});
                const Product products[] = {{&first, y.data()}, {&second, added.data(), true}};
                invariant_backend_->matmul(Rows::plain(device_x.data() + static_cast<size_t>(row) * n_cols), n,
                                           products);
                invariant_backend_->finish();
                return std::pair{download(y), download(added)};
            };
            const auto whole = multiply(0, kMost);
            worst = std::max(worst, test::worse(product_error(first, x, kMost, {}, whole.first),
                                                product_error(second, x, kMost, before, whole.second)));
            for (const int n : {1, 2, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 128, 129}) {
                for (const int row : {0, 3, kMost - n}) {
                    const auto part = multiply(row, n);
                    int n_different = 0;
                    for (int i = 0; i < n * 37; ++i) {
                        n_different += part.first[i] != whole.first[row * 37 + i];
                    }
                    for (int i = 0; i < n * 270; ++i) {
                        n_different += part.second[i] != whole.second[row * 270 + i];
                    }
                    EXPECT_EQ(n_different, 0) << name << ", " << n_cols << " columns, rows " << row << " + " << n;
                }
            }
        }
        std::printf("batch-invariant matmul, %s: worst error %.2g\n", name, worst);
        EXPECT_LT(worst, 5e-4) << name;
    }
}

// Rows of a first matrix of n_rows, and a second one that adds to its results. Twice: the first call leaves its scratch
// as it found it.
void CudaProducts::compare_twice(WeightType type, int n_rows, int n_cols, std::initializer_list<int> tokens) {
    constexpr int kAdded = 130;
    const Tensor first = random_tensor(type, n_rows, n_cols);
    const Tensor second = random_tensor(type, kAdded, n_cols);
    for (const int n : tokens) {
        const std::vector<float> x = random_floats(static_cast<size_t>(n) * n_cols);
        const std::vector<float> before = random_floats(static_cast<size_t>(n) * kAdded);
        const Buffer<float> device_x = upload(x);
        Buffer<float> y = upload(std::vector<float>(static_cast<size_t>(n) * n_rows, std::nanf("")));
        for (int call = 0; call < 2; ++call) {
            Buffer<float> added = upload(before);
            const Product products[] = {{&first, y.data()}, {&second, added.data(), true}};
            backend_->matmul(Rows::plain(device_x.data()), n, products);
            backend_->finish();
            EXPECT_LT(test::worse(product_error(first, x, n, {}, download(y)),
                                  product_error(second, x, n, before, download(added))),
                      5e-4)
                << weight_type_traits(type)->name << ", " << n << " rows of x, call " << call;
        }
    }
}

// So many rows that every thread block of an H200 has more steps than few_wgmma has stages; tiles whole and in parts.
TEST_F(CudaProducts, OfManyRowsAndFewTokens) {
    compare_twice(WeightType::F16, 20000, 1056, {2, 5, 8});
}

// Matrices of one shape, which one call of cuBLAS may take together.
TEST_F(CudaProducts, OfEqualMatrices) {
    constexpr int kRows = 264;
    constexpr int kColumns = 352;
    const Tensor weights[] = {random_tensor(WeightType::F16, kRows, kColumns),
                              random_tensor(WeightType::F16, kRows, kColumns),
                              random_tensor(WeightType::F16, kRows, kColumns)};
    for (const int n : {9, 64, 65, 300}) {
        const size_t size = static_cast<size_t>(n) * kRows;
        const std::vector<float> x = random_floats(static_cast<size_t>(n) * kColumns);
        const std::vector<float> before = random_floats(3 * size);
        const Buffer<float> device_x = upload(x);
        for (const bool add : {false, true}) {
            Buffer<float> y = upload(before);
            std::vector<Product> products;
            for (size_t i = 0; i < 3; ++i) {
                products.push_back({&weights[i], y.data() + i * size, add});
            }
            backend_->matmul(Rows::plain(device_x.data()), n, products);
            backend_->finish();
            const std::vector<float> all = download(y);
            for (size_t i = 0; i < 3; ++i) {
                const auto part = [&](const std::vector<float>& of) {
                    const auto first = of.begin() + static_cast<ptrdiff_t>(i * size);
                    return std::vector<float>(first, first + static_cast<ptrdiff_t>(size));
                };
                const std::vector<float> added = add ? part(before) : std::vector<float>();
                EXPECT_LT(product_error(weights[i], x, n, added, part(all)), 5e-4) << n << " rows of x, matrix " << i;
            }
        }
    }
}

// So many rows that every thread block of an H200 has more steps than quantized_wgmma has stages. The last tile of each
// matrix is not whole.
TEST_F(CudaProducts, OfManyRowsInQuantizedTiles) {
    for (const WeightType type : {WeightType::Q4_K, WeightType::Q5_K, WeightType::Q6_K, WeightType::Q8_0}) {
        compare_twice(type, 9000, 8192, {9, 20, 40, 65, 128});
    }
}

// With an unfinished chunk of 32.
TEST_F(CudaProducts, OfShortRowsDoNotDependOnTheBatch) {
    compare_batches({{264, 256, 256}});
}

// With empty segments, and long.
TEST_F(CudaProducts, OfOtherRowsDoNotDependOnTheBatch) {
    compare_batches({{72, 1024, 1024}, {11008, 11008, 11008}});
}

// Batches of a prompt's size: tiles of 256 tokens on GPUs with their shared memory, and two or four thread blocks for
// the tiles left over by the last wave of an H200.
TEST_F(CudaProducts, OfManyTokensDoNotDependOnTheBatch) {
    constexpr int kMost = 10900;
    constexpr int kPart = 128;
    constexpr int kColumns = 1056;  // segments of 9, 9, 9 and 6 chunks
    const Tensor first = random_tensor(WeightType::F16, 37, kColumns);
    const Tensor second = random_tensor(WeightType::F16, 270, kColumns);
    const std::vector<float> x = random_floats(static_cast<size_t>(kMost) * kColumns);
    const std::vector<float> before = random_floats(static_cast<size_t>(kMost) * 270);
    const Buffer<float> device_x = upload(x);
    // Rows [0, n), at most n_each at a time.
    const auto multiply = [&](int n, int n_each) {
        Buffer<float> y = upload(std::vector<float>(static_cast<size_t>(n) * 37, std::nanf("")));
        Buffer<float> added = upload({before.begin(), before.begin() + n * 270});
        for (int row = 0; row < n; row += n_each) {
            const Product products[] = {{&first, y.data() + row * 37}, {&second, added.data() + row * 270, true}};
            invariant_backend_->matmul(Rows::plain(device_x.data() + static_cast<size_t>(row) * kColumns),
                                       std::min(n_each, n - row), products);
        }
        invariant_backend_->finish();
        return std::pair{download(y), download(added)};
    };
    const auto parts = multiply(kMost, kPart);
    const auto known = multiply(kPart, kPart);
    EXPECT_LT(test::worse(product_error(first, x, kPart, {}, known.first),
                          product_error(second, x, kPart, before, known.second)),
              5e-4);
    EXPECT_TRUE(std::equal(known.second.begin(), known.second.end(), parts.second.begin()));
    for (const int n : {300, 2048, 8500, kMost}) {
        const auto whole = multiply(n, n);
        int n_different = 0;
        for (int i = 0; i < n * 37; ++i) {
            n_different += whole.first[i] != parts.first[i];
        }
        for (int i = 0; i < n * 270; ++i) {
            n_different += whole.second[i] != parts.second[i];
        }
        EXPECT_EQ(n_different, 0) << n << " rows of x";
    }
}

// So many rows that the tiles of few tokens fill an H200, and one tile is left over.
TEST_F(CudaProducts, OfManyRowsDoNotDependOnTheBatch) {
    constexpr int kMost = 70;
    constexpr int kRows = 25400;
    constexpr int kColumns = 264;
    for (const WeightType type : {WeightType::F16, WeightType::BF16}) {
        const Tensor weights = random_tensor(type, kRows, kColumns);
        const std::vector<float> x = random_floats(static_cast<size_t>(kMost) * kColumns);
        const Buffer<float> device_x = upload(x);
        const auto multiply = [&](int row, int n) {
            Buffer<float> y = upload(std::vector<float>(static_cast<size_t>(n) * kRows, std::nanf("")));
            const Product products[] = {{&weights, y.data()}};
            invariant_backend_->matmul(Rows::plain(device_x.data() + static_cast<size_t>(row) * kColumns), n, products);
            invariant_backend_->finish();
            return download(y);
        };
        const std::vector<float> whole = multiply(0, kMost);
        EXPECT_LT(product_error(weights, x, kMost, {}, whole), 5e-4);
        for (const int n : {1, 8, 9, 16, 17, 32, 33, 64}) {
            for (const int row : {0, kMost - n}) {
                const std::vector<float> part = multiply(row, n);
                EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<ptrdiff_t>(row) * kRows))
                    << weight_type_traits(type)->name << ", rows " << row << " + " << n;
            }
        }
    }
}

}  // namespace
}  // namespace lk
