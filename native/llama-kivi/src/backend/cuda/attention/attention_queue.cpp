#include "backend/cuda/attention/attention_queue.h"

#include <algorithm>
#include <cstddef>

#include "backend/cuda/device/memory.h"
#include "backend/cuda/device/padding.h"
#include "backend/cuda/device/queue.h"
#include "base/error.h"

namespace lk::cuda {

PlannedAttention AttentionQueue::plan(AttentionRequest request) {
    request.wgmma = processors_.wgmma;
    const auto function_of = [&](const AttentionVariant& variant) {
        return attention_function(variant, request.k, request.v);
    };
    const AttentionLaunches launches =
        plan_attention(request, [&](const AttentionVariant& variant) { return slots(function_of(variant)); });
    PlannedAttention p{request, launches.choice, launches.splits, function_of(launches.choice.rest), {}};
    slots(p.rest);  // raises its limit of shared memory
    if (p.splits.pages > 0) {
        p.pages = function_of(p.choice.pages);
    }
    return p;
}

void AttentionQueue::run(const PlannedAttention& planned, AttentionWork work, Stream& stream) {
    work.n_splits = planned.splits.rest;
    work.n_page_splits = planned.splits.pages;
    work.fixed_splits = planned.request.invariant;
    if (planned.splits.all() > 1) {
        stream.grow(partial_,
                    static_cast<size_t>(planned.splits.all()) * work.n_rows * work.n_head * (work.head_size + 2));
        work.partial = partial_.data();
    }
    clear_padding(work);
    const auto launch = [&](const AttentionFunction& f, const AttentionVariant& variant, int n_splits) {
        const dim3 grid(attention_blocks(planned.request, variant), n_splits, work.n_segments);
        void* arguments[] = {&work};
        const size_t sizes[] = {sizeof(work)};
        LK_CUDA(queue_launch({f.function, grid, f.threads, static_cast<size_t>(f.shared_bytes), arguments, sizes, 1},
                             stream));
    };
    // Nothing may be queued between these two: the second does not wait for the first (begin_beside_pages).
    if (planned.splits.pages > 0) {
        launch(planned.pages, planned.choice.pages, planned.splits.pages);
    }
    launch(planned.rest, planned.choice.rest, planned.splits.rest);
    if (planned.splits.all() > 1) {
        attention_join(work, stream);
    }
}

// Number of thread blocks that the device runs at once. Raises the kernel's shared memory limit to the device's,
// because other contexts run the same kernel with other page sizes.
int AttentionQueue::slots(const AttentionFunction& f) {
    const std::pair key(f.function, f.shared_bytes);
    const auto known = slots_.find(key);
    if (known != slots_.end()) {
        return known->second;
    }
    LK_CHECK(f.shared_bytes <= processors_.shared_bytes, LK_UNSUPPORTED,
             "attention: the CUDA kernel needs %d bytes of shared memory; the GPU has %d per thread block",
             f.shared_bytes, processors_.shared_bytes);
    LK_CUDA(cudaFuncSetAttribute(f.function, cudaFuncAttributeMaxDynamicSharedMemorySize, processors_.shared_bytes));
    int blocks = 0;
    LK_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f.function, f.threads, f.shared_bytes));
    return slots_[key] = std::max(1, blocks) * processors_.count;
}

}  // namespace lk::cuda
