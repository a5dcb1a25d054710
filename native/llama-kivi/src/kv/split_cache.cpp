#include "kv/split_cache.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kv/budget.h"
#include "kv/cache.h"
#include "kv/config.h"
#include "kv/mark.h"
#include "kv/rotation.h"
#include "kv/storage.h"
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
    if (end >= length(seq)) {
        truncate(seq, begin);
        return;
    }
    SplitSequence changed;
    for (Cache* part : parts_) {
        changed.push_back(part->removed(seq, begin, end, rotation));
    }
    swap(seq, changed);
}

int SplitCache::rows_to_first_flush(int seq) const {
    const Sequence& sequence = parts_.front()->sequence(seq);
    return std::min(sequence.k.rows_to_first_flush(), sequence.v.rows_to_first_flush());
}

int SplitCache::exact_length(int seq, int n_keep) const {
    const Sequence& s = parts_.front()->sequence(seq);
    n_keep = std::min(n_keep, s.length());
    if (n_keep >= s.exact_from() || s.mark_for(n_keep) != nullptr) {
        return n_keep;
    }
    int length = 0;
    for (const auto& mark : s.marks) {
        length = mark->length() <= n_keep ? mark->length() : length;
    }
    return length;
}

void SplitCache::mark(int seq) {
    const Sequence& s = parts_.front()->sequence(seq);
    if (s.length() == 0 || (!s.marks.empty() && s.marks.back()->length() == s.length())) {
        return;
    }
    std::vector<std::shared_ptr<const SequenceMark>> marks;
    for (Cache* part : parts_) {
        marks.push_back(part->marked(seq));
        part->reserve_mark(seq);
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
        parts_[i]->add_mark(seq, std::move(marks[i]));
    }
}

void SplitCache::drop_mark(int seq, int length) {
    for (Cache* part : parts_) {
        part->drop_mark(seq, length);
    }
}

void SplitCache::copy(int src, int dst) {
    uint64_t needed = 0;
    uint64_t freed = 0;
    for (const Cache* part : parts_) {
        const Sequence& from = part->sequence(src);
        const Sequence& to = part->sequence(dst);
        needed += from.k.copy_bytes() + from.v.copy_bytes();
        freed += to.k.owned_bytes() + to.v.owned_bytes();
    }
    check_budget(parts_, needed, freed);
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
        all.held_bytes += part.held_bytes;
        all.mark_bytes += part.mark_bytes;
    }
    return all;
}

}  // namespace lk::kv
