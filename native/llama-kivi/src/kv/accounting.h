// Memory accounting of a cache: tokens in use, bytes in use, and bytes computed from the configuration alone.
#pragma once

#include <cstdint>
#include <span>

#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

// Bytes that a configuration takes with ready_sequences sequences.
uint64_t fixed_bytes(const CacheConfig& config);  // rings and sinks
uint64_t staging_bytes(const CacheConfig& config);
uint64_t page_bytes(const CacheConfig& config);  // pages of n_ctx tokens, without those in rings

// Counts the tokens of a cache's sequences. Use one counter per cache: blocks store the number of the count that last
// visited them.
class TokenCounter {
public:
    // Distinct tokens in the pages of one side, over all sequences except one; shared pages count once.
    int64_t paged(std::span<const Sequence> sequences, Side side, int except = -1) const;
    // Distinct tokens of all sequences except one; tokens in shared pages count once.
    int64_t used(std::span<const Sequence> sequences, int except = -1) const;

private:
    mutable uint64_t visits_ = 0;
};

// Throws LK_CACHE_FULL if used + n_tokens exceeds n_ctx.
void check_room(const CacheConfig& config, int64_t used, int64_t n_tokens);

// live_page_bytes: bytes of all blocks; shared blocks count once.
lk_cache_usage cache_usage(const CacheConfig& config, std::span<const Sequence> sequences, const SideSpec& k_spec,
                           const SideSpec& v_spec, const TokenCounter& counter, int64_t live_page_bytes);

}  // namespace lk::kv
