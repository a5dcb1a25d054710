#include "kv/bookkeeping.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kv/codec/kivi_format.h"
#include "kv/config.h"

namespace lk::kv {

Cursor SideLayout::next_place() const {
    if (pages.empty()) {
        return {0, 0};
    }
    // A page cut inside a token group cannot be continued: the group's scale is fixed, so the next group starts a new
    // block.
    const PageRef& last = pages.back();
    const bool writable = last.end() < kPageTokens && last.end() % spec->align == 0 && last.frame == 0;
    return writable ? Cursor{pages.size() - 1, last.end()} : Cursor{pages.size(), 0};
}

bool SideLayout::continues_shared() const {
    if (next_place().token == 0) {
        return false;
    }
    size_t own = 1;
    while (own < pages.size() && pages[pages.size() - 1 - own].block == pages.back().block) {
        ++own;  // a block may have several runs after a cut
    }
    return pages.back().block.use_count() > static_cast<long>(own);
}

int SideLayout::new_blocks(int n_rows) const {
    const int n_leave = leaving(n_rows);
    if (n_leave == 0) {
        return 0;
    }
    const Cursor at = next_place();
    return static_cast<int>(at.advance(n_leave - 1).block + 1 - at.block) - (at.token > 0 ? 1 : 0);
}

int SideLayout::first_kept(int n_rows) const {
    const int kept = spec->undo > 0 ? n_ring + n_rows - spec->ring_rows() : leaving(n_rows);
    return std::max(n_ring, kept);
}

void SideLayout::place(int n_rows, std::vector<PageRef>& staged) const {
    const int n_leave = leaving(n_rows);
    staged.clear();
    if (n_leave == 0) {
        return;
    }
    const Cursor at = next_place();
    staged.reserve(at.advance(n_leave - 1).block + 1 - at.block);
    int first = at.token;
    for (int left = n_leave; left > 0; first = 0) {
        const int n = std::min(left, kPageTokens - first);
        PageBlock* const continued = first > 0 ? pages.back().block.get() : nullptr;
        staged.push_back({std::shared_ptr<PageBlock>(std::shared_ptr<void>(), continued), n, first, 0});
        left -= n;
    }
}

void SideLayout::append(int n_rows, std::span<PageRef> staged) noexcept {
    const AgeingRule& rule = spec->ageing;
    const int n_flushes = flushes(n_rows);
    n_sinks = sinks_after(n_rows);
    for (PageRef& run : staged) {
        n_paged += run.count;
        if (run.first > 0) {
            pages.back().count += run.count;
        } else {
            pages.push_back(std::move(run));
        }
    }
    const int n_leave = n_flushes * rule.leave;
    ring_start = ring_row(n_leave);
    n_ring += n_rows - n_leave;
    if (spec->undo > 0) {
        n_undo = std::min(n_undo + n_leave, spec->ring_rows() - n_ring);
    }
    tables_chosen = tables_chosen || n_flushes > 0;
}

int SideLayout::exact_from() const {
    const AgeingRule& rule = spec->ageing;
    if (rule.trigger == 1) {
        return 0;  // a stock type stores each row by itself
    }
    int paged = n_paged;
    for (int undo = n_undo; paged > base.n_paged && undo >= rule.leave; undo -= rule.leave) {
        paged -= rule.leave;
    }
    return paged > base.n_paged ? paged - rule.leave + rule.trigger : base.length;
}

// Takes back the last flush.
void SideLayout::reopen() {
    const int leave = spec->ageing.leave;
    ring_start = ring_row(-leave);
    n_ring += leave;
    n_undo -= leave;
    drop_paged(n_paged - leave);
    tables_chosen = n_paged > base.n_paged || base.tables_chosen;
}

void SideLayout::set_base() {
    n_undo = 0;
    base = {length(), n_paged, tables_chosen};
}

void SideLayout::truncate(int n_keep) {
    if (n_keep >= length()) {
        return;
    }
    if (n_keep == 0) {
        *this = SideLayout(*spec);
        return;
    }
    const AgeingRule& rule = spec->ageing;
    const bool exact = n_keep >= exact_from();
    while (n_paged > base.n_paged && n_undo >= rule.leave && n_keep < n_paged - rule.leave + rule.trigger) {
        reopen();
    }
    if (n_keep >= n_paged) {
        n_ring = n_keep - n_paged;
    } else {
        n_ring = 0;
        ring_start = 0;
        drop_paged(n_keep);
        if (n_paged == n_sinks) {
            tables_chosen = false;  // no quantized token is left
        }
    }
    if (!exact) {
        set_base();
    }
}

void SideLayout::drop_paged(int n_keep) {
    while (n_paged > n_keep) {
        PageRef& last = pages.back();
        const int drop = std::min(last.count, n_paged - n_keep);
        last.count -= drop;
        n_paged -= drop;
        if (last.count == 0) {
            pages.pop_back();
        }
    }
    n_sinks = std::min(n_sinks, n_paged);
}

void SideLayout::remove(int begin, int end) {
    if (end == length()) {
        truncate(begin);
        return;
    }
    n_ring -= std::max(0, end - std::max(begin, n_paged));
    ring_start = 0;
    n_sinks -= sinks_in(begin, end);
    remove_paged(begin, end);
    set_base();
}

// Cuts the runs around the gap and adds the distance to the frames of the runs after it.
void SideLayout::remove_paged(int begin, int end) {
    std::vector<PageRef> kept;
    int token = 0;
    int removed = 0;
    for (const PageRef& ref : pages) {
        const int from = std::clamp(begin - token, 0, ref.count);  // tokens [from, to) of the run are removed
        const int to = std::clamp(end - token, 0, ref.count);
        if (from > 0) {
            kept.push_back({ref.block, from, ref.first, ref.frame});
        }
        if (to < ref.count) {
            const bool behind = token + to >= end;
            PageRef rest{ref.block, ref.count - to, ref.first + to, ref.frame + (behind ? end - begin : 0)};
            if (from == to && from > 0) {
                kept.back().count = ref.count;  // the run is unchanged
            } else {
                kept.push_back(std::move(rest));
            }
        }
        token += ref.count;
        removed += to - from;
    }
    pages = std::move(kept);
    n_paged -= removed;
}

}  // namespace lk::kv
