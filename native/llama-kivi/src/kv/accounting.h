// What a cache holds and takes: tokens in use, bytes in use, and bytes before anything is allocated.
#pragma once

#include <cstdint>
#include <span>

#include "kv/config.h"
#include "kv/kivi_format.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

// Bytes before anything is allocated, of as many sequences as are ready from the start.
uint64_t fixed_bytes(const CacheConfig& config);  // rings and sinks
uint64_t staging_bytes(const CacheConfig& config);
uint64_t page_bytes(const CacheConfig& config);  // n_ctx tokens

// Counts the tokens of a cache's sequences. Blocks remember which count saw them: one counter a cache.
class TokenCounter {
public:
    // Distinct tokens in the pages of one side of all sequences but one; shared pages count once.
    int64_t paged(std::span<const Sequence> sequences, Side side, int except = -1) const;
    // Tokens of all sequences but one; shared ones count once.
    int64_t used(std::span<const Sequence> sequences, int except = -1) const;

private:
    mutable uint64_t visits_ = 0;
};

// Throws LK_CACHE_FULL if n_tokens more than the used ones do not fit.
void check_room(const CacheConfig& config, int64_t used, int64_t n_tokens);

// live_page_bytes: of the blocks, shared ones once.
lk_cache_usage cache_usage(const CacheConfig& config, std::span<const Sequence> sequences, const SideSpec& k_spec,
                           const SideSpec& v_spec, const TokenCounter& counter, int64_t live_page_bytes);

}  // namespace lk::kv
