// Processors of this process.
#pragma once

namespace lk {

// Number of processors that the process may keep busy: its affinity, and on Linux the quota of its control group
// (a container's `--cpus`), rounded up. At least 1.
int usable_processors();

}  // namespace lk
