// Queues the attention of a group of segments: one kernel for pages, one for the other tokens, and the merge of their
// splits.
#pragma once

#include <map>
#include <utility>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/device/processors.h"
#include "backend/cuda/device/stream.h"
#include "backend/cuda/plan/attention_plan.h"
#include "base/memory.h"

namespace lk::cuda {

// The plan of a group of segments, for layers with request.n_head query heads.
struct PlannedAttention {
    AttentionRequest request;
    AttentionChoice choice;
    AttentionSplits splits;
    AttentionFunction rest;
    AttentionFunction pages;  // valid if splits.pages > 0
};

class AttentionQueue {
public:
    explicit AttentionQueue(const Processors& processors) : processors_(processors) {}

    // request: without the device's features.
    PlannedAttention plan(AttentionRequest request);
    // work: without the splits, which the plan determines, and without scratch.
    void run(const PlannedAttention& planned, AttentionWork work, Stream& stream);

private:
    int slots(const AttentionFunction& f);

    Processors processors_;
    Buffer<float> partial_;                             // scratch; see AttentionWork
    std::map<std::pair<const void*, int>, int> slots_;  // by kernel and shared memory bytes
};

}  // namespace lk::cuda
