#include "kv/read_row.h"

#include <algorithm>
#include <cstddef>

#include "base/half.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/rotation.h"
#include "kv/storage.h"

namespace lk::kv {

void read_row(const SideView& view, int token, int paged, const Rotation& rotation, float* out) {
    const int d = view.spec->format.head_size;
    if (token < view.sinks_for(paged) || token >= paged) {
        half_t decoded[kMaxHeadSize];
        const half_t* row = decoded;
        if (view.in_ring_blocks(token)) {
            decode_q8_row(view.ring_block_row(token), d, decoded);
        } else {
            row = view.exact_row(token);
        }
        std::transform(row, row + d, out, half_to_float);
        return;
    }
    const bool staged = token >= view.n_paged;
    token -= staged ? view.n_paged : 0;
    size_t i = 0;
    for (const auto& runs = staged ? view.staged_pages : view.pages; token >= runs[i].count; ++i) {
        token -= runs[i].count;
    }
    const PageRef& run = staged ? view.staged_pages[i] : view.pages[i];
    dequantize_row(view.spec->format, staged ? *view.staged_table : *view.table,
                   staged ? view.staged_page(i) : view.page(i), run.first + token, out);
    if (view.spec->format.side == Side::keys && run.frame != 0) {
        rotate_heads(rotation, -run.frame, out, 1, d);
    }
}

}  // namespace lk::kv
