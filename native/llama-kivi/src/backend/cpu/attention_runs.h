// Runs of a sequence's tokens that attention on the CPU reads at once: in pages, and as exact rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "backend/cpu/attention_tile.h"
#include "backend/cpu/kernels.h"
#include "base/half.h"
#include "kv/storage.h"

namespace lk::cpu {

inline int padded(int n) {
    return (n + 15) / 16 * 16;  // Kernels::fold needs n % 16 == 0
}

// Splits tokens [begin, end), which the caller reads from pages, into runs inside one page. Calls
// visit(run, page, first, n, at): n tokens of the page from token `first` on; `at` counts from begin.
template <class Visit>
void for_each_run(const kv::SideView& view, int begin, int end, Visit visit) {
    int first = 0;  // token of the sequence at which the run begins
    for (const auto& runs : {view.pages, view.staged_pages}) {
        for (size_t i = 0; i < runs.size() && first < end; ++i) {
            const kv::PageRef& run = runs[i];
            const int from = std::max(begin, first);
            const int to = std::min(end, first + run.count);
            if (from < to) {
                visit(run, run.block->data.data() + view.page_offset, run.first + from - first, to - from,
                      from - begin);
            }
            first += run.count;
        }
    }
}

// Dequantizes n <= kDecodedRows contiguous rows of a q8_0 ring into rows[n, D].
inline void decode_ring(const Kernels& kernels, const kv::SideView& view, int token, int n, half_t* rows) {
    const int d = view.spec->format.head_size;
    const uint8_t* const blocks = view.ring_block_row(token);
    if (d % kBlock == 0) {
        kernels.half_blocks(LK_CACHE_Q8_0, blocks, n * d, rows);
        return;
    }
    for (int i = 0; i < n; ++i) {  // the last block of each row is short
        kv::decode_q8_row(blocks + i * view.spec->ring_row_bytes(), d, rows + i * d);
    }
}

// Splits tokens [begin, end) into contiguous exact rows. Calls visit(rows, n, at); `at` counts from begin. decoded:
// scratch for rows of a q8_0 ring, [kDecodedRows, D].
template <class Visit>
void for_each_exact(const Kernels& kernels, const kv::SideView& view, int begin, int end, half_t* decoded,
                    Visit visit) {
    for (int t = begin; t < end;) {
        int n = view.exact_run(t, end);
        if (view.in_ring_blocks(t)) {
            n = std::min(n, kDecodedRows);
            decode_ring(kernels, view, t, n, decoded);
            visit(decoded, n, t - begin);
        } else {
            visit(view.exact_row(t), n, t - begin);
        }
        t += n;
    }
}

// Rows [first, first + n) of a page of f32 or bf16. scratch: [n, D].
inline const float* float_rows(const kv::PageFormat& f, const uint8_t* page, int first, int n, float* scratch) {
    const uint8_t* const rows = page + first * f.row_bytes();
    if (f.type == LK_CACHE_F32) {
        return reinterpret_cast<const float*>(rows);
    }
    const auto* const from = reinterpret_cast<const uint16_t*>(rows);
    std::transform(from, from + static_cast<ptrdiff_t>(n) * f.head_size, scratch, bf16_to_float);
    return scratch;
}

// Head table of the pages. In the call that chooses it, pages hold no quantized token yet, so it is the staged one.
inline const kv::HeadTable& table_of(const kv::SideView& view) {
    return *view.staged_table;
}

}  // namespace lk::cpu
