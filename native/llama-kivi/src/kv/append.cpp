#include <algorithm>
#include <cstring>

#include "kv/storage.h"

namespace lk::kv {

void SequenceSide::reserve_scratch(int n_rows, FlushScratch& scratch) const {
    if (layout_.flushes(n_rows) == 0 || !spec_->format.quantized()) {
        return;
    }
    const size_t tokens = layout_.tables_chosen ? spec_->ageing.leave : spec_->ageing.trigger;
    scratch.rows.resize(std::max(scratch.rows.size(), tokens * spec_->format.head_size));
    scratch.column.resize(std::max(scratch.column.size(), tokens));
}

void SequenceSide::leave_ring(size_t head, Cursor at, int ring_start, int first_token, bool first_flush,
                              FlushScratch& scratch) {
    const AgeingRule& rule = spec_->ageing;
    const PageFormat& f = spec_->format;
    const size_t d = f.head_size;
    const half_t* ring = ring_.data() + head * rule.trigger * d;
    const auto ring_row = [&](int i) { return ring + static_cast<size_t>((ring_start + i) % rule.trigger) * d; };

    const int limit = layout_.sink_limit();
    for (int i = 0; i < rule.leave && first_token + i < limit; ++i) {
        std::copy_n(ring_row(i), d, sinks_.data() + (head * spec_->sinks + first_token + i) * d);
    }
    if (!f.quantized()) {
        for (int i = 0; i < rule.leave; ++i, at = at.advance(1)) {
            uint8_t* page = block_at(at.block).data.data() + head * f.page_bytes;
            std::memcpy(page + at.token * d * sizeof(half_t), ring_row(i), d * sizeof(half_t));
        }
        return;
    }
    const int n_floats = first_flush ? rule.trigger : rule.leave;
    float* const rows = scratch.rows.data();  // [n_floats, D]
    for (int i = 0; i < n_floats; ++i) {
        std::transform(ring_row(i), ring_row(i) + d, rows + i * d, half_to_float);
    }
    HeadTable& table = tables_[head];
    if (first_flush) {
        choose_head_table(f, rows, n_floats, first_token, limit, scratch.column.data(), table);
    }
    const int step = spec_->align;
    for (int i = 0; i < rule.leave; i += step, at = at.advance(step)) {
        const int sinks = std::clamp(limit - (first_token + i), 0, step);
        quantize_rows(f, table, rows + i * d, step, at.token, sinks,
                      block_at(at.block).data.data() + head * f.page_bytes);
    }
}

void SequenceSide::append(int layer, int head, const half_t* rows, int n_rows, FlushScratch& scratch) noexcept {
    const AgeingRule& rule = spec_->ageing;
    const size_t d = spec_->format.head_size;
    const size_t h = index(layer, head);
    half_t* ring = ring_.data() + h * rule.trigger * d;
    Cursor at = layout_.next_place();
    int start = layout_.ring_start;
    int count = layout_.n_ring;
    int first_token = layout_.n_paged;
    bool first_flush = !layout_.tables_chosen;
    for (int i = 0; i < n_rows; ++i) {
        std::copy_n(rows + i * d, d, ring + static_cast<size_t>((start + count) % rule.trigger) * d);
        if (++count == rule.trigger) {
            leave_ring(h, at, start, first_token, first_flush, scratch);
            first_flush = false;
            at = at.advance(rule.leave);
            start = (start + rule.leave) % rule.trigger;
            count -= rule.leave;
            first_token += rule.leave;
        }
    }
}

}  // namespace lk::kv
