// The round trip of rows through a cache (lk_cache_round_trip).
#pragma once

#include "kv/config.h"

namespace lk::cpu {

// Runs n tokens through a cache of one layer and one sequence. k and v: [n, n_head_kv, D], in and out. Overwrites
// config's n_layer, n_seq_max, n_ctx and n_ubatch.
void round_trip(kv::CacheConfig config, int n, float* k, float* v);

}  // namespace lk::cpu
