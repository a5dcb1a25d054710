// Attention of several query rows over whole pages of kivi2, on the matrix units: query heads of a group share the codes.
//
// As in attention_pages.cuh a warp takes a page by itself, and scales are folded into weights of 8 bits; here
// mma.m16n8k32 multiplies 16 tokens (or channels) of codes with 8 query rows. With g = lane / 4 and j = lane % 4:
//   keys    word w of a quad holds tokens w, 8 + w, 16 + w, 24 + w of a tile; a lane takes word g of quads j and j + 4, and
//           ends with the scores of tokens 8 t + g for rows 2 j and 2 j + 1
//   values  a word holds 16 tokens of a channel; a lane takes those of channels g and g + 8 for tokens 16 j .. and
//           64 + 16 j .., and ends with these channels for rows 2 j and 2 j + 1
// While a page is worked on, the warp's next one is on its way to shared memory: eight rows take so many registers that there
// are too few warps to hide that way.
#include "backend/cuda/attention_join.cuh"
#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

namespace {

constexpr int kRows = 8;
constexpr int kTiles = 4;
constexpr unsigned kMask = 0x03030303u;
constexpr float kMiddle = 1.5f;
constexpr int kValueStride = 144;  // bytes of a row of value weights: rows 2 j in banks of their own

__device__ void multiply(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// x rounded to an integer of -127..127, in the low byte.
__device__ unsigned low_byte(float x) {
    return __float_as_uint(x + 12582912.0f);
}

__device__ unsigned pack(unsigned a, unsigned b, unsigned c, unsigned d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

__device__ float max_positive(float x) {
    return __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(x)));
}

__device__ float byte_scale(unsigned word, int i) {
    return half_bits_to_float(static_cast<uint16_t>((word >> (8 * i) & 0xffu) << 6));
}

// Over the lanes of one j.
__device__ float max_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
    }
    return x;
}

__device__ float sum_of_column(float x) {
    for (int offset = 4; offset < 32; offset *= 2) {
        x += __shfl_xor_sync(kAllLanes, x, offset);
    }
    return x;
}

// Sums eight values over the warp; lane 4 r + ... gets that of value r.
__device__ float sum_rows(float (&v)[kRows]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = kRows, offset = 16; n > 1; n /= 2, offset /= 2) {
#pragma unroll
        for (int i = 0; i < n / 2; ++i) {
            const bool upper = lane & offset;
            const float keep = upper ? v[i + n / 2] : v[i];
            const float send = upper ? v[i] : v[i + n / 2];
            v[i] = keep + __shfl_xor_sync(kAllLanes, send, offset);
        }
    }
    float x = v[0];
    x += __shfl_xor_sync(kAllLanes, x, 2);
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x;
}

template <int kCh>
struct Sizes {
    static constexpr int kD = kCh * 32;
    static constexpr int kCodeRows = kD * 5 / 4;
    static constexpr int kQuads = kCodeRows / 4;
    static constexpr int kUnits = (kQuads + 7) / 8;              // of 32 code rows
    static constexpr int kKeyStride = kCh == 4 ? 176 : 80;       // bytes of a row of key weights: no two rows in one bank
    static constexpr int kQueries = kRows * kCodeRows * 4;       // of the block: q of each code row
    static constexpr int kWeightBytes = kRows * kKeyStride + 64 + kRows * 8 + kRows * kValueStride;
    // A page in shared memory: the keys' as it lies; of the values, blocks of 16 tokens apart, so that lanes of different
    // j meet different banks, then their scales.
    static constexpr int kKeyBytes = kv::make_page_format(LK_CACHE_KIVI2, kv::Side::keys, kD, 32).page_bytes;
    static constexpr int kBlockWords = kD + 8;
    static constexpr int kScales = kKeyBytes + 8 * kBlockWords * 4;
    static constexpr int kPageBytes = kScales + kv::kPageTokens;
    static constexpr int kWarpBytes = kWeightBytes + 2 * kPageBytes;
    static constexpr int kBytes = kQueries + kJoinWarps * kWarpBytes;
};

__device__ void copy_async(void* shared, const void* global) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global));
}

// Starts copying a page; a group of copies of its own.
template <int kCh>
__device__ void fetch(char* to, const uint8_t* k_page, size_t k_bytes, const uint8_t* v_page) {
    using S = Sizes<kCh>;
    const int lane = threadIdx.x % 32;
    for (int i = lane * 16; i < static_cast<int>(k_bytes); i += 32 * 16) {
        copy_async(to + i, k_page + i);
    }
    constexpr int kPieces = S::kD / 4;  // of a block
#pragma unroll
    for (int i = lane; i < 8 * kPieces; i += 32) {
        copy_async(to + S::kKeyBytes + (i / kPieces * S::kBlockWords + i % kPieces * 4) * 4, v_page + i * 16);
    }
    if (lane < kv::kPageTokens / 16) {
        copy_async(to + S::kScales + 16 * lane, v_page + 8 * S::kD * 4 + 16 * lane);
    }
}

template <int kCh>
__global__ void __launch_bounds__(kJoinWarps * 32) attention_pages_mma_kernel(const AttentionWork a) {
    using S = Sizes<kCh>;
    constexpr int kD = S::kD;
    extern __shared__ __align__(16) char shared[];
    const SegmentWork& seg = a.segments[blockIdx.z];
    const kv::PageFormat& fk = a.k.format;
    const int group = a.n_head / a.n_head_kv;
    const int kv_head = blockIdx.x % a.n_head_kv;
    const int row0 = blockIdx.x / a.n_head_kv * kRows;
    const int n_rows = min(kRows, seg.n_rows * group - row0);
    if (n_rows <= 0) {
        return;
    }
    const int head = a.layer * a.n_head_kv + kv_head;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const size_t k_offset = static_cast<size_t>(head) * fk.page_bytes;
    const size_t v_offset = static_cast<size_t>(head) * a.v.format.page_bytes;
    const uint8_t* k_table = seg.k.tables + static_cast<size_t>(head) * a.k.table_bytes;
    const uint8_t* v_table = seg.v.tables + static_cast<size_t>(head) * a.v.table_bytes;
    const Run* const k_runs = seg.k.runs;
    const Run* const v_runs = seg.v.runs;
    const int n_sinks = seg.k.n_sinks;
    const int per_split = (seg.page_runs + a.n_page_splits - 1) / a.n_page_splits;
    const int begin = blockIdx.y * per_split;
    const int end = min(begin + per_split, seg.page_runs);
    const auto output_row = [&](int r) {
        return static_cast<size_t>(seg.row + (row0 + r) / group) * a.n_head + kv_head * group + (row0 + r) % group;
    };

    float* const queries = reinterpret_cast<float*>(shared);  // [row, code row], times 4 for base rows of refined channels
    char* const own = shared + S::kQueries + warp * S::kWarpBytes;
    int8_t* const fold_k = reinterpret_cast<int8_t*>(own);
    float2* const steps = reinterpret_cast<float2*>(own + kRows * S::kKeyStride + 64);  // step and bias of a row
    int8_t* const fold_v = reinterpret_cast<int8_t*>(steps + kRows);
    char* const pages = own + S::kWeightBytes;

    const bool has_quad = lane < kD / 4;
    const float v_factor = ldexpf(1.0f, *reinterpret_cast<const int*>(v_table));
    const uint16_t* refined_list = reinterpret_cast<const uint16_t*>(k_table + 4);
    const int refined = has_quad ? refined_list[lane] : 0;
    const float scale = a.scale * ldexpf(1.0f, *reinterpret_cast<const int*>(k_table));
    for (int i = threadIdx.x; i < kRows * S::kCodeRows; i += blockDim.x) {
        const int r = i / S::kCodeRows;
        const int row = i % S::kCodeRows;
        const int channel = row < kD ? row : refined_list[row - kD];
        queries[i] = r < n_rows ? a.q[output_row(r) * kD + channel] * scale : 0.0f;
    }
    // Of the lane's channels, those that are refined: their base plane counts four times.
    float wide[4] = {1, 1, 1, 1};
    for (int i = 0; i < kD / 4; ++i) {
        const int c = __shfl_sync(kAllLanes, refined, i) - 4 * lane;
        wide[0] = c == 0 ? 4.0f : wide[0];
        wide[1] = c == 1 ? 4.0f : wide[1];
        wide[2] = c == 2 ? 4.0f : wide[2];
        wide[3] = c == 3 ? 4.0f : wide[3];
    }
    for (int i = lane; i < S::kWeightBytes / 4; i += 32) {
        reinterpret_cast<unsigned*>(own)[i] = 0;
    }
    __syncthreads();

    int last[2];  // positions of rows 2 j and 2 j + 1
    float largest[2] = {-INFINITY, -INFINITY};
    float sum[2] = {0, 0};
    float out[kD / 16][4];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        last[e] = seg.length + (row0 + min(2 * j + e, n_rows - 1)) / group;
    }
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            out[i][k] = 0;
        }
    }

    // Where pages are is read one page before they are fetched, which is one before they are needed.
    const auto run_at = [&](const Run* runs, int p) { return runs[min(p, end - 1)]; };
    Run run{};
    Run next{};
    const uint8_t* next_values = nullptr;
    if (begin + warp < end) {
        run = run_at(k_runs, begin + warp);
        fetch<kCh>(pages, run.block + k_offset, fk.page_bytes, run_at(v_runs, begin + warp).block + v_offset);
        next = run_at(k_runs, begin + warp + kJoinWarps);
        next_values = run_at(v_runs, begin + warp + kJoinWarps).block;
    }
    asm volatile("cp.async.commit_group;\n" ::);
    for (int p = begin + warp, buffer = 0; p < end; p += kJoinWarps, buffer ^= 1) {
        if (p + kJoinWarps < end) {
            fetch<kCh>(pages + (buffer ^ 1) * S::kPageBytes, next.block + k_offset, fk.page_bytes,
                       next_values + v_offset);
        }
        asm volatile("cp.async.commit_group;\n" ::);
        const Run after = run_at(k_runs, p + 2 * kJoinWarps);
        const uint8_t* const after_values = run_at(v_runs, p + 2 * kJoinWarps).block;
        asm volatile("cp.async.wait_group 1;\n" ::);
        __syncwarp();
        const char* const page = pages + buffer * S::kPageBytes;
        const uint8_t* const k_page = reinterpret_cast<const uint8_t*>(page);

        // ---- scores of tokens 32 tile + 8 t + g
        float score[kTiles][4][2];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const unsigned* codes = reinterpret_cast<const unsigned*>(k_page) + tile * S::kQuads * 8 + j * 8 + g;
            unsigned words[2 * S::kUnits];
#pragma unroll
            for (int i = 0; i < 2 * S::kUnits; ++i) {
                words[i] = 4 * i < S::kQuads ? codes[32 * i] : 0;
            }
            if (tile * 32 % fk.group == 0) {
                const int token_group = tile * 32 / fk.group;
                float s[4] = {};
                float z[4] = {};
                float s_refined = 0;
                if (has_quad) {
                    const int at = token_group * kD + 4 * lane;
                    const unsigned w = *reinterpret_cast<const unsigned*>(k_page + fk.scales_offset + at);
                    const unsigned zeros = *reinterpret_cast<const unsigned*>(k_page + fk.zeros_offset + at);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float x = byte_scale(w, i);
                        const float zero = static_cast<float>(static_cast<int8_t>(zeros >> (8 * i)));
                        s[i] = x * wide[i];
                        z[i] = x * 0.25f * zero + s[i] * kMiddle;
                    }
                    s_refined = half_bits_to_float(static_cast<uint16_t>(
                        k_page[fk.scales_offset + token_group * kD + refined] << 6));
                }
                __syncwarp();  // the weights of the group before are used
                float constant[kRows];
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
                    constant[r] = 0;
                    if (r >= n_rows) {
                        continue;
                    }
                    float4 q = {};
                    float q_refined = 0;
                    if (has_quad) {
                        q = *reinterpret_cast<const float4*>(queries + r * S::kCodeRows + 4 * lane);
                        q_refined = queries[r * S::kCodeRows + kD + lane];
                    }
                    const float w0 = q.x * s[0];
                    const float w1 = q.y * s[1];
                    const float w2 = q.z * s[2];
                    const float w3 = q.w * s[3];
                    const float w4 = q_refined * s_refined;
                    const float top = max_positive(
                        fmaxf(fmaxf(fmaxf(fabsf(w0), fabsf(w1)), fmaxf(fabsf(w2), fabsf(w3))), fabsf(w4)));
                    const float inverse = top > 0 ? 127.0f / top : 0.0f;
                    const float step = top / 127.0f;
                    const unsigned packed = pack(low_byte(w0 * inverse), low_byte(w1 * inverse),
                                                 low_byte(w2 * inverse), low_byte(w3 * inverse));
                    const int8_t code = static_cast<int8_t>(low_byte(w4 * inverse));
                    const int total = __dp4a(static_cast<int>(packed), 0x01010101, static_cast<int>(code));
                    if (has_quad) {
                        *reinterpret_cast<unsigned*>(fold_k + r * S::kKeyStride + 4 * lane) = packed;
                        fold_k[r * S::kKeyStride + kD + lane] = code;
                    }
                    if (lane == 0) {
                        steps[r].x = step;
                    }
                    constant[r] = q.x * z[0] + q.y * z[1] + q.z * z[2] + q.w * z[3] + w4 * kMiddle -
                                  step * kMiddle * static_cast<float>(total);
                }
                const float bias = sum_rows(constant);
                if (j == 0) {
                    steps[g].y = bias;
                }
                __syncwarp();
            }
            int dot[2][4] = {};
#pragma unroll
            for (int u = 0; u < S::kUnits; ++u) {
                const unsigned b0 = *reinterpret_cast<const unsigned*>(fold_k + g * S::kKeyStride + 4 * (8 * u + j));
                const unsigned b1 = *reinterpret_cast<const unsigned*>(fold_k + g * S::kKeyStride + 4 * (8 * u + 4 + j));
#pragma unroll
                for (int h = 0; h < 2; ++h) {  // tokens 16 h ..
                    multiply(dot[h], words[2 * u] >> (4 * h) & kMask, words[2 * u] >> (4 * h + 2) & kMask,
                             words[2 * u + 1] >> (4 * h) & kMask, words[2 * u + 1] >> (4 * h + 2) & kMask, b0, b1);
                }
            }
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float2 step = steps[2 * j + e];
#pragma unroll
                for (int t = 0; t < 4; ++t) {
                    score[tile][t][e] = step.x * static_cast<float>(dot[t / 2][t % 2 * 2 + e]) + step.y;
                }
            }
        }

        // ---- softmax; score becomes the probability, up to the sum
        float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                const int in_run = 32 * tile + 8 * t + g - run.first;
                const int token = run.start + in_run;
                const bool there = in_run >= 0 && in_run < run.count && token >= n_sinks;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const bool seen = there && (a.window == 0 || token > last[e] - a.window);
                    score[tile][t][e] = seen ? score[tile][t][e] : -INFINITY;
                    top[e] = fmaxf(top[e], score[tile][t][e]);
                }
            }
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const float now = fmaxf(largest[e], max_of_column(top[e]));
            const float base = now == -INFINITY ? 0.0f : now;
            const float correction = __expf(largest[e] - base);  // of nothing: 0
            sum[e] *= correction;
#pragma unroll
            for (int i = 0; i < kD / 16; ++i) {
                out[i][e] *= correction;
                out[i][2 + e] *= correction;
            }
            largest[e] = now;
#pragma unroll
            for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
                for (int t = 0; t < 4; ++t) {
                    score[tile][t][e] = __expf(score[tile][t][e] - base);
                    sum[e] += score[tile][t][e];
                }
            }
        }

        // ---- values: probabilities times scales as weights of 8 bits
        float greatest[2] = {0, 0};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                const uint8_t byte = static_cast<uint8_t>(page[S::kScales + 32 * tile + 8 * t + g]);
                const float s = half_bits_to_float(static_cast<uint16_t>(byte << 6)) * v_factor;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float pr = score[tile][t][e];
                    score[tile][t][e] = pr > 0 ? pr * s : 0.0f;  // what is not there may have any scale
                    greatest[e] = fmaxf(greatest[e], score[tile][t][e]);
                }
            }
        }
        __syncwarp();
        float step[2];
        float bias[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            greatest[e] = max_of_column(greatest[e]);
            const float inverse = greatest[e] > 0 ? 127.0f / greatest[e] : 0.0f;
            int total = 0;
#pragma unroll
            for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
                for (int t = 0; t < 4; ++t) {
                    const int8_t code = static_cast<int8_t>(low_byte(score[tile][t][e] * inverse));
                    total += code;
                    fold_v[(2 * j + e) * kValueStride + 32 * tile + 8 * t + g] = code;
                }
            }
            step[e] = greatest[e] / 127.0f;
            bias[e] = -step[e] * kMiddle * sum_of_column(static_cast<float>(total));
        }
        __syncwarp();
        const uint4 low = *reinterpret_cast<const uint4*>(fold_v + g * kValueStride + 16 * j);
        const uint4 high = *reinterpret_cast<const uint4*>(fold_v + g * kValueStride + 64 + 16 * j);
        const unsigned b0[4] = {low.x, low.y, low.z, low.w};
        const unsigned b1[4] = {high.x, high.y, high.z, high.w};
        const unsigned* const values = reinterpret_cast<const unsigned*>(page + S::kKeyBytes) + j * S::kBlockWords + g;
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
            const unsigned w0 = values[16 * i];
            const unsigned w1 = values[16 * i + 8];
            const unsigned w2 = values[4 * S::kBlockWords + 16 * i];
            const unsigned w3 = values[4 * S::kBlockWords + 16 * i + 8];
            int dot[4] = {};
#pragma unroll
            for (int s = 0; s < 4; ++s) {
                multiply(dot, w0 >> (2 * s) & kMask, w1 >> (2 * s) & kMask, w2 >> (2 * s) & kMask,
                         w3 >> (2 * s) & kMask, b0[s], b1[s]);
            }
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                out[i][k] += step[k % 2] * static_cast<float>(dot[k]) + bias[k % 2];
            }
        }
        __syncwarp();  // the buffer is free
        run = next;
        next = after;
        next_values = after_values;
    }

    __syncthreads();
    float* const sums = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        float* to = warp_part<kRows, kD>(sums, warp, 2 * j + e);
        const float total = sum_of_column(sum[e]);
        if (g == 0) {
            to[0] = largest[e];
            to[1] = total;
        }
#pragma unroll
        for (int i = 0; i < kD / 16; ++i) {
            to[2 + 16 * i + g] = out[i][e];
            to[2 + 16 * i + 8 + g] = out[i][2 + e];
        }
    }
    join_parts<kRows, kD, true>(a, blockIdx.y, n_rows, output_row, reinterpret_cast<const uint16_t*>(v_table + 4), sums);
}

template <int kCh>
void launch(const AttentionWork& a, cudaStream_t stream) {
    const int joined = join_bytes(kRows, kCh * 32);
    const int bytes = joined > Sizes<kCh>::kBytes ? joined : Sizes<kCh>::kBytes;
    const int group = a.n_head / a.n_head_kv;
    const dim3 grid(a.n_head_kv * ((a.max_rows * group + kRows - 1) / kRows), a.n_page_splits, a.n_segments);
    cudaFuncSetAttribute(attention_pages_mma_kernel<kCh>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    attention_pages_mma_kernel<kCh><<<grid, kJoinWarps * 32, bytes, stream>>>(a);
}

}  // namespace

void attention_pages_mma(const AttentionWork& a, cudaStream_t stream) {
    a.head_size == 128 ? launch<4>(a, stream) : launch<2>(a, stream);
}

}  // namespace lk::cuda
