// Work distribution of multiply_stream: positions of weights and activations in shared memory, and the rows of a warp.
// C++17 for hosts and devices; the tests run it without a GPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/device/both.h"
#include "backend/cuda/device/weight_type.h"
#include "backend/cuda/plan/matmul_plan.h"

namespace lk::cuda {

// Elements per lane and step; 0: multiply_stream does not take this type.
constexpr int stream_piece(WeightType type) {
    switch (type) {
    case WeightType::F16:
    case WeightType::BF16:
        return 8;
    case WeightType::Q8_0:
    case WeightType::Q4_0:
        return kBlock;
    case WeightType::Q4_K:
    case WeightType::Q5_K:
    case WeightType::Q6_K:
        return 64;
    default:
        return 0;
    }
}

// A step: what a warp multiplies at once, a piece per lane and row. Sizes per row, and the ring of steps in shared
// memory.
struct StreamStep {
    static constexpr int kRows = 2;  // of a warp; they share the activations that a lane reads
    static constexpr int kWarps = 16;
    // Of a thread block. More than half of a multiprocessor's shared memory, so that each one runs one block at a time:
    // two blocks on some multiprocessors and none on others would take twice as long. The rings together hold what
    // memory delivers from the end of a GEMV to the start of the next one, about 4 us.
    static constexpr int kRingBytes = 161 << 10;

    int elements;
    int bytes;   // a multiple of 16
    int align;   // rows start at multiples of this, and are copied from the preceding multiple of 16
    int copies;  // of 16 bytes
    int pitch;   // bytes between rows in shared memory
    int stages;

    static constexpr StreamStep of(WeightType type) {
        StreamStep s{};
        s.elements = 32 * stream_piece(type);
        s.bytes = s.elements / block_elements(type) * block_bytes(type);
        s.align = is_float(type) ? 16 : std::min(16, block_bytes(type) & -block_bytes(type));
        s.copies = (s.bytes + 16 - s.align + 15) / 16;
        s.pitch = 16 * s.copies + (s.align < 16 ? 16 : 0);
        s.stages = std::max(2, kRingBytes / (kWarps * s.stage_bytes()));
        return s;
    }
    constexpr int stage_bytes() const { return kRows * pitch; }
    // A row that need not be aligned is followed by the number of bytes before it in its first copy.
    constexpr int start_offset() const { return 16 * copies; }
    constexpr int warp_bytes() const { return stages * stage_bytes(); }
    constexpr int ring_bytes() const { return kWarps * warp_bytes(); }
    constexpr int steps(int n_cols) const { return (n_cols + elements - 1) / elements; }
};

// Activations in shared memory: floats for float weights; otherwise 8-bit codes, and per block of 32 the scale and the
// sum of the dequantized values (Q6_K: a StreamChunk per 16). Codes lie so that 16 codes of each of a warp's lanes
// follow each other.
struct StreamActivations {
    // Byte offset of element i. Four elements from a multiple of four lie together, and 16 codes.
    static constexpr int offset(WeightType type, int i) {
        const int piece = stream_piece(type);
        const int step = i / (32 * piece);
        const int at = i % (32 * piece);
        if (is_float(type)) {
            return 4 * (step * 256 + at % 8 / 4 * 128 + at / 8 * 4 + i % 4);
        }
        int lane = at / piece;
        int chunk = at % piece / 16;
        if (type == WeightType::Q6_K) {  // a lane has 16 elements of each quarter of half a super block
            lane = at / 128 * 2 + at % 32 / 16;
            chunk = at % 128 / 32;
        }
        return step * 32 * piece + chunk * 512 + lane * 16 + i % 16;
    }
    static constexpr int blocks_offset(WeightType type, int n_cols) {
        const StreamStep step = StreamStep::of(type);
        return step.steps(n_cols) * step.elements;
    }
    // Bytes of a lane's blocks; Q6_K: of one of its chunks.
    static constexpr int lane_block_bytes(WeightType type) {
        return type == WeightType::Q6_K ? 8 : stream_piece(type) / kBlock * 8;
    }
    // Bytes of a step's values, and of its blocks.
    static constexpr int step_bytes(WeightType type) { return 32 * stream_piece(type) * (is_float(type) ? 4 : 1); }
    static constexpr int step_block_bytes(WeightType type) {
        return is_float(type) ? 0 : 32 * stream_piece(type) / (type == WeightType::Q6_K ? 2 : 4);
    }
    static constexpr int bytes(WeightType type, int n_cols) {
        return StreamStep::of(type).steps(n_cols) * (step_bytes(type) + step_block_bytes(type));
    }
};

// Partial sums of rows that warps share, in static shared memory.
constexpr int kPartialBytes = StreamStep::kWarps * StreamStep::kRows * 4;
// Dynamic shared memory of a thread block.
constexpr int stream_bytes(WeightType type, int n_cols) {
    return StreamStep::of(type).ring_bytes() + StreamActivations::bytes(type, n_cols);
}

// GPUs with less have no early start of kernels (before sm_90), without which rings have no time to fill, or too little
// room for them.
constexpr int kLeastSharedBytes = 200 << 10;
// Whether matmuls with one token of weights of this type and width are multiply_stream's.
constexpr bool streams(WeightType type, int64_t n_cols, int shared_bytes) {
    return stream_piece(type) > 0 && shared_bytes >= kLeastSharedBytes && n_cols <= shared_bytes &&
           n_cols % std::max(8, block_elements(type)) == 0 &&
           stream_bytes(type, static_cast<int>(n_cols)) + kPartialBytes <= shared_bytes;
}

// Whether one launch of multiply_stream takes weights of both types. Files of K formats have some matrices in Q6_K.
constexpr bool streams_together(WeightType first, WeightType second) {
    return (first == WeightType::Q4_K || first == WeightType::Q5_K) && second == WeightType::Q6_K;
}
// Thread blocks of the first of two types: its share of the bytes.
constexpr int first_stream_blocks(size_t first_bytes, size_t second_bytes, int n_blocks) {
    const size_t all = first_bytes + second_bytes;
    const int share = static_cast<int>((first_bytes * static_cast<size_t>(n_blocks) + all / 2) / all);
    return std::clamp(share, 1, n_blocks - 1);
}

// Pairs of rows of all matrices, distributed over the thread blocks: consecutive pairs go to different multiprocessors,
// so that these finish together. The warps of a block share the steps of its pairs evenly; a pair that several warps
// share is summed in the order of the warps.
struct StreamPlan {
    int n_rows;  // of all matrices
    int n_blocks;
    int n_steps;       // of a row
    unsigned inverse;  // 2^32 / n_steps, rounded up
    int pairs_each;    // of a block
    int n_extra;       // blocks with one pair more

    // Sets products.first_block to the first row of each matrix, and to n_rows beyond them.
    static StreamPlan of(WeightType type, FewProducts& products, int n_cols, int n_processors) {
        StreamPlan plan{};
        plan.n_rows = count_blocks(products, 1);
        std::fill(products.first_block + products.count, products.first_block + FewProducts::kMost, plan.n_rows);
        const int n_pairs = (plan.n_rows + StreamStep::kRows - 1) / StreamStep::kRows;
        plan.n_blocks = std::min(n_pairs, n_processors);
        plan.n_steps = StreamStep::of(type).steps(n_cols);
        plan.inverse = plan.n_steps == 1 ? 0 : static_cast<unsigned>((uint64_t{1} << 32) / plan.n_steps + 1);
        plan.pairs_each = n_pairs / plan.n_blocks;
        plan.n_extra = n_pairs % plan.n_blocks;
        return plan;
    }
    // First step of a warp, counted over the block's pairs. Warp kWarps: the end.
    LK_BOTH int first_step(int block, int warp) const {
        return (pairs_each + (block < n_extra ? 1 : 0)) * n_steps * warp / StreamStep::kWarps;
    }
    // Pair of the block that a step belongs to. A warp's first copies wait for this, and a division takes longer.
    LK_BOTH int pair_of(int step) const {
        return n_steps == 1 ? step : static_cast<int>(uint64_t{inverse} * static_cast<unsigned>(step) >> 32);
    }
    // Number of a warp's steps.
    LK_BOTH int steps(int block, int warp) const { return first_step(block, warp + 1) - first_step(block, warp); }
    // Calls add(other) for the warps that continue a warp's last pair.
    template <class Add>
    LK_BOTH void for_each_follower(int block, int warp, Add&& add) const {
        const int end = first_step(block, warp + 1);
        const int pair_end = pair_of(end + n_steps - 1) * n_steps;
        for (int other = warp + 1; first_step(block, other) < pair_end; ++other) {
            if (steps(block, other) > 0) {
                add(other);
            }
        }
    }
};

// A lane's position in the steps of its warp. It may go beyond them. Half a warp copies and stores a row: lanes 0 to 15
// the first one of the pair, the others the second.
template <WeightType kType>
class StreamCursor {
public:
    static constexpr StreamStep kStep = StreamStep::of(kType);
    static_assert(StreamStep::kRows == 2);

    LK_BOTH StreamCursor(const FewProducts& products, const StreamPlan& plan, int block, int warp, int lane)
        : products_(products), plan_(plan), lane_(lane) {
        const int first = plan.first_step(block, warp);
        const int pair = plan.pair_of(first);
        row_ = (block + pair * plan.n_blocks) * StreamStep::kRows + lane / 16;
        step_ = first - pair * plan.n_steps;
    }

    LK_BOTH int step() const { return step_; }
    LK_BOTH void next_step() { ++step_; }
    LK_BOTH bool passed_pair() const { return step_ == plan_.n_steps; }
    LK_BOTH void next_pair() {
        step_ = 0;
        row_ += plan_.n_blocks * StreamStep::kRows;
    }

    // Calls store(matrix, row of the matrix), if there is this row.
    template <class Store>
    LK_BOTH void store(Store&& store) const {
        if (row_ < plan_.n_rows) {
            find(row_, store);
        }
    }

protected:
    // Calls use(matrix, row of the matrix).
    template <class Use>
    LK_BOTH void find(int row, Use&& use) const {
        int which = 0;
        LK_UNROLL
        for (int i = 1; i < FewProducts::kMost; ++i) {
            which += row >= products_.first_block[i] ? 1 : 0;
        }
        use(which, row - products_.first_block[which]);
    }

    const FewProducts& products_;
    const StreamPlan& plan_;
    int lane_;
    int row_;  // of all matrices; may be the one after the last
    int step_;
};

// The lane's copies to the ring.
template <WeightType kType>
class StreamCopies : StreamCursor<kType> {
public:
    using StreamCursor<kType>::kStep;

    LK_BOTH StreamCopies(const StreamCursor<kType>& at, unsigned row_bytes)
        : StreamCursor<kType>(at), row_bytes_(row_bytes) {
        find_row();
    }

    // Calls copy(wanted, to, from) for the lane's 16-byte copies of the step, if `more`. to: bytes from stage_offset()
    // on.
    template <class Copy>
    LK_BOTH void for_each(bool more, Copy&& copy) const {
        const int end = kStep.copies * 16 - this->lane_ % 16 * 16;
        const int left = !more ? 0 : left_ < end ? left_ : end;
        LK_UNROLL
        for (int i = 0; i < 16 * kStep.copies; i += 256) {
            copy(i < left, i, from_ + i);
        }
    }
    // The lane's first copy in a stage of the ring.
    LK_BOTH int stage_offset() const { return this->lane_ / 16 * kStep.pitch + this->lane_ % 16 * 16; }
    // Bytes before the row in its first copy.
    LK_BOTH int start() const { return start_; }
    LK_BOTH void next_step() {
        from_ += kStep.bytes;
        left_ -= kStep.bytes;
        StreamCursor<kType>::next_step();
        if (this->passed_pair()) {
            this->next_pair();
            find_row();
        }
    }

private:
    LK_BOTH void find_row() {
        const int last = this->plan_.n_rows - 1;
        this->find(this->row_ < last ? this->row_ : last, [this](int which, int row) {
            const uint8_t* const begin = this->products_.w[which] + uint64_t{row_bytes_} * static_cast<unsigned>(row);
            start_ = kStep.align < 16 ? static_cast<int>(reinterpret_cast<uintptr_t>(begin) % 16) : 0;
            const int at = this->step_ * kStep.bytes + this->lane_ % 16 * 16;
            from_ = begin - start_ + at;
            left_ = static_cast<int>(row_bytes_) + start_ - at;
        });
    }

    unsigned row_bytes_;
    int start_;
    const uint8_t* from_;  // the lane's first copy of the step
    int left_;             // bytes of the row from there on
};

}  // namespace lk::cuda
