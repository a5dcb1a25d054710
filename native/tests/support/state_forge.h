// Parses a saved state into its fields, so that tests can change one and recompute the checksum.
#pragma once

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "kv/state/state.h"
#include "kv/state/state_checksum.h"

namespace lk::test {

class ForgedState {
public:
    enum class Kind { integer, half, bytes };
    struct Field {
        std::string name;  // "values.ring"; integers are fields of their own: "keys.run 2.first"
        Kind kind;
        size_t offset;
        size_t size;
    };

    ForgedState(std::vector<uint8_t> bytes, const kv::CacheConfig& config) : bytes_(std::move(bytes)) {
        at_ = sizeof(kv::StateHeader);
        for (const kv::Side side : {kv::Side::keys, kv::Side::values}) {
            read_side(kv::make_side_spec(config, side), side == kv::Side::keys ? "keys." : "values.");
        }
    }

    const std::vector<Field>& fields() const { return fields_; }
    const Field& field(const std::string& name) const {
        for (const Field& f : fields_) {
            if (f.name == name) {
                return f;
            }
        }
        throw std::runtime_error("no field " + name);
    }
    // End of the fields, before the checksum.
    size_t end() const { return at_; }
    size_t size() const { return bytes_.size(); }
    kv::StateHeader header() const {
        kv::StateHeader header;
        std::memcpy(&header, bytes_.data(), sizeof(header));
        return header;
    }

    int32_t number(const std::string& name) const {
        int32_t x = 0;
        std::memcpy(&x, bytes_.data() + field(name).offset, sizeof(x));
        return x;
    }
    // Each function returns the state with one change and a valid checksum.
    std::vector<uint8_t> with_number(const std::string& name, int32_t x) const {
        return with(field(name).offset, &x, sizeof(x));
    }
    std::vector<uint8_t> with_half(const std::string& name, size_t index, uint16_t x) const {
        return with(field(name).offset + index * sizeof(x), &x, sizeof(x));
    }
    std::vector<uint8_t> with(size_t offset, const void* data, size_t n) const {
        std::vector<uint8_t> forged = bytes_;
        std::memcpy(forged.data() + offset, data, n);
        return sealed(std::move(forged));
    }
    std::vector<uint8_t> with_header(const kv::StateHeader& header) const { return with(0, &header, sizeof(header)); }
    // Replaces `remove` bytes at offset with `insert`.
    std::vector<uint8_t> spliced(size_t offset, size_t remove, const std::vector<uint8_t>& insert) const {
        std::vector<uint8_t> forged(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
        forged.insert(forged.end(), insert.begin(), insert.end());
        forged.insert(forged.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset + remove), bytes_.end());
        const uint64_t payload = forged.size() - sizeof(kv::StateHeader) - sizeof(uint64_t);
        std::memcpy(forged.data() + offsetof(kv::StateHeader, payload_bytes), &payload, sizeof(payload));
        return sealed(std::move(forged));
    }
    static std::vector<uint8_t> sealed(std::vector<uint8_t> bytes) {
        const uint64_t sum = kv::state_checksum(std::span(bytes).first(bytes.size() - sizeof(uint64_t)));
        std::memcpy(bytes.data() + bytes.size() - sizeof(sum), &sum, sizeof(sum));
        return bytes;
    }

private:
    void add(const std::string& name, Kind kind, size_t size) {
        if (size > 0) {
            fields_.push_back({name, kind, at_, size});
            at_ += size;
        }
    }
    int32_t integer(const std::string& name) {
        add(name, Kind::integer, sizeof(int32_t));
        return number(name);
    }
    void read_side(const kv::SideSpec& spec, const std::string& side) {
        const kv::PageFormat& f = spec.format;
        const int n_paged = integer(side + "n_paged");
        const int n_sinks = integer(side + "n_sinks");
        const int n_ring = integer(side + "n_ring");
        const int n_undo = integer(side + "n_undo");
        const bool chosen = integer(side + "chosen") != 0;
        integer(side + "base.length");
        integer(side + "base.n_paged");
        integer(side + "base.chosen");
        const int n_runs = integer(side + "n_runs");
        const int n_blocks = integer(side + "n_blocks");
        if (n_runs < 0 || n_runs > n_paged) {
            throw std::runtime_error(
                format("%d runs of %d tokens: the fields before them do not fit", n_runs, n_paged));
        }
        // Sinks of a q8_0 ring's rows are saved too.
        const int limit = n_sinks == n_paged ? spec.sinks : n_sinks;
        const int n_sink_rows = n_sinks + (spec.ring_in_blocks() ? std::clamp(limit - n_paged, 0, n_ring) : 0);
        for (int i = 0; i < n_runs; ++i) {
            for (const char* part : {"block", "first", "count", "frame"}) {
                integer(side + "run " + std::to_string(i) + "." + part);
            }
        }
        for (int i = 0; i < n_blocks; ++i) {
            for (size_t head = 0; head < spec.head_count(); ++head) {
                const std::string page = format("%sblock %d.head %zu.", side.c_str(), i, head);
                add(page + "codes", f.quantized() && !f.blocks() ? Kind::bytes : Kind::half, f.scales_offset);
                add(page + "scales", f.scale_kind == kv::ScaleKind::half_pair ? Kind::half : Kind::bytes,
                    f.page_bytes - f.scales_offset);
            }
        }
        for (size_t head = 0; head < spec.head_count(); ++head) {
            const std::string name = side + "head " + std::to_string(head) + ".";
            add(name + "ring", spec.ring_in_blocks() ? Kind::bytes : Kind::half,
                (n_undo + n_ring) * spec.ring_row_bytes());
            add(name + "sinks", Kind::half, n_sink_rows * f.head_size * sizeof(half_t));
            if (chosen) {
                integer(name + "exponent");
                add(name + "table", Kind::half, spec.table_bytes() - sizeof(int32_t));
            }
        }
    }

    std::vector<uint8_t> bytes_;
    std::vector<Field> fields_;
    size_t at_ = 0;
};

}  // namespace lk::test
