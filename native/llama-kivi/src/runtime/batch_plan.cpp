#include "runtime/batch_plan.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/finite.h"
#include "kv/split_cache.h"
#include "llama_kivi.h"
#include "model/config.h"

namespace lk {

namespace {

bool has_output(const lk_batch& batch, int i) {
    return batch.outputs != nullptr ? batch.outputs[i] != 0 : i == static_cast<int>(batch.n_tokens) - 1;
}

}  // namespace

void check_sequence(const kv::SplitCache& cache, int32_t seq) {
    const int n_seq_max = cache.config().n_seq_max;
    LK_CHECK(seq >= 0 && seq < n_seq_max, LK_INVALID_ARGUMENT,
             "sequence %d does not exist; this context has sequences 0 to %d (n_seq_max)", seq, n_seq_max - 1);
}

void BatchPlan::make(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache,
                     std::optional<std::span<const lk_sampling>> samplings) {
    LK_CHECK(batch.n_tokens > 0, LK_INVALID_ARGUMENT, "the batch is empty");
    LK_CHECK((batch.tokens != nullptr) != (batch.embeddings != nullptr), LK_INVALID_ARGUMENT,
             "batch.tokens and batch.embeddings are %s; one must be NULL",
             batch.tokens == nullptr ? "NULL" : "both given");
    LK_CHECK(batch.n_tokens <= 1u << 30, LK_INVALID_ARGUMENT, "the batch has %u tokens; at most 2^30", batch.n_tokens);
    cache.check_room(batch.n_tokens);
    samples_ = samplings.has_value();
    n_embd_ = static_cast<size_t>(model.n_embd);
    read_sequences(batch, model, cache);
    cache.check_append(seq_rows_);
    sort_rows();
    read_rows(batch, model);
    if (samples_) {
        read_samplings(batch, *samplings);
    }
    cut_passes(batch, cache, samplings.value_or(std::span<const lk_sampling>()));
}

void BatchPlan::read_sequences(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache) {
    const int n = static_cast<int>(batch.n_tokens);
    seq_rows_.assign(cache.config().n_seq_max, 0);
    seqs_.resize(n);
    for (int i = 0; i < n; ++i) {
        const int32_t seq = batch.seq_ids != nullptr ? batch.seq_ids[i] : 0;
        check_sequence(cache, seq);
        LK_CHECK(batch.tokens == nullptr || (batch.tokens[i] >= 0 && batch.tokens[i] < model.n_vocab),
                 LK_INVALID_ARGUMENT, "token %d of the batch is %d; this model's tokens are 0 to %d", i,
                 batch.tokens[i], model.n_vocab - 1);
        const int next = cache.length(seq) + seq_rows_[seq]++;
        LK_CHECK(batch.pos == nullptr || batch.pos[i] == next, LK_INVALID_ARGUMENT,
                 "token %d of the batch has position %d; sequence %d continues at position %d", i, batch.pos[i], seq,
                 next);
        seqs_[i] = seq;
    }
}

// Stable sort by sequence.
void BatchPlan::sort_rows() {
    const int n = static_cast<int>(seqs_.size());
    order_.resize(n);
    if (std::is_sorted(seqs_.begin(), seqs_.end())) {
        std::iota(order_.begin(), order_.end(), 0);
        return;
    }
    seq_begin_.resize(seq_rows_.size());
    std::exclusive_scan(seq_rows_.begin(), seq_rows_.end(), seq_begin_.begin(), 0);
    for (int i = 0; i < n; ++i) {
        order_[seq_begin_[seqs_[i]]++] = i;
    }
}

void BatchPlan::read_rows(const lk_batch& batch, const ModelConfig& model) {
    const size_t n_embd = model.n_embd;
    const size_t n = order_.size();
    tokens_.resize(n);
    inputs_.resize(batch.embeddings != nullptr ? n * n_embd : 0);
    for (size_t i = 0; i < n; ++i) {
        if (batch.embeddings == nullptr) {
            tokens_[i] = batch.tokens[order_[i]];
            continue;
        }
        const float* const row = batch.embeddings + order_[i] * n_embd;
        const float* const broken = std::find_if_not(row, row + n_embd, is_finite);
        LK_CHECK(broken == row + n_embd, LK_NUMERIC_ERROR, "element %td of embedding %d of the batch is %s",
                 broken - row, order_[i], std::isnan(*broken) ? "NaN" : "infinite");
        std::copy_n(row, n_embd, inputs_.data() + i * n_embd);
    }
}

void BatchPlan::read_samplings(const lk_batch& batch, std::span<const lk_sampling> samplings) {
    const int n = static_cast<int>(batch.n_tokens);
    sampling_of_.resize(n);
    int n_outputs = 0;
    for (int i = 0; i < n; ++i) {
        sampling_of_[i] = n_outputs;
        n_outputs += has_output(batch, i) ? 1 : 0;
    }
    LK_CHECK(samplings.size() == static_cast<size_t>(n_outputs), LK_INVALID_ARGUMENT,
             "the batch has %d outputs and %zu samplings; give one sampling per token with an output", n_outputs,
             samplings.size());
}

void BatchPlan::cut_passes(const lk_batch& batch, const kv::SplitCache& cache, std::span<const lk_sampling> samplings) {
    const int n = static_cast<int>(order_.size());
    const int n_ubatch = cache.config().n_ubatch;
    passes_.clear();
    segments_.clear();
    output_rows_.clear();
    samplings_.clear();
    n_kept_ = 0;
    output_of_.assign(n, -1);
    int in_seq = 0;       // rows of the current sequence so far
    int first_flush = 0;  // row of the current sequence before which a pass ends
    for (int row = 0; row < n; ++row) {
        const int index = order_[row];
        const int32_t seq = seqs_[index];
        const bool same_seq = row > 0 && seqs_[order_[row - 1]] == seq;
        if (!same_seq) {
            in_seq = 0;
            first_flush = cuts_at_first_flush_ ? cache.rows_to_first_flush(seq) : INT_MAX;
        }
        if (row == 0 || passes_.back().n_rows == n_ubatch || in_seq == first_flush) {
            passes_.push_back({row, 0, static_cast<int>(segments_.size()), 0, n_outputs(), 0, n_kept_});
        }
        Range& pass = passes_.back();
        if (pass.n_segments == 0 || !same_seq) {
            segments_.push_back({seq, row - pass.row, 0});
            ++pass.n_segments;
        }
        ++segments_.back().n_rows;
        ++pass.n_rows;
        ++in_seq;
        if (!has_output(batch, index)) {
            continue;
        }
        output_of_[index] = n_outputs();
        output_rows_.push_back(row - pass.row);
        ++pass.n_outputs;
        if (samples_) {
            samplings_.push_back(samplings[sampling_of_[index]]);
            n_kept_ += samplings_.back().keep_logits != 0 ? 1 : 0;
        } else {
            ++n_kept_;
        }
    }
}

BatchPass BatchPlan::pass(int i) const {
    const Range& p = passes_[i];
    return {.tokens = std::span(tokens_).subspan(p.row, p.n_rows),
            .inputs = inputs_.empty() ? nullptr : inputs_.data() + p.row * n_embd_,
            .segments = std::span(segments_).subspan(p.segment, p.n_segments),
            .output_rows = std::span(output_rows_).subspan(p.output, p.n_outputs),
            .samplings = samples_ ? std::span(samplings_).subspan(p.output, p.n_outputs) : std::span<lk_sampling>(),
            .first_output = p.output,
            .first_kept = p.kept};
}

}  // namespace lk
