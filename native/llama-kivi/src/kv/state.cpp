#include "kv/state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/error.h"

namespace lk::kv {

namespace {

constexpr char kMagic[4] = {'L', 'K', 'S', 'T'};
constexpr uint32_t kVersion = 1;

struct Header {
    char magic[4];
    uint32_t version;
    StateKey key;
    uint64_t payload_bytes;
};

// Counts bytes, and writes them if there is somewhere to.
class Writer {
public:
    explicit Writer(uint8_t* out) : out_(out) {}

    void bytes(const void* data, size_t n) {
        if (out_ != nullptr && n > 0) {
            std::memcpy(out_ + size_, data, n);
        }
        size_ += n;
    }
    void number(int32_t x) { bytes(&x, sizeof(x)); }
    template <class T>
    void bytes_of(const Buffer<T>& buffer) {
        if (out_ != nullptr && buffer.size() > 0) {
            buffer.memory().read(out_ + size_, buffer.data(), buffer.bytes());
        }
        size_ += buffer.bytes();
    }
    // A buffer on the host; zeros while only bytes are counted.
    template <class T>
    std::vector<T> fetch(const Buffer<T>& buffer) const {
        std::vector<T> copy(buffer.size());
        if (out_ != nullptr && buffer.size() > 0) {
            buffer.memory().read(copy.data(), buffer.data(), buffer.bytes());
        }
        return copy;
    }
    uint64_t size() const { return size_; }

private:
    uint8_t* out_;
    uint64_t size_ = 0;
};

class Reader {
public:
    explicit Reader(std::span<const uint8_t> data) : data_(data) {}

    void bytes(void* out, size_t n) {
        LK_CHECK(n <= data_.size(), LK_BAD_STATE, "the saved state ends %zu bytes early", n - data_.size());
        if (n > 0) {
            std::memcpy(out, data_.data(), n);
        }
        data_ = data_.subspan(n);
    }
    int number(const char* what, int min, int max) {
        int32_t x = 0;
        bytes(&x, sizeof(x));
        LK_CHECK(x >= min && x <= max, LK_BAD_STATE, "the saved state says %s is %d; it must be %d to %d", what, x, min,
                 max);
        return x;
    }
    size_t left() const { return data_.size(); }
    // The next n bytes, in place.
    std::span<const uint8_t> view(size_t n) {
        LK_CHECK(n <= data_.size(), LK_BAD_STATE, "the saved state ends %zu bytes early", n - data_.size());
        const std::span<const uint8_t> bytes = data_.first(n);
        data_ = data_.subspan(n);
        return bytes;
    }

private:
    std::span<const uint8_t> data_;
};

uint64_t checksum(std::span<const uint8_t> data) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < data.size(); i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, data.data() + i, std::min<size_t>(8, data.size() - i));
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 29;  // high bits of a word must reach the low ones
    }
    return hash;
}

StateKey make_state_key(CacheParts parts, uint64_t model) {
    const CacheConfig& c = parts.front()->config();
    const bool kivi = is_kivi(c.params.type_k) || is_kivi(c.params.type_v);
    StateKey key{};
    for (const Cache* part : parts) {
        key.n_layer += part->config().n_layer;
    }
    key.n_head_kv = c.n_head_kv;
    key.head_size = c.head_size;
    key.type_k = c.params.type_k;
    key.type_v = c.params.type_v;
    key.group = kivi ? static_cast<int32_t>(c.params.group) : 0;
    key.residual = kivi ? static_cast<int32_t>(c.params.residual) : 0;
    key.sinks_k = parts.front()->spec(Side::keys).sinks;
    key.sinks_v = parts.front()->spec(Side::values).sinks;
    key.model = model;
    return key;
}

}  // namespace

// Reaches into one side of a sequence, in all parts of the cache.
class SideState {
public:
    static void write(std::span<const SequenceSide* const> parts, Writer& out) {
        const SequenceSide& first = *parts.front();
        // Places of the distinct blocks' first runs, and the block of every run.
        std::map<const PageBlock*, int32_t> numbers;
        std::vector<size_t> blocks;
        for (size_t i = 0; i < first.pages_.size(); ++i) {
            if (numbers.try_emplace(first.pages_[i].block.get(), static_cast<int32_t>(blocks.size())).second) {
                blocks.push_back(i);
            }
        }
        out.number(first.n_paged_);
        out.number(first.n_sinks_);
        out.number(first.n_ring_);
        out.number(first.tables_chosen_);
        out.number(static_cast<int32_t>(first.pages_.size()));
        out.number(static_cast<int32_t>(blocks.size()));
        for (const PageRef& ref : first.pages_) {
            out.number(numbers[ref.block.get()]);
            out.number(ref.first);
            out.number(ref.count);
            out.number(ref.frame);
        }
        for (const size_t run : blocks) {
            for (const SequenceSide* side : parts) {
                out.bytes_of(side->pages_[run].block->data);
            }
        }
        for (const SequenceSide* side : parts) {
            write_heads(*side, out);
        }
    }

    // sides: empty ones of every part.
    static void read(std::span<SequenceSide> sides, int n_ctx, Reader& in) {
        SequenceSide& first = sides.front();
        const SideSpec& spec = *first.spec_;
        first.n_paged_ = in.number("the count of tokens in pages", 0, n_ctx);
        first.n_sinks_ = in.number("the count of sinks", 0, std::min(spec.sinks, first.n_paged_));
        first.n_ring_ = in.number("the count of tokens in the ring", 0, spec.ageing.trigger - 1);
        first.tables_chosen_ = in.number("a flag", 0, 1) != 0;
        const int n_runs = in.number("the count of runs", 0, first.n_paged_);
        const int n_blocks = in.number("the count of blocks", 0, n_runs);
        std::vector<int> block_of;
        int n_tokens = 0;
        for (int i = 0; i < n_runs; ++i) {
            block_of.push_back(in.number("a block", 0, n_blocks - 1));
            PageRef ref;
            ref.first = in.number("the first token of a run", 0, kPageTokens - 1);
            ref.count = in.number("the tokens of a run", 1, kPageTokens - ref.first);
            ref.frame = in.number("a frame", -(1 << 30), 1 << 30);
            n_tokens += ref.count;
            first.pages_.push_back(ref);
        }
        LK_CHECK(n_tokens == first.n_paged_, LK_BAD_STATE, "the saved state has runs of %d tokens, but counts %d",
                 n_tokens, first.n_paged_);
        size_t block_bytes = 0;
        for (SequenceSide& side : sides) {
            block_bytes += side.spec_->block_bytes();
            side.n_paged_ = first.n_paged_;
            side.n_sinks_ = first.n_sinks_;
            side.n_ring_ = first.n_ring_;
            side.tables_chosen_ = first.tables_chosen_;
            side.pages_ = first.pages_;
        }
        // Before anything is allocated for them.
        LK_CHECK(in.left() / block_bytes >= static_cast<size_t>(n_blocks), LK_BAD_STATE,
                 "the saved state is too short for its %d blocks", n_blocks);
        for (int block = 0; block < n_blocks; ++block) {
            for (SequenceSide& side : sides) {
                const std::span<const uint8_t> content = in.view(side.spec_->block_bytes());
                const auto made = std::make_shared<PageBlock>(*side.memory_, content.size(), side.live_bytes_);
                side.memory_->write(made->data.data(), content.data(), content.size());
                for (int run = 0; run < n_runs; ++run) {
                    if (block_of[run] == block) {
                        side.pages_[run].block = made;
                    }
                }
            }
        }
        for (SequenceSide& side : sides) {
            read_heads(side, in);
        }
    }

private:
    // Rings, sinks and tables.
    static void write_heads(const SequenceSide& side, Writer& out) {
        const SideSpec& spec = *side.spec_;
        const size_t d = spec.format.head_size;
        const std::vector<half_t> rings = out.fetch(side.ring_);
        const std::vector<half_t> sinks = out.fetch(side.sinks_);
        const std::vector<uint8_t> tables = out.fetch(side.raw_tables_);
        for (size_t head = 0; head < spec.head_count(); ++head) {
            const half_t* ring = rings.data() + head * spec.ageing.trigger * d;
            for (int i = 0; i < side.n_ring_; ++i) {
                out.bytes(ring + static_cast<size_t>((side.ring_start_ + i) % spec.ageing.trigger) * d,
                          d * sizeof(half_t));
            }
            out.bytes(sinks.data() + head * spec.sinks * d, side.n_sinks_ * d * sizeof(half_t));
            const HeadTable table =
                side.ring_.size() == 0 ? HeadTable()  // of a sequence that never had a token
                : tables.empty()       ? side.tables_[head]
                                 : unpack_table(spec, tables.data() + head * spec.table_bytes(), side.tables_chosen_);
            out.number(table.exponent);
            out.number(static_cast<int32_t>(table.refined.size()));
            out.bytes(table.refined.data(), table.refined.size() * sizeof(uint16_t));
            out.number(static_cast<int32_t>(table.mu.size()));
            out.bytes(table.mu.data(), table.mu.size() * sizeof(half_t));
        }
    }

    static void read_heads(SequenceSide& side, Reader& in) {
        side.make_ready();
        const SideSpec& spec = *side.spec_;
        const size_t d = spec.format.head_size;
        const bool coded = side.n_paged_ > side.n_sinks_ && spec.format.quantized();
        std::vector<half_t> rings(side.ring_.size());
        std::vector<half_t> sinks(side.sinks_.size());
        std::vector<uint8_t> tables(side.raw_tables_.size());
        for (size_t head = 0; head < spec.head_count(); ++head) {
            in.bytes(rings.data() + head * spec.ageing.trigger * d, side.n_ring_ * d * sizeof(half_t));
            in.bytes(sinks.data() + head * spec.sinks * d, side.n_sinks_ * d * sizeof(half_t));
            HeadTable table = read_table(spec.format, coded, in);
            if (tables.empty()) {
                side.tables_[head] = std::move(table);
            } else {
                pack_table(table, tables.data() + head * spec.table_bytes());
            }
        }
        Memory& memory = *side.memory_;
        memory.write(side.ring_.data(), rings.data(), side.ring_.bytes());
        memory.write(side.sinks_.data(), sinks.data(), side.sinks_.bytes());
        memory.write(side.raw_tables_.data(), tables.data(), side.raw_tables_.bytes());
    }

    // As SideSpec::table_bytes lays them out.
    static HeadTable unpack_table(const SideSpec& spec, const uint8_t* bytes, bool chosen) {
        HeadTable table;
        int32_t exponent = 0;
        std::memcpy(&exponent, bytes, sizeof(exponent));
        table.exponent = exponent;
        if (chosen) {
            const bool centred = spec.format.scale_kind == ScaleKind::byte_token;
            table.mu.resize(centred ? spec.format.head_size : 0);
            table.refined.resize(spec.format.rows - spec.format.head_size);
            void* list = centred ? static_cast<void*>(table.mu.data()) : table.refined.data();
            if (list != nullptr) {
                std::memcpy(list, bytes + sizeof(exponent), spec.table_bytes() - sizeof(exponent));
            }
        }
        return table;
    }

    static void pack_table(const HeadTable& table, uint8_t* bytes) {
        const int32_t exponent = table.exponent;
        std::memcpy(bytes, &exponent, sizeof(exponent));
        const auto store = [&](const std::vector<uint16_t>& list) {
            if (!list.empty()) {
                std::memcpy(bytes + sizeof(exponent), list.data(), list.size() * sizeof(uint16_t));
            }
        };
        store(table.refined);
        store(table.mu);
    }

    static HeadTable read_table(const PageFormat& f, bool coded, Reader& in) {
        HeadTable table;
        table.exponent = in.number("an exponent", -64, 64);
        const int n_refined = f.rows - f.head_size;
        table.refined.resize(in.number("the count of refined channels", 0, n_refined));
        in.bytes(table.refined.data(), table.refined.size() * sizeof(uint16_t));
        const int n_mu = f.scale_kind == ScaleKind::byte_token ? f.head_size : 0;
        table.mu.resize(in.number("the length of a centre", 0, n_mu));
        in.bytes(table.mu.data(), table.mu.size() * sizeof(half_t));
        LK_CHECK(!coded ||
                     (static_cast<int>(table.refined.size()) == n_refined && static_cast<int>(table.mu.size()) == n_mu),
                 LK_BAD_STATE, "the saved state lacks the tables of its quantized tokens");
        LK_CHECK(std::adjacent_find(table.refined.begin(), table.refined.end(), std::greater_equal<>()) ==
                         table.refined.end() &&
                     (table.refined.empty() || table.refined.back() < f.head_size),
                 LK_BAD_STATE, "the saved state lists refined channels that do not rise below %d", f.head_size);
        return table;
    }
};

namespace {

void write_payload(CacheParts parts, int seq, Writer& out) {
    std::vector<const SequenceSide*> keys;
    std::vector<const SequenceSide*> values;
    for (const Cache* part : parts) {
        keys.push_back(&part->sequence(seq).k);
        values.push_back(&part->sequence(seq).v);
    }
    SideState::write(keys, out);
    SideState::write(values, out);
}

// One sequence of every part.
std::vector<Sequence> read_payload(CacheParts parts, Reader& in) {
    const auto read = [&](Side side) {
        std::vector<SequenceSide> sides;
        for (const Cache* part : parts) {
            sides.push_back(part->empty_side(side));
        }
        SideState::read(sides, parts.front()->config().n_ctx, in);
        return sides;
    };
    std::vector<SequenceSide> keys = read(Side::keys);
    std::vector<SequenceSide> values = read(Side::values);
    LK_CHECK(keys[0].length() == values[0].length(), LK_BAD_STATE, "the saved state has %d keys and %d values",
             keys[0].length(), values[0].length());
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < parts.size(); ++i) {
        sequences.push_back({std::move(keys[i]), std::move(values[i])});
    }
    return sequences;
}

}  // namespace

uint64_t state_size(CacheParts parts, int seq) {
    Writer out(nullptr);
    write_payload(parts, seq, out);
    return sizeof(Header) + out.size() + sizeof(uint64_t);
}

void save_state(CacheParts parts, int seq, uint64_t model, std::span<uint8_t> out) {
    const uint64_t size = state_size(parts, seq);
    LK_CHECK(out.size() == size, LK_INVALID_ARGUMENT, "the state of sequence %d takes %llu bytes; the buffer has %zu",
             seq, static_cast<unsigned long long>(size), out.size());
    Header header{};
    std::memcpy(header.magic, kMagic, sizeof(kMagic));
    header.version = kVersion;
    header.key = make_state_key(parts, model);
    header.payload_bytes = size - sizeof(Header) - sizeof(uint64_t);
    Writer writer(out.data());
    writer.bytes(&header, sizeof(header));
    write_payload(parts, seq, writer);
    const uint64_t sum = checksum(out.first(writer.size()));
    writer.bytes(&sum, sizeof(sum));
}

void load_state(CacheParts parts, int seq, uint64_t model, std::span<const uint8_t> data) {
    Header header{};
    LK_CHECK(data.size() >= sizeof(Header) + sizeof(uint64_t), LK_BAD_STATE, "%zu bytes are too few for a saved state",
             data.size());
    std::memcpy(&header, data.data(), sizeof(header));
    LK_CHECK(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, LK_BAD_STATE,
             "these bytes are no saved state: they do not begin with LKST");
    LK_CHECK(header.version == kVersion, LK_BAD_STATE, "the saved state has version %u; this engine reads version %u",
             header.version, kVersion);
    LK_CHECK(header.payload_bytes == data.size() - sizeof(Header) - sizeof(uint64_t), LK_BAD_STATE,
             "the saved state should have %llu bytes and has %zu: it was cut or appended to",
             static_cast<unsigned long long>(header.payload_bytes + sizeof(Header) + sizeof(uint64_t)), data.size());
    uint64_t sum = 0;
    std::memcpy(&sum, data.data() + data.size() - sizeof(sum), sizeof(sum));
    LK_CHECK(sum == checksum(data.first(data.size() - sizeof(sum))), LK_BAD_STATE,
             "the saved state is damaged: its checksum does not match");
    const StateKey key = make_state_key(parts, model);
    const auto type = [](int32_t t) {
        const char* text = lk_cache_type_name(static_cast<lk_cache_type>(t));
        return text != nullptr ? text : "unknown";
    };
    LK_CHECK(header.key.type_k == key.type_k && header.key.type_v == key.type_v, LK_BAD_STATE,
             "the saved state has a cache of %s/%s; this context has %s/%s", type(header.key.type_k),
             type(header.key.type_v), type(key.type_k), type(key.type_v));
    LK_CHECK(header.key.group == key.group && header.key.residual == key.residual &&
                 header.key.sinks_k == key.sinks_k && header.key.sinks_v == key.sinks_v,
             LK_BAD_STATE, "the saved state has group %d, residual %d, sinks %d/%d; this context has %d, %d, %d/%d",
             header.key.group, header.key.residual, header.key.sinks_k, header.key.sinks_v, key.group, key.residual,
             key.sinks_k, key.sinks_v);
    LK_CHECK(header.key == key, LK_BAD_STATE, "the saved state belongs to another model");

    try {
        Reader in(data.subspan(sizeof(Header), header.payload_bytes));
        std::vector<Sequence> sequences = read_payload(parts, in);
        const auto swap = [&] {
            for (size_t i = 0; i < parts.size(); ++i) {
                parts[i]->swap(seq, sequences[i]);
            }
        };
        swap();
        try {
            // Its pages are its own: the rest is what other sequences hold.
            const int64_t length = parts.front()->length(seq);
            parts.front()->check_room(parts.front()->used_tokens() - length, length);
        } catch (...) {
            swap();
            throw;
        }
    } catch (const std::bad_alloc&) {
        throw Error(LK_OUT_OF_MEMORY,
                    format("out of memory: the saved state needs %llu bytes",
                           static_cast<unsigned long long>(header.payload_bytes)),
                    header.payload_bytes);
    }
}

}  // namespace lk::kv
