// Random operands for tests of every kernel table against the portable one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "backend/cpu/kernels.h"
#include "support/weight_rows.h"

namespace lk::test {

class KernelTables : public testing::Test, protected NormalValues {
protected:
    KernelTables() : NormalValues(11) {}

    std::vector<half_t> draw_halves(size_t n) {
        std::vector<half_t> x(n);
        std::generate(x.begin(), x.end(), [&] { return float_to_half(normal_(random_)); });
        return x;
    }

    std::vector<uint8_t> draw_bytes(size_t n, int below = 256) {
        std::vector<uint8_t> x(n);
        std::generate(x.begin(), x.end(), [&] { return static_cast<uint8_t>(random_() % below); });
        return x;
    }

    const cpu::Kernels& portable_ = cpu::portable_kernels();
};

}  // namespace lk::test
