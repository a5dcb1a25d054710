// The rows of a pass as a plugin reads them: the cache's bookkeeping flattened into the structs of backend/plugin.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/plugin.h"
#include "kv/cache.h"

namespace lk {

lk_plugin_cache describe_cache(kv::Cache& cache);

class PluginPassRows {
public:
    PluginPassRows() = default;
    PluginPassRows(kv::Cache& cache, std::span<const kv::Segment> segments) { describe(cache, segments); }
    PluginPassRows(const PluginPassRows&) = delete;  // its rows point into its vectors
    PluginPassRows& operator=(const PluginPassRows&) = delete;

    // Describes rows that the cache has reserved, and reuses this object's memory. Valid until the cache changes.
    void describe(kv::Cache& cache, std::span<const kv::Segment> segments);

    const lk_plugin_pass_rows& rows() const { return rows_; }
    std::span<const lk_plugin_segment> segments() const { return segments_; }

private:
    void add_runs(std::span<const kv::PageRef> pages);
    void describe_side(kv::Cache& cache, kv::Side side, const kv::Segment& segment, lk_plugin_side& out);

    static const uint8_t* flag_sink_rows(const kv::Cache& cache, kv::Side side, std::span<const kv::Segment> segments,
                                         std::vector<uint8_t>& flags);

    lk_plugin_pass_rows rows_{};
    std::vector<lk_plugin_segment> segments_;
    std::vector<lk_plugin_run> runs_;  // of each segment: pages and staged pages of the keys, then of the values
    std::vector<uint8_t> sink_rows_[LK_PLUGIN_SIDES];
};

}  // namespace lk
