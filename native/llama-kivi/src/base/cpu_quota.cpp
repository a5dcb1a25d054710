#include "base/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace lk {
namespace {

constexpr int kMostProcessors = 1 << 16;

// Where the groups of a hierarchy with the cpu controller are.
struct Mount {
    bool unified;       // v2
    std::string group;  // at the root of the mount
    std::string folder;
};

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

bool names_cpu(const std::string& options) {
    std::istringstream list(options);
    for (std::string name; std::getline(list, name, ',');) {
        if (name == "cpu") {
            return true;
        }
    }
    return false;
}

// Decodes what mountinfo writes as a backslash and three octal digits: spaces and backslashes of paths.
std::string unescaped(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const bool escaped =
            text[i] == '\\' && i + 3 < text.size() && text.find_first_not_of("01234567", i + 1) > i + 3;
        out += escaped ? static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)) : text[i];
        i += escaped ? 3 : 0;
    }
    return out;
}

std::vector<Mount> mounts(const std::string& root) {
    std::vector<Mount> found;
    std::ifstream lines(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(lines, line);) {  // id parent device group folder ... - type source options
        std::istringstream words(line);
        std::string word;
        std::string group;
        std::string folder;
        std::string type;
        std::string options;
        words >> word >> word >> word >> group >> folder;
        while (words >> word && word != "-") {
        }
        words >> type >> word >> options;
        if (type == "cgroup2" || (type == "cgroup" && names_cpu(options))) {
            found.push_back({type == "cgroup2", unescaped(group), root + unescaped(folder)});
        }
    }
    return found;
}

// The least quota of the group `path` and of those above it that `mount` shows. A container may see a path of its host
// that the mount does not show; then the mount's own group counts.
int least_quota(const Mount& mount, const std::string& path) {
    const std::string above = mount.group == "/" ? "" : mount.group;
    std::string below = (path + '/').starts_with(above + '/') ? path.substr(above.size()) : "";
    int least = 0;
    for (;;) {
        least = smaller(least, read_quota(mount.folder + below, mount.unified));
        if (below.empty()) {
            return least;
        }
        below.erase(below.find_last_of('/') == std::string::npos ? 0 : below.find_last_of('/'));
    }
}

}  // namespace

int quota_processors(const std::string& root) {
    const std::vector<Mount> all = mounts(root);
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
        for (const Mount& mount : all) {
            if (mount.unified == unified) {
                least = smaller(least, least_quota(mount, line.substr(second + 1)));
            }
        }
    }
    return least;
}

}  // namespace lk
