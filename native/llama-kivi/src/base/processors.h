// Processors of this process.
#pragma once

namespace lk {

// Number of processors that the process may run on: its affinity, where the system has one. At least 1.
int usable_processors();

}  // namespace lk
