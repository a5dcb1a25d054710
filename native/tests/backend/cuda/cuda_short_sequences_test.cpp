// Several sequences in a pass of the GPU: decoding of short ones, which are read whole, beside longer ones in a
// batch-invariant pass; and prompts of different lengths. Without a GPU the tests are skipped.
#include "support/cuda_helpers.h"

namespace lk {
namespace {

class CudaShortSequences : public Cuda {
protected:
    // Largest error of attention, relative to the magnitude of the values. Every even sequence has n_rows rows in the
    // pass, the others one. The sequences are appended in calls of a few rows, so that rings start anywhere in their
    // memory.
    double error(Shape shape, int n_head, int window, bool invariant, int n_rows = 1) {
        if (invariant) {
            std::swap(backend_, invariant_backend_);
        }
        const std::vector<int> lengths{0, 3, 40, 150, 193, 320, 331, 470, 640};
        const int n_seq = static_cast<int>(lengths.size());
        shape.n_seq = n_seq;
        kv::Cache cpu(shape.config());
        kv::Cache gpu(shape.config(), device_->memory());
        const int n = (n_seq + 1) / 2 * n_rows + n_seq / 2;
        const Tokens tokens(shape, lengths.back() + n, 11, 1);
        std::vector<Segment> segments;
        int row = 0;
        for (int seq = 0; seq < n_seq; ++seq) {
            for (int at = 0; at < lengths[seq];) {
                const int end = std::min(lengths[seq], at + 61);
                test::append(cpu, seq, tokens, at, end);
                append(gpu, seq, tokens, at, end);
                at = end;
            }
            segments.push_back({seq, row, seq % 2 == 0 ? n_rows : 1});
            row += segments.back().n_rows;
        }
        const int begin = lengths.back();
        test::stage_call(cpu, segments, tokens, begin, begin + n);
        const auto rows = [&](const std::vector<float>& all) {
            return upload({all.begin() + static_cast<ptrdiff_t>(begin) * tokens.width, all.end()});
        };
        Buffer<float> k = rows(tokens.k[0]);
        const Buffer<float> v = rows(tokens.v[0]);
        gpu.reserve(segments);
        pass_ = backend_->begin(gpu, segments, nullptr);
        backend_->stage({.cache = &gpu, .layer = 0, .n = n, .k = k.data(), .v = v.data(), .pass = pass_.get()});
        backend_->finish();
        backend_->stage_pages(*pass_, gpu.layers());

        const std::vector<float> q = queries(n, n_head, shape.head_size);
        const test::Expected expected =
            test::expected_attention(cpu, segments, q, n_head, 1 / std::sqrt(shape.head_size), window);
        const std::vector<float> actual = attend(gpu, segments, q, n_head, window);
        if (invariant) {
            std::swap(backend_, invariant_backend_);
        }
        double worst = 0;
        for (size_t i = 0; i < actual.size(); ++i) {
            worst = test::worse(worst, std::fabs(actual[i] - expected.out[i]) / expected.rms[i / shape.head_size]);
        }
        return worst;
    }
};

TEST_F(CudaShortSequences, AttentionIsThatOfTheRowsTheCacheMeans) {
    double worst = 0;
    for (const lk_cache_type type :
         {LK_CACHE_KIVI2, LK_CACHE_KIVI4, LK_CACHE_KIVI2_PAPER, LK_CACHE_KIVI4_PAPER, LK_CACHE_Q8_0, LK_CACHE_F16}) {
        // A ring of an odd number of rows has rows at any multiple of four bytes.
        for (const int residual : {128, 33, 160}) {
            for (const lk_row_type ring : {LK_ROWS_OWN, LK_ROWS_F16, LK_ROWS_Q8_0}) {
                const bool kivi = kv::is_kivi(type) && !kv::is_paper(type);
                if (!kivi && (residual != 128 || ring != LK_ROWS_OWN)) {
                    continue;
                }
                for (const int d : {64, 128}) {
                    for (const int n_head : {2, 8}) {  // one and four query rows per KV head
                        const Shape shape{.type_k = type,
                                          .type_v = type,
                                          .lengths = {64, residual},
                                          .head_size = d,
                                          .n_head_kv = 2,
                                          .residual_type = ring,
                                          .undo = residual == 160 ? 16 : 0};
                        const int window = residual == 160 ? 150 : 0;
                        for (const bool invariant : {false, true}) {
                            if (invariant && !kivi) {
                                continue;
                            }
                            SCOPED_TRACE(format("%s, R %d, ring %d, D %d, heads %d/2%s", shape.text().c_str(), residual,
                                                ring, d, n_head, invariant ? ", batch-invariant" : ""));
                            const double one = error(shape, n_head, window, invariant);
                            worst = test::worse(worst, one);
                            EXPECT_LT(one, 0.02);
                        }
                    }
                }
            }
        }
    }
    std::printf("short sequences: worst difference %.2g\n", worst);
}

TEST_F(CudaShortSequences, PromptsShareAPass) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI4, LK_CACHE_Q8_0}) {
        for (const int d : {64, 128}) {
            for (const int window : {0, 150}) {
                const Shape shape{.type_k = type, .type_v = type, .head_size = d, .n_head_kv = 2};
                SCOPED_TRACE(format("%s, D %d, window %d", shape.text().c_str(), d, window));
                EXPECT_LT(error(shape, 4, window, false, 70), 0.02);  // 140 query rows per KV head
            }
        }
    }
}

}  // namespace
}  // namespace lk
