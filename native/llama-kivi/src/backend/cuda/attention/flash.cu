// Flash attention: for many query rows, and for everything the kernels for few rows do not read (other head sizes,
// mixed cache types, pages with a frame). Tiles of 64 tokens are dequantized to halves in shared memory and multiplied
// on tensor cores (FlashAttention-2, Dao 2023: online softmax over tiles; probabilities stay in registers).
//
// kD     head size, or larger; the channels beyond the head size are zeros
// tall   a warp has 32 query rows (16 for head size 256); all four warps read every tile
// split  up to 16 query rows: all warps have the same rows, and each has a quarter of the tile's tokens
//
// Tokens whose values are codes come first. Their sum accumulates in the frame of the codes (rotated, centred, without
// the head's power of two) and is converted once, before the first exact value. plan/visits.h describes which
// tokens a row sees as codes.
#include "backend/cuda/attention/flash_stages.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// Grid: [KV heads * groups of kRows query rows, splits, segments].
template <int kD, bool kSplit>
__global__ void __launch_bounds__(kThreads, kD <= 128 ? 2 : 1) attention_flash_kernel(const AttentionWork a) {
    after_previous();
    using S = Sizes<kD, kSplit>;
    constexpr int kStride = S::kStride;
    extern __shared__ __align__(16) char shared[];
    const SegmentWork& seg = a.segments[blockIdx.z];
    const int d = a.head_size;
    const int block = d & -d;  // of the Hadamard transform, at least 8
    const int n_blocks = (seg.n_rows * (a.n_head / a.n_head_kv) + S::kRows - 1) / S::kRows;
    const int last_first = n_blocks - 1 - static_cast<int>(blockIdx.x) / a.n_head_kv;  // schedule the longest first
    if (last_first < 0) {
        return;
    }
    const QueryRows rows(a, seg, S::kRows, last_first);
    const int head = rows.head();
    const Lane at{};
    const bool k_blocks = a.k.format.blocks();
    const bool refined = a.k.format.refined_keys();
    const bool corrected = a.k.format.recipe.score_correction;
    uint16_t* const q = reinterpret_cast<uint16_t*>(shared);
    uint16_t* const tiles =
        reinterpret_cast<uint16_t*>(shared + S::kTiles);  // [2 buffers, keys and values, 64, stride]
    auto* const pointers = reinterpret_cast<ExactRow*>(shared + S::kPointers);
    uint8_t* const wide = reinterpret_cast<uint8_t*>(shared + S::kWide);
    uint16_t* const squares = reinterpret_cast<uint16_t*>(shared + S::kSquares);
    int* const bounds = reinterpret_cast<int*>(shared + S::kBounds);
    Visits& visits = *reinterpret_cast<Visits*>(shared + S::kVisits);
    Store* const stores = reinterpret_cast<Store*>(shared + S::kStores);
    plan_visits<S::kRows>(a, seg, rows, stores[0], stores[1], bounds, visits);
    const Store& k = stores[0];
    const Store& v = stores[1];
    const float k_factor = k.factor(a.k);
    const float correction = k_factor * k_factor * (1 / (24 * 1.44269504f));  // for scores in base 2
    const Places places = places_of_split(a, visits);
    const int begin = places.begin;
    const int end = places.end;

    // Rows without a token are multiplied by zeros, so they must not be NaN.
    for (int i = threadIdx.x; i < 2 * 2 * S::kSide / 4; i += kThreads) {
        reinterpret_cast<unsigned*>(tiles)[i] = 0;
    }
    for (int i = threadIdx.x; i < kTileGroups * kStride; i += kThreads) {
        reinterpret_cast<unsigned*>(squares)[i] = 0;
    }
    for (int i = threadIdx.x; i < kD; i += kThreads) {
        wide[i] = 1;
    }
    if (refined && k.seen.has_codes()) {
        __syncthreads();
        for (int i = threadIdx.x; i < a.k.format.rows - d; i += kThreads) {
            wide[reinterpret_cast<const uint16_t*>(k.table + 4)[i]] = 4;
        }
    }

    // ---- stage "load tile": loads the next tile while the current one is multiplied
    const auto point = [&](const Tile& t, int buffer) {
        const int i = threadIdx.x % kTile;
        const bool keys = threadIdx.x < kTile;
        if (i < t.n && (keys ? t.k_token : t.v_token) < 0) {
            pointers[(buffer * 2 + (keys ? 0 : 1)) * kTile + i] =
                keys ? row_of(seg.k, a.k, head, d, t.token + i) : row_of(seg.v, a.v, head, d, t.token + i);
        }
    };
    const auto load = [&](const Tile& t, int buffer) {
        uint16_t* const keys = tiles + buffer * 2 * kTile * kStride;
        uint16_t* const values = keys + kTile * kStride;
        if (t.k_token < 0) {
            load_rows<kD, kStride>(a.k.format, pointers + buffer * 2 * kTile, t.n, d, keys);
        } else if (k_blocks) {
            load_blocks<kD, kStride>(a.k.format, t.k_page + t.k_token * a.k.format.row_bytes(), t.n, keys);
        } else {
            with_known<kD>(a.k.format, [&](auto known) { load_keys<kStride>(known, t, k_factor, wide, keys); });
        }
        if (t.v_token < 0) {
            load_rows<kD, kStride>(a.v.format, pointers + (buffer * 2 + 1) * kTile, t.n, d, values);
        } else if (a.v.format.blocks()) {
            load_blocks<kD, kStride>(a.v.format, t.v_page + t.v_token * a.v.format.row_bytes(), t.n, values);
        } else {
            with_known<kD>(a.v.format, [&](auto known) { load_values<kStride>(known, t, values); });
        }
        if (corrected && t.k_token >= 0) {
            square_scales<kStride>(a.k.format, t, squares + buffer * kTileGroups * kStride);
        }
        if (refined && t.k_token >= 0) {
            __syncthreads();
            with_refined<kD>(a.k.format, [&](auto known) { refine_keys<kStride>(known, k.table, t, k_factor, keys); });
        }
        copy_commit();
    };

    Output<kD, kSplit> output;
    output.clear();
    int frame = 0;
    bool turned = false;
    load_queries<kD, kSplit>(a, rows, at, d, block, 0, false, q);
    Tile tile{};
    if (begin < end) {
        tile = tile_at(a, seg, visits, k, v, 0, begin, end);
        point(tile, 0);
    }
    bool in_codes = begin < end && tile.v_token >= 0;
    __syncthreads();
    if (begin < end) {
        load(tile, 0);
    }
    int buffer = 0;
    for (int place = begin; place < end; buffer ^= 1) {
        Tile next{};
        if (tile.next < end) {
            next = tile_at(a, seg, visits, k, v, tile.range, tile.next, end);
            point(next, buffer ^ 1);
        }
        copy_wait<0>();
        __syncthreads();
        if (tile.next < end) {
            load(next, buffer ^ 1);
        }
        const bool turn = k_blocks && tile.k_token >= 0;
        if (tile.frame != frame || turn != turned) {
            frame = tile.frame;
            turned = turn;
            __syncthreads();
            load_queries<kD, kSplit>(a, rows, at, d, block, frame, turned, q);
            __syncthreads();
        }
        if (in_codes && tile.v_token < 0) {
            in_codes = false;
            turn_back(a.v, v, at, d, block, output);
        }
        const uint16_t* const keys = tiles + buffer * 2 * kTile * kStride;
        const uint16_t* const values = keys + kTile * kStride;
        const WarpTile<kD, kSplit> warp_tile(at);
        typename WarpTile<kD, kSplit>::Scores score;
        float* const corrections =
            corrected && tile.k_token >= 0 ? reinterpret_cast<float*>(shared + S::kCorrections) : nullptr;
        if (corrections != nullptr) {
            warp_tile.correct(q, squares + buffer * kTileGroups * kStride, correction, corrections);
        }
        warp_tile.multiply_keys(q, keys, corrections, tile.k_token, a.k.format.group, score);
        warp_tile.hide_tokens(rows, tile, bounds, a, score);
        warp_tile.update_softmax(score, output);
        warp_tile.add_values(score, values, output);
        place = tile.next;
        tile = next;
    }
    if (in_codes) {
        turn_back(a.v, v, at, d, block, output);
    }
    if constexpr (kSplit) {
        merge_warps(a, rows, at, output, reinterpret_cast<float*>(shared));
    } else {
        store_rows(a, rows, at, d, output);
    }
}

template <int kD>
AttentionFunction function_of_rows(const AttentionVariant& variant) {
    if (variant.n_rows == Sizes<kD, true>::kRows) {
        return {reinterpret_cast<const void*>(attention_flash_kernel<kD, true>), Sizes<kD, true>::kBytes};
    }
    if (variant.n_rows == Sizes<kD, false>::kRows) {
        return {reinterpret_cast<const void*>(attention_flash_kernel<kD, false>), Sizes<kD, false>::kBytes};
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction flash_function(const AttentionVariant& variant) {
    switch (variant.width) {
    case 64:
        return function_of_rows<64>(variant);
    case 96:
        return function_of_rows<96>(variant);
    case 128:
        return function_of_rows<128>(variant);
    case 256:
        return function_of_rows<256>(variant);
    }
    fail_variant(variant);
}

}  // namespace lk::cuda
