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
int staged_tokens(const kv::SideSpec& spec, const kv::SequenceSide& side, int row) {
    const bool reads = spec.format.quantized() && spec.visibility != kv::Visibility::call;
    return reads ? spec.ageing.leaving(side.n_ring() + row) : 0;
}

// Runs in the plan.
struct RunList {
    size_t first;
    int count;
};

// The runs of one side of a segment. Rows with the same staged tokens share them.
class SideRuns {
public:
    SideRuns(const kv::SequenceSide& side, std::vector<Run>& out) : side_(side), out_(out) {}

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
        for (const kv::PageRef& ref : side_.pages()) {
            out_.push_back({ref.block->data.data(), start, ref.count, ref.first, ref.frame});
            start += ref.count;
        }
        for (const kv::PageRef& ref : side_.staged_pages()) {
            const int count = std::min(ref.count, n_staged);
            if (count == 0) {
                break;
            }
            if (ref.first > 0) {
                out_.back().count += count;  // continues the last page
            } else {
                out_.push_back({ref.block->data.data(), start, count, 0, 0});
            }
            start += count;
            n_staged -= count;
        }
        return {first, static_cast<int>(out_.size() - first)};
    }

    const kv::SequenceSide& side_;
    std::vector<Run>& out_;
    std::map<int, RunList> lists_;  // by number of staged tokens
};

// The leading runs that the page kernel reads.
CommonRuns take_runs(const kv::Sequence& s, const PlannedRow& row) {
    const CommonRuns own = count_common_runs(s.k.pages(), s.v.pages());
    const bool all = own.tokens == s.k.n_paged() && own.tokens == s.v.n_paged() && row.k.n_staged == row.v.n_staged;
    return all ? CommonRuns{row.k.n_runs, own.tokens + row.k.n_staged} : own;
}

// Whether all tokens outside the taken runs are exact rows without a frame.
bool is_exact(const kv::SideSpec& spec, const kv::SequenceSide& side, int n_staged, const CommonRuns& taken) {
    return spec.format.quantized() ? side.n_paged() + n_staged == taken.tokens
                                   : std::all_of(side.pages().begin(), side.pages().end(),
                                                 [](const kv::PageRef& ref) { return ref.frame == 0; });
}

}  // namespace

PassPlan plan_rows(const kv::Cache& cache, std::span<const kv::Segment> segments) {
    const kv::SideSpec& k_spec = cache.spec(Side::keys);
    const kv::SideSpec& v_spec = cache.spec(Side::values);
    const bool pages_supported = supports_pages(k_spec.format, v_spec.format);
    PassPlan plan;
    struct Member {
        kv::Segment segment;
        CommonRuns taken;
        PlannedRow row;
    };
    std::array<std::vector<Member>, 2> members;  // exact, others
    for (const kv::Segment& s : segments) {
        const kv::Sequence& sequence = cache.sequence(s.seq);
        SideRuns k_runs(sequence.k, plan.runs);
        SideRuns v_runs(sequence.v, plan.runs);
        for (int i = 0; i < s.n_rows; ++i) {
            Member m{{s.seq, s.row + i, 1}, {}, {i, {}, {}}};
            const auto describe = [&](const kv::SideSpec& spec, const kv::SequenceSide& side, SideRuns& runs) {
                const int n_staged = staged_tokens(spec, side, i);
                const RunList list = runs.with(n_staged);
                plan.reads_staged |= n_staged > 0;
                return PlannedRow::OneSide{list.first, list.count, n_staged};
            };
            m.row.k = describe(k_spec, sequence.k, k_runs);
            m.row.v = describe(v_spec, sequence.v, v_runs);
            m.taken = pages_supported ? take_runs(sequence, m.row) : CommonRuns{};
            const bool exact = is_exact(k_spec, sequence.k, m.row.k.n_staged, m.taken) &&
                               is_exact(v_spec, sequence.v, m.row.v.n_staged, m.taken);
            members[exact ? 0 : 1].push_back(m);
        }
        plan.n_rows += s.n_rows;
    }
    for (size_t kind = 0; kind < members.size(); ++kind) {
        if (members[kind].empty()) {
            continue;
        }
        SegmentGroup& group = plan.groups.emplace_back();
        group = {plan.segments.size(), members[kind].size(), 1, 0, 0, kind == 0};
        for (const Member& m : members[kind]) {
            const kv::Sequence& sequence = cache.sequence(m.segment.seq);
            group.max_tokens = std::max(group.max_tokens, sequence.length() + m.row.preceding + 1 - m.taken.tokens +
                                                              sequence.k.n_sink_rows());
            group.max_page_runs = std::max(group.max_page_runs, m.taken.runs);
            plan.segments.push_back(m.segment);
            plan.page_runs.push_back(m.taken);
            plan.rows.push_back(m.row);
        }
    }
    plan.n_runs = plan.runs.size();
    return plan;
}

void check_invariant(const kv::Cache& cache) {
    const kv::PageFormat& k = cache.spec(Side::keys).format;
    const kv::PageFormat& v = cache.spec(Side::values).format;
    const bool exact = !k.quantized() && !v.quantized();
    LK_CHECK(k.head_size == 64 || k.head_size == 128, LK_UNSUPPORTED,
             "batch_invariant needs heads of 64 or 128 on the GPU; this model has %d; leave all layers on the CPU, which "
             "is always batch-invariant",
             k.head_size);
    LK_CHECK(exact || supports_pages(k, v), LK_UNSUPPORTED,
             "batch_invariant needs a cache that the GPU's decoding kernels read, but keys are %s and values %s with "
             "cache.group %d: use one type for both, the type's own refined channels and a group of at least 32, or "
             "leave all layers on the CPU, which is always batch-invariant",
             lk_cache_type_name(k.type), lk_cache_type_name(v.type), k.group);
}

}  // namespace lk::cuda
