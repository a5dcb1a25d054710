#include "model/model.h"

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/device.h"
#include "base/error.h"
#include "gguf/reader.h"
#include "llama_kivi.h"
#include "model/architecture.h"
#include "model/model_key.h"
#include "model/placement.h"
#include "model/rank_head.h"
#include "model/split_model.h"
#include "model/weight_loader.h"
#include "model/weight_source.h"

namespace lk {

namespace {

// Maps progress 0..1 to the range from..to.
std::function<bool(float)> part_of(const std::function<bool(float)>& progress, float from, float to) {
    if (!progress) {
        return progress;
    }
    return [=](float fraction) { return progress(from + fraction * (to - from)); };
}

std::shared_ptr<GgufFile> open_file(const std::string& path, std::span<const lk_metadata_override> overrides) {
    std::unique_ptr<GgufFile> file = GgufFile::open(path);
    for (const lk_metadata_override& o : overrides) {
        file->set(o);
    }
    return file;
}

}  // namespace

std::shared_ptr<const Model> Model::load_vocabulary(const std::string& path,
                                                    std::span<const lk_metadata_override> overrides) {
    return naming_file(path, [&] {
        auto model = std::make_shared<Model>();
        model->file = open_file(path, overrides);
        model->config = ModelConfig::read_metadata(*model->file);
        return std::shared_ptr<const Model>(model);
    });
}

void Model::check_complete() const {
    LK_CHECK(token_embd, LK_UNSUPPORTED,
             "%s was loaded with vocab_only, without weights; load it without vocab_only to create contexts",
             file->name().c_str());
}

std::shared_ptr<const Model> Model::load(const std::string& path, bool use_mmap, int n_gpu_layers,
                                         const std::function<bool(float)>& progress,
                                         std::span<const lk_metadata_override> overrides) {
    LK_CHECK(n_gpu_layers >= -1, LK_INVALID_ARGUMENT, "n_gpu_layers is %d; it must be -1 (all) or more", n_gpu_layers);
    return naming_file(path, [&] { return load_whole(path, use_mmap, n_gpu_layers, progress, overrides); });
}

std::shared_ptr<const Model> Model::load_whole(const std::string& path, bool use_mmap, int n_gpu_layers,
                                               const std::function<bool(float)>& progress,
                                               std::span<const lk_metadata_override> overrides) {
    auto model = std::make_shared<Model>();
    const std::shared_ptr<GgufFile> file = open_file(path, overrides);
    model->file = file;
    model->config = ModelConfig::read(*model->file);
    model->weight_bytes = total_weight_bytes(*model->file);
    const ModelConfig& c = model->config;

    model->placement = Placement::make(c.n_layer, n_gpu_layers);

    const float read = model->placement.uses_device() ? 0.1f : 1.0f;
    model->weights = open_weights(model->file, use_mmap);
    WeightLoader loader(*model->file, c, *model->weights, part_of(progress, 0, read));
    model->token_embd = loader.matrix(kTokenEmbedding, c.n_vocab, c.n_embd);
    for (int i = 0; i < c.n_layer; ++i) {
        const std::string prefix = "blk." + std::to_string(i) + ".";
        model->layers.push_back(c.architecture->load_layer(loader, c, prefix));
    }
    model->output_norm = loader.norm("output_norm");
    model->output = loader.has(kOutput) ? loader.matrix(kOutput, c.n_vocab, c.n_embd)
                                        : WeightLoader::rows(model->token_embd, 0, c.n_vocab, "output");

    // Llama 3.1 has a divisor for each frequency.
    std::vector<float> divisors;
    if (loader.has(kRopeDivisors)) {
        divisors = loader.vector(kRopeDivisors, c.rope.n_rot / 2);
        for (const float x : divisors) {
            LK_CHECK(x > 0, LK_BAD_FILE, "%s: tensor '%s' has an element that is not positive", path.c_str(),
                     kRopeDivisors);
        }
    }
    model->rope = RopeTable(c.rope, divisors);
    LK_CHECK(model->rope.finite(), LK_BAD_FILE,
             "%s: a RoPE frequency is not finite; check the keys '%s.rope.freq_base' and '%s.rope.scaling.*' and the "
             "tensor 'rope_freqs.weight'",
             path.c_str(), c.architecture_name.c_str(), c.architecture_name.c_str());
    model->rank = load_rank_head(loader, c.n_embd);
    loader.check_all_used();
    model->state = make_model_key(*model->file, c, divisors);
    model->n_params = loader.n_params();
    model->weight_type = loader.dominant_type();
    if (model->placement.uses_device()) {
        model->device = open_device(device_weights(*model), part_of(progress, read, 1));
    }
    if (!use_mmap) {
        file->release_file();
    }
    return model;
}

}  // namespace lk
