// Files that declare tensors without data (general.synthetic).
#include "model/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/model.h"
#include "support/temporary_file.h"
#include "support/tiny_model.h"

namespace lk {
namespace {

std::shared_ptr<const Model> load(const std::string& path, bool synthetic) {
    lk_metadata_override on{};
    on.key = "general.synthetic";
    on.type = LK_VALUE_BOOL;
    on.integer = 1;
    return Model::load(path, true, 0, nullptr, std::span(&on, synthetic ? 1 : 0));
}

std::vector<float> row(const Tensor& t, int64_t i) {
    std::vector<float> out(t.n_cols);
    dequantize_row(t.type, t.data + i * t.row_bytes, out.data(), t.n_cols);
    return out;
}

TEST(Synthetic, WeightsAreMadeUpTheSameEveryTime) {
    for (const WeightType type : {WeightType::F32, WeightType::F16, WeightType::BF16, WeightType::Q8_0}) {
        SCOPED_TRACE(weight_type_traits(type)->name);
        const test::TemporaryFile file("synthetic.gguf", test::TinyModel().bytes(type));
        const auto model = load(file.path(), true);
        const auto again = load(file.path(), true);
        const auto stored = load(file.path(), false);

        EXPECT_TRUE(is_synthetic(*model->file));
        EXPECT_FALSE(is_synthetic(*stored->file));
        const Norm& norm = model->layers[1].ffn_norm;
        EXPECT_EQ(norm.weight, std::vector<float>(test::TinyModel::kEmbd, 1.0f));
        const std::vector<float> x = row(model->layers[1].wq, 3);
        EXPECT_EQ(x, row(again->layers[1].wq, 3));
        EXPECT_NE(x, row(stored->layers[1].wq, 3));
        EXPECT_NE(x, row(model->layers[0].wq, 3)) << "every tensor has different weights";
        double square = 0;
        for (const float w : x) {
            square += static_cast<double>(w) * w / static_cast<double>(x.size());
        }
        EXPECT_NEAR(std::sqrt(square), 0.02, 0.012);
        EXPECT_EQ(model->n_params, stored->n_params);
        EXPECT_EQ(model->weight_type, stored->weight_type);
    }
}

}  // namespace
}  // namespace lk
