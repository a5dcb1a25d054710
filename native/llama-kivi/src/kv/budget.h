// Room in a cache: tokens (n_ctx) and bytes (the memory budget), checked before anything changes. LK_CACHE_FULL.
#pragma once

#include <cstdint>
#include <span>

#include "kv/cache.h"
#include "kv/config.h"

namespace lk::kv {

// Bytes of pages, ring and sinks of one sequence with n_tokens tokens, over all layers.
uint64_t sequence_bytes(const CacheConfig& config, int64_t n_tokens);

// rows[seq]: rows that a call appends. Counts the tokens and bytes of pages that are copied because another sequence
// shares them.
void check_append(CacheParts parts, std::span<const int32_t> rows);
// needed: bytes that an operation takes; freed: bytes that it gives back.
void check_budget(CacheParts parts, uint64_t needed, uint64_t freed = 0);

}  // namespace lk::kv
