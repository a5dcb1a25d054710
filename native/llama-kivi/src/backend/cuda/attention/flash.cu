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
    const Lane at{};
    uint16_t* const q = reinterpret_cast<uint16_t*>(shared);
    uint16_t* const keys = reinterpret_cast<uint16_t*>(shared + S::kKeys);  // [64, stride]
    uint16_t* const values = reinterpret_cast<uint16_t*>(shared + S::kValues);
    uint8_t* const raw_keys = reinterpret_cast<uint8_t*>(shared + S::kRawKeys);
    uint8_t* const raw_values = reinterpret_cast<uint8_t*>(shared + S::kRawValues);
    uint16_t* const refined_at = reinterpret_cast<uint16_t*>(shared + S::kRefined);
    uint16_t* const squares = reinterpret_cast<uint16_t*>(shared + S::kSquares);
    float* const corrections = reinterpret_cast<float*>(shared + S::kCorrections) +
                               at.warp * 16 * S::kM * CorrectedTiles::kColumns;  // of the warp
    RowBound* const bounds = reinterpret_cast<RowBound*>(shared + S::kBounds);
    BlockPlan& plan = *reinterpret_cast<BlockPlan*>(shared + S::kShared);
    plan_visits<S::kRows>(a, seg, rows, plan, bounds);
    const Places places = places_of_split(a, plan.visits);
    const float k_factor = plan.k.factor(a.k);
    const float correction = k_factor * k_factor * (1 / (24 * 1.44269504f));  // for scores in base 2

    const auto plan_from = [&](int range, int place) {
        plan_tiles(a, seg, rows.head(), places, range, place, at.lane, plan);
    };
    if (at.warp == 0) {
        // The loop reads tiles one ahead of the current one.
        for (int i = 0; i < 2 && (i == 0 || plan.tile(i - 1).n > 0); i = plan.n_planned) {
            plan_from(i == 0 ? 0 : plan.tile(0).range, i == 0 ? places.begin : plan.tile(0).next);
        }
    }
    // Rows without a token are multiplied by zeros, so they must not be NaN.
    for (int i = threadIdx.x; i < 2 * S::kSide / 4; i += kThreads) {
        reinterpret_cast<unsigned*>(keys)[i] = 0;
    }
    for (int i = threadIdx.x; i < CorrectedTiles::kColumns * kStride / 2; i += kThreads) {
        reinterpret_cast<unsigned*>(squares)[i] = 0;
    }
    for (int i = threadIdx.x; i < kD; i += kThreads) {
        refined_at[i] = kNotRefined;
    }
    __syncthreads();
    if (a.k.format.refined_keys() && plan.k.seen.has_codes()) {
        for (int i = threadIdx.x; i < a.k.format.rows - d; i += kThreads) {
            refined_at[reinterpret_cast<const uint16_t*>(plan.k.table + 4)[i]] = static_cast<uint16_t>(i);
        }
    }

    // ---- stages "fetch codes" and "load tile"
    const auto fetch_keys = [&](const Tile& t) {
        if (t.n > 0 && t.k.coded() && is_usual<kD>(a.k.format)) {
            RawTile::of_keys(a.k.format, t.k.token, t.n).fetch(a.k.format, t.k.from, RawSizes<kD>::kCodes, raw_keys);
        }
    };
    const auto fetch_values = [&](const Tile& t) {
        if (t.n > 0 && t.v.coded() && is_usual<kD>(a.v.format)) {
            RawTile::of_values(a.v.format, t.v.token, t.n)
                .fetch(a.v.format, t.v.from, RawSizes<kD>::kCodes, raw_values);
        }
    };
    const auto copy_keys = [&](const Tile& t) {
        if (t.n > 0 && t.k.form == TileSide::Form::halves) {
            load_halves<kD, kStride>(t.k.from, t.n, d, keys);
        }
    };
    const auto decode_keys = [&](const Tile& t) {
        const PageFormat& f = a.k.format;
        if (t.k.form == TileSide::Form::q8_rows) {
            load_ring_rows<kD, kStride>(t.k.from, t.n, d, keys);
        } else if (t.k.form == TileSide::Form::floats) {
            load_float_rows(f.type, d, t.k.from, float_stride(seg.k, a.k, t.token), t.n, keys, kStride);
        }
        if (!t.k.coded()) {
            return;
        }
        if (f.blocks()) {
            load_blocks<kD, kStride>(f, t.k.from + t.k.token * f.row_bytes(), t.n, keys);
            return;
        }
        const int token = t.k.token;
        if (is_usual<kD>(f)) {
            const CodePointers from = RawTile::of_keys(f, token, t.n).pointers(RawSizes<kD>::kCodes, raw_keys);
            load_usual_keys<kD, kStride>(f, from, token, t.n, k_factor, refined_at, keys);
        } else {
            load_keys<kStride>(Known<0, 0>{f}, CodePointers(f, t.k.from), token, t.n, k_factor, refined_at, keys);
        }
    };
    const auto load_values_of = [&](const Tile& t) {
        const PageFormat& f = a.v.format;
        const int token = t.v.token;
        if (t.v.form == TileSide::Form::halves) {
            load_halves<kD, kStride>(t.v.from, t.n, d, values);
        } else if (t.v.form == TileSide::Form::q8_rows) {
            load_ring_rows<kD, kStride>(t.v.from, t.n, d, values);
        } else if (t.v.form == TileSide::Form::floats) {
            load_float_rows(f.type, d, t.v.from, float_stride(seg.v, a.v, t.token), t.n, values, kStride);
        } else if (f.blocks()) {
            load_blocks<kD, kStride>(f, t.v.from + token * f.row_bytes(), t.n, values);
        } else if (is_usual<kD>(f)) {
            const CodePointers from = RawTile::of_values(f, token, t.n).pointers(RawSizes<kD>::kCodes, raw_values);
            if (f.bits == 3) {
                load_three_bit_values(d, from.codes, from.scales, token, t.n, values, kStride);
            } else {
                load_usual_values<kD, kStride>(f, from, token, t.n, values);
            }
        } else if (f.bits == 3) {
            load_three_bit_values(d, t.v.from, t.v.from + f.scales_offset, token, t.n, values, kStride);
        } else {
            load_values<kStride>(Known<0, 0>{f}, CodePointers(f, t.v.from), token, t.n, values);
        }
    };

    Output<kD, kSplit> output;
    output.clear();
    int frame = INT_MIN;  // of the queries in q
    bool turned = false;
    const WarpTile<kD, kSplit> warp_tile(at);
    CorrectedTiles corrected;
    int planned = plan.n_planned;
    bool in_codes = plan.tile(0).n > 0 && plan.tile(0).v.coded();
    fetch_keys(plan.tile(0));
    fetch_values(plan.tile(0));
    copy_keys(plan.tile(0));
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    for (int index = 0;; ++index) {
        const Tile& tile = plan.tile(index);
        const Tile& next = plan.tile(index + 1);
        const bool done = tile.n == 0;
        if (in_codes && (done || !tile.v.coded())) {
            in_codes = false;
            turn_back(a.v, plan.v, at, d, block, output);
        }
        if (done) {
            break;
        }
        decode_keys(tile);
        const bool correct = a.k.format.recipe.score_correction && tile.k.coded();
        const bool correct_next = correct && !corrected.contains(index);
        if (correct_next) {
            corrected.square_scales<kStride>(a.k.format, plan, index, planned, squares);
        }
        copy_wait<0>();
        __syncthreads();           // keys are complete; the values before are no longer read
        planned = plan.n_planned;  // warps agree here
        fetch_keys(next);
        load_values_of(tile);
        copy_commit();
        const bool turn = tile.k.coded() && a.k.format.blocks();
        if (tile.frame != frame || turn != turned) {
            frame = tile.frame;
            turned = turn;
            load_queries<kD, kSplit>(a, rows, at, d, block, frame, turned, q);
            __syncthreads();
        }
        if (correct_next) {
            multiply_squares<kD, kStride, S::kM>(q + warp_tile.own_row * kStride, squares, correction, at, corrections);
        }
        typename WarpTile<kD, kSplit>::Scores score;
        warp_tile.multiply_keys(q, keys, score);
        warp_tile.hide_tokens(tile, bounds, a.window, score);
        copy_wait<0>();
        __syncthreads();  // values are complete; keys are no longer read
        if (at.warp == 0 && next.n > 0 && plan.n_planned == index + 2) {
            plan_from(next.range, next.next);
        }
        copy_keys(next);
        fetch_values(next);
        copy_commit();
        float shift[S::kM][2];
        const bool one_group = correct && CorrectedTiles::groups_of(a.k.format, tile) == 1;
        warp_tile.correct(
            correct ? corrections : nullptr, one_group,
            [&](int in_tile) { return corrected.column(a.k.format, tile, index, in_tile); }, score, shift);
        warp_tile.update_softmax(score, shift, output);
        warp_tile.add_values(score, values, output);
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
