// Files and folders that tests write: each has a name of its own, since ctest runs tests side by side.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <string>

namespace lk {
namespace test {

// An empty folder of its own, deleted with the object.
class TemporaryFolder {
public:
    TemporaryFolder() {
        std::random_device random;
        do {
            path_ = std::filesystem::temp_directory_path() / ("llama-kivi-" + std::to_string(random()));
        } while (!std::filesystem::create_directory(path_));
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::string file(const std::string& name) const { return (path_ / name).string(); }

    // Writes a file. Returns its path.
    std::string write(const std::string& name, std::span<const uint8_t> bytes) const {
        std::ofstream out(file(name), std::ios::binary);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        EXPECT_TRUE(out.flush()) << file(name);
        return file(name);
    }

private:
    std::filesystem::path path_;
};

// A file in a folder of its own, deleted with the object.
class TemporaryFile {
public:
    TemporaryFile(const std::string& name, std::span<const uint8_t> bytes) : path_(folder_.write(name, bytes)) {}

    const std::string& path() const { return path_; }

private:
    TemporaryFolder folder_;
    std::string path_;
};

}  // namespace test
}  // namespace lk
