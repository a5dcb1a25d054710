// Writes the fuzzers' seed inputs to the subfolders gguf/ and state/ of a folder.
#include <filesystem>

#include "fuzz.h"
#include "kv/state/state.h"
#include "support/tiny_llama.h"

namespace {

void write(const std::filesystem::path& path, std::span<const uint8_t> bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void write_states(const std::filesystem::path& folder) {
    const std::shared_ptr<const lk::Model> model = lk::test::load_tiny_llama(32, 1);
    for (size_t type = 0; type < std::size(lk::fuzz::kTypes); ++type) {
        lk::Context context(model, lk::fuzz::context_params(lk::fuzz::kTypes[type]));
        const auto save = [&](const char* moment) {
            std::vector<uint8_t> bytes = lk::test::save_state(context, 0);
            const size_t first = sizeof(lk::kv::StateHeader) - 1;  // this byte becomes the cache type
            bytes[first] = static_cast<uint8_t>(type);
            write(folder / (std::to_string(type) + "-" + moment),
                  std::span(bytes).subspan(first, bytes.size() - first - sizeof(uint64_t)));
        };
        save("empty");
        lk::test::read_tokens(context, 0, 5);
        save("few");
        lk::test::read_tokens(context, 0, 90);
        save("flushed");
        lk::test::read_tokens(context, 0, 110);
        context.remove(0, 2, 60);
        lk::test::read_tokens(context, 0, 3);
        save("cut");
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: llama-kivi-fuzz-seeds FOLDER\n");
        return 1;
    }
    const std::filesystem::path folder = argv[1];
    std::filesystem::create_directories(folder / "gguf");
    std::filesystem::create_directories(folder / "state");
    write(folder / "gguf" / "tiny", lk::test::tiny_llama(16, 1));
    write(folder / "gguf" / "vocabulary", lk::test::tiny_llama(16, 1, [](lk::test::GgufWriter& file) {
              file.strings("tokenizer.ggml.tokens", {"a", "b", "c"});
              file.array<float>("tokenizer.ggml.scores", LK_VALUE_FLOAT32, {1, 2, 3});
              file.f32("llama.rope.freq_base", 10000);
              file.string("llama.rope.scaling.type", "yarn");
              file.f32("llama.rope.scaling.factor", 4);
              file.u32("llama.attention.sliding_window", 9);
          }));
    write_states(folder / "state");
    return 0;
}
