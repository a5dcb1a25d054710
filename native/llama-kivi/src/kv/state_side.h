// Serialized form of one side (keys or values) of a sequence, over all parts of the cache:
//
//   counts   int32: tokens in pages, sinks, tokens in the ring, whether tables are chosen (0 or 1), runs, blocks
//   runs     int32 each: block, first token in the block, tokens, frame; blocks are numbered in the order of the runs
//   blocks   block_bytes of every part's SideSpec, part after part; zeros after the last run
//   heads    for every layer and KV head: ring rows by age, sink rows (SideLayout::sink_rows), and the
//            head table if tables are chosen
//            (SideSpec::table_bytes)
//
// The bytes are untrusted. read_side checks every field against type and geometry, so attention and later appends may
// rely on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "kv/config.h"
#include "kv/storage.h"

namespace lk::kv {

// Writes bytes to out, or only counts them if out is null.
class StateWriter {
public:
    explicit StateWriter(uint8_t* out) : out_(out) {}

    void bytes(const void* data, size_t n);
    void number(int32_t x) { bytes(&x, sizeof(x)); }
    // Returns the written bytes; an empty span when counting.
    template <class T>
    std::span<uint8_t> bytes_of(const Buffer<T>& buffer) {
        const std::span<uint8_t> written =
            out_ != nullptr ? std::span(out_ + size_, buffer.bytes()) : std::span<uint8_t>();
        if (!written.empty()) {
            buffer.memory().read(written.data(), buffer.data(), buffer.bytes());
        }
        size_ += buffer.bytes();
        return written;
    }
    // Copies a buffer to the host; zeros when counting.
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
        std::span<const uint8_t> ring;   // [n_ring, ring_row_bytes]
        std::span<const uint8_t> sinks;  // [sink rows, D] halves
        std::span<const uint8_t> table;  // SideSpec::table_bytes, if tables are chosen
    };

    int n_paged = 0;
    int n_sinks = 0;
    int n_ring = 0;
    bool tables_chosen = false;
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
