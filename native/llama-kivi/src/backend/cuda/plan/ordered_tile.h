// Tiles of multiply_ordered: which rows and tokens a lane sums, and where their halves are in shared memory. Host and
// device code without CUDA; C++17, because kernels include it.
#pragma once

namespace lk::cuda {

// Rows of weights by tokens of a thread block. A warp has kM tiles of 16 rows and kN tiles of 8 tokens. A stage holds
// a step of kStepChunks chunks of 32 elements of the rows, then of the tokens.
template <int kRowWarps_, int kColumnWarps, int kM_, int kN_, int kStepChunks_, int kStages_>
struct OrderedTile {
    static constexpr int kM = kM_;
    static constexpr int kN = kN_;
    static constexpr int kStepChunks = kStepChunks_;
    static constexpr int kStages = kStages_;
    static constexpr int kWarps = kRowWarps_ * kColumnWarps;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kRows = 16 * kM * kRowWarps_;
    static constexpr int kColumns = 8 * kN * kColumnWarps;
    static constexpr int kPieces = 4 * kStepChunks;  // 16-byte pieces of a row per step
    static constexpr int kRowBytes = 16 * kPieces;
    static constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
    static constexpr int kSums = 4 * kM * kN;  // of a lane
    // Registers hold a segment's sums. Shared memory holds the sums of the segments before it, if registers do not.
    static constexpr bool kTotalsInShared = kSums > 64;
    static constexpr int kTotalBytes = kTotalsInShared ? 4 * kSums * kThreads : 0;
    static constexpr int kSharedBytes = kStages * kStageBytes + kTotalBytes;
    static_assert(kN % 2 == 0 && (kStepChunks == 1 || kStepChunks == 2));

    // Place of a piece in a stage. Row kRows is the first token. Eight rows have the same piece in different banks.
    static constexpr int offset(int row, int piece) {
        return row * kRowBytes + 16 * (piece ^ (row * kPieces / 8 % kPieces));
    }

    // A thread copies piece copied_piece of every kTogether-th row from copied_row on.
    static constexpr int kTogether = kThreads / kPieces;
    static_assert(kTogether % 8 == 0, "the rows of a thread have the same order of pieces");
    static constexpr int copied_row(int thread) { return thread / kPieces; }
    static constexpr int copied_piece(int thread) { return thread % kPieces; }

    static constexpr int first_row(int warp) { return warp / kColumnWarps * 16 * kM; }
    static constexpr int first_column(int warp) { return warp % kColumnWarps * 8 * kN; }

    // Address of a lane for load_matrices: 16 rows by the first 16 elements of a step, in the order of `multiply`. Next
    // 16 rows: 16 kRowBytes more. Next 16 elements: exclusive or with 32 k.
    static constexpr int lane_rows(int thread) {
        const int lane = thread % 32;
        return offset(first_row(thread / 32) + lane % 16, lane / 16);
    }
    // The same for two tiles of 8 tokens.
    static constexpr int lane_columns(int thread) {
        const int lane = thread % 32;
        return offset(kRows + first_column(thread / 32) + lane / 16 * 8 + lane % 8, lane / 8 % 2);
    }

    // Row and token, in the tile, of sum i of tiles m and t of a lane.
    static constexpr int row_of(int thread, int m, int i) {
        return first_row(thread / 32) + 16 * m + i / 2 * 8 + thread % 32 / 4;
    }
    static constexpr int column_of(int thread, int t, int i) {
        return first_column(thread / 32) + 8 * t + 2 * (thread % 4) + i % 2;
    }
};

// By number of tokens. The tiles of up to 64 tokens leave room for two thread blocks per multiprocessor.
using OrderedTile32 = OrderedTile<4, 1, 2, 4, 2, 4>;
using OrderedTile64 = OrderedTile<2, 2, 4, 4, 2, 4>;
using OrderedTile128 = OrderedTile<2, 4, 4, 4, 2, 3>;
using OrderedTile256 = OrderedTile<2, 4, 4, 8, 1, 4>;

}  // namespace lk::cuda
