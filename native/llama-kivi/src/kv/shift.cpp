// Removes tokens from the middle of a side.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/half.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

void SequenceSide::remove(int begin, int end, const Rotation& rotation) {
    end = std::min(end, length());
    if (begin >= end) {
        return;
    }
    if (end < length()) {
        move_exact(begin, end, rotation);
    }
    layout_.remove(begin, end);
    drop_unused();
}

// Moves sink and ring rows, and rotates keys among them to their new positions.
void SequenceSide::move_exact(int begin, int end, const Rotation& rotation) {
    const size_t d = spec_->format.head_size;
    const bool blocks = spec_->ring_in_blocks();
    const size_t row_bytes = spec_->ring_row_bytes();
    const int n_rows = spec_->ring_rows();
    std::vector<half_t> halves(d);
    std::vector<float> row(d);
    // Loads a row into `row` and rotates a key back by `by` positions.
    const auto load = [&](const half_t* from, int by) {
        std::transform(from, from + d, row.begin(), half_to_float);
        if (by != 0 && spec_->format.side == Side::keys) {
            rotate_heads(rotation, -by, row.data(), 1, static_cast<int>(d));
        }
    };
    const auto store = [&](half_t* to) { std::transform(row.begin(), row.end(), to, float_to_half); };

    SideLayout after = layout_;
    after.remove(begin, end);
    const int n_sink_rows = layout_.sink_rows();
    const int removed = std::max(0, std::min(end, n_sink_rows) - begin);
    std::vector<uint8_t> ring(n_rows * row_bytes);
    std::vector<half_t> all_sinks(spec_->sink_elements());
    std::vector<uint8_t> all_rings(spec_->ring_bytes());
    memory().read(all_sinks.data(), at(places_.sinks), spec_->sink_bytes());
    memory().read(all_rings.data(), slot_.data(), spec_->ring_bytes());
    for (size_t head = 0; head < spec_->head_count(); ++head) {
        half_t* sinks = all_sinks.data() + head * spec_->sinks * d;
        for (int i = begin + removed; i < n_sink_rows && removed > 0; ++i) {
            load(sinks + i * d, end - begin);
            store(sinks + (i - removed) * d);
        }
        uint8_t* old = all_rings.data() + head * n_rows * row_bytes;
        int kept = 0;
        for (int i = 0; i < layout_.n_ring; ++i) {
            const int token = layout_.n_paged + i;
            if (token >= begin && token < end) {
                continue;
            }
            const uint8_t* const from = old + layout_.ring_row(i) * row_bytes;
            uint8_t* const to = ring.data() + kept * row_bytes;
            const int by = token >= end ? end - begin : 0;
            if (blocks) {
                decode_q8_row(from, static_cast<int>(d), halves.data());
            }
            load(blocks ? halves.data() : reinterpret_cast<const half_t*>(from), by);
            if (by == 0 || spec_->format.side == Side::values) {
                std::copy_n(from, row_bytes, to);  // rounding again could change the row
            } else if (blocks) {
                encode_q8_row(row.data(), static_cast<int>(d), to);
            } else {
                store(reinterpret_cast<half_t*>(to));
            }
            // A token that moved below S is a sink from now on.
            const int position = after.n_paged + kept++;
            if (position >= n_sink_rows - removed && position < after.sink_rows()) {
                store(sinks + position * d);
            }
        }
        std::copy_n(ring.data(), kept * row_bytes, old);
    }
    memory().write(at(places_.sinks), all_sinks.data(), spec_->sink_bytes());
    memory().write(slot_.data(), all_rings.data(), spec_->ring_bytes());
}

}  // namespace lk::kv
