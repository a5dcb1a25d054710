// The CUDA backend against the CPU: pages, attention, whole models. Without a GPU the tests are skipped.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>

#include "attention_oracle.h"
#include "backend/cpu/cpu_backend.h"
#include "kv/state.h"
#include "model/model.h"
#include "model_helpers.h"
#include "weight_rows.h"

namespace lk {
namespace {

using kv::Segment;
using kv::Side;
using test::kAllLengths;
using test::kAllTypes;
using test::Shape;
using test::Tokens;
using test::Whole;

// The demo model with its weights on the GPU; null without one.
const Model* gpu_model() {
    static const std::shared_ptr<const Model> model = []() -> std::shared_ptr<const Model> {
        try {
            return Model::load(test::demo_model_path(), true, -1, nullptr);
        } catch (const Error& e) {
            std::printf("no GPU: %s\n", e.what());
            return nullptr;
        }
    }();
    return model.get();
}

class Cuda : public testing::Test {
protected:
    void SetUp() override {
        if (gpu_model() == nullptr) {
            GTEST_SKIP() << "there is no usable GPU";
        }
        device_ = gpu_model()->device.get();
        backend_ = device_->make_backend();
    }

    Buffer<float> upload(const std::vector<float>& x) {
        Buffer<float> buffer(device_->memory(), x.size());
        device_->memory().write(buffer.data(), x.data(), buffer.bytes());
        return buffer;
    }

    // Stages tokens [begin, end) of one sequence at row 0; the pages are reserved.
    void stage(kv::Cache& cache, const Segment& segment, const Tokens& tokens, int begin, int end) {
        for (int layer = 0; layer < cache.config().n_layer; ++layer) {
            const auto rows = [&](const std::vector<float>& all) {
                return upload({all.begin() + static_cast<ptrdiff_t>(begin) * tokens.width,
                               all.begin() + static_cast<ptrdiff_t>(end) * tokens.width});
            };
            Buffer<float> k = rows(tokens.k[layer]);
            const Buffer<float> v = rows(tokens.v[layer]);
            if (layer == 0) {
                backend_->begin(cache, {&segment, 1});
            }
            backend_->stage({.cache = &cache, .layer = layer, .n = end - begin, .k = k.data(), .v = v.data()});
            backend_->finish();
        }
    }

    void append(kv::Cache& cache, int seq, const Tokens& tokens, int begin, int end) {
        const Segment segment{seq, 0, end - begin};
        cache.reserve({&segment, 1});
        stage(cache, segment, tokens, begin, end);
        backend_->stage_pages(cache, {&segment, 1}, cache.layers());
        backend_->commit(cache, {&segment, 1});
    }

    static std::vector<uint8_t> state(kv::Cache& cache, int seq = 0) {
        std::vector<uint8_t> bytes(kv::state_size(Whole(cache), seq));
        kv::save_state(Whole(cache), seq, {}, bytes);
        return bytes;
    }

    // One call of n_rows over n cached tokens.
    struct AttentionCase {
        Shape shape;
        int n_head;
        int n;
        int n_rows;
        int window;
        // What the host makes of it.
        Tokens tokens{shape, n + n_rows, static_cast<uint32_t>(31 * n + n_rows), 1};
        std::vector<float> q = queries(n_rows, n_head, shape.head_size);
        std::vector<uint8_t> cached = {};
        test::Expected expected = {};

        Segment segment() const { return {0, 0, n_rows}; }

        void prepare() {
            kv::Cache cpu(shape.config());
            if (n > 0) {
                test::append(cpu, 0, tokens, 0, n);
                cached = state(cpu);
            }
            test::stage(cpu, tokens, n, n + n_rows);
            const Segment one = segment();
            expected = test::expected_attention(cpu, {&one, 1}, q, n_head, 1 / std::sqrt(shape.head_size), window);
        }
    };

    // Largest error of the GPU's attention.
    double attention_error(const AttentionCase& c) {
        kv::Cache gpu(c.shape.config(), device_->memory());
        if (c.n > 0) {
            kv::load_state(Whole(gpu), 0, {}, c.cached);
        }
        const Segment segment = c.segment();
        gpu.reserve({&segment, 1});
        stage(gpu, segment, c.tokens, c.n, c.n + c.n_rows);
        const std::vector<float> actual = attend(gpu, {&segment, 1}, c.q, c.n_head, c.window);
        double worst = 0;
        for (size_t i = 0; i < actual.size(); ++i) {
            const double error = std::fabs(actual[i] - c.expected.out[i]) / c.expected.rms[i / c.shape.head_size];
            worst = test::worse(worst, error);
        }
        return worst;
    }

    static std::vector<float> queries(int n, int n_head, int d) {
        std::mt19937 random(5);
        std::normal_distribution<float> normal;
        std::vector<float> q(static_cast<size_t>(n) * n_head * d);
        for (float& x : q) {
            x = 0.5f * normal(random);
        }
        return q;
    }

    std::vector<float> attend(kv::Cache& gpu, std::span<const Segment> segments, const std::vector<float>& q,
                              int n_head, int window) {
        const int d = gpu.config().head_size;
        const float scale = 1.0f / std::sqrt(static_cast<float>(d));
        const Buffer<float> device_q = upload(q);
        Buffer<float> device_out = upload(std::vector<float>(q.size(), std::nanf("")));
        backend_->attention(
            {&gpu, segments, device_q.data(), device_out.data(), 0, n_head, scale, test::rotation(d), window});
        backend_->finish();
        std::vector<float> out(q.size());
        device_->memory().read(out.data(), device_out.data(), device_out.bytes());
        return out;
    }

    // Largest difference from the CPU's attention, in units of the outputs' size.
    double difference(const kv::Cache& cpu, kv::Cache& gpu, const Segment& segment, int n_head) {
        const int d = cpu.config().head_size;
        const std::vector<float> q = queries(segment.n_rows, n_head, d);
        const float scale = 1.0f / std::sqrt(static_cast<float>(d));
        std::vector<float> expected(q.size());
        make_cpu_backend(2)->attention(
            {&cpu, {&segment, 1}, q.data(), expected.data(), 0, n_head, scale, test::rotation(d), 0});
        const std::vector<float> actual = attend(gpu, {&segment, 1}, q, n_head, 0);
        double square = 0;
        for (const float x : expected) {
            square += static_cast<double>(x) * x / static_cast<double>(expected.size());
        }
        double worst = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
            const double error = std::fabs(actual[i] - expected[i]) / std::sqrt(square);
            worst = test::worse(worst, error);
        }
        return worst;
    }

    Device* device_ = nullptr;
    std::unique_ptr<Backend> backend_;
};

TEST_F(Cuda, PagesEqualTheCpus) {
    size_t n_bytes = 0;
    size_t n_different = 0;
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            for (const int d : {64, 80, 96, 128, 256}) {
                const Shape shape{
                    .type_k = type, .type_v = type, .lengths = lengths, .head_size = d, .n_layer = 2, .n_head_kv = 2};
                if (!shape.valid()) {
                    continue;
                }
                SCOPED_TRACE(shape.text());
                kv::Cache cpu(shape.config());
                kv::Cache gpu(shape.config(), device_->memory());
                const Tokens tokens(shape, 700, 3);
                int at = 0;
                for (const int n : {1, 3, 130, 1, 1, 200, 31, 300, 33}) {
                    test::append(cpu, 0, tokens, at, at + n);
                    append(gpu, 0, tokens, at, at + n);
                    at += n;
                }
                const std::vector<uint8_t> expected = state(cpu);
                const std::vector<uint8_t> actual = state(gpu);
                ASSERT_EQ(actual.size(), expected.size());
                size_t different = 0;
                for (size_t i = 0; i < expected.size(); ++i) {
                    different += actual[i] != expected[i];
                }
                EXPECT_LE(different, 8 + expected.size() / 1000);  // 8: the checksum
                n_bytes += expected.size();
                n_different += different > 8 ? different - 8 : 0;
            }
        }
    }
    std::printf("pages: %zu of %zu bytes differ from the CPU's\n", n_different, n_bytes);
}

// What attention may read of pages and tables before the commit is what it reads after it, layer by layer as all at
// once.
TEST_F(Cuda, StagedPagesAreTheCommittedOnes) {
    const auto fetch = [&](const uint8_t* data, size_t n) {
        std::vector<uint8_t> bytes(n);
        device_->memory().read(bytes.data(), data, n);
        return bytes;
    };
    size_t n_pages = 0;
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            const Shape shape{.type_k = type, .type_v = type, .lengths = lengths, .n_layer = 2, .n_head_kv = 2};
            SCOPED_TRACE(shape.text());
            kv::Cache once(shape.config(), device_->memory());
            kv::Cache gpu(shape.config(), device_->memory());
            const Tokens tokens(shape, 700, 4);
            int at = 0;
            for (const int n : {1, 90, 130, 1, 200, 31, 214, 33}) {
                append(once, 0, tokens, at, at + n);
                const std::vector<uint8_t> before = state(gpu);
                const Segment segment{0, 0, n};
                gpu.reserve({&segment, 1});
                stage(gpu, segment, tokens, at, at + n);
                for (int layer = 0; layer < shape.n_layer; ++layer) {
                    backend_->stage_pages(gpu, {&segment, 1}, {layer, layer + 1});
                }
                backend_->finish();
                EXPECT_EQ(state(gpu), before);
                struct Staged {
                    std::vector<std::vector<uint8_t>> pages;
                    std::vector<uint8_t> tables;
                };
                Staged staged[2];
                for (const Side side : {Side::keys, Side::values}) {
                    const kv::SequenceSide& s = gpu.sequence(0).side(side);
                    const kv::SideSpec& spec = gpu.spec(side);
                    Staged& to = staged[side == Side::values];
                    for (const kv::PageRef& run : s.staged_pages()) {
                        to.pages.push_back(fetch(run.block->data.data(), spec.block_bytes()));
                    }
                    to.tables = fetch(s.staged_tables(), spec.head_count() * spec.table_bytes());
                }
                backend_->commit(gpu, {&segment, 1});
                backend_->finish();
                for (const Side side : {Side::keys, Side::values}) {
                    const kv::SequenceSide& s = gpu.sequence(0).side(side);
                    const kv::SideSpec& spec = gpu.spec(side);
                    const Staged& was = staged[side == Side::values];
                    const auto last = s.pages().last(was.pages.size());
                    for (size_t i = 0; i < last.size(); ++i) {
                        EXPECT_EQ(fetch(last[i].block->data.data(), spec.block_bytes()), was.pages[i]);
                        ++n_pages;
                    }
                    EXPECT_EQ(fetch(s.tables(), was.tables.size()), was.tables);
                }
                EXPECT_EQ(state(gpu), state(once));
                at += n;
            }
        }
    }
    EXPECT_GT(n_pages, 100u);
}

// In units of the values' size. Queries, probabilities and the values of codes are rounded to halves; with one query
// row, what is multiplied with codes to 8 bits, as on the CPU.
TEST_F(Cuda, AttentionIsThatOfTheRowsTheCacheMeans) {
    struct Heads {
        int n_head, n_head_kv;
    };
    double worst[LK_CACHE_TYPE_COUNT] = {};
    std::deque<AttentionCase> cases;
    // The host's part of many at once.
    const auto measure_all = [&] {
        test::team().parallel_for(static_cast<int>(cases.size()), [&](int i, int) { cases[i].prepare(); });
        for (const AttentionCase& c : cases) {
            const lk_cache_type type_k = c.shape.type_k;
            const double error = attention_error(c);
            worst[type_k] = test::worse(worst[type_k], error);
            EXPECT_LT(error, type_k == LK_CACHE_F16 && c.shape.type_v == LK_CACHE_F16 ? 4e-3 : 0.02)
                << c.shape.text() << ", heads " << c.n_head << "/" << c.shape.n_head_kv << ", cached " << c.n
                << ", rows " << c.n_rows << ", window " << c.window;
        }
        cases.clear();
    };
    for (const lk_cache_type type_k : kAllTypes) {
        for (const lk_cache_type type_v : kAllTypes) {
            if (type_k != type_v && kv::is_paper(type_k) != kv::is_paper(type_v)) {
                continue;
            }
            for (const int d : {64, 80, 96, 128, 256}) {
                for (const Heads heads : {Heads{2, 2}, Heads{4, 1}, Heads{16, 2}, Heads{9, 1}}) {
                    for (const int n : {0, 1, 127, 160, 300, 700}) {
                        for (const int n_rows : {1, 3, 5, 150}) {
                            if (n_rows > 5 && n != 0 && n != 300) {
                                continue;
                            }
                            Shape shape{.type_k = type_k,
                                        .type_v = type_v,
                                        .lengths = kAllLengths[(n + d) % std::size(kAllLengths)],
                                        .head_size = d,
                                        .n_head_kv = heads.n_head_kv,
                                        .n_ubatch = 1024};
                            if (!shape.valid()) {
                                continue;
                            }
                            cases.push_back({shape, heads.n_head, n, n_rows, n == 300 ? 150 : 0});
                            if (cases.size() == 256) {
                                measure_all();
                            }
                        }
                    }
                }
            }
        }
    }
    measure_all();
    for (const lk_cache_type type : kAllTypes) {
        std::printf("attention, keys %s: worst difference %.2g\n", lk_cache_type_name(type), worst[type]);
    }
}

// After cuts and shifts: runs of pages in other frames.
TEST_F(Cuda, AttentionOverTokensThatMoved) {
    for (const lk_cache_type type : kAllTypes) {
        const Shape shape{.type_k = type, .type_v = type, .n_head_kv = 2};
        for (const auto& [begin, end] : {std::pair{1, 3}, {10, 50}, {128, 256}, {100, 420}, {300, 600}}) {
            kv::Cache cpu(shape.config());
            kv::Cache gpu(shape.config(), device_->memory());
            const Tokens tokens(shape, 705, 9, 1);
            test::append(cpu, 0, tokens, 0, 700);
            kv::load_state(Whole(gpu), 0, {}, state(cpu));
            cpu.remove(0, begin, end, test::rotation(64));
            gpu.remove(0, begin, end, test::rotation(64));
            ASSERT_EQ(state(gpu), state(cpu));
            test::stage(cpu, tokens, 700, 703);
            const Segment segment{0, 0, 3};
            gpu.reserve({&segment, 1});
            stage(gpu, segment, tokens, 700, 703);
            EXPECT_LT(difference(cpu, gpu, segment, 4), type == LK_CACHE_F16 ? 4e-3
                                                        : kv::is_paper(type) ? 0.15
                                                                             : 0.05)
                << shape.text() << ", removed " << begin << " to " << end;
        }
    }
}

// ---- operations

class CudaOperations : public Cuda {
protected:
    std::vector<float> download(const Buffer<float>& buffer) {
        std::vector<float> out(buffer.size());
        device_->memory().read(out.data(), buffer.data(), buffer.bytes());
        return out;
    }

    std::vector<float> random_floats(size_t n) {
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        for (float& v : x) {
            v = normal(random_);
        }
        return x;
    }

    // Weights that stay where they are, for the device knows them by that.
    Tensor random_tensor(WeightType type, int64_t n_rows, int64_t n_cols) {
        static std::deque<std::vector<uint8_t>> kept;
        kept.push_back(test::draw_weights(type, n_rows * n_cols, random_));
        device_->upload(kept.back().data(), kept.back().size());
        return {type, kept.back().data(), n_cols, n_rows, kept.back().size() / n_rows};
    }

    const float* kept_floats(size_t n) {
        static std::deque<std::vector<float>> kept;
        kept.push_back(random_floats(n));
        device_->upload(kept.back().data(), n * sizeof(float));
        return kept.back().data();
    }

    static std::vector<float> floats_of(const Tensor& w) {
        std::vector<float> out(w.n_rows * w.n_cols);
        for (int64_t i = 0; i < w.n_rows; ++i) {
            dequantize_row(w.type, w.data + i * w.row_bytes, out.data() + i * w.n_cols, w.n_cols);
        }
        return out;
    }

    // Largest error of y[n, n_out] = x[n, n_in] W^T + before, each in units of |row of W| |row of x|.
    static double product_error(const Tensor& w, const std::vector<float>& x, int n, const std::vector<float>& before,
                                const std::vector<float>& y) {
        const std::vector<float> weights = floats_of(w);
        std::vector<double> worst(w.n_rows);
        test::team().parallel_for(static_cast<int>(w.n_rows), [&](int j, int) {
            for (int64_t i = 0; i < n; ++i) {
                double sum = before.empty() ? 0 : before[i * w.n_rows + j];
                double of_w = 0;
                double of_x = 0;
                for (int64_t k = 0; k < w.n_cols; ++k) {
                    const double a = weights[j * w.n_cols + k];
                    const double b = x[i * w.n_cols + k];
                    sum += a * b;
                    of_w += a * a;
                    of_x += b * b;
                }
                const double error = std::fabs(y[i * w.n_rows + j] - sum) / std::sqrt(of_w * of_x);
                worst[j] = test::worse(worst[j], error);
            }
        });
        double all = 0;
        for (const double error : worst) {
            all = test::worse(all, error);
        }
        return all;
    }

    static double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
        double worst = 0;
        for (size_t i = 0; i < a.size(); ++i) {
            const double error = std::fabs(static_cast<double>(a[i]) - b[i]) / (1 + std::fabs(b[i]));
            worst = test::worse(worst, error);
        }
        return worst;
    }

    std::mt19937 random_{7};
    std::unique_ptr<Backend> cpu_ = make_cpu_backend(2);
};

// One column: vectors in 8 bits where the weights have few. More: halves.
TEST_F(CudaOperations, Products) {
    for (const WeightType type : test::kWeightTypes) {
        const char* const name = weight_type_traits(type)->name;
        double worst = 0;
        double worst_vector = 0;
        for (const int n_cols : {256, 2304, 16384}) {
            const Tensor first = random_tensor(type, 37, n_cols);
            const Tensor second = random_tensor(type, 130, n_cols);
            for (const int n : {1, 2, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 300}) {
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
                EXPECT_LT(error, n == 1 ? 2e-3 : 5e-4) << name << ", " << n_cols << " columns, " << n << " rows of x";
            }
        }
        std::printf("products, %s: worst error %.2g, of one column %.2g\n", name, worst, worst_vector);
    }
}

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

// Every form, by itself and on the way into products of one column and of several.
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

TEST_F(CudaOperations, Sampling) {
    int n_drawn = 0;
    int n_different = 0;
    for (const int n_vocab : {100, 32000, 128256}) {
        constexpr int n = 40;
        std::vector<float> logits = random_floats(static_cast<size_t>(n) * n_vocab);
        std::for_each(logits.begin(), logits.end(), [](float& x) { x *= 3; });
        const Buffer<float> device_logits = upload(logits);
        std::vector<double> draws(n);
        for (int i = 0; i < n; ++i) {
            draws[i] = (i + 0.5) / n;
        }
        for (const lk_sampling& sampling : {lk_sampling{0, 0, 1, 0, 0}, lk_sampling{1, 0, 1, 0, 0},
                                            lk_sampling{0.7f, 40, 1, 0, 0}, lk_sampling{1, 0, 0.9f, 0, 0},
                                            lk_sampling{1, 0, 1, 0.05f, 0}, lk_sampling{1.2f, 1000, 0.95f, 0.01f, 0}}) {
            std::vector<int32_t> actual(n, -1);
            std::vector<int32_t> expected(n, -1);
            backend_->sample(device_logits.data(), n, n_vocab, sampling, draws.data(), actual.data());
            backend_->finish();
            cpu_->sample(logits.data(), n, n_vocab, sampling, draws.data(), expected.data());
            for (int i = 0; i < n; ++i) {
                n_different += actual[i] != expected[i];
                EXPECT_TRUE(sampling.temperature > 0 || actual[i] == expected[i]);
            }
            n_drawn += n;
        }
    }
    std::printf("tokens drawn: %d of %d differ from the CPU's\n", n_different, n_drawn);
    EXPECT_LE(n_different, n_drawn / 100);
}

TEST_F(CudaOperations, RotationAndStaging) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_Q8_0}) {
        for (const int d : {64, 80, 96, 128, 256}) {
            for (const RopePairs pairs : {RopePairs::adjacent, RopePairs::halves}) {
                for (const int n_rot : {d, d / 2}) {
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
                    backend_->begin(gpu, {&segment, 1});
                    backend_->stage({&gpu, 0, n, n_head, n_rot, pairs, device_angles.data(), device_q.data(),
                                     device_k.data(), device_v.data()});
                    backend_->finish();
                    cpu.reserve({&segment, 1});
                    cpu_->stage({&cpu, 0, n, n_head, n_rot, pairs, angles.data(), q.data(), k.data(), v.data()});
                    EXPECT_EQ(download(device_q), q);
                    EXPECT_EQ(download(device_k), k);
                    for (const Side side : {Side::keys, Side::values}) {
                        const size_t count = static_cast<size_t>(2) * shape.config().n_ubatch * d;
                        std::vector<half_t> staged(count);
                        device_->memory().read(staged.data(), gpu.staged(side), count * sizeof(half_t));
                        for (int head = 0; head < 2; ++head) {
                            const size_t at = static_cast<size_t>(head) * shape.config().n_ubatch * d;
                            EXPECT_EQ(std::memcmp(&staged[at], cpu.staged(side) + at, n * d * sizeof(half_t)), 0);
                        }
                    }
                }
            }
        }
    }
}

// ---- whole models, through the C interface

// The model with its weights in halves, so that the CPU leaves activations in float, as the GPU does.
std::string in_halves(const std::string& from, const char* name) {
    std::string to = testing::TempDir() + name;
    lk_quantize_params params;
    lk_quantize_params_default(&params);
    params.type = "F16";
    EXPECT_EQ(lk_quantize(from.c_str(), to.c_str(), &params, nullptr), LK_OK) << lk_last_error();
    return to;
}

const std::string& exact_demo_path() {
    static const std::string path = in_halves(test::demo_model_path(), "llama-kivi-demo-f16.gguf");
    return path;
}

lk_model* load(const std::string& path, int n_gpu_layers) {
    lk_model_params params;
    lk_model_params_default(&params);
    params.n_gpu_layers = n_gpu_layers;
    lk_model* model = nullptr;
    EXPECT_EQ(lk_model_load(path.c_str(), &params, &model), LK_OK) << lk_last_error();
    return model;
}

void move_state(lk_context* from, lk_context* to, int32_t seq) {
    uint64_t size = 0;
    ASSERT_EQ(lk_seq_state_size(from, seq, &size), LK_OK) << lk_last_error();
    std::vector<uint8_t> state(size);
    ASSERT_EQ(lk_seq_state_get(from, seq, state.data(), size), LK_OK) << lk_last_error();
    ASSERT_EQ(lk_seq_state_set(to, seq, state.data(), size), LK_OK) << lk_last_error();
}

class CudaModel : public testing::Test {
protected:
    void SetUp() override {
        if (gpu_model() == nullptr) {
            GTEST_SKIP() << "there is no usable GPU";
        }
        static lk_model* const gpu = load(exact_demo_path(), -1);
        static lk_model* const cpu = load(exact_demo_path(), 0);
        model_ = gpu;
        cpu_model_ = cpu;
    }

    // In units of the logits' spread. Quantized caches drift where a code falls otherwise.
    static double tolerance(lk_cache_type type) {
        return type == LK_CACHE_F16                                    ? 0.02
               : type == LK_CACHE_Q4_0 || type == LK_CACHE_KIVI2_PAPER ? 0.8
               : type == LK_CACHE_KIVI2                                ? 0.4
                                                                       : 0.2;
    }

    lk_model* model_ = nullptr;      // on the GPU
    lk_model* cpu_model_ = nullptr;  // the same on the CPU
};

// The largest difference of logits over a text, a prompt of it at once and then token by token.
double logits_difference(lk_model* gpu_model, lk_model* cpu_model, lk_cache_type type) {
    test::TestContext cpu(test::small_params(type), cpu_model);
    test::TestContext gpu(test::small_params(type), gpu_model);
    const std::vector<int32_t> text = test::text_tokens(220);
    const std::vector<int32_t> prompt(text.begin(), text.end() - 20);
    double worst = test::distance(gpu.run(prompt), cpu.run(prompt));
    for (int i = 200; i < 220; ++i) {
        worst = test::worse(worst, test::distance(gpu.run({text[i]}), cpu.run({text[i]})));
    }
    return worst;
}

TEST_F(CudaModel, LogitsEqualTheCpus) {
    for (const lk_cache_type type : kAllTypes) {
        const double worst = logits_difference(model_, cpu_model_, type);
        std::printf("logits, %s: worst difference %.3g of their spread\n", lk_cache_type_name(type), worst);
        EXPECT_LT(worst, tolerance(type)) << lk_cache_type_name(type);
    }
}

// "The garbage collector", and the likeliest token 64 times.
TEST_F(CudaModel, GreedyTextEqualsTheCpus) {
    const auto write = [](lk_model* model, lk_cache_type type) {
        test::TestContext context(test::small_params(type), model);
        std::vector<int32_t> text = {16380, 486, 10282, 15156};
        test::Logits logits = context.run(text);
        for (int i = 0; i < 64; ++i) {
            text.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
            logits = context.run({text.back()});
        }
        return text;
    };
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2}) {
        const std::vector<int32_t> expected = write(cpu_model_, type);
        const std::vector<int32_t> actual = write(model_, type);
        const auto parted = std::mismatch(expected.begin(), expected.end(), actual.begin()).first;
        std::printf("greedy text, %s: %d of 64 tokens are the CPU's\n", lk_cache_type_name(type),
                    static_cast<int>(parted - expected.begin()) - 4);
        EXPECT_EQ(actual, expected) << lk_cache_type_name(type);
    }
}

// LLAMA_KIVI_FALCON: a falcon model with the demo model's vocabulary.
TEST_F(CudaModel, LogitsOfFalconEqualTheCpus) {
    const char* const path = std::getenv("LLAMA_KIVI_FALCON");
    if (path == nullptr) {
        GTEST_SKIP() << "LLAMA_KIVI_FALCON names no file";
    }
    const std::string exact = in_halves(path, "llama-kivi-falcon-f16.gguf");
    lk_model* const gpu = load(exact, -1);
    lk_model* const cpu = load(exact, 0);
    for (const lk_cache_type type : kAllTypes) {
        const double worst = logits_difference(gpu, cpu, type);
        std::printf("logits of falcon, %s: worst difference %.3g of their spread\n", lk_cache_type_name(type), worst);
        EXPECT_LT(worst, tolerance(type)) << lk_cache_type_name(type);
    }
    lk_model_free(gpu);
    lk_model_free(cpu);
}

// The other layers are the CPU's. What a conversation's state is does not depend on that.
TEST_F(CudaModel, SomeLayersOnTheGpu) {
    for (const int n_gpu_layers : {1, 5, 9}) {
        lk_model* const split = load(exact_demo_path(), n_gpu_layers);
        for (const lk_cache_type type : kAllTypes) {
            SCOPED_TRACE(format("%d layers, %s", n_gpu_layers, lk_cache_type_name(type)));
            EXPECT_LT(logits_difference(split, cpu_model_, type), tolerance(type));
            test::TestContext part(test::small_params(type), split);
            test::TestContext whole(test::small_params(type), model_);
            part.run(test::text_tokens(200));
            ASSERT_EQ(lk_seq_copy(part.get(), 0, 1), LK_OK) << lk_last_error();
            ASSERT_EQ(lk_seq_remove(part.get(), 1, 20, 90), LK_OK) << lk_last_error();
            ASSERT_EQ(lk_seq_truncate(part.get(), 0, 150), LK_OK) << lk_last_error();
            for (const int seq : {0, 1}) {
                move_state(part.get(), whole.get(), seq);
                EXPECT_LT(test::distance(part.run(test::text_tokens(9), seq), whole.run(test::text_tokens(9), seq)),
                          tolerance(type));
            }
        }
        lk_model_free(split);
    }
}

TEST_F(CudaModel, StatesMoveBetweenCpuAndGpu) {
    for (const lk_cache_type type : kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        test::TestContext cpu(test::small_params(type), cpu_model_);
        test::TestContext gpu(test::small_params(type), model_);
        test::TestContext again(test::small_params(type), model_);
        gpu.run(test::text_tokens(180));
        move_state(gpu.get(), cpu.get(), 0);
        move_state(cpu.get(), again.get(), 0);
        const test::Logits expected = gpu.run({7});
        EXPECT_LT(test::distance(cpu.run({7}), expected), type == LK_CACHE_Q4_0 ? 0.2 : 0.06);
        EXPECT_EQ(again.run({7}), expected) << "the same bits on the same device";
    }
}

// 300 sequences of 1 to 280 tokens, so that some end before, on and behind the borders of pages.
TEST_F(CudaModel, SequencesOfABatchDoNotMix) {
    constexpr int n_seq = 300;
    lk_context_params params = test::small_params(LK_CACHE_F16);
    params.n_seq_max = n_seq;
    params.n_ctx = n_seq * 384;
    test::TestContext together(params, model_);
    test::TestContext apart(params, model_);
    std::vector<int32_t> tokens;
    std::vector<int32_t> seqs;
    std::vector<int32_t> next;
    std::vector<test::Logits> expected;
    for (int s = 0; s < n_seq; ++s) {
        const std::vector<int32_t> text = test::text_tokens(1 + s * 37 % 280);
        tokens.insert(tokens.end(), text.begin(), text.end());
        seqs.insert(seqs.end(), text.size(), s);
        apart.run(text, s);
        expected.push_back(apart.run({s}, s));
        next.push_back(s);
    }
    lk_batch batch{tokens.data(), nullptr, seqs.data(), nullptr, nullptr, static_cast<uint32_t>(tokens.size())};
    ASSERT_EQ(lk_decode(together.get(), &batch), LK_OK) << lk_last_error();
    const std::vector<uint8_t> outputs(n_seq, 1);
    batch = {next.data(), nullptr, next.data(), nullptr, outputs.data(), n_seq};
    ASSERT_EQ(lk_decode(together.get(), &batch), LK_OK) << lk_last_error();
    for (int s = 0; s < n_seq; ++s) {
        EXPECT_LT(test::distance(together.logits(s), expected[s]), 0.02) << "sequence " << s;
    }
}

TEST_F(CudaModel, DrawsTokensOnTheDevice) {
    test::TestContext gpu(test::small_params(LK_CACHE_F16), model_);
    test::TestContext cpu(test::small_params(LK_CACHE_F16), cpu_model_);
    const std::vector<int32_t> text = test::text_tokens(60);
    for (const lk_sampling& sampling : {lk_sampling{0, 0, 1, 0, 0}, lk_sampling{1, 50, 0.9f, 0, 3}}) {
        int same = 0;
        int32_t next[2] = {text[0], text[0]};
        for (int i = 0; i < 60; ++i) {
            const lk_batch batch{&text[i], nullptr, nullptr, nullptr, nullptr, 1};
            ASSERT_EQ(lk_decode_sample(gpu.get(), &batch, &sampling, &next[0]), LK_OK) << lk_last_error();
            ASSERT_EQ(lk_decode_sample(cpu.get(), &batch, &sampling, &next[1]), LK_OK) << lk_last_error();
            same += next[0] == next[1];
        }
        EXPECT_GE(same, 58);
    }
}

TEST_F(CudaModel, SequenceOperations) {
    for (const lk_cache_type type : kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        test::TestContext gpu(test::small_params(type), model_);
        test::TestContext cpu(test::small_params(type), cpu_model_);
        for (test::TestContext* c : {&gpu, &cpu}) {
            c->run(test::text_tokens(200));
            ASSERT_EQ(lk_seq_copy(c->get(), 0, 1), LK_OK) << lk_last_error();
            ASSERT_EQ(lk_seq_truncate(c->get(), 0, 150), LK_OK) << lk_last_error();
            ASSERT_EQ(lk_seq_remove(c->get(), 1, 20, 90), LK_OK) << lk_last_error();
        }
        EXPECT_LT(test::distance(gpu.run(test::text_tokens(40)), cpu.run(test::text_tokens(40))), tolerance(type));
        EXPECT_LT(test::distance(gpu.run(test::text_tokens(40), 1), cpu.run(test::text_tokens(40), 1)),
                  tolerance(type));
    }
}

TEST_F(CudaModel, TooLittleMemoryIsAnErrorThatLosesNothing) {
    test::TestContext context(test::small_params(), model_);
    const test::Logits before = context.run(test::make_tokens(100));
    lk_context_params params = test::small_params();
    params.n_seq_max = 60000;
    params.cache.residual = 8192;
    lk_context* large = nullptr;
    test::expect_failure(lk_context_create(model_, &params, &large), LK_OUT_OF_DEVICE_MEMORY, {"MiB asked", "free"});
    EXPECT_EQ(large, nullptr);
    uint64_t needed = 0;
    uint64_t available = 0;
    lk_last_error_amounts(&needed, &available);
    EXPECT_GT(needed + (64 << 20), available);  // what is free may lie in pieces
    EXPECT_EQ(context.decode({1}), LK_OK) << lk_last_error();
}

}  // namespace
}  // namespace lk
