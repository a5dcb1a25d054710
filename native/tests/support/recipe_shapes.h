// Caches with settings other than the types' own and with windows of stock types, for tests that visit every setting.
#pragma once

#include <string>
#include <vector>

#include "support/kv_helpers.h"

namespace lk::test {

struct NamedShape {
    std::string name;
    Shape shape;
};

inline std::vector<NamedShape> recipe_shapes() {
    std::vector<NamedShape> shapes;
    const auto add = [&](const char* name, lk_cache_type k, lk_cache_type v, Lengths lengths, int refined = 0,
                         lk_row_type ring = LK_ROWS_OWN, int sinks = -1) {
        shapes.push_back({name,
                          {.type_k = k,
                           .type_v = v,
                           .lengths = lengths,
                           .n_layer = 2,
                           .sinks = sinks,
                           .refined = refined,
                           .residual_type = ring}});
    };
    constexpr lk_cache_type k2 = LK_CACHE_KIVI2;
    constexpr lk_cache_type k4 = LK_CACHE_KIVI4;
    add("kivi2", k2, k2, {0, 128});
    add("kivi2, R 100", k2, k2, {0, 100});
    add("kivi2, f16 ring", k2, k2, {0, 128}, 0, LK_ROWS_F16);
    add("kivi2, G 16, R 33, no sinks", k2, k2, {16, 33}, 0, LK_ROWS_OWN, 0);
    add("kivi2, G 32, R 1, 16 sinks", k2, k2, {32, 1}, 0, LK_ROWS_OWN, 16);
    add("kivi2, G 128, R 50, all refined", k2, k2, {128, 50}, 8);
    add("kivi2, none refined", k2, k2, {64, 64}, -1);
    add("kivi2, G 32, R 130", k2, k2, {32, 130});
    add("kivi2, G 16, 1/4 refined", k2, k2, {16, 128}, 2);
    add("kivi2, G 32, R 96, 1/8 refined", k2, k2, {32, 96}, 1);
    add("kivi4", k4, k4, {0, 128});
    add("kivi4, G 128, R 77", k4, k4, {128, 77});
    add("kivi4, G 32, f16 ring", k4, k4, {32, 60}, 0, LK_ROWS_F16);
    add("kivi2 keys, kivi4 values", k2, k4, {0, 128});
    add("kivi4 keys, q8_0 values", k4, LK_CACHE_Q8_0, {});
    add("f16 keys, kivi2 values", LK_CACHE_F16, k2, {0, 128});
    constexpr lk_cache_type k3 = LK_CACHE_KIVI3;
    add("kivi3, R 100", k3, k3, {0, 100});
    add("kivi3, G 64, R 33, f16 ring, no sinks", k3, k3, {64, 33}, 0, LK_ROWS_F16, 0);
    add("kivi3, G 16, all refined", k3, k3, {16, 50}, 8);
    add("kivi3, none refined", k3, k3, {32, 64}, -1);
    add("kivi2 keys, kivi3 values", k2, k3, {0, 128});
    add("f32 keys, kivi3 values", LK_CACHE_F32, k3, {0, 128});
    const auto add_window = [&](const char* name, lk_cache_type k, lk_cache_type v, int residual, lk_row_type ring,
                                int sinks) {
        add(name, k, v, {0, residual}, 0, ring, sinks);
        shapes.back().shape.windows = true;
    };
    add_window("q8_0, R 64, 4 sinks", LK_CACHE_Q8_0, LK_CACHE_Q8_0, 64, LK_ROWS_OWN, 4);
    add_window("q5_1, R 33, q8_0 ring", LK_CACHE_Q5_1, LK_CACHE_Q5_1, 33, LK_ROWS_Q8_0, 0);
    add_window("q5_0, R 128, q8_0 ring, 16 sinks", LK_CACHE_Q5_0, LK_CACHE_Q5_0, 128, LK_ROWS_Q8_0, 16);
    add_window("q4_1, R 1, 1 sink", LK_CACHE_Q4_1, LK_CACHE_Q4_1, 1, LK_ROWS_OWN, 1);
    add_window("q4_0 keys, q8_0 values, R 100", LK_CACHE_Q4_0, LK_CACHE_Q8_0, 100, LK_ROWS_OWN, 0);
    add_window("iq4_nl, no residual, 4 sinks", LK_CACHE_IQ4_NL, LK_CACHE_IQ4_NL, -1, LK_ROWS_OWN, 4);
    add_window("kivi2 keys, q4_0 values, R 64, 4 sinks", k2, LK_CACHE_Q4_0, 64, LK_ROWS_OWN, 4);
    add_window("f16 keys, q4_1 values, R 50, 2 sinks", LK_CACHE_F16, LK_CACHE_Q4_1, 50, LK_ROWS_OWN, 2);
    return shapes;
}

}  // namespace lk::test
