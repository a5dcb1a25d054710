// Forms of rows (Rows::Form) that kernels make. Host code without CUDA. C++17, for the kernels' files too.
#pragma once

namespace lk::cuda {

// Throws LK_INTERNAL_ERROR: no kernel makes a form of n rows.
[[noreturn]] void fail_form(int form, int n, int dim);

}  // namespace lk::cuda
