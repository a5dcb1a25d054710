// What a cache makes of rows: reading back what attention sees.
#pragma once

#include "kv/cache.h"

namespace lk::kv {

// One token of a view as attention sees it, out[D]: the meaning of sinks, pages, ring and staged rows. rotation: of the
// keys, for pages of tokens that have moved.
void read_row(const SideView& view, int token, const Rotation& rotation, float* out);

// Puts n tokens through a cache of one layer. k and v: [n, n_head_kv, D], in and out. n_ctx, n_ubatch and the counts of
// layers and sequences of config are set here.
void round_trip(CacheConfig config, int n, float* k, float* v);

}  // namespace lk::kv
