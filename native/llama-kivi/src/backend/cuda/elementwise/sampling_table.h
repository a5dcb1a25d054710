// Samplings of a pass in device memory, and the tokens sampled with them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <utility>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/device/stream.h"
#include "base/memory.h"
#include "llama_kivi.h"

namespace lk::cuda {

class SamplingTable {
public:
    // Copies samplings[n] and, after them, their recent tokens to the device in one copy. Returns the device's rows,
    // valid until the next call; rows with keep_logits have no recent tokens.
    const lk_sampling* upload(const lk_sampling* samplings, int n, Memory& memory, cudaStream_t stream);

private:
    Buffer<uint8_t> rows_;
    PinnedBuffer pinned_;
};

// Sampled tokens on their way to the caller. Copies from the device to memory that is not pinned would make the host
// wait for each.
class SampledTokens {
public:
    // Returns device memory for n tokens on their way to `to`. Earlier ones must have been taken.
    int32_t* make(int32_t* to, int n, Stream& stream);
    // Queues the copy of the tokens to the host.
    void fetch(cudaStream_t stream);
    // Forgets the tokens on their way and returns their place in the caller's memory.
    std::span<int32_t> take() { return std::exchange(to_, {}); }
    // Writes the fetched tokens to the place. The stream must have passed their copy.
    void deliver(std::span<int32_t> to);

private:
    Buffer<int32_t> tokens_;
    PinnedBuffer pinned_;
    std::span<int32_t> to_;  // of the caller
};

}  // namespace lk::cuda
