// Small random llamas with head size 64, built in memory so that tests can change their weights.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "quant/quantize.h"
#include "support/environment.h"
#include "support/gguf_writer.h"
#include "support/model_helpers.h"
#include "support/temporary_file.h"

namespace lk::test {

class TinyModel {
public:
    static constexpr int kVocab = 96;
    static constexpr int kEmbd = 128;
    static constexpr int kLayers = 2;
    static constexpr int kHeads = 2;
    static constexpr int kHeadsKv = 1;
    static constexpr int kHeadSize = 64;
    static constexpr int kFf = 128;

    struct Matrix {
        int n_rows;
        int n_cols;
        std::vector<float> x;

        float& at(int row, int col) { return x[static_cast<size_t>(row) * n_cols + col]; }
    };

    // window: tokens that a query sees; 0: all.
    explicit TinyModel(int n_head_kv = kHeadsKv, int window = 0) : n_head_kv_(n_head_kv), window_(window) {
        add("token_embd.weight", kVocab, kEmbd, 8.0f);
        for (int i = 0; i < kLayers; ++i) {
            const std::string b = "blk." + std::to_string(i) + ".";
            add(b + "attn_q.weight", kHeads * kHeadSize, kEmbd, 1.2f);
            add(b + "attn_k.weight", n_head_kv * kHeadSize, kEmbd, 1.2f);
            add(b + "attn_v.weight", n_head_kv * kHeadSize, kEmbd, 1);
            add(b + "attn_output.weight", kEmbd, kHeads * kHeadSize, 1);
            add(b + "ffn_gate.weight", kFf, kEmbd, 1);
            add(b + "ffn_up.weight", kFf, kEmbd, 1);
            add(b + "ffn_down.weight", kEmbd, kFf, 1);
        }
        add("output.weight", kVocab, kEmbd, 1);
    }

    // The i-th token of a text.
    static int32_t token(int i) { return (7 * i * i + 13 * i + 5) % kVocab; }

    std::map<std::string, Matrix>& matrices() { return matrices_; }
    Matrix& matrix(const std::string& name) { return matrices_.at(name); }

    void scale_rows(const std::string& name, const std::vector<int>& rows, float factor) {
        Matrix& m = matrix(name);
        for (const int row : rows) {
            for (int c = 0; c < m.n_cols; ++c) {
                m.at(row, c) *= factor;
            }
        }
    }

    std::vector<uint8_t> bytes(WeightType type = WeightType::F32) const {
        GgufWriter w;
        w.string("general.architecture", "llama").string("tokenizer.ggml.model", "no_vocab");
        w.u32("llama.context_length", 1024).u32("llama.embedding_length", kEmbd).u32("llama.block_count", kLayers);
        w.u32("llama.feed_forward_length", kFf).u32("llama.attention.head_count", kHeads);
        w.u32("llama.attention.head_count_kv", n_head_kv_).u32("llama.vocab_size", kVocab);
        w.u32("llama.rope.dimension_count", kHeadSize).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
        if (window_ > 0) {
            w.u32("llama.attention.sliding_window", window_);
        }
        const std::vector<float> ones(kEmbd, 1.0f);
        const auto norm = [&](const std::string& name) {
            w.tensor(name, static_cast<uint32_t>(WeightType::F32), {kEmbd}, bytes_of(ones));
        };
        for (const auto& [name, m] : matrices_) {
            std::vector<uint8_t> data(m.x.size() / weight_type_traits(type)->block_elements *
                                      weight_type_traits(type)->block_bytes);
            quantize_row(type, m.x.data(), static_cast<int64_t>(m.x.size()), data.data());
            w.tensor(name, static_cast<uint32_t>(type),
                     {static_cast<uint64_t>(m.n_cols), static_cast<uint64_t>(m.n_rows)}, data);
        }
        for (int i = 0; i < kLayers; ++i) {
            norm("blk." + std::to_string(i) + ".attn_norm.weight");
            norm("blk." + std::to_string(i) + ".ffn_norm.weight");
        }
        norm("output_norm.weight");
        return w.bytes();
    }

private:
    void add(const std::string& name, int n_rows, int n_cols, float spread) {
        std::normal_distribution<float> normal(0, spread / std::sqrt(static_cast<float>(n_cols)));
        Matrix m{n_rows, n_cols, std::vector<float>(static_cast<size_t>(n_rows) * n_cols)};
        for (float& x : m.x) {
            x = normal(random_);
        }
        matrices_.emplace(name, std::move(m));
    }

    static std::vector<uint8_t> bytes_of(const std::vector<float>& x) {
        std::vector<uint8_t> out(x.size() * sizeof(float));
        std::memcpy(out.data(), x.data(), out.size());
        return out;
    }

    int n_head_kv_;
    int window_;
    std::mt19937 random_{3};
    std::map<std::string, Matrix> matrices_;
};

// Contexts created during its lifetime use one kernel table.
class TableInUse {
public:
    explicit TableInUse(const char* id) { set_environment("LLAMA_KIVI_CPU", id); }
    ~TableInUse() { unset_environment("LLAMA_KIVI_CPU"); }
    TableInUse(const TableInUse&) = delete;
    TableInUse& operator=(const TableInUse&) = delete;
};

// A model loaded from bytes.
class LoadedModel {
public:
    explicit LoadedModel(const std::vector<uint8_t>& bytes, int n_gpu_layers = 0) {
        const TemporaryFile file("tiny.gguf", bytes);
        lk_model_params params;
        lk_model_params_default(&params);
        params.use_mmap = 0;
        params.n_gpu_layers = n_gpu_layers;
        EXPECT_EQ(lk_model_load(file.path().c_str(), &params, &model_), LK_OK) << lk_last_error();
    }
    ~LoadedModel() { lk_model_free(model_); }
    LoadedModel(const LoadedModel&) = delete;
    LoadedModel& operator=(const LoadedModel&) = delete;

    lk_model* get() const { return model_; }

private:
    lk_model* model_ = nullptr;
};

}  // namespace lk::test
