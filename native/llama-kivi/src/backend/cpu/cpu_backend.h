// The CPU backend: splits each operation into tasks and runs the kernels selected for this processor.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"

namespace lk {

// n_threads: 0 for one per processor.
std::unique_ptr<Backend> make_cpu_backend(int n_threads);

// "AMD EPYC | AVX2".
const std::string& cpu_description();

}  // namespace lk
