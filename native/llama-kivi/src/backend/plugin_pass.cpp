#include "backend/plugin_pass.h"

#include <cstddef>
#include <cstdint>

namespace lk {

namespace {

constexpr kv::Side kSides[LK_PLUGIN_SIDES] = {kv::Side::keys, kv::Side::values};

size_t count_runs(const kv::SequenceSide& side) {
    return side.pages().size() + side.staged_pages().size();
}

}  // namespace

lk_plugin_cache describe_cache(kv::Cache& cache) {
    const kv::CacheConfig& c = cache.config();
    lk_plugin_cache out{};
    out.params = c.params;
    out.n_layer = c.n_layer;
    out.first_layer = c.first_layer;
    out.n_head_kv = c.n_head_kv;
    out.head_size = c.head_size;
    out.n_ctx = c.n_ctx;
    out.n_seq_max = c.n_seq_max;
    out.n_ubatch = c.n_ubatch;
    for (size_t s = 0; s < LK_PLUGIN_SIDES; ++s) {
        out.staged[s] = cache.staged(kSides[s]);
        out.staged_blocks[s] = cache.staged_blocks(kSides[s]);
    }
    return out;
}

void PluginPassRows::describe(kv::Cache& cache, std::span<const kv::Segment> segments) {
    segments_.resize(segments.size());
    runs_.clear();
    size_t n_runs = 0;
    for (const kv::Segment& s : segments) {
        n_runs += count_runs(cache.sequence(s.seq).k) + count_runs(cache.sequence(s.seq).v);
    }
    runs_.reserve(n_runs);  // segments point into it
    for (size_t i = 0; i < segments.size(); ++i) {
        lk_plugin_segment& out = segments_[i];
        out.row = segments[i].row;
        out.n_rows = segments[i].n_rows;
        out.length = cache.length(segments[i].seq);
        for (size_t s = 0; s < LK_PLUGIN_SIDES; ++s) {
            describe_side(cache, kSides[s], segments[i], out.sides[s]);
        }
    }
    rows_.cache = describe_cache(cache);
    rows_.segments = segments_.data();
    rows_.n_segments = static_cast<int32_t>(segments_.size());
    for (size_t s = 0; s < LK_PLUGIN_SIDES; ++s) {
        rows_.sink_rows[s] = flag_sink_rows(cache, kSides[s], segments, sink_rows_[s]);
    }
}

const uint8_t* PluginPassRows::flag_sink_rows(const kv::Cache& cache, kv::Side side,
                                              std::span<const kv::Segment> segments, std::vector<uint8_t>& flags) {
    if (!cache.spec(side).ring_in_blocks()) {
        return nullptr;
    }
    flags.assign(static_cast<size_t>(cache.config().n_ubatch), 0);
    for (const kv::Segment& s : segments) {
        for (int row = s.row; row < s.row + s.n_rows; ++row) {
            flags[static_cast<size_t>(row)] = cache.is_sink_row(side, row) ? 1 : 0;
        }
    }
    return flags.data();
}

void PluginPassRows::add_runs(std::span<const kv::PageRef> pages) {
    for (const kv::PageRef& ref : pages) {
        runs_.push_back({ref.block->data.data(), ref.count, ref.first, ref.frame});
    }
}

void PluginPassRows::describe_side(kv::Cache& cache, kv::Side side, const kv::Segment& segment, lk_plugin_side& out) {
    const kv::SequenceSide& held = cache.sequence(segment.seq).side(side);
    const kv::SideView view = held.view(0, 0, segment.n_rows);
    const kv::AppendPlan plan = cache.plan_append(side, segment);
    out.runs = runs_.data() + runs_.size();
    add_runs(held.pages());
    out.staged_runs = runs_.data() + runs_.size();
    add_runs(held.staged_pages());
    out.n_runs = static_cast<int32_t>(held.pages().size());
    out.n_staged_runs = static_cast<int32_t>(held.staged_pages().size());
    out.ring = plan.ring;
    out.ring_blocks = plan.ring_blocks;
    out.sinks = plan.sinks;
    out.tables = held.tables();
    out.staged_tables = plan.tables;
    out.n_paged = view.n_paged;
    out.n_sinks = held.n_sinks();
    out.n_sink_rows = view.n_sinks;
    out.n_sinks_after = view.n_sinks_after;
    out.ring_start = plan.ring_start;
    out.n_ring = plan.n_ring;
    out.n_leave = plan.n_leave;
    out.first_kept = plan.first_kept;
    out.sink_limit = plan.sink_limit;
    out.choose_tables = plan.choose_tables ? 1 : 0;
}

}  // namespace lk
