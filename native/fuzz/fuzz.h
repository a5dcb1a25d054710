// Shared by the fuzzers. They are libFuzzer programs, built by clang with AddressSanitizer and
// UndefinedBehaviorSanitizer:
//
//   CXX=clang++ cmake -S . -B artifacts/fuzz -DLK_FUZZ=ON -DLK_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
//   cmake --build artifacts/fuzz
//
// The seeds program writes the seed inputs, a few hundred kB, to gguf/ and state/ of its argument:
//
//   artifacts/fuzz/llama-kivi-fuzz-seeds artifacts/corpus
//   artifacts/fuzz/llama-kivi-fuzz-gguf artifacts/corpus/gguf -max_total_time=600
//   artifacts/fuzz/llama-kivi-fuzz-quantize artifacts/corpus/gguf -max_total_time=600
//   artifacts/fuzz/llama-kivi-fuzz-state artifacts/corpus/state -max_total_time=600
//
// A fuzzer writes a crashing input to a file crash-...; pass that file to the same program to reproduce the crash.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "llama_kivi.h"

namespace lk::fuzz {

// Cache types, selected by the first byte of a state input.
inline constexpr lk_cache_type kTypes[] = {LK_CACHE_F16,         LK_CACHE_KIVI4, LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER,
                                           LK_CACHE_KIVI2_PAPER, LK_CACHE_Q8_0,  LK_CACHE_Q4_0,  LK_CACHE_F32,
                                           LK_CACHE_BF16,        LK_CACHE_Q5_1,  LK_CACHE_Q5_0,  LK_CACHE_Q4_1,
                                           LK_CACHE_IQ4_NL,      LK_CACHE_KIVI3};

inline lk_context_params context_params(lk_cache_type type) {
    lk_context_params params;
    lk_context_params_default(&params);
    params.n_ctx = 512;
    params.n_seq_max = 2;
    params.n_ubatch = 64;
    params.n_threads = 1;
    params.cache = {type, type, 32, 32, -1, 0, LK_ROWS_OWN, 0, 0};
    return params;
}

// A file in memory with a path.
class MemoryFile {
public:
    MemoryFile(const uint8_t* data, size_t size) : file_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        if (file_ < 0 || ::write(file_, data, size) != static_cast<ssize_t>(size)) {
            std::abort();
        }
    }
    ~MemoryFile() { ::close(file_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

private:
    int file_;
};

}  // namespace lk::fuzz

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace lk::fuzz {

// Mutates mostly the metadata at the start of a model file and keeps the weights after it.
inline size_t mutate_gguf(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    constexpr size_t kMetadata = 2048;
    return seed % 16 == 0 || size <= kMetadata ? LLVMFuzzerMutate(data, size, max_size)
                                               : (LLVMFuzzerMutate(data, kMetadata, kMetadata), size);
}

}  // namespace lk::fuzz
