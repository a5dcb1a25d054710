// Valid files: every value type, both versions, typed getters, and the C interface over them.
#include "gguf/reader.h"
#include "gguf/text.h"

#include <gtest/gtest.h>
#ifndef _WIN32
#include <sys/stat.h>
#endif

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "base/error.h"
#include "support/gguf_writer.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

using test::GgufWriter;
using Bytes = GgufWriter::Bytes;

GgufWriter every_type(uint32_t version) {
    GgufWriter w(version);
    w.u8("a.u8", 200).i8("a.i8", -100).u16("a.u16", 60000).i16("a.i16", -30000).u32("a.u32", 4000000000u);
    w.i32("a.i32", -2000000000).u64("a.u64", 1ull << 63).i64("a.i64", INT64_MIN).f32("a.f32", 0.1f).f64("a.f64", 1e-5);
    w.boolean("a.true", true).boolean("a.false", false).string("a.string", "h\u00e9").string("a.empty", "");
    w.array<int16_t>("b.i16", LK_VALUE_INT16, {1, -2, 3}).array<uint8_t>("b.bool", LK_VALUE_BOOL, {1, 0});
    w.array<double>("b.f64", LK_VALUE_FLOAT64, {}).strings("b.strings", {"one", "", "\xFF\xFE three"});
    w.strings("b.none", {}).array<uint64_t>("b.u64", LK_VALUE_UINT64, {7, 1ull << 40});
    w.tensor("t.f32", 0, {3, 2}, Bytes(24, 1)).tensor("t.q8", 8, {32, 1, 2}, Bytes(68, 2));
    w.tensor("t.bf16", 30, {5}, Bytes(10, 3)).tensor("t.unknown", 99, {1, 1, 1, 7}, Bytes(1, 4));
    return w;
}

// Expects body to throw lk::Error with the status and a message that contains each text.
void expect_error(lk_status status, const std::vector<std::string>& texts, const std::function<void()>& body) {
    try {
        body();
        ADD_FAILURE() << "no error";
    } catch (const Error& e) {
        EXPECT_EQ(e.status(), status) << e.what();
        for (const std::string& text : texts) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what() << "\ndoes not contain " << text;
        }
    }
}

class GgufReader : public testing::TestWithParam<uint32_t> {
protected:
    void SetUp() override {
        bytes_ = every_type(GetParam()).bytes();
        file_ = GgufFile::parse(bytes_.data(), bytes_.size(), "every.gguf");
    }

    template <class T>
    T value(std::string_view key, lk_value_type type, uint64_t index = 0) {
        const GgufEntry* entry = file_->find(key);
        EXPECT_NE(entry, nullptr) << key;
        EXPECT_EQ(entry->element_type, type) << key;
        EXPECT_LT(index, entry->count) << key;
        T out;
        std::memcpy(&out, entry->data + index * sizeof(T), sizeof(T));
        return out;
    }

    Bytes bytes_;
    std::unique_ptr<GgufFile> file_;
};

INSTANTIATE_TEST_SUITE_P(Versions, GgufReader, testing::Values(2u, 3u));

TEST_P(GgufReader, Header) {
    EXPECT_EQ(file_->version(), GetParam());
    EXPECT_EQ(file_->alignment(), 32u);
    EXPECT_EQ(file_->file_size(), bytes_.size());
    EXPECT_EQ(file_->data_offset() % 32, 0u);
    EXPECT_EQ(file_->name(), "every.gguf");
    EXPECT_EQ(file_->entries().size(), 20u);
    EXPECT_EQ(file_->entries()[0].key, "a.u8");
    EXPECT_EQ(file_->entries()[19].key, "b.u64");
}

TEST_P(GgufReader, ValuesOfEveryType) {
    EXPECT_EQ(value<uint8_t>("a.u8", LK_VALUE_UINT8), 200);
    EXPECT_EQ(value<int8_t>("a.i8", LK_VALUE_INT8), -100);
    EXPECT_EQ(value<uint16_t>("a.u16", LK_VALUE_UINT16), 60000);
    EXPECT_EQ(value<int16_t>("a.i16", LK_VALUE_INT16), -30000);
    EXPECT_EQ(value<uint32_t>("a.u32", LK_VALUE_UINT32), 4000000000u);
    EXPECT_EQ(value<int32_t>("a.i32", LK_VALUE_INT32), -2000000000);
    EXPECT_EQ(value<uint64_t>("a.u64", LK_VALUE_UINT64), 1ull << 63);
    EXPECT_EQ(value<int64_t>("a.i64", LK_VALUE_INT64), INT64_MIN);
    EXPECT_EQ(value<float>("a.f32", LK_VALUE_FLOAT32), 0.1f);
    EXPECT_EQ(value<double>("a.f64", LK_VALUE_FLOAT64), 1e-5);
    EXPECT_EQ(value<uint8_t>("a.true", LK_VALUE_BOOL), 1);
    EXPECT_EQ(value<int16_t>("b.i16", LK_VALUE_INT16, 1), -2);
    EXPECT_EQ(value<uint8_t>("b.bool", LK_VALUE_BOOL, 1), 0);
    EXPECT_EQ(value<uint64_t>("b.u64", LK_VALUE_UINT64, 1), 1ull << 40);
    EXPECT_EQ(file_->find("b.i16")->type, LK_VALUE_ARRAY);
    EXPECT_EQ(file_->find("b.i16")->count, 3u);
    EXPECT_EQ(file_->find("b.f64")->count, 0u);
    EXPECT_EQ(file_->find("a.string")->count, 3u);
    EXPECT_EQ(file_->find("nothing"), nullptr);
    EXPECT_EQ(file_->find("a.u"), nullptr);
}

TEST_P(GgufReader, ArraysOfStrings) {
    const GgufEntry* entry = file_->find("b.strings");
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->data, nullptr);
    EXPECT_EQ(entry->count, 3u);
    EXPECT_EQ(entry->strings, (std::vector<std::string_view>{"one", "", "\xFF\xFE three"}));
    EXPECT_TRUE(file_->find("b.none")->strings.empty());
}

TEST_P(GgufReader, Tensors) {
    ASSERT_EQ(file_->tensors().size(), 4u);
    const TensorInfo* f32 = file_->find_tensor("t.f32");
    ASSERT_NE(f32, nullptr);
    EXPECT_EQ(f32->n_dims, 2u);
    EXPECT_EQ(f32->shape[0], 3u);
    EXPECT_EQ(f32->shape[1], 2u);
    EXPECT_EQ(f32->shape[3], 1u);
    EXPECT_EQ(f32->elements(), 6u);
    EXPECT_EQ(f32->size, 24u);
    EXPECT_EQ(f32->offset, 0u);
    EXPECT_EQ(file_->tensor_data(*f32), bytes_.data() + file_->data_offset());
    const TensorInfo* q8 = file_->find_tensor("t.q8");
    ASSERT_NE(q8, nullptr);
    EXPECT_EQ(q8->size, 68u);
    EXPECT_EQ(q8->offset, 32u);
    EXPECT_EQ(file_->tensor_data(*q8)[67], 2);
    EXPECT_EQ(file_->find_tensor("t.bf16")->size, 10u);
    EXPECT_EQ(file_->find_tensor("t.unknown")->size, 0u);
    EXPECT_EQ(file_->find_tensor("t.unknown")->shape[3], 7u);
    EXPECT_EQ(file_->find_tensor("t"), nullptr);
}

TEST_P(GgufReader, TypedValues) {
    EXPECT_EQ(file_->get_u32("a.u8"), 200u);
    EXPECT_EQ(file_->get_u32("a.u16"), 60000u);
    EXPECT_EQ(file_->get_u32("a.u32"), 4000000000u);
    EXPECT_EQ(file_->get_u32_or("a.u8", 5), 200u);
    EXPECT_EQ(file_->get_u32_or("nothing", 5), 5u);
    EXPECT_EQ(file_->get_f32("a.f32"), 0.1f);
    EXPECT_EQ(file_->get_f32("a.f64"), 1e-5f);
    EXPECT_EQ(file_->get_f32_or("nothing", 2.5f), 2.5f);
    EXPECT_EQ(file_->get_string("a.string"), "h\u00e9");
    EXPECT_EQ(file_->get_string_or("a.empty", "x"), "");
    EXPECT_EQ(file_->get_string_or("nothing", "x"), "x");
    EXPECT_TRUE(file_->get_bool("a.true"));
    EXPECT_FALSE(file_->get_bool_or("a.false", true));
    EXPECT_TRUE(file_->get_bool_or("nothing", true));
    EXPECT_EQ(file_->get_u32_array("a.u8"), std::vector<uint32_t>{200});
}

TEST_P(GgufReader, TypedValuesRefuseOtherTypesAndRanges) {
    const auto refused = [&](const std::vector<std::string>& texts, const std::function<void()>& body) {
        std::vector<std::string> all = texts;
        all.push_back("every.gguf");
        expect_error(LK_BAD_FILE, all, body);
    };
    refused({"'nothing'", "missing", "integer"}, [&] { file_->get_u32("nothing"); });
    refused({"'nothing'", "missing", "string"}, [&] { file_->get_string("nothing"); });
    refused({"'a.i8'", "-100", "i8"}, [&] { file_->get_u32("a.i8"); });
    refused({"'a.i16'", "-30000"}, [&] { file_->get_u32("a.i16"); });
    refused({"'a.i32'", "-2000000000"}, [&] { file_->get_u32_or("a.i32", 1); });
    refused({"'a.i64'", "-9223372036854775808"}, [&] { file_->get_u32("a.i64"); });
    refused({"'a.u64'", "9223372036854775808", "u64"}, [&] { file_->get_u32("a.u64"); });
    refused({"'a.f32'", "f32", "integer"}, [&] { file_->get_u32("a.f32"); });
    refused({"'a.true'", "bool", "integer"}, [&] { file_->get_u32("a.true"); });
    refused({"'a.string'", "string", "integer"}, [&] { file_->get_u32_or("a.string", 1); });
    refused({"'b.i16'", "array of i16", "integer"}, [&] { file_->get_u32("b.i16"); });
    refused({"'b.i16'", "-2"}, [&] { file_->get_u32_array("b.i16"); });
    refused({"'b.u64'", "1099511627776"}, [&] { file_->get_u32_array("b.u64"); });
    refused({"'b.strings'", "array of string"}, [&] { file_->get_u32_array("b.strings"); });
    refused({"'b.bool'", "array of bool"}, [&] { file_->get_u32_array("b.bool"); });
    refused({"'a.string'", "integers"}, [&] { file_->get_u32_array("a.string"); });
    refused({"'a.string'", "string", "float"}, [&] { file_->get_f32("a.string"); });
    refused({"'b.f64'", "array of f64", "float"}, [&] { file_->get_f32("b.f64"); });
    refused({"'a.f32'", "f32", "bool"}, [&] { file_->get_bool("a.f32"); });
    refused({"'b.bool'", "array of bool", "bool"}, [&] { file_->get_bool("b.bool"); });
    refused({"'a.u8'", "u8", "string"}, [&] { file_->get_string("a.u8"); });
    refused({"'b.strings'", "array of string"}, [&] { file_->get_string("b.strings"); });
}

TEST(GgufReaderValues, DoublesBeyondFloat) {
    const Bytes bytes = GgufWriter().f64("big", 1e300).f64("inf", INFINITY).f64("max", 3.4028234663852886e38).bytes();
    const auto file = GgufFile::parse(bytes.data(), bytes.size(), "doubles.gguf");
    expect_error(LK_BAD_FILE, {"doubles.gguf", "'big'", "1e+300"}, [&] { file->get_f32("big"); });
    EXPECT_EQ(file->get_f32("inf"), INFINITY);
    EXPECT_EQ(file->get_f32("max"), std::numeric_limits<float>::max());
}

TEST(GgufReaderFiles, NothingInside) {
    const Bytes bytes = GgufWriter().bytes();
    const auto file = GgufFile::parse(bytes.data(), bytes.size(), "none.gguf");
    EXPECT_TRUE(file->entries().empty());
    EXPECT_TRUE(file->tensors().empty());
    EXPECT_EQ(file->data_offset(), 24u);  // aligned it would be 32, past the end
}

TEST(GgufReaderFiles, Alignments) {
    for (uint32_t alignment = 4; alignment <= 1u << 16; alignment *= 2) {
        GgufWriter w;
        w.alignment(alignment);
        w.tensor("a", 8, {32}, Bytes(34, 1)).tensor("b", 8, {64}, Bytes(68, 2));
        const Bytes bytes = w.bytes();
        const auto file = GgufFile::parse(bytes.data(), bytes.size(), "aligned.gguf");
        EXPECT_EQ(file->alignment(), alignment);
        EXPECT_EQ(file->data_offset() % alignment, 0u);
        EXPECT_EQ(file->tensor_data(*file->find_tensor("a"))[0], 1);
        EXPECT_EQ(file->tensor_data(*file->find_tensor("b"))[67], 2);
    }
}

TEST(GgufReaderFiles, NumbersOfEveryWidth) {
    GgufWriter w;
    w.u8("u8", 1).i8("i8", -3).u16("u16", 500).i16("i16", 0).u64("u64", 10000).i64("i64", 1).boolean("bool", true);
    w.i32("two", 2).u64("general.alignment", 64);
    const Bytes bytes = w.bytes();
    const auto file = GgufFile::parse(bytes.data(), bytes.size(), "widths.gguf");
    EXPECT_EQ(file->get_f32("u8"), 1);
    EXPECT_EQ(file->get_f32("i8"), -3);
    EXPECT_EQ(file->get_f32("u16"), 500);
    EXPECT_EQ(file->get_f32("u64"), 10000);
    EXPECT_EQ(file->get_f32("i64"), 1);
    EXPECT_TRUE(file->get_bool("u8"));
    EXPECT_FALSE(file->get_bool("i16"));
    EXPECT_TRUE(file->get_bool("i64"));
    EXPECT_EQ(file->alignment(), 64u);
    expect_error(LK_BAD_FILE, {"widths.gguf", "'two'", "value 2 (i32)", "0 or 1"}, [&] { file->get_bool("two"); });
    expect_error(LK_BAD_FILE, {"'bool'", "bool", "float"}, [&] { file->get_f32("bool"); });
}

TEST(GgufReaderFiles, LongestNames) {
    GgufWriter w;
    w.u8(std::string(65535, 'k'), 1).tensor(std::string(64, 't'), 0, {1}, Bytes(4));
    const Bytes bytes = w.bytes();
    EXPECT_EQ(GgufFile::parse(bytes.data(), bytes.size(), "long.gguf")->entries()[0].key.size(), 65535u);
}

TEST(GgufReaderFiles, QuotedTextIsAlwaysPrintable) {
    EXPECT_EQ(quote_text("plain"), "'plain'");
    EXPECT_EQ(quote_text("h\u00e9 \U0001F999"), "'h\u00e9 \U0001F999'");
    EXPECT_EQ(quote_text(std::string_view("a\0b\nc\x7F", 6)), "'a?b?c?'");
    EXPECT_EQ(quote_text("\xFF\xC0\x80\xED\xA0\x80\xE2\x82"), std::string("'").append(8, '?') + "'");
    EXPECT_EQ(quote_text(std::string(1000, 'x')), std::string("'").append(80, 'x') + "...'");
}

// ---- the C interface

class GgufCApi : public testing::Test {
protected:
    void TearDown() override { lk_gguf_free(gguf_); }

    void open_valid() {
        const std::string path = folder_.write("every.gguf", every_type(3).bytes());
        ASSERT_EQ(lk_gguf_open(path.c_str(), &gguf_), LK_OK) << lk_last_error();
        ASSERT_NE(gguf_, nullptr);
    }

    // Expects the status and a message that contains text.
    static void expect_failure(lk_status actual, lk_status status, const std::string& text) {
        EXPECT_EQ(actual, status);
        EXPECT_NE(std::string(lk_last_error()).find(text), std::string::npos)
            << lk_last_error() << "\ndoes not contain " << text;
    }

    void expect_open_fails(const std::string& path, lk_status status, const std::string& text) {
        lk_gguf* out = reinterpret_cast<lk_gguf*>(16);
        expect_failure(lk_gguf_open(path.c_str(), &out), status, text);
        expect_failure(status, status, path);
        EXPECT_EQ(out, nullptr);
    }

    const test::TemporaryFolder folder_;
    lk_gguf* gguf_ = nullptr;
};

TEST_F(GgufCApi, FilesThatCannotBeOpened) {
    expect_open_fails(folder_.file("missing.gguf"), LK_IO_ERROR, "No such file");
    expect_open_fails(folder_.path().string(), LK_IO_ERROR, "directory");
    expect_open_fails(folder_.write("empty.gguf", {}), LK_BAD_FILE, "empty");
    expect_open_fails(folder_.write("text.gguf", Bytes(100, 'x')), LK_BAD_FILE, "magic");
#ifndef _WIN32
    const std::string fifo = folder_.file("fifo.gguf");
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    expect_open_fails(fifo, LK_IO_ERROR, "not a regular file");  // without waiting for a writer
#endif
}

TEST_F(GgufCApi, Describe) {
    open_valid();
    lk_gguf_info info;
    ASSERT_EQ(lk_gguf_describe(gguf_, &info), LK_OK);
    EXPECT_EQ(info.n_entries, 20u);
    EXPECT_EQ(info.n_tensors, 4u);
    EXPECT_EQ(info.version, 3u);
    EXPECT_EQ(info.alignment, 32u);
    EXPECT_EQ(info.file_size, every_type(3).bytes().size());
    EXPECT_LT(info.data_offset, info.file_size);
}

TEST_F(GgufCApi, Entries) {
    open_valid();
    lk_gguf_entry entry;
    ASSERT_EQ(lk_gguf_entry_at(gguf_, 12, &entry), LK_OK);
    EXPECT_STREQ(entry.key, "a.string");
    EXPECT_EQ(entry.type, LK_VALUE_STRING);
    EXPECT_EQ(std::string(static_cast<const char*>(entry.data), entry.count), "h\u00e9");
    expect_failure(lk_gguf_entry_at(gguf_, 20, &entry), LK_INVALID_ARGUMENT, "entry 20 does not exist; there are 20");
    expect_failure(lk_gguf_entry_at(gguf_, UINT64_MAX, &entry), LK_INVALID_ARGUMENT, "18446744073709551615");

    int32_t found = -1;
    ASSERT_EQ(lk_gguf_find(gguf_, "b.i16", &entry, &found), LK_OK);
    EXPECT_EQ(found, 1);
    EXPECT_EQ(entry.type, LK_VALUE_ARRAY);
    EXPECT_EQ(entry.element_type, LK_VALUE_INT16);
    EXPECT_EQ(entry.count, 3u);
    ASSERT_EQ(lk_gguf_find(gguf_, "b.strings", &entry, &found), LK_OK);
    EXPECT_EQ(entry.data, nullptr);
    EXPECT_EQ(entry.count, 3u);
    ASSERT_EQ(lk_gguf_find(gguf_, "nothing", &entry, &found), LK_OK);
    EXPECT_EQ(found, 0);
}

TEST_F(GgufCApi, Strings) {
    open_valid();
    const char* text = nullptr;
    uint64_t length = 0;
    ASSERT_EQ(lk_gguf_string(gguf_, "b.strings", 2, &text, &length), LK_OK);
    EXPECT_EQ(std::string(text, length), "\xFF\xFE three");
    ASSERT_EQ(lk_gguf_string(gguf_, "b.strings", 1, &text, &length), LK_OK);
    EXPECT_EQ(length, 0u);
    expect_failure(lk_gguf_string(gguf_, "b.strings", 3, &text, &length), LK_INVALID_ARGUMENT, "element 3");
    expect_failure(lk_gguf_string(gguf_, "nothing", 0, &text, &length), LK_INVALID_ARGUMENT, "'nothing'");
    expect_failure(lk_gguf_string(gguf_, "a.string", 0, &text, &length), LK_INVALID_ARGUMENT, "'a.string'");
    expect_failure(lk_gguf_string(gguf_, "b.i16", 0, &text, &length), LK_INVALID_ARGUMENT, "'b.i16'");
}

TEST_F(GgufCApi, Tensors) {
    open_valid();
    lk_gguf_tensor tensor;
    ASSERT_EQ(lk_gguf_tensor_at(gguf_, 1, &tensor), LK_OK);
    EXPECT_STREQ(tensor.name, "t.q8");
    EXPECT_STREQ(tensor.type_name, "Q8_0");
    EXPECT_EQ(tensor.shape[0], 32u);
    EXPECT_EQ(tensor.shape[2], 2u);
    EXPECT_EQ(tensor.shape[3], 1u);
    EXPECT_EQ(tensor.size, 68u);
    EXPECT_EQ(tensor.type, 8u);
    EXPECT_EQ(tensor.n_dims, 3u);
    ASSERT_EQ(lk_gguf_tensor_at(gguf_, 3, &tensor), LK_OK);
    EXPECT_EQ(tensor.type_name, nullptr);
    EXPECT_EQ(tensor.size, 0u);
    expect_failure(lk_gguf_tensor_at(gguf_, 4, &tensor), LK_INVALID_ARGUMENT, "tensor 4 does not exist; there are 4");
}

TEST_F(GgufCApi, NullArgumentsAreNamed) {
    open_valid();
    lk_gguf* gguf = nullptr;
    lk_gguf_info info;
    lk_gguf_entry entry;
    lk_gguf_tensor tensor;
    int32_t found;
    const char* text;
    uint64_t length;
    const auto names = [](lk_status status, const char* name) {
        expect_failure(status, LK_INVALID_ARGUMENT, format("'%s' is NULL", name));
    };
    names(lk_gguf_open(nullptr, &gguf), "path");
    names(lk_gguf_open("x", nullptr), "out");
    names(lk_gguf_describe(nullptr, &info), "gguf");
    names(lk_gguf_describe(gguf_, nullptr), "out");
    names(lk_gguf_entry_at(nullptr, 0, &entry), "gguf");
    names(lk_gguf_entry_at(gguf_, 0, nullptr), "out");
    names(lk_gguf_find(nullptr, "k", &entry, &found), "gguf");
    names(lk_gguf_find(gguf_, nullptr, &entry, &found), "key");
    names(lk_gguf_find(gguf_, "k", nullptr, &found), "out");
    names(lk_gguf_find(gguf_, "k", &entry, nullptr), "found");
    names(lk_gguf_string(nullptr, "k", 0, &text, &length), "gguf");
    names(lk_gguf_string(gguf_, nullptr, 0, &text, &length), "key");
    names(lk_gguf_string(gguf_, "k", 0, nullptr, &length), "text");
    names(lk_gguf_string(gguf_, "k", 0, &text, nullptr), "length");
    names(lk_gguf_tensor_at(nullptr, 0, &tensor), "gguf");
    names(lk_gguf_tensor_at(gguf_, 0, nullptr), "out");
    lk_gguf_free(nullptr);
}

TEST_F(GgufCApi, DemoModel) {
    const std::string path = LK_MODELS_DIR "/kivi-demo-llama-37m-q4_k_m.gguf";
    if (!std::filesystem::exists(path)) {
        GTEST_SKIP() << path << " does not exist";
    }
    ASSERT_EQ(lk_gguf_open(path.c_str(), &gguf_), LK_OK) << lk_last_error();
    lk_gguf_info info;
    ASSERT_EQ(lk_gguf_describe(gguf_, &info), LK_OK);
    EXPECT_GT(info.n_tensors, 0u);
    for (uint64_t i = 0; i < info.n_tensors; ++i) {
        lk_gguf_tensor tensor;
        ASSERT_EQ(lk_gguf_tensor_at(gguf_, i, &tensor), LK_OK);
        EXPECT_NE(tensor.type_name, nullptr) << tensor.name;
        EXPECT_LE(info.data_offset + tensor.offset + tensor.size, info.file_size) << tensor.name;
    }
    lk_gguf_entry entry;
    int32_t found = 0;
    ASSERT_EQ(lk_gguf_find(gguf_, "general.architecture", &entry, &found), LK_OK);
    ASSERT_EQ(found, 1);
    EXPECT_EQ(std::string(static_cast<const char*>(entry.data), entry.count), "llama");
}

}  // namespace
}  // namespace lk
