// Flash attention: the two sides of a KV head as a thread block sees them, and the addresses of the tokens of a tile.
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/plan/visits.h"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kTile = kFlashTile;

// Row r of the block reads tokens below this one from pages of codes.
__device__ inline int paged_for(const SideWork& side, const SideShape& shape, const QueryRows& rows, int r) {
    return shape.format.quantized() ? shape.paged_for(side.n_paged, side.n_ring, rows.token_row(r)) : 0;
}

// One side of one KV head, as the queries of a thread block see it. In shared memory, because registers are scarce.
struct Store {
    size_t page_offset;
    const uint8_t* table;
    SeenSide seen;
    int n_runs;  // staged pages included, if a query reads them

    __device__ Store(const SideWork& side, const SideShape& shape, const QueryRows& rows)
        : page_offset(static_cast<size_t>(rows.head()) * shape.format.page_bytes),
          seen{paged_for(side, shape, rows, 0), paged_for(side, shape, rows, rows.n - 1),
               shape.format.quantized() ? max(side.n_sinks, side.staged.n_sinks) : 0},
          n_runs(side.n_runs) {
        const bool staged = seen.paged_last > side.n_paged;
        n_runs += staged ? side.staged.n_pages : 0;
        // The pass chooses tables only if the sequence has no codes yet.
        table = (staged ? side.staged.tables : side.tables) + static_cast<size_t>(rows.head()) * shape.table_bytes;
    }

    __device__ float factor(const SideShape& shape) const {
        const ScaleKind kind = shape.format.scale_kind;
        const bool bytes = kind == ScaleKind::byte_pair || kind == ScaleKind::byte_token;
        return bytes && seen.has_codes() ? ldexpf(1.0f, *reinterpret_cast<const int*>(table)) : 1.0f;
    }
};

// Whether every query has the same bound on both sides.
__device__ inline bool have_one_bound(const AttentionWork& a, const SegmentWork& seg) {
    return a.k.format.quantized() == a.v.format.quantized() && seg.k.n_paged == seg.v.n_paged &&
           seg.k.n_ring == seg.v.n_ring && a.k.trigger == a.v.trigger && a.k.leave == a.v.leave &&
           a.k.by_position == a.v.by_position;
}

// A flag of a tile beside its rules: some rows do not see some of its tokens by them.
constexpr unsigned kPartly = 16;

// Up to 64 consecutive tokens; on each side they are either all in one run of codes or all in full precision.
struct Tile {
    int token;
    int n;
    int next;        // place of the next tile
    int range;       // of the visits
    unsigned rules;  // see VisitRule and kPartly
    int k_token;     // first token in the page of coded keys; -1: keys are exact
    int v_token;
    int frame;
    const uint8_t* k_page;
    const uint8_t* v_page;
};

// The tile at a place. range: that of an earlier tile, or 0.
__device__ Tile tile_at(const AttentionWork& a, const SegmentWork& seg, const Visits& visits, const Store& k,
                        const Store& v, int range, int place, int end) {
    while (place >= visits.end[range]) {
        ++range;
    }
    Tile t{};
    t.token = visits.first[range] + place - (range > 0 ? visits.end[range - 1] : 0);
    t.n = min(kTile, min(visits.end[range], end) - place);
    t.range = range;
    t.rules = Visits::rules_of(range);
    t.k_token = -1;
    t.v_token = -1;
    const bool k_coded = (t.rules & kKeysBelow) != 0;
    if (k_coded || (!a.k.format.quantized() && t.token < seg.k.n_paged)) {
        const Run& run = seg.k.runs[find_run(seg.k.runs, k.n_runs, t.token)];
        const int at = run.first + t.token - run.start;
        t.frame = run.frame;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - at % kTile);
        if (k_coded) {
            t.k_token = at;
            t.k_page = run.block + k.page_offset;
        }
    }
    if ((t.rules & kValuesBelow) != 0) {
        const Run& run = seg.v.runs[find_run(seg.v.runs, v.n_runs, t.token)];
        t.v_token = run.first + t.token - run.start;
        t.v_page = run.block + v.page_offset;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - t.v_token % kTile);
    }
    const int last = t.token + t.n;
    const bool partly = (k_coded && last > k.seen.paged_first) ||
                        ((t.rules & kKeysFrom) != 0 && t.token < k.seen.paged_last) ||
                        ((t.rules & kValuesBelow) != 0 && last > v.seen.paged_first) ||
                        ((t.rules & kValuesFrom) != 0 && t.token < v.seen.paged_last);
    t.rules |= partly ? kPartly : 0u;
    t.next = place + t.n;
    return t;
}

}  // namespace

}  // namespace lk::cuda
