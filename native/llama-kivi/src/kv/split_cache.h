// The KV cache of a model whose layers are split between backends: one Cache per part. All parts hold the same tokens;
// an operation that fails in one part changes none.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "kv/budget.h"
#include "kv/cache.h"
#include "kv/config.h"
#include "kv/rotation.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

// Consecutive layers and the memory of their part of the cache.
struct CachePlace {
    int n_layer;
    Memory* memory;
};

// One sequence, one entry per part.
using SplitSequence = std::vector<Sequence>;

class SplitCache {
public:
    // The layers of all places add up to config.n_layer.
    SplitCache(const CacheConfig& config, std::span<const CachePlace> places);

    const CacheConfig& config() const { return config_; }
    int length(int seq) const { return parts_.front()->length(seq); }
    int rows_to_first_flush(int seq) const;  // the least of both sides; see SequenceSide
    CacheParts parts() const { return parts_; }

    // Exact to lengths from exact_from on and to those that a mark reaches.
    void truncate(int seq, int n_keep);
    int exact_from(int seq) const { return parts_.front()->sequence(seq).exact_from(); }
    // Greatest length up to n_keep to which truncation is exact.
    int exact_length(int seq, int n_keep) const;
    void mark(int seq);  // at its current length
    void drop_mark(int seq, int length);
    void remove(int seq, int begin, int end, const Rotation& rotation);
    void copy(int src, int dst);
    SplitSequence snapshot(int seq) const;
    void swap(int seq, SplitSequence& sequence) noexcept;

    void check_room(int64_t n_tokens) const { parts_.front()->check_room(n_tokens); }  // LK_CACHE_FULL
    // Checks the room for a call that appends rows[seq] rows. LK_CACHE_FULL
    void check_append(std::span<const int32_t> rows) const { kv::check_append(parts_, rows); }
    void reserve(std::span<const Segment> segments);  // LK_OUT_OF_MEMORY
    void release_reserved(std::span<const Segment> segments) noexcept;

    lk_cache_usage usage() const;

private:
    CacheConfig config_;
    std::vector<std::unique_ptr<Cache>> caches_;
    std::vector<Cache*> parts_;  // pointers to caches_
};

}  // namespace lk::kv
