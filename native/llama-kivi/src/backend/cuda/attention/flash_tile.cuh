// Flash attention: addresses of the tokens of a tile, on both sides.
#pragma once

#include "backend/cuda/attention/common.cuh"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kTile = kFlashTile;

// One side of one KV head.
struct Store {
    const SideWork& side;
    const SideShape& shape;
    size_t page_offset;
    const uint8_t* table;
    int n_coded;  // leading tokens whose pages hold codes; includes the sinks
    int n_sinks;

    __device__ Store(const SideWork& work, const SideShape& form, int head)
        : side(work),
          shape(form),
          page_offset(static_cast<size_t>(head) * form.format.page_bytes),
          table(work.tables + static_cast<size_t>(head) * form.table_bytes),
          n_coded(form.format.quantized() ? work.n_paged : 0),
          n_sinks(form.format.quantized() ? work.n_sinks : 0) {}

    __device__ float factor() const {
        const ScaleKind kind = shape.format.scale_kind;
        const bool bytes = kind == ScaleKind::byte_pair || kind == ScaleKind::byte_token;
        return bytes ? ldexpf(1.0f, *reinterpret_cast<const int*>(table)) : 1.0f;
    }
};

// Up to 64 consecutive tokens; on each side they are either all in one run of codes or all in full precision.
// Tiles visit the tokens with coded values first, then the sinks, then the rest.
struct Tile {
    int token;
    int n;
    int next;     // position of the next tile in the visiting order
    int k_token;  // first token in the page of coded keys; -1: keys are exact
    int v_token;
    int frame;
    const uint8_t* k_page;
    const uint8_t* v_page;
};

__device__ Tile tile_at(const Store& k, const Store& v, int place, int end) {
    Tile t{};
    const bool coded = place < v.n_coded;
    const bool sinks = !coded && place < v.n_coded + v.n_sinks;
    t.token = coded ? place : sinks ? place - v.n_coded : place - v.n_sinks;
    t.n = min(kTile, (coded ? v.n_coded : sinks ? v.n_coded + v.n_sinks : end) - place);
    t.n = min(t.n, end - place);
    t.k_token = -1;
    t.v_token = -1;
    // Tokens masked because their values are sinks may have any keys.
    const int k_sinks = coded && k.n_sinks == v.n_sinks ? 0 : k.n_sinks;
    if (t.token < k_sinks) {
        t.n = min(t.n, k_sinks - t.token);
    } else if (t.token < k.side.n_paged) {
        const Run& run = k.side.runs[find_run(k.side, t.token)];
        const int at = run.first + t.token - run.start;
        t.frame = run.frame;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - at % kTile);
        if (k.n_coded > 0) {
            t.k_token = at;
            t.k_page = run.block + k.page_offset;
        }
    }
    if (coded) {
        const Run& run = v.side.runs[find_run(v.side, t.token)];
        t.v_token = run.first + t.token - run.start;
        t.v_page = run.block + v.page_offset;
        t.n = min(min(t.n, run.start + run.count - t.token), kTile - t.v_token % kTile);
    }
    t.next = place + t.n;
    return t;
}

}  // namespace

}  // namespace lk::cuda
