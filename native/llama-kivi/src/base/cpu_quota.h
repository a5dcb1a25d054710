// Processor time that the system grants a process by control groups, as containers do.
#pragma once

#include <string>

namespace lk {

// Processors' worth of time that the process's control group and those above it grant, rounded up: the least of their
// quotas. 0 without a quota, or if it cannot be read. ROOT is put before every path, /proc and the mounts.
//
// Source: the Linux kernel's documentation of cgroup v2 (cpu.max), of the CFS bandwidth controller (v1) and of
// /proc/PID/mountinfo.
int quota_processors(const std::string& root = "");

}  // namespace lk
