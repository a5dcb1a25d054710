#include "backend/cuda/plan/numeric_watch.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace lk::cuda {

void NumericWatch::clear() {
    places_.clear();
    results_.clear();
}

int NumericWatch::add_place(Place place) {
    places_.push_back(std::move(place));
    return static_cast<int>(places_.size());
}

void NumericWatch::add_result(const float* data, int64_t size, int place, bool read) {
    const auto known = std::find_if(results_.begin(), results_.end(), [=](const Result& r) { return r.data == data; });
    (known != results_.end() ? *known : results_.emplace_back()) = {data, size, place, read};
}

int NumericWatch::read_result(const float* x, Place unknown) {
    for (Result& r : results_) {
        if (x >= r.data && x < r.data + r.size) {
            r.read = true;
            return r.place;
        }
    }
    return add_place(std::move(unknown));
}

void NumericWatch::fail(int place) const {
    const size_t i = static_cast<size_t>(place) - 1;
    LK_CHECK(i < places_.size(), LK_INTERNAL_ERROR,
             "the GPU reported a non-finite result with number %d; the pass has %zu", place, places_.size());
    places_[i]();
    LK_FAIL(LK_INTERNAL_ERROR, "the GPU reported non-finite result %d, which has no error of its own", place);
}

}  // namespace lk::cuda
