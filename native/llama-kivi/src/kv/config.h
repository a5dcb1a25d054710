// Sizes and types of a cache, their validation, and the specs of keys and values derived from them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "kv/codec/kivi_format.h"
#include "llama_kivi.h"

namespace lk::kv {

inline constexpr int kDefaultResidual = 128;
// Rows of the undo window: the default and the most.
inline constexpr int kDefaultUndo = 16;
inline constexpr int kMostUndo = 64;

// The recipe of a type with the settings of the parameters.
Recipe make_recipe(const lk_cache_params& params, lk_cache_type type);
// R of a type with the settings of the parameters.
int make_residual(const lk_cache_params& params, lk_cache_type type);

struct CacheConfig {
    int n_layer = 0;
    int first_layer = 0;  // the model's layer that is layer 0 of this cache
    int n_head_kv = 0;
    int head_size = 0;  // D
    int n_ctx = 0;
    int n_seq_max = 0;
    int n_seq_ready = 0;  // sequences that the memory estimate counts; 0: all
    int n_ubatch = 0;
    lk_cache_params params{};

    int ready_sequences() const { return n_seq_ready > 0 ? n_seq_ready : n_seq_max; }

    // Throws LK_INVALID_ARGUMENT or LK_UNSUPPORTED; the message names the bad setting and valid ones.
    void validate() const;
};

// The flush rule of one side: when the ring holds `trigger` rows, the oldest `leave` rows are flushed together.
struct AgeingRule {
    int trigger;
    int leave;

    // Number of flushes of a ring that receives `rows` rows, and number of rows that leave it.
    int flushes(int rows) const { return rows < trigger ? 0 : (rows - trigger) / leave + 1; }
    int leaving(int rows) const { return flushes(rows) * leave; }
};

// Which rows of its own call a query reads from pages. The others it reads as ring rows.
enum class Visibility {
    call,      // none: prefill attends to exact rows, as in the paper
    position,  // rows that leave the ring before the query's row enters it, as in token-by-token decoding
    stored,    // every row that leaves the ring, the query's own row included: all but the youngest R
};

// Format and sizes of one side (keys or values), common to all sequences.
struct SideSpec {
    PageFormat format;
    AgeingRule ageing;
    Visibility visibility;
    int sinks;  // S
    int align;  // a page may be continued only at multiples of this many tokens: G for quantized keys, otherwise 1
    int undo;   // rows that the ring keeps after they left it
    int n_layer;
    int n_head_kv;

    size_t head_count() const { return static_cast<size_t>(n_layer) * n_head_kv; }
    size_t block_bytes() const { return head_count() * format.page_bytes; }
    RowType ring() const { return format.recipe.ring; }
    bool ring_in_blocks() const { return ring() == RowType::q8_0; }
    size_t ring_row_bytes() const { return row_bytes(ring(), format.head_size); }
    // Rows of the ring's memory: those of a full ring and the undo window.
    int ring_rows() const { return ageing.trigger + undo; }
    size_t ring_bytes() const { return head_count() * ring_rows() * ring_row_bytes(); }
    // Size of a staged row in halves: floats take two.
    size_t staged_width() const { return static_cast<size_t>(format.head_size) * (format.floats() ? 2 : 1); }
    size_t sink_elements() const { return head_count() * sinks * format.head_size; }
    size_t sink_bytes() const { return sink_elements() * sizeof(half_t); }
    // Bytes of a head table in device memory and in saved states: int32 exponent, then uint16 refined[rows - D] and
    // half centre[D] of keys, or half mu[D] of values, where the format has them.
    size_t table_bytes() const {
        const size_t mu = format.scale_kind == ScaleKind::byte_token ? format.head_size : 0;
        const size_t centre = format.recipe.key_centre ? format.head_size : 0;
        return sizeof(int32_t) + (format.rows - format.head_size + mu + centre) * sizeof(half_t);
    }
};

SideSpec make_side_spec(const CacheConfig& config, Side side);

}  // namespace lk::kv
