// Tiny llama models with random weights, as files and as contexts.
#pragma once

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "support/gguf_writer.h"
#include "support/temporary_file.h"

namespace lk::test {

inline constexpr int kTinyVocab = 64;

// Bytes of a file with n_layer layers and two query heads per KV head. more: adds entries and tensors.
inline GgufWriter::Bytes tiny_llama(int head_size, int n_layer = 2,
                                    const std::function<void(GgufWriter&)>& more = nullptr) {
    const auto width = static_cast<uint64_t>(2 * head_size);
    GgufWriter file;
    file.string("general.architecture", "llama");
    file.u32("llama.block_count", static_cast<uint32_t>(n_layer));
    file.u32("llama.context_length", 4096);
    file.u32("llama.embedding_length", static_cast<uint32_t>(width));
    file.u32("llama.feed_forward_length", 64);
    file.u32("llama.attention.head_count", 2);
    file.u32("llama.attention.head_count_kv", 1);
    if (more) {
        more(file);
    }
    std::mt19937 random(7);
    const auto add = [&](const std::string& name, const std::vector<uint64_t>& shape, float mean, float spread) {
        std::normal_distribution<float> normal(mean, spread);
        GgufWriter::Bytes data;
        for (uint64_t i = 0; i < shape[0] * (shape.size() > 1 ? shape[1] : 1); ++i) {
            GgufWriter::append(data, normal(random));
        }
        file.tensor(name, 0, shape, data);
    };
    const float spread = 1.0f / std::sqrt(static_cast<float>(width));
    add("token_embd.weight", {width, kTinyVocab}, 0, 1);
    for (int i = 0; i < n_layer; ++i) {
        const std::string layer = "blk." + std::to_string(i) + ".";
        add(layer + "attn_norm.weight", {width}, 1, 0.1f);
        add(layer + "attn_q.weight", {width, width}, 0, 2 * spread);
        add(layer + "attn_k.weight", {width, width / 2}, 0, 2 * spread);
        add(layer + "attn_v.weight", {width, width / 2}, 0, spread);
        add(layer + "attn_output.weight", {width, width}, 0, spread);
        add(layer + "ffn_norm.weight", {width}, 1, 0.1f);
        add(layer + "ffn_gate.weight", {width, 64}, 0, spread);
        add(layer + "ffn_up.weight", {width, 64}, 0, spread);
        add(layer + "ffn_down.weight", {64, width}, 0, spread);
    }
    add("output_norm.weight", {width}, 1, 0.1f);
    return file.bytes();
}

// Loads a model and deletes its file.
inline std::shared_ptr<const Model> load_tiny_llama(int head_size, int n_layer = 2) {
    const TemporaryFile file("tiny.gguf", tiny_llama(head_size, n_layer));
    return Model::load(file.path(), false, 0, nullptr);
}

// Appends n tokens, determined by their positions, to a sequence. Returns the logits of the last.
inline std::vector<float> read_tokens(Context& context, int32_t seq, int n) {
    const int begin = context.cache().length(seq);
    std::vector<int32_t> tokens(n);
    for (int i = 0; i < n; ++i) {
        tokens[i] = ((begin + i) * 31 + (begin + i) / 7) % kTinyVocab;
    }
    const std::vector<int32_t> seqs(n, seq);
    lk_batch batch{};
    batch.n_tokens = static_cast<uint32_t>(n);
    batch.tokens = tokens.data();
    batch.seq_ids = seqs.data();
    context.decode(batch);
    const float* logits = context.logits(batch.n_tokens - 1);
    return {logits, logits + context.model().config.n_vocab};
}

inline std::vector<uint8_t> save_state(const Context& context, int32_t seq) {
    std::vector<uint8_t> state(context.state_size(seq));
    context.save_state(seq, state);
    return state;
}

}  // namespace lk::test
