// Errors for forms of lazy rows (Rows::Form). Host code without CUDA; C++17, because kernels include it too.
#pragma once

namespace lk::cuda {

// Throws LK_INTERNAL_ERROR, for a form that no kernel evaluates.
[[noreturn]] void fail_form(int form, int n, int dim);

}  // namespace lk::cuda
