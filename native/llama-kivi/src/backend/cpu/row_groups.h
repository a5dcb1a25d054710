// Groups of query rows that a kernel processes together.
#pragma once

#include <type_traits>
#include <utility>

namespace lk::cpu {

namespace {  // compiled for several instruction sets, which the linker must not mix

// Splits rows into groups of at most kMost of similar size. Calls body(integral_constant of the size, first row).
template <int kMost, class Body>
void for_rows(int n, const Body& body) {
    int groups = (n + kMost - 1) / kMost;
    for (int r = 0; groups > 0; --groups) {
        const int size = (n - r + groups - 1) / groups;
        const auto call = [&]<int R>(std::integral_constant<int, R> rows) {
            if (size == R) {
                body(rows, r);
            }
        };
        [&]<int... R>(std::integer_sequence<int, R...>) {
            (call(std::integral_constant<int, R + 1>()), ...);
        }
        (std::make_integer_sequence<int, kMost>());
        r += size;
    }
}

}  // namespace

}  // namespace lk::cpu
