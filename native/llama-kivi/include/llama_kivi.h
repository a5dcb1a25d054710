/* LlamaKivi: C interface of the native engine.
 *
 * Errors     Every function that can fail returns an lk_status and stores a message, per thread, for lk_last_error().
 *            No function throws, aborts or exits, whatever its input.
 * Ownership  X_create, X_load and X_open return an object; release it with the matching X_free. Freeing NULL is a no-op.
 *            A context keeps its model alive: freeing the model first only drops the caller's reference.
 * Threading  Any number of threads and contexts may share a model. A context takes one call at a time: a second call,
 *            also one from a callback of the first, returns LK_BUSY. lk_context_cancel, lk_context_cancel_reset and
 *            lk_context_free are accepted at any time.
 * Units      Sizes are in bytes, times in seconds. Token positions count from 0 at the start of a sequence.
 * Versions   Compare lk_abi_version() with LK_ABI_VERSION before any other call. Every parameter struct begins with
 *            struct_size: set it to sizeof the struct, or call the matching lk_*_params_default.
 */
#ifndef LLAMA_KIVI_H
#define LLAMA_KIVI_H

#include <stdint.h>

#if defined(_WIN32)
#  ifdef LK_BUILD
#    define LK_API __declspec(dllexport)
#  else
#    define LK_API __declspec(dllimport)
#  endif
#else
#  define LK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. Changes with every change to a struct, an enum value or a function's meaning. */
#define LK_ABI_VERSION 14

/** Outcome of a call. */
typedef enum lk_status {
    LK_OK = 0,
    LK_INVALID_ARGUMENT = 1, /**< An argument is out of range or contradicts another argument. */
    LK_IO_ERROR = 2,         /**< A file cannot be opened, read, mapped or written. */
    LK_BAD_FILE = 3,         /**< A file is not valid GGUF, or its tensors contradict its metadata. */
    LK_UNSUPPORTED = 4,      /**< Valid input that this engine does not implement. */
    LK_OUT_OF_MEMORY = 5,    /**< An allocation failed; the message states the requested size where it is known. */
    LK_CACHE_FULL = 6,       /**< The KV cache is full; the message states used and needed tokens. */
    LK_CANCELLED = 7,        /**< Stopped by lk_context_cancel or by a callback; the context is unchanged. */
    LK_NUMERIC_ERROR = 8,    /**< An operation produced NaN or infinity; the message names layer and operation. */
    LK_INTERNAL_ERROR = 9,   /**< A bug in the engine. */
    LK_BAD_STATE = 10,       /**< A saved state is damaged, or belongs to another model or cache type. */
    LK_OUT_OF_DEVICE_MEMORY = 11, /**< A device allocation failed; the message states requested and free bytes. */
    LK_DEVICE_ERROR = 12,    /**< No device is usable, or a driver call failed. */
    LK_BUSY = 13             /**< Another call uses the context; the message names it. Nothing was changed. */
} lk_status;

/** Severity of a log line. */
typedef enum lk_log_level {
    LK_LOG_DEBUG = 0,   /**< A decision of the engine. */
    LK_LOG_INFO = 1,    /**< An object was loaded or created. */
    LK_LOG_WARNING = 2, /**< Something is wrong, but the engine continues. */
    LK_LOG_ERROR = 3    /**< A call fails. */
} lk_log_level;

/** Type of one side (keys or values) of the KV cache. */
typedef enum lk_cache_type {
    LK_CACHE_F16 = 0,         /**< 16-bit floats, no quantization. */
    LK_CACHE_KIVI4 = 1,       /**< 4-bit KIVI, refined recipe: sinks, window, byte scales. */
    LK_CACHE_KIVI2 = 2,       /**< 2-bit KIVI, refined recipe: also refined key channels and centred, rotated values. */
    LK_CACHE_KIVI4_PAPER = 3, /**< 4-bit KIVI exactly as published (arXiv 2402.02750). */
    LK_CACHE_KIVI2_PAPER = 4, /**< 2-bit KIVI exactly as published. */
    LK_CACHE_Q8_0 = 5,        /**< 8-bit blocks of 32 channels with a 16-bit scale, rotated. As in llama.cpp, like 6 to 12. */
    LK_CACHE_Q4_0 = 6,        /**< As LK_CACHE_Q8_0, with 4 bits. */
    LK_CACHE_F32 = 7,         /**< 32-bit floats, no rounding. */
    LK_CACHE_BF16 = 8,        /**< 16-bit floats with the range of 32-bit floats. */
    LK_CACHE_Q5_1 = 9,        /**< As LK_CACHE_Q5_0, with a 16-bit minimum per block. */
    LK_CACHE_Q5_0 = 10,       /**< As LK_CACHE_Q8_0, with 5 bits. */
    LK_CACHE_Q4_1 = 11,       /**< As LK_CACHE_Q4_0, with a 16-bit minimum per block. */
    LK_CACHE_IQ4_NL = 12,     /**< As LK_CACHE_Q4_0, with 16 levels that are denser near zero. */
    LK_CACHE_KIVI3 = 13,      /**< 3.3-bit KIVI: as LK_CACHE_KIVI2, with more refined channels and 3-bit values. */
    LK_CACHE_TYPE_COUNT = 14
} lk_cache_type;

/** Type of a GGUF metadata value, numbered as in the file format. */
typedef enum lk_value_type {
    LK_VALUE_UINT8 = 0,
    LK_VALUE_INT8 = 1,
    LK_VALUE_UINT16 = 2,
    LK_VALUE_INT16 = 3,
    LK_VALUE_UINT32 = 4,
    LK_VALUE_INT32 = 5,
    LK_VALUE_FLOAT32 = 6,
    LK_VALUE_BOOL = 7,
    LK_VALUE_STRING = 8,
    LK_VALUE_ARRAY = 9,
    LK_VALUE_UINT64 = 10,
    LK_VALUE_INT64 = 11,
    LK_VALUE_FLOAT64 = 12
} lk_value_type;

typedef struct lk_gguf lk_gguf;
typedef struct lk_model lk_model;
typedef struct lk_context lk_context;

/* ---- library ------------------------------------------------------------------------------------------------- */

/** Returns the LK_ABI_VERSION that the library was compiled with. */
LK_API uint32_t lk_abi_version(void);

/** Returns the engine's version, "major.minor.patch". Static storage. */
LK_API const char* lk_version(void);

/** Returns the message of the calling thread's last failed call: UTF-8, never NULL, valid until that thread's next call. */
LK_API const char* lk_last_error(void);

/** Returns the amounts behind the calling thread's last failed call. LK_CACHE_FULL: tokens. LK_OUT_OF_MEMORY and
 *  LK_OUT_OF_DEVICE_MEMORY: bytes. 0 if unknown, and for every other status. Either argument may be NULL. */
LK_API void lk_last_error_amounts(uint64_t* needed, uint64_t* available);

/** Receives one log line: UTF-8 without a line break, valid during the call. May be called from any thread. */
typedef void (*lk_log_callback)(lk_log_level level, const char* text, void* user_data);

/** Sets the receiver of the engine's log. NULL, the default, discards it. Once this returns, the previous callback is not
 *  called again. Must not be called from a log callback. */
LK_API void lk_log_set(lk_log_callback callback, void* user_data);

/** Returns the name of a status ("LK_CACHE_FULL"), or "unknown" for an undefined value. Static storage. */
LK_API const char* lk_status_name(lk_status status);

/** Returns the name of a cache type as users write it ("kivi2-paper"), or NULL for an undefined value. Static storage. */
LK_API const char* lk_cache_type_name(lk_cache_type type);

/** Returns one line with the processor and the kernels selected for it ("AMD EPYC | AVX2"). Static storage. */
LK_API const char* lk_cpu_description(void);

/** A compute device. */
typedef struct lk_device_info {
    char name[128];          /**< "NVIDIA H200". */
    char driver[64];         /**< Versions of the driver and of the runtime. */
    uint32_t capability;     /**< Compute capability, 10 * major + minor. */
    uint32_t n_processors;   /**< Multiprocessors. */
    uint64_t memory_bytes;
    uint64_t free_bytes;     /**< Free at the time of the call. */
} lk_device_info;

/** Describes device `index`, counted from 0. Fails with LK_DEVICE_ERROR; the message says why the device is missing. */
LK_API lk_status lk_device_describe(uint32_t index, lk_device_info* out);

/* ---- GGUF files ------------------------------------------------------------------------------------------------ */

/** One metadata entry. Its pointers are valid until the lk_gguf is freed. */
typedef struct lk_gguf_entry {
    const char* key;            /**< UTF-8, NUL-terminated. */
    const void* data;           /**< Numbers, bools and arrays of them: little-endian elements. Strings: bytes. Arrays of
                                     strings: NULL; use lk_gguf_string. */
    uint64_t count;             /**< Scalars: 1. Arrays: elements. Strings: bytes. */
    lk_value_type type;
    lk_value_type element_type; /**< Arrays: type of the elements. Otherwise equal to type. */
} lk_gguf_entry;

/** One tensor as declared in the file. */
typedef struct lk_gguf_tensor {
    const char* name;      /**< UTF-8, NUL-terminated. */
    const char* type_name; /**< "Q4_K", "F32", ...; NULL if this engine does not know the type. */
    uint64_t shape[4];     /**< Elements, innermost dimension first; unused dimensions are 1. */
    uint64_t offset;       /**< Bytes from the start of the data section. */
    uint64_t size;         /**< Bytes; 0 if the type is unknown. */
    uint32_t type;         /**< ggml type number. */
    uint32_t n_dims;       /**< Declared dimensions, 1..4. */
} lk_gguf_tensor;

/** Summary of a file. */
typedef struct lk_gguf_info {
    uint64_t n_entries;
    uint64_t n_tensors;
    uint64_t file_size;   /**< Bytes. */
    uint64_t data_offset; /**< Bytes from the start of the file to the data section. */
    uint32_t version;     /**< GGUF version, 2 or 3. */
    uint32_t alignment;   /**< Bytes. */
} lk_gguf_info;

/** Maps and validates a GGUF file. path: UTF-8. Fails with LK_IO_ERROR or LK_BAD_FILE. Release with lk_gguf_free. */
LK_API lk_status lk_gguf_open(const char* path, lk_gguf** out);

/** Releases a file opened by lk_gguf_open. Do not pass it the file of lk_model_gguf: the model owns that one. */
LK_API void lk_gguf_free(lk_gguf* gguf);

/** Describes the file. */
LK_API lk_status lk_gguf_describe(const lk_gguf* gguf, lk_gguf_info* out);

/** Returns entry `index`, in file order. */
LK_API lk_status lk_gguf_entry_at(const lk_gguf* gguf, uint64_t index, lk_gguf_entry* out);

/** Looks up an entry by key. *found is 1 or 0; a missing key is not an error. */
LK_API lk_status lk_gguf_find(const lk_gguf* gguf, const char* key, lk_gguf_entry* out, int32_t* found);

/** Returns one string of the array of strings at key. *text is not NUL-terminated; *length is in bytes. */
LK_API lk_status lk_gguf_string(const lk_gguf* gguf, const char* key, uint64_t element, const char** text, uint64_t* length);

/** Returns tensor `index`, in file order. */
LK_API lk_status lk_gguf_tensor_at(const lk_gguf* gguf, uint64_t index, lk_gguf_tensor* out);

/** Reports the progress of a long call as a fraction, 0..1. Return 0 to stop the call (LK_CANCELLED). */
typedef int32_t (*lk_progress_callback)(float fraction, void* user_data);

/** Reports a tensor that got a wider type, because its rows are not a multiple of the block size of the mix's type. Strings
 *  are UTF-8, valid during the call. */
typedef void (*lk_fallback_callback)(const char* tensor, const char* wanted_type, const char* given_type, void* user_data);

/** Options of lk_quantize. Strings are UTF-8. */
typedef struct lk_quantize_params {
    uint32_t struct_size;             /**< sizeof(lk_quantize_params). */
    uint32_t n_threads;               /**< 0: one per processor. */
    const char* type;                 /**< A type or a mix from lk_quantization_name ("Q4_K_M"); case is ignored. */
    const char* output_type;          /**< Type of the output matrix ("Q8_0"), or of the token embedding if the model ties the two;
                                           LK_INVALID_ARGUMENT if its rows are not a multiple of the type's block size. NULL: as in
                                           the mix. */
    const char* token_embedding_type; /**< The same for the token embedding. */
    uint32_t allow_requantize;        /**< 1: quantized weights may be converted too. 0: fail with LK_INVALID_ARGUMENT instead. */
    uint32_t pure;                    /**< 1: store every matrix in the mix's main type. */
    lk_progress_callback progress;    /**< May be NULL. */
    void* progress_user_data;         /**< Passed to progress. */
    lk_fallback_callback fallback;    /**< Called on success for each of lk_quantize_result.n_fallback. May be NULL. */
    void* fallback_user_data;         /**< Passed to fallback. */
} lk_quantize_params;

/** Result of lk_quantize. */
typedef struct lk_quantize_result {
    uint64_t bytes_before;  /**< All tensors of the input. */
    uint64_t bytes_after;   /**< All tensors of the output. */
    uint32_t n_tensors;
    uint32_t n_converted;   /**< Tensors whose type changed. */
    uint32_t n_fallback;    /**< Tensors with a wider type than the mix's; see lk_fallback_callback. */
    uint32_t n_requantized; /**< Tensors of n_converted that were already quantized. */
} lk_quantize_result;

/** Fills *params with defaults: Q4_K_M, requantizing allowed, no progress callback. */
LK_API void lk_quantize_params_default(lk_quantize_params* params);

/** Returns the name of type or mix `index` that lk_quantize writes, or NULL past the last. Static storage. */
LK_API const char* lk_quantization_name(uint32_t index);

/** Converts the matrices of GGUF file `from` and writes the result to `to`; vectors and metadata are copied. The file `to`
 *  appears complete or not at all. A symbolic link at `to` is followed; a read-only file there is not replaced. out may be
 *  NULL. Fails with LK_INVALID_ARGUMENT, LK_IO_ERROR, LK_BAD_FILE, LK_UNSUPPORTED, LK_OUT_OF_MEMORY or LK_CANCELLED. */
LK_API lk_status lk_quantize(const char* from, const char* to, const lk_quantize_params* params, lk_quantize_result* out);

/* ---- model ------------------------------------------------------------------------------------------------------ */

/** A metadata entry that replaces the file's entry, or adds one. Strings are UTF-8. */
typedef struct lk_metadata_override {
    const char* key;
    const char* text;   /**< Value of an LK_VALUE_STRING. */
    int64_t integer;    /**< Value of an LK_VALUE_INT64, or of an LK_VALUE_BOOL: 0 or 1. */
    double real;        /**< Value of an LK_VALUE_FLOAT64. */
    lk_value_type type; /**< LK_VALUE_STRING, LK_VALUE_INT64, LK_VALUE_BOOL or LK_VALUE_FLOAT64. */
} lk_metadata_override;

/** Options of lk_model_load. */
typedef struct lk_model_params {
    uint32_t struct_size;          /**< sizeof(lk_model_params). */
    uint32_t use_mmap;             /**< 1: weights stay in the mapped file. 0: weights are read into memory. */
    int32_t n_gpu_layers;          /**< Number of layers on the GPU: the last n_gpu_layers layers and the outputs. The GPU
                                        holds their weights and their part of the cache; the CPU computes the layers before
                                        them. 0: the CPU computes everything. -1, or at least the model's number of layers:
                                        the GPU computes everything. */
    uint32_t vocab_only;           /**< 1: read only the metadata, of any architecture. Such a model cannot have contexts. */
    uint32_t n_overrides;
    const lk_metadata_override* overrides; /**< [n_overrides], read during the call. The last override of a key wins. */
    lk_progress_callback progress; /**< May be NULL. */
    void* progress_user_data;      /**< Passed to progress. */
} lk_model_params;

/** Shape and size of a model. */
typedef struct lk_model_info {
    uint64_t n_params;       /**< Weight elements. */
    uint64_t weight_bytes;   /**< All tensors. */
    uint32_t n_layer;
    uint32_t n_embd;         /**< Embedding length. */
    uint32_t n_head;         /**< Query heads. */
    uint32_t n_head_kv;      /**< KV heads. */
    uint32_t head_size;      /**< D. */
    uint32_t n_ff;           /**< Feed-forward length. */
    uint32_t n_vocab;        /**< Rows of the logits. */
    uint32_t n_ctx_train;    /**< Context length the model was trained for. */
    uint32_t n_rank;         /**< Scores that lk_rank_scores writes; 0: the model is not a reranker. */
    float rope_freq_base;
    char architecture[32];   /**< "llama", NUL-terminated. */
    char weight_type[32];    /**< Type with the most weight bytes, "Q4_K". */
} lk_model_info;

/** Fills *params with defaults: memory-mapped, no progress callback. */
LK_API void lk_model_params_default(lk_model_params* params);

/** Loads a model. path: UTF-8. Fails with LK_IO_ERROR, LK_BAD_FILE, LK_UNSUPPORTED, LK_OUT_OF_MEMORY,
 *  LK_OUT_OF_DEVICE_MEMORY, LK_DEVICE_ERROR or LK_CANCELLED. */
LK_API lk_status lk_model_load(const char* path, const lk_model_params* params, lk_model** out);

/** Drops the caller's reference to a model. */
LK_API void lk_model_free(lk_model* model);

/** Describes a model. */
LK_API lk_status lk_model_describe(const lk_model* model, lk_model_info* out);

/** Returns the model's file, for its metadata. Owned by the model, valid until lk_model_free, never NULL for a valid model. */
LK_API const lk_gguf* lk_model_gguf(const lk_model* model);

/* ---- context ---------------------------------------------------------------------------------------------------- */

/** Type of the rows in the residual ring. */
typedef enum lk_row_type {
    LK_ROWS_OWN = 0, /**< The recipe's own: q8_0; f16 for types of llama.cpp and for *-paper. */
    LK_ROWS_F16 = 1, /**< 16-bit floats. */
    LK_ROWS_Q8_0 = 2 /**< 8-bit blocks of 32 channels with a 16-bit scale; the last block of a row may be shorter. */
} lk_row_type;

/** Types and sizes of the KV cache. Keys and values are independent. */
typedef struct lk_cache_params {
    lk_cache_type type_k;
    lk_cache_type type_v;
    uint32_t group;    /**< G, tokens per key group: 16, 32, 64 or 128; 0: the recipe's own, 64, or 32 for kivi3 and
                            *-paper. Also channels per value group (kivi4, *-paper). */
    int32_t residual;  /**< R, youngest tokens in the residual ring, which are not quantized; a multiple of the group for
                            *-paper. 0: the type's own, 128 for KIVI types and none for others; -1: none, not for KIVI types.
                            f32, f16 and bf16 store every token as a float and have no ring and no sinks. */
    int32_t sinks;     /**< S, first tokens kept in 16 bits; -1: 4 for kivi2, kivi3 and kivi4, otherwise 0. At most the group,
                            or 128 for types of llama.cpp. */
    int32_t refined;   /**< Key channels of kivi2 and kivi3 with 4 bits, in eighths of the head, 1 to 8, rounded down to a
                            multiple of 4 channels; 0: the recipe's own, 3, or 4 for kivi3; -1: none. */
    lk_row_type residual_type; /**< Ring rows; *-paper types always have f16. */
    int32_t undo;      /**< Rows that a ring keeps after they left it, 1 to 64: truncation by up to as many tokens is exact;
                            0: 16; -1: none. Types without a ring need none. */
    uint64_t memory_budget; /**< Most bytes of pages, rings and sinks, over all sequences and layers; 0: no limit. A call
                            that needs more fails with LK_CACHE_FULL. */
} lk_cache_params;

/** Options of lk_context_create. */
typedef struct lk_context_params {
    uint32_t struct_size; /**< sizeof(lk_context_params). */
    uint32_t n_ctx;       /**< Capacity of the cache in tokens, over all sequences; 0: the model's training context length. */
    uint32_t n_seq_max;   /**< Sequences, numbered 0 .. n_seq_max-1. */
    uint32_t n_seq_ready; /**< Number of sequences that lk_context_estimate counts; 0: all. A sequence takes memory with
                               its first token and gives it back when it is cleared. */
    uint32_t n_ubatch;    /**< Tokens per forward pass; longer batches are split. Determines the scratch memory. */
    uint32_t n_threads;   /**< 0: one per processor. */
    uint32_t embeddings;  /**< 1: lk_decode computes embeddings instead of logits. */
    uint32_t batch_invariant; /**< 1: on a GPU, too, a sequence's logits have the same bits whatever else is in the batch
                                   and however its tokens are divided into calls. The CPU always computes so. */
    lk_cache_params cache;
} lk_context_params;

/** Memory that a context will need, in bytes. */
typedef struct lk_memory_estimate {
    uint64_t weight_bytes;      /**< All tensors. */
    uint64_t cache_page_bytes;  /**< Pages for n_ctx tokens, split evenly over n_seq_ready sequences; allocated as the cache
                                     fills. Tokens in rings take none. */
    uint64_t cache_exact_bytes; /**< Rings (f16 or q8_0) and sinks of n_seq_ready sequences. */
    uint64_t scratch_bytes;     /**< Activations, logits of one row, staged rows. */
    uint64_t device_bytes;      /**< Approximate GPU memory with a full cache: the GPU's weights, all of the above and working
                                     buffers; the driver's own memory is not counted. 0 without layers on the GPU. */
    double k_bits_per_element;  /**< Bits per quantized key element, scales included. */
    double v_bits_per_element;  /**< The same for values. */
    double bits_per_element;    /**< Mean of the two. */
    double bytes_per_token;     /**< Bytes of pages per token: all layers and heads, keys and values. */
} lk_memory_estimate;

/** Current content and memory of the cache. */
typedef struct lk_cache_usage {
    uint64_t n_tokens;          /**< Over all sequences; a token in a shared page counts once per sequence. */
    uint64_t n_capacity;        /**< n_ctx. */
    uint64_t quantized_bytes;   /**< Codes and scales of quantized tokens; a shared page counts once. */
    uint64_t exact_bytes;       /**< Rows in rings (f16 or q8_0), sinks and pages of floats. */
    uint64_t allocated_bytes;   /**< All memory of the cache: pages, rings, sinks, per-head tables. */
    uint64_t f16_bytes;         /**< Size of n_tokens in an f16 cache. */
    uint64_t n_quantized_k;     /**< Tokens whose keys are quantized. */
    uint64_t n_quantized_v;     /**< Tokens whose values are quantized. */
    double k_bits_per_element;  /**< As in lk_memory_estimate. */
    double v_bits_per_element;
    uint64_t held_bytes;        /**< Memory taken from the system for pages and rings, free slots included. */
    uint64_t mark_bytes;        /**< Host memory of marks; a mark that copies of a sequence share counts once. Not limited by
                                     the memory budget. */
} lk_cache_usage;

/** Fills *params with defaults: 1 sequence, 512 tokens per pass, kivi2 for keys and values with its own group, R 128. */
LK_API void lk_context_params_default(lk_context_params* params);

/** Estimates the memory of a context. Validates params as lk_context_create does, but allocates nothing.
 *  n_gpu_layers: see lk_model_params. */
LK_API lk_status lk_context_estimate(const lk_gguf* gguf, int32_t n_gpu_layers, const lk_context_params* params,
                                     lk_memory_estimate* out);

/** Computes the bytes of pages, rings and sinks that a sequence of n_tokens tokens takes in the cache of such a context,
 *  over all layers: memory_budget divided by it is the number of such sequences that fit. */
LK_API lk_status lk_context_sequence_bytes(const lk_gguf* gguf, const lk_context_params* params, uint32_t n_tokens,
                                           uint64_t* out);

/** Creates a context, which keeps the model alive. Fails with LK_INVALID_ARGUMENT, LK_UNSUPPORTED or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_context_create(lk_model* model, const lk_context_params* params, lk_context** out);

/** Frees a context. A call running on another thread is cancelled and returns normally; the memory is released when the
 *  last such call ends. No call may start afterwards. */
LK_API void lk_context_free(lk_context* context);

/** Tokens to run through the model. All arrays except embeddings have n_tokens elements. */
typedef struct lk_batch {
    const int32_t* tokens;   /**< Token ids, 0 .. n_vocab-1; NULL if the batch has embeddings. */
    const float* embeddings; /**< Input of the first layer, [n_tokens, n_embd], finite; NULL if the batch has tokens. */
    const int32_t* seq_ids;  /**< Sequence of each token; NULL: all 0. */
    const int32_t* pos;      /**< Position of each token, checked to continue its sequence; NULL: not checked. */
    const uint8_t* outputs;  /**< 1: compute this token's logits or embedding; NULL: only the last token's. */
    uint32_t n_tokens;
} lk_batch;

/** Appends the batch's tokens to their sequences and computes the requested outputs.
 *  A token attends to the tokens of its sequence up to and including itself. On failure every sequence is unchanged, except
 *  for LK_DEVICE_ERROR: the device may have failed during a write, so every later call on the context fails with it too.
 *  LK_NUMERIC_ERROR: an operation produced NaN or infinity (damaged weights); returned logits and embeddings are always
 *  finite. Fails with LK_INVALID_ARGUMENT, LK_CACHE_FULL, LK_CANCELLED, LK_NUMERIC_ERROR, LK_OUT_OF_MEMORY,
 *  LK_OUT_OF_DEVICE_MEMORY or LK_DEVICE_ERROR. */
LK_API lk_status lk_decode(lk_context* context, const lk_batch* batch);

/** A recent token of a text, for penalties. */
typedef struct lk_token_count {
    int32_t token;
    uint32_t count; /**< Its occurrences, at least 1. */
} lk_token_count;

/** How the token after one row of logits is sampled. Penalties first change the logits of recent tokens. Filters then keep
 *  the top_k tokens of greatest logits, of these the fewest that hold top_p of their probability, and of these the tokens
 *  with at least min_p of the highest probability. The token is where the cumulative probability of the kept tokens, at the
 *  temperature, exceeds the draw; the tokens are in descending order of logits if top_k or top_p limits them, otherwise in
 *  order of their ids. Of equal logits, the token with the lower id comes first. */
typedef struct lk_sampling {
    float temperature;            /**< Divides the logits of the tokens kept; 0: take the token of the greatest logit. */
    uint32_t top_k;               /**< 0: off. */
    float top_p;                  /**< Above 0; 1: off. */
    float min_p;                  /**< 0 to 1; 0: off. */
    float repeat_penalty;         /**< Divides positive logits of recent tokens, multiplies others; 0 or 1: off. */
    float frequency_penalty;      /**< Subtracted from the logit of a recent token once per occurrence; 0: off. */
    float presence_penalty;       /**< Subtracted from the logit of a recent token once; 0: off. */
    uint32_t n_recent;            /**< Number of recent tokens. */
    const lk_token_count* recent; /**< [n_recent], in ascending order of tokens, without repetition. */
    double draw;                  /**< Uniform random number, from 0 to below 1; unused at temperature 0. */
    uint32_t keep_logits;         /**< 1: sample no token; lk_logits returns the row. The other fields are unused. */
} lk_sampling;

/** As lk_decode, then samples a token from each row of logits on the device that computed it. Only rows with keep_logits are
 *  copied from a GPU. samplings and tokens have n_outputs elements; element i belongs to the i-th batch token with an output.
 *  tokens[i] is -1 for a row with keep_logits. Equal logits and parameters give equal tokens on every CPU with the same C
 *  library; a GPU sums probabilities as integers, so a draw within 1e-6 of a boundary between tokens may give the neighbour.
 *  Needs a context without embeddings. */
LK_API lk_status lk_decode_sample(lk_context* context, const lk_batch* batch, const lk_sampling* samplings,
                                  uint32_t n_outputs, int32_t* tokens);

/** Returns the logits of batch token `index` of the last lk_decode: n_vocab floats, owned by the context, writable, valid
 *  until the next lk_decode or lk_context_free. Fails with LK_INVALID_ARGUMENT if they were not requested or not kept. */
LK_API lk_status lk_logits(lk_context* context, uint32_t index, float** out);

/** Returns the embedding of batch token `index` of the last lk_decode: its last hidden state after the output norm, n_embd
 *  floats, with the lifetime of lk_logits' rows. Needs a context with lk_context_params.embeddings; lk_batch.outputs selects
 *  the tokens. Fails with LK_INVALID_ARGUMENT. */
LK_API lk_status lk_embedding(lk_context* context, uint32_t index, float** out);

/** Applies a reranker's head to the embedding of batch token `index` of the last lk_decode:
 *  cls.output(tanh(cls(embedding))), lk_model_info.n_rank scores. Use the text's last token: in a causal model only that one
 *  has seen the whole text. Needs a context with lk_context_params.embeddings.
 *  Fails with LK_INVALID_ARGUMENT, LK_NUMERIC_ERROR, or LK_UNSUPPORTED if the model has no such head. */
LK_API lk_status lk_rank_scores(lk_context* context, uint32_t index, float* out);

/** Cancels the running lk_decode, or the next one if none is running: it returns LK_CANCELLED. Callable from any thread. */
LK_API void lk_context_cancel(lk_context* context);

/** Withdraws an lk_context_cancel that has not cancelled an lk_decode yet. */
LK_API void lk_context_cancel_reset(lk_context* context);

/** Changes the number of threads; 0: one per processor. */
LK_API lk_status lk_context_set_threads(lk_context* context, uint32_t n_threads);

/** Returns the number of tokens in a sequence. */
LK_API lk_status lk_seq_length(const lk_context* context, int32_t seq_id, uint32_t* out);

/** Removes a sequence's tokens from position n_keep on. The remaining quantized tokens keep their codes. To lengths from
 *  lk_seq_exact_from on and to those that a mark reaches, truncation is exact: the sequence then equals one that never had
 *  the removed tokens. Otherwise tokens that would be in full precision remain quantized. */
LK_API lk_status lk_seq_truncate(lk_context* context, int32_t seq_id, uint32_t n_keep);

/** Returns the smallest length such that truncations to it and to every greater length are exact, without marks. */
LK_API lk_status lk_seq_exact_from(const lk_context* context, int32_t seq_id, uint32_t* out);

/** Returns the greatest length of at most n_keep to which truncation is exact: n_keep itself, a marked length, or 0.
 *  Decode the tokens from there on again to be exact. */
LK_API lk_status lk_seq_exact_length(const lk_context* context, int32_t seq_id, uint32_t n_keep, uint32_t* out);

/** Marks a sequence at its current length: keeps a copy of its ring in host memory (lk_cache_usage.mark_bytes), so that a
 *  later truncation to this length, or to one less by at most lk_cache_params.undo, is exact. A mark lasts until lk_seq_drop_mark, or until tokens before its length are
 *  removed or the sequence is replaced; lk_seq_copy copies marks, saved states have none. Fails with LK_OUT_OF_MEMORY. */
LK_API lk_status lk_seq_mark(lk_context* context, int32_t seq_id);

/** Drops the mark at a length, if there is one. */
LK_API lk_status lk_seq_drop_mark(lk_context* context, int32_t seq_id, uint32_t length);

/** Replaces dst with a copy of src that continues independently. Full pages are shared. */
LK_API lk_status lk_seq_copy(lk_context* context, int32_t src, int32_t dst);

/** Removes a sequence's tokens at positions [begin, end); later tokens move down by end - begin (context shift).
 *  Quantized keys keep their codes and record their shift; full-precision keys are rotated to their new positions. */
LK_API lk_status lk_seq_remove(lk_context* context, int32_t seq_id, uint32_t begin, uint32_t end);

/** Returns the number of bytes that lk_seq_state_get writes. */
LK_API lk_status lk_seq_state_size(const lk_context* context, int32_t seq_id, uint64_t* out);

/** Saves a sequence's cache content with a versioned header and a checksum. size: from lk_seq_state_size. */
LK_API lk_status lk_seq_state_get(const lk_context* context, int32_t seq_id, void* data, uint64_t size);

/** Replaces a sequence with a saved one. The bytes are untrusted: every field is checked. A state is rejected if the model,
 *  its settings (RoPE, sliding window, ...), the cache type or the format version differs; the message names the
 *  difference. On failure the context is unchanged.
 *  Fails with LK_BAD_STATE, LK_CACHE_FULL or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_seq_state_set(lk_context* context, int32_t seq_id, const void* data, uint64_t size);

/** Describes the cache. */
LK_API lk_status lk_cache_describe(const lk_context* context, lk_cache_usage* out);

/* ---- inspection ------------------------------------------------------------------------------------------------- */

/** Queries, keys and values of one layer in one forward pass, before they enter the cache. In host memory, valid during the
 *  call. Rows are sorted by sequence. */
typedef struct lk_observation {
    uint32_t layer;
    uint32_t n_rows;
    const int32_t* seq_ids;   /**< [n_rows] */
    const int32_t* positions; /**< [n_rows], within each row's sequence. */
    const float* q;           /**< Queries after RoPE, [n_rows, n_head, D]. */
    const float* k;           /**< Keys after RoPE, [n_rows, n_head_kv, D]. */
    const float* v;           /**< Values, [n_rows, n_head_kv, D]. */
} lk_observation;

/** Called by lk_decode for each layer of each pass, on lk_decode's thread. Return 0 to stop lk_decode (LK_CANCELLED). */
typedef int32_t (*lk_observer)(const lk_observation* observation, void* user_data);

/** Sets the observer of all later lk_decode calls. NULL removes it; without an observer there is no overhead. */
LK_API lk_status lk_context_observe(lk_context* context, lk_observer observer, void* user_data);

/** Runs keys and values through a cache of one layer and one sequence, in one append. k and v,
 *  [n_tokens, n_head_kv, head_size], are overwritten with the rows that attention would read. n_tokens: at most 2^20;
 *  n_head_kv: at most 1024. Fails with LK_INVALID_ARGUMENT, LK_UNSUPPORTED, LK_NUMERIC_ERROR or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_cache_round_trip(const lk_cache_params* params, uint32_t n_head_kv, uint32_t head_size,
                                     uint32_t n_tokens, float* k, float* v);

#ifdef __cplusplus
}
#endif
#endif /* LLAMA_KIVI_H */
