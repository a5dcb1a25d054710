// Checked access to the metadata of one architecture: keys PREFIX.name.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "gguf/reader.h"

namespace lk {

// Throws LK_BAD_FILE or LK_UNSUPPORTED; messages name the file and the key.
class MetadataKeys {
public:
    MetadataKeys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

    const GgufFile& file() const { return file_; }
    std::string key(const char* name) const { return prefix_ + "." + name; }
    bool has(const char* name) const { return file_.find(key(name)) != nullptr; }

    int count(const char* name, int max) const;  // 1..max
    int count_or(const char* name, int max, int fallback) const { return has(name) ? count(name, max) : fallback; }
    // A scalar, or an array of equal elements.
    int uniform_count_or(const char* name, int max, int fallback) const;
    float positive(const char* name, float fallback) const;

private:
    void check(const char* name, uint32_t value, int max) const;

    const GgufFile& file_;
    std::string prefix_;
};

}  // namespace lk
