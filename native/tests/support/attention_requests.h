// Requests of attention for tests of its plans.
#pragma once

#include "backend/cuda/plan/attention_plan.h"

namespace lk::test {

// One row of a sequence of 100 tokens, eight query heads and KV heads.
inline cuda::AttentionRequest request_of(lk_cache_type type_k, lk_cache_type type_v, int head_size, int group = 32) {
    cuda::AttentionRequest r{};
    r.k = kv::make_page_format(type_k, kv::Side::keys, head_size, group);
    r.v = kv::make_page_format(type_v, kv::Side::values, head_size, group);
    r.n_head = 8;
    r.n_head_kv = 8;
    r.n_segments = 1;
    r.max_rows = 1;
    r.max_tokens = 100;
    return r;
}

}  // namespace lk::test
