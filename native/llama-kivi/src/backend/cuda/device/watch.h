// How kernels report NaN and infinity. The host numbers the results of a pass from 1 (their places). *broken is 0 at
// first; the first kernel that finds a non-finite result sets it to the result's place.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/device/padding.h"

namespace lk::cuda {

// The place of one result. No padding here and in RowsWatch: graphs compare arguments byte by byte.
struct Watch {
    int* broken;
    int place;
    int unused = 0;
};
// Places of lazy rows: their inputs, and the evaluated rows, which must also be within the range of the target form.
struct RowsWatch {
    int* broken;
    int x;
    int up;
    int made;
    int unused = 0;
};
static_assert(kUnpadded<Watch, int*, int, int> && kUnpadded<RowsWatch, int*, int, int, int, int>);

#ifdef __CUDACC__
__device__ inline void report(int* broken, int place) {
    atomicCAS(broken, 0, place);
}
#endif

}  // namespace lk::cuda
