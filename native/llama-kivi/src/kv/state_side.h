// Serialized form of one side (keys or values) of a sequence, over all parts of the cache:
//
//   counts   int32: tokens in pages, sinks, tokens in the ring, rows in the undo window, whether tables are chosen
//            (0 or 1); of the UndoBase: length, tokens in pages, whether tables are chosen; runs, blocks
//   runs     int32 each: block, first token in the block, tokens, frame; blocks are numbered in the order of the runs
//   blocks   block_bytes of every part's SideSpec, part after part; zeros after the last run
//   heads    for every layer and KV head: rows of the undo window and of the ring by age, sink rows
//            (SideLayout::sink_rows), and the head table (SideSpec::table_bytes) if tables are chosen
//
// The bytes are untrusted. read_side checks every field against type and geometry, so attention and later appends may
// rely on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/bookkeeping.h"
#include "kv/config.h"
#include "kv/pool.h"
#include "kv/storage.h"

namespace lk::kv {

// Writes bytes to out, or only counts them if out is null.
class StateWriter {
public:
    explicit StateWriter(uint8_t* out) : out_(out) {}

    void bytes(const void* data, size_t n);
    void number(int32_t x) { bytes(&x, sizeof(x)); }
    // Returns the written bytes; an empty span when counting.
    std::span<uint8_t> bytes_of(const Slot& slot) {
        const std::span<uint8_t> written =
            out_ != nullptr ? std::span(out_ + size_, slot.bytes()) : std::span<uint8_t>();
        if (!written.empty()) {
            slot.memory().read(written.data(), slot.data(), slot.bytes());
        }
        size_ += slot.bytes();
        return written;
    }
    // The bytes of a slot where the host can read them: in place, or in `copy`. Not to be read when counting.
    const uint8_t* fetch(const Slot& slot, std::unique_ptr<uint8_t[]>& copy) const {
        if (out_ == nullptr || slot.bytes() == 0 || slot.memory().on_host()) {
            return slot.data();
        }
        copy = std::make_unique_for_overwrite<uint8_t[]>(slot.bytes());
        slot.memory().read(copy.get(), slot.data(), slot.bytes());
        return copy.get();
    }
    uint64_t size() const { return size_; }

private:
    uint8_t* out_;
    uint64_t size_ = 0;
};

// Reads a payload front to back; throws LK_BAD_STATE at its end.
class StateReader {
public:
    explicit StateReader(std::span<const uint8_t> data) : data_(data) {}

    int number(const char* what, int min, int max);
    std::span<const uint8_t> view(size_t n, const char* what);
    size_t left() const { return data_.size(); }

private:
    std::span<const uint8_t> data_;
};

// A validated side; its spans point into the bytes it was read from.
struct SideContent {
    struct Run {
        int block;
        int first;
        int count;
        int frame;
    };
    struct Head {
        std::span<const uint8_t> ring;   // [n_undo + n_ring, ring_row_bytes]
        std::span<const uint8_t> sinks;  // [sink rows, D] halves
        std::span<const uint8_t> table;  // SideSpec::table_bytes, if tables are chosen
    };

    int n_paged = 0;
    int n_sinks = 0;
    int n_ring = 0;
    int n_undo = 0;
    bool tables_chosen = false;
    UndoBase base;
    std::vector<Run> runs;
    std::vector<std::span<const uint8_t>> blocks;  // [block, part]
    std::vector<Head> heads;                       // of all parts in order

    int length() const { return n_paged + n_ring; }
};

// Reads and validates a side. specs: that side's spec of every part. Allocates no cache memory. Throws LK_BAD_STATE.
SideContent read_side(std::span<const SideSpec* const> specs, StateReader& in);

// Serializes and rebuilds sides; a friend of SequenceSide.
class SideState {
public:
    static void write(std::span<const SequenceSide* const> parts, StateWriter& out);
    // sides: one empty side per part.
    static void build(const SideContent& content, std::span<SequenceSide> sides);

private:
    static void write_heads(const SequenceSide& side, StateWriter& out);
    static void build_heads(std::span<const SideContent::Head> heads, SequenceSide& side);
};

}  // namespace lk::kv
