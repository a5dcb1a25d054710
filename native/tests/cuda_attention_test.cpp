// The CUDA backend's attention against the CPU's. Without a GPU the tests are skipped.
#include "cuda_helpers.h"

namespace lk {
namespace {

// Errors relative to the magnitude of the values. Queries, probabilities and dequantized values are rounded to half;
// with one query row, folded queries and probabilities are rounded to 8 bits, as on the CPU.
TEST_F(Cuda, AttentionIsThatOfTheRowsTheCacheMeans) {
    struct Heads {
        int n_head, n_head_kv;
    };
    double worst[LK_CACHE_TYPE_COUNT] = {};
    std::deque<AttentionCase> cases;
    // Prepares many cases on the host in parallel.
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
    for (const lk_cache_type type_k : kDeviceTypes) {
        for (const lk_cache_type type_v : kDeviceTypes) {
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
    for (const lk_cache_type type : kDeviceTypes) {
        std::printf("attention, keys %s: worst difference %.2g\n", lk_cache_type_name(type), worst[type]);
    }
}

// After cuts and shifts: page runs with frames.
TEST_F(Cuda, AttentionOverTokensThatMoved) {
    for (const lk_cache_type type : kDeviceTypes) {
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

}  // namespace
}  // namespace lk
