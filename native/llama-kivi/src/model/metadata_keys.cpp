#include "model/metadata_keys.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "llama_kivi.h"

namespace lk {

int MetadataKeys::count(const char* name, int max) const {
    const uint32_t value = file_.get_u32(key(name));
    check(name, value, max);
    return static_cast<int>(value);
}

int MetadataKeys::uniform_count_or(const char* name, int max, int fallback) const {
    if (!has(name)) {
        return fallback;
    }
    const std::vector<uint32_t> values = file_.get_u32_array(key(name));
    LK_CHECK(!values.empty(), LK_BAD_FILE, "%s: key '%s' is an empty array", file_.name().c_str(), key(name).c_str());
    for (const uint32_t v : values) {
        LK_CHECK(v == values[0], LK_UNSUPPORTED, "%s: key '%s' differs between layers, which is not supported",
                 file_.name().c_str(), key(name).c_str());
    }
    check(name, values[0], max);
    return static_cast<int>(values[0]);
}

float MetadataKeys::positive(const char* name, float fallback) const {
    const float value = file_.get_f32_or(key(name), fallback);
    LK_CHECK(std::isfinite(value) && value > 0, LK_BAD_FILE, "%s: key '%s' is %g; it must be a positive number",
             file_.name().c_str(), key(name).c_str(), static_cast<double>(value));
    return value;
}

void MetadataKeys::check(const char* name, uint32_t value, int max) const {
    LK_CHECK(value >= 1 && value <= static_cast<uint32_t>(max), LK_BAD_FILE, "%s: key '%s' is %u; it must be 1 to %d",
             file_.name().c_str(), key(name).c_str(), value, max);
}

}  // namespace lk
