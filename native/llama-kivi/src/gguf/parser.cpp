#include "gguf/reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "gguf/byte_reader.h"
#include "gguf/text.h"
#include "llama_kivi.h"
#include "quant/blocks.h"

namespace lk {

namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr const char* kAlignmentKey = "general.alignment";

// Minimum size of an entry: length of the key, type, one byte of value.
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;
// Minimum size of a tensor: length of the name, n_dims, one dimension, type, offset.
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

}  // namespace

// Reads the file front to back.
class GgufFile::Parser : ByteReader {
public:
    explicit Parser(GgufFile& file) : ByteReader(file.bytes_, file.size_, file.name_), file_(file) {}

    void run() {
        read_header();
        for (uint64_t i = 0; i < n_entries_; ++i) {
            read_entry(i);
        }
        read_alignment();
        for (uint64_t i = 0; i < n_tensors_; ++i) {
            read_tensor(i);
        }
        place_data();
    }

private:
    void read_header() {
        where_ = "header";
        if (file_.size_ == 0) {
            fail(0, "the file is empty, expected GGUF");
        }
        const uint8_t* magic = take(4, "magic");
        if (std::memcmp(magic, "GGUF", 4) != 0) {
            fail(0, format("magic is %02x %02x %02x %02x, expected 47 47 55 46 (\"GGUF\")", magic[0], magic[1],
                           magic[2], magic[3]));
        }
        file_.version_ = read<uint32_t>("version");
        if (file_.version_ != 0 && (file_.version_ & 0xFFFFu) == 0) {
            fail(4, format("version is 0x%08x: this is a big-endian file, expected little-endian", file_.version_));
        }
        if (file_.version_ != 2 && file_.version_ != 3) {
            fail(4, format("version is %u, expected 2 or 3", file_.version_));
        }
        n_tensors_ = read<uint64_t>("tensor count");
        n_entries_ = read<uint64_t>("entry count");
        check_count(8, "tensors", n_tensors_, kMinTensorBytes);
        check_count(16, "entries", n_entries_, kMinEntryBytes);
    }

    void read_entry(uint64_t index) {
        where_ = format("entry %llu", static_cast<ull>(index));
        const uint64_t at = pos_;
        const std::string_view key = read_name("key", kMaxKeyBytes);
        where_ = "key " + quote_text(key);
        if (!file_.entry_index_.emplace(key, file_.entries_.size()).second) {
            fail(at, "duplicate key, expected each key once");
        }
        Entry entry{std::string(key), LK_VALUE_UINT8, LK_VALUE_UINT8, 1, nullptr, {}};
        entry.type = read_type("value type");
        entry.element_type = entry.type;
        if (entry.type == LK_VALUE_ARRAY) {
            read_array(entry);
        } else if (entry.type == LK_VALUE_STRING) {
            const std::string_view text = read_string("string");
            entry.data = reinterpret_cast<const uint8_t*>(text.data());
            entry.count = text.size();
        } else {
            read_numbers(entry);
        }
        file_.entries_.push_back(std::move(entry));
    }

    void read_array(Entry& entry) {
        const uint64_t type_at = pos_;
        entry.element_type = read_type("array element type");
        if (entry.element_type == LK_VALUE_ARRAY) {
            fail(type_at, "array of arrays, expected an array of numbers, bools or strings");
        }
        const uint64_t count_at = pos_;
        entry.count = read<uint64_t>("array count");
        if (entry.element_type != LK_VALUE_STRING) {
            check_count(count_at, "array elements", entry.count, scalar_bytes(entry.element_type));
            read_numbers(entry);
            return;
        }
        check_count(count_at, "strings", entry.count, sizeof(uint64_t));
        entry.strings.reserve(static_cast<size_t>(entry.count));
        for (uint64_t i = 0; i < entry.count; ++i) {
            entry.strings.push_back(read_string("string in an array"));
        }
    }

    // A number or bool, or an array of them. check_count has bounded an array's count, so its size cannot overflow.
    void read_numbers(Entry& entry) {
        const uint64_t at = pos_;
        entry.data = take(entry.count * scalar_bytes(entry.element_type), value_type_name(entry.element_type));
        if (entry.element_type == LK_VALUE_BOOL) {
            for (uint64_t i = 0; i < entry.count; ++i) {
                if (entry.data[i] > 1) {
                    fail(at + i, format("bool is %u, expected 0 or 1", entry.data[i]));
                }
            }
        }
    }

    void read_alignment() {
        const Entry* entry = file_.find(kAlignmentKey);
        if (entry == nullptr) {
            return;
        }
        where_ = "key " + quote_text(kAlignmentKey);
        if (entry->type == LK_VALUE_ARRAY) {
            fail(pos_, "type is array, expected an integer");
        }
        file_.alignment_ = file_.u32_at(*entry, 0);
        if (!is_alignment(file_.alignment_)) {
            fail(static_cast<uint64_t>(entry->data - file_.bytes_),
                 format("alignment is %u, expected a power of two from %u to %u", file_.alignment_, kMinAlignment,
                        kMaxAlignment));
        }
    }

    void read_tensor(uint64_t index) {
        where_ = format("tensor %llu", static_cast<ull>(index));
        const uint64_t name_at = pos_;
        const std::string_view name = read_name("tensor name", kMaxTensorNameBytes);
        where_ = "tensor " + quote_text(name);
        if (!file_.tensor_index_.emplace(name, file_.tensors_.size()).second) {
            fail(name_at, "duplicate tensor name, expected each name once");
        }
        TensorInfo tensor{std::string(name), 0, 0, {1, 1, 1, 1}, 0, 0};
        const uint64_t dims_at = pos_;
        tensor.n_dims = read<uint32_t>("dimension count");
        if (tensor.n_dims < 1 || tensor.n_dims > 4) {
            fail(dims_at, format("%u dimensions, expected 1 to 4", tensor.n_dims));
        }
        uint64_t elements = 1;
        for (uint32_t d = 0; d < tensor.n_dims; ++d) {
            const uint64_t at = pos_;
            const uint64_t length = read<uint64_t>("dimension");
            if (length == 0) {
                fail(at, format("dimension %u is 0, expected at least 1", d));
            }
            if (__builtin_mul_overflow(elements, length, &elements) || elements > INT64_MAX) {
                fail(at, format("dimension %u is %llu: the tensor has more than 2^63 - 1 elements", d,
                                static_cast<ull>(length)));
            }
            tensor.shape[d] = length;
        }
        const uint64_t type_at = pos_;
        tensor.type = read<uint32_t>("tensor type");
        if (const WeightTypeTraits* traits = weight_type_traits(tensor.type)) {
            if (tensor.shape[0] % traits->block_elements != 0) {
                fail(type_at, format("rows of %llu elements, expected a multiple of %u for %s",
                                     static_cast<ull>(tensor.shape[0]), traits->block_elements, traits->name));
            }
            if (__builtin_mul_overflow(elements / traits->block_elements, traits->block_bytes, &tensor.size)) {
                fail(type_at,
                     format("%llu elements of %s take 2^64 bytes or more", static_cast<ull>(elements), traits->name));
            }
        }
        offset_at_.push_back(pos_);
        tensor.offset = read<uint64_t>("tensor offset");
        file_.tensors_.push_back(std::move(tensor));
    }

    // Offsets are checked here, because the data section starts after the last tensor's description.
    void place_data() {
        where_ = "data section";
        const uint64_t mask = file_.alignment_ - 1;
        const uint64_t start = (pos_ + mask) & ~mask;
        if (start > file_.size_ && n_tensors_ != 0) {  // without tensors the padding may be missing
            fail(pos_, format("it starts at byte %llu, but the file has %llu bytes", static_cast<ull>(start),
                              static_cast<ull>(file_.size_)));
        }
        file_.data_offset_ = std::min(start, file_.size_);
        const uint64_t data_size = file_.size_ - file_.data_offset_;
        for (size_t i = 0; i < file_.tensors_.size(); ++i) {
            const TensorInfo& tensor = file_.tensors_[i];
            where_ = "tensor " + quote_text(tensor.name);
            if ((tensor.offset & mask) != 0) {
                fail(offset_at_[i], format("offset %llu, expected a multiple of the alignment %u",
                                           static_cast<ull>(tensor.offset), file_.alignment_));
            }
            if (tensor.offset > data_size || tensor.size > data_size - tensor.offset) {
                fail(offset_at_[i], format("offset %llu and size %llu exceed the data section of %llu bytes",
                                           static_cast<ull>(tensor.offset), static_cast<ull>(tensor.size),
                                           static_cast<ull>(data_size)));
            }
        }
        refuse_overlap();
    }

    // Tensors must not share bytes: a small file could otherwise declare a huge model. A tensor of an unknown type has
    // an unknown size and counts as one byte.
    void refuse_overlap() {
        std::vector<size_t> order(file_.tensors_.size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
            return std::pair(file_.tensors_[a].offset, a) < std::pair(file_.tensors_[b].offset, b);
        });
        for (size_t i = 1; i < order.size(); ++i) {
            const TensorInfo& before = file_.tensors_[order[i - 1]];
            const TensorInfo& tensor = file_.tensors_[order[i]];
            const uint64_t end = before.offset + std::max<uint64_t>(before.size, 1);
            if (tensor.offset < end) {
                where_ = "tensor " + quote_text(tensor.name);
                fail(
                    offset_at_[order[i]],
                    format("offset %llu is inside the data of tensor %s (bytes %llu to %llu), expected tensors that do "
                           "not overlap",
                           static_cast<ull>(tensor.offset), quote_text(before.name).c_str(),
                           static_cast<ull>(before.offset), static_cast<ull>(end)));
            }
        }
    }

    GgufFile& file_;
    uint64_t n_entries_ = 0;
    uint64_t n_tensors_ = 0;
    std::vector<uint64_t> offset_at_;  // file position of each tensor's offset field
};

std::unique_ptr<GgufFile> GgufFile::open(const std::string& path) {
    MappedFile mapping(path);
    std::unique_ptr<GgufFile> file = parse(mapping.data(), mapping.size(), path);
    file->mapping_ = std::move(mapping);  // does not move the bytes
    return file;
}

std::unique_ptr<GgufFile> GgufFile::parse(const uint8_t* bytes, size_t size, std::string name) {
    std::unique_ptr<GgufFile> file(new GgufFile());
    file->bytes_ = bytes;
    file->size_ = size;
    file->name_ = std::move(name);
    Parser(*file).run();
    return file;
}

}  // namespace lk
