#include "runtime/memory_estimate.h"

#include <algorithm>
#include <cstdint>

#include "backend/invariant_splits.h"
#include "gguf/reader.h"
#include "kv/accounting.h"
#include "kv/budget.h"
#include "kv/codec/cache_types.h"
#include "kv/codec/kivi_format.h"
#include "kv/config.h"
#include "llama_kivi.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/placement.h"
#include "model/weight_loader.h"
#include "runtime/context_params.h"

namespace lk {

namespace {

// Bytes of the GPU's matmul buffers for n_ubatch rows: the rows in 16 bits, for quantized weights in the order of lanes
// too (all rows of a batch-invariant pass, otherwise few), quantized weights dequantized to 16 bits in parts, partial
// sums, and the workspace of cuBLAS. A buffer grows to half more than it must hold.
uint64_t device_work_bytes(const ModelConfig& model, int n_ubatch, bool batch_invariant) {
    constexpr uint64_t kWeights = 192u << 20;
    constexpr uint64_t kSums = 40u << 20;
    constexpr uint64_t kLibrary = 96u << 20;
    constexpr int kLaneRows = 128;
    const int n_lane_rows = batch_invariant ? n_ubatch : std::min(n_ubatch, kLaneRows);
    return 3ull * (n_ubatch + n_lane_rows) * std::max(model.n_ff, model.n_embd) + kWeights + kSums + kLibrary;
}

// Bytes of the partial results of attention in a batch-invariant pass on the GPU: n_ubatch rows, each of which sees a
// whole context. A row is computed as a decode step, so a prompt has as many splits per row as decoding at its end.
uint64_t invariant_bytes(const ModelConfig& model, const kv::CacheConfig& c) {
    using Splits = InvariantSplits;
    constexpr int kRowsPerStep = 32;  // rows that a warp reads in one step
    const auto splits = [](int n_tokens, int tokens_per_step) {
        const int per_block = tokens_per_step * Splits::kSteps;
        return std::max(1, Splits::count((n_tokens + per_block - 1) / per_block * Splits::kSteps));
    };
    const kv::SideSpec keys = kv::make_side_spec(c, kv::Side::keys);
    const bool paged = keys.format.quantized();
    // A q8_0 ring and the other rows have steps of their own.
    const int rounding = keys.ring_in_blocks() ? kRowsPerStep : 0;
    const int in_rows = paged ? std::min(c.n_ctx, keys.ageing.trigger + 2 * keys.sinks) + rounding : c.n_ctx;
    const int page_step = kv::is_kivi(keys.format.type) ? kv::kPageTokens : kRowsPerStep;
    const int n_splits = splits(in_rows, kRowsPerStep) + (paged ? splits(c.n_ctx, page_step) : 0);
    const uint64_t per_split = uint64_t(c.n_ubatch) * model.n_head * (model.head_size + 2) * sizeof(float);
    return n_splits > 1 ? n_splits * per_split : 0;
}

}  // namespace

uint64_t estimate_sequence(const GgufFile& file, const lk_context_params& params, uint32_t n_tokens) {
    return kv::sequence_bytes(make_cache_config(ModelConfig::read(file), params), n_tokens);
}

lk_memory_estimate estimate_memory(const GgufFile& file, int n_gpu_layers, const lk_context_params& params) {
    const ModelConfig model = ModelConfig::read(file);
    const kv::CacheConfig c = make_cache_config(model, params);
    lk_memory_estimate e{};
    e.weight_bytes = total_weight_bytes(file);
    e.cache_page_bytes = kv::page_bytes(c);
    e.cache_exact_bytes = kv::fixed_bytes(c);
    if (const uint64_t budget = c.params.memory_budget; budget > 0) {
        e.cache_exact_bytes = std::min(e.cache_exact_bytes, budget);
        e.cache_page_bytes = std::min(e.cache_page_bytes, budget - e.cache_exact_bytes);
    }
    e.scratch_bytes = ForwardScratch::bytes(model, c.n_ubatch) + kv::staging_bytes(c) + model.n_vocab * sizeof(float);
    const kv::PageFormat k = kv::make_side_spec(c, kv::Side::keys).format;
    const kv::PageFormat v = kv::make_side_spec(c, kv::Side::values).format;
    e.k_bits_per_element = k.bits_per_element();
    e.v_bits_per_element = v.bits_per_element();
    e.bits_per_element = (e.k_bits_per_element + e.v_bits_per_element) / 2;
    if (const Placement placement = Placement::make(model.n_layer, n_gpu_layers); placement.uses_device()) {
        check_device_cache(c);
        const uint64_t outputs = uint64_t(c.ready_sequences()) * model.n_vocab * sizeof(float);
        kv::CacheConfig there = c;
        there.n_layer = placement.n_device_layers;
        e.device_bytes = device_weight_bytes(file, placement) + kv::page_bytes(there) + kv::fixed_bytes(there) +
                         kv::staging_bytes(there) + ForwardScratch::bytes(model, c.n_ubatch) + outputs +
                         device_work_bytes(model, c.n_ubatch, params.batch_invariant != 0) +
                         (params.batch_invariant != 0 ? invariant_bytes(model, c) : 0);
    }
    e.bytes_per_token = static_cast<double>(k.page_bytes + v.page_bytes) / kv::kPageTokens * c.n_layer * c.n_head_kv;
    return e;
}

}  // namespace lk
