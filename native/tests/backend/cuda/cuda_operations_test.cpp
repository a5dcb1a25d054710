// The CUDA backend's other operations against the CPU's. Without a GPU the tests are skipped.
#include "support/cuda_helpers.h"
#include "support/samplings.h"

namespace lk {
namespace {

TEST_F(CudaOperations, RowsOfTables) {
    for (const WeightType type : test::kWeightTypes) {
        const Tensor table = random_tensor(type, 40, 512);
        const int32_t tokens[] = {3, 0, 39, 3, 17};
        Buffer<float> out(device_->memory(), std::size(tokens) * 512);
        backend_->embed(table, tokens, std::size(tokens), out.data());
        backend_->finish();
        std::vector<float> expected(out.size());
        cpu_->embed(table, tokens, std::size(tokens), expected.data());
        EXPECT_LT(worst_difference(download(out), expected), 1e-5) << weight_type_traits(type)->name;
    }
}

// Every form of lazy rows: evaluated alone, and as the input of matmuls with one token and with several.
TEST_F(CudaOperations, RowsAreMade) {
    for (const int dim : {64, 576, 4544, 8192, 11008}) {
        const float* const weight = kept_floats(dim);
        const float* const bias = kept_floats(dim);
        const Tensor halves = random_tensor(WeightType::F16, 24, dim);
        const Tensor codes = random_tensor(WeightType::Q8_0, 40, dim);
        for (const int n : {1, 3, 300}) {
            const std::vector<float> x = random_floats(static_cast<size_t>(n) * dim);
            const std::vector<float> up = random_floats(x.size());
            const Buffer<float> device_x = upload(x);
            const Buffer<float> device_up = upload(up);
            const auto forms = [&](const float* a, const float* b) {
                return std::vector<Rows>{Rows::plain(a), Rows::rms_norm(a, weight, 1e-5f),
                                         Rows::layer_norm(a, weight, bias, 1e-5f), Rows::swiglu(a, b), Rows::gelu(a)};
            };
            const std::vector<Rows> there = forms(device_x.data(), device_up.data());
            const std::vector<Rows> here = forms(x.data(), up.data());
            for (size_t i = 0; i < here.size(); ++i) {
                SCOPED_TRACE(format("form %zu, %d rows of %d", i, n, dim));
                std::vector<float> expected(x.size());
                cpu_->make(here[i], n, dim, expected.data());
                Buffer<float> made = upload(std::vector<float>(x.size(), std::nanf("")));
                Buffer<float> y = upload(std::vector<float>(n * 24, std::nanf("")));
                Buffer<float> z = upload(std::vector<float>(n * 40, std::nanf("")));
                const Product products[] = {{&halves, y.data()}, {&codes, z.data()}};
                backend_->make(there[i], n, dim, made.data());
                backend_->matmul(there[i], n, products);
                backend_->finish();
                EXPECT_LT(worst_difference(download(made), expected), 1e-5);
                EXPECT_LT(product_error(halves, expected, n, {}, download(y)), 5e-4);
                EXPECT_LT(product_error(codes, expected, n, {}, download(z)), n == 1 ? 4e-3 : 5e-4);
            }
        }
    }
}

// Many rows take another kernel than few; both add in the same order.
TEST_F(CudaOperations, NormsOfARowDoNotDependOnTheOtherRows) {
    for (const int dim : {64, 1184, 4096, 4544, 11008}) {
        const float* const weight = kept_floats(dim);
        const float* const bias = kept_floats(dim);
        constexpr int n = 200;
        const Buffer<float> x = upload(random_floats(static_cast<size_t>(n) * dim));
        for (const bool rms : {true, false}) {
            SCOPED_TRACE(format("%s, rows of %d", rms ? "rms_norm" : "layer_norm", dim));
            const auto made = [&](int first, int count) {
                const float* const from = x.data() + static_cast<size_t>(first) * dim;
                Buffer<float> out(device_->memory(), static_cast<size_t>(count) * dim);
                backend_->make(rms ? Rows::rms_norm(from, weight, 1e-5f) : Rows::layer_norm(from, weight, bias, 1e-5f),
                               count, dim, out.data());
                backend_->finish();
                return download(out);
            };
            const std::vector<float> all = made(0, n);
            for (const int row : {0, 77, n - 1}) {
                const std::vector<float> alone = made(row, 1);
                EXPECT_EQ(std::memcmp(alone.data(), &all[static_cast<size_t>(row) * dim], alone.size() * sizeof(float)),
                          0);
            }
        }
    }
}

TEST_F(CudaOperations, Sampling) {
    int n_drawn = 0;
    int n_different = 0;
    for (const int n_vocab : {100, 32000, 128256}) {
        constexpr int n = 40;
        std::vector<float> logits = random_floats(static_cast<size_t>(n) * n_vocab);
        std::for_each(logits.begin(), logits.end(), [](float& x) { x *= 3; });
        const std::vector<lk_token_count> recent{{3, 1}, {17, 4}, {99, 2}};
        // Ties at the limits of the filters.
        for (size_t i = 0; i < logits.size(); i += 7) {
            logits[i] = std::round(logits[i] * 4) / 4;
        }
        for (const lk_sampling& kind :
             {test::sampling_of(0), test::sampling_of(1), test::sampling_of(0.7f, 40), test::sampling_of(1, 0, 0.9f),
              test::sampling_of(1, 0, 1, 0.05f), test::sampling_of(1.2f, 3000, 0.95f, 0.01f),
              test::sampling_of(1, 1, 0.5f), test::penalized(test::sampling_of(0), 1.3f, 0.5f, 0.25f, 3),
              test::penalized(test::sampling_of(0.8f, 40, 0.95f, 0.05f), 1.1f, 0, 0.5f, 3)}) {
            std::vector<lk_sampling> samplings(n, kind);
            for (int i = 0; i < n; ++i) {
                samplings[i].draw = (i + 0.5) / n;
                samplings[i].recent = recent.data();
            }
            samplings[n / 2].keep_logits = 1;
            Buffer<float> device_logits = upload(logits);
            std::vector<float> host_logits = logits;
            std::vector<int32_t> actual(n, -1);
            std::vector<int32_t> expected(n, -1);
            backend_->sample(device_logits.data(), n, n_vocab, samplings.data(), actual.data());
            backend_->finish();
            cpu_->sample(host_logits.data(), n, n_vocab, samplings.data(), expected.data());
            for (int i = 0; i < n; ++i) {
                n_different += actual[i] != expected[i];
                EXPECT_TRUE(kind.temperature > 0 || actual[i] == expected[i]);
            }
            n_drawn += n;
        }
    }
    std::printf("tokens drawn: %d of %d differ from the CPU's\n", n_different, n_drawn);
    EXPECT_LE(n_different, n_drawn / 100);
}

TEST_F(CudaOperations, RotationAndStaging) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_F32, LK_CACHE_KIVI2, LK_CACHE_Q8_0}) {
        for (const int d : {64, 80, 96, 128, 160, 256}) {
            for (const RopePairs pairs : {RopePairs::adjacent, RopePairs::halves}) {
                for (const int n_rot : {d, d / 2, 20}) {  // 20: four channels may belong to different halves
                    const Shape shape{.type_k = type, .type_v = type, .head_size = d, .n_head_kv = 2};
                    if (!shape.valid()) {
                        continue;
                    }
                    SCOPED_TRACE(shape.text());
                    constexpr int n = 5;
                    constexpr int n_head = 6;
                    kv::Cache cpu(shape.config());
                    kv::Cache gpu(shape.config(), device_->memory());
                    const Segment segment{0, 0, n};
                    std::vector<float> q = random_floats(static_cast<size_t>(n) * n_head * d);
                    std::vector<float> k = random_floats(static_cast<size_t>(n) * 2 * d);
                    const std::vector<float> v = random_floats(k.size());
                    const std::vector<float> angles = random_floats(static_cast<size_t>(n) * n_rot);
                    Buffer<float> device_q = upload(q);
                    Buffer<float> device_k = upload(k);
                    const Buffer<float> device_v = upload(v);
                    const Buffer<float> device_angles = upload(angles);
                    gpu.reserve({&segment, 1});
                    pass_ = backend_->begin(gpu, {&segment, 1}, nullptr);
                    backend_->stage({&gpu, 0, n, n_head, n_rot, pairs, device_angles.data(), device_q.data(),
                                     device_k.data(), device_v.data(), pass_.get()});
                    backend_->finish();
                    cpu.reserve({&segment, 1});
                    cpu_->stage({&cpu, 0, n, n_head, n_rot, pairs, angles.data(), q.data(), k.data(), v.data()});
                    EXPECT_EQ(download(device_q), q);
                    EXPECT_EQ(download(device_k), k);
                    for (const Side side : {Side::keys, Side::values}) {
                        const kv::SideSpec& spec = cpu.spec(side);
                        // Rows of a head in a staging buffer [head, n_ubatch, row_bytes].
                        const auto expect_equal = [&](const void* on_gpu, const void* on_cpu, size_t row_bytes) {
                            const size_t head_bytes = shape.config().n_ubatch * row_bytes;
                            std::vector<uint8_t> rows(2 * head_bytes);
                            device_->memory().read(rows.data(), on_gpu, rows.size());
                            for (int head = 0; head < 2; ++head) {
                                EXPECT_EQ(
                                    std::memcmp(&rows[head * head_bytes],
                                                static_cast<const uint8_t*>(on_cpu) + head * head_bytes, n * row_bytes),
                                    0);
                            }
                        };
                        expect_equal(gpu.staged(side), cpu.staged(side), spec.staged_width() * sizeof(half_t));
                        if (spec.ring_in_blocks()) {
                            expect_equal(gpu.staged_blocks(side), cpu.staged_blocks(side), spec.ring_row_bytes());
                        }
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace lk
