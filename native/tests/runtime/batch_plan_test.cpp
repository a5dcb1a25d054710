// Batch plans: validation, sorting by sequence, splitting into passes.
#include "runtime/batch_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/failing_allocations.h"

namespace lk {
namespace {

// Samplings told apart by their top_k: 1, 2, ... The second keeps its logits.
std::vector<lk_sampling> samplings(int n) {
    std::vector<lk_sampling> made(n);
    for (int i = 0; i < n; ++i) {
        made[i].top_k = i + 1;
        made[i].keep_logits = i == 1 ? 1 : 0;
    }
    return made;
}

class BatchPlanTest : public testing::Test {
protected:
    static kv::CacheConfig config() {
        kv::CacheConfig c;
        c.n_layer = 1;
        c.n_head_kv = 1;
        c.head_size = 64;
        c.n_ctx = 256;
        c.n_seq_max = 4;
        c.n_ubatch = 4;
        c.params = {LK_CACHE_F16, LK_CACHE_F16, 32, 32, -1, 0, LK_ROWS_OWN, 0, 0};
        return c;
    }

    static ModelConfig model_config() {
        ModelConfig c;
        c.n_vocab = 100;
        c.n_embd = 2;
        return c;
    }

    // A batch with one token per element of seqs; token i is 10 + i.
    lk_batch batch_of(const std::vector<int32_t>& seqs) {
        seqs_ = seqs;
        tokens_.resize(seqs.size());
        for (size_t i = 0; i < seqs.size(); ++i) {
            tokens_[i] = 10 + static_cast<int32_t>(i);
        }
        lk_batch batch{};
        batch.n_tokens = static_cast<uint32_t>(seqs.size());
        batch.tokens = tokens_.data();
        batch.seq_ids = seqs_.data();
        return batch;
    }

    void expect_refused(const lk_batch& batch, lk_status status, const std::string& text) {
        try {
            plan_.make(batch, model_, cache_, std::nullopt);
            ADD_FAILURE() << "accepted, expected an error with: " << text;
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), status);
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
        }
    }

    static std::vector<int32_t> copy(std::span<const int32_t> x) { return {x.begin(), x.end()}; }

    using Ints = std::vector<int32_t>;

    kv::CachePlace place_{1, &host_memory()};
    kv::SplitCache cache_{config(), std::span(&place_, 1)};
    ModelConfig model_ = model_config();
    BatchPlan plan_;
    Ints seqs_;
    Ints tokens_;
};

TEST_F(BatchPlanTest, RowsGoBySequenceAndKeepTheirOrder) {
    const lk_batch batch = batch_of({2, 0, 2, 0});
    plan_.make(batch, model_, cache_, std::nullopt);
    ASSERT_EQ(plan_.n_passes(), 1);
    const BatchPass pass = plan_.pass(0);
    EXPECT_EQ(copy(pass.tokens), Ints({11, 13, 10, 12}));
    ASSERT_EQ(pass.segments.size(), 2u);
    EXPECT_EQ(pass.segments[0].seq, 0);
    EXPECT_EQ(pass.segments[0].row, 0);
    EXPECT_EQ(pass.segments[0].n_rows, 2);
    EXPECT_EQ(pass.segments[1].seq, 2);
    EXPECT_EQ(pass.segments[1].row, 2);
    EXPECT_EQ(pass.segments[1].n_rows, 2);
    EXPECT_EQ(plan_.rows_of(0), 2);
    EXPECT_EQ(plan_.rows_of(1), 0);
    // Without an outputs array, only the batch's last token has an output; it is the second row after sorting.
    EXPECT_EQ(copy(plan_.output_of()), Ints({-1, -1, -1, 0}));
    EXPECT_EQ(copy(pass.output_rows), Ints({1}));
    EXPECT_EQ(pass.inputs, nullptr);
    EXPECT_TRUE(pass.samplings.empty());
}

TEST_F(BatchPlanTest, PassesCutASequenceAndItsOutputs) {
    lk_batch batch = batch_of({0, 1, 1, 1, 1, 1, 1, 1, 1, 3});
    const std::vector<uint8_t> outputs{0, 1, 0, 0, 0, 1, 0, 0, 1, 1};
    batch.outputs = outputs.data();
    plan_.make(batch, model_, cache_, samplings(4));
    ASSERT_EQ(plan_.n_passes(), 3);
    EXPECT_EQ(plan_.n_outputs(), 4);
    EXPECT_EQ(plan_.n_kept(), 1);
    EXPECT_TRUE(plan_.samples());
    int row = 0;
    int output = 0;
    const std::vector<Ints> output_rows{{1}, {1}, {0, 1}};
    const std::vector<std::vector<kv::Segment>> segments{{{0, 0, 1}, {1, 1, 3}}, {{1, 0, 4}}, {{1, 0, 1}, {3, 1, 1}}};
    for (int i = 0; i < plan_.n_passes(); ++i) {
        SCOPED_TRACE(i);
        const BatchPass pass = plan_.pass(i);
        EXPECT_EQ(pass.tokens.size(), i < 2 ? 4u : 2u);
        EXPECT_EQ(pass.tokens[0], 10 + row);
        EXPECT_EQ(copy(pass.output_rows), output_rows[i]);
        ASSERT_EQ(pass.samplings.size(), output_rows[i].size());
        for (size_t o = 0; o < pass.samplings.size(); ++o) {
            EXPECT_EQ(pass.samplings[o].top_k, output + o + 1);
        }
        EXPECT_EQ(pass.first_output, output);
        EXPECT_EQ(pass.first_kept, i < 2 ? 0 : 1);
        ASSERT_EQ(pass.segments.size(), segments[i].size());
        for (size_t s = 0; s < segments[i].size(); ++s) {
            EXPECT_EQ(pass.segments[s].seq, segments[i][s].seq);
            EXPECT_EQ(pass.segments[s].row, segments[i][s].row);
            EXPECT_EQ(pass.segments[s].n_rows, segments[i][s].n_rows);
        }
        row += static_cast<int>(pass.tokens.size());
        output += static_cast<int>(pass.output_rows.size());
    }
}

TEST_F(BatchPlanTest, SamplingsFollowTheirRows) {
    // Rows are sorted by sequence: 0 1 0 1 becomes 0 0 1 1.
    lk_batch batch = batch_of({1, 0, 1, 0});
    const std::vector<uint8_t> outputs{1, 1, 1, 1};
    batch.outputs = outputs.data();
    plan_.make(batch, model_, cache_, samplings(4));
    const BatchPass pass = plan_.pass(0);
    Ints order;
    for (const lk_sampling& sampling : pass.samplings) {
        order.push_back(static_cast<int32_t>(sampling.top_k));
    }
    EXPECT_EQ(order, Ints({2, 4, 1, 3}));
    EXPECT_EQ(plan_.sampling(0).keep_logits, 1u);
    for (const int n : {0, 3, 5}) {
        const std::vector<lk_sampling> other = samplings(n);
        try {
            plan_.make(batch, model_, cache_, other);
            ADD_FAILURE() << n;
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), LK_INVALID_ARGUMENT);
            EXPECT_NE(std::string(e.what()).find("4 outputs and " + std::to_string(n) + " samplings"),
                      std::string::npos)
                << e.what();
        }
    }
}

// For batch invariance on a GPU. Sequence 1 flushes for the first time after 64 rows.
TEST_F(BatchPlanTest, PassesEndBeforeTheFirstFlushIsRead) {
    kv::CacheConfig c = config();
    c.n_ubatch = 100;
    c.params.type_k = c.params.type_v = LK_CACHE_KIVI2;
    const kv::SplitCache cache(c, std::span(&place_, 1));
    std::vector<int32_t> seqs(130, 1);
    seqs.insert(seqs.end(), 20, 2);
    const lk_batch batch = batch_of(seqs);
    std::fill(tokens_.begin(), tokens_.end(), 10);
    const auto sizes = [&](BatchPlan plan) {
        plan.make(batch, model_, cache, std::nullopt);
        Ints out;
        for (int i = 0; i < plan.n_passes(); ++i) {
            out.push_back(static_cast<int32_t>(plan.pass(i).tokens.size()));
        }
        return out;
    };
    EXPECT_EQ(sizes(BatchPlan(true)), Ints({64, 86}));
    EXPECT_EQ(sizes(BatchPlan()), Ints({100, 50}));
}

TEST_F(BatchPlanTest, EmbeddingsFollowTheirRows) {
    lk_batch batch = batch_of({1, 0, 0, 0, 0});
    const std::vector<float> inputs{1, 1.5f, 2, 2.5f, 3, 3.5f, 4, 4.5f, 5, 5.5f};
    batch.tokens = nullptr;
    batch.embeddings = inputs.data();
    plan_.make(batch, model_, cache_, std::nullopt);
    ASSERT_EQ(plan_.n_passes(), 2);
    EXPECT_EQ(plan_.pass(0).inputs[0], 2);
    EXPECT_EQ(plan_.pass(0).inputs[7], 5.5f);
    EXPECT_EQ(plan_.pass(1).inputs[1], 1.5f);
}

TEST_F(BatchPlanTest, NothingOfOneCallIsLeftForTheNext) {
    plan_.make(batch_of({0, 1, 2, 3, 0, 1}), model_, cache_, samplings(1));
    expect_refused(batch_of({0, 9}), LK_INVALID_ARGUMENT, "sequence 9 does not exist");
    plan_.make(batch_of({3}), model_, cache_, std::nullopt);
    EXPECT_FALSE(plan_.samples());
    EXPECT_EQ(plan_.n_passes(), 1);
    EXPECT_EQ(plan_.rows_of(0), 0);
    EXPECT_EQ(plan_.rows_of(3), 1);
    EXPECT_EQ(copy(plan_.output_of()), Ints({0}));
    EXPECT_TRUE(plan_.pass(0).samplings.empty());
    EXPECT_EQ(plan_.n_kept(), 1);
}

TEST_F(BatchPlanTest, ACallNoLargerThanTheLastAllocatesNothing) {
    const lk_batch batch = batch_of({3, 1, 0, 2, 0, 1});
    const std::vector<lk_sampling> one = samplings(1);
    plan_.make(batch, model_, cache_, one);
    const test::FailingAllocation first(1);
    plan_.make(batch, model_, cache_, one);
    EXPECT_FALSE(first.happened());
}

TEST_F(BatchPlanTest, NamesWhatIsWrong) {
    lk_batch batch = batch_of({0, 0});
    batch.n_tokens = 0;
    expect_refused(batch, LK_INVALID_ARGUMENT, "the batch is empty");
    batch = batch_of({0, 0});
    batch.tokens = nullptr;
    expect_refused(batch, LK_INVALID_ARGUMENT, "batch.tokens and batch.embeddings are NULL");
    batch = batch_of({0, 0});
    tokens_[1] = 100;
    expect_refused(batch, LK_INVALID_ARGUMENT, "token 1 of the batch is 100; this model's tokens are 0 to 99");
    batch = batch_of({0, 0});
    const Ints positions{0, 2};
    batch.pos = positions.data();
    expect_refused(batch, LK_INVALID_ARGUMENT,
                   "token 1 of the batch has position 2; sequence 0 continues at position 1");
    batch = batch_of(Ints(257, 0));
    expect_refused(batch, LK_CACHE_FULL, "256");
}

}  // namespace
}  // namespace lk
