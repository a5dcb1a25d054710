// Selects attention kernels and the number of splits. Host code without CUDA; C++17, because kernels include it too.
#pragma once

#include "backend/invariant_splits.h"
#include "kv/codec/kivi_format.h"

namespace lk::cuda {

enum class AttentionKernel {
    none,
    flash,        // many query rows, or tokens that no other kernel reads
    flash_wgmma,  // the same for more query rows than a block of flash has, on a device with wgmma
    rows,         // few query rows, tokens in full precision
    ring_rows,    // the same with tokens in a q8_0 ring
    ring_group,   // the same for one row of a segment and several query heads per KV head
    whole,        // one query row per KV head: tokens in full precision or in a q8_0 ring, and pages of a KIVI type
    block_pages,  // few query rows, pages of q8_0 or q4_0
    pages,        // few query rows, KIVI pages
    pages_row,    // one query row of a KV head, KIVI pages
};

constexpr int kAttentionWarps = 4;  // warps per thread block
// The same of `whole` for few sequences: four with a page each, seven with a tile each of a ring of 224 rows. Their
// tiles fit into the shared memory of a thread block of compute capability 8.6.
constexpr int kWholeWarps = 11;

// A compiled kernel.
struct AttentionVariant {
    AttentionKernel kernel = AttentionKernel::none;
    lk_cache_type type = LK_CACHE_F16;  // cache type it reads; flash reads every type and is compiled once
    int width = 0;                      // head size; flash pads smaller heads with zeros
    int n_rows = 0;                     // query rows per thread block
    int n_tokens = 0;                   // tokens per step of a thread block
    int n_warps = kAttentionWarps;      // per thread block, of decoding kernels
};

constexpr int kRowTile = 32;     // tokens that a warp of a decoding kernel reads at once, row by row
constexpr int kFewRows = 4;      // the decoding kernels are used up to this many rows or query rows of a segment
constexpr int kGroupedRows = 8;  // the same for one row and a q8_0 ring: more query rows are for flash
constexpr int kFlashTile = 64;   // tokens
constexpr int kFlashSplitRows =
    48;  // up to this many query rows per KV head, the warps of flash split tokens instead of rows
static_assert(InvariantSplits::kSteps == kAttentionWarps);  // a step: 32 tokens, or a page
constexpr int kPagesRows = 8;                               // query rows per thread block of `pages`
constexpr int kPairedRows = 4;                              // the same if a KV head has no more

// Tiles of 16 query rows per warp of flash; 1 if its warps split tokens.
constexpr int flash_row_tiles(int width, bool splits_tokens) {
    return splits_tokens || width > 128 ? 1 : 2;
}

constexpr int kWgmmaRows = 256;  // query rows per thread block of flash_wgmma

// Query rows per thread block of flash.
constexpr int flash_rows(int width, bool splits_tokens) {
    return splits_tokens ? 16 : kAttentionWarps * 16 * flash_row_tiles(width, splits_tokens);
}

// A group of segments for the same kernels.
struct AttentionRequest {
    kv::PageFormat k;
    kv::PageFormat v;
    int n_head;
    int n_head_kv;
    int n_segments;
    int max_rows;        // most rows of a segment
    int max_tokens;      // most tokens of a segment, without those in page_runs
    int max_page_runs;   // most runs per segment that the page kernel reads
    bool exact;          // all tokens outside page_runs are in full precision and without a frame
    bool invariant;      // a segment's kernels and splits do not depend on the others
    bool wgmma = false;  // see Processors

    int query_rows() const { return max_rows * (n_head / n_head_kv); }  // per KV head
};

// Selects the kernel that reads page runs for few query rows per KV head. Returns `none` if no page kernel reads this
// pair of formats; flash reads the pages then. Throws LK_UNSUPPORTED for an unknown cache type.
AttentionVariant select_pages(const kv::PageFormat& k, const kv::PageFormat& v, int query_rows);

inline bool supports_pages(const kv::PageFormat& k, const kv::PageFormat& v) {
    return select_pages(k, v, 1).kernel != AttentionKernel::none;
}

struct AttentionChoice {
    AttentionVariant rest;   // reads the tokens outside page_runs
    AttentionVariant pages;  // reads page_runs; `none` if there are none
};

// Throws LK_UNSUPPORTED if no kernel computes the request; the message names types and shape.
AttentionChoice select_attention(const AttentionRequest& request);

struct AttentionSplits {
    int rest;
    int pages;  // 0 without page runs

    int all() const { return rest + pages; }
};

// Number of thread blocks per split.
int attention_blocks(const AttentionRequest& request, const AttentionVariant& variant);

// Whether one launch may read a segment of so many page runs: up to one per warp.
constexpr bool is_short(int page_runs) {
    return page_runs <= kAttentionWarps;
}

// Returns the kernel that reads all tokens of short sequences in one launch. Returns `none` for long sequences, for
// which kernels of their own are faster per page. The segments of a batch-invariant request are all short or all long
// if there is such a kernel; see attention_requests.
AttentionVariant select_whole(const AttentionRequest& request);

// rest_slots, page_slots: how many thread blocks of each chosen kernel the device runs at once.
AttentionSplits split_attention(const AttentionRequest& request, const AttentionChoice& choice, int rest_slots,
                                int page_slots);

// The launches of a group of segments.
struct AttentionLaunches {
    AttentionChoice choice;
    AttentionSplits splits;
};

// slots_of(variant): how many of its thread blocks the device runs at once.
template <class SlotsOf>
AttentionLaunches plan_attention(const AttentionRequest& request, SlotsOf&& slots_of) {
    const AttentionChoice choice = select_attention(request);
    const AttentionVariant whole = select_whole(request);
    if (whole.kernel != AttentionKernel::none) {
        AttentionVariant wide = whole;
        wide.n_warps = kWholeWarps;
        // With more blocks, their shared memory would keep those of the next matmul from fetching weights meanwhile.
        const int n_blocks = attention_blocks(request, wide) * request.n_segments;
        const bool paged = request.max_page_runs > 0;
        const bool fits = paged || request.max_tokens <= kRowTile * (kWholeWarps - 1);  // a tile per warp
        if (!request.invariant && fits && 2 * n_blocks <= slots_of(wide)) {
            return {{wide, {}}, {1, 0}};
        }
        // Without pages another kernel may divide the tokens. A batch-invariant pass has one kernel for all short
        // segments, because compilers may round the same formula differently in another.
        if (request.invariant || paged) {
            return {{whole, {}}, {1, 0}};
        }
    }
    const bool pages = choice.pages.kernel != AttentionKernel::none;
    return {choice, split_attention(request, choice, slots_of(choice.rest), pages ? slots_of(choice.pages) : 0)};
}

// Throws LK_INTERNAL_ERROR, for a selected variant that is not compiled.
[[noreturn]] void fail_variant(const AttentionVariant& variant);

}  // namespace lk::cuda
