#include "kv/state/state.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kv/budget.h"
#include "kv/cache.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "kv/state/state_checksum.h"
#include "kv/state/state_key.h"
#include "kv/state/state_side.h"
#include "kv/storage.h"
#include "llama_kivi.h"

namespace lk::kv {

namespace {

constexpr char kMagic[4] = {'L', 'K', 'S', 'T'};
constexpr Side kSides[] = {Side::keys, Side::values};

const SequenceSide& side_of(const Sequence& sequence, Side side) {
    return side == Side::keys ? sequence.k : sequence.v;
}

void write_payload(CacheParts parts, int seq, StateWriter& out) {
    for (const Side side : kSides) {
        std::vector<const SequenceSide*> sides;
        for (const Cache* part : parts) {
            sides.push_back(&side_of(part->sequence(seq), side));
        }
        SideState::write(sides, out);
    }
}

// Validates the header against the data and the loading context; returns the payload.
std::span<const uint8_t> read_header(std::span<const uint8_t> data, const StateKey& here, const SettingNames& names) {
    StateHeader header{};
    constexpr size_t kVersionEnd = sizeof(header.magic) + sizeof(header.version);
    LK_CHECK(data.size() >= kVersionEnd, LK_BAD_STATE, "%zu bytes are too few for a saved state", data.size());
    std::memcpy(&header, data.data(), std::min(sizeof(header), data.size()));
    LK_CHECK(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, LK_BAD_STATE,
             "this is not a saved state: the data does not begin with LKST");
    LK_CHECK(header.version == kStateVersion, LK_BAD_STATE,
             "the saved state has format version %u, and this engine reads version %u: it was saved by another "
             "release; decode the text and save it again",
             header.version, kStateVersion);
    LK_CHECK(data.size() >= sizeof(header) + sizeof(uint64_t), LK_BAD_STATE, "%zu bytes are too few for a saved state",
             data.size());
    const size_t payload_bytes = data.size() - sizeof(header) - sizeof(uint64_t);
    LK_CHECK(header.payload_bytes == payload_bytes, LK_BAD_STATE,
             "the saved state has %zu bytes between header and checksum instead of %llu: it was cut or appended to",
             payload_bytes, static_cast<unsigned long long>(header.payload_bytes));
    uint64_t sum = 0;
    std::memcpy(&sum, data.data() + data.size() - sizeof(sum), sizeof(sum));
    LK_CHECK(sum == state_checksum(data.first(data.size() - sizeof(sum))), LK_BAD_STATE,
             "the saved state is damaged: its checksum does not match");
    check_state_key(header.key, here, names);
    return data.subspan(sizeof(header), payload_bytes);
}

void check_state_budget(CacheParts parts, int seq, std::span<const SideContent> contents) {
    uint64_t needed = 0;
    uint64_t freed = 0;
    for (Cache* part : parts) {
        for (const Side side : kSides) {
            const SideContent& content = contents[static_cast<int>(side)];
            const size_t blocks = content.blocks.size() / parts.size();
            needed +=
                (content.length() > 0 ? part->ring_slot_bytes(side) : 0) + blocks * part->spec(side).block_bytes();
            freed += part->sequence(seq).side(side).owned_bytes();
        }
    }
    check_budget(parts, needed, freed);
}

}  // namespace

uint64_t state_size(CacheParts parts, int seq) {
    StateWriter out({});
    write_payload(parts, seq, out);
    return sizeof(StateHeader) + out.size() + sizeof(uint64_t);
}

void save_state(CacheParts parts, int seq, const ModelKey& model, std::span<uint8_t> out) {
    const uint64_t size = state_size(parts, seq);
    LK_CHECK(out.size() == size, LK_INVALID_ARGUMENT, "the state of sequence %d takes %llu bytes; the buffer has %zu",
             seq, static_cast<unsigned long long>(size), out.size());
    StateHeader header{};
    std::memcpy(header.magic, kMagic, sizeof(kMagic));
    header.version = kStateVersion;
    header.key = make_state_key(parts, model);
    header.payload_bytes = size - sizeof(header) - sizeof(uint64_t);
    StateWriter writer(out);
    writer.bytes(&header, sizeof(header));
    write_payload(parts, seq, writer);
    const uint64_t sum = writer.checksum();
    writer.bytes(&sum, sizeof(sum));
}

void load_state(CacheParts parts, int seq, const ModelKey& model, std::span<const uint8_t> data,
                const SettingNames& names) {
    StateReader in(read_header(data, make_state_key(parts, model), names));
    try {
        SideContent contents[2];
        for (const Side side : kSides) {
            std::vector<const SideSpec*> specs;
            for (const Cache* part : parts) {
                specs.push_back(&part->spec(side));
            }
            contents[static_cast<int>(side)] = read_side(specs, in);
        }
        const SideContent& keys = contents[static_cast<int>(Side::keys)];
        const SideContent& values = contents[static_cast<int>(Side::values)];
        LK_CHECK(in.left() == 0, LK_BAD_STATE, "the saved state has %zu bytes after its values", in.left());
        LK_CHECK(keys.length() == values.length(), LK_BAD_STATE, "the saved state has %d keys and %d values",
                 keys.length(), values.length());
        parts.front()->check_room(parts.front()->used_tokens(seq), keys.length());
        check_state_budget(parts, seq, contents);

        std::vector<SequenceSide> sides[2];
        for (const Side side : kSides) {
            for (Cache* part : parts) {
                sides[static_cast<int>(side)].push_back(part->empty_side(side));
            }
            SideState::build(contents[static_cast<int>(side)], sides[static_cast<int>(side)]);
        }
        for (size_t i = 0; i < parts.size(); ++i) {
            Sequence sequence{std::move(sides[0][i]), std::move(sides[1][i])};
            parts[i]->swap(seq, sequence);
        }
    } catch (const std::bad_alloc&) {
        throw Error(LK_OUT_OF_MEMORY, format("out of memory: the saved state takes %zu bytes", data.size()),
                    data.size());
    }
}

}  // namespace lk::kv
