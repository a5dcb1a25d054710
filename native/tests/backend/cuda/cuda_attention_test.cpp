// The CUDA backend's attention against the CPU's. Without a GPU the tests are skipped.
#include "support/cuda_helpers.h"
#include "support/recipe_shapes.h"

namespace lk {
namespace {

struct Heads {
    int n_head, n_head_kv;
};
constexpr Heads kHeads[] = {{2, 2}, {4, 1}, {16, 2}, {9, 1}};
constexpr int kHeadSizes[] = {64, 80, 96, 128, 256};

// Compares cases with the oracle and prints the largest error of each type of keys.
class CudaAttention : public Cuda {
protected:
    void add(const std::string& name, Shape shape, Heads heads, int n, int n_rows, int window) {
        shape.n_head_kv = heads.n_head_kv;
        shape.n_layer = 1;
        if (!shape.valid()) {
            return;
        }
        cases_.push_back({shape, heads.n_head, n, n_rows, window});
        names_.push_back(name);
        if (cases_.size() == 256) {
            measure();
            std::printf("attention: %zu cases\n", n_cases_);
            std::fflush(stdout);
        }
    }

    // Prepares the cases on the host in parallel.
    void measure() {
        test::team().parallel_for(static_cast<int>(cases_.size()), [&](int i, int) { cases_[i].prepare(); });
        for (size_t i = 0; i < cases_.size(); ++i) {
            const AttentionCase& c = cases_[i];
            const lk_cache_type type_k = c.shape.type_k;
            const double error = attention_error(c);
            worst_[type_k] = test::worse(worst_[type_k], error);
            EXPECT_LT(error, type_k == LK_CACHE_F16 && c.shape.type_v == LK_CACHE_F16 ? 4e-3 : 0.02)
                << names_[i] << ", D " << c.shape.head_size << ", heads " << c.n_head << "/" << c.shape.n_head_kv
                << ", cached " << c.n << ", rows " << c.n_rows << ", window " << c.window;
        }
        n_cases_ += cases_.size();
        cases_.clear();
        names_.clear();
    }

    void report() {
        measure();
        for (const lk_cache_type type : kAllTypes) {
            std::printf("attention, keys %s: worst difference %.2g\n", lk_cache_type_name(type), worst_[type]);
        }
        std::printf("attention: %zu cases\n", n_cases_);
    }

private:
    std::deque<AttentionCase> cases_;
    std::vector<std::string> names_;
    double worst_[LK_CACHE_TYPE_COUNT] = {};
    size_t n_cases_ = 0;
};

// Errors relative to the magnitude of the values. Queries, probabilities and dequantized values are rounded to half;
// with one query row, folded queries and probabilities are rounded to 8 bits, as on the CPU.
TEST_F(CudaAttention, IsThatOfTheRowsTheCacheMeans) {
    int turn = 0;
    for (const lk_cache_type type_k : kAllTypes) {
        for (const lk_cache_type type_v : kAllTypes) {
            if (type_k != type_v && kv::is_paper(type_k) != kv::is_paper(type_v)) {
                continue;
            }
            for (const int d : kHeadSizes) {
                for (const Heads heads : kHeads) {
                    for (const int n : {0, 1, 127, 160, 300, 700}) {
                        for (const int n_rows : {1, 3, 5, 150}) {
                            // The oracle takes long for many rows and heads.
                            if (n_rows > 5 && ((n != 0 && n != 300) || heads.n_head > 4 || d == 256)) {
                                continue;
                            }
                            // Flash reads other pairs and the types without a decoding kernel.
                            if ((type_k != type_v || kv::stock_format(type_k).block_bytes > 0) &&
                                ++turn % (type_k == type_v ? 3 : 29) != 0) {
                                continue;
                            }
                            const Shape shape{.type_k = type_k,
                                              .type_v = type_v,
                                              .lengths = kAllLengths[(n + d) % std::size(kAllLengths)],
                                              .head_size = d,
                                              .n_ubatch = 1024};
                            add(shape.text(), shape, heads, n, n_rows, n == 300 ? 150 : 0);
                        }
                    }
                }
            }
        }
    }
    report();
}

// Rings in f16 and q8_0, windows of stock types and every other setting; calls of one row to calls that flush
// often.
TEST_F(CudaAttention, OfEveryRecipe) {
    int turn = 0;
    for (const auto& [name, recipe] : test::recipe_shapes()) {
        for (const int d : kHeadSizes) {
            for (const Heads heads : kHeads) {
                for (const int n : {0, 3, 190, 255, 420, 600}) {
                    for (const int n_rows : {1, 4, 9, 140}) {
                        const bool slow = n_rows > 9 && (heads.n_head > 4 || d == 256);
                        if (++turn % (slow ? 37 : 5) != 0) {
                            continue;
                        }
                        Shape shape = recipe;
                        shape.head_size = d;
                        add(name, shape, heads, n, n_rows, n == 420 ? 150 : 0);
                    }
                }
            }
        }
    }
    report();
}

// More tokens than flash_wgmma plans at once.
TEST_F(CudaAttention, OfManyRowsOverLongSequences) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_Q8_0}) {
        for (const int window : {0, 2500}) {
            const Shape shape{.type_k = type, .type_v = type, .head_size = 128};
            add(shape.text(), shape, {4, 2}, 3000, 150, window);
        }
    }
    report();
}

// More splits than four warps merge.
TEST_F(CudaAttention, OfFewRowsOverLongSequences) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI3, LK_CACHE_KIVI4, LK_CACHE_Q8_0}) {
        for (const int head_size : {64, 128}) {
            for (const int n_rows : {1, 3}) {
                const Shape shape{.type_k = type, .type_v = type, .head_size = head_size};
                add(shape.text(), shape, {4, 1}, 3000, n_rows, 0);
            }
        }
    }
    report();
}

// After cuts and shifts: page runs with frames. Few rows, and enough rows of wide heads for the kernel with wgmma.
TEST_F(Cuda, AttentionOverTokensThatMoved) {
    struct Call {
        int head_size, n_rows;
    };
    std::vector<std::pair<Shape, int>> cases;  // and rows
    for (const auto& [head_size, n_rows] : {Call{64, 3}, {128, 70}}) {
        for (const lk_cache_type type : kAllTypes) {
            cases.push_back({{.type_k = type, .type_v = type, .head_size = head_size, .n_head_kv = 2}, n_rows});
        }
        for (const lk_cache_type type : {LK_CACHE_KIVI2, LK_CACHE_KIVI4}) {
            cases.push_back(
                {{.type_k = type, .type_v = type, .lengths = {64, 100}, .head_size = head_size, .n_head_kv = 2},
                 n_rows});
        }
    }
    for (const auto& [shape, n_rows] : cases) {
        const lk_cache_type type = shape.type_k;
        // The CPU rounds folded queries to 8 bits; the largest of many more differences is larger.
        const double rounding = (kv::is_paper(type) ? 0.15 : 0.05) * (n_rows > 3 ? 2 : 1);
        const double tolerance = type == LK_CACHE_F16 ? 4e-3 : rounding;
        for (const auto& [begin, end] : {std::pair{1, 3}, {10, 50}, {128, 256}, {100, 420}, {300, 600}}) {
            kv::Cache cpu(shape.config());
            kv::Cache gpu(shape.config(), device_->memory());
            const Tokens tokens(shape, 705 + n_rows, 9, 1);
            test::append(cpu, 0, tokens, 0, 700);
            kv::load_state(Whole(gpu), 0, {}, state(cpu));
            cpu.remove(0, begin, end, test::rotation(64));
            gpu.remove(0, begin, end, test::rotation(64));
            ASSERT_EQ(state(gpu), state(cpu));
            const Segment segment{0, 0, n_rows};
            test::stage_call(cpu, {&segment, 1}, tokens, 700, 700 + n_rows);
            gpu.reserve({&segment, 1});
            stage(gpu, segment, tokens, 700, 700 + n_rows);
            backend_->stage_pages(*pass_, gpu.layers());
            EXPECT_LT(difference(cpu, gpu, segment, 4, test::rotation(64)), tolerance)
                << shape.text() << ", D " << shape.head_size << ", rows " << n_rows << ", removed " << begin << " to "
                << end;
        }
    }
}

}  // namespace
}  // namespace lk
