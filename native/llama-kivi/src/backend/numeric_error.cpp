#include "backend/numeric_error.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/finite.h"

namespace lk {

namespace {

// The explanation if the weights are finite.
constexpr const char* kTooLarge =
    "the values overflowed the range of floats. The model file may be damaged or wrongly converted, or this is a bug "
    "in the engine";

// "layer 1, attn_q"; "output".
std::string place_of(const Tensor& w) {
    const std::string operation(w.operation);
    return w.layer < 0 ? operation : format("layer %d, %s", w.layer, operation.c_str());
}

bool row_is_finite(const Tensor& w, int64_t i) {
    std::vector<float> row(w.n_cols);
    dequantize_row(w.type, w.data + i * w.row_bytes, row.data(), w.n_cols);
    return std::all_of(row.begin(), row.end(), is_finite);
}

}  // namespace

void fail_product(const Tensor& w) {
    for (int64_t i = 0; i < w.n_rows; ++i) {
        LK_CHECK(row_is_finite(w, i), LK_NUMERIC_ERROR,
                 "%s gave NaN or infinity: row %lld of tensor '%s' contains NaN or infinity; the model file is damaged",
                 place_of(w).c_str(), static_cast<long long>(i), std::string(w.name).c_str());
    }
    LK_FAIL(LK_NUMERIC_ERROR, "%s gave NaN or infinity from finite weights: %s", place_of(w).c_str(), kTooLarge);
}

void fail_rows(Rows::Form form, const Tensor* w) {
    const bool norm = form == Rows::Form::rms_norm || form == Rows::Form::layer_norm;
    const char* const what = norm ? "the norm" : form == Rows::Form::plain ? "the operation" : "the activation";
    const std::string place = w != nullptr ? format("%s: %s before it", place_of(*w).c_str(), what) : "output_norm";
    LK_FAIL(LK_NUMERIC_ERROR, "%s gave NaN or infinity: %s", place.c_str(), kTooLarge);
}

void fail_embedding(const Tensor& table, std::span<const int32_t> tokens) {
    const auto broken =
        std::find_if_not(tokens.begin(), tokens.end(), [&](int32_t token) { return row_is_finite(table, token); });
    LK_FAIL(LK_NUMERIC_ERROR,
            "token_embd gave NaN or infinity: row %d of tensor '%s', the token's embedding, contains NaN or infinity; "
            "the model file is damaged",
            broken != tokens.end() ? *broken : -1, std::string(table.name).c_str());
}

void fail_attention(int layer) {
    LK_FAIL(LK_NUMERIC_ERROR, "layer %d, attention gave NaN or infinity from finite queries, keys and values: %s",
            layer, kTooLarge);
}

}  // namespace lk
