#include "model/architectures/registry.h"

#include <algorithm>
#include <span>
#include <string>

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/text.h"
#include "llama_kivi.h"
#include "model/architecture.h"

namespace lk {

std::span<const Architecture* const> architectures() {
#define LK_ADDRESS(NAME) &NAME##_architecture,
    static const Architecture* const all[] = {LK_ARCHITECTURES(LK_ADDRESS)};
#undef LK_ADDRESS
    return all;
}

const Architecture& find_architecture(const GgufFile& file, const std::string& name) {
    const auto all = architectures();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Architecture* a) { return a->name == name; });
    if (found == all.end()) {
        std::string names;
        for (const Architecture* a : all) {
            names += std::string(names.empty() ? "" : ", ") + a->name;
        }
        LK_FAIL(LK_UNSUPPORTED, "%s: architecture %s is not supported; supported: %s", file.name().c_str(),
                quote_text(name).c_str(), names.c_str());
    }
    return **found;
}

}  // namespace lk
