#include "backend/cpu/append.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/finite.h"
#include "kv/quantizer.h"

namespace lk::cpu {

namespace {

// A row as its page will give it back. False if a rotated element is beyond the range of halves, in which attention
// reads them.
bool round_to_blocks(const kv::PageFormat& f, half_t* row, ToHalf to_half) {
    float x[kv::kMaxHeadSize];
    uint8_t blocks[kv::kMaxHeadSize / 32 * sizeof(BlockQ8_0)];
    std::transform(row, row + f.head_size, x, half_to_float);
    kv::quantize_rows(f, {}, x, 1, 0, 0, blocks);
    dequantize_row(kv::block_type(f), blocks, x, f.head_size);
    const bool fits = std::all_of(x, x + f.head_size, [](float v) { return std::fabs(v) <= kv::kLargestHalf; });
    kv::hadamard(x, f.head_size);
    std::transform(x, x + f.head_size, x, [](float v) { return std::clamp(v, -kv::kLargestHalf, kv::kLargestHalf); });
    to_half(x, f.head_size, row);
    return fits;
}

// One head's rings, sinks, table and pages in the memory that a plan names.
class HeadAppend {
public:
    HeadAppend(const kv::SideSpec& spec, const kv::AppendPlan& plan, size_t head, FlushScratch& scratch)
        : spec_(spec),
          plan_(plan),
          head_(head),
          ring_(plan.ring + head * spec.ageing.trigger * spec.format.head_size),
          sinks_(plan.sinks + head * spec.sinks * spec.format.head_size),
          start_(plan.ring_start),
          first_token_(plan.first_token),
          place_(plan.page_token),
          choose_table_(plan.choose_tables),
          scratch_(scratch) {}

    // Moves rows [n_rows, D] through the ring into the pages.
    void run(const half_t* rows, int n_rows) {
        const kv::AgeingRule& rule = spec_.ageing;
        const size_t d = spec_.format.head_size;
        int count = plan_.n_ring;
        for (int i = 0; i < n_rows; ++i) {
            std::copy_n(rows + i * d, d, ring_row(count));
            if (++count == rule.trigger) {
                leave_ring();
                choose_table_ = false;
                start_ = (start_ + rule.leave) % rule.trigger;
                count -= rule.leave;
                first_token_ += rule.leave;
                place_ += rule.leave;
            }
        }
    }

private:
    // The i-th oldest row, also of those to come.
    half_t* ring_row(int i) const {
        return ring_ + static_cast<size_t>((start_ + i) % spec_.ageing.trigger) * spec_.format.head_size;
    }
    uint8_t* page_at(int place) const {
        return plan_.blocks[place / kv::kPageTokens] + head_ * spec_.format.page_bytes;
    }

    void leave_ring() {
        const int leave = spec_.ageing.leave;
        const kv::PageFormat& f = spec_.format;
        const size_t d = f.head_size;
        for (int i = 0; i < leave && first_token_ + i < plan_.sink_limit; ++i) {
            std::copy_n(ring_row(i), d, sinks_ + (first_token_ + i) * d);
        }
        if (!f.quantized()) {
            for (int i = 0; i < leave; ++i) {
                const int place = place_ + i;
                std::memcpy(page_at(place) + place % kv::kPageTokens * d * sizeof(half_t), ring_row(i),
                            d * sizeof(half_t));
            }
            return;
        }
        const int n_floats = choose_table_ ? spec_.ageing.trigger : leave;
        float* const rows = scratch_.rows.data();  // [n_floats, D]
        for (int i = 0; i < n_floats; ++i) {
            std::transform(ring_row(i), ring_row(i) + d, rows + i * d, half_to_float);
        }
        kv::HeadTable& table = plan_.head_tables[head_];
        if (choose_table_) {
            kv::choose_head_table(f, rows, n_floats, first_token_, plan_.sink_limit, scratch_.column.data(), table);
        }
        const int step = spec_.align;
        for (int i = 0; i < leave; i += step) {
            const int place = place_ + i;
            const int sinks = std::clamp(plan_.sink_limit - (first_token_ + i), 0, step);
            kv::quantize_rows(f, table, rows + i * d, step, place % kv::kPageTokens, sinks, page_at(place));
        }
    }

    const kv::SideSpec& spec_;
    const kv::AppendPlan& plan_;
    size_t head_;
    half_t* ring_;     // [trigger, D]
    half_t* sinks_;    // [S, D]
    int start_;        // the oldest row of the ring
    int first_token_;  // of the sequence, that leaves the ring next
    int place_;        // where it goes, from the start of the first block on
    bool choose_table_;
    FlushScratch& scratch_;
};

// Gives scratch the room that appending a plan's rows needs.
void reserve_scratch(const kv::SideSpec& spec, const kv::AppendPlan& plan, FlushScratch& scratch) {
    if (plan.blocks.empty() || !spec.format.quantized()) {
        return;
    }
    const size_t tokens = plan.choose_tables ? spec.ageing.trigger : spec.ageing.leave;
    scratch.rows.resize(std::max(scratch.rows.size(), tokens * spec.format.head_size));
    scratch.column.resize(std::max(scratch.column.size(), tokens));
}

}  // namespace

void stage(kv::Cache& cache, kv::Side side, int layer, int n_rows, const float* rows, ToHalf to_half) {
    constexpr half_t kInfinity = 0x7c00;
    const kv::CacheConfig& config = cache.config();
    const size_t d = config.head_size;
    const kv::PageFormat& f = cache.spec(side).format;
    for (int h = 0; h < config.n_head_kv; ++h) {
        half_t* out = cache.staged(side) + (static_cast<size_t>(layer) * config.n_head_kv + h) * config.n_ubatch * d;
        for (int i = 0; i < n_rows; ++i, out += d) {
            const float* const row = rows + (static_cast<size_t>(i) * config.n_head_kv + h) * d;
            to_half(row, static_cast<int64_t>(d), out);
            bool broken = false;
            for (size_t c = 0; c < d; ++c) {
                broken |= (out[c] & kInfinity) == kInfinity;
            }
            if (broken || (f.blocks() && !round_to_blocks(f, out, to_half))) {
                kv::fail_staged(side, config.first_layer + layer, std::all_of(row, row + d, is_finite));
            }
        }
    }
}

void Append::prepare(kv::Cache& cache, std::span<const kv::Segment> segments, int n_threads) {
    plans_.clear();
    for (const kv::Segment& segment : segments) {
        plans_.push_back({cache.plan_append(kv::Side::keys, segment), cache.plan_append(kv::Side::values, segment)});
    }
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(n_threads)));
    for (FlushScratch& scratch : scratch_) {
        for (const SegmentPlan& plan : plans_) {
            reserve_scratch(cache.spec(kv::Side::keys), plan.k, scratch);
            reserve_scratch(cache.spec(kv::Side::values), plan.v, scratch);
        }
    }
}

void Append::commit(kv::Cache& cache, std::span<const kv::Segment> segments, ThreadPool& pool) noexcept {
    const kv::CacheConfig& c = cache.config();
    for (size_t i = 0; i < segments.size(); ++i) {
        const kv::Segment& segment = segments[i];
        pool.parallel_for(c.n_layer * c.n_head_kv, [&](int head, int thread) noexcept {
            const size_t offset = (static_cast<size_t>(head) * c.n_ubatch + segment.row) * c.head_size;
            HeadAppend(cache.spec(kv::Side::keys), plans_[i].k, head, scratch_[thread])
                .run(cache.staged(kv::Side::keys) + offset, segment.n_rows);
            HeadAppend(cache.spec(kv::Side::values), plans_[i].v, head, scratch_[thread])
                .run(cache.staged(kv::Side::values) + offset, segment.n_rows);
        });
    }
    cache.finish_append(segments);
}

}  // namespace lk::cpu
