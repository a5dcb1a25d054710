// The memory estimate counts the partial results that a batch-invariant pass on the GPU allocates.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "backend/cuda/plan/attention_plan.h"
#include "kv/config.h"
#include "llama_kivi.h"
#include "support/model_helpers.h"

namespace lk {
namespace {

uint64_t device_bytes(const lk_context_params& params) {
    lk_memory_estimate e{};
    EXPECT_EQ(lk_context_estimate(lk_model_gguf(test::demo_model()), -1, &params, &e), LK_OK) << lk_last_error();
    return e.device_bytes;
}

// What AttentionQueue allocates for n_rows rows at the end of a context. group: query heads per KV head.
uint64_t planned_bytes(const kv::CacheConfig& c, int n_head, int group, int n_rows) {
    const kv::SideSpec k = kv::make_side_spec(c, kv::Side::keys);
    const kv::SideSpec v = kv::make_side_spec(c, kv::Side::values);
    cuda::AttentionRequest request{};
    request.k = k.format;
    request.v = v.format;
    request.n_head = group * c.n_head_kv;
    request.n_head_kv = c.n_head_kv;
    request.n_segments = n_rows;
    request.max_rows = 1;
    // As row_plan.cpp counts: all rows of f16; otherwise pages, and the rows of a full ring with the sinks.
    const bool paged = k.format.quantized();
    const int most = k.ageing.trigger - 1 + k.sinks;
    request.max_tokens = paged ? std::min(c.n_ctx, most) : c.n_ctx;
    request.max_page_runs =
        paged ? (c.n_ctx - (k.ageing.trigger - k.ageing.leave) + kv::kPageTokens - 1) / kv::kPageTokens : 0;
    request.exact = true;
    request.invariant = true;
    const cuda::AttentionSplits splits = cuda::split_attention(request, cuda::select_attention(request), 132, 132);
    return splits.all() > 1 ? uint64_t(splits.all()) * n_rows * n_head * (c.head_size + 2) * sizeof(float) : 0;
}

TEST(InvariantMemory, PartialResultsAreInTheEstimate) {
    lk_model_info info;
    ASSERT_EQ(lk_model_describe(test::demo_model(), &info), LK_OK);
    for (const lk_cache_type type :
         {LK_CACHE_F16, LK_CACHE_Q8_0, LK_CACHE_Q4_0, LK_CACHE_KIVI2, LK_CACHE_KIVI4, LK_CACHE_KIVI2_PAPER}) {
        for (const auto& [n_ctx, residual] :
             {std::pair{256u, 128}, {4096u, 128}, {4096u, 160}, {32768u, 128}, {131072u, 128}}) {
            for (const uint32_t n_ubatch : {64u, 512u, 2048u}) {
                SCOPED_TRACE(::testing::Message() << lk_cache_type_name(type) << ", residual " << residual << ", "
                                                  << n_ctx << " tokens, " << n_ubatch << " rows");
                lk_context_params params;
                lk_context_params_default(&params);
                params.n_ctx = n_ctx;
                params.n_ubatch = n_ubatch;
                params.cache.type_k = params.cache.type_v = type;
                params.cache.residual = kv::is_kivi(type) ? residual : 0;
                const uint64_t without = device_bytes(params);
                params.batch_invariant = 1;
                const uint64_t counted = device_bytes(params) - without;
                kv::CacheConfig c;
                c.n_layer = static_cast<int>(info.n_layer);
                c.n_head_kv = static_cast<int>(info.n_head_kv);
                c.head_size = static_cast<int>(info.head_size);
                c.n_ctx = static_cast<int>(n_ctx);
                c.n_seq_max = 1;
                c.n_ubatch = static_cast<int>(std::min(n_ubatch, n_ctx));
                c.params = params.cache;
                const int n_head = static_cast<int>(info.n_head);
                const uint64_t planned = std::max(planned_bytes(c, n_head, n_head / c.n_head_kv, c.n_ubatch),
                                                  planned_bytes(c, n_head, 1, c.n_ubatch));
                // Matmuls of quantized weights keep all rows, instead of 128, in the order of lanes.
                const int more_rows = std::max(0, c.n_ubatch - 128);
                const uint64_t lanes = 3ull * more_rows * std::max(info.n_ff, info.n_embd);
                EXPECT_GE(counted, planned + lanes);
                EXPECT_LE(counted, planned + planned / 4 + lanes);
            }
        }
    }
}

}  // namespace
}  // namespace lk
