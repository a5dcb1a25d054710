// Samplings of a pass in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device/memory.h"
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

}  // namespace lk::cuda
