// Placement of layers, and the weights that a device therefore holds.
#include "model/placement.h"

#include <gtest/gtest.h>

#include <map>

#include "model/model.h"
#include "support/temporary_file.h"
#include "support/tiny_model.h"

namespace lk {
namespace {

std::shared_ptr<const Model> load(const test::TinyModel& tiny) {
    const test::TemporaryFile file("placement.gguf", tiny.bytes());
    return Model::load(file.path(), true, 0, nullptr);
}

// Bytes of a device's weights, duplicates counted once, without the RoPE frequencies.
uint64_t given_bytes(const Model& model) {
    std::map<const uint8_t*, size_t> given;
    for (const std::span<const uint8_t> data : device_weights(model).data) {
        size_t& size = given[data.data()];
        size = std::max(size, data.size());
    }
    given.erase(reinterpret_cast<const uint8_t*>(model.rope.frequency.data()));
    uint64_t bytes = 0;
    for (const auto& [data, size] : given) {
        bytes += size;
    }
    return bytes;
}

TEST(Placement, RangesHoldEveryLayerOnce) {
    for (const int n_gpu_layers : {-1, 0, 1, 5, 9, 10, 99}) {
        SCOPED_TRACE(n_gpu_layers);
        const Placement p = Placement::make(10, n_gpu_layers);
        const int n_device = n_gpu_layers < 0 ? 10 : std::min(n_gpu_layers, 10);
        EXPECT_EQ(p.n_device_layers, n_device);
        EXPECT_EQ(p.uses_device(), n_device > 0);
        EXPECT_EQ(p.outputs_on_device(), n_device > 0);
        EXPECT_EQ(p.embeds_on_device(), n_device == 10);
        int next = 0;
        for (const LayerRange& range : p.ranges()) {
            EXPECT_EQ(range.begin, next);
            EXPECT_GT(range.n_layer(), 0);
            for (int i = range.begin; i < range.end; ++i) {
                EXPECT_EQ(p.on_device(i), range.on_device);
                EXPECT_EQ(p.on_device(i), i >= 10 - n_device);
            }
            next = range.end;
        }
        EXPECT_EQ(next, 10);
    }
}

TEST(Placement, TheDeviceIsGivenWhatTheEstimateCounts) {
    test::TinyModel tied;
    tied.matrices().erase("output.weight");
    const std::map<std::string, std::shared_ptr<const Model>> models{
        {"untied", load(test::TinyModel())},
        {"tied", load(tied)},
        {"falcon", Model::load(LK_GOLDEN_DIR "/falcon-40b.gguf", true, 0, nullptr)}};
    for (const auto& [name, loaded] : models) {
        SCOPED_TRACE(name);
        const auto model = std::const_pointer_cast<Model>(loaded);
        uint64_t last = 0;
        for (int n = 1; n <= model->config.n_layer; ++n) {
            model->placement = Placement::make(model->config.n_layer, n);
            const uint64_t bytes = device_weight_bytes(*model->file, model->placement);
            EXPECT_EQ(given_bytes(*model), bytes) << n << " layers";
            EXPECT_GT(bytes, last);
            last = bytes;
        }
        EXPECT_EQ(last, model->weight_bytes) << "all layers: all weights";
    }
}

TEST(Placement, WithoutADeviceNothingIsThere) {
    const auto model = load(test::TinyModel());
    EXPECT_EQ(device_weight_bytes(*model->file, model->placement), 0u);
}

}  // namespace
}  // namespace lk
