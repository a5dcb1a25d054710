/* LlamaKivi: C interface of the native engine.
 *
 * Errors     Every function that can fail returns an lk_status and leaves a message for lk_last_error() on the
 *            calling thread. No function throws, aborts or exits, whatever its input.
 * Ownership  X_create / X_load / X_open give an object that the matching X_free releases; freeing NULL is a no-op.
 *            A model outlives its contexts: freeing it first only drops the caller's reference.
 * Threading  A model may be shared by any number of threads and contexts. A context takes one call at a time: one that
 *            comes while another runs, also from its callbacks, returns LK_BUSY. lk_context_cancel, lk_context_cancel_reset
 *            and lk_context_free are let in at any time.
 * Units      Sizes are bytes, times are seconds, token positions count from 0 at the start of a sequence.
 * Versions   Compare lk_abi_version() with LK_ABI_VERSION before anything else. Parameter structs begin with
 *            struct_size, which the caller sets to sizeof its own definition; lk_*_params_default does.
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

/** Version of this interface; changes whenever a struct, an enum value or a function's meaning changes. */
#define LK_ABI_VERSION 9

/** Outcome of a call. */
typedef enum lk_status {
    LK_OK = 0,
    LK_INVALID_ARGUMENT = 1, /**< An argument is out of range or inconsistent with another. */
    LK_IO_ERROR = 2,         /**< A file cannot be opened, read, mapped or written. */
    LK_BAD_FILE = 3,         /**< A file is not valid GGUF, or its tensors do not fit its metadata. */
    LK_UNSUPPORTED = 4,      /**< Valid, but this engine does not implement it. */
    LK_OUT_OF_MEMORY = 5,    /**< An allocation failed; the message gives the size asked. */
    LK_CACHE_FULL = 6,       /**< The KV cache has no room; the message gives used and needed tokens. */
    LK_CANCELLED = 7,        /**< Stopped by lk_context_cancel or a progress callback; the context is as before the call. */
    LK_NUMERIC_ERROR = 8,    /**< A computation gave NaN or infinity; the message names layer and operation. */
    LK_INTERNAL_ERROR = 9,   /**< A defect of the engine. */
    LK_BAD_STATE = 10,       /**< A saved state is damaged, or belongs to another model or another kind of cache. */
    LK_OUT_OF_DEVICE_MEMORY = 11, /**< An allocation on a device failed; the message gives the size asked and the size free. */
    LK_DEVICE_ERROR = 12,    /**< There is no usable device, or a call of its driver failed. */
    LK_BUSY = 13             /**< Another call uses the context; the message names it. Nothing was done. */
} lk_status;

/** How grave a line of the log is. */
typedef enum lk_log_level {
    LK_LOG_DEBUG = 0,   /**< What the engine decided. */
    LK_LOG_INFO = 1,    /**< What was loaded or created. */
    LK_LOG_WARNING = 2, /**< Something is not as it should be, and the engine goes on. */
    LK_LOG_ERROR = 3    /**< A call fails. */
} lk_log_level;

/** Type of one side (keys or values) of the KV cache. */
typedef enum lk_cache_type {
    LK_CACHE_F16 = 0,         /**< 16-bit floats, no quantization. */
    LK_CACHE_KIVI4 = 1,       /**< 4-bit KIVI, refined recipe: sinks, window, byte scales. */
    LK_CACHE_KIVI2 = 2,       /**< 2-bit KIVI, refined recipe: also refined key channels and centred, rotated values. */
    LK_CACHE_KIVI4_PAPER = 3, /**< 4-bit KIVI exactly as published (arXiv 2402.02750). */
    LK_CACHE_KIVI2_PAPER = 4, /**< 2-bit KIVI exactly as published. */
    LK_CACHE_Q8_0 = 5,        /**< Blocks of 32 channels of a token, 8 bits, rotated; no residual. For comparison with llama.cpp. */
    LK_CACHE_Q4_0 = 6,        /**< The same in 4 bits. */
    LK_CACHE_TYPE_COUNT = 7
} lk_cache_type;

/** Type of a GGUF metadata value; the values are those of the file format. */
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

/** Returns LK_ABI_VERSION as the library was compiled with. */
LK_API uint32_t lk_abi_version(void);

/** Returns the engine's version, "major.minor.patch"; static storage. */
LK_API const char* lk_version(void);

/** Returns the message of the calling thread's last failed call, UTF-8; valid until that thread's next call. Never NULL. */
LK_API const char* lk_last_error(void);

/** What the calling thread's last failed call needed and what there was. LK_CACHE_FULL: tokens. LK_OUT_OF_MEMORY and
 *  LK_OUT_OF_DEVICE_MEMORY: bytes. 0: not known, and for every other status. A NULL argument is passed over. */
LK_API void lk_last_error_amounts(uint64_t* needed, uint64_t* available);

/** Takes a line of the log, UTF-8 without a line break, valid during the call; any thread may call. */
typedef void (*lk_log_callback)(lk_log_level level, const char* text, void* user_data);

/** Sends the engine's log to a callback; NULL: nowhere, as at the start. Afterwards the callback set before is called no
 *  more. A callback must not call this. */
LK_API void lk_log_set(lk_log_callback callback, void* user_data);

/** Returns the name of a status ("LK_CACHE_FULL"); "unknown" for a value that is none. Static storage. */
LK_API const char* lk_status_name(lk_status status);

/** Returns the name of a cache type as users write it ("kivi2-paper"); NULL for a value that is none. Static storage. */
LK_API const char* lk_cache_type_name(lk_cache_type type);

/** Returns a line naming the processor and the kernels chosen for it ("AMD EPYC | AVX2"); static storage. */
LK_API const char* lk_cpu_description(void);

/** A device that can compute. */
typedef struct lk_device_info {
    char name[128];          /**< "NVIDIA H200". */
    char driver[64];         /**< The driver's and the runtime's versions. */
    uint32_t capability;     /**< Compute capability: 10 times the major number, plus the minor one. */
    uint32_t n_processors;   /**< Multiprocessors. */
    uint64_t memory_bytes;
    uint64_t free_bytes;     /**< At this moment. */
} lk_device_info;

/** Describes device number index, from 0. Fails with LK_DEVICE_ERROR; the message says why there is none. */
LK_API lk_status lk_device_describe(uint32_t index, lk_device_info* out);

/* ---- GGUF files ------------------------------------------------------------------------------------------------ */

/** One metadata entry. Pointers belong to the lk_gguf and live as long as it does. */
typedef struct lk_gguf_entry {
    const char* key;            /**< UTF-8, NUL-terminated. */
    const void* data;           /**< Scalars and arrays of numbers: little-endian elements. Strings: their bytes. Arrays of strings: NULL, use lk_gguf_string. */
    uint64_t count;             /**< Scalars: 1. Arrays: elements. Strings: bytes. */
    lk_value_type type;         /**< The entry's type. */
    lk_value_type element_type; /**< Arrays: the elements' type; otherwise equal to type. */
} lk_gguf_entry;

/** One tensor as the file declares it. */
typedef struct lk_gguf_tensor {
    const char* name;      /**< UTF-8, NUL-terminated. */
    const char* type_name; /**< "Q4_K", "F32", ...; NULL if this engine does not know the type. */
    uint64_t shape[4];     /**< Elements, innermost dimension first; unused dimensions are 1. */
    uint64_t offset;       /**< Bytes from the start of the data section. */
    uint64_t size;         /**< Bytes; 0 if the type is not known. */
    uint32_t type;         /**< ggml type number. */
    uint32_t n_dims;       /**< Dimensions declared, 1..4. */
} lk_gguf_tensor;

/** What a file holds. */
typedef struct lk_gguf_info {
    uint64_t n_entries;
    uint64_t n_tensors;
    uint64_t file_size;   /**< Bytes. */
    uint64_t data_offset; /**< Bytes from the start of the file to the data section. */
    uint32_t version;     /**< GGUF version, 2 or 3. */
    uint32_t alignment;   /**< Bytes. */
} lk_gguf_info;

/** Maps and validates a GGUF file. path: UTF-8. Fails with LK_IO_ERROR or LK_BAD_FILE. Free with lk_gguf_free. */
LK_API lk_status lk_gguf_open(const char* path, lk_gguf** out);

/** Releases a file opened by lk_gguf_open. Not for the file of a model, which lk_model_gguf lends. */
LK_API void lk_gguf_free(lk_gguf* gguf);

/** Describes the file. */
LK_API lk_status lk_gguf_describe(const lk_gguf* gguf, lk_gguf_info* out);

/** Gives entry number index, in file order. */
LK_API lk_status lk_gguf_entry_at(const lk_gguf* gguf, uint64_t index, lk_gguf_entry* out);

/** Looks an entry up by key; *found is 1 or 0, and absence is no error. */
LK_API lk_status lk_gguf_find(const lk_gguf* gguf, const char* key, lk_gguf_entry* out, int32_t* found);

/** Gives element `element` of the array of strings under key; *text is not NUL-terminated, *length is bytes. */
LK_API lk_status lk_gguf_string(const lk_gguf* gguf, const char* key, uint64_t element, const char** text, uint64_t* length);

/** Gives tensor number index, in file order. */
LK_API lk_status lk_gguf_tensor_at(const lk_gguf* gguf, uint64_t index, lk_gguf_tensor* out);

/** Called while a long call runs with the fraction done, 0..1; return 0 to stop it (LK_CANCELLED). */
typedef int32_t (*lk_progress_callback)(float fraction, void* user_data);

/** Told of a tensor whose rows do not fill the blocks of the type that the mix wants, and which gets a wider one; texts: UTF-8,
 *  valid during the call. */
typedef void (*lk_fallback_callback)(const char* tensor, const char* wanted_type, const char* given_type, void* user_data);

/** How to write a model with its weights in other formats. Texts: UTF-8. */
typedef struct lk_quantize_params {
    uint32_t struct_size;             /**< sizeof(lk_quantize_params). */
    uint32_t n_threads;               /**< 0: one per processor. */
    const char* type;                 /**< A type or a mix, one of lk_quantization_name ("Q4_K_M"), in any case. */
    const char* output_type;          /**< Type of the output matrix ("Q8_0"), which is the token embedding in a model that has no
                                           other; LK_INVALID_ARGUMENT if its rows do not fill the type's blocks. NULL: as the mix says. */
    const char* token_embedding_type; /**< The same of the token embedding. */
    uint32_t allow_requantize;        /**< 1: weights may be quantized already. 0: then it fails with LK_INVALID_ARGUMENT. */
    uint32_t pure;                    /**< 1: every matrix in the mix's main type. */
    lk_progress_callback progress;    /**< May be NULL. */
    void* progress_user_data;         /**< Passed to progress. */
    lk_fallback_callback fallback;    /**< Called on success for each of lk_quantize_result.n_fallback. May be NULL. */
    void* fallback_user_data;         /**< Passed to fallback. */
} lk_quantize_params;

/** What lk_quantize did. */
typedef struct lk_quantize_result {
    uint64_t bytes_before;  /**< Of all tensors. */
    uint64_t bytes_after;
    uint32_t n_tensors;
    uint32_t n_converted;   /**< Tensors that got another type. */
    uint32_t n_fallback;    /**< Tensors whose rows do not fill the blocks of the type that the mix wants: they have a wider one. */
    uint32_t n_requantized; /**< Tensors that got another type and were quantized before. */
} lk_quantize_result;

/** Fills *params with defaults: Q4_K_M, requantizing allowed, no progress callback. */
LK_API void lk_quantize_params_default(lk_quantize_params* params);

/** Names what lk_quantize writes, index from 0 on; NULL behind the last. Static storage. */
LK_API const char* lk_quantization_name(uint32_t index);

/** Reads the GGUF file `from` and writes `to`, which appears whole or not at all. Matrices are converted; vectors and
 *  metadata stay. A symbolic link at `to` is followed; a read-only file there is not replaced. out may be NULL.
 *  Fails with LK_INVALID_ARGUMENT, LK_IO_ERROR, LK_BAD_FILE, LK_UNSUPPORTED, LK_OUT_OF_MEMORY or LK_CANCELLED. */
LK_API lk_status lk_quantize(const char* from, const char* to, const lk_quantize_params* params, lk_quantize_result* out);

/* ---- model ------------------------------------------------------------------------------------------------------ */

/** A metadata entry that is read instead of the file's, or as if the file had it. Texts: UTF-8. */
typedef struct lk_metadata_override {
    const char* key;
    const char* text;   /**< LK_VALUE_STRING. */
    int64_t integer;    /**< LK_VALUE_INT64; LK_VALUE_BOOL: 0 or 1. */
    double real;        /**< LK_VALUE_FLOAT64. */
    lk_value_type type; /**< One of these four. */
} lk_metadata_override;

/** How to load a model. */
typedef struct lk_model_params {
    uint32_t struct_size;          /**< sizeof(lk_model_params). */
    uint32_t use_mmap;             /**< 1: weights stay in the mapped file. 0: weights are read into memory. */
    int32_t n_gpu_layers;          /**< 0: the CPU computes. Otherwise so many layers, the last ones, and the outputs are
                                        computed on the GPU, which holds their weights and their part of the cache, and
                                        the layers before them on the CPU; -1, or at least the model's layers: all on the
                                        GPU. */
    uint32_t vocab_only;           /**< 1: the metadata alone, of any architecture. The model has no contexts. */
    uint32_t n_overrides;
    const lk_metadata_override* overrides; /**< [n_overrides], read during the call; later ones of a key win. */
    lk_progress_callback progress; /**< May be NULL. */
    void* progress_user_data;      /**< Passed to progress. */
} lk_model_params;

/** What a model is. */
typedef struct lk_model_info {
    uint64_t n_params;       /**< Weight elements. */
    uint64_t weight_bytes;   /**< Bytes of all tensors. */
    uint32_t n_layer;
    uint32_t n_embd;         /**< Embedding length. */
    uint32_t n_head;         /**< Query heads. */
    uint32_t n_head_kv;      /**< KV heads. */
    uint32_t head_size;      /**< D. */
    uint32_t n_ff;           /**< Feed-forward length. */
    uint32_t n_vocab;        /**< Rows of the logits. */
    uint32_t n_ctx_train;    /**< Context length the model was trained for. */
    uint32_t n_rank;         /**< Scores that lk_rank_scores gives; 0: the model is no reranker. */
    float rope_freq_base;
    char architecture[32];   /**< "llama", NUL-terminated. */
    char weight_type[32];    /**< Type holding most weight bytes, "Q4_K". */
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

/** Lends the model's file for its metadata; valid until lk_model_free. Never NULL for a valid model. */
LK_API const lk_gguf* lk_model_gguf(const lk_model* model);

/* ---- context ---------------------------------------------------------------------------------------------------- */

/** The KV cache's types and sizes; keys and values are independent. */
typedef struct lk_cache_params {
    lk_cache_type type_k;
    lk_cache_type type_v;
    uint32_t group;    /**< G, tokens per key group: 16, 32, 64 or 128. Also channels per value group (kivi4, *-paper). */
    uint32_t residual; /**< R, full-precision tokens; a positive multiple of group. */
    int32_t sinks;     /**< S, first tokens kept in full precision; -1: 4 for kivi2/kivi4, 0 for *-paper. At most group. */
} lk_cache_params;

/** How to create a context. */
typedef struct lk_context_params {
    uint32_t struct_size; /**< sizeof(lk_context_params). */
    uint32_t n_ctx;       /**< Tokens the cache holds over all sequences; 0: what the model was trained for. */
    uint32_t n_seq_max;   /**< Sequences, numbered 0 .. n_seq_max-1. */
    uint32_t n_seq_ready; /**< So many, the first ones, have their rings and sinks from the creation on, the others from
                               their first token on, which may then fail for lack of memory. 0: all. */
    uint32_t n_ubatch;    /**< Tokens computed at once; longer batches are cut. Sizes the scratch memory. */
    uint32_t n_threads;   /**< 0: one per processor. */
    uint32_t embeddings;  /**< 1: lk_decode gives embeddings instead of logits. */
    lk_cache_params cache;
} lk_context_params;

/** Memory a context needs, in bytes, before it is created. */
typedef struct lk_memory_estimate {
    uint64_t weight_bytes;      /**< All tensors. */
    uint64_t cache_page_bytes;  /**< Pages of n_ctx tokens in n_seq_ready sequences of one length, allocated as the cache
                                     fills. */
    uint64_t cache_exact_bytes; /**< Full-precision rings and sinks of n_seq_ready sequences, allocated at creation. */
    uint64_t scratch_bytes;     /**< Activations, logits of one row, rows not yet in the cache. */
    uint64_t device_bytes;      /**< Of a GPU's memory, about, when the cache is full: the weights it holds, all of the above and
                                     its working buffers; without what its driver takes. 0 without layers on the GPU. */
    double k_bits_per_element;  /**< Bits one quantized key element takes, scales included. */
    double v_bits_per_element;  /**< The same for values. */
    double bits_per_element;    /**< Mean of the two. */
    double bytes_per_token;     /**< Paged bytes one token takes over all layers and heads, keys and values. */
} lk_memory_estimate;

/** What the cache holds now. */
typedef struct lk_cache_usage {
    uint64_t n_tokens;          /**< Over all sequences; tokens of shared pages count for each. */
    uint64_t n_capacity;        /**< n_ctx. */
    uint64_t quantized_bytes;   /**< Codes and scales of the tokens that are quantized; shared pages count once. */
    uint64_t exact_bytes;       /**< Rows in full precision: rings, sinks, f16 pages. */
    uint64_t allocated_bytes;   /**< All memory the cache holds: pages, rings, sinks, per-head tables. */
    uint64_t f16_bytes;         /**< What n_tokens would take as f16. */
    uint64_t n_quantized_k;     /**< Tokens whose keys are quantized. */
    uint64_t n_quantized_v;     /**< Tokens whose values are quantized. */
    double k_bits_per_element;  /**< As in lk_memory_estimate. */
    double v_bits_per_element;
} lk_cache_usage;

/** Fills *params with defaults: 1 sequence, 512 tokens at once, kivi2 for keys and values, G 32, R 128. */
LK_API void lk_context_params_default(lk_context_params* params);

/** Says what a context would need. Validates params as lk_context_create does, and allocates nothing.
 *  n_gpu_layers: as in lk_model_params. */
LK_API lk_status lk_context_estimate(const lk_gguf* gguf, int32_t n_gpu_layers, const lk_context_params* params,
                                     lk_memory_estimate* out);

/** Creates a context; the model is kept alive by it. Fails with LK_INVALID_ARGUMENT, LK_UNSUPPORTED or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_context_create(lk_model* model, const lk_context_params* params, lk_context** out);

/** Frees a context. A call that is running on another thread is cancelled and still ends as it should: the memory goes
 *  with the last such call. None may begin any more. */
LK_API void lk_context_free(lk_context* context);

/** Tokens to run through the model; all arrays but embeddings have n_tokens elements. */
typedef struct lk_batch {
    const int32_t* tokens;   /**< Token ids, 0 .. n_vocab-1; NULL: the batch has embeddings. */
    const float* embeddings; /**< Instead of tokens, what the first layer reads: [n_tokens, n_embd], finite; otherwise NULL. */
    const int32_t* seq_ids;  /**< Sequence of each token; NULL: all 0. */
    const int32_t* pos;      /**< Position of each token, which must continue its sequence; NULL: it does. */
    const uint8_t* outputs;  /**< 1: logits (or the embedding) wanted; NULL: only for the last token of the batch. */
    uint32_t n_tokens;
} lk_batch;

/** Appends the batch's tokens to their sequences and computes the logits asked for.
 *  Each token sees its sequence's tokens up to itself. On any failure every sequence is as before the call, but for
 *  LK_DEVICE_ERROR: the device may have failed while it wrote, and every later call on the context fails with it too.
 *  LK_NUMERIC_ERROR: an operation gave NaN or infinity, as damaged weights make it; logits and embeddings are always finite.
 *  Fails with LK_INVALID_ARGUMENT, LK_CACHE_FULL, LK_CANCELLED, LK_NUMERIC_ERROR, LK_OUT_OF_MEMORY,
 *  LK_OUT_OF_DEVICE_MEMORY or LK_DEVICE_ERROR. */
LK_API lk_status lk_decode(lk_context* context, const lk_batch* batch);

/** How to draw tokens from logits. Tokens stay if they are among the top_k most probable, then among the fewest of these that
 *  have top_p of their probability, and have min_p of the most probable one's. */
typedef struct lk_sampling {
    float temperature; /**< Divides the logits of those that stay; 0: the most probable token. */
    uint32_t top_k;    /**< 0: all. */
    float top_p;       /**< Above 0; 1: all. */
    float min_p;       /**< 0: all. */
    uint64_t seed;     /**< With the sequence and the position it decides what is drawn. */
} lk_sampling;

/** As lk_decode, and draws a token from the logits asked for where they are computed: tokens[i], in the batch's order of the
 *  tokens whose output is wanted. There are no logits afterwards. For contexts that give logits. */
LK_API lk_status lk_decode_sample(lk_context* context, const lk_batch* batch, const lk_sampling* sampling, int32_t* tokens);

/** Lends the logits of batch token `index` of the last lk_decode: n_vocab floats, valid until the next lk_decode
 *  or lk_context_free. The caller may change them. Fails with LK_INVALID_ARGUMENT if they were not asked for. */
LK_API lk_status lk_logits(lk_context* context, uint32_t index, float** out);

/** Lends the embedding of batch token `index` of the last lk_decode: its last hidden state after the output norm, n_embd
 *  floats, valid and changeable as what lk_logits lends. For contexts created with lk_context_params.embeddings; lk_batch.outputs
 *  says which tokens. Fails with LK_INVALID_ARGUMENT. */
LK_API lk_status lk_embedding(lk_context* context, uint32_t index, float** out);

/** Scores the embedding of batch token `index` of the last lk_decode with a reranker's head, cls.output(tanh(cls(embedding))):
 *  lk_model_info.n_rank numbers. The last token of a causal model has read the whole text. For contexts as lk_embedding's.
 *  Fails with LK_INVALID_ARGUMENT, LK_NUMERIC_ERROR, or LK_UNSUPPORTED if the model has no such head. */
LK_API lk_status lk_rank_scores(lk_context* context, uint32_t index, float* out);

/** Makes the running or else the next lk_decode return LK_CANCELLED. Any thread may call it. */
LK_API void lk_context_cancel(lk_context* context);

/** Withdraws an lk_context_cancel that no lk_decode has answered yet. */
LK_API void lk_context_cancel_reset(lk_context* context);

/** Changes the number of threads; 0: one per processor. */
LK_API lk_status lk_context_set_threads(lk_context* context, uint32_t n_threads);

/** Gives the number of tokens in a sequence. */
LK_API lk_status lk_seq_length(const lk_context* context, int32_t seq_id, uint32_t* out);

/** Removes a sequence's tokens from position n_keep on. Quantized tokens that stay keep their codes. */
LK_API lk_status lk_seq_truncate(lk_context* context, int32_t seq_id, uint32_t n_keep);

/** Makes dst an independent continuation of src; what dst held is dropped. Full pages are shared. */
LK_API lk_status lk_seq_copy(lk_context* context, int32_t src, int32_t dst);

/** Removes a sequence's tokens at positions [begin, end); those behind move down by end - begin (context shift).
 *  Quantized keys keep their codes and remember how far they moved; keys in full precision are rotated anew. */
LK_API lk_status lk_seq_remove(lk_context* context, int32_t seq_id, uint32_t begin, uint32_t end);

/** Gives the bytes that lk_seq_state_get writes. */
LK_API lk_status lk_seq_state_size(const lk_context* context, int32_t seq_id, uint64_t* out);

/** Saves what the cache holds of a sequence, with a versioned header and a checksum; size is what lk_seq_state_size gave. */
LK_API lk_status lk_seq_state_get(const lk_context* context, int32_t seq_id, void* data, uint64_t size);

/** Replaces a sequence by a saved one. The bytes need not be trusted: every field is checked. A state of another model, of
 *  other settings of it (RoPE, sliding window, ...), of another kind of cache or of another format version is refused, and
 *  the message names what differs. On any failure the context is as before.
 *  Fails with LK_BAD_STATE, LK_CACHE_FULL or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_seq_state_set(lk_context* context, int32_t seq_id, const void* data, uint64_t size);

/** Describes what the cache holds. */
LK_API lk_status lk_cache_describe(const lk_context* context, lk_cache_usage* out);

/* ---- looking inside --------------------------------------------------------------------------------------------- */

/** What a layer computes of the rows of a pass, before the cache takes keys and values; in the host's memory, and valid only
 *  during the call. Rows are sorted by sequence. */
typedef struct lk_observation {
    uint32_t layer;
    uint32_t n_rows;
    const int32_t* seq_ids;   /**< [n_rows] */
    const int32_t* positions; /**< [n_rows] in their sequences */
    const float* q;           /**< Queries after RoPE, [n_rows, n_head, D]. */
    const float* k;           /**< Keys after RoPE, [n_rows, n_head_kv, D]. */
    const float* v;           /**< Values, [n_rows, n_head_kv, D]. */
} lk_observation;

/** Called by lk_decode for each layer of each pass, on its thread; return 0 to stop it (LK_CANCELLED). */
typedef int32_t (*lk_observer)(const lk_observation* observation, void* user_data);

/** Shows every following lk_decode's queries, keys and values to an observer; NULL: to nobody, which costs nothing. */
LK_API lk_status lk_context_observe(lk_context* context, lk_observer observer, void* user_data);

/** Puts keys and values through a cache of one layer and one sequence, as one call: k and v, [n_tokens, n_head_kv, head_size],
 *  become what attention would see of them afterwards. n_tokens: at most 2^20; n_head_kv: at most 1024.
 *  Fails with LK_INVALID_ARGUMENT, LK_UNSUPPORTED, LK_NUMERIC_ERROR or LK_OUT_OF_MEMORY. */
LK_API lk_status lk_cache_round_trip(const lk_cache_params* params, uint32_t n_head_kv, uint32_t head_size,
                                     uint32_t n_tokens, float* k, float* v);

#ifdef __cplusplus
}
#endif
#endif /* LLAMA_KIVI_H */
