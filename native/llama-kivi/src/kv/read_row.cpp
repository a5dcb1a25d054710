#include "kv/read_row.h"

#include <algorithm>
#include <cstddef>

#include "base/half.h"
#include "kv/bookkeeping.h"
#include "kv/kivi_format.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

void read_row(const SideView& view, int token, const Rotation& rotation, float* out) {
    const int d = view.spec->format.head_size;
    const auto from_half = [&](const half_t* row) { std::transform(row, row + d, out, half_to_float); };
    if (token < view.n_sinks) {
        from_half(view.sinks + token * d);
    } else if (token < view.n_paged) {
        size_t page = 0;
        for (; token >= view.pages[page].count; ++page) {
            token -= view.pages[page].count;
        }
        const PageRef& ref = view.pages[page];
        dequantize_row(view.spec->format, *view.table, view.page(page), ref.first + token, out);
        if (view.spec->format.side == Side::keys && ref.frame != 0) {
            rotate_heads(rotation, -ref.frame, out, 1, d);
        }
    } else if (token < view.length()) {
        const size_t row = (view.ring_start + token - view.n_paged) % view.spec->ageing.trigger;
        if (view.ring_blocks != nullptr) {
            half_t halves[kMaxHeadSize];
            decode_q8_row(view.ring_blocks + row * view.spec->ring_row_bytes(), d, halves);
            from_half(halves);
        } else {
            from_half(view.ring + row * d);
        }
    } else {
        from_half(view.staged + (token - view.length()) * d);
    }
}

}  // namespace lk::kv
