// Executes the schedule of a CUDA append with plain loops on the host: pages, rings and sinks must equal the CPU's.
// Needs no GPU.
#include <cstring>
#include <set>

#include "backend/cuda/plan/append_plan.h"
#include "kv/codec/quantizer.h"
#include "kv/codec/scalar_codec.h"
#include "support/kv_helpers.h"
#include "support/plugin_helpers.h"
#include "support/recipe_shapes.h"

namespace lk {
namespace {

using cuda::AppendSchedule;
using cuda::AppendWork;
using cuda::PageStep;
using cuda::SideSchedule;
using kv::Segment;
using kv::Side;
using test::kAllLengths;
using test::kAllTypes;
using test::Shape;
using test::Tokens;

// Replaces the kernels, on a cache in host memory.
struct Kernels {
    kv::Cache& cache;
    Side side;
    const kv::SideSpec& spec = cache.spec(side);
    size_t d = static_cast<size_t>(spec.format.head_size);

    // A row in halves, decoded if it is in a q8_0 ring.
    std::vector<half_t> row(const AppendWork& w, int head, int i) const {
        std::vector<half_t> out(d);
        if (i >= w.n_ring) {
            std::copy_n(w.staged + staged_row(head, i - w.n_ring) * spec.staged_width(), d, out.data());
        } else if (w.ring_blocks != nullptr) {
            kv::decode_q8_row(ring_row(w, head, i), static_cast<int>(d), out.data());
        } else {
            std::memcpy(out.data(), ring_row(w, head, i), d * sizeof(half_t));
        }
        return out;
    }
    size_t staged_row(int head, int i) const { return static_cast<size_t>(head) * cache.config().n_ubatch + i; }
    uint8_t* ring_row(const AppendWork& w, int head, int i) const {
        uint8_t* const ring = w.ring_blocks != nullptr ? w.ring_blocks : reinterpret_cast<uint8_t*>(w.ring);
        const int at = (w.ring_start + i) % spec.ring_rows();
        return ring + (static_cast<size_t>(head) * spec.ring_rows() + at) * spec.ring_row_bytes();
    }
    std::vector<float> floats(const AppendWork& w, int head, int first, int n) const {
        std::vector<float> out;
        for (int i = first; i < first + n; ++i) {
            const std::vector<half_t> halves = row(w, head, i);
            std::transform(halves.begin(), halves.end(), std::back_inserter(out), half_to_float);
        }
        return out;
    }

    void choose_table(const AppendWork& w, kv::HeadTable& table, int head) const {
        if (w.choose_tables) {
            const int n = spec.ageing.trigger;
            table = kv::choose_head_table(spec.format, floats(w, head, 0, n).data(), n, w.first_token, w.sink_limit);
        }
    }
    void stage_page(const AppendWork& w, const PageStep& step, const kv::HeadTable& table, int head) const {
        const kv::PageFormat& f = spec.format;
        uint8_t* const page = step.block + head * f.page_bytes;
        const int sinks = std::clamp(w.sink_limit - (w.first_token + step.row), 0, step.n_rows);
        if (f.quantized()) {
            kv::quantize_rows(f, table, floats(w, head, step.row, step.n_rows).data(), step.n_rows, step.token, sinks,
                              page);
        }
        for (int i = 0; i < step.n_rows && f.floats(); ++i) {
            const half_t* const staged = w.staged + staged_row(head, step.row + i - w.n_ring) * spec.staged_width();
            store_floats(f, reinterpret_cast<const float*>(staged), page + (step.token + i) * f.row_bytes());
        }
        for (int i = 0; i < step.n_rows && !f.quantized() && !f.floats(); ++i) {
            std::memcpy(page + (step.token + i) * f.row_bytes(), row(w, head, step.row + i).data(), f.row_bytes());
        }
    }
    // The CPU stages bf16 as floats.
    static void store_floats(const kv::PageFormat& f, const float* from, uint8_t* to) {
        if (f.type == LK_CACHE_F32) {
            std::memcpy(to, from, f.row_bytes());
        } else {
            std::transform(from, from + f.head_size, reinterpret_cast<uint16_t*>(to), kv::rounded_bf16);
        }
    }
    void commit(const AppendWork& w, const SideSchedule& s, int head) const {
        for (int i = w.sink_begin, n = 0; n < s.max_sinks; ++i, ++n) {
            if (i < w.sink_end) {
                const int token = w.first_token + i;
                std::copy_n(row(w, head, i).data(), d, w.sinks + (static_cast<size_t>(head) * spec.sinks + token) * d);
            }
        }
        for (int i = w.first_kept, n = 0; n < s.max_kept; ++i, ++n) {
            if (i >= w.n_ring + w.n_rows) {
                continue;
            }
            const size_t bytes = spec.ring_row_bytes();
            if (w.ring_blocks != nullptr) {
                std::copy_n(w.staged_blocks + staged_row(head, i - w.n_ring) * bytes, bytes, ring_row(w, head, i));
            } else {
                std::memcpy(ring_row(w, head, i), row(w, head, i).data(), bytes);
            }
        }
    }
};

// Appends the segments as the CUDA backend does, with the steps in an order that a device may choose.
void append(kv::Cache& cache, std::span<const Segment> segments) {
    const AppendSchedule schedule = test::plan_append(cache, segments);
    const int n_heads = cache.config().n_layer * cache.config().n_head_kv;
    for (const Side side : {Side::keys, Side::values}) {
        const Kernels kernels{cache, side};
        const SideSchedule& s = schedule.side(side);
        ASSERT_EQ(s.n_works, static_cast<int>(segments.size()));
        std::vector<std::span<kv::HeadTable>> tables;
        bool chooses = false;
        for (int i = 0; i < s.n_works; ++i) {
            tables.push_back(cache.plan_append(side, segments[i]).head_tables);
            const AppendWork& w = schedule.works[s.first_work + i];
            chooses |= w.choose_tables != 0;
            for (int head = 0; head < n_heads; ++head) {
                kernels.choose_table(w, tables.back()[head], head);
            }
        }
        EXPECT_EQ(s.chooses_tables, chooses);
        for (int i = s.n_steps; i-- > 0;) {
            const PageStep& step = schedule.steps[s.first_step + i];
            for (int head = 0; head < n_heads; ++head) {
                kernels.stage_page(schedule.works[step.work], step, tables[step.work - s.first_work][head], head);
            }
        }
        for (int i = 0; i < s.n_works; ++i) {
            for (int head = 0; head < n_heads; ++head) {
                kernels.commit(schedule.works[s.first_work + i], s, head);
            }
        }
    }
    cache.finish_append(segments);
}

// Stages n[seq] rows of each sequence in one call, starting at tokens at[seq].
std::vector<Segment> stage(kv::Cache& cache, const Tokens& tokens, std::span<const int> at, std::span<const int> n) {
    std::vector<Segment> segments;
    int row = 0;
    Tokens rows = tokens;
    for (size_t i = 0; i < at.size(); ++i) {
        for (int layer = 0; layer < cache.config().n_layer; ++layer) {
            const size_t width = static_cast<size_t>(tokens.width);
            std::copy_n(tokens.k[layer].data() + at[i] * width, n[i] * width, rows.k[layer].data() + row * width);
            std::copy_n(tokens.v[layer].data() + at[i] * width, n[i] * width, rows.v[layer].data() + row * width);
        }
        segments.push_back({static_cast<int>(i), row, n[i]});
        row += n[i];
    }
    cache.reserve(segments);
    test::stage(cache, rows, 0, row);
    return segments;
}

template <class Body>
void for_each_shape(Body body) {
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            const Shape shape{.type_k = type, .type_v = type, .lengths = lengths, .n_layer = 2};
            SCOPED_TRACE(shape.text());
            body(shape);
        }
    }
    for (const test::NamedShape& s : test::recipe_shapes()) {
        SCOPED_TRACE(s.name);
        body(s.shape);
    }
}

TEST(CudaAppendPlan, PagesRingsAndSinksAreTheCpus) {
    for_each_shape([](const Shape& shape) {
        const Tokens tokens(shape, 900, 21);
        kv::Cache cpu(shape.config());
        kv::Cache gpu(shape.config());
        int at[] = {0, 100};
        const int kCalls[][2] = {{1, 170}, {3, 1}, {160, 1}, {33, 200}, {1, 1}, {300, 31}};
        for (const auto& n : kCalls) {
            const std::vector<Segment> segments = stage(gpu, tokens, at, n);
            append(gpu, segments);
            for (int seq = 0; seq < 2; ++seq) {
                test::append(cpu, seq, tokens, at[seq], at[seq] + n[seq]);
                EXPECT_EQ(test::image_of(gpu, seq).difference(test::image_of(cpu, seq)), "") << at[seq];
                at[seq] += n[seq];
            }
        }
        // Then with cut pages, one that is closed and one that is continued.
        for (kv::Cache* cache : {&cpu, &gpu}) {
            cache->truncate(0, 67);
            cache->remove(1, 40, 90, test::rotation(shape.head_size));
        }
        at[0] = 67;
        const int n[] = {180, 150};
        append(gpu, stage(gpu, tokens, at, n));
        for (int seq = 0; seq < 2; ++seq) {
            test::append(cpu, seq, tokens, at[seq], at[seq] + n[seq]);
            EXPECT_EQ(test::image_of(gpu, seq).difference(test::image_of(cpu, seq)), "");
        }
    });
}

TEST(CudaAppendPlan, TheImageIsWorksThenSteps) {
    size_t n_steps = 0;
    for_each_shape([&](const Shape& shape) {
        const Tokens tokens(shape, 500, 23);
        kv::Cache cache(shape.config());
        const int at[] = {0, 7};
        const int n[] = {180, 150};
        const std::vector<Segment> segments = stage(cache, tokens, at, n);
        const AppendSchedule schedule = test::plan_append(cache, segments);
        const size_t work_bytes = schedule.work_bytes();
        const size_t step_bytes = schedule.step_bytes();
        ASSERT_EQ(work_bytes, schedule.works.size() * sizeof(AppendWork));
        ASSERT_EQ(step_bytes, schedule.steps.size() * sizeof(PageStep));
        ASSERT_EQ(schedule.works.size(), 2 * segments.size());
        n_steps += schedule.steps.size();
        std::vector<uint8_t> image(work_bytes + step_bytes + 8, 0xee);
        cuda::write_append(schedule, image.data(), image.data() + work_bytes);
        EXPECT_EQ(std::memcmp(image.data(), schedule.works.data(), work_bytes), 0);
        if (step_bytes > 0) {
            EXPECT_EQ(std::memcmp(image.data() + work_bytes, schedule.steps.data(), step_bytes), 0);
        }
        EXPECT_EQ(image[work_bytes + step_bytes], 0xee);
        cache.release_reserved(segments);
        EXPECT_EQ(test::plan_append(cache, {}).work_bytes(), 0u);
        EXPECT_EQ(test::plan_append(cache, {}).step_bytes(), 0u);
    });
    EXPECT_GT(n_steps, 0u) << "no rows leave a ring";
}

// Thread blocks run concurrently, so no two steps may write to the same word.
TEST(CudaAppendPlan, StepsCoverEveryLeavingRowOnceAndShareNoWord) {
    for_each_shape([](const Shape& shape) {
        const Tokens tokens(shape, 700, 22);
        kv::Cache cache(shape.config());
        test::append(cache, 0, tokens, 0, 203);
        cache.truncate(0, 150);
        int length = 150;
        for (const int n : {77, 1, 40, 300}) {
            const int at[] = {length};
            const int counts[] = {n};
            const std::vector<Segment> segments = stage(cache, tokens, at, counts);
            const AppendSchedule schedule = test::plan_append(cache, segments);
            for (const Side side : {Side::keys, Side::values}) {
                const SideSchedule& s = schedule.side(side);
                const kv::PageFormat& f = cache.spec(side).format;
                const bool groups = kv::is_kivi(f.type) && side == Side::keys;
                const bool words = kv::is_kivi(f.type) && side == Side::values;
                std::set<std::pair<const uint8_t*, int>> written;
                int row = 0;
                for (int i = 0; i < s.n_steps; ++i) {
                    const PageStep& step = schedule.steps[s.first_step + i];
                    EXPECT_EQ(step.row, row);
                    row += step.n_rows;
                    EXPECT_GT(step.n_rows, 0);
                    EXPECT_LE(step.token + step.n_rows, kv::kPageTokens);
                    EXPECT_LE(step.n_rows, groups ? f.group : cuda::kStepTokens);
                    if (groups) {
                        EXPECT_EQ(step.n_rows, f.group);
                        EXPECT_EQ(step.token % f.group, 0);
                    }
                    const int unit = words ? kv::kValueBlockTokens : 1;
                    for (int w = step.token / unit; w <= (step.token + step.n_rows - 1) / unit; ++w) {
                        EXPECT_TRUE(written.emplace(step.block, w).second) << "token " << w * unit;
                    }
                }
                EXPECT_EQ(row, cache.plan_append(side, segments[0]).n_leave);
            }
            append(cache, segments);
            length += n;
        }
    });
}

}  // namespace
}  // namespace lk
