// Attention of one query row over the rows of a q8_0 ring, on the integer units of tensor cores. A warp copies 32 rows
// at a time to shared memory, as they are stored. Two blocks of a row are 17 words:
//   0         scale of the first block, codes 0 and 1        8         codes 30 and 31; scale of the second block
//   1 to 7    codes 2 to 29                                  9 to 16   codes of the second block
// Codes are multiplied as stored: the query, and probabilities times scales, are split into two planes of bytes. mma of
// 16 x 8 x 32 has columns for 8 pairs (block, plane). With g = lane / 4 and j = lane % 4, lane g has column g of the
// second operand, lane j the result's columns 2 j and 2 j + 1: both planes of one block.
//   scores  rows are tokens 2 g and 2 g + 1 of 16; the inner dimension has the 32 codes of a block
//   values  rows are channels of word g; the inner dimension has the 32 tokens
#pragma once

#include "backend/cuda/attention/common.cuh"
#include "backend/cuda/device/copy_async.cuh"
#include "backend/cuda/device/mma.cuh"

namespace lk::cuda {

namespace {

template <int kD>
struct RingBlocks {
    static constexpr int kTokens = 32;  // per tile
    static constexpr int kPairs = kD / 64;
    static constexpr int kRowBytes = 68 * kPairs;
    static constexpr int kTileBytes = kTokens * kRowBytes + 16;  // a row may start within 16 bytes of a copy
    static constexpr int kSharedBytes = 2 * kTileBytes + kTokens * 4;

    // `count` consecutive tokens of a segment: rows of the ring, whose memory is a circle, then staged rows.
    struct Rows {
        const SideWork& side;
        const SideShape& shape;
        const uint8_t* ring;  // of the KV head
        int head;             // over all layers
        int ring_bytes;
        int start;   // offset of the first row in the ring
        int n_ring;  // leading tokens in the ring; 0 or less: none
        int count;

        __device__ Rows(const SideWork& work, const SideShape& of_side, int kv_head, int first, int staged, int end)
            : side(work),
              shape(of_side),
              ring(work.ring_blocks + static_cast<size_t>(kv_head) * of_side.ring_rows * kRowBytes),
              head(kv_head),
              ring_bytes(of_side.ring_rows * kRowBytes),
              start((work.ring_start + first - work.n_paged) * kRowBytes),
              n_ring(staged - first),
              count(end - first) {}

        // Offset of a tile's first row in the ring. Of a tile without such a row only the remainder by 16 is used: that
        // of its place in shared memory.
        __device__ int tile(int i) const {
            const int at = start + i * kTokens * kRowBytes;
            return at < ring_bytes ? at : at - ring_bytes;
        }
        // Where row i would be if it were staged.
        __device__ const uint8_t* staged(int i) const {
            return side.staged.blocks + (static_cast<ptrdiff_t>(head) * shape.n_ubatch + i - n_ring) * kRowBytes;
        }
    };

    // The query row: two planes of signed bytes per block. b[block]: zero in the columns of other blocks.
    struct Query {
        unsigned b[kD / 32][2];
        float step;  // of the lane's result
    };

    char* shared;  // [kSharedBytes] of the warp
    int lane;
    int g;
    int j;

    __device__ RingBlocks(char* own, int own_lane) : shared(own), lane(own_lane), g(own_lane / 4), j(own_lane % 4) {}

    __device__ char* keys() const { return shared; }
    __device__ char* values() const { return shared + kTileBytes; }
    __device__ float* probabilities() const { return reinterpret_cast<float*>(shared + 2 * kTileBytes); }

    // The block of columns 2 i and 2 i + 1; negative if they are unused. Lanes 7 and 0 of g have blocks of which they
    // need codes beside the scale.
    __device__ static int block_of(int i) { return i == 0 ? kD / 32 - 1 : i == 3 ? 0 : kPairs == 2 ? i : -1; }
    // The word that has a block's scale, in its upper half for odd blocks.
    __device__ static int scale_word(int block) { return 17 * (block / 2) + 8 * (block % 2); }

    __device__ static unsigned word(const char* row, int i) { return reinterpret_cast<const unsigned*>(row)[i]; }

    // Copies a tile's rows to shared memory, 16 bytes at a time where every ring starts and ends at such a border.
    __device__ __forceinline__ void fetch(const Rows& rows, int tile, char* to) const {
        const int first = tile * kTokens;
        const int n = min(kTokens, rows.count - first);
        const int at = rows.tile(tile);
        const int before = at % 16;
        const int bytes = n * kRowBytes + before;
        const uint8_t* const from = rows.ring + (at - before);
        const int in_ring = rows.n_ring - first;
        if (in_ring >= n && rows.ring_bytes % 16 == 0 && at - before + bytes <= rows.ring_bytes) {
            const uint8_t* own = from + 16 * lane;
            asm("" : "+l"(own));  // one address for all copies
            const int left = bytes - 16 * lane;
            char* const own_to = to + 16 * lane;
#pragma unroll
            for (int i = 0; i < kTileBytes; i += 16 * 32) {
                if (i < left) {
                    copy_async(own_to + i, own + i);
                }
            }
            return;
        }
        if (in_ring < n) {
            fetch_staged(rows, first, n, max(in_ring, 0), to + before);
            return;
        }
        const int chunk = rows.ring_bytes % 16 == 0 ? 16 : 4;
#pragma unroll 1
        for (int i = (chunk == 16 ? 0 : before) + chunk * lane; i < bytes; i += chunk * 32) {
            const bool wraps = at - before + i >= rows.ring_bytes;
            const uint8_t* const one = from + i - (wraps ? rows.ring_bytes : 0);
            if (chunk == 16) {
                copy_async(to + i, one);
            } else {
                copy_async_word(to + i, one);
            }
        }
    }

    // The same for n rows from `first` on, of which in_ring are in the ring and the others are staged. Staged rows are
    // at any multiple of kPiece.
    __device__ __forceinline__ void fetch_staged(const Rows& rows, int first, int n, int in_ring, char* to) const {
        constexpr int kPiece = 4 * kPairs;
        const int left = n * kRowBytes - kPiece * lane;
        char* const own_to = to + kPiece * lane;
        const uint8_t* own = rows.staged(first) + kPiece * lane;
        asm("" : "+l"(own));  // one address for all copies
        if (in_ring == 0) {
#pragma unroll
            for (int i = 0; i < kTokens * kRowBytes; i += kPiece * 32) {
                if (i < left) {
                    copy_async_small<kPiece>(own_to + i, own + i);
                }
            }
            return;
        }
        const int at = rows.tile(first / kTokens) + kPiece * lane;
#pragma unroll 1
        for (int i = 0; i < left; i += kPiece * 32) {
            const uint8_t* const in_memory = rows.ring + at + i - (at + i >= rows.ring_bytes ? rows.ring_bytes : 0);
            const bool staged = kPiece * lane + i >= in_ring * kRowBytes;
            copy_async_small<kPiece>(own_to + i, staged ? own + i : in_memory);
        }
    }

    // The channel in a block that element i of 8 of lane j is multiplied with.
    __device__ static int query_channel(int block, int j, int i) {
        const int low = 4 * j + i % 4;
        return block % 2 == 1 ? low + (i < 4 ? 0 : 16) : (low + (i < 4 ? 2 : 18)) % 32;
    }
    // A lane's bytes of eight elements times `inverse`: their plane 0 or 1.
    __device__ static void pack_query(const float (&x)[8], float inverse, int plane, unsigned (&packed)[2]) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int n = __float2int_rn(x[i] * inverse);
            const int high = (n + 64) >> 7;
            packed[i / 4] |= (static_cast<unsigned>(plane == 0 ? high : n - 128 * high) & 0xffu) << (8 * (i % 4));
        }
    }
    // A lane's bytes of eight weights, at most `top` and not negative: their plane 0 or 1. Returns the unit of the
    // weights of lanes with the same g.
    __device__ static float pack_weights(const float (&weight)[8], float top, int plane, unsigned (&packed)[2]) {
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
        constexpr float kLargest = 65535;
        top = fmaxf(top, 1e-30f);
        const float inverse = __fdividef(kLargest, top);
        const unsigned select = plane == 0 ? 0x0051u : 0x0040u;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            unsigned n[4];  // a weight's integer, in the low bits
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                n[i] = __float_as_uint(weight[4 * h + i] * inverse + 8388608.0f);
            }
            packed[h] = __byte_perm(__byte_perm(n[0], n[1], select), __byte_perm(n[2], n[3], select), 0x5410);
        }
        return top * (1 / kLargest);
    }
    // Byte c of four tokens' words, in a[c][h].
    __device__ static void transpose(const unsigned (&t)[4], int h, unsigned (&a)[4][2]) {
        const unsigned low[2] = {__byte_perm(t[0], t[1], 0x5140), __byte_perm(t[2], t[3], 0x5140)};
        const unsigned high[2] = {__byte_perm(t[0], t[1], 0x7362), __byte_perm(t[2], t[3], 0x7362)};
        a[0][h] = __byte_perm(low[0], low[1], 0x5410);
        a[1][h] = __byte_perm(low[0], low[1], 0x7632);
        a[2][h] = __byte_perm(high[0], high[1], 0x5410);
        a[3][h] = __byte_perm(high[0], high[1], 0x7632);
    }

    // row: the query row times the scale of scores.
    __device__ void load_query(const float* row, float scale, Query& q) const {
        const int block = block_of(g / 2);
        float x[8] = {};
        float top = 0;
        if (block >= 0) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                x[i] = row[32 * block + query_channel(block, j, i)] * scale;
                top = fmaxf(top, fabsf(x[i]));
            }
        }
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
        constexpr float kLargest = 127 * 128;
        const float inverse = finite_quotient(kLargest, top);
        unsigned packed[2] = {};
        pack_query(x, inverse, g % 2, packed);
#pragma unroll
        for (int b = 0; b < kD / 32; ++b) {
            q.b[b][0] = b == block ? packed[0] : 0;
            q.b[b][1] = b == block ? packed[1] : 0;
        }
        q.step = __shfl_sync(kAllLanes, top / kLargest, 8 * j);
    }

    // The token of the lane's score.
    __device__ int own_token() const {
        return 16 * (j / 2) + 2 * g + j % 2;
    }

    // Score of the lane's token. rows: the tile's first row in shared memory.
    __device__ float score(const char* rows, const Query& q) const {
        const int scale_at = 34 * max(block_of(j), 0);
        const int split_word = j < 3 ? 5 + j : 0;
        const unsigned split = j < 3 ? 0x3210u : 0x3254u;  // codes 30, 31, 0 and 1 of a first block
        float part[4];                                     // of tokens 16 h + 2 g + r
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const char* const row = rows + (16 * h + 2 * g) * kRowBytes;
            int sum[4] = {};
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
                const char* const a = row + 68 * p;
                const char* const b = a + kRowBytes;
                multiply_signed(sum, word(a, 1 + j), word(b, 1 + j),
                                __byte_perm(word(a, split_word), word(a, 8), split),
                                __byte_perm(word(b, split_word), word(b, 8), split), q.b[2 * p][0], q.b[2 * p][1]);
                multiply_signed(sum, word(a, 9 + j), word(b, 9 + j), word(a, 13 + j), word(b, 13 + j),
                                q.b[2 * p + 1][0], q.b[2 * p + 1][1]);
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float scale =
                    half_bits_to_float(*reinterpret_cast<const uint16_t*>(row + r * kRowBytes + scale_at));
                part[2 * h + r] = static_cast<float>(128 * sum[2 * r] + sum[2 * r + 1]) * scale * q.step;
            }
        }
        // Sums over the blocks, which lanes j have; lane j keeps part j.
        const bool odd = j % 2 == 1;
        const bool upper = j / 2 == 1;
        const float low = (odd ? part[1] : part[0]) + __shfl_xor_sync(kAllLanes, odd ? part[0] : part[1], 1);
        const float high = (odd ? part[3] : part[2]) + __shfl_xor_sync(kAllLanes, odd ? part[2] : part[3], 1);
        return (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, 2);
    }

    // Adds the values of the tile's tokens, weighted by probabilities(), to the lane's 4 channels.
    __device__ void add(const char* rows, float (&out)[4]) const {
        const int block = block_of(g / 2);
        const int extra_word = scale_word(max(block, 0));
        const unsigned shift = block % 2 == 1 ? 16 : 0;
        const float4* const p = reinterpret_cast<const float4*>(probabilities());
        unsigned extra[8];
        float weight[8];
        float top = 0;
        const char* const own = rows + 4 * j * kRowBytes;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float4 four = p[4 * h + j];
            const float probability[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                extra[4 * h + i] = word(own + (16 * h + i) * kRowBytes, extra_word);
                const float scale = half_bits_to_float(static_cast<uint16_t>(extra[4 * h + i] >> shift));
                // Rows without probability may be undefined.
                weight[4 * h + i] = block >= 0 && probability[i] > 0 ? probability[i] * scale : 0.0f;
                top = fmaxf(top, weight[4 * h + i]);
            }
        }
        unsigned packed[2];
        const float unit = pack_weights(weight, top, g % 2, packed);

        int sum[2][4] = {};
#pragma unroll
        for (int b = 0; b < kD / 32; ++b) {
            // Of the second pair, lane 0 and not lane 7 has the codes around the scales: its `extra` has the others.
            const int first = b == 0 ? 1 : b == 1 ? 9 : b == 2 ? 17 : 26;
            const unsigned split = b == 0 && g == 7 ? 0x7610u : b == 2 && g == 0 ? 0x3254u : 0x3210u;
            unsigned a[4][2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                unsigned t[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    t[i] = word(own + (16 * h + i) * kRowBytes, first + g);
                    if (b % 2 == 0) {
                        t[i] = __byte_perm(t[i], extra[4 * h + i], split);
                    }
                }
                transpose(t, h, a);
            }
            const unsigned b0 = b == block ? packed[0] : 0;
            const unsigned b1 = b == block ? packed[1] : 0;
            multiply_unsigned(sum[0], a[0][0], a[1][0], a[0][1], a[1][1], b0, b1);
            multiply_unsigned(sum[1], a[2][0], a[3][0], a[2][1], a[3][1], b0, b1);
        }
        const float step = __shfl_sync(kAllLanes, unit, 8 * j);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int* const both = sum[c / 2] + 2 * (c % 2);
            out[c] += step * static_cast<float>(256 * both[0] + both[1]);
        }
    }

    // Writes the lane's channels in order, as float [kD].
    __device__ void write(const float (&out)[4], float* to) const {
        const int block = block_of(j);
        if (block >= 0) {
            const int first = 4 * g + (block == 0 ? 2 : block == 2 ? 30 : 0);
            float* const own = to + 32 * block;
            *reinterpret_cast<float2*>(own + first % 32) = make_float2(out[0], out[1]);
            *reinterpret_cast<float2*>(own + (first + 2) % 32) = make_float2(out[2], out[3]);
        }
    }
};

}  // namespace

}  // namespace lk::cuda
