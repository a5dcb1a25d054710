// Chooses the attention kernel of a pair of stores, and joins splits.
#include <cmath>

#include "backend/cuda/attention_pairs.h"

namespace lk::cuda {

namespace {

// Joins the splits of a row: one block of D threads for each of n * n_head rows.
__global__ void merge_kernel(const float* partial, int n_splits, int64_t n_rows, int d, float* out) {
    const int64_t row = blockIdx.x;
    float largest = -INFINITY;
    for (int s = 0; s < n_splits; ++s) {
        largest = fmaxf(largest, partial[(s * n_rows + row) * (d + 2)]);
    }
    float sum = 0;
    float x = 0;
    for (int s = 0; s < n_splits; ++s) {
        const float* part = partial + (s * n_rows + row) * (d + 2);
        const float weight = part[0] == -INFINITY ? 0.0f : __expf(part[0] - largest);
        sum += weight * part[1];
        x += weight * part[2 + threadIdx.x];
    }
    out[row * d + threadIdx.x] = x / sum;
}

using Launch = void (*)(const AttentionWork& a, cudaStream_t stream);

// Bits of exact rows are 16; q8_0 and q4_0 come in pairs of themselves.
Launch launch_of(const kv::PageFormat& k, const kv::PageFormat& v) {
    if (k.blocks() || v.blocks()) {
        return k.type != v.type ? nullptr : k.bits == 8 ? attention_blocks8_blocks8 : attention_blocks4_blocks4;
    }
    const auto column = [](int bits) { return bits == 16 ? 0 : bits == 2 ? 1 : 2; };
    static constexpr Launch table[3][3] = {
        {attention_exact_exact, attention_exact_codes2, attention_exact_codes4},
        {attention_codes2_exact, attention_codes2_codes2, attention_codes2_codes4},
        {attention_codes4_exact, attention_codes4_codes2, attention_codes4_codes4},
    };
    return table[column(k.bits)][column(v.bits)];
}

}  // namespace

bool attention_exists(const kv::PageFormat& k, const kv::PageFormat& v) {
    return launch_of(k, v) != nullptr;
}

void attention(const AttentionWork& a, cudaStream_t stream) {
    if (a.n_page_splits > 0) {
        attention_pages(a, stream);
    }
    const Launch others = a.others_exact ? attention_rows : launch_of(a.k.format, a.v.format);
    others(a, stream);
    const int n_splits = a.n_page_splits + a.n_splits;
    if (n_splits > 1) {
        const int64_t rows = static_cast<int64_t>(a.n_rows) * a.n_head;
        merge_kernel<<<static_cast<int>(rows), a.head_size, 0, stream>>>(a.partial, n_splits, rows, a.head_size, a.out);
    }
}

}  // namespace lk::cuda
