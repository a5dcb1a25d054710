#include "gguf/reader.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "llama_kivi.h"

namespace lk {

void GgufFile::set(const lk_metadata_override& o) {
    LK_CHECK(o.key != nullptr && *o.key != 0, LK_INVALID_ARGUMENT, "a metadata override has no key");
    std::string value;
    const auto store = [&](const auto& x) { value.assign(reinterpret_cast<const char*>(&x), sizeof(x)); };
    switch (o.type) {
    case LK_VALUE_BOOL:
        store(static_cast<uint8_t>(o.integer != 0));
        break;
    case LK_VALUE_INT64:
        store(o.integer);
        break;
    case LK_VALUE_FLOAT64:
        store(o.real);
        break;
    case LK_VALUE_STRING:
        LK_CHECK(o.text != nullptr, LK_INVALID_ARGUMENT, "the override of '%s' has type STRING, but its text is NULL",
                 o.key);
        value = o.text;
        break;
    default:
        LK_FAIL(LK_INVALID_ARGUMENT, "the override of '%s' has type %d; it must be BOOL, INT64, FLOAT64 or STRING",
                o.key, static_cast<int>(o.type));
    }
    const uint64_t count = o.type == LK_VALUE_STRING ? value.size() : 1;
    const std::string& kept = set_.emplace_back(std::move(value));
    Entry entry{o.key, o.type, o.type, count, reinterpret_cast<const uint8_t*>(kept.data()), {}};
    if (const auto found = entry_index_.find(entry.key); found != entry_index_.end()) {
        entries_[found->second] = std::move(entry);
    } else {
        entry_index_.emplace(set_.emplace_back(entry.key), entries_.size());
        entries_.push_back(std::move(entry));
    }
}

void GgufFile::release_file() {
    std::vector<uint8_t> copy(bytes_, bytes_ + data_offset_);
    const auto moved = [&](const uint8_t* p) {
        const auto at = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(bytes_);
        return p != nullptr && at < data_offset_ ? copy.data() + at : p;  // set_ is elsewhere
    };
    const auto view = [&](std::string_view s) {
        return std::string_view(reinterpret_cast<const char*>(moved(reinterpret_cast<const uint8_t*>(s.data()))),
                                s.size());
    };
    const auto rekey = [&](std::unordered_map<std::string_view, size_t>& index) {
        std::unordered_map<std::string_view, size_t> other;
        for (const auto& [key, at] : index) {
            other.emplace(view(key), at);
        }
        index = std::move(other);
    };
    rekey(entry_index_);
    rekey(tensor_index_);
    for (Entry& entry : entries_) {
        entry.data = moved(entry.data);
        for (std::string_view& s : entry.strings) {
            s = view(s);
        }
    }
    metadata_ = std::move(copy);  // does not move the bytes
    bytes_ = metadata_.data();
    const MappedFile unmapped = std::move(mapping_);
}

const GgufEntry* GgufFile::find(std::string_view key) const {
    const auto found = entry_index_.find(key);
    return found == entry_index_.end() ? nullptr : &entries_[found->second];
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
    const auto found = tensor_index_.find(name);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace lk
