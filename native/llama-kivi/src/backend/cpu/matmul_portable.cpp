// Portable matmuls. A weight row is dequantized to floats once for a tile of tokens, and activations once for a tile of
// rows; what is left is dot products of floats, which compilers vectorize. A result's order of sums depends on the
// row's length alone.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "backend/cpu/kernels_portable.h"
#include "backend/cpu/row_groups.h"
#include "backend/cpu/simd_portable.h"

namespace lk::cpu::portable {

namespace {

constexpr int kTileTokens = 16;  // per dequantized weight row
constexpr int kDotTokens = 4;    // that share loads of weights: as many as the registers hold
constexpr int kChains = 2;       // vectors of sums per token
constexpr int64_t kStep = kChains * kFloats;

// out[i] = d[i / block] * q[i].
void scale_blocks(const int8_t* q, const float* d, int block, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i += block, ++d) {
        std::transform(q + i, q + i + block, out + i, [d = *d](int8_t code) { return d * static_cast<float>(code); });
    }
}

// The activations that weights of `form` are multiplied by.
void activations(const QuantizedRow& x, ActivationForm form, int64_t n, float* out) {
    switch (form) {
    case ActivationForm::plain:
        return scale_blocks(x.plain.q, x.plain.d, kBlock, n, out);
    case ActivationForm::super:
        return scale_blocks(x.super.q, x.super.d, kSuperBlock, n, out);
    case ActivationForm::exact:
        std::copy_n(x.x, n, out);
    }
}

// y[token * y_stride] = dot(w[width], x[token, width]) for kTokens tokens. width % kStep == 0.
template <int kTokens>
void dot_rows(const float* w, const float* x, int64_t width, float* y, int64_t y_stride) {
    Floats sums[kTokens][kChains] = {};
    for (int64_t i = 0; i < width; i += kStep) {
        for (int chain = 0; chain < kChains; ++chain) {
            const int64_t at = i + chain * kFloats;
            const Floats weights = load<Floats>(w + at);
            for (int token = 0; token < kTokens; ++token) {
                sums[token][chain] += weights * load<Floats>(x + token * width + at);
            }
        }
    }
    for (int token = 0; token < kTokens; ++token) {
        y[token * y_stride] = lane_sum(sums[token][0] + sums[token][1]);
    }
}

}  // namespace

void matmul(const Tensor& w, int64_t row_begin, int64_t row_end, const QuantizedRow* x, int n_cols, float* y,
            int64_t y_stride) {
    const int64_t n = w.n_cols;
    const int64_t width = (n + kStep - 1) / kStep * kStep;  // zeros follow the n elements
    const int tile_tokens = std::min(n_cols, kTileTokens);
    const auto memory = std::make_unique_for_overwrite<float[]>((tile_tokens + 1) * width);
    float* const row = memory.get();
    float* const tile = row + width;
    std::fill(row + n, row + width, 0.0f);
    for (int first = 0; first < n_cols; first += tile_tokens) {
        const int n_tokens = std::min(tile_tokens, n_cols - first);
        for (int token = 0; token < n_tokens; ++token) {
            float* const out = tile + token * width;
            activations(x[first + token], activation_form(w.type), n, out);
            std::fill(out + n, out + width, 0.0f);
        }
        for (int64_t r = row_begin; r < row_end; ++r) {
            dequantize_row(w.type, w.data + r * w.row_bytes, row, n);
            for_rows<kDotTokens>(n_tokens, [&]<int kTokens>(std::integral_constant<int, kTokens>, int token) {
                dot_rows<kTokens>(row, tile + token * width, width, y + (first + token) * y_stride + r, y_stride);
            });
        }
    }
}

}  // namespace lk::cpu::portable
