// Processors of a container's quota, from files as the kernel writes them.
#include "base/cpu_quota.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
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
    // Mounts the hierarchy of v2 at sys/fs/cgroup. `group`: the one that the mount shows.
    void mount_unified(const char* group = "/") const {
        write("proc/self/mountinfo", format("22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
                                            "30 22 0:26 %s /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
                                            group));
    }
    // Mounts the cpu controller of v1, another controller, and v2 without controllers.
    void mount_first_version(const char* group, const char* folder) const {
        write("proc/self/mountinfo", format("31 22 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                                            "32 22 0:29 %s %s rw shared:2 master:3 - cgroup cgroup rw,cpu,cpuacct\n"
                                            "33 22 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
                                            group, folder));
    }
    void write_first_version(const std::string& folder, const std::string& quota) const {
        write(folder + "/cpu.cfs_quota_us", quota + "\n");
        write(folder + "/cpu.cfs_period_us", "100000\n");
    }
    int quota() const { return quota_processors(folder_.path().string()); }

private:
    test::TemporaryFolder folder_;
};

TEST_F(CpuQuota, NoneWithoutControlGroups) {
    EXPECT_EQ(quota(), 0);
    write("proc/self/cgroup", "0::/\n");
    EXPECT_EQ(quota(), 0);
    mount_unified();
    EXPECT_EQ(quota(), 0);
    write("sys/fs/cgroup/cpu.max", "max 100000\n");
    EXPECT_EQ(quota(), 0);
}

TEST_F(CpuQuota, OfAContainerIsRoundedUp) {
    write("proc/self/cgroup", "0::/\n");
    mount_unified();
    write("sys/fs/cgroup/cpu.max", "150000 100000\n");
    EXPECT_EQ(quota(), 2);
    write("sys/fs/cgroup/cpu.max", "10000 100000\n");
    EXPECT_EQ(quota(), 1);
}

TEST_F(CpuQuota, TheLeastOfTheGroupsAboveCounts) {
    write("proc/self/cgroup", "0::/system.slice/llama.service\n");
    mount_unified();
    write("sys/fs/cgroup/system.slice/llama.service/cpu.max", "800000 100000\n");
    EXPECT_EQ(quota(), 8);
    write("sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n");
    EXPECT_EQ(quota(), 3);
    write("sys/fs/cgroup/system.slice/other/cpu.max", "100000 100000\n");
    write("sys/fs/cgroup/other.slice/cpu.max", "100000 100000\n");
    EXPECT_EQ(quota(), 3);
    write("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n");
    EXPECT_EQ(quota(), 8);
}

TEST_F(CpuQuota, OfTheFirstVersion) {
    write("proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/docker/1\n");
    mount_first_version("/docker/1", "/sys/fs/cgroup/cpu,cpuacct");
    write_first_version("sys/fs/cgroup/cpu,cpuacct", "-1");
    EXPECT_EQ(quota(), 0);
    // A container sees its host's path, and its own group at the mount.
    write_first_version("sys/fs/cgroup/cpu,cpuacct", "400000");
    EXPECT_EQ(quota(), 4);
}

TEST_F(CpuQuota, OfAGroupBelowThatOfTheMount) {
    write("proc/self/cgroup", "4:cpu,cpuacct:/docker/1/worker\n");
    mount_first_version("/docker/1", "/sys/fs/cgroup/cpu,cpuacct");
    write_first_version("sys/fs/cgroup/cpu,cpuacct", "400000");
    write_first_version("sys/fs/cgroup/cpu,cpuacct/worker", "200000");
    EXPECT_EQ(quota(), 2);
    mount_first_version("/docker/1/work", "/sys/fs/cgroup/cpu,cpuacct");  // not above the group
    EXPECT_EQ(quota(), 4);

    write("proc/self/cgroup", "0::/pod/1/worker\n");
    mount_unified("/pod/1");
    write("sys/fs/cgroup/worker/cpu.max", "300000 100000\n");
    EXPECT_EQ(quota(), 3);
}

TEST_F(CpuQuota, OfAMountAnywhere) {
    write("proc/self/cgroup", "2:cpu:/batch\n");
    mount_first_version("/", "/cgroup/cpu");
    write_first_version("cgroup/cpu/batch", "500000");
    EXPECT_EQ(quota(), 5);
}

TEST_F(CpuQuota, OfPathsWithSpacesAndBackslashes) {
    write("proc/self/cgroup", "2:cpu:/a group\\9/batch\n");
    mount_first_version("/a\\040group\\1349", "/control\\040groups");
    write_first_version("control groups/batch", "300000");
    EXPECT_EQ(quota(), 3);
}

TEST_F(CpuQuota, DamagedFilesAreNoQuota) {
    write("proc/self/cgroup", "no colon\n0::/\n");
    mount_unified();
    for (const char* text : {"", "abc def", "-5 100000", "100000 0", "100000", "1e999 1"}) {
        write("sys/fs/cgroup/cpu.max", text);
        EXPECT_EQ(quota(), 0) << text;
    }
    write("sys/fs/cgroup/cpu.max", "200000 100000");
    EXPECT_EQ(quota(), 2);
    for (const char* text : {"", "\n", "30 22 0:26 /", "30 22 0:26 / /sys/fs/cgroup rw -", "- cgroup2 cgroup2 rw"}) {
        write("proc/self/mountinfo", text);
        EXPECT_EQ(quota(), 0) << text;
    }
}

}  // namespace
}  // namespace lk
