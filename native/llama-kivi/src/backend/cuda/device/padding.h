// Kernel arguments without indeterminate bytes: graphs compare arguments byte by byte, and a difference in the padding
// would update a launch for nothing.
#pragma once

namespace lk::cuda {

#ifndef __CUDACC__
// Zeroes the padding, if the compiler can. The CUDA compiler's front end may not know the host compiler's builtins.
template <class T>
void clear_padding([[maybe_unused]] T& value) {
#ifdef __has_builtin
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&value);
#endif
#endif
}
#endif

// Whether a struct of these members has no padding.
template <class Struct, class... Members>
constexpr bool kUnpadded = sizeof(Struct) == (sizeof(Members) + ...);

}  // namespace lk::cuda
