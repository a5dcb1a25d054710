// What the fuzzers share. They are libFuzzer programs, built by clang with its sanitizers of addresses and of undefined
// behaviour:
//
//   cmake -S . -B artifacts/fuzz -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLK_FUZZ=ON
//   -DLK_CUDA=OFF cmake --build artifacts/fuzz artifacts/fuzz/llama-kivi-fuzz-seeds artifacts/corpus writes gguf/ and
//   state/, some hundred kB artifacts/fuzz/llama-kivi-fuzz-gguf artifacts/corpus/gguf -max_total_time=600
//   artifacts/fuzz/llama-kivi-fuzz-quantize artifacts/corpus/gguf -max_total_time=600
//   artifacts/fuzz/llama-kivi-fuzz-state artifacts/corpus/state -max_total_time=600
//
// A finding is written to a file crash-..., which the same program takes as an argument to show it again.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "llama_kivi.h"

namespace lk::fuzz {

// Types of the cache by the first byte of a state's input.
inline constexpr lk_cache_type kTypes[] = {LK_CACHE_F16,         LK_CACHE_KIVI4, LK_CACHE_KIVI2, LK_CACHE_KIVI4_PAPER,
                                           LK_CACHE_KIVI2_PAPER, LK_CACHE_Q8_0,  LK_CACHE_Q4_0};

inline lk_context_params context_params(lk_cache_type type) {
    lk_context_params params;
    lk_context_params_default(&params);
    params.n_ctx = 512;
    params.n_seq_max = 2;
    params.n_ubatch = 64;
    params.n_threads = 1;
    params.cache = {type, type, 32, 32, -1};
    return params;
}

// Bytes as a file in memory, by a path.
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

// Mostly changes the beginning of a model's file, where its metadata is, and keeps the weights behind it.
inline size_t mutate_gguf(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    constexpr size_t kMetadata = 2048;
    return seed % 16 == 0 || size <= kMetadata ? LLVMFuzzerMutate(data, size, max_size)
                                               : (LLVMFuzzerMutate(data, kMetadata, kMetadata), size);
}

}  // namespace lk::fuzz
