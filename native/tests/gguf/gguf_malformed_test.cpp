// Malformed files. For any bytes, the reader either accepts them or throws LK_BAD_FILE with a message that names the
// file and the fault.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <typeinfo>
#include <vector>

#include "base/error.h"
#include "gguf/reader.h"
#include "support/gguf_writer.h"

namespace lk {
namespace {

using test::GgufWriter;
using Bytes = GgufWriter::Bytes;

constexpr const char* kName = "some folder/broken.gguf";
constexpr uint64_t kHugeCounts[] = {1ull << 31,     1ull << 32,       1ull << 60,         1ull << 61,
                                    1ull << 62,     (1ull << 63) - 1, 1ull << 63,         UINT64_MAX,
                                    UINT64_MAX - 1, UINT64_MAX / 2,   UINT64_MAX / 8 + 1, UINT64_MAX - 31};

// Parses the bytes and, if accepted, reads everything that the reader returns. The bytes are copied to memory of
// exactly their size, so that a sanitizer detects access past the end. Returns the message, or "" if accepted.
std::string outcome(const Bytes& bytes) {
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    try {
        const auto file = GgufFile::parse(exact.get(), bytes.size(), kName);
        uint64_t sum = 0;
        const auto touch = [&](const void* data, uint64_t size) {
            for (uint64_t i = 0; i < size; ++i) {
                sum += static_cast<const uint8_t*>(data)[i];
            }
        };
        for (const GgufEntry& entry : file->entries()) {
            EXPECT_EQ(file->find(entry.key), &entry);
            if (entry.data != nullptr) {
                touch(entry.data, entry.count);  // at least one byte per element
            }
            for (const std::string_view string : entry.strings) {
                touch(string.data(), string.size());
            }
        }
        for (const TensorInfo& tensor : file->tensors()) {
            EXPECT_EQ(file->find_tensor(tensor.name), &tensor);
            EXPECT_GT(tensor.elements(), 0u);
            touch(file->tensor_data(tensor), tensor.size);
        }
        volatile uint64_t kept = sum;
        static_cast<void>(kept);
        return "";
    } catch (const Error& e) {
        const std::string message = e.what();
        EXPECT_EQ(e.status(), LK_BAD_FILE) << message;
        EXPECT_EQ(message.rfind(kName, 0), 0u) << message;
        EXPECT_GT(message.size(), std::string(kName).size() + 10) << message;
        return message;
    } catch (const std::exception& e) {
        ADD_FAILURE() << typeid(e).name() << ": " << e.what();
        return e.what();
    }
}

void expect_refused(const Bytes& bytes, const std::vector<std::string>& texts) {
    const std::string message = outcome(bytes);
    EXPECT_FALSE(message.empty()) << "accepted, expected a message with " << texts[0];
    for (const std::string& text : texts) {
        EXPECT_NE(message.find(text), std::string::npos) << message << "\ndoes not contain " << text;
    }
}

GgufWriter small() {
    GgufWriter w;
    w.string("general.architecture", "llama").u32("n", 7).boolean("flag", true).f64("x", 0.5);
    w.strings("tokens", {"<s>", "a", "\u00e9"}).array<float>("scores", LK_VALUE_FLOAT32, {0, -1, -2});
    w.alignment(16).array<uint8_t>("bools", LK_VALUE_BOOL, {0, 1, 1});
    w.tensor("one", 0, {4, 3}, Bytes(48, 1)).tensor("two", 8, {32, 2}, Bytes(68, 2));
    w.tensor("three", 12, {256}, Bytes(144, 3)).tensor("four", 200, {5}, Bytes(4, 4));
    return w;
}

template <class T>
Bytes patched(Bytes bytes, size_t offset, T value) {
    GgufWriter::patch(bytes, offset, value);
    return bytes;
}

template <class T>
Bytes bytes_of(std::initializer_list<T> values) {
    Bytes out;
    for (const T value : values) {
        GgufWriter::append(out, value);
    }
    return out;
}

TEST(GgufMalformed, TruncatedAtEveryByte) {
    const Bytes whole = small().bytes();
    ASSERT_EQ(outcome(whole), "");
    // The last tensor's type is unknown, so its 4 bytes and the padding before them are not needed.
    const size_t needed = whole.size() - 4;
    for (size_t size = 0; size < whole.size(); ++size) {
        const std::string message = outcome(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
        if (size < needed) {
            ASSERT_FALSE(message.empty()) << "accepted with " << size << " of " << whole.size() << " bytes";
        }
    }
}

TEST(GgufMalformed, Magic) {
    const Bytes whole = small().bytes();
    for (size_t i = 0; i < 4; ++i) {
        expect_refused(patched<uint8_t>(whole, i, whole[i] ^ 0x20), {"magic", "47 47 55 46"});
    }
    expect_refused({}, {"empty"});
    expect_refused({'G', 'G', 'U'}, {"magic", "3 are left"});
}

TEST(GgufMalformed, Versions) {
    const Bytes whole = small().bytes();
    for (const uint32_t version : {0u, 1u, 4u, 0xFFFFFFFFu}) {
        expect_refused(patched(whole, GgufWriter::kVersionOffset, version),
                       {"version is " + std::to_string(version), "expected 2 or 3"});
    }
    expect_refused(patched(whole, GgufWriter::kVersionOffset, 0x03000000u), {"big-endian"});
    expect_refused(patched(whole, GgufWriter::kVersionOffset, 0x02000000u), {"big-endian"});
}

TEST(GgufMalformed, HugeCounts) {
    const Bytes whole = small().bytes();
    for (const uint64_t count : kHugeCounts) {
        const std::string text = std::to_string(count);
        expect_refused(patched(whole, GgufWriter::kTensorCountOffset, count), {text + " tensors", "header"});
        expect_refused(patched(whole, GgufWriter::kEntryCountOffset, count), {text + " entries", "header"});
        // Patches the length of the first key.
        expect_refused(patched(whole, GgufWriter::kHeaderBytes, count), {"key is " + text + " bytes", "65535"});
        const Bytes string = GgufWriter().raw_entry("s", LK_VALUE_STRING, bytes_of({count})).u8("after", 1).bytes();
        expect_refused(string, {"key 's'", "takes " + text + " bytes"});
        for (uint32_t type = 0; type <= LK_VALUE_FLOAT64; ++type) {
            if (type == LK_VALUE_ARRAY) {
                continue;
            }
            Bytes value = bytes_of({type});
            GgufWriter::append(value, count);
            const Bytes array = GgufWriter().raw_entry("list", LK_VALUE_ARRAY, value).u8("after", 1).bytes();
            expect_refused(array, {"key 'list'", text});
        }
        Bytes inner = bytes_of<uint32_t>({LK_VALUE_STRING});
        GgufWriter::append(inner, uint64_t{1});
        GgufWriter::append(inner, count);
        expect_refused(GgufWriter().raw_entry("list", LK_VALUE_ARRAY, inner).u8("after", 1).bytes(),
                       {"key 'list'", "string in an array takes " + text});
        expect_refused(GgufWriter().raw_tensor("t", 1, {count, 1}, 0, 0).bytes(), {"tensor 't'"});
        // Patches the length of the tensor's name, which directly follows the header.
        Bytes name = GgufWriter().tensor("t", 0, {1}, Bytes(4)).bytes();
        expect_refused(patched(name, GgufWriter::kHeaderBytes, count), {"tensor 0", "name is " + text});
    }
    // A count that is too large by one.
    expect_refused(patched<uint64_t>(GgufWriter().u8("k", 1).bytes(), GgufWriter::kEntryCountOffset, 2), {"2 entries"});
    expect_refused(patched<uint64_t>(whole, GgufWriter::kEntryCountOffset, 9),
                   {"tensor 0"});  // the first tensor is read as an entry
    expect_refused(patched<uint64_t>(whole, GgufWriter::kTensorCountOffset, 5),
                   {"0 dimensions"});  // the padding is read as a tensor
}

TEST(GgufMalformed, Alignments) {
    const auto file = [](uint32_t alignment) {
        return GgufWriter().u32("general.alignment", alignment).tensor("t", 0, {8}, Bytes(32)).bytes();
    };
    for (const uint32_t alignment : {0u, 1u, 2u, 3u, 31u, 33u, 1u << 17, 1u << 20, 1u << 31, 0xFFFFFFFFu}) {
        expect_refused(file(alignment),
                       {"'general.alignment'", "is " + std::to_string(alignment), "power of two from 4 to 65536"});
    }
    expect_refused(GgufWriter().u64("general.alignment", 1ull << 32).bytes(), {"'general.alignment'", "4294967296"});
    expect_refused(GgufWriter().f32("general.alignment", 32).bytes(), {"'general.alignment'", "f32", "an integer"});
    expect_refused(GgufWriter().string("general.alignment", "32").bytes(), {"'general.alignment'", "string"});
    expect_refused(GgufWriter().strings("general.alignment", {"32"}).bytes(), {"'general.alignment'", "array"});
    expect_refused(GgufWriter().array<uint32_t>("general.alignment", LK_VALUE_UINT32, {}).bytes(), {"array"});
}

TEST(GgufMalformed, Duplicates) {
    expect_refused(GgufWriter().u8("twice", 1).u8("other", 1).string("twice", "x").bytes(), {"duplicate", "'twice'"});
    GgufWriter w;
    w.tensor("same", 0, {1}, Bytes(4)).tensor("other", 0, {1}, Bytes(4)).tensor("same", 1, {2}, Bytes(4));
    expect_refused(w.bytes(), {"duplicate", "tensor 'same'"});
}

TEST(GgufMalformed, Keys) {
    const std::string bad[] = {"\xFF",
                               "a\x80",
                               "\xC0\x80",
                               "\xC1\xBF",
                               "\xE0\x9F\xBF",
                               "\xED\xA0\x80",
                               "\xF0\x8F\x80\x80",
                               "\xF4\x90\x80\x80",
                               "\xF5\x80\x80\x80",
                               "end\xE2\x82",
                               "\xC3",
                               std::string("nul\0", 4)};
    for (const std::string& key : bad) {
        expect_refused(GgufWriter().u8("good", 1).u8(key, 1).bytes(), {"entry 1", "not valid UTF-8"});
        expect_refused(GgufWriter().tensor(key, 0, {1}, Bytes(4)).bytes(), {"tensor 0", "not valid UTF-8"});
    }
    for (const char* key : {"", "\u00e9", "\u20ac", "\U0001F999", "\xF4\x8F\xBF\xBF", "\xEE\x80\x80", "\xED\x9F\xBF"}) {
        EXPECT_EQ(outcome(GgufWriter().u8(key, 1).bytes()), "");
    }
    expect_refused(GgufWriter().u8(std::string(65536, 'k'), 1).bytes(), {"65536", "at most 65535"});
    expect_refused(GgufWriter().tensor(std::string(65, 't'), 0, {1}, Bytes(4)).bytes(), {"65", "at most 64"});
}

TEST(GgufMalformed, Values) {
    for (const uint32_t type : {13u, 255u, 0x80000000u, 0xFFFFFFFFu}) {
        expect_refused(GgufWriter().raw_entry("k", type, Bytes(16)).bytes(),
                       {"key 'k'", "value type " + std::to_string(type)});
        Bytes array = bytes_of({type});
        GgufWriter::append(array, uint64_t{0});
        expect_refused(GgufWriter().raw_entry("k", LK_VALUE_ARRAY, array).bytes(),
                       {"key 'k'", "element type " + std::to_string(type)});
    }
    Bytes nested = bytes_of<uint32_t>({LK_VALUE_ARRAY});
    GgufWriter::append(nested, uint64_t{1});
    nested.resize(100);
    expect_refused(GgufWriter().raw_entry("k", LK_VALUE_ARRAY, nested).bytes(), {"key 'k'", "array of arrays"});
    for (const uint8_t value : {uint8_t{2}, uint8_t{255}}) {
        const std::string text = "bool is " + std::to_string(value);
        expect_refused(GgufWriter().raw_entry("k", LK_VALUE_BOOL, {value}).bytes(), {"key 'k'", text});
        expect_refused(GgufWriter().array<uint8_t>("k", LK_VALUE_BOOL, {1, 0, value}).bytes(), {"key 'k'", text});
    }
}

TEST(GgufMalformed, Dimensions) {
    expect_refused(GgufWriter().raw_tensor("t", 0, {}, 0, 0).raw_tensor("u", 1, {1}, 0, 0).bytes(),
                   {"tensor 't'", "0 dimensions", "1 to 4"});
    expect_refused(GgufWriter().raw_tensor("t", 5, {1, 1, 1, 1, 1}, 0, 0).bytes(), {"tensor 't'", "5 dimensions"});
    expect_refused(GgufWriter().raw_tensor("t", 0xFFFFFFFFu, {1}, 0, 0).bytes(), {"tensor 't'", "4294967295 dim"});
    for (size_t zero = 0; zero < 4; ++zero) {
        std::vector<uint64_t> shape(4, 2);
        shape[zero] = 0;
        expect_refused(GgufWriter().tensor("t", 0, shape, Bytes(64)).bytes(),
                       {"tensor 't'", "dimension " + std::to_string(zero) + " is 0"});
    }
    // Element counts that wrap to 0, to a small number, or to a negative number.
    const std::vector<std::vector<uint64_t>> shapes = {{1ull << 32, 1ull << 32},
                                                       {1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16},
                                                       {(1ull << 32) + 32, 1ull << 32},
                                                       {0xAAAAAAAAAAAAAAABull, 3},
                                                       {1ull << 63},
                                                       {UINT64_MAX, UINT64_MAX},
                                                       {1ull << 31, 1ull << 32},
                                                       {32, 1ull << 59, 2}};
    for (const std::vector<uint64_t>& shape : shapes) {
        for (const uint32_t type : {0u, 1u, 8u, 12u, 99u}) {
            expect_refused(GgufWriter().tensor("t", type, shape, Bytes(64)).bytes(), {"tensor 't'", "2^63"});
        }
    }
    // The element count fits 64 bits, the byte count does not.
    expect_refused(GgufWriter().tensor("t", 0, {1ull << 62}, Bytes(64)).bytes(), {"tensor 't'", "F32", "2^64 bytes"});
    expect_refused(GgufWriter().tensor("t", 1, {1ull << 62}, Bytes(64)).bytes(), {"tensor 't'", "data section"});
}

TEST(GgufMalformed, RowsOfBrokenBlocks) {
    expect_refused(GgufWriter().tensor("t", 8, {33}, Bytes(68)).bytes(),
                   {"tensor 't'", "33", "multiple of 32", "Q8_0"});
    expect_refused(GgufWriter().tensor("t", 12, {128, 2}, Bytes(144)).bytes(),
                   {"tensor 't'", "128", "multiple of 256", "Q4_K"});
}

TEST(GgufMalformed, Offsets) {
    const auto file = [](uint64_t offset, uint32_t type = 0) {
        GgufWriter w;
        return w.tensor("data", 0, {32}, Bytes(128)).raw_tensor("t", 1, {16}, type, offset).bytes();
    };
    for (const uint64_t offset : {uint64_t{1}, uint64_t{31}, uint64_t{33}, UINT64_MAX, (uint64_t{1} << 63) + 4}) {
        expect_refused(file(offset), {"tensor 't'", std::to_string(offset), "multiple of the alignment 32"});
    }
    for (const uint64_t offset : {uint64_t{96}, uint64_t{128}, uint64_t{160}, uint64_t{1} << 62, uint64_t{1} << 63,
                                  UINT64_MAX - 31, UINT64_MAX - 63}) {
        expect_refused(file(offset), {"tensor 't'", std::to_string(offset), "data section of 128 bytes"});
    }
    // A tensor of unknown type has no size to check, but its offset must still be inside the data section.
    EXPECT_EQ(outcome(file(128, 99)), "");
    expect_refused(file(160, 99), {"tensor 't'", "160"});
}

// Tensors that overlap completely, partially, or one inside another, in any file order.
TEST(GgufMalformed, TensorsThatShareBytes) {
    const auto file = [](uint64_t offset, uint32_t type = 0, uint64_t length = 8) {
        GgufWriter w;
        w.raw_tensor("before", 1, {length}, type, offset).tensor("data", 0, {32}, Bytes(128));
        return w.tensor("rest", 0, {8}, Bytes(32)).bytes();
    };
    for (const uint64_t offset : {0, 32, 64, 96}) {
        expect_refused(file(offset), {offset == 0 ? "tensor 'data'" : "tensor 'before'",
                                      offset == 0 ? "of tensor 'before'" : "of tensor 'data'", "not overlap"});
        // A tensor of unknown type still has a known first byte.
        expect_refused(file(offset, 99), {"'before'", "'data'", "not overlap"});
    }
    expect_refused(file(64, 0, 24),
                   {"'before'", "'data'", "bytes 0 to 128"});  // overlaps the end of one tensor and the start of two
    expect_refused(file(128), {"'before'", "'rest'"});
    GgufWriter many;
    many.tensor("t", 0, {64}, Bytes(256));
    for (int i = 0; i < 1000; ++i) {
        many.raw_tensor(format("t%d", i), 1, {64}, 0, 0);
    }
    expect_refused(many.bytes(), {"tensor 't0'", "of tensor 't'"});
}

TEST(GgufMalformed, MessagesStayPrintable) {
    const std::string message = outcome(GgufWriter().raw_entry("line\nbreak\x1B[2J", 77, {}).bytes());
    EXPECT_NE(message.find("'line?break?[2J'"), std::string::npos) << message;
    for (const char c : message) {
        EXPECT_TRUE(static_cast<uint8_t>(c) >= 0x20) << message;
    }
}

TEST(GgufMalformed, RandomMutations) {
    const Bytes whole = small().bytes();
    std::mt19937 random(7);
    const auto draw = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
    // Mutates only the structure at the start of the file; the data after it is not checked.
    const size_t structure = GgufFile::parse(whole.data(), whole.size(), kName)->data_offset();
    constexpr uint8_t kTelling[] = {0, 1, 2, 0x7F, 0x80, 0xFF};
    int refused = 0;
    constexpr int kRounds = 20000;
    for (int round = 0; round < kRounds && !testing::Test::HasFailure(); ++round) {
        Bytes bytes = whole;
        for (size_t n = 1 + draw(round % 2 == 0 ? 1 : 8); n > 0; --n) {
            const size_t at = draw(structure);
            switch (draw(4)) {
            case 0:
                bytes[at] = static_cast<uint8_t>(draw(256));
                break;
            case 1:
                bytes[at] ^= static_cast<uint8_t>(1u << draw(8));
                break;
            case 2:
                bytes[at] = kTelling[draw(std::size(kTelling))];
                break;
            default:  // a whole field
                for (size_t i = at; i < std::min(at + 8, structure); ++i) {
                    bytes[i] = kTelling[draw(std::size(kTelling))];
                }
                break;
            }
        }
        refused += outcome(bytes).empty() ? 0 : 1;
    }
    // Some are accepted and some rejected, so the mutations reach the checks.
    EXPECT_GT(refused, kRounds / 4);
    EXPECT_LT(refused, kRounds);
}

}  // namespace
}  // namespace lk
