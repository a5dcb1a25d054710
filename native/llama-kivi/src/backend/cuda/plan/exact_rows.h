// Which tokens of a segment with one query row a thread block of attention reads as full-precision rows, and in which
// order. C++17, because the kernel includes it too.
#pragma once

#include "backend/cuda/plan/segments.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cuda {

// Rows [ring_first, ring_end) as a q8_0 ring stores them, and halves, which are the sinks and the tokens from ring_end
// on. Nothing of it depends on how the sequence's tokens were divided into passes: earlier rows of a batch-invariant
// pass, which are staged, are read as if they were cached.
struct ExactRows {
    int ring_first;
    int ring_end;
    int staged;  // the first token after those of the ring's memory; blocks from there on are staged
    int n_sinks;
    int n_halves;

    LK_HD ExactRows(const SegmentWork& s, const SideShape& shape, int window, bool ring_in_blocks) {
        const int position = s.length;
        const int first_seen = window > 0 ? greater(0, position + 1 - window) : 0;
        // Beside a q8_0 ring the first tokens are sinks, or will be and are staged in halves.
        n_sinks = ring_in_blocks && s.page_tokens == 0 ? lesser(shape.sinks, position) : s.k.n_sinks;
        ring_first = greater(greater(s.page_tokens, n_sinks), first_seen);
        ring_end = ring_in_blocks ? position : ring_first;  // the row's own token is staged in halves
        staged = s.k.n_paged + s.k.n_ring;
        n_halves = n_sinks + position + 1 - ring_end;
    }
    LK_HD int ring_tiles() const { return (ring_end - ring_first + 31) / 32; }
    LK_HD int half_tiles() const { return (n_halves + 31) / 32; }
    LK_HD int half_token(int i) const { return i < n_sinks ? i : ring_end + i - n_sinks; }

private:
    static LK_HD int greater(int a, int b) { return a > b ? a : b; }
    static LK_HD int lesser(int a, int b) { return a < b ? a : b; }
};

}  // namespace lk::cuda
