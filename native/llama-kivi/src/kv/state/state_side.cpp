#include "kv/state/state_side.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/staging_buffer.h"
#include "kv/bookkeeping.h"
#include "kv/codec/kivi_format.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/scalar_codec.h"
#include "kv/codec/stock_blocks.h"
#include "kv/config.h"
#include "kv/pool.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

namespace {

// Positions are below this limit (make_cache_config).
constexpr int kMostTokens = 1 << 30;
// Loose bound: byte_scale_exponent of finite halves is well inside +-kMostExponent.
constexpr int kMostExponent = 32;
// Bound of f32 and bf16 elements: larger ones would overflow floats in the layers behind attention.
constexpr float kLargestFloat = 0x1p40f;

const char* name(Side side) {
    return side == Side::keys ? "keys" : "values";
}

bool is_finite(half_t x) {
    return (x & 0x7c00) != 0x7c00;
}

half_t half_at(std::span<const uint8_t> bytes, size_t at) {
    half_t x;
    std::memcpy(&x, bytes.data() + at, sizeof(x));
    return x;
}

// Without a branch per element, so that the compiler uses vectors: the rings of a sequence are megabytes.
bool all_finite(std::span<const uint8_t> halves) {
    unsigned any = 0;
    for (size_t i = 0; i < halves.size(); i += sizeof(half_t)) {
        any |= is_finite(half_at(halves, i)) ? 0u : 1u;
    }
    return any == 0;
}

// Whether attention can read rows of a q8_0 ring.
bool all_sound_blocks(const PageFormat& f, std::span<const uint8_t> rows) {
    for (size_t at = 0; at < rows.size(); at += row_bytes(RowType::q8_0, f.head_size)) {
        if (!is_finite_q8_row(rows.data() + at, f.head_size)) {
            return false;
        }
    }
    return true;
}

// Whether attention can read a page. Codes may have any value; floats must be valid.
bool is_sound(const PageFormat& f, std::span<const uint8_t> page) {
    switch (f.scale_kind) {
    case ScaleKind::none: {
        float row[kMaxHeadSize];
        for (int token = 0; token < kPageTokens; ++token) {
            dequantize_row(f, {}, page.data(), token, row);
            if (!std::all_of(row, row + f.head_size, [](float x) { return std::fabs(x) <= kLargestFloat; })) {
                return false;
            }
        }
        return true;
    }
    case ScaleKind::block: {
        float row[kMaxHeadSize];
        for (size_t at = 0; at < page.size(); at += f.row_bytes()) {
            decode_blocks(f.type, page.data() + at, row, f.head_size);
            // Attention reads dequantized rows as halves.
            if (!std::all_of(row, row + f.head_size, [](float x) { return std::fabs(x) <= kLargestHalf; })) {
                return false;
            }
        }
        return true;
    }
    case ScaleKind::half_pair: {
        const std::span<const uint8_t> pairs = page.subspan(f.scales_offset);
        for (size_t at = 0; at < pairs.size(); at += 2 * sizeof(half_t)) {
            const half_t scale = half_at(pairs, at);
            if (!is_finite(scale) || (scale & 0x8000) != 0 || !is_finite(half_at(pairs, at + sizeof(half_t)))) {
                return false;
            }
        }
        return true;
    }
    case ScaleKind::byte_pair:
    case ScaleKind::byte_token:
        return true;
    }
    return false;
}

struct TableList {
    std::vector<uint16_t>* numbers;
    int size;  // 0 if the format has no such list
};

// The lists of a table in the order of SideSpec::table_bytes.
std::array<TableList, 3> lists_of(const PageFormat& f, HeadTable& table) {
    return {{{&table.refined, f.rows - f.head_size},
             {&table.centre, f.recipe.key_centre ? f.head_size : 0},
             {&table.mu, f.scale_kind == ScaleKind::byte_token ? f.head_size : 0}}};
}

std::vector<uint8_t> pack(const SideSpec& spec, HeadTable table) {
    std::vector<uint8_t> bytes(spec.table_bytes());
    const int32_t exponent = table.exponent;
    std::memcpy(bytes.data(), &exponent, sizeof(exponent));
    size_t at = sizeof(exponent);
    for (const TableList& list : lists_of(spec.format, table)) {
        std::copy_n(reinterpret_cast<const uint8_t*>(list.numbers->data()), list.numbers->size() * sizeof(uint16_t),
                    bytes.data() + at);
        at += list.size * sizeof(uint16_t);
    }
    return bytes;
}

HeadTable unpack(const SideSpec& spec, std::span<const uint8_t> bytes) {
    HeadTable table;
    int32_t exponent = 0;
    std::memcpy(&exponent, bytes.data(), sizeof(exponent));
    table.exponent = exponent;
    size_t at = sizeof(exponent);
    for (const TableList& list : lists_of(spec.format, table)) {
        list.numbers->resize(list.size);
        std::copy_n(bytes.data() + at, list.size * sizeof(uint16_t), reinterpret_cast<uint8_t*>(list.numbers->data()));
        at += list.size * sizeof(uint16_t);
    }
    return table;
}

void check_table(const SideSpec& spec, std::span<const uint8_t> bytes) {
    const PageFormat& f = spec.format;
    const HeadTable table = unpack(spec, bytes);
    const int most = has_table(f) ? kMostExponent : 0;
    LK_CHECK(table.exponent >= -most && table.exponent <= most, LK_BAD_STATE,
             "the saved state says the exponent of a head's scales is %d (%s); it must be %d to %d", table.exponent,
             name(f.side), -most, most);
    for (size_t i = 0; i < table.refined.size(); ++i) {
        LK_CHECK(table.refined[i] < f.head_size && (i == 0 || table.refined[i - 1] < table.refined[i]), LK_BAD_STATE,
                 "refined channels of a saved state must ascend and be below %d; channel %d at index %zu does not fit",
                 f.head_size, table.refined[i], i);
    }
    LK_CHECK(std::all_of(table.mu.begin(), table.mu.end(), is_finite), LK_BAD_STATE,
             "the saved state has a centre of values that is NaN or infinite");
    LK_CHECK(std::all_of(table.centre.begin(), table.centre.end(), is_finite), LK_BAD_STATE,
             "the saved state has a centre of keys that is NaN or infinite");
}

UndoBase read_base(StateReader& in) {
    UndoBase base;
    base.length = in.number("the length before rows that can be taken back", 0, kMostTokens);
    base.n_paged = in.number("the count of tokens in pages before them", 0, kMostTokens);
    base.tables_chosen = in.number("the flag of tables chosen before them", 0, 1) != 0;
    return base;
}

// Checks the UndoBase against counts that are known to be right: the flushes since then moved whole groups to the
// pages.
void check_base(const SideContent& side, const SideSpec& spec) {
    const UndoBase& base = side.base;
    const char* const which = name(spec.format.side);
    LK_CHECK(base.length <= side.length(), LK_BAD_STATE,
             "the saved state says the length before rows that can be taken back is %d; it must be 0 to %d (%s)",
             base.length, side.length(), which);
    LK_CHECK(base.n_paged <= std::min(base.length, side.n_paged), LK_BAD_STATE,
             "the saved state says the count of tokens in pages before them is %d; it must be 0 to %d (%s)",
             base.n_paged, std::min(base.length, side.n_paged), which);
    LK_CHECK(side.tables_chosen || !base.tables_chosen, LK_BAD_STATE,
             "the saved state says tables were chosen before rows that can be taken back, and not since (%s)", which);
    const int flushed = side.n_paged - base.n_paged;
    LK_CHECK(
        flushed % spec.ageing.leave == 0 && side.n_undo <= flushed, LK_BAD_STATE,
        "the saved state says that %d tokens entered its pages since %d and that %d of them can be taken back (%s)",
        flushed, base.n_paged, side.n_undo, which);
}

void read_runs(SideContent& side, const char* which, StateReader& in) {
    const int n_runs = in.number("the count of runs", 0, side.n_paged);
    const int n_blocks = in.number("the count of blocks", 0, n_runs);
    LK_CHECK(in.left() / sizeof(SideContent::Run) >= static_cast<size_t>(n_runs), LK_BAD_STATE,
             "the saved state is too short for its %d runs", n_runs);
    int n_tokens = 0;
    int last_block = -1;
    for (int i = 0; i < n_runs; ++i) {
        SideContent::Run run;
        // Runs of a block are consecutive and do not overlap: pages are cut, never reordered or repeated.
        run.block = in.number("the block of a run", std::max(0, last_block), std::min(last_block + 1, n_blocks - 1));
        const int begin = run.block == last_block ? side.runs.back().first + side.runs.back().count : 0;
        LK_CHECK(begin < kPageTokens, LK_BAD_STATE, "the saved state has runs past the end of block %d (%s)", run.block,
                 which);
        run.first = in.number("the first token of a run", begin, kPageTokens - 1);
        run.count = in.number("the tokens of a run", 1, kPageTokens - run.first);
        LK_CHECK(run.count <= side.n_paged - n_tokens, LK_BAD_STATE,
                 "the runs of the saved state have more tokens than its count of %d (%s)", side.n_paged, which);
        // The last token's original position must be below kMostTokens too.
        run.frame = in.number("the frame of a run", 0, kMostTokens - 1 - n_tokens - run.count);
        n_tokens += run.count;
        last_block = run.block;
        side.runs.push_back(run);
    }
    LK_CHECK(n_tokens == side.n_paged, LK_BAD_STATE, "the runs of the saved state have %d tokens; its count is %d (%s)",
             n_tokens, side.n_paged, which);
    LK_CHECK(last_block == n_blocks - 1, LK_BAD_STATE, "the saved state has %d blocks, but its runs use %d (%s)",
             n_blocks, last_block + 1, which);
}

}  // namespace

void StateWriter::bytes(const void* data, size_t n) {
    if (!counts() && n > 0) {
        std::memcpy(out_.data() + size_, data, n);
    }
    size_ += n;
}

int StateReader::number(const char* what, int min, int max) {
    int32_t x = 0;
    std::memcpy(&x, view(sizeof(x), what).data(), sizeof(x));
    LK_CHECK(x >= min && x <= max, LK_BAD_STATE, "the saved state says %s is %d; it must be %d to %d", what, x, min,
             max);
    return x;
}

std::span<const uint8_t> StateReader::view(size_t n, const char* what) {
    LK_CHECK(n <= data_.size(), LK_BAD_STATE, "the saved state ends %zu bytes early, in %s", n - data_.size(), what);
    const std::span<const uint8_t> bytes = data_.first(n);
    data_ = data_.subspan(n);
    return bytes;
}

SideContent read_side(std::span<const SideSpec* const> specs, StateReader& in) {
    const SideSpec& spec = *specs.front();
    const PageFormat& f = spec.format;
    const char* const which = name(f.side);
    SideContent side;
    side.n_paged = in.number("the count of tokens in pages", 0, kMostTokens);
    side.n_sinks = in.number("the count of sinks", 0, std::min(spec.sinks, side.n_paged));
    side.n_ring = in.number("the count of tokens in the ring", 0, spec.ageing.trigger - 1);
    side.n_undo =
        in.number("the count of rows in the undo window", 0, std::min(kMostUndo + spec.ageing.trigger, side.n_paged));
    side.tables_chosen = in.number("the flag of chosen tables", 0, 1) != 0;
    side.base = read_base(in);
    LK_CHECK(side.tables_chosen || side.n_paged == side.n_sinks, LK_BAD_STATE,
             "the saved state has %d quantized %s, and the flag of chosen tables is 0", side.n_paged - side.n_sinks,
             which);
    read_runs(side, which, in);
    check_base(side, spec);

    const int n_blocks = side.runs.empty() ? 0 : side.runs.back().block + 1;
    for (int block = 0; block < n_blocks; ++block) {
        for (const SideSpec* part : specs) {
            const std::span<const uint8_t> bytes = in.view(part->block_bytes(), "a block");
            for (size_t at = 0; at < bytes.size(); at += f.page_bytes) {
                LK_CHECK(is_sound(f, bytes.subspan(at, f.page_bytes)), LK_BAD_STATE,
                         "the saved state has a page of %s with %s that is NaN, infinite, negative or beyond %g", which,
                         f.quantized() ? "a scale" : "a number",
                         static_cast<double>(f.floats() ? kLargestFloat : kLargestHalf));
            }
            side.blocks.push_back(bytes);
        }
    }
    const size_t sink_bytes = f.head_size * sizeof(half_t);
    SideLayout layout(spec);
    layout.n_paged = side.n_paged;
    layout.n_sinks = side.n_sinks;
    layout.n_ring = side.n_ring;
    for (const SideSpec* part : specs) {
        for (size_t i = 0; i < part->head_count(); ++i) {
            SideContent::Head head;
            head.ring = in.view((side.n_undo + side.n_ring) * spec.ring_row_bytes(), "the ring");
            LK_CHECK(spec.ring_in_blocks() ? all_sound_blocks(f, head.ring) : all_finite(head.ring), LK_BAD_STATE,
                     "the saved state has a ring of %s that holds NaN or infinity", which);
            head.sinks = in.view(layout.sink_rows() * sink_bytes, "the sinks");
            LK_CHECK(all_finite(head.sinks), LK_BAD_STATE, "the saved state has sinks of %s that hold NaN or infinity",
                     which);
            if (side.tables_chosen) {
                head.table = in.view(part->table_bytes(), "the table of a head");
                check_table(*part, head.table);
            }
            side.heads.push_back(head);
        }
    }
    return side;
}

void SideState::write(std::span<const SequenceSide* const> parts, StateWriter& out) {
    const SequenceSide& first = *parts.front();
    // Numbers the distinct blocks in run order. blocks: the last run of each.
    std::map<const PageBlock*, int32_t> numbers;
    std::vector<size_t> blocks;
    for (size_t i = 0; i < first.layout_.pages.size(); ++i) {
        if (numbers.try_emplace(first.layout_.pages[i].block.get(), static_cast<int32_t>(blocks.size())).second) {
            blocks.push_back(i);
        } else {
            blocks.back() = i;
        }
    }
    out.number(first.layout_.n_paged);
    out.number(first.layout_.n_sinks);
    out.number(first.layout_.n_ring);
    out.number(first.layout_.n_undo);
    out.number(first.layout_.tables_chosen);
    out.number(first.layout_.base.length);
    out.number(first.layout_.base.n_paged);
    out.number(first.layout_.base.tables_chosen);
    out.number(static_cast<int32_t>(first.layout_.pages.size()));
    out.number(static_cast<int32_t>(blocks.size()));
    for (const PageRef& ref : first.layout_.pages) {
        out.number(numbers[ref.block.get()]);
        out.number(ref.first);
        out.number(ref.count);
        out.number(ref.frame);
    }
    for (const size_t run : blocks) {
        for (const SequenceSide* side : parts) {
            const PageFormat& f = side->spec_->format;
            const PageRef& last = side->layout_.pages[run];
            const Slot& block = last.block->data;
            out.bytes(fetch(block, *side->pools_->copies, out), block.bytes());
            const std::span<uint8_t> pages = out.last(block.bytes());
            // The rest of a page may hold codes of a failed call or of truncated tokens: of the last page, and of one
            // that was closed after a truncation.
            for (size_t at = 0; at < pages.size(); at += f.page_bytes) {
                clear_tokens(f, last.end(), pages.data() + at);
            }
            out.add_to_checksum();
        }
    }
    for (const SequenceSide* side : parts) {
        write_heads(*side, out);
    }
}

const uint8_t* SideState::fetch(const Slot& slot, StagingBuffer& copies, const StateWriter& out) {
    if (out.counts() || slot.bytes() == 0 || slot.memory().on_host()) {
        return slot.data();
    }
    uint8_t* const copy = copies.reserve(slot.bytes());
    slot.memory().read(copy, slot.data(), slot.bytes());
    return copy;
}

void SideState::write_heads(const SequenceSide& side, StateWriter& out) {
    const SideSpec& spec = *side.spec_;
    const size_t row_bytes = spec.ring_row_bytes();
    const uint8_t* const memory = fetch(side.slot_, *side.pools_->copies, out);
    const auto write = [&](size_t offset, size_t n) { out.bytes(n > 0 ? memory + offset : nullptr, n); };
    // Rows by age are contiguous up to the ring's end, and from its beginning.
    const int n_rows = side.layout_.n_undo + side.layout_.n_ring;
    const int first = n_rows > 0 ? side.layout_.ring_row(-side.layout_.n_undo) : 0;
    const int n_first = std::min(n_rows, spec.ring_rows() - first);
    for (size_t head = 0; head < spec.head_count(); ++head) {
        const size_t ring = head * spec.ring_rows() * row_bytes;
        write(ring + first * row_bytes, n_first * row_bytes);
        write(ring, (n_rows - n_first) * row_bytes);
        const size_t sink_bytes = spec.format.head_size * sizeof(half_t);
        write(side.places_.sinks + head * spec.sinks * sink_bytes, side.layout_.sink_rows() * sink_bytes);
        if (side.layout_.tables_chosen && side.memory().on_host()) {
            const std::vector<uint8_t> table = pack(spec, side.tables_[head]);
            out.bytes(table.data(), table.size());
        } else if (side.layout_.tables_chosen) {
            write(side.places_.tables[side.table_] + head * spec.table_bytes(), spec.table_bytes());
        }
        out.add_to_checksum();
    }
}

void SideState::build(const SideContent& content, std::span<SequenceSide> sides) {
    std::span<const SideContent::Head> heads = content.heads;
    for (size_t part = 0; part < sides.size(); ++part) {
        SequenceSide& side = sides[part];
        side.layout_.n_paged = content.n_paged;
        side.layout_.n_sinks = content.n_sinks;
        side.layout_.n_ring = content.n_ring;
        // An undo window of another size keeps the rows that fit.
        side.layout_.n_undo =
            side.spec_->undo == 0 ? 0 : std::min(content.n_undo, side.spec_->ring_rows() - content.n_ring);
        side.layout_.ring_start = side.layout_.n_undo;
        side.layout_.tables_chosen = content.tables_chosen;
        side.layout_.base = content.base;
        int last_block = -1;
        for (const SideContent::Run& run : content.runs) {
            PageRef ref{nullptr, run.count, run.first, run.frame};
            if (run.block == last_block) {
                ref.block = side.layout_.pages.back().block;
            } else {
                const std::span<const uint8_t> bytes = content.blocks[run.block * sides.size() + part];
                ref.block = std::make_shared<PageBlock>(side.pools_->pages.take());
                side.memory().write(ref.block->data.data(), bytes.data(), bytes.size());
            }
            last_block = run.block;
            side.layout_.pages.push_back(std::move(ref));
        }
        build_heads(heads.first(side.spec_->head_count()), side);
        heads = heads.subspan(side.spec_->head_count());
    }
}

void SideState::build_heads(std::span<const SideContent::Head> heads, SequenceSide& side) {
    if (side.length() == 0) {
        return;
    }
    side.make_ready();
    const SideSpec& spec = *side.spec_;
    const size_t sink_bytes = spec.sinks * spec.format.head_size * sizeof(half_t);
    const size_t ring_bytes = (side.layout_.n_undo + side.layout_.n_ring) * spec.ring_row_bytes();
    // The slot is zero-filled; a device's is overwritten from the staging buffer.
    uint8_t* memory = side.slot_.data();
    if (!side.memory().on_host()) {
        memory = side.pools_->copies->reserve(side.slot_.bytes());
        std::fill_n(memory, side.slot_.bytes(), uint8_t{0});
    }
    const auto put = [](void* to, std::span<const uint8_t> bytes) {
        if (!bytes.empty()) {
            std::memcpy(to, bytes.data(), bytes.size());
        }
    };
    for (size_t i = 0; i < heads.size(); ++i) {
        const SideContent::Head& head = heads[i];
        put(memory + i * spec.ring_rows() * spec.ring_row_bytes(), head.ring.last(ring_bytes));
        put(memory + side.places_.sinks + i * sink_bytes, head.sinks);
        if (!side.memory().on_host()) {
            put(memory + side.places_.tables[0] + i * spec.table_bytes(), head.table);
        } else if (side.layout_.tables_chosen) {
            side.tables_[i] = unpack(spec, head.table);
        }
    }
    if (!side.memory().on_host()) {
        side.memory().write(side.slot_.data(), memory, side.slot_.bytes());
    }
}

}  // namespace lk::kv
