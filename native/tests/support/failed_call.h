// A call that fails in its second pass, on the CPU and on the GPU.
#pragma once

#include <limits>
#include <span>

#include "support/kv_helpers.h"
#include "support/tiny_model.h"

namespace lk::test {

inline std::vector<uint8_t> state_of(const TestContext& context, int32_t seq) {
    uint64_t size = 0;
    EXPECT_EQ(lk_seq_state_size(context.get(), seq, &size), LK_OK) << lk_last_error();
    std::vector<uint8_t> state(size);
    EXPECT_EQ(lk_seq_state_get(context.get(), seq, state.data(), size), LK_OK) << lk_last_error();
    return state;
}

// A token whose embedding is NaN fails a call. Afterwards every sequence continues as if the call had not been made.
inline void expect_failed_calls_change_nothing(int n_gpu_layers, lk_context_params params) {
    TinyModel tiny;
    const int32_t bad_token = TinyModel::token(200);
    tiny.matrix("token_embd.weight").at(bad_token, 3) = std::numeric_limits<float>::quiet_NaN();
    const LoadedModel model(tiny.bytes(), n_gpu_layers);
    std::vector<int32_t> text;
    for (int i = 0; text.size() < 150; ++i) {
        if (TinyModel::token(i) != bad_token) {
            text.push_back(TinyModel::token(i));
        }
    }
    const std::vector<int32_t> head(text.begin(), text.begin() + 120);
    const std::vector<int32_t> tail(text.begin() + 120, text.end());
    std::vector<int32_t> broken = tail;
    broken.back() = bad_token;
    for (const lk_cache_type type : kAllTypes) {
        SCOPED_TRACE(lk_cache_type_name(type));
        params.cache.type_k = params.cache.type_v = type;
        params.n_ubatch = 16;  // the call takes two passes
        TestContext context(params, model.get());
        TestContext other(params, model.get());
        ASSERT_EQ(context.decode(head), LK_OK) << lk_last_error();
        ASSERT_EQ(other.decode(head), LK_OK) << lk_last_error();
        const std::vector<uint8_t> before = state_of(context, 0);
        expect_failure(context.decode(broken), LK_NUMERIC_ERROR, {"token_embd", std::to_string(bad_token)});
        EXPECT_EQ(context.length(), 120u);
        EXPECT_EQ(state_of(context, 0), before);
        float* row = nullptr;
        expect_failure(lk_logits(context.get(), 0, &row), LK_INVALID_ARGUMENT, {"failed"});
        ASSERT_EQ(context.decode(tail), LK_OK) << lk_last_error();
        ASSERT_EQ(other.decode(tail), LK_OK) << lk_last_error();
        EXPECT_EQ(state_of(context, 0), state_of(other, 0));
    }
}

}  // namespace lk::test
