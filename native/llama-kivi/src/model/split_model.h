// Models in several files, as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf and so on. They cannot be
// loaded; this says so, and how to make one file of them.
#pragma once

#include <new>
#include <string>

#include "base/error.h"
#include "gguf/reader.h"

namespace lk {

// A file's place in a split model.
struct SplitPart {
    uint32_t number = 1;  // from 1
    uint32_t count = 1;   // 1: the model is not split
};

// From the keys split.no and split.count.
SplitPart split_part(const GgufFile& file);
// From the end of a name, -00002-of-00003.gguf.
SplitPart split_part(const std::string& path);

// What to do with a part: "part 2 of 3 of a split model; ...".
std::string describe_split(const std::string& path, const SplitPart& part);

// Throws LK_UNSUPPORTED if the file says that it is a part of a split model.
void refuse_split(const GgufFile& file);

// Runs body, which reads the file. Memory that runs out names the file. LK_BAD_FILE of a file whose name says that it
// is a part of a split model says so too: a part that was cut without regard to its content has no keys to tell.
template <class F>
auto naming_file(const std::string& path, F&& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        LK_FAIL(LK_OUT_OF_MEMORY, "%s: there is not enough memory to read the file", path.c_str());
    } catch (const Error& e) {
        const SplitPart part = split_part(path);
        if (e.status() != LK_BAD_FILE || part.count == 1) {
            throw;
        }
        LK_FAIL(LK_BAD_FILE, "%s; by its name the file is %s (parts that are one file cut into pieces: cat)", e.what(),
                describe_split(path, part).c_str());
    }
}

}  // namespace lk
