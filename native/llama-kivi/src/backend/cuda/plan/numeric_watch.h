// Attributes NaN and infinity to operations: the results of a pass are numbered, kernels report the number of a
// non-finite result, and the host throws its error. Host code without CUDA.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace lk::cuda {

class NumericWatch {
public:
    using Place = std::function<void()>;  // throws the error of a result
    // The result of an operation, until another operation overwrites it.
    struct Result {
        const float* data;
        int64_t size;
        int place;
        bool read;  // a kernel that reports non-finite inputs has read it
    };

    void clear();
    // Returns the number of the place, counted from 1.
    int add_place(Place place);
    void add_result(const float* data, int64_t size, int place, bool read = false);
    // Marks the result that x points into as read and returns its number; the caller's kernel must report it. Without
    // such a result, returns a new number for `unknown`.
    int read_result(const float* x, Place unknown);
    // Calls check(result) for every result that is not marked as read, and marks it.
    template <class Check>
    void for_unread(Check&& check) {
        for (Result& result : results_) {
            if (!result.read) {
                check(result);
                result.read = true;
            }
        }
    }
    // Throws the error of place number `place`.
    void fail(int place) const;

private:
    std::vector<Place> places_;
    std::vector<Result> results_;
};

}  // namespace lk::cuda
