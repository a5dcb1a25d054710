#include "kv/mark.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kv/bookkeeping.h"
#include "kv/storage.h"

namespace lk::kv {

SideMark SequenceSide::mark() const {
    const size_t bytes = spec_->ring_bytes();
    SideMark mark{layout_, std::make_unique_for_overwrite<uint8_t[]>(bytes), bytes};
    mark.layout.pages = {};
    memory().read(mark.ring.get(), slot_.data(), bytes);
    return mark;
}

void SequenceSide::rewind(const SideMark& mark) {
    memory().write(slot_.data(), mark.ring.get(), mark.ring_bytes);
    layout_.drop_paged(mark.layout.n_paged);
    std::vector<PageRef> pages = std::move(layout_.pages);
    layout_ = mark.layout;
    layout_.pages = std::move(pages);
    drop_unused();
}

const SequenceMark* Sequence::mark_for(int length) const {
    const auto mark = std::find_if(marks.begin(), marks.end(),
                                   [&](const auto& m) { return m->exact_from() <= length && length <= m->length(); });
    return mark != marks.end() ? mark->get() : nullptr;
}

void Sequence::truncate(int n_keep) {
    if (n_keep >= length()) {
        return;
    }
    if (const SequenceMark* const mark = n_keep < exact_from() ? mark_for(n_keep) : nullptr; mark != nullptr) {
        k.rewind(mark->k);
        v.rewind(mark->v);
    }
    k.truncate(n_keep);
    v.truncate(n_keep);
    std::erase_if(marks, [&](const auto& m) { return m->length() > n_keep; });
}

}  // namespace lk::kv
