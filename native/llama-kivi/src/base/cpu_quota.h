// Processor time that the system grants a process by control groups, as containers do.
#pragma once

#include <string>

namespace lk {

// Processors' worth of time that the process's control group and those above it grant, rounded up: the least of their
// quotas. 0 without a quota. ROOT is put before /proc and /sys.
//
// Source: the Linux kernel's documentation of cgroup v2 (cpu.max) and of the CFS bandwidth controller (v1).
int quota_processors(const std::string& root = "");

}  // namespace lk
