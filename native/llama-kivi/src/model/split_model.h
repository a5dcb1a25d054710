// Split models, as written by llama.cpp's gguf-split: NAME-00001-of-00003.gguf and so on. They cannot be loaded; the
// error says so and how to merge them.
#pragma once

#include <cstdint>
#include <new>
#include <string>

#include "base/error.h"
#include "gguf/reader.h"
#include "llama_kivi.h"

namespace lk {

// A file's part number in a split model.
struct SplitPart {
    uint32_t number = 1;  // from 1
    uint32_t count = 1;   // 1: the model is not split
};

// Reads the keys split.no and split.count.
SplitPart split_part(const GgufFile& file);
// Parses the end of a file name, -00002-of-00003.gguf.
SplitPart split_part(const std::string& path);

// Text for an error: "part 2 of 3 of a split model, ..." and how to merge the parts.
std::string describe_split(const std::string& path, const SplitPart& part);

// Throws LK_UNSUPPORTED if the file's keys declare it part of a split model.
void refuse_split(const GgufFile& file);

// Runs body, which reads the file, and adds context to its errors: out of memory names the file; LK_BAD_FILE mentions a
// split model if the file's name is that of a part, because a part cut at arbitrary bytes has no keys.
template <class F>
auto naming_file(const std::string& path, F&& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        LK_FAIL(LK_OUT_OF_MEMORY, "%s: not enough memory to read the file", path.c_str());
    } catch (const Error& e) {
        const SplitPart part = split_part(path);
        if (e.status() != LK_BAD_FILE || part.count == 1) {
            throw;
        }
        LK_FAIL(LK_BAD_FILE, "%s; its name says it is %s (join parts cut at arbitrary bytes with cat)", e.what(),
                describe_split(path, part).c_str());
    }
}

}  // namespace lk
