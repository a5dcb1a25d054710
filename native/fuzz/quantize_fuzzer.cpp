// Quantizes the input; the result must be a valid GGUF file.
#include "fuzz.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    return lk::fuzz::mutate_gguf(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::string out = "/dev/shm/llama-kivi-fuzz-" + std::to_string(::getpid()) + ".gguf";
    uint32_t n_names = 0;
    while (lk_quantization_name(n_names) != nullptr) {
        ++n_names;
    }
    const lk::fuzz::MemoryFile file(data, size);
    lk_quantize_params params;
    lk_quantize_params_default(&params);
    params.n_threads = 1;
    params.type = lk_quantization_name(static_cast<uint32_t>((size > 100 ? data[100] + data[size / 2] : 0) % n_names));
    if (lk_quantize(file.path().c_str(), out.c_str(), &params, nullptr) == LK_OK) {
        lk_gguf* written = nullptr;
        if (lk_gguf_open(out.c_str(), &written) != LK_OK) {
            std::fprintf(stderr, "a file was written that cannot be opened: %s\n", lk_last_error());
            std::abort();
        }
        lk_gguf_free(written);
    }
    ::unlink(out.c_str());
    return 0;
}
