// The paged KV cache: sequences of pages, a full-precision ring of the youngest tokens, sinks, and the ageing rules.
//
// One call goes: reserve (pages for what will leave the rings), stage rows layer by layer while attention reads the
// sequence and the staged rows, prepare_commit (working memory), commit (rows enter the ring, the oldest leave it
// quantized). Commit cannot fail, and nothing before it changes a sequence, so a failed call leaves the cache as it
// was.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/half.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "kv/kivi_format.h"
#include "kv/quantizer.h"
#include "kv/rotation.h"

namespace lk::kv {

// Sizes and types of a cache, checked.
struct CacheConfig {
    int n_layer = 0;
    int first_layer = 0;  // of the model, that this cache holds as layer 0
    int n_head_kv = 0;
    int head_size = 0;  // D
    int n_ctx = 0;
    int n_seq_max = 0;
    int n_seq_ready = 0;  // that have their rings from the start; 0: all
    int n_ubatch = 0;
    lk_cache_params params{};

    int ready_sequences() const { return n_seq_ready > 0 ? n_seq_ready : n_seq_max; }

    void validate() const;  // throws LK_INVALID_ARGUMENT or LK_UNSUPPORTED naming what does not fit, and what would
};

// When rows leave the ring of one side: at `trigger` rows the oldest `leave` leave together.
struct AgeingRule {
    int trigger;
    int leave;
};

// What one side (keys or values) of every sequence has in common.
struct SideSpec {
    PageFormat format;
    AgeingRule ageing;
    int sinks;  // S
    int align;  // tokens a page may be continued at a multiple of: G for quantized keys, else 1
    int n_layer;
    int n_head_kv;

    size_t head_count() const { return static_cast<size_t>(n_layer) * n_head_kv; }
    size_t block_bytes() const { return head_count() * format.page_bytes; }
    size_t ring_elements() const { return head_count() * ageing.trigger * format.head_size; }
    size_t sink_elements() const { return head_count() * sinks * format.head_size; }
    // Bytes of a head's table in a device's memory: int32 exponent, then half mu[D] (values of kivi2) or uint16
    // refined[D/4] (its keys).
    size_t table_bytes() const {
        return sizeof(int32_t) + (format.scale_kind == ScaleKind::byte_token ? format.head_size * sizeof(half_t)
                                                                             : (format.rows - format.head_size) * 2);
    }
};

SideSpec make_side_spec(const CacheConfig& config, Side side);

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

// A run of tokens of one block; they follow those of the run before.
struct PageRef {
    std::shared_ptr<PageBlock> block;
    int count = 0;  // tokens of the run
    int first = 0;  // its first token in the block
    int frame = 0;  // the position its keys were rotated for, less the position they have now

    int end() const { return first + count; }
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

// Where the rows of an append go in a device's memory, whose kernels do what SequenceSide::append does on the host.
struct AppendPlan {
    half_t* ring;                  // [layer, head, trigger, D]
    half_t* sinks;                 // [layer, head, S, D]
    uint8_t* tables;               // [layer, head, table_bytes]
    int ring_start;                // before the append
    int n_ring;                    // before the append
    int first_token;               // of the sequence, that leaves the ring next
    int sink_limit;                // tokens below it become sinks
    bool choose_tables;            // at the first flush
    int page_token;                // of the first page, where the next token goes
    std::vector<uint8_t*> blocks;  // pages to write, as far as the rows go
};

// Working memory of a thread while rows leave a ring.
struct FlushScratch {
    std::vector<float> rows;    // [tokens, D]
    std::vector<float> column;  // [tokens]
};

// One side of one sequence.
class SequenceSide {
public:
    SequenceSide(const SideSpec& spec, Memory& memory, std::atomic<int64_t>* live_bytes);
    SequenceSide(const SequenceSide& other);  // shares full pages, copies the rest
    SequenceSide& operator=(SequenceSide&&) = default;
    SequenceSide(SequenceSide&&) = default;

    int length() const { return n_paged_ + n_ring_; }
    int n_paged() const { return n_paged_; }
    int n_sinks() const { return n_sinks_; }
    int n_ring() const { return n_ring_; }
    std::span<const PageRef> pages() const { return pages_; }
    size_t fixed_bytes() const;  // ring, sinks and per-head tables

    const half_t* ring() const { return ring_.data(); }           // [layer, head, trigger, D], oldest at ring_start
    const half_t* sinks() const { return sinks_.data(); }         // [layer, head, S, D]
    const uint8_t* tables() const { return raw_tables_.data(); }  // [layer, head, table_bytes], not on the host
    int ring_start() const { return ring_start_; }

    SideView view(int layer, int head) const;
    void truncate(int n_keep);
    // Removes tokens [begin, end); those after move down. Codes stay as they are, rows in full precision are turned.
    void remove(int begin, int end, const Rotation& rotation);

    // Allocates ring, sinks and tables. Done once.
    void make_ready();
    // Allocates the blocks that n_rows more rows need and, on the host, the lists of tables that they fix; makes ready.
    void reserve(int n_rows);
    // Gives scratch the room that append needs for n_rows rows.
    void reserve_scratch(int n_rows, FlushScratch& scratch) const;
    // Gives the reserved blocks back.
    void release_reserved() { reserved_.clear(); }
    // Moves rows [n_rows, D] of one layer and head through the ring into the pages. Every (layer, head) must be given
    // the same n_rows, then finish_append called once. After reserve(n_rows) and reserve_scratch.
    void append(int layer, int head, const half_t* rows, int n_rows, FlushScratch& scratch) noexcept;
    void finish_append(int n_rows) noexcept;
    AppendPlan plan_append(int n_rows);  // after reserve(n_rows); finish_append ends it as well

    const HeadTable& table(int layer, int head) const { return tables_[index(layer, head)]; }

private:
    size_t index(int layer, int head) const { return static_cast<size_t>(layer) * spec_->n_head_kv + head; }
    // Where the next n_leave rows go, given pages as they are and the reserved blocks after them.
    struct Cursor {
        size_t block;  // pages_, then reserved_
        int token;
    };
    Cursor first_cursor() const;
    Cursor advance(Cursor at, int n_tokens) const;
    PageBlock& block_at(size_t i) { return i < pages_.size() ? *pages_[i].block : *reserved_[i - pages_.size()]; }
    int flushes(int n_rows) const;  // how many times the ring sheds its oldest
    void leave_ring(size_t head, Cursor at, int ring_start, int first_token, bool first_flush, FlushScratch& scratch);
    // The first tokens up to which rows become sinks: only while every token before is one.
    int sink_limit() const { return n_sinks_ == n_paged_ ? spec_->sinks : n_sinks_; }
    void remove_paged(int begin, int end);
    void remove_exact(int begin, int end, const Rotation& rotation);

    friend class SideState;  // saves and builds

    const SideSpec* spec_;
    Memory* memory_;
    std::atomic<int64_t>* live_bytes_;
    std::vector<PageRef> pages_;
    std::vector<std::shared_ptr<PageBlock>> reserved_;
    // Empty until make_ready.
    Buffer<half_t> ring_;            // [layer, head, trigger, D]
    Buffer<half_t> sinks_;           // [layer, head, S, D]
    std::vector<HeadTable> tables_;  // [layer, head]; on the host
    Buffer<uint8_t> raw_tables_;     // [layer, head, table_bytes]; elsewhere
    int n_paged_ = 0;
    int n_sinks_ = 0;
    int ring_start_ = 0;
    int n_ring_ = 0;
    bool tables_chosen_ = false;
};

struct Sequence {
    SequenceSide k;
    SequenceSide v;

    int length() const { return k.length(); }
};

// Rows of one call that belong to one sequence: batch rows [row, row + n_rows) continue the sequence.
struct Segment {
    int seq;
    int row;
    int n_rows;
};

// Rounds n floats to half.
using ToHalf = void (*)(const float* x, int64_t n, half_t* out);

// Throws LK_NUMERIC_ERROR: a key or a value was NaN or infinite, or beyond what the cache holds. layer: of the model.
[[noreturn]] void fail_staged(Side side, int layer, bool finite);

class Cache {
public:
    explicit Cache(const CacheConfig& config, Memory& memory = host_memory());
    Cache(const Cache&) = delete;  // sequences point at the specs
    Cache& operator=(const Cache&) = delete;

    const CacheConfig& config() const { return config_; }
    const SideSpec& spec(Side side) const { return side == Side::keys ? k_spec_ : v_spec_; }
    int length(int seq) const { return sequences_[seq].length(); }
    const Sequence& sequence(int seq) const { return sequences_[seq]; }

    // Sequence operations. What can fail makes a new sequence, and swap, which cannot, puts it in.
    void truncate(int seq, int n_keep);
    Sequence removed(int seq, int begin, int end, const Rotation& rotation) const;
    Sequence snapshot(int seq) const { return sequences_[seq]; }
    SequenceSide empty_side(Side side) const { return {spec(side), *memory_, live_bytes_.get()}; }
    void swap(int seq, Sequence& sequence) noexcept { std::swap(sequences_[seq], sequence); }
    void remove(int seq, int begin, int end, const Rotation& rotation) {
        Sequence changed = removed(seq, begin, end, rotation);
        swap(seq, changed);
    }
    void copy(int src, int dst) {
        Sequence copied = snapshot(src);
        swap(dst, copied);
    }

    // One call.
    int64_t used_tokens(int except = -1) const;  // of all sequences but one; shared ones count once
    void check_room(int64_t n_tokens) const;     // LK_CACHE_FULL
    void check_room(int64_t used, int64_t n_tokens) const;
    void reserve(std::span<const Segment> segments);  // LK_OUT_OF_MEMORY
    void release_reserved(std::span<const Segment> segments);
    // rows [n_rows, n_head_kv, D] of one layer, all rows of the call; LK_NUMERIC_ERROR names layer and side.
    void stage(Side side, int layer, int n_rows, const float* rows, ToHalf to_half);
    SideView view(Side side, const Segment& segment, int layer, int head) const;
    // Allocates what commit works in; n_threads: of its pool.
    void prepare_commit(std::span<const Segment> segments, int n_threads);
    void commit(std::span<const Segment> segments, ThreadPool& pool) noexcept;
    // A device's part of a call: rows staged by its kernels, [layer, head, n_ubatch, D], and the two halves of commit.
    half_t* staged(Side side) { return staging(side).data(); }
    AppendPlan plan_append(Side side, const Segment& segment);
    void finish_append(std::span<const Segment> segments) noexcept;

    lk_cache_usage usage() const;
    int64_t live_page_bytes() const { return *live_bytes_; }

    // Bytes before anything is allocated, of as many sequences as are ready from the start.
    static uint64_t fixed_bytes(const CacheConfig& config);  // rings and sinks
    static uint64_t staging_bytes(const CacheConfig& config);
    static uint64_t page_bytes(const CacheConfig& config);  // n_ctx tokens

private:
    // Distinct tokens in the pages of one side of all sequences but one; shared pages count once.
    int64_t distinct_paged_tokens(Side side, int except = -1) const;
    Buffer<half_t>& staging(Side side) { return side == Side::keys ? staged_k_ : staged_v_; }

    CacheConfig config_;
    Memory* memory_;
    SideSpec k_spec_;
    SideSpec v_spec_;
    std::unique_ptr<std::atomic<int64_t>> live_bytes_;
    std::vector<Sequence> sequences_;
    Buffer<half_t> staged_k_;  // [layer, head, n_ubatch, D]
    Buffer<half_t> staged_v_;
    std::vector<FlushScratch> scratch_;  // [threads that commit]
    mutable uint64_t visits_ = 0;
};

// The parts of one cache that lie in several places, the first layers' first. All hold the same tokens.
using CacheParts = std::span<Cache* const>;

}  // namespace lk::kv
