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
#include <span>
#include <vector>

#include "base/staging_buffer.h"
#include "kv/bookkeeping.h"
#include "kv/config.h"
#include "kv/pool.h"
#include "kv/state/state_checksum.h"
#include "kv/storage.h"

namespace lk::kv {

// Writes bytes to out, or only counts them if out is empty.
class StateWriter {
public:
    explicit StateWriter(std::span<uint8_t> out) : out_(out) {}

    bool counts() const { return out_.empty(); }

    void bytes(const void* data, size_t n);
    void number(int32_t x) { bytes(&x, sizeof(x)); }
    // The last bytes written; an empty span when counting.
    std::span<uint8_t> last(size_t n) { return counts() ? out_ : out_.subspan(size_ - n, n); }
    // Adds what was written to the checksum, while it is in the processor's caches.
    void add_to_checksum() {
        if (!counts()) {
            n_summed_ += sum_.add(out_.subspan(n_summed_, size_ - n_summed_));
        }
    }
    // Of all bytes written.
    uint64_t checksum() {
        add_to_checksum();
        return sum_.value(out_.subspan(n_summed_, size_ - n_summed_));
    }
    uint64_t size() const { return size_; }

private:
    std::span<uint8_t> out_;
    uint64_t size_ = 0;
    uint64_t n_summed_ = 0;
    StateChecksum sum_;
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
    // The bytes of a slot where the host can read them: in place, or in `copies`. Not to be read when counting.
    static const uint8_t* fetch(const Slot& slot, StagingBuffer& copies, const StateWriter& out);
    static void write_heads(const SequenceSide& side, StateWriter& out);
    static void build_heads(std::span<const SideContent::Head> heads, SequenceSide& side);
};

}  // namespace lk::kv
