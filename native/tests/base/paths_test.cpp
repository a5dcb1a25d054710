// Paths of every language and length, and files that are in use.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/output_file.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

namespace fs = std::filesystem;

fs::path of_utf8(const std::string& text) {
    return fs::path(std::u8string(text.begin(), text.end()));
}

void write(const std::string& path, const std::string& text) {
    OutputFile file(path);
    file.write(text.data(), text.size());
    file.commit();
}

std::string read(const std::string& path) {
    const MappedFile file(path);
    return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

TEST(Paths, AreUtf8) {
    const test::TemporaryFolder folder;
    const std::string path = folder.file("mod\xC3\xA8le-\xE6\xA8\xA1\xE5\x9E\x8B-\xF0\x9F\xA5\x9D.gguf");
    write(path, "first");
    write(path, "second");
    EXPECT_EQ(read(path), "second");
    EXPECT_TRUE(fs::exists(of_utf8(path)));
    EXPECT_TRUE(same_file(path, path));
    try {
        const MappedFile missing(path + "x");
        FAIL() << "opened";
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("cannot open '" + path + "x': No such file"), std::string::npos)
            << e.what();
    }
}

// The form of a path that the standard library of Windows does not limit to MAX_PATH, 260 characters.
fs::path unlimited(const std::string& path) {
#ifdef _WIN32
    return "\\\\?\\" + fs::path(path).make_preferred().string();
#else
    return path;
#endif
}

TEST(Paths, MayBeLong) {
    const test::TemporaryFolder folder;
    std::vector<fs::path> made;
    std::string path = folder.path().string();
    for (int i = 0; i < 4; ++i) {
        path += "/" + std::string(100, static_cast<char>('a' + i));
        made.push_back(unlimited(path));
        fs::create_directory(made.back());
    }
    path += "/model.gguf";
    made.push_back(unlimited(path));
    write(path, "first");
    write(path, "second");
    EXPECT_EQ(read(path), "second");
    for (; !made.empty(); made.pop_back()) {
        EXPECT_TRUE(fs::remove(made.back())) << made.back();
    }
}

// A system may replace a file that is in use, or refuse it with a message that says so.
TEST(Paths, AFileInUseIsReplacedOrStaysAsItWas) {
    const test::TemporaryFolder folder;
    const std::string path = folder.file("model.gguf");
    write(path, "first");
    const MappedFile used(path);
    bool replaced = true;
    try {
        write(path, "second");
    } catch (const Error& e) {
        replaced = false;
        EXPECT_NE(std::string(e.what()).find("cannot replace '" + path + "': it is open"), std::string::npos)
            << e.what();
    }
    EXPECT_EQ(read(path), replaced ? "second" : "first");
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(used.data()), used.size()), "first");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);  // no temporary file
}

}  // namespace
}  // namespace lk
