// Flash attention: the two sides of a KV head as a thread block sees them, and the addresses of the tokens of a tile.
#pragma once

#include "backend/cuda/attention/flash_rows.cuh"
#include "backend/cuda/plan/visits.h"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kTile = kFlashTile;

// A compiled shape of the kernel. A warp has kM tiles of 16 query rows and kN tiles of 8 tokens.
// kHalves: all rows of keys and values are halves. They have two buffers each then, and one barrier per tile.
template <int kHeadSize, bool kSplitTokens, int kBlockWarps, bool kOnlyHalves = false>
struct FlashShape {
    static constexpr bool kHalves = kOnlyHalves;
    static constexpr int kBuffers = kHalves ? 2 : 1;
    static constexpr int kD = kHeadSize;
    static constexpr bool kSplit = kSplitTokens;
    static constexpr int kWarps = kBlockWarps;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kRows = flash_rows(kD, kSplit);  // query rows per thread block
    static constexpr int kM = kSplit ? 1 : kRows / (16 * kWarps);
    static constexpr int kN = kSplit ? kTile / kWarps / 8 : kTile / 8;
    static constexpr int kStride = kD + 8;  // halves per row in shared memory; eight rows are in different banks
    using Rows = StridedRows<kStride>;      // of keys and values
    using Queries = Rows;
    static constexpr int kLoaders = kThreads;  // threads that load a tile together
    static __device__ int loader() { return Rows::thread(); }
};

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

// One side of a tile. Its tokens are either all codes of one page, or all exact rows that follow each other in memory.
struct TileSide {
    enum class Form { codes, halves, q8_rows, floats };
    Form form;
    int token;            // codes: first token in the page; floats: bytes from a row to the next
    const uint8_t* from;  // codes: the page; otherwise the first row

    __device__ bool coded() const { return form == Form::codes; }
};

// Up to 64 consecutive tokens.
struct Tile {
    int token;
    int n;
    int next;        // place of the next tile
    int range;       // of the visits
    unsigned rules;  // see VisitRule and kPartly
    int frame;
    TileSide k;
    TileSide v;
};

// Rows of f32 or bf16, in a page or staged as in a page.
__device__ inline TileSide float_side(const SideWork& side, const SideShape& shape, int head, Tile& tile) {
    const int token = tile.token;
    if (token < side.n_paged) {
        const Run& run = side.runs[find_run(side.runs, side.n_runs, token)];
        const int row_bytes = static_cast<int>(shape.format.row_bytes());
        const uint8_t* const page = run.block + static_cast<size_t>(head) * shape.format.page_bytes;
        tile.n = min(tile.n, run.start + run.count - token);
        return {TileSide::Form::floats, row_bytes, page + (run.first + token - run.start) * row_bytes};
    }
    const size_t row = static_cast<size_t>(head) * shape.n_ubatch + (token - side.n_paged);
    tile.n = min(tile.n, kTile);
    return {TileSide::Form::floats, 2 * shape.staged_width,
            reinterpret_cast<const uint8_t*>(side.staged.rows + row * shape.staged_width)};
}

// Shortens `tile` to the tokens whose exact rows follow each other, and returns them.
__device__ inline TileSide exact_side(const SideWork& side, const SideShape& shape, int head, int d, Tile& tile) {
    using Form = TileSide::Form;
    const int token = tile.token;
    if (shape.format.floats()) {
        return float_side(side, shape, head, tile);
    }
    const auto halves = [&](const uint16_t* rows, size_t row, int n) {
        tile.n = min(tile.n, n);
        return TileSide{Form::halves, 0, reinterpret_cast<const uint8_t*>(rows + row * d)};
    };
    if (token < side.n_sinks) {
        return halves(side.sinks, static_cast<size_t>(head) * shape.sinks + token, side.n_sinks - token);
    }
    if (token < side.n_paged) {
        const Run& run = side.runs[find_run(side.runs, side.n_runs, token)];
        const uint8_t* const page = run.block + static_cast<size_t>(head) * shape.format.page_bytes;
        return halves(reinterpret_cast<const uint16_t*>(page), run.first + token - run.start,
                      run.start + run.count - token);
    }
    const int i = token - side.n_paged;
    if (i < side.n_ring) {
        const int at =
            side.ring_start + i < shape.ring_rows ? side.ring_start + i : side.ring_start + i - shape.ring_rows;
        const size_t row = static_cast<size_t>(head) * shape.ring_rows + at;
        const int n = min(side.n_ring - i, shape.ring_rows - at);
        if (side.ring_blocks == nullptr) {
            return halves(side.ring, row, n);
        }
        tile.n = min(tile.n, n);
        return {Form::q8_rows, 0, side.ring_blocks + row * shape.ring_row_bytes};
    }
    return halves(side.staged.rows, static_cast<size_t>(head) * shape.n_ubatch + i - side.n_ring, kTile);
}

// The tile at a place. range: that of an earlier tile, or 0.
__device__ inline Tile tile_at(const AttentionWork& a, const SegmentWork& seg, int head, const Visits& visits,
                               const Store& k, const Store& v, int range, int place, int end) {
    while (place >= visits.end[range]) {
        ++range;
    }
    Tile t{};
    t.token = visits.first[range] + place - (range > 0 ? visits.end[range - 1] : 0);
    t.n = min(kTile, min(visits.end[range], end) - place);
    t.range = range;
    t.rules = Visits::rules_of(range);
    const auto codes = [&](const Run* runs, int n_runs, size_t page_offset, int* frame) {
        const Run& run = runs[find_run(runs, n_runs, t.token)];
        const int at = run.first + t.token - run.start;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - at % kTile);
        if (frame != nullptr) {
            *frame = run.frame;
        }
        return TileSide{TileSide::Form::codes, at, run.block + page_offset};
    };
    const bool k_coded = (t.rules & kKeysBelow) != 0;
    if (k_coded || (!a.k.format.quantized() && t.token < seg.k.n_paged)) {
        t.k = codes(seg.k.runs, k.n_runs, k.page_offset, &t.frame);
    }
    if (!k_coded) {
        t.k = exact_side(seg.k, a.k, head, a.head_size, t);
    }
    t.v = (t.rules & kValuesBelow) != 0 ? codes(seg.v.runs, v.n_runs, v.page_offset, nullptr)
                                        : exact_side(seg.v, a.v, head, a.head_size, t);
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
