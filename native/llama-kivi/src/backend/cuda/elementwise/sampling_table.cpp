#include "backend/cuda/elementwise/sampling_table.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/error.h"

namespace lk::cuda {

const lk_sampling* SamplingTable::upload(const lk_sampling* samplings, int n, Memory& memory, cudaStream_t stream) {
    const auto recent_of = [](const lk_sampling& s) { return s.keep_logits != 0 ? 0 : s.n_recent; };
    size_t n_recent = 0;
    for (int i = 0; i < n; ++i) {
        n_recent += recent_of(samplings[i]);
    }
    const size_t bytes = n * sizeof(lk_sampling) + n_recent * sizeof(lk_token_count);
    grow(rows_, memory, bytes);
    lk_sampling* const host = reinterpret_cast<lk_sampling*>(pinned_.reserve(bytes));
    lk_token_count* recent = reinterpret_cast<lk_token_count*>(host + n);
    const lk_sampling* const rows = reinterpret_cast<const lk_sampling*>(rows_.data());
    const lk_token_count* recent_there = reinterpret_cast<const lk_token_count*>(rows + n);
    for (int i = 0; i < n; ++i) {
        host[i] = samplings[i];
        host[i].n_recent = recent_of(samplings[i]);
        host[i].recent = recent_there;
        recent = std::copy_n(samplings[i].recent, host[i].n_recent, recent);
        recent_there += host[i].n_recent;
    }
    LK_CUDA(cudaMemcpyAsync(rows_.data(), host, bytes, cudaMemcpyHostToDevice, stream));
    return rows;
}

int32_t* SampledTokens::make(int32_t* to, int n, Stream& stream) {
    LK_CHECK(to_.empty(), LK_INTERNAL_ERROR, "sample: the tokens of an earlier call have not been finished");
    stream.grow(tokens_, n);
    to_ = {to, static_cast<size_t>(n)};
    return tokens_.data();
}

void SampledTokens::fetch(cudaStream_t stream) {
    void* const host = pinned_.reserve(to_.size_bytes());
    LK_CUDA(cudaMemcpyAsync(host, tokens_.data(), to_.size_bytes(), cudaMemcpyDeviceToHost, stream));
}

void SampledTokens::deliver(std::span<int32_t> to) {
    if (!to.empty()) {
        std::memcpy(to.data(), pinned_.data(), to.size_bytes());
    }
}

}  // namespace lk::cuda
