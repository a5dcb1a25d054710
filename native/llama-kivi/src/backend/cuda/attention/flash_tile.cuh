// Flash attention: which tokens a thread block visits, in which order, and the addresses of the tokens of a tile.
//
// A query reads tokens below its bound F from pages and the others as exact rows (SideShape::paged_for). The queries of
// a block may have several bounds, which grow with the row. Tokens between the first and the last are visited twice: as
// codes, masked for the rows whose bound they are not below, and as exact rows, masked for the others.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kTile = kFlashTile;

// One side of one KV head, as the queries of a thread block see it.
struct Store {
    const SideWork& side;
    const SideShape& shape;
    size_t page_offset;
    int paged_first;  // tokens that the first and the last query read from pages of codes; 0: they read none
    int paged_last;
    int n_sinks;  // leading tokens that every query reads as exact rows
    int n_runs;   // staged pages included, if a query reads them
    const uint8_t* table;

    __device__ Store(const SideWork& work, const SideShape& form, int head, const QueryRows& rows)
        : side(work),
          shape(form),
          page_offset(static_cast<size_t>(head) * form.format.page_bytes),
          paged_first(paged_for(rows, 0)),
          paged_last(paged_for(rows, rows.n - 1)),
          n_sinks(form.format.quantized() ? max(work.n_sinks, work.staged.n_sinks) : 0),
          n_runs(work.n_runs + (paged_last > work.n_paged ? work.staged.n_pages : 0)),
          // The pass chooses tables only if the sequence has no codes yet.
          table((paged_last > work.n_paged ? work.staged.tables : work.tables) +
                static_cast<size_t>(head) * form.table_bytes) {}

    // Row r of the block reads tokens below this one from pages of codes.
    __device__ int paged_for(const QueryRows& rows, int r) const {
        return shape.format.quantized() ? shape.paged_for(side.n_paged, side.n_ring, rows.token_row(r)) : 0;
    }
    __device__ bool has_codes() const { return paged_last > n_sinks; }
    // Tokens below this one are exact for every query.
    __device__ int exact_end() const { return paged_last > 0 ? n_sinks : INT_MAX; }
    __device__ float factor() const {
        const ScaleKind kind = shape.format.scale_kind;
        const bool bytes = kind == ScaleKind::byte_pair || kind == ScaleKind::byte_token;
        return bytes && has_codes() ? ldexpf(1.0f, *reinterpret_cast<const int*>(table)) : 1.0f;
    }
};

// Whether every query has the same bound on both sides.
__device__ inline bool have_one_bound(const Store& k, const Store& v) {
    return k.shape.format.quantized() == v.shape.format.quantized() && k.side.n_paged == v.side.n_paged &&
           k.side.n_ring == v.side.n_ring && k.shape.trigger == v.shape.trigger && k.shape.leave == v.shape.leave &&
           k.shape.by_position == v.shape.by_position;
}

// What a row sees of a range: tokens below or from its bound on, per side.
enum Rule : unsigned { kKeysBelow = 1, kKeysFrom = 2, kValuesBelow = 4, kValuesFrom = 8, kPartly = 16 };

// The ranges of tokens in the order of visits. A place is a position in that order. Ranges with coded values come
// first.
struct Visits {
    static constexpr int kRanges = 7;
    // Rules of the ranges, 4 bits each. Keys below a bound are codes, the others exact rows; values too. Of two ranges
    // with exact rows on one side only, the first has the sinks of that side.
    static constexpr unsigned kRules = (kKeysBelow | kValuesBelow) | kValuesBelow << 4 |
                                       (kKeysFrom | kValuesBelow) << 8 | kKeysBelow << 12 |
                                       (kKeysBelow | kValuesFrom) << 16 | (kKeysFrom | kValuesFrom) << 24;
    int first[kRanges];  // first token
    int end[kRanges];    // place after the range

    // from: first token outside the page kernel's runs that a row sees.
    __device__ void plan(const Store& k, const Store& v, int from, int first_seen, int n_tokens) {
        const bool apart = !have_one_bound(k, v);
        int range = 0;
        int place = 0;
        // Adds tokens [begin, stop); returns the token after them.
        const auto add = [&](int begin, int stop) {
            place += max(0, stop - begin);
            first[range] = begin;
            end[range++] = place;
            return max(begin, stop);
        };
        add(max(from, max(k.n_sinks, v.n_sinks)), min(k.paged_last, v.paged_last));
        int after = add(max(from, v.n_sinks), min(k.exact_end(), v.paged_last));
        add(max(after, k.paged_first), apart ? v.paged_last : 0);
        after = add(max(from, k.n_sinks), min(v.exact_end(), k.paged_last));
        add(max(after, v.paged_first), apart ? k.paged_last : 0);
        after = add(first_seen, min(n_tokens, min(k.exact_end(), v.exact_end())));
        add(max(after, max(k.paged_first, v.paged_first)), n_tokens);
    }
};

// Up to 64 consecutive tokens; on each side they are either all in one run of codes or all in full precision.
struct Tile {
    int token;
    int n;
    int next;        // place of the next tile
    unsigned rules;  // see Rule; kPartly: some rows do not see some tokens by them
    int k_token;     // first token in the page of coded keys; -1: keys are exact
    int v_token;
    int frame;
    const uint8_t* k_page;
    const uint8_t* v_page;
};

__device__ Tile tile_at(const Visits& visits, const Store& k, const Store& v, int place, int end) {
    int range = 0;
    while (place >= visits.end[range]) {
        ++range;
    }
    Tile t{};
    t.token = visits.first[range] + place - (range > 0 ? visits.end[range - 1] : 0);
    t.n = min(kTile, min(visits.end[range], end) - place);
    t.rules = Visits::kRules >> (4 * range) & 15u;
    t.k_token = -1;
    t.v_token = -1;
    const bool k_coded = (t.rules & kKeysBelow) != 0;
    if (k_coded || (!k.shape.format.quantized() && t.token < k.side.n_paged)) {
        const Run& run = k.side.runs[find_run(k.side.runs, k.n_runs, t.token)];
        const int at = run.first + t.token - run.start;
        t.frame = run.frame;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - at % kTile);
        if (k_coded) {
            t.k_token = at;
            t.k_page = run.block + k.page_offset;
        }
    }
    if ((t.rules & kValuesBelow) != 0) {
        const Run& run = v.side.runs[find_run(v.side.runs, v.n_runs, t.token)];
        t.v_token = run.first + t.token - run.start;
        t.v_page = run.block + v.page_offset;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - t.v_token % kTile);
    }
    const int last = t.token + t.n;
    const bool partly = (k_coded && last > k.paged_first) || ((t.rules & kKeysFrom) != 0 && t.token < k.paged_last) ||
                        ((t.rules & kValuesBelow) != 0 && last > v.paged_first) ||
                        ((t.rules & kValuesFrom) != 0 && t.token < v.paged_last);
    t.rules |= partly ? kPartly : 0u;
    t.next = place + t.n;
    return t;
}

}  // namespace

}  // namespace lk::cuda
