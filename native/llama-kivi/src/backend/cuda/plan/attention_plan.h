// Which kernels compute attention, and into how many splits their work is cut. Host code without CUDA. C++17, for the
// kernels' files too.
#pragma once

#include "kv/kivi_format.h"

namespace lk::cuda {

enum class AttentionKernel {
    none,
    flash,        // many query rows, or tokens that no other kernel reads
    rows,         // few query rows, tokens in full precision
    block_pages,  // few query rows, pages of q8_0 or q4_0
    pages,        // few query rows, KIVI pages
    pages_row,    // one query row of a KV head, KIVI pages
};

// A kernel as it is compiled.
struct AttentionVariant {
    AttentionKernel kernel = AttentionKernel::none;
    lk_cache_type type = LK_CACHE_F16;  // of the tokens; flash reads every type and is compiled once
    int width = 0;                      // head size; flash pads smaller heads with zeros
    int n_rows = 0;                     // query rows of a thread block
    int n_tokens = 0;                   // tokens that a thread block reads at once
};

constexpr int kAttentionWarps = 4;  // of a thread block
constexpr int kFewRows = 4;         // of a segment, or query rows: up to here the decoding kernels are used
constexpr int kFlashTile = 64;      // tokens
constexpr int kFlashSplitRows =
    48;                        // query rows of a KV head: up to here the warps of flash share rows and split tokens
constexpr int kPagesRows = 8;  // query rows of a thread block of `pages`

// Tiles of 16 query rows of a warp of flash; a warp that splits tokens has one.
constexpr int flash_row_tiles(int width, bool splits_tokens) {
    return splits_tokens || width > 128 ? 1 : 2;
}

// Query rows of a thread block of flash.
constexpr int flash_rows(int width, bool splits_tokens) {
    return splits_tokens ? 16 : kAttentionWarps * 16 * flash_row_tiles(width, splits_tokens);
}

// Segments that the same kernels take.
struct AttentionRequest {
    kv::PageFormat k;
    kv::PageFormat v;
    int n_head;
    int n_head_kv;
    int n_segments;
    int max_rows;       // of a segment
    int max_tokens;     // of a segment, without those in page_runs
    int max_page_runs;  // of a segment: runs of whole pages that a page kernel reads
    bool exact;         // all tokens outside page_runs are in full precision, for the positions they have now

    int query_rows() const { return max_rows * (n_head / n_head_kv); }  // of a KV head
};

// The kernel that reads runs of whole pages for few query rows of a KV head. `none`: there is none for this pair of
// formats, and flash reads the pages. Throws LK_UNSUPPORTED for a cache type it does not know.
AttentionVariant select_pages(const kv::PageFormat& k, const kv::PageFormat& v, int query_rows);

inline bool supports_pages(const kv::PageFormat& k, const kv::PageFormat& v) {
    return select_pages(k, v, 1).kernel != AttentionKernel::none;
}

struct AttentionChoice {
    AttentionVariant rest;   // for the tokens outside page_runs
    AttentionVariant pages;  // none without page runs
};

// Throws LK_UNSUPPORTED, naming types and shape, if no kernel computes the request.
AttentionChoice select_attention(const AttentionRequest& request);

struct AttentionSplits {
    int rest;
    int pages;  // 0 without page runs

    int all() const { return rest + pages; }
};

// Thread blocks of one split.
int attention_blocks(const AttentionRequest& request, const AttentionVariant& variant);

// rest_slots, page_slots: thread blocks of the chosen kernels that the device runs at once.
AttentionSplits split_attention(const AttentionRequest& request, const AttentionChoice& choice, int rest_slots,
                                int page_slots);

// Throws LK_INTERNAL_ERROR: select_attention chose a variant that is not compiled.
[[noreturn]] void fail_variant(const AttentionVariant& variant);

}  // namespace lk::cuda
