// What a cache gives back of a row: the definition of what attention sees.
#pragma once

#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

// One token of a view as attention sees it, out[D]: the meaning of sinks, pages, ring and staged rows. rotation: of the
// keys, for pages of tokens that have moved.
void read_row(const SideView& view, int token, const Rotation& rotation, float* out);

}  // namespace lk::kv
