// Reads one row of a cache as attention sees it: for tests and round trips through a cache type.
#pragma once

#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

// Reads one token of a view into out[D], from sinks, pages, ring or staged rows. rotation: the keys' RoPE, applied to
// runs with a frame.
void read_row(const SideView& view, int token, const Rotation& rotation, float* out);

}  // namespace lk::kv
