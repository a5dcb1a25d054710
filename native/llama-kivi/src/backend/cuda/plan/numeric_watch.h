// Who is to be told of NaN and infinity: numbers for what a pass computes, which kernels report and the host looks up.
// Host code without CUDA.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace lk::cuda {

class NumericWatch {
public:
    using Place = std::function<void()>;  // throws the error that names it
    // What an operation wrote, until another writes there.
    struct Result {
        const float* data;
        int64_t size;
        int place;
        bool read;  // by a kernel that reports what is not finite
    };

    void clear();
    // The number of a place, from 1 on.
    int add_place(Place place);
    void add_result(const float* data, int64_t size, int place, bool read = false);
    // The number of the result that x points into, which the caller's kernel reads and reports; otherwise a new number
    // for `unknown`.
    int read_result(const float* x, Place unknown);
    // Calls check(result) for every result that no kernel has read.
    template <class Check>
    void for_unread(Check&& check) {
        for (Result& result : results_) {
            if (!result.read) {
                check(result);
                result.read = true;
            }
        }
    }
    // Throws the error of a number.
    void fail(int place) const;

private:
    std::vector<Place> places_;
    std::vector<Result> results_;
};

}  // namespace lk::cuda
