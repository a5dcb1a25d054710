// What a cache makes of rows.
#pragma once

#include "kv/config.h"

namespace lk::cpu {

// Puts n tokens through a cache of one layer. k and v: [n, n_head_kv, D], in and out. n_ctx, n_ubatch and the counts of
// layers and sequences of config are set here.
void round_trip(kv::CacheConfig config, int n, float* k, float* v);

}  // namespace lk::cpu
