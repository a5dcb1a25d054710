// Pages of the formats whose rows and groups fit into registers.
#pragma once

#include "backend/cuda/append/kernels.h"

namespace lk::cuda {

// stage_pages of kernels.h for these formats; returns false for others.
bool stage_tiles(const SideShape& shape, const AppendWork* works, const PageStep* steps, int n_steps, HeadRange heads,
                 Stream& stream);

}  // namespace lk::cuda
