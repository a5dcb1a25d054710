// Complete model files with structural faults: each is loaded, run and quantized, or rejected with a message that names
// the fault; memory stays proportional to the file's size.
#ifdef __linux__
#include <sys/resource.h>
#endif

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include "base/error.h"
#include "gguf/reader.h"
#include "model/quantize_model.h"
#include "support/gguf_writer.h"
#include "support/model_helpers.h"
#include "support/temporary_file.h"

namespace lk::test {
namespace {

namespace fs = std::filesystem;
using Bytes = GgufWriter::Bytes;

// A file split into fields. Mutations change whole fields, so that the file stays readable up to the mutation.
struct EntryParts {
    std::string key;
    uint32_t type;
    Bytes value;  // as in the file; arrays with element type and count
};

struct TensorParts {
    std::string name;
    std::vector<uint64_t> shape;
    uint32_t type;
    uint64_t offset;
};

struct FileParts {
    std::vector<EntryParts> entries;
    std::vector<TensorParts> tensors;
    Bytes data;

    explicit FileParts(const GgufFile& file) {
        for (const GgufEntry& entry : file.entries()) {
            Bytes value;
            if (entry.type == LK_VALUE_ARRAY) {
                GgufWriter::append(value, static_cast<uint32_t>(entry.element_type));
                GgufWriter::append(value, entry.count);
            } else if (entry.type == LK_VALUE_STRING) {
                GgufWriter::append(value, entry.count);
            }
            for (const std::string_view text : entry.strings) {
                GgufWriter::append_string(value, text);
            }
            if (entry.strings.empty() && entry.count > 0) {
                const uint64_t size =
                    entry.type == LK_VALUE_STRING ? entry.count : entry.count * scalar_bytes(entry.element_type);
                value.insert(value.end(), entry.data, entry.data + size);
            }
            entries.push_back({entry.key, static_cast<uint32_t>(entry.type), std::move(value)});
        }
        uint64_t end = 0;
        for (const TensorInfo& t : file.tensors()) {
            tensors.push_back({t.name, {t.shape, t.shape + t.n_dims}, t.type, t.offset});
            end = std::max(end, t.offset + t.size);
        }
        const uint8_t* first = file.tensor_data(file.tensors()[0]) - file.tensors()[0].offset;
        data.assign(first, first + end);
    }

    Bytes bytes() const {
        GgufWriter w;
        for (const EntryParts& entry : entries) {
            w.raw_entry(entry.key, entry.type, entry.value);
        }
        for (const TensorParts& t : tensors) {
            w.raw_tensor(t.name, static_cast<uint32_t>(t.shape.size()), t.shape, t.type, t.offset);
        }
        Bytes out = w.bytes();
        out.insert(out.end(), data.begin(), data.end());
        return out;
    }
};

class ModelFile : public testing::Test {
protected:
    static FileParts golden(const char* name) {
        return FileParts(*GgufFile::open(std::string(LK_GOLDEN_DIR) + "/" + name + ".gguf"));
    }

    static lk_status load(const std::string& path, lk_model** model, bool use_mmap = true, bool vocab_only = false) {
        lk_model_params params;
        lk_model_params_default(&params);
        params.use_mmap = use_mmap ? 1 : 0;
        params.vocab_only = vocab_only ? 1 : 0;
        return lk_model_load(path.c_str(), &params, model);
    }

    static void expect_refused(const std::string& path, lk_status status, const std::vector<std::string>& parts) {
        lk_model* model = nullptr;
        expect_failure(load(path, &model), status, parts);
        lk_model_free(model);
    }

    const test::TemporaryFolder folder_;
};

EntryParts u16_entry(const char* key, uint16_t value) {
    Bytes bytes;
    GgufWriter::append(bytes, value);
    return {key, LK_VALUE_UINT16, bytes};
}

EntryParts text_entry(const char* key, const char* text) {
    Bytes bytes;
    GgufWriter::append_string(bytes, text);
    return {key, LK_VALUE_STRING, bytes};
}

EntryParts texts_entry(const char* key, uint64_t count) {
    Bytes bytes;
    GgufWriter::append<uint32_t>(bytes, LK_VALUE_STRING);
    GgufWriter::append(bytes, count);
    for (uint64_t i = 0; i < count; ++i) {
        GgufWriter::append_string(bytes, format("t%llu", static_cast<unsigned long long>(i)));
    }
    return {key, LK_VALUE_ARRAY, bytes};
}

// A mapped file that shrinks ends the process, so weights can be read into memory.
TEST_F(ModelFile, WeightsInMemoryNeedTheFileNoMore) {
    FileParts parts = golden("llama");
    parts.entries.push_back(texts_entry("test.texts", 3));
    const std::string path = folder_.write("model.gguf", parts.bytes());
    lk_metadata_override name{};
    name.key = "general.name";
    name.type = LK_VALUE_STRING;
    name.text = "another name";
    lk_model_params model_params;
    lk_model_params_default(&model_params);
    model_params.use_mmap = 0;
    model_params.overrides = &name;
    model_params.n_overrides = 1;
    lk_model* model = nullptr;
    ASSERT_EQ(lk_model_load(path.c_str(), &model_params, &model), LK_OK) << lk_last_error();
    fs::resize_file(path, 0);

    const lk_gguf* gguf = lk_model_gguf(model);
    const auto text = [&](const char* key) {
        lk_gguf_entry entry{};
        int32_t found = 0;
        EXPECT_EQ(lk_gguf_find(gguf, key, &entry, &found), LK_OK) << lk_last_error();
        return std::string(static_cast<const char*>(entry.data), entry.count);
    };
    EXPECT_EQ(text("general.architecture"), "llama");
    EXPECT_EQ(text("general.name"), "another name");
    const char* element = nullptr;
    uint64_t length = 0;
    ASSERT_EQ(lk_gguf_string(gguf, "test.texts", 2, &element, &length), LK_OK) << lk_last_error();
    EXPECT_EQ(std::string(element, length), "t2");
    lk_context_params params = small_params();
    params.n_ctx = 64;
    params.cache.type_k = params.cache.type_v = LK_CACHE_F16;
    lk_context* context = nullptr;
    ASSERT_EQ(lk_context_create(model, &params, &context), LK_OK) << lk_last_error();
    const int32_t tokens[] = {1, 2, 3};
    const lk_batch batch{tokens, nullptr, nullptr, nullptr, nullptr, 3};
    EXPECT_EQ(lk_decode(context, &batch), LK_OK) << lk_last_error();
    lk_context_free(context);
    lk_model_free(model);
}

TEST_F(ModelFile, APartOfASplitModelSaysSo) {
    FileParts parts = golden("llama");
    parts.entries.push_back(u16_entry("split.count", 3));
    parts.entries.push_back(u16_entry("split.no", 0));
    const std::string first = folder_.write("m-00001-of-00003.gguf", parts.bytes());
    expect_refused(
        first, LK_UNSUPPORTED,
        {first, "part 1 of 3 of a split model", "the first part (this file)", "llama-gguf-split --merge " + first});
    // The other parts have only these keys, and tensors.
    FileParts rest = golden("llama");
    rest.entries = {u16_entry("split.count", 3), u16_entry("split.no", 1)};
    rest.tensors.erase(rest.tensors.begin(), rest.tensors.begin() + 5);
    const std::string second = folder_.write("m-00002-of-00003.gguf", rest.bytes());
    const std::vector<std::string> words = {second, "part 2 of 3 of a split model", "starting with the first part",
                                            first};
    expect_refused(second, LK_UNSUPPORTED, words);
    lk_model* model = nullptr;
    expect_failure(load(second, &model, true, true), LK_UNSUPPORTED, words);
    lk_quantize_params params;
    lk_quantize_params_default(&params);
    const std::string out = folder_.file("out.gguf");
    expect_failure(lk_quantize(second.c_str(), out.c_str(), &params, nullptr), LK_UNSUPPORTED, words);
    expect_refused(folder_.write("renamed.gguf", rest.bytes()), LK_UNSUPPORTED, {"part 2 of 3", "--merge FIRST-PART"});
    // A split of one part loads, and the first part has the vocabulary.
    ASSERT_EQ(load(first, &model, true, true), LK_OK) << lk_last_error();
    lk_model_free(model);
    parts.entries[parts.entries.size() - 2] = u16_entry("split.count", 1);
    ASSERT_EQ(load(folder_.write("whole-00001-of-00001.gguf", parts.bytes()), &model), LK_OK) << lk_last_error();
    lk_model_free(model);
}

// A part cut at arbitrary bytes has no keys; only its name identifies it.
TEST_F(ModelFile, APartByItsNameSaysSo) {
    const Bytes whole = golden("llama").bytes();
    const std::string tail = folder_.write("cut-00002-of-00002.gguf", Bytes(whole.begin() + 5000, whole.end()));
    expect_refused(tail, LK_BAD_FILE, {"magic", "its name says it is part 2 of 2", "cut-00001-of-00002.gguf"});
    lk_gguf* gguf = nullptr;
    expect_failure(lk_gguf_open(tail.c_str(), &gguf), LK_BAD_FILE, {"its name says it is part 2 of 2"});
    FileParts some = golden("llama");
    some.tensors.erase(some.tensors.begin() + 1);
    expect_refused(folder_.write("cut-00001-of-00002.gguf", some.bytes()), LK_BAD_FILE, {"is missing", "part 1 of 2"});
    lk_model* model = nullptr;
    ASSERT_EQ(load(folder_.write("whole-00001-of-00009.gguf", whole), &model), LK_OK) << lk_last_error();
    lk_model_free(model);
    for (const char* name : {"x-0001-of-0002.gguf", "x00001-of-00002.gguf", "x-00003-of-00002.gguf", "-of-.gguf"}) {
        lk_gguf* none = nullptr;
        ASSERT_EQ(lk_gguf_open(folder_.write(name, Bytes{'x'}).c_str(), &none), LK_BAD_FILE);
        EXPECT_EQ(std::string(lk_last_error()).find("its name says"), std::string::npos) << lk_last_error();
    }
}

TEST_F(ModelFile, EveryTokenHasARow) {
    FileParts parts = golden("llama");  // 96 rows
    const auto set = [&](EntryParts entry) {
        std::erase_if(parts.entries, [&](const EntryParts& e) { return e.key == entry.key; });
        parts.entries.push_back(std::move(entry));
    };
    set(text_entry("tokenizer.ggml.model", "gpt2"));
    set(texts_entry("tokenizer.ggml.tokens", 97));
    const std::string path = folder_.write("long.gguf", parts.bytes());
    expect_refused(path, LK_BAD_FILE, {path, "key 'tokenizer.ggml.tokens' declares 97 tokens", "has only 96 rows"});
    lk_model* model = nullptr;
    for (const uint64_t count : {96, 90}) {  // fewer tokens than rows: padding
        set(texts_entry("tokenizer.ggml.tokens", count));
        ASSERT_EQ(load(folder_.write("fits.gguf", parts.bytes()), &model), LK_OK) << lk_last_error();
        lk_model_free(model);
    }
    // Without token texts, vocab_size gives the number of tokens.
    set(text_entry("tokenizer.ggml.model", "no_vocab"));
    set(u16_entry("llama.vocab_size", 97));
    expect_refused(folder_.write("wide.gguf", parts.bytes()), LK_BAD_FILE,
                   {"'llama.vocab_size' declares 97", "only 96 rows"});
}

#if defined(__linux__) && !defined(LK_SANITIZED)

// A value from /proc/self/status, in bytes.
int64_t status_bytes(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind(name, 0) == 0) {
            return std::atoll(line.c_str() + name.size()) * 1024;
        }
    }
    return 0;
}

// Peak growth of the process in bytes while body runs.
template <class F>
int64_t growth(F&& body) {
    std::ofstream("/proc/self/clear_refs") << "5";  // resets the peak (VmHWM) to the current size
    const int64_t before = status_bytes("VmRSS:");
    body();
    return status_bytes("VmHWM:") - before;
}

// Limits the address space: enough for the mapping of the file, too little for the copy of the weights.
TEST_F(ModelFile, MemoryThatRunsOutNamesTheFile) {
    FileParts parts = golden("llama");
    constexpr uint64_t kBytes = 256u << 20;  // more than the heap can have free from earlier tests
    std::erase_if(parts.tensors, [](const TensorParts& t) { return t.name == "output.weight"; });
    TensorParts& embedding = parts.tensors[0];
    ASSERT_EQ(embedding.name, "token_embd.weight");
    embedding.shape[1] = kBytes / (embedding.shape[0] * sizeof(float));
    embedding.type = 0;
    embedding.offset = (parts.data.size() + 31) / 32 * 32;
    const std::string path = folder_.write("large.gguf", parts.bytes());
    fs::resize_file(path, fs::file_size(path) + kBytes + 64);
    lk_model* model = nullptr;
    ASSERT_EQ(load(path, &model, true), LK_OK) << lk_last_error();
    lk_model_free(model);
    rlimit before;
    ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
    rlimit small = before;
    small.rlim_cur = static_cast<rlim_t>(status_bytes("VmSize:")) + kBytes + kBytes / 2;
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &small), 0);
    const lk_status status = load(path, &model, false);
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
    expect_failure(status, LK_OUT_OF_MEMORY, {path, "not enough memory"});
    lk_model_free(model);
}

// Files that declare as much as possible in few bytes.
TEST_F(ModelFile, MemoryIsBoundedByTheSizeOfTheFile) {
    // A thousand layers that share one layer's bytes.
    FileParts deep = golden("llama");
    std::erase_if(deep.entries, [](const EntryParts& e) { return e.key == "llama.block_count"; });
    deep.entries.push_back(u16_entry("llama.block_count", 1000));
    const std::vector<TensorParts> tensors = deep.tensors;
    std::erase_if(deep.tensors, [](const TensorParts& t) { return t.name.rfind("blk.", 0) == 0; });
    for (int i = 0; i < 1000; ++i) {
        for (TensorParts t : tensors) {
            if (t.name.rfind("blk.0.", 0) == 0) {
                t.name = format("blk.%d.", i) + t.name.substr(6);
                deep.tensors.push_back(t);
            }
        }
    }
    GgufWriter many_entries;
    GgufWriter many_tensors;
    for (int i = 0; i < 40000; ++i) {
        const std::string name = format("%x", i);
        many_entries.u8(name, 1);
        many_tensors.tensor(format("blk.%x.x.weight", i), 0, {1, 1}, Bytes(4));
    }
    // Tensors without data of their own at one offset.
    GgufWriter one_data;
    one_data.tensor("t.weight", 0, {1024, 64}, Bytes(1024 * 64 * 4));
    for (int i = 0; i < 4000; ++i) {
        one_data.raw_tensor(format("blk.%d.ffn_up.weight", i), 2, {1024, 64}, 0, 0);
    }
    GgufWriter padded;
    padded.alignment(1u << 20).tensor("t", 0, {1}, Bytes(4));
    for (int i = 0; i < 1000; ++i) {
        padded.raw_tensor(format("blk.%d.ffn_up.weight", i), 2, {1, 1}, 0, 0);
    }
    GgufWriter wide;
    wide.tensor("t.weight", static_cast<uint32_t>(WeightType::Q2_K), {256, 40000}, Bytes(40000 * 84));
    const std::pair<const char*, Bytes> files[] = {
        {"deep", deep.bytes()},
        {"entries", many_entries.bytes()},
        {"tensors", many_tensors.bytes()},
        {"one-data", one_data.bytes()},
        {"padded", padded.bytes()},
        {"wide", wide.bytes()},
        {"texts", GgufWriter().strings("tokenizer.ggml.tokens", std::vector<std::string>(200000)).bytes()},
    };
    for (const auto& [name, bytes] : files) {
        const std::string path = folder_.write(name, bytes);
        const std::string out = folder_.file("out");
        const int64_t grown = growth([&] {
            for (const bool use_mmap : {false, true}) {
                lk_model* model = nullptr;
                load(path, &model, use_mmap);
                lk_model_free(model);
            }
            lk_quantize_params params;
            lk_quantize_params_default(&params);
            params.type = "F32";
            params.n_threads = 2;
            lk_quantize(path.c_str(), out.c_str(), &params, nullptr);
        });
        const int64_t size = static_cast<int64_t>(bytes.size());
        EXPECT_LT(grown, 24 * size + (24 << 20)) << name << " of " << size << " bytes";
        std::error_code missing;
        const uintmax_t written = fs::exists(out) ? fs::file_size(out, missing) : 0;
        EXPECT_LT(written, 16u * bytes.size() + (1u << 16)) << name;
        fs::remove(out);
    }
}

#endif

// Mutates whole fields of a valid model. The result is rejected with a message that names the file, or it runs; the
// same for quantizing it.
TEST_F(ModelFile, StructuredMutations) {
    const char* rounds_wanted = std::getenv("LK_MUTATION_ROUNDS");
    const int n_rounds = rounds_wanted != nullptr ? std::atoi(rounds_wanted) : 300;
    std::mt19937_64 random(20);
    const auto draw = [&](uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random); };
    const uint64_t telling[] = {0,        1,        2,   3,          7,          31,         32,
                                33,       64,       96,  255,        256,        65535,      65536,
                                1u << 20, 1u << 31, ~0u, 1ull << 32, 1ull << 62, 1ull << 63, ~0ull};
    const auto value = [&] { return telling[draw(std::size(telling))]; };
    const FileParts seeds[] = {golden("llama"), golden("llama-3.1"), golden("llama-yarn"), golden("falcon-7b"),
                               golden("mistral")};
    int accepted = 0;
    int refused = 0;
    for (int round = 0; round < n_rounds && !HasFailure(); ++round) {
        FileParts parts = seeds[draw(std::size(seeds))];
        for (uint64_t n = 1 + draw(3); n > 0; --n) {
            EntryParts& entry = parts.entries[draw(parts.entries.size())];
            TensorParts& tensor = parts.tensors[draw(parts.tensors.size())];
            switch (draw(12)) {
            case 0:  // a different number
                for (size_t i = 0, bits = value(); i < std::min<size_t>(entry.value.size(), 8); ++i, bits >>= 8) {
                    entry.value[i] = static_cast<uint8_t>(bits);
                }
                break;
            case 1:  // the same number with a different type
                entry.type = static_cast<uint32_t>(draw(13));
                entry.value.resize(16);
                break;
            case 2:
                entry.key = parts.entries[draw(parts.entries.size())].key;
                break;
            case 3:
                std::swap(entry.value, parts.entries[draw(parts.entries.size())].value);
                break;
            case 4:
                parts.entries.erase(parts.entries.begin() + static_cast<ptrdiff_t>(draw(parts.entries.size())));
                break;
            case 5:
                tensor.shape[draw(tensor.shape.size())] = value();
                break;
            case 6:
                tensor.shape.assign(1 + draw(5), 1 + draw(64));
                break;
            case 7:
                tensor.type = static_cast<uint32_t>(draw(32));
                break;
            case 8:
                tensor.offset = draw(2) == 0 ? value() : parts.tensors[draw(parts.tensors.size())].offset;
                break;
            case 9:
                tensor.name = parts.tensors[draw(parts.tensors.size())].name;
                break;
            case 10:
                for (int i = 0; i < 64; ++i) {
                    parts.data[draw(parts.data.size())] = static_cast<uint8_t>(draw(2) == 0 ? 0xFF : draw(256));
                }
                break;
            default: {
                Bytes alignment;
                GgufWriter::append(alignment, static_cast<uint32_t>(value()));
                parts.entries.push_back({"general.alignment", LK_VALUE_UINT32, alignment});
                break;
            }
            }
        }
        const std::string path = folder_.write("mutated.gguf", parts.bytes());
        const std::string out = folder_.file("out.gguf");
        const auto check = [&](lk_status status) {
            if (status == LK_OK) {
                ++accepted;
                return true;
            }
            ++refused;
            const std::string message = lk_last_error();
            EXPECT_TRUE(status == LK_BAD_FILE || status == LK_UNSUPPORTED || status == LK_NUMERIC_ERROR)
                << lk_status_name(status) << ": " << message;
            return false;
        };
        lk_model* model = nullptr;
        if (check(load(path, &model, round % 2 == 0))) {
            lk_context_params params = small_params();
            params.n_ctx = 64;
            params.cache.type_k = params.cache.type_v = LK_CACHE_F16;
            lk_context* context = nullptr;
            if (check(lk_context_create(model, &params, &context))) {
                const int32_t tokens[] = {0, 0, 0, 0, 0};
                const lk_batch batch{tokens, nullptr, nullptr, nullptr, nullptr, 5};
                check(lk_decode(context, &batch));
            }
            lk_context_free(context);
        } else {
            EXPECT_NE(std::string(lk_last_error()).find(path), std::string::npos) << lk_last_error();
        }
        lk_model_free(model);
        lk_quantize_params params;
        lk_quantize_params_default(&params);
        params.type = round % 3 == 0 ? "Q4_K_M" : round % 3 == 1 ? "F32" : "Q8_0";
        params.n_threads = 1;
        if (check(lk_quantize(path.c_str(), out.c_str(), &params, nullptr))) {
            // The reader accepts the quantizer's output.
            lk_gguf* written = nullptr;
            EXPECT_EQ(lk_gguf_open(out.c_str(), &written), LK_OK) << lk_last_error();
            lk_gguf_free(written);
        }
    }
    EXPECT_GT(refused, n_rounds / 4);
    EXPECT_GT(accepted, n_rounds / 8);
}

}  // namespace
}  // namespace lk::test
