#include "backend/cuda/plan/pass_plan.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace lk::cuda {

namespace {

using kv::Side;

std::span<const lk_plugin_run> pages(const lk_plugin_side& side) {
    return {side.runs, static_cast<size_t>(side.n_runs)};
}

std::span<const lk_plugin_run> staged_pages(const lk_plugin_side& side) {
    return {side.staged_runs, static_cast<size_t>(side.n_staged_runs)};
}

// Whether commit puts every row into a page at once. Such a row is staged as the page will store it.
bool all_paged(const kv::SideSpec& spec) {
    return spec.ageing.trigger == 1 && spec.sinks == 0;
}

// Whether queries read the pages that their pass stages.
bool reads_staged_pages(const kv::SideSpec& spec) {
    return spec.visibility == kv::Visibility::position ||
           (spec.visibility == kv::Visibility::stored && !all_paged(spec));
}

// Whether a row of a segment reads pages that the pass stages; see kv::SideView::paged_for.
bool reads_staged_pages(const kv::SideSpec& spec, const lk_plugin_side& side, int n_rows) {
    const int own = spec.visibility == kv::Visibility::stored ? 1 : 0;
    return reads_staged_pages(spec) && spec.ageing.leaving(side.n_ring + n_rows - 1 + own) > 0;
}

// Few rows and exact tokens outside the page runs; other segments with few rows; many rows.
enum Kind { kFewExact, kFew, kMany, kKinds };

// Writes runs whose first token has position `start` in the sequence.
Run* write_runs(std::span<const lk_plugin_run> runs, int start, Run* out) {
    for (const lk_plugin_run& run : runs) {
        *out++ = {run.block, start, run.count, run.first, run.frame};
        start += run.count;
    }
    return out;
}

size_t count_runs(const lk_plugin_side& side) {
    return pages(side).size() + staged_pages(side).size();
}

// staged: the segment's first staged row. runs: device address of the side's runs, which are those of its pages, then
// those of its staged pages.
SideWork side_work(const lk_plugin_side& side, const half_t* staged, const Run* runs) {
    SideWork w{};
    w.runs = runs;
    w.sinks = side.sinks;
    w.ring = side.ring;
    w.ring_blocks = side.ring_blocks;
    w.tables = side.tables;
    w.staged = {
        staged, runs + side.n_runs, side.staged_tables, side.n_staged_runs, side.n_leave, side.n_sinks_after, nullptr,
        0};
    w.n_runs = side.n_runs;
    w.n_paged = side.n_paged;
    w.n_sinks = side.n_sink_rows;
    w.ring_start = side.ring_start;
    w.n_ring = side.n_ring;
    return w;
}

// Writes the runs of a side; see side_work.
Run* write_side(const lk_plugin_side& side, Run* out) {
    return write_runs(staged_pages(side), side.n_paged, write_runs(pages(side), 0, out));
}

}  // namespace

CommonRuns count_common_runs(std::span<const lk_plugin_run> k, std::span<const lk_plugin_run> v) {
    CommonRuns common;
    const size_t n = std::min(k.size(), v.size());
    for (size_t i = 0; i < n && k[i].frame == 0 && k[i].count == v[i].count && k[i].first == v[i].first; ++i) {
        ++common.runs;
        common.tokens += k[i].count;
    }
    return common;
}

bool is_decode_step(const PassPlan& plan, std::span<const lk_plugin_segment> segments) {
    return !plan.reads_staged && std::all_of(segments.begin(), segments.end(),
                                             [](const lk_plugin_segment& s) { return s.n_rows <= kFewRows; });
}

bool reads_pages(const kv::SideSpec& k, const kv::SideSpec& v) {
    const auto windowed = [](const kv::SideSpec& spec) { return spec.format.blocks() && !all_paged(spec); };
    return !windowed(k) && !windowed(v) && supports_pages(k.format, v.format);
}

// Whether all tokens outside the page kernel's runs are in full precision and without a frame.
bool is_exact(const kv::SideSpec& spec, const lk_plugin_side& side, const CommonRuns& taken) {
    if (spec.format.quantized()) {
        return side.n_paged == taken.tokens;
    }
    const std::span<const lk_plugin_run> runs = pages(side);
    return taken.tokens == 0 &&
           std::all_of(runs.begin(), runs.end(), [](const lk_plugin_run& run) { return run.frame == 0; });
}

PassPlan plan_pass(const PassCache& cache, std::span<const lk_plugin_segment> segments) {
    const kv::SideSpec& k_spec = cache.spec(Side::keys);
    const kv::SideSpec& v_spec = cache.spec(Side::values);
    const bool pages_supported = reads_pages(k_spec, v_spec);
    PassPlan plan;
    std::array<SegmentGroup, kKinds> groups{};
    std::array<std::vector<size_t>, kKinds> members;
    std::vector<CommonRuns> taken(segments.size());
    for (size_t i = 0; i < segments.size(); ++i) {
        const lk_plugin_segment& s = segments[i];
        const lk_plugin_side& k = s.sides[LK_PLUGIN_KEYS];
        const lk_plugin_side& v = s.sides[LK_PLUGIN_VALUES];
        const bool staged = reads_staged_pages(k_spec, k, s.n_rows) || reads_staged_pages(v_spec, v, s.n_rows);
        plan.reads_staged |= staged;
        Kind kind = kMany;
        if (s.n_rows <= kFewRows && !staged) {  // only flash reads staged pages
            if (pages_supported) {
                taken[i] = count_common_runs(pages(k), pages(v));
            }
            kind = is_exact(k_spec, k, taken[i]) && is_exact(v_spec, v, taken[i]) ? kFewExact : kFew;
        }
        members[kind].push_back(i);
        SegmentGroup& group = groups[kind];
        group.max_rows = std::max(group.max_rows, s.n_rows);
        group.max_tokens = std::max(group.max_tokens, s.length + s.n_rows - taken[i].tokens + k.n_sinks);
        group.max_page_runs = std::max(group.max_page_runs, taken[i].runs);
        plan.n_rows += s.n_rows;
        plan.n_runs += count_runs(k) + count_runs(v);
    }
    for (int kind = 0; kind < kKinds; ++kind) {
        if (members[kind].empty()) {
            continue;
        }
        SegmentGroup& group = plan.groups.emplace_back(groups[kind]);
        group.first = plan.segments.size();
        group.count = members[kind].size();
        group.exact = kind == kFewExact;
        for (const size_t i : members[kind]) {
            plan.segments.push_back(i);
            plan.page_runs.push_back(taken[i]);
        }
    }
    return plan;
}

void write_pass(const PassPlan& plan, const PassCache& cache, std::span<const lk_plugin_segment> segments,
                uint8_t* host, const uint8_t* device) {
    const size_t work_bytes = plan.segments.size() * sizeof(SegmentWork);
    auto* const works = reinterpret_cast<SegmentWork*>(host);
    auto* const runs = reinterpret_cast<Run*>(host + work_bytes);
    const auto* const device_runs = reinterpret_cast<const Run*>(device + work_bytes);
    Run* next = runs;
    for (size_t i = 0; i < plan.segments.size(); ++i) {
        const lk_plugin_segment& s = segments[plan.segments[i]];
        const lk_plugin_side& k = s.sides[LK_PLUGIN_KEYS];
        const lk_plugin_side& v = s.sides[LK_PLUGIN_VALUES];
        const auto staged = [&](Side side) {
            return cache.staged(side) + static_cast<size_t>(s.row) * cache.spec(side).staged_width();
        };
        const Run* const k_runs = device_runs + (next - runs);
        next = write_side(k, next);
        const Run* const v_runs = device_runs + (next - runs);
        next = write_side(v, next);
        works[i] = {side_work(k, staged(Side::keys), k_runs),
                    side_work(v, staged(Side::values), v_runs),
                    s.row,
                    s.n_rows,
                    s.length,
                    plan.page_runs[i].runs,
                    plan.page_runs[i].tokens};
    }
}

SideShape side_shape(const kv::SideSpec& spec, int n_ubatch) {
    return {spec.format,
            spec.ageing.trigger,
            spec.ageing.leave,
            spec.ring_rows(),
            spec.sinks,
            n_ubatch,
            static_cast<int>(spec.table_bytes()),
            static_cast<int>(spec.ring_row_bytes()),
            static_cast<int>(spec.staged_width()),
            reads_staged_pages(spec),
            spec.visibility == kv::Visibility::stored && reads_staged_pages(spec)};
}

std::vector<AttentionRequest> attention_requests(const PassCache& cache, const PassPlan& plan, int n_head,
                                                 bool invariant) {
    std::vector<AttentionRequest> requests;
    for (const SegmentGroup& group : plan.groups) {
        const AttentionRequest all{cache.spec(Side::keys).format,
                                   cache.spec(Side::values).format,
                                   n_head,
                                   cache.config().n_head_kv,
                                   static_cast<int>(group.count),
                                   group.max_rows,
                                   group.max_tokens,
                                   group.max_page_runs,
                                   group.exact,
                                   invariant};
        AttentionRequest leading = all;
        leading.n_segments = static_cast<int>(group.n_short);
        leading.max_page_runs = std::min(group.max_page_runs, kAttentionWarps);
        if (group.n_short > 0 && group.n_short < group.count && select_whole(leading).kernel != AttentionKernel::none) {
            AttentionRequest others = all;
            others.n_segments -= leading.n_segments;
            requests.insert(requests.end(), {leading, others});
        } else {
            requests.push_back(all);
        }
    }
    return requests;
}

}  // namespace lk::cuda
