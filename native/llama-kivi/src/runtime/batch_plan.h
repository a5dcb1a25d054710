// The plan of one call: batch rows sorted by sequence and cut into forward passes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/cache.h"
#include "kv/split_cache.h"
#include "llama_kivi.h"
#include "model/config.h"

namespace lk {

// One forward pass over n rows.
struct BatchPass {
    std::span<const int32_t> tokens;        // [n]; unused if inputs is set
    const float* inputs;                    // [n, n_embd] of a batch of embeddings; null for a batch of tokens
    std::span<const kv::Segment> segments;  // cover the n rows in order
    std::span<const int32_t> output_rows;   // ascending
    std::span<const double> draws;          // [output_rows.size()], random numbers in [0, 1); empty: no sampling
    int first_output;                       // index of the pass's first output in the call
};

// Rebuilt for every call. Buffers are reused: a call no larger than an earlier one allocates nothing.
class BatchPlan {
public:
    // cuts_at_first_flush: a pass ends before the first row of a sequence that reads head tables or sinks which the
    // pass would make.
    explicit BatchPlan(bool cuts_at_first_flush = false) : cuts_at_first_flush_(cuts_at_first_flush) {}

    // Validates the batch against model and cache and plans it. Throws LK_INVALID_ARGUMENT, LK_CACHE_FULL or
    // LK_NUMERIC_ERROR. sampling: sample a token for every output; null: keep the outputs.
    void make(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache,
              const lk_sampling* sampling);

    const lk_sampling* sampling() const { return sampling_ ? &*sampling_ : nullptr; }
    int n_passes() const { return static_cast<int>(passes_.size()); }
    BatchPass pass(int i) const;
    int rows_of(int seq) const { return seq_rows_[seq]; }  // batch rows of a sequence
    int n_outputs() const { return static_cast<int>(output_rows_.size()); }
    std::span<const int32_t> output_of() const { return output_of_; }  // [n] by batch index: output index, or -1

private:
    struct Range {  // one pass
        int row;
        int n_rows;
        int segment;
        int n_segments;
        int output;
        int n_outputs;
    };

    void read_sequences(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache);
    void sort_rows();
    void read_rows(const lk_batch& batch, const ModelConfig& model);
    void cut_passes(const lk_batch& batch, const kv::SplitCache& cache);

    bool cuts_at_first_flush_;
    std::optional<lk_sampling> sampling_;
    size_t n_embd_ = 0;
    std::vector<int32_t> seqs_;       // [n] by batch index
    std::vector<int32_t> seq_rows_;   // [n_seq_max]
    std::vector<int32_t> seq_begin_;  // [n_seq_max] first row of each sequence; used while sorting
    std::vector<int32_t> order_;      // [n] batch index of each row
    std::vector<int32_t> tokens_;     // [n] by row
    std::vector<float> inputs_;       // [n, n_embd] by row, of a batch of embeddings
    std::vector<int32_t> output_of_;  // [n] by batch index
    std::vector<Range> passes_;
    std::vector<kv::Segment> segments_;  // of all passes; rows count from the start of the pass
    std::vector<int32_t> output_rows_;   // [outputs]; rows count from the start of the pass
    std::vector<double> draws_;          // [outputs] of a sampling call
};

// Throws LK_INVALID_ARGUMENT unless seq is a sequence of this cache.
void check_sequence(const kv::SplitCache& cache, int32_t seq);

}  // namespace lk
