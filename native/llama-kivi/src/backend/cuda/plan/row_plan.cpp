#include "backend/cuda/plan/row_plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/error.h"

namespace lk::cuda {

namespace {

using kv::Side;

// Tokens that row `row` of a segment reads from pages that the pass stages.
int staged_tokens(const kv::SideSpec& spec, const lk_plugin_side& side, int row) {
    const bool reads = spec.format.quantized() && spec.visibility != kv::Visibility::call;
    return reads ? spec.ageing.leaving(side.n_ring + row) : 0;
}

std::span<const lk_plugin_run> pages(const lk_plugin_side& side) {
    return {side.runs, static_cast<size_t>(side.n_runs)};
}

// Runs in the plan.
struct RunList {
    size_t first;
    int count;
};

// The runs of one side of a segment. Rows with the same staged tokens share them.
class SideRuns {
public:
    SideRuns(const lk_plugin_side& side, std::vector<Run>& out) : side_(side), out_(out) {}

    RunList with(int n_staged) {
        const auto [at, is_new] = lists_.try_emplace(n_staged);
        if (is_new) {
            at->second = write(n_staged);
        }
        return at->second;
    }

private:
    RunList write(int n_staged) {
        const size_t first = out_.size();
        int start = 0;
        for (const lk_plugin_run& run : pages(side_)) {
            out_.push_back({run.block, start, run.count, run.first, run.frame});
            start += run.count;
        }
        for (const lk_plugin_run& run : std::span(side_.staged_runs, static_cast<size_t>(side_.n_staged_runs))) {
            const int count = std::min(run.count, n_staged);
            if (count == 0) {
                break;
            }
            if (run.first > 0) {
                out_.back().count += count;  // continues the last page
            } else {
                out_.push_back({run.block, start, count, 0, 0});
            }
            start += count;
            n_staged -= count;
        }
        return {first, static_cast<int>(out_.size() - first)};
    }

    const lk_plugin_side& side_;
    std::vector<Run>& out_;
    std::map<int, RunList> lists_;  // by number of staged tokens
};

// The leading runs that the page kernel reads.
CommonRuns take_runs(const lk_plugin_side& k, const lk_plugin_side& v, const PlannedRow& row) {
    const CommonRuns own = count_common_runs(pages(k), pages(v));
    const bool all = own.tokens == k.n_paged && own.tokens == v.n_paged && row.k.n_staged == row.v.n_staged;
    return all ? CommonRuns{row.k.n_runs, own.tokens + row.k.n_staged} : own;
}

// Whether all tokens outside the taken runs are exact rows without a frame.
bool is_exact(const kv::SideSpec& spec, const lk_plugin_side& side, int n_staged, const CommonRuns& taken) {
    if (spec.format.quantized()) {
        return side.n_paged + n_staged == taken.tokens;
    }
    const std::span<const lk_plugin_run> runs = pages(side);
    return std::all_of(runs.begin(), runs.end(), [](const lk_plugin_run& run) { return run.frame == 0; });
}

// Describes the side of a row as if the rows before it in the pass had been appended. first: the sequence's first row
// in the pass. runs: device address of PassPlan::runs.
SideWork row_work(const PassCache& cache, Side which, const lk_plugin_side& side, const PlannedRow::OneSide& at,
                  int first, int preceding, const Run* runs) {
    const kv::SideSpec& spec = cache.spec(which);
    const int from_ring = std::min(at.n_staged, side.n_ring);
    const int from_staged = at.n_staged - from_ring;
    const ptrdiff_t staged = first + from_staged;
    SideWork w{};
    w.runs = runs + at.first_run;
    w.sinks = side.sinks;
    w.ring = side.ring;
    w.ring_blocks = side.ring_blocks;
    w.tables = side.tables;
    w.n_runs = at.n_runs;
    w.n_paged = side.n_paged + at.n_staged;
    w.n_sinks = side.n_sink_rows;
    w.ring_start = (side.ring_start + from_ring) % spec.ring_rows();
    w.n_ring = side.n_ring - from_ring;
    w.staged.rows = cache.staged(which) + staged * spec.staged_width();
    w.staged.tables = w.tables;
    w.staged.n_sinks = w.n_sinks;
    if (const uint8_t* const blocks = cache.staged_blocks(which); blocks != nullptr) {
        w.staged.blocks = blocks + staged * static_cast<ptrdiff_t>(spec.ring_row_bytes());
        w.staged.n_blocks = preceding - from_staged;
    }
    return w;
}

}  // namespace

PassPlan plan_rows(const PassCache& cache, std::span<const lk_plugin_segment> segments) {
    const kv::SideSpec& k_spec = cache.spec(Side::keys);
    const kv::SideSpec& v_spec = cache.spec(Side::values);
    const bool pages_supported = reads_pages(k_spec, v_spec);
    PassPlan plan;
    struct Member {
        size_t segment;
        CommonRuns taken;
        PlannedRow row;
    };
    std::array<std::vector<Member>, 2> members;  // exact, others
    for (size_t i = 0; i < segments.size(); ++i) {
        const lk_plugin_side& k = segments[i].sides[LK_PLUGIN_KEYS];
        const lk_plugin_side& v = segments[i].sides[LK_PLUGIN_VALUES];
        SideRuns k_runs(k, plan.runs);
        SideRuns v_runs(v, plan.runs);
        for (int row = 0; row < segments[i].n_rows; ++row) {
            const auto describe = [&](const kv::SideSpec& spec, const lk_plugin_side& side, SideRuns& runs) {
                const int n_staged = staged_tokens(spec, side, row);
                const RunList list = runs.with(n_staged);
                plan.reads_staged |= n_staged > 0;
                return PlannedRow::OneSide{list.first, list.count, n_staged};
            };
            Member m{i, {}, {row, describe(k_spec, k, k_runs), describe(v_spec, v, v_runs)}};
            m.taken = pages_supported ? take_runs(k, v, m.row) : CommonRuns{};
            const bool exact =
                is_exact(k_spec, k, m.row.k.n_staged, m.taken) && is_exact(v_spec, v, m.row.v.n_staged, m.taken);
            members[exact ? 0 : 1].push_back(m);
        }
        plan.n_rows += segments[i].n_rows;
    }
    for (size_t kind = 0; kind < members.size(); ++kind) {
        if (members[kind].empty()) {
            continue;
        }
        SegmentGroup& group = plan.groups.emplace_back();
        group = {plan.segments.size(), members[kind].size(), 1, 0, 0, kind == 0, 0};
        const auto first_long = std::stable_partition(members[kind].begin(), members[kind].end(),
                                                      [](const Member& m) { return is_short(m.taken.runs); });
        group.n_short = static_cast<size_t>(first_long - members[kind].begin());
        for (const Member& m : members[kind]) {
            const lk_plugin_segment& s = segments[m.segment];
            const int n_tokens = s.length + m.row.preceding + 1 - m.taken.tokens;
            group.max_tokens = std::max(group.max_tokens, n_tokens + s.sides[LK_PLUGIN_KEYS].n_sink_rows);
            group.max_page_runs = std::max(group.max_page_runs, m.taken.runs);
            plan.segments.push_back(m.segment);
            plan.page_runs.push_back(m.taken);
            plan.rows.push_back(m.row);
        }
    }
    plan.n_runs = plan.runs.size();
    return plan;
}

void write_rows(const PassPlan& plan, const PassCache& cache, std::span<const lk_plugin_segment> segments,
                uint8_t* host, const uint8_t* device) {
    const size_t work_bytes = plan.segments.size() * sizeof(SegmentWork);
    auto* const works = reinterpret_cast<SegmentWork*>(host);
    const auto* const runs = reinterpret_cast<const Run*>(device + work_bytes);
    std::copy(plan.runs.begin(), plan.runs.end(), reinterpret_cast<Run*>(host + work_bytes));
    for (size_t i = 0; i < plan.segments.size(); ++i) {
        const lk_plugin_segment& s = segments[plan.segments[i]];
        const PlannedRow& row = plan.rows[i];
        works[i] = {row_work(cache, Side::keys, s.sides[LK_PLUGIN_KEYS], row.k, s.row, row.preceding, runs),
                    row_work(cache, Side::values, s.sides[LK_PLUGIN_VALUES], row.v, s.row, row.preceding, runs),
                    s.row + row.preceding,
                    1,
                    s.length + row.preceding,
                    plan.page_runs[i].runs,
                    plan.page_runs[i].tokens};
    }
}

void check_invariant(const PassCache& cache) {
    const kv::SideSpec& k_spec = cache.spec(Side::keys);
    const kv::SideSpec& v_spec = cache.spec(Side::values);
    const kv::PageFormat& k = k_spec.format;
    const kv::PageFormat& v = v_spec.format;
    const bool halves = k.type == LK_CACHE_F16 && v.type == LK_CACHE_F16;
    constexpr int kMostRows = 65535;  // thread blocks in the grid's third dimension, one per row
    LK_CHECK(cache.config().n_ubatch <= kMostRows, LK_UNSUPPORTED,
             "batch_invariant needs n_ubatch of at most %d on the GPU; it is %d", kMostRows, cache.config().n_ubatch);
    LK_CHECK(
        k.head_size == 64 || k.head_size == 128, LK_UNSUPPORTED,
        "batch_invariant needs heads of 64 or 128 on the GPU; this model has %d; leave all layers on the CPU, which "
        "is always batch-invariant",
        k.head_size);
    LK_CHECK(halves || reads_pages(k_spec, v_spec), LK_UNSUPPORTED,
             "batch_invariant needs a cache that the GPU's decoding kernels read, but keys are %s and values %s with "
             "cache.group %d: use one of f16, q8_0, q4_0 and the KIVI types for both, with their own "
             "refined channels, a group of at least 32, and no residual for q8_0 and q4_0; or leave all layers on the "
             "CPU, which is always batch-invariant",
             lk_cache_type_name(k.type), lk_cache_type_name(v.type), k.group);
}

}  // namespace lk::cuda
