#include "backend/cuda/plan/pass_plan.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace lk::cuda {

namespace {

using kv::Side;

// Whether all tokens outside the page kernel's runs are in full precision and without a frame.
bool is_exact(const kv::SideSpec& spec, const kv::SequenceSide& side, const CommonRuns& taken) {
    if (spec.format.quantized()) {
        return side.n_paged() == taken.tokens;
    }
    return taken.tokens == 0 &&
           std::all_of(side.pages().begin(), side.pages().end(), [](const kv::PageRef& ref) { return ref.frame == 0; });
}

// Whether every row is in a page as soon as it is committed. Such a row is staged as the page will hold it.
bool all_paged(const kv::SideSpec& spec) {
    return spec.ageing.trigger == 1 && spec.sinks == 0;
}

// Whether queries read the pages that their pass stages.
bool reads_staged_pages(const kv::SideSpec& spec) {
    return spec.visibility == kv::Visibility::position ||
           (spec.visibility == kv::Visibility::stored && !all_paged(spec));
}

// The page kernels read no sinks of stock types: flash reads such a cache.
bool reads_pages(const kv::SideSpec& k, const kv::SideSpec& v) {
    const auto windowed = [](const kv::SideSpec& spec) { return spec.format.blocks() && !all_paged(spec); };
    return !windowed(k) && !windowed(v) && supports_pages(k.format, v.format);
}

// Whether a row of a segment reads pages that the pass stages.
bool reads_staged_pages(const kv::SequenceSide& side, int n_rows) {
    const kv::SideView view = side.view(0, 0, n_rows);
    return reads_staged_pages(*view.spec) && view.paged_for(n_rows - 1) > view.n_paged;
}

// Few rows and exact tokens outside the page runs; other segments with few rows; many rows.
enum Kind { kFewExact, kFew, kMany, kKinds };

// Writes the runs of pages whose first token has position `start` in the sequence.
Run* write_runs(std::span<const kv::PageRef> pages, int start, Run* out) {
    for (const kv::PageRef& ref : pages) {
        *out++ = {ref.block->data.data(), start, ref.count, ref.first, ref.frame};
        start += ref.count;
    }
    return out;
}

size_t count_runs(const kv::SequenceSide& side) {
    return side.pages().size() + side.staged_pages().size();
}

// staged: the segment's first staged row. runs: device address of the side's runs, which are those of its pages, then
// those of its staged pages.
SideWork side_work(const kv::SequenceSide& side, int n_rows, const half_t* staged, const Run* runs) {
    const kv::SideView view = side.view(0, 0, n_rows);
    SideWork w{};
    w.runs = runs;
    w.sinks = side.sinks();
    w.ring = view.ring;
    w.ring_blocks = view.ring_blocks;
    w.tables = side.tables();
    w.staged = {
        staged,         runs + side.pages().size(), side.staged_tables(), static_cast<int>(side.staged_pages().size()),
        view.n_leaving, view.n_sinks_after};
    w.n_runs = static_cast<int>(side.pages().size());
    w.n_paged = side.n_paged();
    w.n_sinks = view.n_sinks;
    w.ring_start = side.ring_start();
    w.n_ring = side.n_ring();
    return w;
}

// Writes the runs of a side; see side_work.
Run* write_side(const kv::SequenceSide& side, Run* out) {
    return write_runs(side.staged_pages(), side.n_paged(), write_runs(side.pages(), 0, out));
}

}  // namespace

CommonRuns count_common_runs(std::span<const kv::PageRef> k, std::span<const kv::PageRef> v) {
    CommonRuns common;
    const size_t n = std::min(k.size(), v.size());
    for (size_t i = 0; i < n && k[i].frame == 0 && k[i].count == v[i].count && k[i].first == v[i].first; ++i) {
        ++common.runs;
        common.tokens += k[i].count;
    }
    return common;
}

PassPlan plan_pass(const kv::Cache& cache, std::span<const kv::Segment> segments) {
    const kv::SideSpec& k_spec = cache.spec(Side::keys);
    const kv::SideSpec& v_spec = cache.spec(Side::values);
    const bool pages_supported = reads_pages(k_spec, v_spec);
    PassPlan plan;
    std::array<SegmentGroup, kKinds> groups{};
    std::array<std::vector<size_t>, kKinds> members;
    std::vector<CommonRuns> taken(segments.size());
    for (size_t i = 0; i < segments.size(); ++i) {
        const kv::Segment& s = segments[i];
        const kv::Sequence& sequence = cache.sequence(s.seq);
        const bool staged = reads_staged_pages(sequence.k, s.n_rows) || reads_staged_pages(sequence.v, s.n_rows);
        plan.reads_staged |= staged;
        Kind kind = kMany;
        if (s.n_rows <= kFewRows && !staged) {  // only flash reads staged pages
            if (pages_supported) {
                taken[i] = count_common_runs(sequence.k.pages(), sequence.v.pages());
            }
            kind = is_exact(k_spec, sequence.k, taken[i]) && is_exact(v_spec, sequence.v, taken[i]) ? kFewExact : kFew;
        }
        members[kind].push_back(i);
        SegmentGroup& group = groups[kind];
        group.max_rows = std::max(group.max_rows, s.n_rows);
        group.max_tokens =
            std::max(group.max_tokens, sequence.length() + s.n_rows - taken[i].tokens + sequence.k.n_sinks());
        group.max_page_runs = std::max(group.max_page_runs, taken[i].runs);
        plan.n_rows += s.n_rows;
        plan.n_runs += count_runs(sequence.k) + count_runs(sequence.v);
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
            plan.segments.push_back(segments[i]);
            plan.page_runs.push_back(taken[i]);
        }
    }
    return plan;
}

void write_pass(const PassPlan& plan, kv::Cache& cache, uint8_t* host, const uint8_t* device) {
    const size_t work_bytes = plan.segments.size() * sizeof(SegmentWork);
    auto* const works = reinterpret_cast<SegmentWork*>(host);
    auto* const runs = reinterpret_cast<Run*>(host + work_bytes);
    const auto* const device_runs = reinterpret_cast<const Run*>(device + work_bytes);
    Run* next = runs;
    for (size_t i = 0; i < plan.segments.size(); ++i) {
        const kv::Segment& s = plan.segments[i];
        const kv::Sequence& sequence = cache.sequence(s.seq);
        const auto staged = [&](Side side) {
            return cache.staged(side) + static_cast<size_t>(s.row) * cache.spec(side).staged_width();
        };
        const Run* const k_runs = device_runs + (next - runs);
        next = write_side(sequence.k, next);
        const Run* const v_runs = device_runs + (next - runs);
        next = write_side(sequence.v, next);
        works[i] = {side_work(sequence.k, s.n_rows, staged(Side::keys), k_runs),
                    side_work(sequence.v, s.n_rows, staged(Side::values), v_runs),
                    s.row,
                    s.n_rows,
                    sequence.length(),
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

AttentionRequest attention_request(const kv::Cache& cache, const SegmentGroup& group, int n_head) {
    return {cache.spec(Side::keys).format,
            cache.spec(Side::values).format,
            n_head,
            cache.config().n_head_kv,
            static_cast<int>(group.count),
            group.max_rows,
            group.max_tokens,
            group.max_page_runs,
            group.exact};
}

}  // namespace lk::cuda
