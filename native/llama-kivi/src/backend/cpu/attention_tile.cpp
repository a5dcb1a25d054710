#include "backend/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/attention_runs.h"

namespace lk::cpu {

using kv::SideView;

namespace {

constexpr int kNoFrame = std::numeric_limits<int>::min();
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

}  // namespace

void RowSums::clear(int n_rows, int head_size) {
    std::fill_n(exact, n_rows * head_size, 0.0f);
    std::fill_n(coded, n_rows * head_size, 0.0f);
    std::fill_n(mass, n_rows, 0.0f);
    std::fill_n(max, n_rows, kMinusInfinity);
    std::fill_n(sum, n_rows, 0.0f);
}

void Tile::start(int head_size, int n_rows) {
    head_size_ = head_size;
    n_rows_ = n_rows;
    frame_ = kNoFrame;
    total.clear(n_rows, head_size);
}

// Turns scores into p, exp(score - maximum of the chunk), and hidden scores into 0.
void Tile::softmax(const Kernels& kernels, const AttentionArgs& args, int begin, int end, int first_position,
                   int group) {
    const int n = end - begin;
    for (int r = 0; r < n_rows_; ++r) {
        float* scores = scores_ + r * kChunkTokens;
        const int position = first_position + r / group;
        const int visible = std::min(n, position + 1 - begin);
        const int hidden = args.window > 0 ? std::max(0, position + 1 - args.window - begin) : 0;
        if (visible <= hidden) {
            std::fill_n(scores, n, 0.0f);
            continue;
        }
        chunk_.max[r] = kernels.max(scores + hidden, visible - hidden);
        chunk_.sum[r] = kernels.softmax_part(scores + hidden, visible - hidden, chunk_.max[r]);
        std::fill_n(scores, hidden, 0.0f);
        std::fill_n(scores + visible, n - visible, 0.0f);
    }
}

void Tile::attend(const Kernels& kernels, const AttentionArgs& args, const TileView& view, int begin, int end,
                  int first_position, int group) {
    chunk_.clear(n_rows_, head_size_);
    score(kernels, args, view.keys, view.paged_k, begin, end);
    softmax(kernels, args, begin, end, first_position, group);
    accumulate(kernels, view.values, view.paged_v, begin, end);
}

void Tile::save(int row, float* out) const {
    const int d = head_size_;
    std::copy_n(chunk_.exact + row * d, d, out);
    std::copy_n(chunk_.coded + row * d, d, out + d);
    out[2 * d] = chunk_.mass[row];
    out[2 * d + 1] = chunk_.max[row];
    out[2 * d + 2] = chunk_.sum[row];
}

// The running softmax: sums with two maxima are brought to the larger one.
void Tile::add(int row, const float* exact, const float* coded, float mass, float max, float sum) {
    if (sum == 0) {  // the row sees no token of this chunk
        return;
    }
    const float top = std::max(total.max[row], max);
    const float old_factor = std::exp(total.max[row] - top);
    const float new_factor = std::exp(max - top);
    const int d = head_size_;
    float* const total_exact = total.exact + row * d;
    float* const total_coded = total.coded + row * d;
    for (int c = 0; c < d; ++c) {
        total_exact[c] = total_exact[c] * old_factor + exact[c] * new_factor;
        total_coded[c] = total_coded[c] * old_factor + coded[c] * new_factor;
    }
    total.mass[row] = total.mass[row] * old_factor + mass * new_factor;
    total.sum[row] = total.sum[row] * old_factor + sum * new_factor;
    total.max[row] = top;
}

void Tile::add_chunk() {
    for (int r = 0; r < n_rows_; ++r) {
        add(r, chunk_.exact + r * head_size_, chunk_.coded + r * head_size_, chunk_.mass[r], chunk_.max[r],
            chunk_.sum[r]);
    }
}

void Tile::add_saved(int row, const float* saved) {
    const int d = head_size_;
    add(row, saved, saved + d, saved[2 * d], saved[2 * d + 1], saved[2 * d + 2]);
}

void Tile::finish(const SideView& values, int row, float* out) {
    const kv::PageFormat& f = values.spec->format;
    const int d = head_size_;
    float* coded = total.coded + row * d;
    if (f.blocks()) {
        kv::hadamard(coded, d);
    } else if (f.scale_kind == kv::ScaleKind::byte_token && total.mass[row] > 0) {
        kv::hadamard(coded, d);
        const std::vector<half_t>& mu = table_of(values).mu;
        for (int c = 0; c < d; ++c) {
            coded[c] += total.mass[row] * half_to_float(mu[c]);
        }
    }
    const float factor = 1.0f / total.sum[row];
    for (int c = 0; c < d; ++c) {
        out[c] = (total.exact[row * d + c] + coded[c]) * factor;
    }
}

}  // namespace lk::cpu
