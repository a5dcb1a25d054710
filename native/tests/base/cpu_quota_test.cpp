// Processors of a container's quota, from files as the kernel writes them.
#include "base/cpu_quota.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/temporary_file.h"

namespace lk {
namespace {

namespace fs = std::filesystem;

class CpuQuota : public ::testing::Test {
protected:
    void write(const std::string& path, const std::string& text) const {
        const fs::path file = folder_.path() / path;
        fs::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    int quota() const { return quota_processors(folder_.path().string()); }

private:
    test::TemporaryFolder folder_;
};

TEST_F(CpuQuota, NoneWithoutControlGroups) {
    EXPECT_EQ(quota(), 0);
    write("proc/self/cgroup", "0::/\n");
    EXPECT_EQ(quota(), 0);
    write("sys/fs/cgroup/cpu.max", "max 100000\n");
    EXPECT_EQ(quota(), 0);
}

TEST_F(CpuQuota, OfAContainerIsRoundedUp) {
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.max", "150000 100000\n");
    EXPECT_EQ(quota(), 2);
    write("sys/fs/cgroup/cpu.max", "10000 100000\n");
    EXPECT_EQ(quota(), 1);
}

TEST_F(CpuQuota, TheLeastOfTheGroupsAboveCounts) {
    write("proc/self/cgroup", "0::/system.slice/llama.service\n");
    write("sys/fs/cgroup/system.slice/llama.service/cpu.max", "800000 100000\n");
    EXPECT_EQ(quota(), 8);
    write("sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n");
    EXPECT_EQ(quota(), 3);
}

TEST_F(CpuQuota, OfTheFirstVersion) {
    write("proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/docker/1\n");
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(quota(), 0);
    // A container sees its host's path, and its own group at the mount.
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
    EXPECT_EQ(quota(), 4);
}

TEST_F(CpuQuota, DamagedFilesAreNoQuota) {
    write("proc/self/cgroup", "no colon\n0::/\n");
    for (const char* text : {"", "abc def", "-5 100000", "100000 0", "100000", "1e999 1"}) {
        write("sys/fs/cgroup/cpu.max", text);
        EXPECT_EQ(quota(), 0) << text;
    }
}

}  // namespace
}  // namespace lk
