// Portable attention kernels over exact rows and unpacked codes.
#include <algorithm>

#include "backend/cpu/kernels_portable.h"
#include "backend/cpu/simd_portable.h"
#include "base/half.h"
#include "kv/codec/kivi_format.h"

namespace lk::cpu::portable {

namespace {

// Widens n rows, n * head_size % 8 == 0. scratch: [n, D].
const float* wide_rows(const half_t* x, int n, float* scratch) {
    for (int i = 0; i < n; i += kFloats) {
        store(scratch + i, half_to_floats(x + i));
    }
    return scratch;
}

const float* wide_rows(const float* x, int, float*) {
    return x;
}

float dot(const float* a, const float* b, int n) {
    Floats sums[2] = {};
    for (int i = 0; i < n; i += 2 * kFloats) {
        sums[0] += load<Floats>(a + i) * load<Floats>(b + i);
        sums[1] += load<Floats>(a + i + kFloats) * load<Floats>(b + i + kFloats);
    }
    return lane_sum(sums[0] + sums[1]);
}

template <class Element>
void score_rows(const Element* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    float scratch[kv::kMaxHeadSize];
    for (int t = 0; t < n_tokens; ++t) {
        const float* const row = wide_rows(k + t * head_size, head_size, scratch);
        for (int r = 0; r < n_rows; ++r) {
            scores[r * ld + t] = dot(q + r * head_size, row, head_size);
        }
    }
}

// acc[8] += sum over tokens t of p[t] * v[t][8].
void accumulate_eight(const float* v, int n_tokens, int stride, const float* p, float* acc) {
    Floats low = load<Floats>(acc);
    Floats high = load<Floats>(acc + kFloats);
    for (int t = 0; t < n_tokens; ++t) {
        low += p[t] * load<Floats>(v + t * stride);
        high += p[t] * load<Floats>(v + t * stride + kFloats);
    }
    store(acc, low);
    store(acc + kFloats, high);
}

template <class Element>
void accumulate_rows(const Element* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    constexpr int kTokens = 16;  // widened at a time
    float scratch[kTokens * kv::kMaxHeadSize];
    for (int t = 0; t < n_tokens; t += kTokens) {
        const int n = std::min(kTokens, n_tokens - t);
        const float* const rows = wide_rows(v + t * head_size, n * head_size, scratch);
        for (int r = 0; r < n_rows; ++r) {
            for (int c = 0; c < head_size; c += 2 * kFloats) {
                accumulate_eight(rows + c, n, head_size, p + r * ld + t, acc + r * head_size + c);
            }
        }
    }
}

}  // namespace

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    score_rows(k, n_tokens, head_size, q, n_rows, scores, ld);
}

void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    accumulate_rows(v, n_tokens, head_size, p, ld, n_rows, acc);
}

void score_floats(const float* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    score_rows(k, n_tokens, head_size, q, n_rows, scores, ld);
}

void accumulate_floats(const float* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    accumulate_rows(v, n_tokens, head_size, p, ld, n_rows, acc);
}

void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride) {
    constexpr int kHighBytes = 16;  // of 3-bit codes
    const int n_codes = unit_bytes * 8 / bits;
    const int plane_bits = bits == 3 ? 2 : bits;
    const int plane_bytes = n_codes * plane_bits / 8;
    for (int u = 0; u < n_units; ++u) {
        const uint8_t* const from = packed + u * unit_bytes;
        for (int i = 0; i < n_codes; ++i) {
            int code = (from[i % plane_bytes] >> (plane_bits * (i / plane_bytes))) & ((1 << plane_bits) - 1);
            if (bits == 3) {
                code |= ((from[plane_bytes + i % kHighBytes] >> (i / kHighBytes)) & 1) << 2;
            }
            out[u * unit_stride + i / 32 * piece_stride + i % 32] = static_cast<uint8_t>(code);
        }
    }
}

void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride) {
    for (int r = 0; r < n_rows; ++r) {
        for (int lane = 0; lane < lanes; ++lane) {
            int sum = 0;
            for (int i = 0; i < 4 * n_quads; ++i) {
                sum += codes[i / 4 * quad_stride + lane * 4 + i % 4] * w[r * w_stride + i];
            }
            out[r * out_stride + lane] += step[r] * static_cast<float>(sum) + bias[r];
        }
    }
}

}  // namespace lk::cpu::portable
