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
    std::span<const int32_t> tokens;         // [n]; unused if inputs is set
    const float* inputs;                     // [n, n_embd] of a batch of embeddings; null for a batch of tokens
    std::span<const kv::Segment> segments;   // cover the n rows in order
    std::span<const int32_t> output_rows;    // ascending
    std::span<const lk_sampling> samplings;  // [output_rows.size()]; empty: no sampling
    int first_output;                        // index of the pass's first output in the call
    int first_kept;                          // number of outputs of earlier passes whose logits are kept
};

// Rebuilt for every call. Buffers are reused: a call no larger than an earlier one allocates nothing.
class BatchPlan {
public:
    // cuts_at_first_flush: a pass ends before the first row of a sequence that would read head tables or sinks made in
    // the same pass.
    explicit BatchPlan(bool cuts_at_first_flush = false) : cuts_at_first_flush_(cuts_at_first_flush) {}

    // Validates the batch against model and cache and plans it. Throws LK_INVALID_ARGUMENT, LK_CACHE_FULL or
    // LK_NUMERIC_ERROR. samplings: one per output, in the batch's order, copied without their recent tokens; nullopt:
    // all outputs are kept.
    void make(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache,
              std::optional<std::span<const lk_sampling>> samplings);

    bool samples() const { return samples_; }
    const lk_sampling& sampling(int output) const { return samplings_[output]; }
    int n_passes() const { return static_cast<int>(passes_.size()); }
    BatchPass pass(int i) const;
    int rows_of(int seq) const { return seq_rows_[seq]; }  // batch rows of a sequence
    int n_outputs() const { return static_cast<int>(output_rows_.size()); }
    int n_kept() const { return n_kept_; }                             // outputs that are not sampled
    std::span<const int32_t> output_of() const { return output_of_; }  // [n] by batch index: output index, or -1

private:
    struct Range {  // one pass
        int row;
        int n_rows;
        int segment;
        int n_segments;
        int output;
        int n_outputs;
        int kept;  // outputs of earlier passes that are not sampled
    };

    void read_sequences(const lk_batch& batch, const ModelConfig& model, const kv::SplitCache& cache);
    void sort_rows();
    void read_rows(const lk_batch& batch, const ModelConfig& model);
    void read_samplings(const lk_batch& batch, std::span<const lk_sampling> samplings);
    void cut_passes(const lk_batch& batch, const kv::SplitCache& cache, std::span<const lk_sampling> samplings);

    bool cuts_at_first_flush_;
    bool samples_ = false;
    int n_kept_ = 0;
    size_t n_embd_ = 0;
    std::vector<int32_t> seqs_;       // [n] by batch index
    std::vector<int32_t> seq_rows_;   // [n_seq_max]
    std::vector<int32_t> seq_begin_;  // [n_seq_max] first row of each sequence; used while sorting
    std::vector<int32_t> order_;      // [n] batch index of each row
    std::vector<int32_t> tokens_;     // [n] by row
    std::vector<float> inputs_;       // [n, n_embd] by row, of a batch of embeddings
    std::vector<int32_t> output_of_;  // [n] by batch index
    std::vector<Range> passes_;
    std::vector<kv::Segment> segments_;   // of all passes; rows count from the start of the pass
    std::vector<int32_t> output_rows_;    // [outputs]; rows count from the start of the pass
    std::vector<int32_t> sampling_of_;    // [n] by batch index, of a sampling call: index of the output's sampling
    std::vector<lk_sampling> samplings_;  // [outputs] of a sampling call
};

// Throws LK_INVALID_ARGUMENT unless seq is a sequence of this cache.
void check_sequence(const kv::SplitCache& cache, int32_t seq);

}  // namespace lk
