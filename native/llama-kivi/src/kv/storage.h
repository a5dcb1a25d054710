// The memory of a cache's sequences: blocks of pages, rings, sinks and tables. Full blocks are shared by copies.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "kv/bookkeeping.h"
#include "kv/config.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

// The pages of 128 tokens over all layers and heads: page_bytes[layer, head]. Immutable once full; shared by copies.
struct PageBlock {
    PageBlock(Memory& memory, size_t bytes, std::atomic<int64_t>* live_bytes);
    PageBlock(Buffer<uint8_t> content, std::atomic<int64_t>* live_bytes);
    ~PageBlock();
    PageBlock(const PageBlock&) = delete;
    PageBlock& operator=(const PageBlock&) = delete;

    Buffer<uint8_t> data;
    std::atomic<int64_t>* live_bytes;          // of the cache
    mutable uint64_t visit = 0;                // accounting: last walk that saw it,
    mutable std::bitset<kPageTokens> visited;  // and the tokens it has counted
};

// What attention reads of one side, one layer, one KV head, in the host's memory. Tokens in order: pages, ring, staged.
struct SideView {
    const SideSpec* spec;
    const HeadTable* table;
    std::span<const PageRef> pages;
    size_t page_offset;    // of this layer and head in a block
    const half_t* sinks;   // [n_sinks, D]: the first tokens of the pages, whose codes are masked
    const half_t* ring;    // [trigger, D], oldest at ring_start
    const half_t* staged;  // [n_staged, D]
    int n_paged;
    int n_sinks;
    int ring_start;
    int n_ring;
    int n_staged;

    int length() const { return n_paged + n_ring; }  // tokens before the staged ones
    const uint8_t* page(size_t index) const { return pages[index].block->data.data() + page_offset; }
};

// Where the rows of an append go, for the backend that moves them: numbers before the append, and memory to write.
struct AppendPlan {
    half_t* ring;                      // [layer, head, trigger, D]
    half_t* sinks;                     // [layer, head, S, D]
    std::span<HeadTable> head_tables;  // [layer, head]; on the host
    uint8_t* tables;                   // [layer, head, table_bytes]; elsewhere
    int ring_start;
    int n_ring;
    int first_token;               // of the sequence, that leaves the ring next
    int sink_limit;                // tokens below it become sinks
    bool choose_tables;            // at the first flush
    int page_token;                // of the first page, where the next token goes
    std::vector<uint8_t*> blocks;  // pages to write, as far as the rows go
};

// One side of one sequence.
class SequenceSide {
public:
    SequenceSide(const SideSpec& spec, Memory& memory, std::atomic<int64_t>* live_bytes);
    SequenceSide(const SequenceSide& other);  // shares full pages, copies the rest
    SequenceSide& operator=(SequenceSide&&) = default;
    SequenceSide(SequenceSide&&) = default;

    int length() const { return layout_.length(); }
    int n_paged() const { return layout_.n_paged; }
    int n_sinks() const { return layout_.n_sinks; }
    int n_ring() const { return layout_.n_ring; }
    int ring_start() const { return layout_.ring_start; }
    std::span<const PageRef> pages() const { return layout_.pages; }
    size_t fixed_bytes() const;  // ring, sinks and per-head tables

    const half_t* ring() const { return ring_.data(); }           // [layer, head, trigger, D], oldest at ring_start
    const half_t* sinks() const { return sinks_.data(); }         // [layer, head, S, D]
    const uint8_t* tables() const { return raw_tables_.data(); }  // [layer, head, table_bytes], not on the host

    SideView view(int layer, int head) const;
    void truncate(int n_keep) { layout_.truncate(n_keep); }
    // Removes tokens [begin, end); those after move down. Codes stay as they are, rows in full precision are turned.
    void remove(int begin, int end, const Rotation& rotation);

    // Allocates ring, sinks and tables. Done once.
    void make_ready();
    // Allocates the blocks that n_rows more rows need and, on the host, the lists of tables that they fix; makes ready.
    void reserve(int n_rows);
    // Gives the reserved blocks back.
    void release_reserved() { reserved_.clear(); }
    // Where a backend puts n_rows more rows. After reserve(n_rows), until finish_append.
    AppendPlan plan_append(int n_rows);
    void finish_append(int n_rows) noexcept;

private:
    size_t index(int layer, int head) const { return static_cast<size_t>(layer) * spec_->n_head_kv + head; }
    PageBlock& block_at(size_t i) {
        const size_t n = layout_.pages.size();
        return i < n ? *layout_.pages[i].block : *reserved_[i - n];
    }
    void move_exact(int begin, int end, const Rotation& rotation);

    friend class SideState;  // saves and builds

    const SideSpec* spec_;
    Memory* memory_;
    std::atomic<int64_t>* live_bytes_;
    SideLayout layout_;
    std::vector<std::shared_ptr<PageBlock>> reserved_;
    // Empty until make_ready.
    Buffer<half_t> ring_;            // [layer, head, trigger, D]
    Buffer<half_t> sinks_;           // [layer, head, S, D]
    std::vector<HeadTable> tables_;  // [layer, head]; on the host
    Buffer<uint8_t> raw_tables_;     // [layer, head, table_bytes]; elsewhere
};

struct Sequence {
    SequenceSide k;
    SequenceSide v;

    const SequenceSide& side(Side side) const { return side == Side::keys ? k : v; }
    SequenceSide& side(Side side) { return side == Side::keys ? k : v; }
    int length() const { return k.length(); }
};

}  // namespace lk::kv
