#include "kv/split_cache.h"

#include <cstddef>
#include <memory>
#include <span>

#include "kv/cache.h"
#include "kv/config.h"
#include "kv/rotation.h"
#include "llama_kivi.h"

namespace lk::kv {

SplitCache::SplitCache(const CacheConfig& config, std::span<const CachePlace> places)
    : config_((config.validate(), config)) {
    CacheConfig part = config;
    part.first_layer = 0;
    for (const CachePlace& place : places) {
        part.n_layer = place.n_layer;
        parts_.push_back(caches_.emplace_back(std::make_unique<Cache>(part, *place.memory)).get());
        part.first_layer += place.n_layer;
    }
}

void SplitCache::truncate(int seq, int n_keep) {
    for (Cache* part : parts_) {
        part->truncate(seq, n_keep);
    }
}

void SplitCache::remove(int seq, int begin, int end, const Rotation& rotation) {
    SplitSequence changed;
    for (Cache* part : parts_) {
        changed.push_back(part->removed(seq, begin, end, rotation));
    }
    swap(seq, changed);
}

void SplitCache::copy(int src, int dst) {
    SplitSequence copied = snapshot(src);
    swap(dst, copied);
}

SplitSequence SplitCache::snapshot(int seq) const {
    SplitSequence sequence;
    for (Cache* part : parts_) {
        sequence.push_back(part->snapshot(seq));
    }
    return sequence;
}

void SplitCache::swap(int seq, SplitSequence& sequence) noexcept {
    for (size_t i = 0; i < parts_.size(); ++i) {
        parts_[i]->swap(seq, sequence[i]);
    }
}

void SplitCache::reserve(std::span<const Segment> segments) {
    try {
        for (Cache* part : parts_) {
            part->reserve(segments);
        }
    } catch (...) {
        release_reserved(segments);
        throw;
    }
}

void SplitCache::release_reserved(std::span<const Segment> segments) noexcept {
    for (Cache* part : parts_) {
        part->release_reserved(segments);
    }
}

lk_cache_usage SplitCache::usage() const {
    lk_cache_usage all = parts_.front()->usage();
    for (size_t i = 1; i < parts_.size(); ++i) {
        const lk_cache_usage part = parts_[i]->usage();
        all.quantized_bytes += part.quantized_bytes;
        all.exact_bytes += part.exact_bytes;
        all.allocated_bytes += part.allocated_bytes;
        all.f16_bytes += part.f16_bytes;
    }
    return all;
}

}  // namespace lk::kv
