#include "base/cpu_quota.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>

namespace lk {
namespace {

constexpr int kMostProcessors = 1 << 16;

// Where systems mount the hierarchies, below /sys/fs/cgroup.
constexpr std::array kUnifiedMounts{"", "/unified"};
constexpr std::array kFirstVersionMounts{"/cpu,cpuacct", "/cpu"};

// Processors of a quota of `quota` microseconds in each `period`; 0 if it is none.
int processors_of(double quota, double period) {
    if (!(quota > 0) || !(period > 0)) {
        return 0;
    }
    return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, double{kMostProcessors}));
}

// The quota of one group: `max` or a number of microseconds, and the period (v2); two files in v1, -1 for none.
int read_quota(const std::string& folder, bool unified) {
    double quota = 0;
    double period = 0;
    if (unified) {
        std::ifstream(folder + "/cpu.max") >> quota >> period;  // `max` is no number
    } else {
        std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    }
    return processors_of(quota, period);
}

// The smaller of two quotas; 0 is none.
int smaller(int a, int b) {
    return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

bool names_cpu(const std::string& controllers) {
    std::istringstream list(controllers);
    for (std::string name; std::getline(list, name, ',');) {
        if (name == "cpu") {
            return true;
        }
    }
    return false;
}

// The least quota of the group `path` below `mount` and of those above it. A container may see a path of its host,
// of which only the mount itself exists in the container.
int least_quota(const std::string& mount, std::string path, bool unified) {
    int least = 0;
    for (;;) {
        least = smaller(least, read_quota(mount + path, unified));
        if (path.empty()) {
            return least;
        }
        path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
    }
}

}  // namespace

int quota_processors(const std::string& root) {
    std::ifstream groups(root + "/proc/self/cgroup");
    int least = 0;
    for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) {
            continue;
        }
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool unified = controllers.empty();
        if (!unified && !names_cpu(controllers)) {
            continue;
        }
        std::string path = line.substr(second + 1);
        if (path == "/") {
            path.clear();
        }
        for (const char* mount : unified ? kUnifiedMounts : kFirstVersionMounts) {
            least = smaller(least, least_quota(root + "/sys/fs/cgroup" + mount, path, unified));
        }
    }
    return least;
}

}  // namespace lk
