// A mark keeps the ring of a sequence at one length in host memory, so that the sequence can go back there exactly
// however many tokens follow, and from there by the undo window. Pages and sinks of the marked tokens stay in the
// sequence.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kv/bookkeeping.h"

namespace lk::kv {

struct SideMark {
    SideLayout layout;                // without pages
    std::unique_ptr<uint8_t[]> ring;  // [layer, head, ring_rows, ring_row_bytes]
    size_t ring_bytes = 0;
};

struct SequenceMark {
    SideMark k;
    SideMark v;

    int length() const { return k.layout.length(); }
    // Smallest length to which the undo rows of the mark reach.
    int exact_from() const { return std::max(k.layout.exact_from(), v.layout.exact_from()); }
    size_t bytes() const { return k.ring_bytes + v.ring_bytes; }
};

}  // namespace lk::kv
