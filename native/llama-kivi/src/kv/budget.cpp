#include "kv/budget.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "kv/cache.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

uint64_t sequence_bytes(const CacheConfig& config, int64_t n_tokens) {
    uint64_t bytes = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec spec = make_side_spec(config, side);
        const auto tokens = static_cast<int>(std::min<int64_t>(n_tokens, 1 << 30));
        const uint64_t paged = spec.ageing.leaving(tokens);
        bytes += n_tokens > 0 ? RingSlot(spec, true).bytes : 0;
        bytes += (paged + kPageTokens - 1) / kPageTokens * spec.block_bytes();
    }
    return bytes;
}

namespace {

uint64_t used_bytes(CacheParts parts) {
    uint64_t used = 0;
    for (const Cache* part : parts) {
        used += part->used_bytes();
    }
    return used;
}

// needed, freed: bytes. n_tokens: tokens that the operation appends; the error estimates how many fit.
void check_bytes(CacheParts parts, uint64_t needed, uint64_t freed, int64_t n_tokens) {
    const uint64_t budget = parts.front()->config().params.memory_budget;
    if (budget == 0) {
        return;
    }
    const uint64_t used = used_bytes(parts) - freed;
    if (used + needed <= budget) {
        return;
    }
    const double fitting = static_cast<double>(budget - std::min(used, budget)) / static_cast<double>(needed);
    throw Error(LK_CACHE_FULL,
                format("the KV cache is full: %llu of the %llu bytes of its memory budget used, %llu more needed; "
                       "raise the budget (cache.memory_budget) or remove tokens",
                       static_cast<unsigned long long>(used), static_cast<unsigned long long>(budget),
                       static_cast<unsigned long long>(needed)),
                n_tokens, static_cast<int64_t>(fitting * static_cast<double>(n_tokens)));
}

}  // namespace

void check_append(CacheParts parts, std::span<const int32_t> rows) {
    int64_t n_rows = 0;
    int64_t copies = 0;
    uint64_t bytes = 0;
    for (size_t seq = 0; seq < rows.size(); ++seq) {
        if (rows[seq] == 0) {
            continue;
        }
        n_rows += rows[seq];
        copies += parts.front()->sequence(static_cast<int>(seq)).k.append_copies(rows[seq]);
        for (const Cache* part : parts) {
            const Sequence& s = part->sequence(static_cast<int>(seq));
            bytes += s.k.append_bytes(rows[seq]) + s.v.append_bytes(rows[seq]);
        }
    }
    if (copies > 0) {
        const int64_t free = parts.front()->config().n_ctx - parts.front()->used_tokens();
        const int64_t needed = n_rows + copies;
        if (needed > free) {
            throw Error(LK_CACHE_FULL,
                        format("the KV cache is full: %lld of %d tokens free, %lld more needed, of which %lld are in "
                               "pages that sequences share; raise n_ctx or remove tokens",
                               static_cast<long long>(free), parts.front()->config().n_ctx,
                               static_cast<long long>(needed), static_cast<long long>(copies)),
                        n_rows, std::max<int64_t>(free - copies, 0));
        }
    }
    check_bytes(parts, bytes, 0, n_rows);
}

void check_budget(CacheParts parts, uint64_t needed, uint64_t freed) {
    check_bytes(parts, needed, freed, 0);
}

}  // namespace lk::kv
