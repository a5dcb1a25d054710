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
template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kD <= 128 ? 2 : 1) attention_flash_kernel(const AttentionWork a) {
    after_previous();
    using Memory = Sizes<S>;
    constexpr int kD = S::kD;
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
    uint16_t* const keys = reinterpret_cast<uint16_t*>(shared + Memory::kKeys);  // [64, stride]
    uint16_t* const values = reinterpret_cast<uint16_t*>(shared + Memory::kValues);
    uint8_t* const raw_keys = reinterpret_cast<uint8_t*>(shared + Memory::kRawKeys);
    uint8_t* const raw_values = reinterpret_cast<uint8_t*>(shared + Memory::kRawValues);
    uint16_t* const refined_at = reinterpret_cast<uint16_t*>(shared + Memory::kRefined);
    uint16_t* const squares = reinterpret_cast<uint16_t*>(shared + Memory::kSquares);
    float* const corrections = reinterpret_cast<float*>(shared + Memory::kCorrections) +
                               at.warp * 16 * S::kM * CorrectedTiles::kColumns;  // of the warp
    RowBound* const bounds = reinterpret_cast<RowBound*>(shared + Memory::kBounds);
    BlockPlan& plan = *reinterpret_cast<BlockPlan*>(shared + Memory::kShared);
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
    for (int i = threadIdx.x; i < 2 * Memory::kSide / 4; i += S::kThreads) {
        reinterpret_cast<unsigned*>(keys)[i] = 0;
    }
    for (int i = threadIdx.x; i < CorrectedTiles::kColumns * S::kStride / 2; i += S::kThreads) {
        reinterpret_cast<unsigned*>(squares)[i] = 0;
    }
    for (int i = threadIdx.x; i < kD; i += S::kThreads) {
        refined_at[i] = kNotRefined;
    }
    __syncthreads();
    if (a.k.format.refined_keys() && plan.k.seen.has_codes()) {
        for (int i = threadIdx.x; i < a.k.format.rows - d; i += S::kThreads) {
            refined_at[reinterpret_cast<const uint16_t*>(plan.k.table + 4)[i]] = static_cast<uint16_t>(i);
        }
    }

    // ---- stages "fetch codes" and "load tile"
    const bool copies_keys = copies_codes(a.k.format, kD);
    const bool copies_values = copies_codes(a.v.format, kD);
    const auto fetch_keys = [&](int n, const TileSide k) {
        if (copies_keys && n > 0 && k.coded()) {
            fetch_codes<S>(a.k.format, FlashCodes::of_keys(a.k.format, k.token, n), k.from, raw_keys);
        }
    };
    const auto fetch_values = [&](int n, const TileSide v) {
        if (copies_values && n > 0 && v.coded()) {
            fetch_codes<S>(a.v.format, FlashCodes::of_values(a.v.format, v.token, n), v.from, raw_values);
        }
    };
    const auto copy_keys = [&](int n, const TileSide k) {
        if (n > 0 && k.form == TileSide::Form::halves) {
            load_halves<S>(k.from, n, d, keys);
        }
    };
    const auto decode_keys = [&](int n, const TileSide k) {
        const PageFormat& f = a.k.format;
        if (k.form == TileSide::Form::q8_rows) {
            load_ring_rows<S>(k.from, n, d, keys);
        } else if (k.form == TileSide::Form::floats) {
            load_float_rows(f.type, d, k.from, k.token, n, keys, S::kStride);
        } else if (!k.coded()) {
            return;
        } else if (f.blocks()) {
            load_blocks<S>(f, k.from + k.token * f.row_bytes(), n, keys);
        } else if (copies_keys) {
            load_usual_keys<S>(f, fetched_codes<S>(FlashCodes::of_keys(f, k.token, n), raw_keys), k.token, n, k_factor,
                               refined_at, keys);
        } else {
            load_keys<S>(Known<0, 0>{f}, CodePointers(f, k.from), k.token, n, k_factor, refined_at, keys);
        }
    };
    const auto load_values_of = [&](int n, const TileSide v) {
        const PageFormat& f = a.v.format;
        if (v.form == TileSide::Form::halves) {
            load_halves<S>(v.from, n, d, values);
        } else if (v.form == TileSide::Form::q8_rows) {
            load_ring_rows<S>(v.from, n, d, values);
        } else if (v.form == TileSide::Form::floats) {
            load_float_rows(f.type, d, v.from, v.token, n, values, S::kStride);
        } else if (f.blocks()) {
            load_blocks<S>(f, v.from + v.token * f.row_bytes(), n, values);
        } else if (copies_values) {
            const CodePointers from = fetched_codes<S>(FlashCodes::of_values(f, v.token, n), raw_values);
            if (f.bits == 3) {
                load_three_bit_values(d, from.codes, from.scales, v.token, n, values, S::kStride);
            } else {
                load_usual_values<S>(f, from, v.token, n, values);
            }
        } else if (f.bits == 3) {
            load_three_bit_values(d, v.from, v.from + f.scales_offset, v.token, n, values, S::kStride);
        } else {
            load_values<S>(Known<0, 0>{f}, CodePointers(f, v.from), v.token, n, values);
        }
    };

    Output<S> output;
    output.clear();
    int frame = INT_MIN;  // of the queries in q
    bool turned = false;
    const WarpTile<S> warp_tile(at);
    CorrectedTiles corrected;
    int planned = plan.n_planned;
    bool in_codes = plan.tile(0).n > 0 && plan.tile(0).v.coded();
    fetch_keys(plan.tile(0).n, plan.tile(0).k);
    fetch_values(plan.tile(0).n, plan.tile(0).v);
    copy_keys(plan.tile(0).n, plan.tile(0).k);
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
        decode_keys(tile.n, tile.k);
        const bool correct = a.k.format.score_correction && tile.k.coded();
        const bool correct_next = correct && !corrected.contains(index);
        if (correct_next) {
            corrected.square_scales<S>(a.k.format, plan, index, planned, squares);
        }
        copy_wait<0>();
        __syncthreads();           // keys are complete; the values before are no longer read
        planned = plan.n_planned;  // warps agree here
        fetch_keys(next.n, next.k);
        load_values_of(tile.n, tile.v);
        copy_commit();
        const bool turn = tile.k.coded() && a.k.format.blocks();
        if (tile.frame != frame || turn != turned) {
            frame = tile.frame;
            turned = turn;
            load_queries<S>(a, rows, at, d, block, frame, turned, q);
            __syncthreads();
        }
        if (correct_next) {
            multiply_squares<S>(q + warp_tile.own_row * S::kStride, squares, correction, at, corrections);
        }
        typename WarpTile<S>::Scores score;
        warp_tile.multiply_keys(q, keys, score);
        warp_tile.hide_tokens(tile, bounds, a.window, score);
        copy_wait<0>();
        __syncthreads();  // values are complete; keys are no longer read
        if (at.warp == 0 && next.n > 0 && plan.n_planned == index + 2) {
            plan_from(next.range, next.next);
        }
        copy_keys(next.n, next.k);
        fetch_values(next.n, next.v);
        copy_commit();
        float shift[S::kM][2];
        const bool one_group = correct && CorrectedTiles::groups_of(a.k.format, tile) == 1;
        warp_tile.correct(
            correct ? corrections : nullptr, one_group,
            [&](int in_tile) { return corrected.column(a.k.format, tile, index, in_tile); }, score, shift);
        warp_tile.update_softmax(score, shift, output);
        warp_tile.add_values(score, shift, values, output);
    }
    if constexpr (S::kSplit) {
        merge_warps(a, rows, at, output, reinterpret_cast<float*>(shared));
    } else {
        store_rows(a, rows, at, d, output);
    }
}

template <class S>
AttentionFunction function_of() {
    return {reinterpret_cast<const void*>(attention_flash_kernel<S>), Sizes<S>::kBytes, S::kThreads};
}

// eight: warps per block for many query rows. Four have the fewest instructions; eight hide the latency of pages of
// ggml blocks, which are not fetched ahead.
template <int kD>
AttentionFunction function_of_rows(const AttentionVariant& variant, bool eight) {
    using Split = FlashShape<kD, true, kAttentionWarps>;
    using Tall = FlashShape<kD, false, kAttentionWarps>;
    if (variant.n_rows == Split::kRows) {
        return function_of<Split>();
    }
    if (variant.n_rows == Tall::kRows) {
        if constexpr (kD == 64 || kD == 128) {
            if (eight) {
                return function_of<FlashShape<kD, false, 2 * kAttentionWarps>>();
            }
        }
        return function_of<Tall>();
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction flash_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    const bool eight = k.blocks() || v.blocks();
    switch (variant.width) {
    case 64:
        return function_of_rows<64>(variant, eight);
    case 96:
        return function_of_rows<96>(variant, eight);
    case 128:
        return function_of_rows<128>(variant, eight);
    case 256:
        return function_of_rows<256>(variant, eight);
    }
    fail_variant(variant);
}

}  // namespace lk::cuda
