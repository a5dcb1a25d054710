// What every OrderedPlan fulfils.
#pragma once

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "backend/cuda/plan/ordered_plan.h"

namespace lk::test {

// The units of all thread blocks cover every segment of every tile once. Slots follow the segments: one for the first
// part, and one for each segment of the others.
inline void expect_units_cover(const cuda::OrderedPlan& plan) {
    std::vector<std::vector<int>> first_segments(plan.n_tiles);
    std::vector<int> counts(plan.n_tiles);
    std::set<std::pair<int, int>> slots;
    for (int block = 0; block < plan.n_blocks; ++block) {
        for (int index = block; index < plan.n_units(); index += plan.n_blocks) {
            const cuda::OrderedUnit unit = plan.unit_of(index);
            ASSERT_LT(unit.tile, plan.n_tiles);
            EXPECT_EQ(unit.whole(), unit.tile < plan.n_whole);
            EXPECT_EQ(unit.first_segment % unit.n_segments, 0);
            first_segments[unit.tile].push_back(unit.first_segment);
            counts[unit.tile] += unit.n_segments;
            if (unit.first_segment > 0) {
                for (int s = unit.first_segment; s < unit.end_segment(); ++s) {
                    EXPECT_TRUE(slots.insert({unit.tile, plan.slot_of(s)}).second);
                }
            } else if (!unit.whole()) {
                EXPECT_TRUE(slots.insert({unit.tile, 0}).second);
            }
        }
    }
    EXPECT_EQ(counts, std::vector<int>(plan.n_tiles, cuda::RowSegments::kCount));
    for (const std::vector<int>& firsts : first_segments) {
        EXPECT_EQ(std::set<int>(firsts.begin(), firsts.end()).size(), firsts.size());
    }
    EXPECT_EQ(slots.size() * plan.rows * plan.columns, plan.n_sums());
}

}  // namespace lk::test
