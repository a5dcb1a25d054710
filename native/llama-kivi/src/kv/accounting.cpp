#include "kv/accounting.h"

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>

#include "base/error.h"
#include "base/half.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/mark.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

uint64_t fixed_bytes(const CacheConfig& config) {
    uint64_t bytes = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec spec = make_side_spec(config, side);
        bytes += spec.ring_bytes() + spec.sink_bytes();
    }
    return bytes * config.ready_sequences();
}

uint64_t staging_bytes(const CacheConfig& config) {
    uint64_t row = 0;  // of keys and values
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec spec = make_side_spec(config, side);
        row += spec.staged_width() * sizeof(half_t) + (spec.ring_in_blocks() ? spec.ring_row_bytes() : 0);
    }
    return row * config.n_layer * config.n_head_kv * config.n_ubatch;
}

uint64_t page_bytes(const CacheConfig& config) {
    // Round up per sequence: its last page is partly filled.
    const uint64_t n_seq = config.ready_sequences();
    const uint64_t tokens = (static_cast<uint64_t>(config.n_ctx) + n_seq - 1) / n_seq;
    uint64_t bytes = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec spec = make_side_spec(config, side);
        const uint64_t paged = spec.ageing.leaving(static_cast<int>(tokens));
        bytes += (paged + kPageTokens - 1) / kPageTokens * n_seq * spec.block_bytes();
    }
    return bytes;
}

int64_t TokenCounter::paged(std::span<const Sequence> sequences, Side side, int except) const {
    const uint64_t visit = ++visits_;
    int64_t tokens = 0;
    for (size_t seq = 0; seq < sequences.size(); ++seq) {
        const Sequence& s = sequences[seq];
        if (static_cast<int>(seq) == except) {
            continue;
        }
        for (const PageRef& page : s.side(side).pages()) {
            const PageBlock& block = *page.block;
            if (block.visit != visit) {
                block.visit = visit;
                block.visited.reset();
            }
            std::bitset<kPageTokens> run;
            run = (run.set() >> (kPageTokens - page.count)) << page.first;
            tokens += static_cast<int64_t>((run & ~block.visited).count());
            block.visited |= run;
        }
    }
    return tokens;
}

int64_t TokenCounter::used(std::span<const Sequence> sequences, int except) const {
    int64_t used = paged(sequences, Side::keys, except);
    for (size_t seq = 0; seq < sequences.size(); ++seq) {
        used += static_cast<int>(seq) == except ? 0 : sequences[seq].k.n_ring();
    }
    return used;
}

void check_room(const CacheConfig& config, int64_t used, int64_t n_tokens) {
    if (used + n_tokens > config.n_ctx) {
        throw Error(LK_CACHE_FULL,
                    format("the KV cache is full: %lld of %d tokens used, %lld more needed; raise n_ctx or remove "
                           "tokens",
                           static_cast<long long>(used), config.n_ctx, static_cast<long long>(n_tokens)),
                    n_tokens, std::max<int64_t>(config.n_ctx - used, 0));
    }
}

lk_cache_usage cache_usage(const CacheConfig& config, std::span<const Sequence> sequences, const SideSpec& k_spec,
                           const SideSpec& v_spec, const TokenCounter& counter, int64_t live_page_bytes) {
    lk_cache_usage u{};
    const double elements =
        static_cast<double>(config.n_layer) * config.n_head_kv * config.head_size;  // per token and side
    double quantized = 0;
    double exact = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec& spec = side == Side::keys ? k_spec : v_spec;
        const PageFormat& f = spec.format;
        const double heads = static_cast<double>(spec.head_count());
        const double paged = static_cast<double>(counter.paged(sequences, side)) * elements * f.bits_per_element() / 8;
        (f.quantized() ? quantized : exact) += paged;
        for (const Sequence& s : sequences) {
            const SequenceSide& one = s.side(side);
            exact += one.n_ring() * heads * static_cast<double>(spec.ring_row_bytes()) +
                     one.n_sink_rows() * elements * sizeof(half_t);
            u.allocated_bytes += one.fixed_bytes();
            if (f.quantized()) {
                (side == Side::keys ? u.n_quantized_k : u.n_quantized_v) += one.n_paged() - one.n_sinks();
            }
        }
        (side == Side::keys ? u.k_bits_per_element : u.v_bits_per_element) = f.bits_per_element();
    }
    std::set<const SequenceMark*> marks;  // copies of a sequence share its marks
    for (const Sequence& s : sequences) {
        u.n_tokens += s.length();
        for (const auto& mark : s.marks) {
            u.mark_bytes += marks.insert(mark.get()).second ? mark->bytes() : 0;
        }
    }
    u.n_capacity = config.n_ctx;
    u.quantized_bytes = static_cast<uint64_t>(quantized);
    u.exact_bytes = static_cast<uint64_t>(exact);
    u.allocated_bytes += live_page_bytes;
    u.f16_bytes = static_cast<uint64_t>(static_cast<double>(u.n_tokens) * elements * 2 * sizeof(half_t));
    return u;
}

}  // namespace lk::kv
