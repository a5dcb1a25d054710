// Weight quantizers and quantized files.
#include "quant/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <random>

#include "base/error.h"
#include "gguf/reader.h"
#include "model/quantize_model.h"
#include "support/gguf_writer.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

namespace fs = std::filesystem;
using enum WeightType;

#ifdef _WIN32
constexpr const char* kDevice = "NUL";
#else
constexpr const char* kDevice = "/dev/null";
#endif

std::vector<float> round_trip(WeightType type, const std::vector<float>& x) {
    const WeightTypeTraits& traits = *weight_type_traits(type);
    const int64_t n = static_cast<int64_t>(x.size());
    std::vector<uint8_t> blocks(n / traits.block_elements * traits.block_bytes + 1);
    quantize_row(type, x.data(), n, blocks.data() + 1);  // misaligned
    std::vector<float> out(n);
    dequantize_row(type, blocks.data() + 1, out.data(), n);
    return out;
}

// Relative RMS error, sqrt(sum (x - y)^2 / sum x^2).
double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
    double error = 0;
    double size = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        error += (x[i] - y[i]) * static_cast<double>(x[i] - y[i]);
        size += static_cast<double>(x[i]) * x[i];
    }
    return std::sqrt(error / size);
}

struct TypeError {
    WeightType type;
    double normal;  // maximum relative error on normally distributed weights
};

// Slightly above the measured errors. In theory, a uniform quantizer of 2^b levels over +-2.2 sigma (the typical
// maximum of 32) has an error of 4.4 / 2^b / sqrt(12), 0.079 for 4 bits; searching scales and offsets per block lowers
// it.
constexpr TypeError kErrors[] = {
    {F32, 0},      {F16, 2.2e-4}, {BF16, 1.8e-3}, {Q8_0, 0.0056}, {Q4_0, 0.084}, {Q4_1, 0.075},  {Q5_0, 0.042},
    {Q5_1, 0.037}, {Q2_K, 0.32},  {Q3_K, 0.165},  {Q4_K, 0.078},  {Q5_K, 0.039}, {Q6_K, 0.0195},
};

TEST(Quantize, ErrorsOfNormalWeightsAreSmall) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<float> x(1 << 16);
    std::generate(x.begin(), x.end(), [&] { return normal(random); });
    for (const TypeError& row : kErrors) {
        const double error = relative_error(x, round_trip(row.type, x));
        EXPECT_LE(error, row.normal) << weight_type_traits(row.type)->name;
        EXPECT_GE(error, 0.8 * row.normal) << weight_type_traits(row.type)->name << ": the bound is slack";
    }
}

TEST(Quantize, WhatIsOnTheGridStaysThere) {
    std::mt19937 random(4);
    for (const TypeError& row : kErrors) {
        // Codes that include both extremes in every block and in every sub-block with its own scale.
        std::vector<float> x(1024);
        const int low = row.type == Q8_0   ? -127
                        : row.type == Q6_K ? -32
                        : row.type == Q5_0 ? -16
                        : row.type == Q4_0 ? -8
                        : row.type == Q3_K ? -4
                                           : 0;
        const int high = row.type == Q8_0                       ? 127
                         : row.type == Q6_K                     ? 31
                         : row.type == Q5_0                     ? 15
                         : row.type == Q4_0                     ? 7
                         : row.type == Q3_K || row.type == Q2_K ? 3
                         : row.type == Q5_1 || row.type == Q5_K ? 31
                                                                : 15;
        for (size_t i = 0; i < x.size(); ++i) {
            const int code = i % 16 == 0   ? low
                             : i % 16 == 1 ? high
                                           : low + static_cast<int>(random() % (high - low + 1));
            x[i] = 0.25f * static_cast<float>(code);
        }
        const std::vector<float> y = round_trip(row.type, x);
        for (size_t i = 0; i < x.size(); ++i) {
            ASSERT_NEAR(y[i], x[i], 2e-3) << weight_type_traits(row.type)->name << " " << i;
        }
    }
}

TEST(Quantize, OddRowsAreFinite) {
    const float tiny = std::numeric_limits<float>::denorm_min();
    for (const TypeError& row : kErrors) {
        for (const float value : {0.0f, tiny, 1e-38f, 1e-9f, 1.0f, -3.5f, 65504.0f, -65504.0f}) {
            for (const bool alternate : {false, true}) {
                std::vector<float> x(512, value);
                for (size_t i = 0; alternate && i < x.size(); i += 2) {
                    x[i] = -value;
                }
                const std::vector<float> y = round_trip(row.type, x);
                for (size_t i = 0; i < x.size(); ++i) {
                    // 2-bit codes with 4-bit scales represent 3.5 within 1/15; halves represent nothing below 6e-8.
                    ASSERT_NEAR(y[i], x[i], 0.08f * std::fabs(value) + 1e-6f)
                        << weight_type_traits(row.type)->name << " " << value << alternate;
                }
            }
        }
    }
}

TEST(Quantize, UnfitElementsAreFound) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<float> x = {1, 70000, kInfinity};
    EXPECT_EQ(find_unfit(Q4_K, x.data(), 3), 1);
    EXPECT_EQ(find_unfit(F32, x.data(), 3), 2);
    EXPECT_EQ(find_unfit(BF16, x.data(), 2), -1);
    const float nan = std::nanf("");
    EXPECT_EQ(find_unfit(Q8_0, &nan, 1), 0);
}

class QuantizeModel : public testing::Test {
protected:
    std::string path(const char* name) const { return folder_.file(name); }

    // Writes a model of 16 layers with every tensor role that mixes distinguish. Values are random F32.
    std::string write_model(const char* architecture, bool tied, uint64_t columns = 256) {
        test::GgufWriter writer;
        writer.string("general.architecture", architecture).u32("general.file_type", 0);
        writer.strings("tokenizer.ggml.tokens", {"a", "", "c"});
        writer.array<int32_t>("tokenizer.ggml.token_type", LK_VALUE_INT32, {1, 2, 3}).boolean("some.flag", true);
        const auto add = [&](const std::string& name, const std::vector<uint64_t>& shape) {
            uint64_t n = 1;
            for (const uint64_t length : shape) {
                n *= length;
            }
            std::vector<uint8_t> bytes;
            for (uint64_t i = 0; i < n; ++i) {
                test::GgufWriter::append(bytes, normal_(random_));
            }
            writer.tensor(name, 0, shape, bytes);
        };
        add("token_embd.weight", {columns, 8});
        if (!tied) {
            add("output.weight", {columns, 8});
        }
        add("output_norm.weight", {columns});
        for (int i = 0; i < 16; ++i) {
            const std::string blk = "blk." + std::to_string(i) + ".";
            add(blk + "attn_q.weight", {columns, 8});
            add(blk + "attn_k.weight", {columns, 4});
            add(blk + "attn_v.weight", {columns, 4});
            add(blk + "attn_output.weight", {columns, 8});
            add(blk + "ffn_down.weight", {512, 8});
            add(blk + "attn_norm.weight", {columns});
            add(blk + "attn_q.bias", {8});
        }
        const std::vector<uint8_t> bytes = writer.bytes();
        const std::string out = path("in.gguf");
        std::ofstream(out, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return out;
    }

    static std::string type_of(const GgufFile& file, const std::string& name) {
        const TensorInfo* tensor = file.find_tensor(name);
        return tensor != nullptr ? weight_type_traits(tensor->type)->name : "none";
    }

    void expect_refusal(lk_status status, const std::string& text, const std::string& from, const std::string& to,
                        const QuantizeOptions& options) {
        try {
            quantize_model(from, to, options);
            FAIL() << "accepted, expected an error with: " << text;
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), status) << e.what();
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
        }
        for (const fs::directory_entry& file : fs::directory_iterator(folder_.path())) {
            EXPECT_EQ(file.path().string().find(".part"), std::string::npos) << file.path();
        }
    }

    static QuantizeOptions options(const char* type) {
        QuantizeOptions out;
        out.type = type;
        out.n_threads = 2;
        return out;
    }

    const test::TemporaryFolder folder_;
    std::mt19937 random_{5};
    std::normal_distribution<float> normal_;
};

TEST_F(QuantizeModel, MixesGiveMoreBitsWhereTheyCount) {
    struct Row {
        const char* mix;
        uint32_t file_type;
        std::map<std::string, std::string> types;  // tensor (layer number first) to type
    };
    // Of 16 layers, layers 0, 1, 4, 7, 10, 13, 14 and 15 get more bits.
    const Row rows[] = {
        {"F16", 1, {{"0.attn_q", "F16"}, {"output", "F16"}, {"token_embd", "F16"}}},
        {"q8_0", 7, {{"0.attn_v", "Q8_0"}, {"output", "Q8_0"}}},
        {"Q4_0", 2, {{"0.attn_v", "Q4_0"}, {"output", "Q6_K"}, {"token_embd", "Q4_0"}}},
        {"Q2_K", 10, {{"0.attn_q", "Q2_K"}, {"0.attn_v", "Q3_K"}, {"0.ffn_down", "Q3_K"}, {"3.attn_output", "Q3_K"}}},
        {"Q3_K_S", 11, {{"0.attn_v", "Q3_K"}, {"0.ffn_down", "Q3_K"}}},
        {"Q3_K_M", 12, {{"0.attn_v", "Q5_K"}, {"2.attn_v", "Q4_K"}, {"0.ffn_down", "Q5_K"}, {"1.ffn_down", "Q4_K"}}},
        {"Q3_K_L", 13, {{"5.attn_v", "Q5_K"}, {"5.ffn_down", "Q5_K"}, {"5.attn_output", "Q5_K"}}},
        {"Q4_K_S", 14, {{"3.attn_v", "Q5_K"}, {"4.attn_v", "Q4_K"}, {"1.ffn_down", "Q5_K"}, {"2.ffn_down", "Q4_K"}}},
        {"Q4_K_M",
         15,
         {{"1.attn_v", "Q6_K"},
          {"2.attn_v", "Q4_K"},
          {"4.ffn_down", "Q6_K"},
          {"5.ffn_down", "Q4_K"},
          {"15.attn_v", "Q6_K"},
          {"0.attn_q", "Q4_K"},
          {"output", "Q6_K"},
          {"token_embd", "Q4_K"}}},
        {"Q5_K", 17, {{"1.attn_v", "Q6_K"}, {"2.attn_v", "Q5_K"}, {"4.ffn_down", "Q6_K"}}},
        {"Q6_K", 18, {{"1.attn_v", "Q6_K"}, {"token_embd", "Q6_K"}}},
    };
    const std::string from = write_model("llama", false);
    for (const Row& row : rows) {
        SCOPED_TRACE(row.mix);
        const QuantizeResult result = quantize_model(from, path("out.gguf"), options(row.mix));
        const auto file = GgufFile::open(path("out.gguf"));
        for (const auto& [name, type] : row.types) {
            EXPECT_EQ(type_of(*file, (std::isdigit(name[0]) ? "blk." : "") + name + ".weight"), type) << name;
        }
        EXPECT_EQ(type_of(*file, "output_norm.weight"), "F32");
        EXPECT_EQ(type_of(*file, "blk.3.attn_q.bias"), "F32");
        EXPECT_EQ(file->get_u32("general.file_type"), row.file_type);
        EXPECT_EQ(result.n_tensors, 115);
        EXPECT_EQ(result.n_converted, 82);
        EXPECT_EQ(result.fallbacks.size() + result.n_requantized, 0u);
        EXPECT_LT(result.bytes_after, result.bytes_before);
    }
}

TEST_F(QuantizeModel, TensorsAndMetadataArriveWhole) {
    const std::string from = write_model("llama", true);
    std::vector<float> seen;
    QuantizeOptions how = options("Q4_K_M");
    how.progress = [&](float fraction) {
        seen.push_back(fraction);
        return true;
    };
    quantize_model(from, path("out.gguf"), how);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    EXPECT_EQ(seen.back(), 1);
    const auto before = GgufFile::open(from);
    const auto after = GgufFile::open(path("out.gguf"));
    EXPECT_EQ(type_of(*after, "token_embd.weight"), "Q6_K");  // tied: also the output matrix
    EXPECT_EQ(after->get_bool("some.flag"), true);
    EXPECT_EQ(after->find("tokenizer.ggml.tokens")->strings, before->find("tokenizer.ggml.tokens")->strings);
    EXPECT_EQ(after->find("tokenizer.ggml.token_type")->count, 3u);
    ASSERT_EQ(after->tensors().size(), before->tensors().size());
    for (size_t i = 0; i < before->tensors().size(); ++i) {
        const TensorInfo& x = before->tensors()[i];
        const TensorInfo& y = after->tensors()[i];
        EXPECT_EQ(x.name, y.name);
        EXPECT_TRUE(std::equal(x.shape, x.shape + 4, y.shape));
        std::vector<float> values(x.elements());
        dequantize_row(F32, before->tensor_data(x), values.data(), static_cast<int64_t>(values.size()));
        std::vector<uint8_t> blocks(y.size);
        quantize_row(static_cast<WeightType>(y.type), values.data(), static_cast<int64_t>(values.size()),
                     blocks.data());
        EXPECT_TRUE(std::equal(blocks.begin(), blocks.end(), after->tensor_data(y))) << x.name;
    }
    // One thread writes the same file. Quantized input can be requantized, unless that is forbidden.
    how.n_threads = 1;
    quantize_model(from, path("again.gguf"), how);
    std::ifstream a(path("out.gguf"), std::ios::binary);
    std::ifstream b(path("again.gguf"), std::ios::binary);
    EXPECT_TRUE(std::equal(std::istreambuf_iterator<char>(a), {}, std::istreambuf_iterator<char>(b), {}));
    b.close();  // Windows does not replace an open file
    how.type = "Q8_0";
    EXPECT_EQ(quantize_model(path("out.gguf"), path("again.gguf"), how).n_requantized, 81);
    how.allow_requantize = false;
    expect_refusal(LK_INVALID_ARGUMENT, "token_embd.weight is already quantized (Q6_K)", path("out.gguf"),
                   path("again.gguf"), how);
}

TEST_F(QuantizeModel, OptionsAndFallbacks) {
    QuantizeOptions how = options("Q4_K_M");
    how.pure = true;
    how.output_type = "q8_0";
    how.token_embedding_type = "F16";
    quantize_model(write_model("llama", false), path("pure.gguf"), how);
    const auto pure = GgufFile::open(path("pure.gguf"));
    EXPECT_EQ(type_of(*pure, "output.weight"), "Q8_0");
    EXPECT_EQ(type_of(*pure, "token_embd.weight"), "F16");
    EXPECT_EQ(type_of(*pure, "blk.0.attn_v.weight"), "Q4_K");

    // Rows of 96 do not fit super-blocks; rows of 40 do not fit blocks.
    const std::vector<QuantizeFallback> fallbacks =
        quantize_model(write_model("falcon", false, 96), path("narrow.gguf"), options("Q4_K_M")).fallbacks;
    ASSERT_EQ(fallbacks.size(), 65u);
    EXPECT_EQ(fallbacks[0].tensor, "token_embd.weight");
    EXPECT_EQ(fallbacks[0].wanted, WeightType::Q4_K);
    EXPECT_EQ(fallbacks[0].given, WeightType::Q5_0);
    const auto narrow = GgufFile::open(path("narrow.gguf"));
    EXPECT_EQ(type_of(*narrow, "blk.0.attn_q.weight"), "Q5_0");
    EXPECT_EQ(type_of(*narrow, "blk.0.attn_v.weight"), "Q8_0");
    EXPECT_EQ(type_of(*narrow, "output.weight"), "Q8_0");
    EXPECT_EQ(type_of(*narrow, "blk.0.ffn_down.weight"), "Q6_K");
    EXPECT_EQ(type_of(*narrow, "blk.4.ffn_down.weight"), "Q5_K");
    EXPECT_EQ(type_of(*narrow, "blk.5.ffn_down.weight"), "Q4_K");
    quantize_model(write_model("llama", false, 40), path("out.gguf"), options("Q4_0"));
    EXPECT_EQ(type_of(*GgufFile::open(path("out.gguf")), "blk.0.attn_q.weight"), "F16");
}

TEST_F(QuantizeModel, ATypeAskedForByNameMustFit) {
    const std::string from = write_model("llama", false, 96);
    QuantizeOptions how = options("Q8_0");
    how.output_type = "q6_k";
    const std::string fits =
        "rows of 96 elements, not a multiple of the block size 256 of Q6_K; types that fit: F32, F16, "
        "Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, BF16";
    expect_refusal(LK_INVALID_ARGUMENT, "tensor 'output.weight' has " + fits, from, path("out.gguf"), how);
    EXPECT_FALSE(fs::exists(path("out.gguf")));
    how = options("Q8_0");
    how.token_embedding_type = "Q6_K";
    expect_refusal(LK_INVALID_ARGUMENT, "tensor 'token_embd.weight' has " + fits, from, path("out.gguf"), how);
    // In a tied model output_type applies to the token embedding, in every mix.
    for (const char* mix : {"Q8_0", "Q4_K_M", "F16"}) {
        for (const char* architecture : {"llama", "falcon"}) {
            how = options(mix);
            how.output_type = "Q5_0";
            quantize_model(write_model(architecture, true), path("out.gguf"), how);
            EXPECT_EQ(type_of(*GgufFile::open(path("out.gguf")), "token_embd.weight"), "Q5_0") << mix << architecture;
        }
    }
}

TEST_F(QuantizeModel, ALinkIsFollowedAndAReadOnlyFileIsNotReplaced) {
    const std::string from = write_model("llama", true, 96);
    const auto write = [&](const std::string& to) { return quantize_model(from, to, options("Q8_0")).bytes_after; };
    const auto content = [](const std::string& name) {
        std::ifstream file(name, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    fs::create_directory(folder_.path() / "folder");
    std::ofstream(path("folder/target.gguf")) << "old";
    std::error_code error;
    fs::create_symlink("folder/target.gguf", path("link.gguf"), error);
    if (error) {
        GTEST_SKIP() << "this system grants no symbolic links: " << error.message();
    }
    fs::create_symlink(path("link.gguf"), path("folder/link2.gguf"));
    write(path("folder/link2.gguf"));
    EXPECT_TRUE(fs::is_symlink(path("folder/link2.gguf")));
    EXPECT_TRUE(fs::is_symlink(path("link.gguf")));
    EXPECT_EQ(content(path("folder/target.gguf")).substr(0, 4), "GGUF");
    fs::create_symlink("folder/new.gguf", path("to-nothing.gguf"));
    write(path("to-nothing.gguf"));
    EXPECT_TRUE(fs::is_regular_file(path("folder/new.gguf")));
    fs::create_symlink("circle.gguf", path("circle.gguf"));
    expect_refusal(LK_IO_ERROR, "cannot write '" + path("circle.gguf") + "'", from, path("circle.gguf"),
                   options("Q8_0"));
    // A symbolic link to the input file.
    fs::create_symlink("in.gguf", path("input-link.gguf"));
    expect_refusal(LK_INVALID_ARGUMENT, "is the input file", from, path("input-link.gguf"), options("Q8_0"));

    std::ofstream(path("kept.gguf")) << "kept";
    fs::permissions(path("kept.gguf"), fs::perms::owner_read | fs::perms::group_read);
    expect_refusal(LK_IO_ERROR, "the file exists and is read-only", from, path("kept.gguf"), options("Q8_0"));
    EXPECT_EQ(content(path("kept.gguf")), "kept");
    fs::permissions(path("folder/target.gguf"), fs::perms::owner_read | fs::perms::owner_write);
    write(path("link.gguf"));
    EXPECT_EQ(fs::status(path("folder/target.gguf")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(QuantizeModel, TheLongestNameWorksAndTemporaryNamesDoNotShow) {
    const std::string from = write_model("llama", true, 96);
    const std::string longest_name = std::string(250, 'n') + ".gguf";
    quantize_model(from, path(longest_name.c_str()), options("Q8_0"));
    EXPECT_TRUE(fs::is_regular_file(path(longest_name.c_str())));
    for (const std::string& to : {path("nowhere/out.gguf"), path((std::string(252, 'n') + ".gguf").c_str())}) {
        try {
            quantize_model(from, to, options("Q8_0"));
            ADD_FAILURE() << "written: " << to;
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), LK_IO_ERROR);
            EXPECT_NE(std::string(e.what()).find("'" + to + "'"), std::string::npos) << e.what();
            EXPECT_EQ(std::string(e.what()).find(".part"), std::string::npos) << e.what();
        }
    }
}

TEST_F(QuantizeModel, RefusalsLeaveNothingBehind) {
    const std::string from = write_model("llama", true);
    expect_refusal(LK_INVALID_ARGUMENT, "type 'Q9_Z' is not known; use one of F32, F16", from, path("out.gguf"),
                   options("Q9_Z"));
    QuantizeOptions how = options("Q4_K_M");
    how.output_type = "Q4_K_M";
    expect_refusal(LK_INVALID_ARGUMENT, "the output matrix's type 'Q4_K_M' is not known; use one of F32", from,
                   path("out.gguf"), how);
    expect_refusal(LK_INVALID_ARGUMENT, "is the input file", from, (folder_.path() / "." / "in.gguf").string(),
                   options("Q8_0"));
    expect_refusal(LK_IO_ERROR, std::string("cannot write '") + kDevice + "': it exists and is not a regular file",
                   from, kDevice, options("Q8_0"));
    expect_refusal(LK_IO_ERROR, "is not a regular file", from, folder_.path().string(), options("Q8_0"));
    expect_refusal(LK_IO_ERROR, "cannot create", from, path("nowhere/out.gguf"), options("Q8_0"));
    expect_refusal(LK_IO_ERROR, "cannot open", path("none.gguf"), path("out.gguf"), options("Q8_0"));
    how = options("Q8_0");
    how.progress = [](float fraction) { return fraction < 0.5f; };
    expect_refusal(LK_CANCELLED, "was cancelled", from, path("out.gguf"), how);

    test::GgufWriter writer;
    std::vector<uint8_t> bytes;
    for (int i = 0; i < 64; ++i) {
        test::GgufWriter::append(bytes, i == 37 ? std::nanf("") : 1.0f);
    }
    bytes = writer.tensor("blk.0.ffn_up.weight", 0, {32, 2}, bytes).bytes();
    std::ofstream(path("nan.gguf"), std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    expect_refusal(LK_BAD_FILE, "element 5 of row 1 of tensor blk.0.ffn_up.weight is nan, which Q8_0 cannot represent",
                   path("nan.gguf"), path("out.gguf"), options("Q8_0"));
    EXPECT_FALSE(fs::exists(path("out.gguf")));
}

}  // namespace
}  // namespace lk
