// Products of one launch: which block is of which.
#pragma once

#include "backend/cuda/launch.h"

namespace lk::cuda {

// Which product a block is of.
__device__ inline int product_of(const FewProducts& products) {
    int which = 0;
    while (which + 1 < products.count && static_cast<int>(blockIdx.x) >= products.first_block[which + 1]) {
        ++which;
    }
    return which;
}

// Gives every product its blocks of rows_each rows; returns how many there are.
inline int count_blocks(FewProducts& products, int rows_each) {
    int n_blocks = 0;
    for (int i = 0; i < products.count; ++i) {
        products.first_block[i] = n_blocks;
        n_blocks += (products.n_rows[i] + rows_each - 1) / rows_each;
    }
    return n_blocks;
}

}  // namespace lk::cuda
