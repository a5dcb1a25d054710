// Caches of kivi2 and kivi4 with recipes other than the first edition's own, for tests that visit every setting.
#pragma once

#include <string>
#include <vector>

#include "kv_helpers.h"

namespace lk::test {

struct NamedShape {
    std::string name;
    Shape shape;
};

inline std::vector<NamedShape> recipe_shapes() {
    std::vector<NamedShape> shapes;
    const auto add = [&](const char* name, lk_cache_type k, lk_cache_type v, uint32_t edition, Lengths lengths,
                         int refined = 0, lk_row_type ring = LK_ROWS_OWN, int sinks = -1) {
        shapes.push_back({name,
                          {.type_k = k,
                           .type_v = v,
                           .lengths = lengths,
                           .n_layer = 2,
                           .sinks = sinks,
                           .edition = edition,
                           .refined = refined,
                           .residual_type = ring}});
    };
    constexpr lk_cache_type k2 = LK_CACHE_KIVI2;
    constexpr lk_cache_type k4 = LK_CACHE_KIVI4;
    add("kivi2, second edition", k2, k2, 2, {0, 128});
    add("kivi2, second edition, R 100", k2, k2, 2, {0, 100});
    add("kivi2, second edition, f16 ring", k2, k2, 2, {0, 128}, 0, LK_ROWS_F16);
    add("kivi2, second edition, G 16, R 33, no sinks", k2, k2, 2, {16, 33}, 0, LK_ROWS_OWN, 0);
    add("kivi2, second edition, G 32, R 1, 16 sinks", k2, k2, 2, {32, 1}, 0, LK_ROWS_OWN, 16);
    add("kivi2, second edition, G 128, R 50, all refined", k2, k2, 2, {128, 50}, 8);
    add("kivi2, second edition, none refined", k2, k2, 2, {64, 64}, -1);
    add("kivi2, first edition, q8_0 ring, R 130", k2, k2, 1, {32, 130}, 0, LK_ROWS_Q8_0);
    add("kivi2, first edition, G 64, 3/8 refined", k2, k2, 1, {64, 128}, 3);
    add("kivi2, first edition, 1/8 refined", k2, k2, 1, {32, 96}, 1);
    add("kivi4, second edition", k4, k4, 2, {0, 128});
    add("kivi4, second edition, G 128, R 77", k4, k4, 2, {128, 77});
    add("kivi4, second edition, G 32, f16 ring", k4, k4, 2, {32, 60}, 0, LK_ROWS_F16);
    add("kivi2 keys, kivi4 values, second edition", k2, k4, 2, {0, 128});
    add("kivi4 keys, q8_0 values, second edition", k4, LK_CACHE_Q8_0, 2, {});
    add("f16 keys, kivi2 values, second edition", LK_CACHE_F16, k2, 2, {0, 128});
    return shapes;
}

}  // namespace lk::test
