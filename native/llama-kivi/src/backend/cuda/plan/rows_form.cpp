#include "backend/cuda/plan/rows_form.h"

#include "base/error.h"

namespace lk::cuda {

void fail_form(int form, int n, int dim) {
    LK_FAIL(LK_INTERNAL_ERROR, "rows: no CUDA kernel evaluates form %d of %d rows of %d", form, n, dim);
}

}  // namespace lk::cuda
