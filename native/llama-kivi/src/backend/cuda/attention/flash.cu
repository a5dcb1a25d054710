// Attention of many query rows, and of whatever the kernels for few rows leave: any head size, any pair of stores,
// pages that moved. Tiles of 64 tokens become halves in shared memory, whatever they were, and the matrix units
// multiply (FlashAttention-2, Dao 2023: an online softmax over tiles, probabilities never leave the registers).
//
// kD: the head's size, or a greater one; the channels beyond it are zeros.
// tall   a warp has 32 query rows (16 for heads of 256) and goes through all tiles with the other three
// split  for up to 16 rows: all warps have the same ones, and a quarter of each tile's tokens
//
// Tokens whose values are codes come first: their sum is in the codes' frame (rotated, centred, without the head's
// power of two), and is turned back once, before the first exact value.
#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/queue.h"

namespace lk::cuda {

namespace {

using kv::PageFormat;
using kv::ScaleKind;

constexpr int kWarps = kJoinWarps;
constexpr int kThreads = kWarps * 32;
constexpr int kTile = kFlashTile;

template <int kD, bool kSplit>
struct Sizes {
    static constexpr int kM = flash_row_tiles(kD, kSplit);              // tiles of 16 rows of a warp
    static constexpr int kRows = flash_rows(kD, kSplit);                // of a block
    static constexpr int kN = kSplit ? kTile / kWarps / 8 : kTile / 8;  // tiles of 8 tokens of a warp
    static constexpr int kStride = kD + 8;                              // halves of a row: eight rows, eight banks
    static constexpr int kSide = kTile * kStride * 2;                   // bytes of a tile's keys or values
    static constexpr int kTiles = kRows * kStride * 2;                  // after q
    static constexpr int kPointers = kTiles + 4 * kSide;                // const half* [2 buffers, keys and values, 64]
    static constexpr int kWide = kPointers + 2 * 2 * kTile * 8;         // uint8 [D]: 4 for refined channels
    static constexpr int kWork = kWide + kD;
    static constexpr int kJoin = kSplit ? (kWarps * 16 * (kD + 2) + 16 * kD) * 4 : 0;
    static constexpr int kBytes = kWork > kJoin ? kWork : kJoin;
};

__device__ void load_matrices(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

__device__ void load_transposed(unsigned (&x)[4], const uint16_t* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from));
}

// Over the four lanes of a row.
__device__ float max_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

__device__ float sum_of_row(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// One side of a head.
struct Store {
    const SideWork& side;
    const SideShape& shape;
    size_t page_offset;
    const uint8_t* table;
    int n_coded;  // tokens from the first on that lie in pages of codes, but for the sinks
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

// Up to 64 tokens that follow each other, on each side either all in one run of codes or all in full precision.
// Tokens are visited in this order: those whose values are codes, the sinks, the rest.
struct Tile {
    int token;
    int n;
    int next;     // place in the order of the tile after
    int k_token;  // in the page, of coded keys; -1: exact
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
    // Where tokens are hidden because their values are sinks, their keys may be anything.
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

// What of a page's format is known while compiling; zeros: nothing.
template <int kD, int kBits>
struct Known {
    const PageFormat& f;
    __device__ int d() const { return kD > 0 ? kD : f.head_size; }
    __device__ int bits() const { return kBits > 0 ? kBits : f.bits; }
    __device__ int tile_tokens() const { return kBits > 0 ? 32 : f.tile_tokens; }
};

// Calls load(Known) with as much as is known: kD, if it is the head's size, and the bits.
template <int kD, class Load>
__device__ void with_known(const PageFormat& f, const Load& load) {
    const bool usual = f.head_size == kD && (f.side == kv::Side::values || f.tile_tokens == 32);
    if (usual && f.bits == 2) {
        load(Known<kD, 2>{f});
    } else if (usual && f.bits == 4) {
        load(Known<kD, 4>{f});
    } else {
        load(Known<0, 0>{f});
    }
}

// Keys in codes become halves, but for the fine plane of refined channels. A thread takes four words of a quad at once.
template <int kStride, class K>
__device__ void load_keys(const K known, const Tile& tile, float factor, const uint8_t* wide, uint16_t* to) {
    const PageFormat& f = known.f;
    const int n_quads = known.d() / 4;
    const int n_words = known.tile_tokens() * known.bits() / 8;  // of a quad
    const unsigned mask = known.bits() == 2 ? 0x03030303u : 0x0f0f0f0fu;
    const int first = tile.k_token / known.tile_tokens();
    const int count = (tile.k_token + tile.n - 1) / known.tile_tokens() - first + 1;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = threadIdx.x; unit < count * n_quads * (n_words / 4); unit += kThreads) {
        const int w0 = unit % (n_words / 4) * 4;
        const int quad = unit / (n_words / 4) % n_quads;
        const int part = first + unit / (n_words / 4) / n_quads;
        const uint4 words =
            *reinterpret_cast<const uint4*>(tile.k_page + ((part * (f.rows / 4) + quad) * n_words + w0) * 4);
        const unsigned word[4] = {words.x, words.y, words.z, words.w};
        const int at = part * known.tile_tokens() / f.group * known.d() + 4 * quad;
        float s[4];
        float z[4];
        if (f.scale_kind == ScaleKind::half_pair) {
            const uint4 pairs = *reinterpret_cast<const uint4*>(tile.k_page + f.scales_offset + at * 4);
            const unsigned both[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[i] = half_bits_to_float(static_cast<uint16_t>(both[i]));
                z[i] = half_bits_to_float(static_cast<uint16_t>(both[i] >> 16));
            }
        } else {
            const unsigned scales = *reinterpret_cast<const unsigned*>(tile.k_page + f.scales_offset + at);
            const unsigned zeros = *reinterpret_cast<const unsigned*>(tile.k_page + f.zeros_offset + at);
            const unsigned times = *reinterpret_cast<const unsigned*>(wide + 4 * quad);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float step = byte_scale(scales >> (8 * i) & 0xffu) * factor;
                s[i] = step * static_cast<float>(times >> (8 * i) & 0xffu);
                z[i] = step * 0.25f * static_cast<float>(static_cast<int8_t>(zeros >> (8 * i)));
            }
        }
        const __half2 s0 = __floats2half2_rn(s[0], s[1]);
        const __half2 s1 = __floats2half2_rn(s[2], s[3]);
        const __half2 z0 = __floats2half2_rn(z[0], z[1]);
        const __half2 z1 = __floats2half2_rn(z[2], z[3]);
        const int row0 = part * known.tile_tokens() + w0 - tile.k_token;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int t = 0; t < 8 / known.bits(); ++t) {
                const int row = row0 + i + n_words * t;
                if (row < 0 || row >= tile.n) {
                    continue;
                }
                // Byte c with 0x64 above it is the half 1024 + c.
                const unsigned codes = word[i] >> (known.bits() * t) & mask;
                const __half2 c0 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4140)), less);
                const __half2 c1 = __hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4342)), less);
                *reinterpret_cast<uint2*>(to + row * kStride + 4 * quad) =
                    make_uint2(bits(__hfma2(c0, s0, z0)), bits(__hfma2(c1, s1, z1)));
            }
        }
    }
}

// Adds the fine plane, which has two bits.
template <int kStride, class K>
__device__ void refine_keys(const K known, const uint8_t* table, const Tile& tile, float factor, uint16_t* to) {
    const PageFormat& f = known.f;
    const int n_rows = known.d() / 4;
    const int n_words = known.tile_tokens() / 4;
    const int first = tile.k_token / known.tile_tokens();
    const int count = (tile.k_token + tile.n - 1) / known.tile_tokens() - first + 1;
    const auto* refined = reinterpret_cast<const uint16_t*>(table + 4);
    for (int unit = threadIdx.x; unit < count * n_rows * n_words; unit += kThreads) {
        const int i = unit % n_rows;
        const int w = unit / n_rows % n_words;
        const int part = first + unit / n_rows / n_words;
        const int quad = (known.d() + i) / 4;
        const int channel = refined[i];
        const unsigned byte = tile.k_page[((part * (f.rows / 4) + quad) * n_words + w) * 4 + i % 4];
        const uint8_t scale = tile.k_page[f.scales_offset + part * known.tile_tokens() / f.group * known.d() + channel];
        const float s = byte_scale(scale) * factor;
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            const int row = part * known.tile_tokens() + w + n_words * t - tile.k_token;
            if (row >= 0 && row < tile.n) {
                uint16_t* const x = to + row * kStride + channel;
                *x = float_to_half_bits(half_bits_to_float(*x) + s * static_cast<float>(byte >> (2 * t) & 3));
            }
        }
    }
}

// Values in codes become halves in the codes' frame. A thread takes four channels of 16 tokens (of 8, with 4 bits).
template <int kStride, class K>
__device__ void load_values(const K known, const Tile& tile, uint16_t* to) {
    const PageFormat& f = known.f;
    constexpr int kBlock = kv::kValueBlockTokens;
    const int n_quads = known.d() / 4;
    const int n_halves = known.bits() / 2;  // with 4 bits, tokens whose quad is odd have words of their own
    const int first = tile.v_token / kBlock;
    const int count = (tile.v_token + tile.n - 1) / kBlock - first + 1;
    const unsigned mask = known.bits() == 2 ? 0x00030003u : 0x000f000fu;
    const __half2 less = __floats2half2_rn(-1024.0f, -1024.0f);
    for (int unit = threadIdx.x; unit < count * n_quads * n_halves; unit += kThreads) {
        const int quad = unit % n_quads;
        const int h = unit / n_quads % n_halves;
        const int block = first + unit / n_quads / n_halves;
        const int group = f.scale_groups == 1 ? 0 : 4 * quad / f.group;
        const uint4 w = reinterpret_cast<const uint4*>(
            tile.v_page)[(block * (n_quads / 2) + quad / 2) * 2 * n_halves + 2 * h + quad % 2];
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {  // of a quad of tokens: a byte of each word
            const unsigned select = 0x0040u + lane * 0x0011u;
            const unsigned x0 = __byte_perm(__byte_perm(w.x, w.y, select), 0, 0x4140);
            const unsigned x1 = __byte_perm(__byte_perm(w.z, w.w, select), 0, 0x4140);
#pragma unroll
            for (int n = 0; n < 8 / known.bits(); ++n) {
                const int token = block * kBlock + (known.bits() == 2 ? n : 2 * n + h) * 4 + lane;
                const int row = token - tile.v_token;
                if (row < 0 || row >= tile.n) {
                    continue;
                }
                const int at = token * f.scale_groups + group;
                __half2 s;
                __half2 z;
                if (f.scale_kind == ScaleKind::half_pair) {
                    const unsigned pair = *reinterpret_cast<const unsigned*>(tile.v_page + f.scales_offset + at * 4);
                    s = halves(__byte_perm(pair, 0, 0x1010));
                    z = halves(__byte_perm(pair, 0, 0x3232));
                } else {
                    const unsigned scale = static_cast<unsigned>(tile.v_page[f.scales_offset + at]) << 6;
                    s = halves(scale | scale << 16);
                    const float zero =
                        f.scale_kind == ScaleKind::byte_token
                            ? -1.5f
                            : 0.25f * static_cast<float>(static_cast<int8_t>(tile.v_page[f.zeros_offset + at]));
                    z = __hmul2(s, __float2half2_rn(zero));
                }
                const __half2 c0 = __hadd2(halves((x0 >> (known.bits() * n) & mask) | 0x64006400u), less);
                const __half2 c1 = __hadd2(halves((x1 >> (known.bits() * n) & mask) | 0x64006400u), less);
                *reinterpret_cast<uint2*>(to + row * kStride + 4 * quad) =
                    make_uint2(bits(__hfma2(c0, s, z)), bits(__hfma2(c1, s, z)));
            }
        }
    }
}

// Rows in blocks of ggml, a run of them from `rows` on. A thread takes 16 elements.
template <int kD, int kStride>
__device__ void load_blocks(const PageFormat& f, const uint8_t* rows, int n, uint16_t* to) {
    constexpr int kPieces = kD / 16;
    const int size = f.bits == 8 ? static_cast<int>(sizeof(BlockQ8_0)) : static_cast<int>(sizeof(BlockQ4_0));
    for (int i = threadIdx.x; i < n * kPieces; i += kThreads) {
        const int c = i % kPieces * 16;
        if (c >= f.head_size) {
            continue;
        }
        const uint8_t* const block =
            rows + static_cast<size_t>(i / kPieces) * (f.head_size / 32 * size) + c / 32 * size;
        const __half2 s = __half2half2(__ushort_as_half(load_u16(block)));
        unsigned x[8];
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            // Four elements as bytes from 0 on, and what they are too high.
            unsigned codes;
            __half2 less;
            if (f.bits == 8) {
                codes = load_u32(block + 2 + c % 32 + 4 * part) ^ 0x80808080u;
                less = __floats2half2_rn(-1152.0f, -1152.0f);
            } else {
                codes = load_u32(block + 2 + 4 * part) >> (c % 32 / 4) & 0x0f0f0f0fu;
                less = __floats2half2_rn(-1032.0f, -1032.0f);
            }
            x[2 * part] = bits(__hmul2(__hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4140)), less), s));
            x[2 * part + 1] = bits(__hmul2(__hadd2(halves(__byte_perm(codes, 0x64646464u, 0x4342)), less), s));
        }
        uint4* const out = reinterpret_cast<uint4*>(to + i / kPieces * kStride + c);
        out[0] = make_uint4(x[0], x[1], x[2], x[3]);
        out[1] = make_uint4(x[4], x[5], x[6], x[7]);
    }
}

// Rows in full precision, of d elements.
template <int kD, int kStride>
__device__ void load_rows(const uint16_t* const* rows, int n, int d, uint16_t* to) {
    constexpr int kPieces = kD / 8;
    for (int i = threadIdx.x; i < n * kPieces; i += kThreads) {
        if (i % kPieces * 8 >= d) {
            continue;
        }
        copy_async(to + i / kPieces * kStride + i % kPieces * 8, rows[i / kPieces] + i % kPieces * 8);
    }
}

// Grid: KV heads times groups of kRows rows, splits, segments.
template <int kD, bool kSplit>
__global__ void __launch_bounds__(kThreads, kD <= 128 ? 2 : 1) attention_flash_kernel(const AttentionWork a) {
    after_previous();
    using S = Sizes<kD, kSplit>;
    constexpr int kM = S::kM;
    constexpr int kN = S::kN;
    constexpr int kStride = S::kStride;
    extern __shared__ __align__(16) char shared[];
    const SegmentWork& seg = a.segments[blockIdx.z];
    const int d = a.head_size;
    const int block = d & -d;  // of the Hadamard transform, 8 at least
    const int n_blocks = (seg.n_rows * (a.n_head / a.n_head_kv) + S::kRows - 1) / S::kRows;
    const int last_first = n_blocks - 1 - static_cast<int>(blockIdx.x) / a.n_head_kv;  // the longest first
    if (last_first < 0) {
        return;
    }
    const QueryRows rows(a, seg, S::kRows, last_first);
    const int head = rows.head();
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const Store k(seg.k, a.k, head);
    const Store v(seg.v, a.v, head);
    const float k_factor = k.factor();
    const bool k_blocks = a.k.format.blocks();
    const bool refined = a.k.format.refined_keys();
    uint16_t* const q = reinterpret_cast<uint16_t*>(shared);
    uint16_t* const tiles =
        reinterpret_cast<uint16_t*>(shared + S::kTiles);  // [2 buffers, keys and values, 64, stride]
    auto* const pointers = reinterpret_cast<const uint16_t**>(shared + S::kPointers);
    uint8_t* const wide = reinterpret_cast<uint8_t*>(shared + S::kWide);

    // ---- which places of the order are this block's
    const int n_tokens = rows.position(rows.n - 1) + 1;
    const int first_seen = a.window > 0 ? max(0, rows.position(0) + 1 - a.window) : 0;
    // Whole pages are the first tokens, and in codes on both sides.
    const int window_from = first_seen < v.n_coded || first_seen == 0
                                ? first_seen / kTile * kTile
                                : v.n_coded + v.n_sinks + (first_seen - v.n_coded) / kTile * kTile;
    const int from = max(window_from, seg.page_tokens);
    const int all = n_tokens + v.n_sinks;
    const int per_split = ((all - from + kTile - 1) / kTile + a.n_splits - 1) / a.n_splits * kTile;
    const int begin = min(all, from + static_cast<int>(blockIdx.y) * per_split);
    const int end = min(all, begin + per_split);

    for (int i = threadIdx.x; i < 2 * 2 * S::kSide / 4; i += kThreads) {
        reinterpret_cast<unsigned*>(tiles)[i] = 0;  // rows of no token are multiplied with zeros
    }
    for (int i = threadIdx.x; i < kD; i += kThreads) {
        wide[i] = 1;
    }
    if (refined && seg.k.n_paged > seg.k.n_sinks) {
        __syncthreads();
        for (int i = threadIdx.x; i < a.k.format.rows - d; i += kThreads) {
            wide[reinterpret_cast<const uint16_t*>(k.table + 4)[i]] = 4;
        }
    }

    // Query rows, in powers of two, turned to meet keys that were rotated for positions `frame` higher than theirs are
    // now, and by the Hadamard transform where keys are.
    const auto prepare = [&](int frame, bool turned) {
        constexpr int kOwn = (kD + 31) / 32;
        const int pairs = a.n_rot / 2;
        for (int r = warp; r < S::kRows; r += kWarps) {
            const float* const row = a.q + rows.output(min(r, rows.n - 1)) * d;
            float x[kOwn];
#pragma unroll
            for (int i = 0; i < kOwn; ++i) {
                const int c = lane + 32 * i;
                x[i] = c < d ? row[c] : 0.0f;
                if (frame != 0 && c < a.n_rot) {
                    const int pair = a.halves ? c % pairs : c / 2;
                    const bool second = a.halves ? c >= pairs : c % 2 == 1;
                    const float other = row[a.halves ? (second ? c - pairs : c + pairs) : c ^ 1];
                    double sine;
                    double cosine;
                    sincos(static_cast<double>(frame) * a.frequency[pair], &sine, &cosine);
                    x[i] = x[i] * static_cast<float>(cosine) + (second ? other : -other) * static_cast<float>(sine);
                }
            }
            if (turned) {
#pragma unroll
                for (int half = 1; half < kD; half *= 2) {
                    if (half >= block) {
                        continue;
                    }
                    if (half < 32) {
#pragma unroll
                        for (int i = 0; i < kOwn; ++i) {
                            const float other = __shfl_xor_sync(kAllLanes, x[i], half);
                            x[i] = lane & half ? other - x[i] : x[i] + other;
                        }
                    } else {
#pragma unroll
                        for (int i = 0; i < kOwn; ++i) {
                            if ((i & (half / 32)) == 0 && i + half / 32 < kOwn) {
                                const float other = x[i + half / 32];
                                x[i + half / 32] = x[i] - other;
                                x[i] += other;
                            }
                        }
                    }
                }
            }
            const float scale = a.scale * 1.44269504f * (turned ? rsqrtf(static_cast<float>(block)) : 1.0f);
#pragma unroll
            for (int i = 0; i < kOwn; ++i) {
                if (lane + 32 * i < kD) {
                    q[r * kStride + lane + 32 * i] = float_to_half_bits(x[i] * scale);
                }
            }
        }
    };

    float out[kM][kD / 8][4];
    float largest[kM][2];
    float sum[kM][2];  // of the lane's tokens
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            largest[m][e] = -INFINITY;
            sum[m][e] = 0;
        }
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                out[m][n][i] = 0;
            }
        }
    }

    // From the frame of coded values to that of exact ones.
    const auto turn_back = [&]() {
        const PageFormat& f = a.v.format;
        const bool centred = f.scale_kind == ScaleKind::byte_token;
        const bool rotated = centred || f.blocks();
        const float factor = v.factor() * (rotated ? rsqrtf(static_cast<float>(block)) : 1.0f);
        const auto* mu = reinterpret_cast<const uint16_t*>(v.table + 4);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            if (rotated) {
#pragma unroll
                for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; i += 2) {
                        const float x = out[m][n][i];
                        out[m][n][i] = x + out[m][n][i + 1];
                        out[m][n][i + 1] = x - out[m][n][i + 1];
                    }
#pragma unroll
                    for (int half = 1; half < 4; half *= 2) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            const float other = __shfl_xor_sync(kAllLanes, out[m][n][i], half);
                            out[m][n][i] = lane & half ? other - out[m][n][i] : out[m][n][i] + other;
                        }
                    }
                }
#pragma unroll
                for (int half = 1; half < kD / 8; half *= 2) {
                    if (8 * half >= block) {
                        continue;
                    }
#pragma unroll
                    for (int n = 0; n < kD / 8; ++n) {
                        if ((n & half) == 0 && n + half < kD / 8) {
#pragma unroll
                            for (int i = 0; i < 4; ++i) {
                                const float other = out[m][n + half][i];
                                out[m][n + half][i] = out[m][n][i] - other;
                                out[m][n][i] += other;
                            }
                        }
                    }
                }
            }
            const float mass[2] = {sum_of_row(sum[m][0]), sum_of_row(sum[m][1])};
#pragma unroll
            for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float centre = centred && 8 * n < d ? half_bits_to_float(mu[8 * n + 2 * j + i % 2]) : 0.0f;
                    out[m][n][i] = out[m][n][i] * factor + mass[i / 2] * centre;
                }
            }
        }
    };

    // ---- tiles: while one is multiplied, the next is on its way
    const auto point = [&](const Tile& t, int buffer) {
        const int i = threadIdx.x % kTile;
        const bool keys = threadIdx.x < kTile;
        if (i < t.n && (keys ? t.k_token : t.v_token) < 0) {
            pointers[(buffer * 2 + (keys ? 0 : 1)) * kTile + i] =
                keys ? exact_row(seg.k, a.k, head, d, t.token + i) : exact_row(seg.v, a.v, head, d, t.token + i);
        }
    };
    const auto load = [&](const Tile& t, int buffer) {
        uint16_t* const keys = tiles + buffer * 2 * kTile * kStride;
        uint16_t* const values = keys + kTile * kStride;
        if (t.k_token < 0) {
            load_rows<kD, kStride>(pointers + buffer * 2 * kTile, t.n, d, keys);
        } else if (k_blocks) {
            load_blocks<kD, kStride>(a.k.format, t.k_page + t.k_token * a.k.format.row_bytes(), t.n, keys);
        } else {
            with_known<kD>(a.k.format, [&](auto known) { load_keys<kStride>(known, t, k_factor, wide, keys); });
        }
        if (t.v_token < 0) {
            load_rows<kD, kStride>(pointers + (buffer * 2 + 1) * kTile, t.n, d, values);
        } else if (a.v.format.blocks()) {
            load_blocks<kD, kStride>(a.v.format, t.v_page + t.v_token * a.v.format.row_bytes(), t.n, values);
        } else {
            with_known<kD>(a.v.format, [&](auto known) { load_values<kStride>(known, t, values); });
        }
        if (refined && t.k_token >= 0) {
            __syncthreads();
            with_known<kD>(a.k.format, [&](auto known) { refine_keys<kStride>(known, k.table, t, k_factor, keys); });
        }
        copy_commit();
    };

    int frame = 0;
    bool turned = false;
    bool in_codes = begin < v.n_coded && begin < end;
    prepare(0, false);
    Tile tile{};
    if (begin < end) {
        tile = tile_at(k, v, begin, end);
        point(tile, 0);
    }
    __syncthreads();
    if (begin < end) {
        load(tile, 0);
    }
    int buffer = 0;
    for (int place = begin; place < end; buffer ^= 1) {
        Tile next{};
        if (tile.next < end) {
            next = tile_at(k, v, tile.next, end);
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
            prepare(frame, turned);
            __syncthreads();
        }
        if (in_codes && tile.v_token < 0) {
            in_codes = false;
            turn_back();
        }
        const uint16_t* const keys = tiles + buffer * 2 * kTile * kStride;
        const uint16_t* const values = keys + kTile * kStride;
        const int own_row = kSplit ? 0 : warp * 16 * kM;
        const int own_token = kSplit ? warp * 8 * kN : 0;

        float score[kM][kN][4];
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int n = 0; n < kN; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    score[m][n][i] = 0;
                }
            }
        }
#pragma unroll
        for (int step = 0; step < kD / 16; ++step) {
            unsigned q_part[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                load_matrices(q_part[m], q + (own_row + 16 * m + lane % 16) * kStride + step * 16 + lane / 16 * 8);
            }
#pragma unroll
            for (int n = 0; n < kN; n += 2) {
                unsigned b[4];
                load_matrices(
                    b, keys + (own_token + 8 * n + lane / 16 * 8 + lane % 8) * kStride + step * 16 + lane / 8 % 2 * 8);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    multiply(score[m][n], q_part[m][0], q_part[m][1], q_part[m][2], q_part[m][3], b[0], b[1]);
                    multiply(score[m][n + 1], q_part[m][0], q_part[m][1], q_part[m][2], q_part[m][3], b[2], b[3]);
                }
            }
        }

        // A token is seen by the rows at its position or after, and by those that have it in their window.
        const int hidden = tile.v_token >= 0 ? v.n_sinks : 0;
        if (tile.n < kTile || tile.token < hidden || tile.token + kTile - 1 > rows.position(0) || a.window > 0) {
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int last = rows.position(min(own_row + 16 * m + 8 * e + g, rows.n - 1));
                    const int first = a.window > 0 ? last + 1 - a.window : 0;
#pragma unroll
                    for (int n = 0; n < kN; ++n) {
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int in_tile = own_token + 8 * n + 2 * j + i;
                            const int token = tile.token + in_tile;
                            const bool seen = in_tile < tile.n && token >= hidden && token >= first && token <= last;
                            score[m][n][2 * e + i] = seen ? score[m][n][2 * e + i] : -INFINITY;
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float top = -INFINITY;
#pragma unroll
                for (int n = 0; n < kN; ++n) {
                    top = fmaxf(top, fmaxf(score[m][n][2 * e], score[m][n][2 * e + 1]));
                }
                const float now = fmaxf(largest[m][e], max_of_row(top));
                const float base = now == -INFINITY ? 0.0f : now;
                const float correction = exp2_fast(largest[m][e] - base);
                largest[m][e] = now;
                sum[m][e] *= correction;
#pragma unroll
                for (int n = 0; n < kN; ++n) {
#pragma unroll
                    for (int i = 2 * e; i < 2 * e + 2; ++i) {
                        score[m][n][i] = exp2_fast(score[m][n][i] - base);
                        sum[m][e] += score[m][n][i];
                    }
                }
#pragma unroll
                for (int n = 0; n < kD / 8; ++n) {
                    out[m][n][2 * e] *= correction;
                    out[m][n][2 * e + 1] *= correction;
                }
            }
        }
#pragma unroll
        for (int n = 0; n < kN; n += 2) {
            unsigned p[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                p[m][0] = pack(score[m][n][0], score[m][n][1]);
                p[m][1] = pack(score[m][n][2], score[m][n][3]);
                p[m][2] = pack(score[m][n + 1][0], score[m][n + 1][1]);
                p[m][3] = pack(score[m][n + 1][2], score[m][n + 1][3]);
            }
#pragma unroll
            for (int c = 0; c < kD / 8; c += 2) {
                unsigned b[4];
                load_transposed(b, values + (own_token + 8 * n + lane % 16) * kStride + 8 * c + lane / 16 * 8);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    multiply(out[m][c], p[m][0], p[m][1], p[m][2], p[m][3], b[0], b[1]);
                    multiply(out[m][c + 1], p[m][0], p[m][1], p[m][2], p[m][3], b[2], b[3]);
                }
            }
        }
        place = tile.next;
        tile = next;
    }
    if (in_codes) {
        turn_back();
    }

    if constexpr (kSplit) {
        __syncthreads();
        float* const sums = reinterpret_cast<float*>(shared);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float* const to = warp_part<16, kD>(sums, warp, g + 8 * e);
            const float total = sum_of_row(sum[0][e]);
            if (j == 0) {
                to[0] = largest[0][e] * 0.69314718f;
                to[1] = total;
            }
#pragma unroll
            for (int n = 0; n < kD / 8; ++n) {
                to[2 + 8 * n + 2 * j] = out[0][n][2 * e];
                to[2 + 8 * n + 2 * j + 1] = out[0][n][2 * e + 1];
            }
        }
        join_parts<16, kD, false>(a, a.n_page_splits + blockIdx.y, rows, nullptr, sums);
    } else {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int r = warp * 16 * kM + 16 * m + 8 * e + g;
                const float total = sum_of_row(sum[m][e]);
                if (r >= rows.n) {
                    continue;
                }
                float* to = a.out + rows.output(r) * d;
                float times = 1 / total;
                if (a.n_page_splits + a.n_splits > 1) {
                    to = a.partial +
                         ((a.n_page_splits + blockIdx.y) * static_cast<size_t>(a.n_rows) * a.n_head + rows.output(r)) *
                             (d + 2);
                    if (j == 0) {
                        to[0] = largest[m][e] * 0.69314718f;
                        to[1] = total;
                    }
                    to += 2;
                    times = 1;
                }
#pragma unroll
                for (int n = 0; n < kD / 8; ++n) {
                    if (8 * n < d) {
                        *reinterpret_cast<float2*>(to + 8 * n + 2 * j) =
                            make_float2(out[m][n][2 * e] * times, out[m][n][2 * e + 1] * times);
                    }
                }
            }
        }
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
