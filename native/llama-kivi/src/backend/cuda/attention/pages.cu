// Attention of few query rows over whole pages of codes, on tensor cores. Decoding spends most of its attention time
// here.
//
// Each warp processes its own pages; warps synchronize only at the end. Codes are not dequantized: masked codes of two
// bytes of a word are read as subnormal halves (code * 4^place * 2^-24), which tensor cores multiply exactly. Scales
// are folded into the other operand: into q for keys, into the probabilities for values. Powers of two are applied at
// the end. mma.m16n8k16 multiplies 16 tokens (or channels) by 8 query rows. With g = lane / 4 and j = lane % 4:
//   keys    a step covers 16 code rows; lane j reads quad j. A word of 2-bit codes holds tokens i, 8 + i, 16 + i and
//           24 + i of its tile. Lanes g have i = `token`, and end with the scores of tokens 8 t + i for rows 2 j and
//           2 j + 1.
//   values  a word holds 16 tokens of a channel (8 with 4 bits). Of 32 channels a lane reads 4 g to 4 g + 3 in token
//           blocks j and 4 + j, and ends with these channels for rows 2 j and 2 j + 1. 3-bit codes are joined from two
//           planes.
// Up to four query rows use all eight columns: row r has column r with the first 64 tokens of a page, and column 4 + r
// with the others. One multiplication by the scales serves both halves of a page, and all lanes have
// scores of their own.
// Keys and values of a page are in shared memory while in use; each is prefetched for the next page as soon as its
// buffer is free.
#include "backend/cuda/attention/page_codes.cuh"
#include "backend/cuda/attention/pages_keys.cuh"
#include "backend/cuda/attention/pages_values.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

// kBlocks: thread blocks per multiprocessor.
template <int kD, int kBits, bool kPaper, int kValueBits, int kRows, int kBlocks>
__global__ void __launch_bounds__(kJoinWarps * 32, kBlocks) attention_pages_kernel(const AttentionWork a) {
    extern __shared__ __align__(16) char shared[];
    using Warp = PageWarp<kD, kBits, kPaper, kValueBits, kRows>;

    const SegmentWork& seg = a.segments[blockIdx.z];
    const kv::PageFormat& fk = a.k.format;
    const kv::PageFormat& fv = a.v.format;
    const QueryRows rows(a, seg, kRows);
    if (rows.n <= 0) {
        return;
    }
    const int head = rows.head();
    const int warp = warp_index();
    const int lane = threadIdx.x % 32;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * fv.page_bytes;
    const uint8_t* const k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* const v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const int n_sinks = seg.k.n_sinks;
    const SplitRange range(a, seg.page_runs, a.n_page_splits);
    const int begin = range.begin;
    const int end = range.end;
    constexpr Layout kAt = Warp::kAt;
    const int warp_bytes = kAt.bytes(fk, fv);
    const Warp own{fk,
                   fv,
                   shared + warp * warp_bytes,
                   kAt.value_scales(fk),
                   lane,
                   lane / 4,
                   lane % 4,
                   (lane / 4 & 4) | (lane / 4 & 1) << 1 | (lane / 4 >> 1 & 1)};

    typename Warp::Queries q;
    float factor[2];
    const auto* refined = reinterpret_cast<const uint16_t*>(k_table + 4);
    // Queries in registers pass through the memory of pages.
    char* const queries = shared + (Warp::kQueriesShared ? kJoinWarps * warp_bytes : 0);
    const auto fetch_first = [&] {
        if (begin + warp < end) {
            own.fetch_keys(k_runs[begin + warp].block + k_offset);
            copy_commit();
            own.fetch_values(v_runs[begin + warp].block + v_offset);
            copy_commit();
        }
    };
    // Pages do not change before the end of a pass that stages none; the last one may be continued.
    const bool cached = !a.fixed_splits && seg.k.staged.n_pages == 0 && seg.v.staged.n_pages == 0;
    if (Warp::kQueriesShared && cached) {
        fetch_first();
    }
    after_previous();
    if (Warp::kQueriesShared && !cached) {
        fetch_first();
    }
    own.load_queries(a, rows, k_table, refined, shared + kAt.prob, queries, q, factor);
    if (!Warp::kQueriesShared) {
        fetch_first();
    }
    const typename Warp::OwnRefined own_refined = own.own_refined(refined);
    PageOutput<kD> output;

    for (int p = begin + warp; p < end; p += kJoinWarps) {
        const bool more = p + kJoinWarps < end;
        // Runs are read before the scores are computed and used after that. threadIdx.y is 0, but the compiler takes it
        // for different among lanes: the reads are awaited at their use, not at moves to uniform registers.
        const int now = p + threadIdx.y;
        const int next = now + (more ? kJoinWarps : 0);
        const Run run = k_runs[now];
        const uint8_t* const next_keys = k_runs[next].block;
        const uint8_t* const next_values = v_runs[next].block;
        wait_for_copies();
        typename Warp::Scores score;
        own.multiply_keys(q, own_refined, factor, score);
        __syncwarp();  // all lanes are done with the keys
        if (more) {
            own.fetch_keys(next_keys + k_offset);
        }
        copy_commit();
        own.hide_tokens(rows, run, n_sinks, a, score);
        own.update_softmax(factor, score, output);
        wait_for_copies();
        own.add_values(score, output);
        __syncwarp();  // all lanes are done with the values
        if (more) {
            own.fetch_values(next_values + v_offset);
        }
        copy_commit();
    }
    own.merge_warps(a, rows, v_table, warp, shared, output);
}

// Shared memory of a thread block while it reads pages.
template <class Warp>
constexpr int block_bytes(const kv::PageFormat& k, const kv::PageFormat& v) {
    return kJoinWarps * Warp::kAt.bytes(k, v) + (Warp::kQueriesShared ? Warp::kQueryBytes : 0);
}

// Whether n thread blocks of a type's own recipe fit into a multiprocessor of compute capability 9.0.
template <class Warp>
constexpr bool fits(lk_cache_type type, int n) {
    const kv::Recipe recipe = kv::own_recipe(type);
    const int bytes = block_bytes<Warp>(kv::make_page_format(type, kv::Side::keys, 128, recipe),
                                        kv::make_page_format(type, kv::Side::values, 128, recipe));
    return n * (bytes + 1024) <= 228 * 1024;  // CUDA takes 1 KB of each block
}
template <int kRows>
constexpr bool all_fit() {
    return fits<PageWarp<128, 2, false, 2, kRows>>(LK_CACHE_KIVI2, 4) &&
           fits<PageWarp<128, 2, false, 3, kRows>>(LK_CACHE_KIVI3, 3) &&
           fits<PageWarp<128, 4, false, 4, kRows>>(LK_CACHE_KIVI4, 3);
}
static_assert(all_fit<kPagesRows>() && all_fit<kPairedRows>());

template <int kD, int kBits, bool kPaper, int kValueBits, int kRows, int kBlocks>
AttentionFunction function(const kv::PageFormat& k, const kv::PageFormat& v) {
    const int joined = join_bytes(kRows, kD);
    const int pages = block_bytes<PageWarp<kD, kBits, kPaper, kValueBits, kRows>>(k, v);
    return {reinterpret_cast<const void*>(attention_pages_kernel<kD, kBits, kPaper, kValueBits, kRows, kBlocks>),
            joined > pages ? joined : pages};
}

template <class Codes, int kRows>
AttentionFunction function_of_width(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    constexpr int kBits = Codes::kBits;
    constexpr bool kPaper = Codes::kPaper;
    constexpr int kValueBits = Codes::kValueBits;
    // As many as fit; see `fits`.
    constexpr int kBlocks = kPaper ? (kBits == 2 ? 3 : 2) : (kValueBits == 2 ? 4 : 3);
    constexpr int kNarrowBlocks = kPaper ? 3 : 4;
    switch (variant.width) {
    case 64:
        return function<64, kBits, kPaper, kValueBits, kRows, kNarrowBlocks>(k, v);
    case 128:
        return function<128, kBits, kPaper, kValueBits, kRows, kBlocks>(k, v);
    }
    fail_variant(variant);
}

}  // namespace

AttentionFunction pages_function(const AttentionVariant& variant, const kv::PageFormat& k, const kv::PageFormat& v) {
    return select_page_codes(variant, [&](auto codes) {
        using Codes = decltype(codes);
        return variant.n_rows == kPagesRows ? function_of_width<Codes, kPagesRows>(variant, k, v)
                                            : function_of_width<Codes, kPairedRows>(variant, k, v);
    });
}

}  // namespace lk::cuda
