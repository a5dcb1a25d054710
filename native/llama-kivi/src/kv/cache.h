// The paged KV cache of a call: reserve, staged rows and pages, views of them, and the end of a commit.
//
// One call goes: reserve allocates pages and tables for what will leave the rings; the backend stages rows layer by
// layer, while attention reads the sequence and the staged rows; the backend stages pages: it quantizes the rows that
// leave the rings into the reserved pages; the backend commits: it copies rows into rings and sinks, and finish_append
// takes pages and tables over. All but commit may fail, and change nothing that a sequence holds.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "kv/accounting.h"
#include "kv/config.h"
#include "kv/kivi_format.h"
#include "kv/rotation.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

// Rows of one call that belong to one sequence: batch rows [row, row + n_rows) continue the sequence.
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

// Throws LK_NUMERIC_ERROR: a key or a value was NaN or infinite, or beyond what the cache holds. layer: of the model.
[[noreturn]] void fail_staged(Side side, int layer, bool finite);

class Cache {
public:
    explicit Cache(const CacheConfig& config, Memory& memory = host_memory());
    Cache(const Cache&) = delete;  // sequences point at the specs
    Cache& operator=(const Cache&) = delete;

    const CacheConfig& config() const { return config_; }
    Layers layers() const { return {0, config_.n_layer}; }
    const SideSpec& spec(Side side) const { return side == Side::keys ? k_spec_ : v_spec_; }
    int length(int seq) const { return sequences_[seq].length(); }
    const Sequence& sequence(int seq) const { return sequences_[seq]; }

    // Sequence operations. What can fail makes a new sequence, and swap, which cannot, puts it in.
    void truncate(int seq, int n_keep);
    Sequence removed(int seq, int begin, int end, const Rotation& rotation) const;
    Sequence snapshot(int seq) const { return sequences_[seq]; }
    SequenceSide empty_side(Side side) const { return {spec(side), *memory_, live_bytes_.get()}; }
    void swap(int seq, Sequence& sequence) noexcept { std::swap(sequences_[seq], sequence); }
    void remove(int seq, int begin, int end, const Rotation& rotation) {
        Sequence changed = removed(seq, begin, end, rotation);
        swap(seq, changed);
    }
    void copy(int src, int dst) {
        Sequence copied = snapshot(src);
        swap(dst, copied);
    }

    // One call.
    // Of all sequences but one; shared ones count once.
    int64_t used_tokens(int except = -1) const { return counter_.used(sequences_, except); }
    void check_room(int64_t n_tokens) const { check_room(used_tokens(), n_tokens); }  // LK_CACHE_FULL
    void check_room(int64_t used, int64_t n_tokens) const { kv::check_room(config_, used, n_tokens); }
    void reserve(std::span<const Segment> segments);  // LK_OUT_OF_MEMORY
    void release_reserved(std::span<const Segment> segments) noexcept;
    // Of a segment whose rows are reserved.
    SideView view(Side side, const Segment& segment, int layer, int head) const;
    // Where the backend stages the rows of the call, [layer, head, n_ubatch, D].
    half_t* staged(Side side) { return staging(side).data(); }
    // What the backend's stage_pages and commit of a segment write to. Valid until finish_append.
    AppendPlan plan_append(Side side, const Segment& segment) noexcept {
        return sequences_[segment.seq].side(side).plan_append(segment.n_rows);
    }
    // Ends a commit of the segments, whose plans the backend has carried out or queued.
    void finish_append(std::span<const Segment> segments) noexcept;

    lk_cache_usage usage() const {
        return cache_usage(config_, sequences_, k_spec_, v_spec_, counter_, live_page_bytes());
    }
    int64_t live_page_bytes() const { return *live_bytes_; }

private:
    Buffer<half_t>& staging(Side side) { return side == Side::keys ? staged_k_ : staged_v_; }

    CacheConfig config_;
    Memory* memory_;
    SideSpec k_spec_;
    SideSpec v_spec_;
    std::unique_ptr<std::atomic<int64_t>> live_bytes_;
    std::vector<Sequence> sequences_;
    Buffer<half_t> staged_k_;  // [layer, head, n_ubatch, D]
    Buffer<half_t> staged_v_;
    TokenCounter counter_;
};

// The parts of one cache that lie in several places, the first layers' first. All hold the same tokens.
using CacheParts = std::span<Cache* const>;

}  // namespace lk::kv
