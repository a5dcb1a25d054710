// What every plan of tiles that thread blocks share fulfils.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <vector>

#include "backend/cuda/plan/tile_units.h"

namespace lk::test {

// The units of all blocks cover each step of each tile once. Parts of a tile are in the blocks and slots that the block
// that adds them expects, in the order of their elements. each(unit): called for all units, in order.
inline void expect_units_cover(const cuda::TileUnits& plan, const std::function<void(const cuda::TileUnit&)>& each) {
    std::vector<int> next(plan.n_tiles);  // step of each tile
    std::vector<int> parts(plan.n_tiles);
    std::set<int> slots;
    for (int block = 0; block < plan.shares.n_blocks; ++block) {
        const int end = plan.shares.begin(block + 1);
        for (int step = plan.shares.begin(block); step < end;) {
            const cuda::TileUnit unit = plan.unit_at(step, end);
            ASSERT_EQ(unit.first, next.at(unit.tile));
            ASSERT_LT(unit.first, unit.end);
            next[unit.tile] = unit.end;
            each(unit);
            step += unit.end - unit.first;
            if (plan.whole(unit)) {
                continue;
            }
            EXPECT_EQ(block, plan.first_block(unit.tile) + parts[unit.tile]++);
            const int slot = plan.slot_of(block, unit.tile);
            EXPECT_TRUE(slots.insert(slot).second) << "slots differ";
            EXPECT_LT(slot, plan.n_slots());
        }
    }
    EXPECT_EQ(next, std::vector<int>(plan.n_tiles, plan.n_steps));
    for (int tile = 0; tile < plan.n_tiles; ++tile) {
        EXPECT_EQ(plan.n_parts(tile), parts[tile] > 0 ? parts[tile] : 1) << tile;
    }
}

}  // namespace lk::test
