// The paged KV cache: reserve, stage, view and commit the rows of a call; sequence operations.
//
// Steps of one call:
//   1. reserve            allocates pages and head tables for the rows that will leave the rings
//   2. Backend::stage     writes a layer's rows to the staging buffer; attention reads the sequence and staged rows
//   3. stage_pages        quantizes the rows that leave the rings into the reserved pages
//   4. Backend::commit    copies rows into rings and sinks; finish_append adds the staged pages and tables
// Steps 1 to 3 may fail; they do not modify any sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "base/staging_buffer.h"
#include "kv/accounting.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/mark.h"
#include "kv/rotation.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

// Batch rows [row, row + n_rows), which continue sequence seq.
struct Segment {
    int seq;
    int row;
    int n_rows;
};

// Consecutive layers of a cache.
struct Layers {
    int begin;
    int end;

    int count() const { return end - begin; }
};

// Throws LK_NUMERIC_ERROR for a key or value that is NaN or infinite (finite == false) or beyond the range of half.
// layer counts from the model's first layer.
[[noreturn]] void fail_staged(Side side, int layer, bool finite);

class Cache {
public:
    explicit Cache(const CacheConfig& config, Memory& memory = host_memory());
    Cache(const Cache&) = delete;  // sequences hold pointers to specs and pools
    Cache& operator=(const Cache&) = delete;

    const CacheConfig& config() const { return config_; }
    Layers layers() const { return {0, config_.n_layer}; }
    const SideSpec& spec(Side side) const { return side == Side::keys ? k_spec_ : v_spec_; }
    int length(int seq) const { return sequences_[seq].length(); }
    const Sequence& sequence(int seq) const { return sequences_[seq]; }

    // Sequence operations. marked, removed and snapshot may fail and build a new sequence; swap, which cannot fail,
    // installs it.
    void truncate(int seq, int n_keep) { sequences_[seq].truncate(n_keep); }
    std::shared_ptr<const SequenceMark> marked(int seq) const;
    void reserve_mark(int seq) { sequences_[seq].marks.reserve(sequences_[seq].marks.size() + 1); }
    void add_mark(int seq, std::shared_ptr<const SequenceMark> mark) noexcept;  // after reserve_mark
    void drop_mark(int seq, int length);
    Sequence removed(int seq, int begin, int end, const Rotation& rotation) const;
    Sequence snapshot(int seq) const { return sequences_[seq]; }
    SequenceSide empty_side(Side side) { return {spec(side), side == Side::keys ? k_pools_ : v_pools_}; }
    void swap(int seq, Sequence& sequence) noexcept { std::swap(sequences_[seq], sequence); }
    void remove(int seq, int begin, int end, const Rotation& rotation) {
        Sequence changed = removed(seq, begin, end, rotation);
        swap(seq, changed);
    }
    void copy(int src, int dst) {
        Sequence copied = snapshot(src);
        swap(dst, copied);
    }

    // Distinct tokens of all sequences except one; tokens in shared pages count once.
    int64_t used_tokens(int except = -1) const { return counter_.used(sequences_, except); }
    void check_room(int64_t n_tokens) const { check_room(used_tokens(), n_tokens); }  // LK_CACHE_FULL
    void check_room(int64_t used, int64_t n_tokens) const { kv::check_room(config_, used, n_tokens); }
    // LK_INTERNAL_ERROR for more than n_ubatch rows, LK_OUT_OF_MEMORY.
    void reserve(std::span<const Segment> segments);
    void release_reserved(std::span<const Segment> segments) noexcept;
    // View of a segment; its rows must be reserved.
    SideView view(Side side, const Segment& segment, int layer, int head) const;
    // Staging buffer for the rows of the call, [layer, head, n_ubatch, staged_width]: halves, or floats of a side whose
    // format has floats().
    half_t* staged(Side side) { return staging(side).data(); }
    // The staged rows as a q8_0 ring stores them, [layer, head, n_ubatch, ring_row_bytes]; null for an f16 ring.
    uint8_t* staged_blocks(Side side) { return blocks(side).data(); }
    const uint8_t* staged_blocks(Side side) const { return (side == Side::keys ? blocks_k_ : blocks_v_).data(); }
    // Whether a row of the call will be a sink, which is staged and stored in 16 bits.
    bool is_sink_row(Side side, int row) const {
        const std::vector<uint8_t>& flags = side == Side::keys ? sink_rows_k_ : sink_rows_v_;
        return !flags.empty() && flags[row] != 0;
    }
    // Destinations of a segment's stage_pages and commit. Valid until finish_append.
    AppendPlan plan_append(Side side, const Segment& segment) noexcept {
        return sequences_[segment.seq].side(side).plan_append(segment.n_rows);
    }
    // Completes a commit, once the backend has executed or queued the plans of the segments.
    void finish_append(std::span<const Segment> segments) noexcept;

    lk_cache_usage usage() const {
        lk_cache_usage usage = cache_usage(config_, sequences_, k_spec_, v_spec_, counter_, live_page_bytes());
        usage.held_bytes = k_pools_.held_bytes() + v_pools_.held_bytes();
        return usage;
    }
    int64_t live_page_bytes() const {
        return static_cast<int64_t>(k_pools_.pages.used_bytes() + v_pools_.pages.used_bytes());
    }
    size_t ring_slot_bytes(Side side) const { return (side == Side::keys ? k_pools_ : v_pools_).rings.slot_bytes(); }
    // Pages and rings of all sequences, which the memory budget limits.
    uint64_t used_bytes() const { return k_pools_.used_bytes() + v_pools_.used_bytes(); }

private:
    Buffer<half_t>& staging(Side side) { return side == Side::keys ? staged_k_ : staged_v_; }

    Buffer<uint8_t>& blocks(Side side) { return side == Side::keys ? blocks_k_ : blocks_v_; }
    void mark_sink_rows(std::span<const Segment> segments);

    CacheConfig config_;
    SideSpec k_spec_;
    SideSpec v_spec_;
    StagingBuffer state_copies_;
    SidePools k_pools_;
    SidePools v_pools_;
    std::vector<Sequence> sequences_;
    Buffer<half_t> staged_k_;  // [layer, head, n_ubatch, D]
    Buffer<half_t> staged_v_;
    Buffer<uint8_t> blocks_k_;  // [layer, head, n_ubatch, ring_row_bytes], for q8_0 rings
    Buffer<uint8_t> blocks_v_;
    std::vector<uint8_t> sink_rows_k_;  // [n_ubatch] flags of the reserved call's rows, for q8_0 rings
    std::vector<uint8_t> sink_rows_v_;
    TokenCounter counter_;
};

// Parts of a split cache, in layer order. All parts hold the same tokens.
using CacheParts = std::span<Cache* const>;

}  // namespace lk::kv
