// Reads one row of a cache as attention sees it: for tests and round trips through a cache type.
#pragma once

#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

// Reads one token of a view into out[D], as a query sees it that reads `paged` tokens from pages (SideView::paged_for).
// rotation: the keys' RoPE, applied to runs with a frame.
void read_row(const SideView& view, int token, int paged, const Rotation& rotation, float* out);
// The same after a commit, without staged pages.
inline void read_row(const SideView& view, int token, const Rotation& rotation, float* out) {
    read_row(view, token, view.n_paged, rotation, out);
}

}  // namespace lk::kv
