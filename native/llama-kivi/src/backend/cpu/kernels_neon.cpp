// NEON kernels: quantization of activations and nonlinear functions.
#include "backend/cpu/kernels_neon.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/packed_codes.h"

namespace lk::cpu::LK_SIMD {

namespace {

// Quantizes n activations with one scale, n % 16 == 0. Returns the scale, largest / 127; it is NaN or infinite if an
// activation is, because NEON maxima propagate NaN.
float quantize_block(const float* x, int n, int8_t* q) {
    float32x4_t most = vdupq_n_f32(0);
    for (int i = 0; i < n; i += 4) {
        most = vmaxq_f32(most, vabsq_f32(vld1q_f32(x + i)));
    }
    const float largest = vmaxvq_f32(most);
    const float inverse = finite_quotient(127.0f, largest);
    for (int i = 0; i < n; i += 16) {
        int32x4_t c[4];
        for (int k = 0; k < 4; ++k) {
            c[k] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * k), inverse));
        }
        const int8x8_t low = vmovn_s16(vcombine_s16(vmovn_s32(c[0]), vmovn_s32(c[1])));
        const int8x8_t high = vmovn_s16(vcombine_s16(vmovn_s32(c[2]), vmovn_s32(c[3])));
        vst1q_s8(q + i, vcombine_s8(low, high));
    }
    return largest / 127.0f;
}

void quantize_plain(const float* x, int n, int8_t* q, float* d, float* sum, int32_t* q_sum) {
    for (int b = 0; b < n / 32; ++b) {
        const int8_t* codes = q + b * 32;
        const float scale = quantize_block(x + b * 32, 32, q + b * 32);
        q_sum[b] = vaddlvq_s8(vld1q_s8(codes)) + vaddlvq_s8(vld1q_s8(codes + 16));
        d[b] = half_to_float(float_to_half(scale));
        sum[b] = half_to_float(float_to_half(scale * static_cast<float>(q_sum[b])));
    }
}

void quantize_super(const float* x, int n, int8_t* q, float* d, int16_t* sums) {
    for (int b = 0; b < n / 256; ++b) {
        d[b] = quantize_block(x + b * 256, 256, q + b * 256);
    }
    for (int i = 0; i < n / 16; ++i) {
        sums[i] = vaddlvq_s8(vld1q_s8(q + i * 16));
    }
}

// exp(x) for x <= 88, relative error below 3e-7; underflows to 0 below -87. Method: see exp_ps in simd_avx2.h.
float32x4_t exp_f32(float32x4_t x) {
    const uint32x4_t tiny = vcltq_f32(x, vdupq_n_f32(-87.0f));
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-87.0f)), vdupq_n_f32(88.0f));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, n, 0.693359375f);
    r = vfmsq_n_f32(r, n, -2.12194440e-4f);
    float32x4_t e = vdupq_n_f32(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
        e = vfmaq_f32(vdupq_n_f32(c), e, r);
    }
    const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    const float32x4_t y = vmulq_f32(e, vreinterpretq_f32_s32(power));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), tiny));
}

void swiglu(float* gate, const float* up, int64_t n) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t x = vld1q_f32(gate + i);
        const float32x4_t below = vaddq_f32(vdupq_n_f32(1), exp_f32(vnegq_f32(x)));
        vst1q_f32(gate + i, vmulq_f32(vdivq_f32(x, below), vld1q_f32(up + i)));
    }
    portable_kernels().swiglu(gate + i, up + i, n - i);
}

float softmax_part(float* x, int n, float max) {
    float32x4_t sum = vdupq_n_f32(0);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t p = exp_f32(vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(max)));
        vst1q_f32(x + i, p);
        sum = vaddq_f32(sum, p);
    }
    return vaddvq_f32(sum) + portable_kernels().softmax_part(x + i, n - i, max);
}

float max_of(const float* x, int n) {
    if (n < 4) {
        return *std::max_element(x, x + n);
    }
    float32x4_t most = vld1q_f32(x + n - 4);
    for (int i = 0; i + 4 <= n; i += 4) {
        most = vmaxq_f32(most, vld1q_f32(x + i));
    }
    return vmaxvq_f32(most);
}

float sum(const float* x, int n) {
    float32x4_t total = vdupq_n_f32(0);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        total = vaddq_f32(total, vld1q_f32(x + i));
    }
    return vaddvq_f32(total) + portable_kernels().sum(x + i, n - i);
}

}  // namespace

const Kernels& kernels() {
    static const Kernels table = [] {
        Kernels t = portable_kernels();
#ifdef LK_DOTPROD
        t.name = "NEON with dot products";
#else
        t.name = "NEON";
#endif
        t.quantize_plain = quantize_plain;
        t.quantize_super = quantize_super;
        t.matmul = LK_SIMD::matmul;
        t.swiglu = swiglu;
        t.softmax_part = softmax_part;
        t.max = max_of;
        t.sum = sum;
        t.score_exact = LK_SIMD::score_exact;
        t.accumulate_exact = LK_SIMD::accumulate_exact;
        t.unpack_codes = LK_SIMD::unpack_codes;
        t.fold = LK_SIMD::fold;
        t.dot_codes = LK_SIMD::dot_codes;
        t.score_packed = unpack_and_score<LK_SIMD::unpack_codes, LK_SIMD::dot_codes>;
        t.accumulate_packed = unpack_and_accumulate<LK_SIMD::unpack_codes, LK_SIMD::dot_codes>;
        t.decode_byte_scales = LK_SIMD::decode_byte_scales;
        t.square_sum = LK_SIMD::square_sum;
        return t;
    }();
    return table;
}

}  // namespace lk::cpu::LK_SIMD
