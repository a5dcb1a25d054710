// The tiles of page steps: what one thread block of stage_tiles.cu does. Host and device code.
#pragma once

#include "backend/cuda/append/head_rows.h"
#include "backend/cuda/append/key_tile.h"
#include "backend/cuda/append/value_tile.h"
#include "backend/cuda/plan/append_work.h"
#include "backend/cuda/plan/segments.h"

namespace lk::cuda {

struct StepPlace {
    const PageStep& step;
    const AppendWork& work;
    HeadRows rows;
    const uint8_t* table;
    uint8_t* page;
    int sinks;  // leading rows of the step

    LK_HD StepPlace(const SideShape& shape, const AppendWork* works, const PageStep* steps, int index, int head)
        : step(steps[index]),
          work(works[step.work]),
          rows(shape, work, head),
          table(work.tables + static_cast<size_t>(head) * shape.table_bytes),
          page(step.block + static_cast<size_t>(head) * shape.format.page_bytes),
          sinks(work.sink_limit - (work.first_token + step.row)) {
        sinks = sinks < 0 ? 0 : sinks < step.n_rows ? sinks : step.n_rows;
    }
};

// Value tiles per step.
template <int kHead>
inline constexpr int kStepTiles = kStepTokens / ValueQuantizer<kHead, 2>::kRows;

// One warp. i: tile `i % tiles` of step `i / tiles`, which may have no rows in it.
template <int kHead, int kBits, class Threads>
LK_HD void stage_value_tile(const Threads& threads, const SideShape& shape, const AppendWork* works,
                            const PageStep* steps, int i, int head, ValueScratch& scratch) {
    using Quantizer = ValueQuantizer<kHead, kBits>;
    const StepPlace at(shape, works, steps, i / kStepTiles<kHead>, head);
    const PageStep& step = at.step;
    const int token = step.token / kStepTokens * kStepTokens + i % kStepTiles<kHead> * Quantizer::kRows;
    if (token + Quantizer::kRows <= step.token || token >= step.token + step.n_rows) {
        return;
    }
    const ValueTile tile{token, step.token, step.row, step.n_rows, at.sinks};
    Quantizer::quantize(threads, shape.format, at.rows, tile, at.table, scratch, at.page);
}

// One thread block. i: step, which is a group.
template <int kBits, int kTokens, int kHead, class Threads>
LK_HD void stage_key_group(const Threads& threads, const SideShape& shape, const AppendWork* works,
                           const PageStep* steps, int i, int head, uint8_t* memory) {
    const StepPlace at(shape, works, steps, i, head);
    KeyQuantizer<kBits, kTokens, kHead>::quantize(
        threads, shape.format, at.rows, KeyGroup{at.step.row, at.step.token, at.sinks}, at.table, memory, at.page);
}

}  // namespace lk::cuda
