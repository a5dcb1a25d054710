#include "backend/numeric_error.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/finite.h"

namespace lk {

namespace {

// What can be said when neither weights nor inputs explain it.
constexpr const char* kTooLarge =
    "the numbers left the range of floats. The weights may not belong to a working model (a damaged or wrongly "
    "converted file), or the engine is at fault";

// "layer 1, attn_q"; "output".
std::string place_of(const Tensor& w) {
    const std::string operation(w.operation);
    return w.layer < 0 ? operation : format("layer %d, %s", w.layer, operation.c_str());
}

// The first row that holds NaN or infinity; -1: none.
int64_t find_broken_row(const Tensor& w) {
    std::vector<float> row(w.n_cols);
    for (int64_t i = 0; i < w.n_rows; ++i) {
        dequantize_row(w.type, w.data + i * w.row_bytes, row.data(), w.n_cols);
        if (!std::all_of(row.begin(), row.end(), is_finite)) {
            return i;
        }
    }
    return -1;
}

}  // namespace

void fail_product(const Tensor& w) {
    const std::string name(w.name);
    if (const int64_t row = find_broken_row(w); row >= 0) {
        LK_FAIL(LK_NUMERIC_ERROR,
                "%s gave NaN or infinity: the tensor '%s' holds such numbers (row %lld); the model "
                "file is damaged",
                place_of(w).c_str(), name.c_str(), static_cast<long long>(row));
    }
    LK_FAIL(LK_NUMERIC_ERROR, "%s gave NaN or infinity from finite weights and inputs: %s", place_of(w).c_str(),
            kTooLarge);
}

void fail_rows(const Rows& rows, const Tensor* w) {
    const bool norm = rows.form == Rows::Form::rms_norm || rows.form == Rows::Form::layer_norm;
    const char* const what = norm ? "the norm" : rows.form == Rows::Form::plain ? "what comes" : "the activation";
    const std::string place = w != nullptr ? format("%s: %s before it", place_of(*w).c_str(), what) : "output_norm";
    LK_FAIL(LK_NUMERIC_ERROR, "%s gave NaN or infinity: %s", place.c_str(), kTooLarge);
}

void fail_embedding(const Tensor& table, int32_t token) {
    const std::string name(table.name);
    LK_FAIL(LK_NUMERIC_ERROR,
            "token_embd gave NaN or infinity: the tensor '%s' holds such numbers (row %d, the "
            "token's); the model file is damaged",
            name.c_str(), token);
}

void fail_attention(int layer) {
    LK_FAIL(LK_NUMERIC_ERROR, "layer %d, attention gave NaN or infinity from finite queries, keys and values: %s",
            layer, kTooLarge);
}

}  // namespace lk
