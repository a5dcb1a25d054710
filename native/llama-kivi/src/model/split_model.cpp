#include "model/split_model.h"

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "gguf/reader.h"
#include "llama_kivi.h"

namespace lk {

namespace {

constexpr size_t kDigits = 5;
constexpr std::string_view kExtension = ".gguf";
constexpr std::string_view kOf = "-of-";

// Removes a number of kDigits digits from the end of text and returns it.
std::optional<uint32_t> take_number(std::string_view& text) {
    if (text.size() < kDigits) {
        return std::nullopt;
    }
    uint32_t value = 0;
    for (const char c : text.substr(text.size() - kDigits)) {
        if (!std::isdigit(static_cast<unsigned char>(c))) {
            return std::nullopt;
        }
        value = value * 10 + static_cast<uint32_t>(c - '0');
    }
    text.remove_suffix(kDigits);
    return value;
}

bool take(std::string_view& text, std::string_view end) {
    if (!text.ends_with(end)) {
        return false;
    }
    text.remove_suffix(end.size());
    return true;
}

}  // namespace

SplitPart split_part(const GgufFile& file) {
    const uint32_t count = file.get_u32_or("split.count", 1);
    if (count <= 1) {
        return {};
    }
    const uint32_t number = file.get_u32_or("split.no", 0);
    LK_CHECK(number < count, LK_BAD_FILE, "%s: key 'split.no' is %u, but 'split.count' is %u", file.name().c_str(),
             number, count);
    return {number + 1, count};
}

SplitPart split_part(const std::string& path) {
    std::string_view rest = path;
    if (!take(rest, kExtension)) {
        return {};
    }
    const std::optional<uint32_t> count = take_number(rest);
    if (!count || !take(rest, kOf)) {
        return {};
    }
    const std::optional<uint32_t> number = take_number(rest);
    if (!number || !rest.ends_with('-') || *number < 1 || *number > *count) {
        return {};
    }
    return {*number, *count};
}

std::string describe_split(const std::string& path, const SplitPart& part) {
    const SplitPart named = split_part(path);
    std::string first;
    if (named.count == part.count) {
        const size_t digits = path.size() - kExtension.size() - kDigits - kOf.size() - kDigits;
        first = path.substr(0, digits) + "00001" + path.substr(digits + kDigits);
    }
    return format(
        "part %u of %u of a split model, which cannot be loaded yet; merge the parts into one file, starting with the "
        "first part%s: llama-gguf-split --merge %s merged.gguf",
        part.number, part.count, part.number == 1 ? " (this file)" : "", first.empty() ? "FIRST-PART" : first.c_str());
}

void refuse_split(const GgufFile& file) {
    const SplitPart part = split_part(file);
    LK_CHECK(part.count == 1, LK_UNSUPPORTED, "%s: the file is %s", file.name().c_str(),
             describe_split(file.name(), part).c_str());
}

}  // namespace lk
