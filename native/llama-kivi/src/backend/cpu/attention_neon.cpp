// NEON attention kernels: byte codes times int8 weights, and half rows times float rows.
#include <algorithm>
#include <cstring>

#include "backend/cpu/kernels_neon.h"
#include "kv/codec/kivi_format.h"

namespace lk::cpu::LK_SIMD {

namespace {

void to_float(const half_t* x, int n, float* out) {
    for (int i = 0; i < n; i += 4) {
        vst1q_f32(out + i, load_half4(x + i));
    }
}

// R rows of weights times eight lanes.
template <int R>
void dot_eight(const uint8_t* codes, int quad_stride, int n_quads, const int8_t* w, int w_stride, const float* step,
               const float* bias, float* out, int out_stride) {
    int32x4_t sums[R][2] = {};
    for (int quad = 0; quad < n_quads; ++quad) {
        const uint8_t* from = codes + static_cast<ptrdiff_t>(quad) * quad_stride;
        const int8x16_t low = vreinterpretq_s8_u8(vld1q_u8(from));  // signed is safe: codes are below 128
        const int8x16_t high = vreinterpretq_s8_u8(vld1q_u8(from + 16));
        for (int r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, w + r * w_stride + quad * 4, 4);
            const int8x16_t wq = vreinterpretq_s8_s32(vdupq_n_s32(four));
            sums[r][0] = add_dot(sums[r][0], low, wq);
            sums[r][1] = add_dot(sums[r][1], high, wq);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int half = 0; half < 2; ++half) {
            float* to = out + r * out_stride + 4 * half;
            const float32x4_t line = vfmaq_n_f32(vdupq_n_f32(bias[r]), vcvtq_f32_s32(sums[r][half]), step[r]);
            vst1q_f32(to, vaddq_f32(vld1q_f32(to), line));
        }
    }
}

// acc[4 * kVectors] += sum over tokens t of p[t] * v[t][4 * kVectors].
template <int kVectors>
void accumulate_block(const float* v, int n_tokens, int stride, const float* p, float* acc) {
    float32x4_t a[kVectors];
    for (int i = 0; i < kVectors; ++i) {
        a[i] = vld1q_f32(acc + 4 * i);
    }
    for (int t = 0; t < n_tokens; ++t) {
        for (int i = 0; i < kVectors; ++i) {
            a[i] = vfmaq_n_f32(a[i], vld1q_f32(v + t * stride + 4 * i), p[t]);
        }
    }
    for (int i = 0; i < kVectors; ++i) {
        vst1q_f32(acc + 4 * i, a[i]);
    }
}

}  // namespace

void score_exact(const half_t* k, int n_tokens, int head_size, const float* q, int n_rows, float* scores, int ld) {
    constexpr int kTokens = 4;
    const int d = head_size;
    float wide[kTokens * kv::kMaxHeadSize];
    for (int t = 0; t < n_tokens; t += kTokens) {
        const int n = std::min(kTokens, n_tokens - t);
        to_float(k + t * d, n * d, wide);
        for (int r = 0; r < n_rows; ++r) {
            for (int j = 0; j < n; ++j) {
                float32x4_t sum[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
                for (int c = 0; c < d; c += 8) {
                    sum[0] = vfmaq_f32(sum[0], vld1q_f32(q + r * d + c), vld1q_f32(wide + j * d + c));
                    sum[1] = vfmaq_f32(sum[1], vld1q_f32(q + r * d + c + 4), vld1q_f32(wide + j * d + c + 4));
                }
                scores[r * ld + t + j] = vaddvq_f32(vaddq_f32(sum[0], sum[1]));
            }
        }
    }
}

void accumulate_exact(const half_t* v, int n_tokens, int head_size, const float* p, int ld, int n_rows, float* acc) {
    constexpr int kTokens = 16;
    const int d = head_size;
    float wide[kTokens * kv::kMaxHeadSize];
    for (int t = 0; t < n_tokens; t += kTokens) {
        const int n = std::min(kTokens, n_tokens - t);
        to_float(v + t * d, n * d, wide);
        for (int r = 0; r < n_rows; ++r) {
            int c = 0;
            for (; c + 32 <= d; c += 32) {
                accumulate_block<8>(wide + c, n, d, p + r * ld + t, acc + r * d + c);
            }
            for (; c < d; c += 8) {
                accumulate_block<2>(wide + c, n, d, p + r * ld + t, acc + r * d + c);
            }
        }
    }
}

void unpack_codes(const uint8_t* packed, int n_units, int unit_bytes, int bits, uint8_t* out, int unit_stride,
                  int piece_stride) {
    const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>((1 << bits) - 1));
    for (int u = 0; u < n_units; ++u) {
        const uint8_t* from = packed + static_cast<ptrdiff_t>(u) * unit_bytes;
        uint8_t* to = out + static_cast<ptrdiff_t>(u) * unit_stride;
        if (bits == 3) {  // 32 bytes of two bits, then 16 bytes of high bits: 128 codes
            const uint8x16_t top = vld1q_u8(from + 32);
            for (int i = 0; i < 8; ++i) {  // 16 codes
                const uint8x16_t pair =
                    vshlq_u8(vld1q_u8(from + i % 2 * 16), vdupq_n_s8(static_cast<int8_t>(-(i / 2) * 2)));
                const uint8x16_t bit = vshlq_u8(top, vdupq_n_s8(static_cast<int8_t>(2 - i)));
                vst1q_u8(to + i / 2 * piece_stride + i % 2 * 16,
                         vorrq_u8(vandq_u8(pair, vdupq_n_u8(3)), vandq_u8(bit, vdupq_n_u8(4))));
            }
            continue;
        }
        for (int at = 0; at < unit_bytes; at += 16) {
            const uint8x16_t x = vld1q_u8(from + at);
            for (int k = 0; k < 8 / bits; ++k) {
                const int first = k * unit_bytes + at;  // code number
                const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-bits * k));
                vst1q_u8(to + first / 32 * piece_stride + first % 32, vandq_u8(vshlq_u8(x, down), mask));
            }
        }
    }
}

void fold(const float* a, int a_stride, int n_rows, const float* scale, const float* zero, float middle, int n,
          int8_t* w, float* step, float* bias) {
    for (int r = 0; r < n_rows; ++r, a += a_stride, w += n) {
        float32x4_t most = vdupq_n_f32(0);
        float32x4_t zeros = vdupq_n_f32(0);  // sum of a * zero
        for (int i = 0; i < n; i += 4) {
            const float32x4_t x = vld1q_f32(a + i);
            most = vmaxq_f32(most, vabsq_f32(vmulq_f32(x, vld1q_f32(scale + i))));
            zeros = vfmaq_f32(zeros, x, vld1q_f32(zero + i));
        }
        const float top = vmaxvq_f32(most);
        step[r] = top / 127.0f;
        const float inverse = finite_quotient(127.0f, top);
        float32x4_t lost = vdupq_n_f32(0);  // total rounding error, in steps
        for (int i = 0; i < n; i += 8) {
            int32x4_t c[2];
            for (int k = 0; k < 2; ++k) {
                const float32x4_t x = vmulq_f32(vld1q_f32(a + i + 4 * k), vld1q_f32(scale + i + 4 * k));
                c[k] = vcvtnq_s32_f32(vmulq_n_f32(x, inverse));
                lost = vaddq_f32(lost, vsubq_f32(vmulq_n_f32(x, inverse), vcvtq_f32_s32(c[k])));
            }
            vst1_s8(w + i, vmovn_s16(vcombine_s16(vmovn_s32(c[0]), vmovn_s32(c[1]))));
        }
        bias[r] = vaddvq_f32(vfmaq_n_f32(zeros, lost, middle * step[r]));
    }
}

void dot_codes(const uint8_t* codes, int quad_stride, int n_quads, int lanes, const int8_t* w, int w_stride,
               const float* step, const float* bias, int n_rows, float* out, int out_stride) {
    for (int lane = 0; lane < lanes; lane += 8) {
        int r = 0;
        for (; r + 4 <= n_rows; r += 4) {
            dot_eight<4>(codes + 4 * lane, quad_stride, n_quads, w + r * w_stride, w_stride, step + r, bias + r,
                         out + r * out_stride + lane, out_stride);
        }
        for (; r < n_rows; ++r) {
            dot_eight<1>(codes + 4 * lane, quad_stride, n_quads, w + r * w_stride, w_stride, step + r, bias + r,
                         out + r * out_stride + lane, out_stride);
        }
    }
}

void decode_byte_scales(const uint8_t* scales, int n, float factor, float* s) {
    for (int i = 0; i < n; i += 8) {
        const uint16x8_t halves = vshll_n_u8(vld1_u8(scales + i), 6);
        vst1q_f32(s + i, vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves))), factor));
        vst1q_f32(s + i + 4, vmulq_n_f32(vcvt_high_f32_f16(vreinterpretq_f16_u16(halves)), factor));
    }
}

float square_sum(const float* a, const float* b, int n) {
    float32x4_t sum = vdupq_n_f32(0);
    for (int i = 0; i < n; i += 4) {
        const float32x4_t x = vmulq_f32(vld1q_f32(a + i), vld1q_f32(b + i));
        sum = vfmaq_f32(sum, x, x);
    }
    return vaddvq_f32(sum);
}

}  // namespace lk::cpu::LK_SIMD
