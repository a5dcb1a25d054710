#include "kv/cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/finite.h"

namespace lk::kv {

namespace {

const char* name(lk_cache_type type) {
    return lk_cache_type_name(type);
}

int resolved_sinks(const lk_cache_params& params, lk_cache_type type) {
    constexpr int kDefaultSinks = 4;
    if (!is_kivi(type)) {
        return 0;
    }
    return params.sinks >= 0 ? params.sinks : is_paper(type) ? 0 : kDefaultSinks;
}

// Why a side's type does not fit the head size; nothing if it does.
std::optional<std::string> head_size_misfit(lk_cache_type type, int head_size) {
    if (is_kivi(type) && head_size % 16 != 0) {
        return format("%s needs a head size that is a multiple of 16", name(type));
    }
    if (!is_kivi(type) && type != LK_CACHE_F16 && head_size % 32 != 0) {
        return format("%s needs a head size that is a multiple of 32", name(type));
    }
    return std::nullopt;
}

void check_sizes(const CacheConfig& c, const char* side) {
    const int g = static_cast<int>(c.params.group);
    LK_CHECK(g == 16 || g == 32 || g == 64 || g == 128, LK_INVALID_ARGUMENT,
             "%s: cache.group is %d; a group is 16, 32, 64 or 128 tokens (pages hold 128)", side, g);
    LK_CHECK(c.params.residual > 0 && c.params.residual % g == 0, LK_INVALID_ARGUMENT,
             "%s: cache.residual is %u, which is not a positive multiple of cache.group (%d), such as %d", side,
             c.params.residual, g, std::max(1, static_cast<int>(c.params.residual) / g) * g);
    LK_CHECK(c.params.residual <= 1u << 16, LK_INVALID_ARGUMENT, "%s: cache.residual is %u; at most 65536", side,
             c.params.residual);
    LK_CHECK(c.params.sinks >= -1 && c.params.sinks <= g, LK_INVALID_ARGUMENT,
             "%s: cache.sinks is %d; at most one group (%d), or -1 for the default", side, c.params.sinks, g);
}

// Names of the types that a side can have with these sizes.
std::string fitting_types(const CacheConfig& c, const char* side) {
    std::string names;
    for (int i = 0; i < LK_CACHE_TYPE_COUNT; ++i) {
        const auto type = static_cast<lk_cache_type>(i);
        if (head_size_misfit(type, c.head_size)) {
            continue;
        }
        try {
            if (is_kivi(type)) {
                check_sizes(c, side);
            }
        } catch (const Error&) {
            continue;
        }
        names += (names.empty() ? "" : ", ") + std::string(name(type));
    }
    return names;
}

void validate_side(const CacheConfig& c, lk_cache_type type, const char* side, const char* parameter) {
    LK_CHECK(type >= 0 && type < LK_CACHE_TYPE_COUNT, LK_INVALID_ARGUMENT, "%s: %d is no cache type (%s)", side,
             static_cast<int>(type), parameter);
    if (const std::optional<std::string> misfit = head_size_misfit(type, c.head_size)) {
        LK_FAIL(LK_UNSUPPORTED, "%s: %s; this model has %d; types that fit for %s: %s", side, misfit->c_str(),
                c.head_size, parameter, fitting_types(c, side).c_str());
    }
    if (is_kivi(type)) {
        check_sizes(c, side);
    }
}

}  // namespace

void CacheConfig::validate() const {
    LK_CHECK(n_ctx > 0, LK_INVALID_ARGUMENT, "n_ctx is 0; give at least 1 token");
    LK_CHECK(n_seq_max > 0 && n_seq_max <= 1 << 16, LK_INVALID_ARGUMENT, "n_seq_max is %d; it must be 1 to 65536",
             n_seq_max);
    LK_CHECK(n_seq_ready >= 0 && n_seq_ready <= n_seq_max, LK_INVALID_ARGUMENT,
             "n_seq_ready is %d; it must be at most n_seq_max (%d)", n_seq_ready, n_seq_max);
    LK_CHECK(n_ubatch > 0 && n_ubatch <= 1 << 16, LK_INVALID_ARGUMENT, "n_ubatch is %d; it must be 1 to 65536",
             n_ubatch);
    LK_CHECK(head_size <= kMaxHeadSize && head_size % 8 == 0, LK_UNSUPPORTED,
             "head size %d: the cache takes multiples of 8 up to %d", head_size, kMaxHeadSize);
    validate_side(*this, params.type_k, "keys", "cache.type_k");
    validate_side(*this, params.type_v, "values", "cache.type_v");
}

SideSpec make_side_spec(const CacheConfig& c, Side side) {
    const lk_cache_type type = side == Side::keys ? c.params.type_k : c.params.type_v;
    const int g = static_cast<int>(c.params.group);
    const int r = static_cast<int>(c.params.residual);
    SideSpec spec{};
    spec.format = make_page_format(type, side, c.head_size, g);
    spec.n_layer = c.n_layer;
    spec.n_head_kv = c.n_head_kv;
    spec.sinks = resolved_sinks(c.params, type);
    spec.align = is_kivi(type) && side == Side::keys ? g : 1;
    if (!is_kivi(type)) {
        spec.ageing = {1, 1};
    } else if (!is_paper(type)) {
        spec.ageing = {r + g, g};  // the youngest R tokens are never quantized
    } else if (side == Side::keys) {
        spec.ageing = {r, r};  // KIVI algorithm 1: a full residual is quantized whole and empties
    } else {
        spec.ageing = {r + 1, 1};  // and the oldest value leaves at every token
    }
    return spec;
}

PageBlock::PageBlock(Memory& memory, size_t bytes, std::atomic<int64_t>* live)
    : PageBlock(Buffer<uint8_t>(memory, bytes), live) {}

PageBlock::PageBlock(Buffer<uint8_t> content, std::atomic<int64_t>* live) : data(std::move(content)), live_bytes(live) {
    live_bytes->fetch_add(static_cast<int64_t>(data.bytes()), std::memory_order_relaxed);
}

PageBlock::~PageBlock() {
    live_bytes->fetch_sub(static_cast<int64_t>(data.bytes()), std::memory_order_relaxed);
}

SequenceSide::SequenceSide(const SideSpec& spec, Memory& memory, std::atomic<int64_t>* live_bytes)
    : spec_(&spec), memory_(&memory), live_bytes_(live_bytes) {}

SequenceSide::SequenceSide(const SequenceSide& other)
    : spec_(other.spec_),
      memory_(other.memory_),
      live_bytes_(other.live_bytes_),
      pages_(other.pages_),
      ring_(other.ring_),
      sinks_(other.sinks_),
      tables_(other.tables_),
      raw_tables_(other.raw_tables_),
      n_paged_(other.n_paged_),
      n_sinks_(other.n_sinks_),
      ring_start_(other.ring_start_),
      n_ring_(other.n_ring_),
      tables_chosen_(other.tables_chosen_) {
    // A block that either copy may still write to is not shared.
    if (!pages_.empty() && pages_.back().end() < kPageTokens) {
        pages_.back().block = std::make_shared<PageBlock>(pages_.back().block->data, live_bytes_);
    }
}

size_t SequenceSide::fixed_bytes() const {
    size_t tables = tables_.size() * sizeof(HeadTable) + raw_tables_.bytes();
    for (const HeadTable& t : tables_) {
        tables += t.refined.size() * sizeof(uint16_t) + t.mu.size() * sizeof(half_t);
    }
    return (ring_.size() + sinks_.size()) * sizeof(half_t) + tables;
}

SideView SequenceSide::view(int layer, int head) const {
    const size_t i = index(layer, head);
    const size_t d = spec_->format.head_size;
    SideView v{};
    v.spec = spec_;
    v.table = tables_.empty() ? nullptr : &tables_[i];
    v.pages = pages_;
    v.page_offset = i * spec_->format.page_bytes;
    v.sinks = sinks_.data() + i * spec_->sinks * d;
    v.ring = ring_.data() + i * spec_->ageing.trigger * d;
    v.n_paged = n_paged_;
    v.n_sinks = n_sinks();
    v.ring_start = ring_start_;
    v.n_ring = n_ring_;
    return v;
}

void SequenceSide::truncate(int n_keep) {
    if (n_keep >= length()) {
        return;
    }
    if (n_keep > n_paged_) {
        n_ring_ = n_keep - n_paged_;
        return;
    }
    n_ring_ = 0;
    ring_start_ = 0;
    while (n_paged_ > n_keep) {
        PageRef& last = pages_.back();
        const int drop = std::min(last.count, n_paged_ - n_keep);
        last.count -= drop;
        n_paged_ -= drop;
        if (last.count == 0) {
            pages_.pop_back();
        }
    }
    n_sinks_ = std::min(n_sinks_, n_paged_);
    if (n_paged_ == n_sinks_) {
        tables_chosen_ = false;  // nothing quantized is left that depends on them
    }
}

void SequenceSide::remove(int begin, int end, const Rotation& rotation) {
    end = std::min(end, length());
    if (begin >= end) {
        return;
    }
    if (end == length()) {
        truncate(begin);
        return;
    }
    remove_exact(begin, end, rotation);
    remove_paged(begin, end);
}

// Sinks and ring rows are exact: they are turned to their new positions.
void SequenceSide::remove_exact(int begin, int end, const Rotation& rotation) {
    const size_t d = spec_->format.head_size;
    const bool turned = spec_->format.side == Side::keys;
    const int trigger = spec_->ageing.trigger;
    std::vector<float> row(d);
    // Copies a row that moves down by `by` positions.
    const auto move_row = [&](const half_t* from, half_t* to, int by) {
        if (!turned || by == 0) {
            std::copy_n(from, d, to);
            return;
        }
        std::transform(from, from + d, row.begin(), half_to_float);
        rotate_heads(rotation, -by, row.data(), 1, static_cast<int>(d));
        std::transform(row.begin(), row.end(), to, float_to_half);
    };
    const int sinks_removed = std::max(0, std::min(end, n_sinks_) - begin);
    std::vector<half_t> ring(static_cast<size_t>(trigger) * d);
    std::vector<half_t> all_sinks(sinks_.size());
    std::vector<half_t> all_rings(ring_.size());
    memory_->read(all_sinks.data(), sinks_.data(), sinks_.bytes());
    memory_->read(all_rings.data(), ring_.data(), ring_.bytes());
    int kept = 0;
    for (size_t head = 0; head < spec_->head_count(); ++head) {
        half_t* sinks = all_sinks.data() + head * spec_->sinks * d;
        for (int i = begin + sinks_removed; i < n_sinks_ && sinks_removed > 0; ++i) {
            move_row(sinks + i * d, sinks + (i - sinks_removed) * d, end - begin);
        }
        half_t* old = all_rings.data() + head * trigger * d;
        kept = 0;
        for (int i = 0; i < n_ring_; ++i) {
            const int token = n_paged_ + i;
            if (token < begin || token >= end) {
                move_row(old + static_cast<size_t>((ring_start_ + i) % trigger) * d, ring.data() + kept++ * d,
                         token >= end ? end - begin : 0);
            }
        }
        std::copy_n(ring.data(), kept * d, old);
    }
    memory_->write(sinks_.data(), all_sinks.data(), sinks_.bytes());
    memory_->write(ring_.data(), all_rings.data(), ring_.bytes());
    ring_start_ = 0;
    n_ring_ = kept;
    n_sinks_ -= sinks_removed;
}

// Runs are cut; those behind the gap remember how far they moved.
void SequenceSide::remove_paged(int begin, int end) {
    std::vector<PageRef> kept;
    int token = 0;
    int removed = 0;
    for (const PageRef& ref : pages_) {
        const int from = std::clamp(begin - token, 0, ref.count);  // removed: [from, to) of the run
        const int to = std::clamp(end - token, 0, ref.count);
        if (from > 0) {
            kept.push_back({ref.block, from, ref.first, ref.frame});
        }
        if (to < ref.count) {
            const bool behind = token + to >= end;
            PageRef rest{ref.block, ref.count - to, ref.first + to, ref.frame + (behind ? end - begin : 0)};
            if (from == to && from > 0) {
                kept.back().count = ref.count;  // not touched
            } else {
                kept.push_back(std::move(rest));
            }
        }
        token += ref.count;
        removed += to - from;
    }
    pages_ = std::move(kept);
    n_paged_ -= removed;
}

SequenceSide::Cursor SequenceSide::first_cursor() const {
    if (pages_.empty()) {
        return {0, 0};
    }
    // A block cut inside a token group keeps its codes: the next group starts a block of its own.
    const PageRef& last = pages_.back();
    const bool writable =
        last.end() < kPageTokens && last.end() % spec_->align == 0 && last.frame == 0 && last.block.use_count() == 1;
    return writable ? Cursor{pages_.size() - 1, last.end()} : Cursor{pages_.size(), 0};
}

SequenceSide::Cursor SequenceSide::advance(Cursor at, int n_tokens) const {
    const int token = at.token + n_tokens;
    return {at.block + token / kPageTokens, token % kPageTokens};
}

int SequenceSide::flushes(int n_rows) const {
    const AgeingRule& rule = spec_->ageing;
    const int rows = n_ring_ + n_rows;
    return rows < rule.trigger ? 0 : (rows - rule.trigger) / rule.leave + 1;
}

void SequenceSide::make_ready() {
    if (ring_.size() > 0) {
        return;
    }
    const bool on_host = memory_->on_host();
    Buffer<half_t> sinks(*memory_, spec_->sink_elements());
    std::vector<HeadTable> tables(on_host ? spec_->head_count() : 0);
    Buffer<uint8_t> raw_tables(*memory_, on_host ? 0 : spec_->head_count() * spec_->table_bytes());
    ring_ = Buffer<half_t>(*memory_, spec_->ring_elements());
    sinks_ = std::move(sinks);
    tables_ = std::move(tables);
    raw_tables_ = std::move(raw_tables);
}

void SequenceSide::reserve(int n_rows) {
    make_ready();
    const int n_leave = flushes(n_rows) * spec_->ageing.leave;
    if (n_leave == 0) {
        return;
    }
    const Cursor last = advance(first_cursor(), n_leave - 1);
    pages_.reserve(last.block + 1);
    while (pages_.size() + reserved_.size() <= last.block) {
        reserved_.push_back(std::make_shared<PageBlock>(*memory_, spec_->block_bytes(), live_bytes_));
    }
    for (HeadTable& table : tables_) {
        reserve_lists(spec_->format, table);
    }
}

void SequenceSide::reserve_scratch(int n_rows, FlushScratch& scratch) const {
    if (flushes(n_rows) == 0 || !spec_->format.quantized()) {
        return;
    }
    const size_t tokens = tables_chosen_ ? spec_->ageing.leave : spec_->ageing.trigger;
    scratch.rows.resize(std::max(scratch.rows.size(), tokens * spec_->format.head_size));
    scratch.column.resize(std::max(scratch.column.size(), tokens));
}

void SequenceSide::leave_ring(size_t head, Cursor at, int ring_start, int first_token, bool first_flush,
                              FlushScratch& scratch) {
    const AgeingRule& rule = spec_->ageing;
    const PageFormat& f = spec_->format;
    const size_t d = f.head_size;
    const half_t* ring = ring_.data() + head * rule.trigger * d;
    const auto ring_row = [&](int i) { return ring + static_cast<size_t>((ring_start + i) % rule.trigger) * d; };

    const int limit = sink_limit();
    for (int i = 0; i < rule.leave && first_token + i < limit; ++i) {
        std::copy_n(ring_row(i), d, sinks_.data() + (head * spec_->sinks + first_token + i) * d);
    }
    if (!f.quantized()) {
        for (int i = 0; i < rule.leave; ++i, at = advance(at, 1)) {
            uint8_t* page = block_at(at.block).data.data() + head * f.page_bytes;
            std::memcpy(page + at.token * d * sizeof(half_t), ring_row(i), d * sizeof(half_t));
        }
        return;
    }
    const int n_floats = first_flush ? rule.trigger : rule.leave;
    float* const rows = scratch.rows.data();  // [n_floats, D]
    for (int i = 0; i < n_floats; ++i) {
        std::transform(ring_row(i), ring_row(i) + d, rows + i * d, half_to_float);
    }
    HeadTable& table = tables_[head];
    if (first_flush) {
        choose_head_table(f, rows, n_floats, first_token, limit, scratch.column.data(), table);
    }
    const int step = spec_->align;
    for (int i = 0; i < rule.leave; i += step, at = advance(at, step)) {
        const int sinks = std::clamp(limit - (first_token + i), 0, step);
        quantize_rows(f, table, rows + i * d, step, at.token, sinks,
                      block_at(at.block).data.data() + head * f.page_bytes);
    }
}

void SequenceSide::append(int layer, int head, const half_t* rows, int n_rows, FlushScratch& scratch) noexcept {
    const AgeingRule& rule = spec_->ageing;
    const size_t d = spec_->format.head_size;
    const size_t h = index(layer, head);
    half_t* ring = ring_.data() + h * rule.trigger * d;
    Cursor at = first_cursor();
    int start = ring_start_;
    int count = n_ring_;
    int first_token = n_paged_;
    bool first_flush = !tables_chosen_;
    for (int i = 0; i < n_rows; ++i) {
        std::copy_n(rows + i * d, d, ring + static_cast<size_t>((start + count) % rule.trigger) * d);
        if (++count == rule.trigger) {
            leave_ring(h, at, start, first_token, first_flush, scratch);
            first_flush = false;
            at = advance(at, rule.leave);
            start = (start + rule.leave) % rule.trigger;
            count -= rule.leave;
            first_token += rule.leave;
        }
    }
}

AppendPlan SequenceSide::plan_append(int n_rows) {
    const Cursor first = first_cursor();
    AppendPlan plan{};
    plan.ring = ring_.data();
    plan.sinks = sinks_.data();
    plan.tables = raw_tables_.data();
    plan.ring_start = ring_start_;
    plan.n_ring = n_ring_;
    plan.first_token = n_paged_;
    plan.sink_limit = sink_limit();
    plan.choose_tables = !tables_chosen_;
    plan.page_token = first.token;
    const int n_leave = flushes(n_rows) * spec_->ageing.leave;
    for (size_t i = first.block; n_leave > 0 && i <= advance(first, n_leave - 1).block; ++i) {
        plan.blocks.push_back(block_at(i).data.data());
    }
    return plan;
}

void SequenceSide::finish_append(int n_rows) noexcept {
    const AgeingRule& rule = spec_->ageing;
    const int n_flushes = flushes(n_rows);
    const int limit = sink_limit();
    Cursor at = first_cursor();
    for (int left = n_flushes * rule.leave; left > 0;) {
        const int n = std::min(left, kPageTokens - at.token);
        if (at.block == pages_.size()) {
            pages_.push_back({std::move(reserved_.front()), 0});
            reserved_.erase(reserved_.begin());
        }
        pages_[at.block].count += n;
        n_paged_ += n;
        left -= n;
        at = {at.block + 1, 0};
    }
    n_sinks_ = std::min(n_paged_, limit);
    ring_start_ = (ring_start_ + n_flushes * rule.leave) % rule.trigger;
    n_ring_ += n_rows - n_flushes * rule.leave;
    tables_chosen_ = tables_chosen_ || n_flushes > 0;
    reserved_.clear();
}

Cache::Cache(const CacheConfig& config, Memory& memory)
    : config_((config.validate(), config)),
      memory_(&memory),
      k_spec_(make_side_spec(config, Side::keys)),
      v_spec_(make_side_spec(config, Side::values)),
      live_bytes_(std::make_unique<std::atomic<int64_t>>(0)) {
    sequences_.reserve(config.n_seq_max);
    for (int i = 0; i < config.n_seq_max; ++i) {
        sequences_.push_back(
            {SequenceSide(k_spec_, memory, live_bytes_.get()), SequenceSide(v_spec_, memory, live_bytes_.get())});
        if (i < config.ready_sequences()) {
            sequences_.back().k.make_ready();
            sequences_.back().v.make_ready();
        }
    }
    const size_t staged = static_cast<size_t>(config.n_layer) * config.n_head_kv * config.n_ubatch * config.head_size;
    staged_k_ = Buffer<half_t>(memory, staged);
    staged_v_ = Buffer<half_t>(memory, staged);
}

void Cache::truncate(int seq, int n_keep) {
    sequences_[seq].k.truncate(n_keep);
    sequences_[seq].v.truncate(n_keep);
}

Sequence Cache::removed(int seq, int begin, int end, const Rotation& rotation) const {
    Sequence changed(sequences_[seq]);
    changed.k.remove(begin, end, rotation);
    changed.v.remove(begin, end, rotation);
    return changed;
}

int64_t Cache::distinct_paged_tokens(Side side, int except) const {
    const uint64_t visit = ++visits_;
    int64_t tokens = 0;
    for (size_t seq = 0; seq < sequences_.size(); ++seq) {
        const Sequence& s = sequences_[seq];
        if (static_cast<int>(seq) == except) {
            continue;
        }
        for (const PageRef& page : (side == Side::keys ? s.k : s.v).pages()) {
            const PageBlock& block = *page.block;
            if (block.visit != visit) {
                block.visit = visit;
                block.visited.reset();
            }
            std::bitset<kPageTokens> run;
            run = (run.set() >> (kPageTokens - page.count)) << page.first;
            tokens += static_cast<int64_t>((run & ~block.visited).count());
            block.visited |= run;
        }
    }
    return tokens;
}

int64_t Cache::used_tokens(int except) const {
    int64_t used = distinct_paged_tokens(Side::keys, except);
    for (size_t seq = 0; seq < sequences_.size(); ++seq) {
        used += static_cast<int>(seq) == except ? 0 : sequences_[seq].k.n_ring();
    }
    return used;
}

void Cache::check_room(int64_t n_tokens) const {
    check_room(used_tokens(), n_tokens);
}

void Cache::check_room(int64_t used, int64_t n_tokens) const {
    if (used + n_tokens > config_.n_ctx) {
        throw Error(LK_CACHE_FULL,
                    format("the KV cache is full: %lld of %d tokens used, %lld more needed; raise n_ctx or remove "
                           "tokens",
                           static_cast<long long>(used), config_.n_ctx, static_cast<long long>(n_tokens)),
                    n_tokens, std::max<int64_t>(config_.n_ctx - used, 0));
    }
}

void Cache::reserve(std::span<const Segment> segments) {
    try {
        for (const Segment& s : segments) {
            sequences_[s.seq].k.reserve(s.n_rows);
            sequences_[s.seq].v.reserve(s.n_rows);
        }
    } catch (const std::bad_alloc&) {
        release_reserved(segments);
        const unsigned long long bytes = k_spec_.block_bytes() + v_spec_.block_bytes();
        throw Error(LK_OUT_OF_MEMORY,
                    format("out of memory: cannot allocate the cache's memory of a sequence; pages of 128 tokens take "
                           "%llu bytes",
                           bytes),
                    bytes);
    }
}

void Cache::release_reserved(std::span<const Segment> segments) {
    for (const Segment& s : segments) {
        sequences_[s.seq].k.release_reserved();
        sequences_[s.seq].v.release_reserved();
    }
}

namespace {

// A row as its page will give it back. False if a rotated element is beyond the range of halves, in which attention
// reads them.
bool round_to_blocks(const PageFormat& f, half_t* row, ToHalf to_half) {
    static constexpr float kLargest = 65504.0f;
    float x[kMaxHeadSize];
    uint8_t blocks[kMaxHeadSize / 32 * sizeof(BlockQ8_0)];
    std::transform(row, row + f.head_size, x, half_to_float);
    quantize_rows(f, {}, x, 1, 0, 0, blocks);
    dequantize_row(block_type(f), blocks, x, f.head_size);
    const bool fits = std::all_of(x, x + f.head_size, [](float v) { return std::fabs(v) <= kLargest; });
    hadamard(x, f.head_size);
    std::transform(x, x + f.head_size, x, [](float v) { return std::clamp(v, -kLargest, kLargest); });
    to_half(x, f.head_size, row);
    return fits;
}

}  // namespace

void fail_staged(Side side, int layer, bool finite) {
    const char* const what = side == Side::keys ? "key" : "value";
    LK_CHECK(finite, LK_NUMERIC_ERROR, "layer %d gave a %s that is NaN or infinite", layer, what);
    LK_FAIL(LK_NUMERIC_ERROR,
            "layer %d gave a %s beyond 65504, the range of the cache's 16-bit floats: the weights may not belong to a "
            "working model (a damaged or wrongly converted file)",
            layer, what);
}

void Cache::stage(Side side, int layer, int n_rows, const float* rows, ToHalf to_half) {
    constexpr half_t kInfinity = 0x7c00;
    const size_t d = config_.head_size;
    Buffer<half_t>& staged = staging(side);
    const PageFormat& f = spec(side).format;
    for (int h = 0; h < config_.n_head_kv; ++h) {
        half_t* out = staged.data() + (static_cast<size_t>(layer) * config_.n_head_kv + h) * config_.n_ubatch * d;
        for (int i = 0; i < n_rows; ++i, out += d) {
            const float* const row = rows + (static_cast<size_t>(i) * config_.n_head_kv + h) * d;
            to_half(row, static_cast<int64_t>(d), out);
            bool broken = false;
            for (size_t c = 0; c < d; ++c) {
                broken |= (out[c] & kInfinity) == kInfinity;
            }
            if (broken || (f.blocks() && !round_to_blocks(f, out, to_half))) {
                fail_staged(side, config_.first_layer + layer, std::all_of(row, row + d, is_finite));
            }
        }
    }
}

SideView Cache::view(Side side, const Segment& segment, int layer, int head) const {
    const Sequence& s = sequences_[segment.seq];
    SideView v = (side == Side::keys ? s.k : s.v).view(layer, head);
    const Buffer<half_t>& staged = side == Side::keys ? staged_k_ : staged_v_;
    v.staged =
        staged.data() +
        ((static_cast<size_t>(layer) * config_.n_head_kv + head) * config_.n_ubatch + segment.row) * config_.head_size;
    v.n_staged = segment.n_rows;
    return v;
}

void Cache::prepare_commit(std::span<const Segment> segments, int n_threads) {
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(n_threads)));
    for (int i = 0; i < n_threads; ++i) {
        for (const Segment& segment : segments) {
            sequences_[segment.seq].k.reserve_scratch(segment.n_rows, scratch_[i]);
            sequences_[segment.seq].v.reserve_scratch(segment.n_rows, scratch_[i]);
        }
    }
}

void Cache::commit(std::span<const Segment> segments, ThreadPool& pool) noexcept {
    const int n_heads = config_.n_layer * config_.n_head_kv;
    for (const Segment& segment : segments) {
        Sequence& s = sequences_[segment.seq];
        pool.parallel_for(n_heads, [&](int task, int thread) noexcept {
            const int layer = task / config_.n_head_kv;
            const int head = task % config_.n_head_kv;
            const size_t offset = (static_cast<size_t>(task) * config_.n_ubatch + segment.row) * config_.head_size;
            s.k.append(layer, head, staged_k_.data() + offset, segment.n_rows, scratch_[thread]);
            s.v.append(layer, head, staged_v_.data() + offset, segment.n_rows, scratch_[thread]);
        });
    }
    finish_append(segments);
}

AppendPlan Cache::plan_append(Side side, const Segment& segment) {
    Sequence& s = sequences_[segment.seq];
    return (side == Side::keys ? s.k : s.v).plan_append(segment.n_rows);
}

void Cache::finish_append(std::span<const Segment> segments) noexcept {
    for (const Segment& segment : segments) {
        sequences_[segment.seq].k.finish_append(segment.n_rows);
        sequences_[segment.seq].v.finish_append(segment.n_rows);
    }
}

lk_cache_usage Cache::usage() const {
    lk_cache_usage u{};
    const double elements =
        static_cast<double>(config_.n_layer) * config_.n_head_kv * config_.head_size;  // a token, one side
    double quantized = 0;
    double exact = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const PageFormat& f = spec(side).format;
        const double paged = static_cast<double>(distinct_paged_tokens(side)) * elements * f.bits_per_element() / 8;
        (f.quantized() ? quantized : exact) += paged;
        for (const Sequence& s : sequences_) {
            const SequenceSide& one = side == Side::keys ? s.k : s.v;
            exact += (one.n_ring() + one.n_sinks()) * elements * sizeof(half_t);
            u.allocated_bytes += one.fixed_bytes();
            if (f.quantized()) {
                (side == Side::keys ? u.n_quantized_k : u.n_quantized_v) += one.n_paged() - one.n_sinks();
            }
        }
        (side == Side::keys ? u.k_bits_per_element : u.v_bits_per_element) = f.bits_per_element();
    }
    for (const Sequence& s : sequences_) {
        u.n_tokens += s.length();
    }
    u.n_capacity = config_.n_ctx;
    u.quantized_bytes = static_cast<uint64_t>(quantized);
    u.exact_bytes = static_cast<uint64_t>(exact);
    u.allocated_bytes += live_page_bytes();
    u.f16_bytes = static_cast<uint64_t>(u.n_tokens * elements * 2 * sizeof(half_t));
    return u;
}

uint64_t Cache::fixed_bytes(const CacheConfig& config) {
    uint64_t elements = 0;
    for (const Side side : {Side::keys, Side::values}) {
        const SideSpec spec = make_side_spec(config, side);
        elements += spec.ring_elements() + spec.sink_elements();
    }
    return elements * sizeof(half_t) * config.ready_sequences();
}

uint64_t Cache::staging_bytes(const CacheConfig& config) {
    return uint64_t{2} * config.n_layer * config.n_head_kv * config.n_ubatch * config.head_size * sizeof(half_t);
}

uint64_t Cache::page_bytes(const CacheConfig& config) {
    // A sequence's last page is not full.
    const uint64_t n_seq = config.ready_sequences();
    const uint64_t tokens = (static_cast<uint64_t>(config.n_ctx) + n_seq - 1) / n_seq;
    const uint64_t n_pages = (tokens + kPageTokens - 1) / kPageTokens * n_seq;
    return n_pages *
           (make_side_spec(config, Side::keys).block_bytes() + make_side_spec(config, Side::values).block_bytes());
}

}  // namespace lk::kv
