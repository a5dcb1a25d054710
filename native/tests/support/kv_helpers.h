// Shared by the cache and attention tests: realistic keys and values, appending them, and bit-exact comparison of cache
// contents.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backend/cpu/append.h"
#include "backend/cpu/kernels.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "kv/cache.h"
#include "kv/codec/quantizer.h"
#include "kv/read_row.h"

namespace lk::test {

// A pool with one thread per processor, for computations of the tests.
inline ThreadPool& team() {
    static ThreadPool pool(std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
    return pool;
}

inline constexpr lk_cache_type kAllTypes[] = {
    LK_CACHE_F16,  LK_CACHE_KIVI4, LK_CACHE_KIVI2,  LK_CACHE_KIVI4_PAPER, LK_CACHE_KIVI2_PAPER,
    LK_CACHE_Q8_0, LK_CACHE_Q4_0,  LK_CACHE_F32,    LK_CACHE_BF16,        LK_CACHE_Q5_1,
    LK_CACHE_Q5_0, LK_CACHE_Q4_1,  LK_CACHE_IQ4_NL, LK_CACHE_KIVI3};
static_assert(std::size(kAllTypes) == LK_CACHE_TYPE_COUNT);
// Stock types in blocks of 32 channels.
inline constexpr lk_cache_type kBlockTypes[] = {LK_CACHE_Q8_0, LK_CACHE_Q5_1, LK_CACHE_Q5_0,
                                                LK_CACHE_Q4_1, LK_CACHE_Q4_0, LK_CACHE_IQ4_NL};

// Group and residual lengths.
struct Lengths {
    int group;
    int residual;
};
inline constexpr Lengths kAllLengths[] = {{32, 128}, {32, 32}, {16, 32}, {64, 128}, {128, 128}};

// A cache as the only part, as the functions of kv/state/state.h expect.
class Whole {
public:
    explicit Whole(kv::Cache& cache) : parts_{&cache} {}
    operator kv::CacheParts() const { return parts_; }  // NOLINT: implicit on purpose

private:
    kv::Cache* parts_[1];
};

struct Shape {
    lk_cache_type type_k = LK_CACHE_KIVI2;
    lk_cache_type type_v = LK_CACHE_KIVI2;
    Lengths lengths{32, 128};
    int head_size = 64;
    int n_layer = 1;
    int n_head_kv = 1;
    int n_seq = 2;
    int n_ctx = 4096;
    int n_ubatch = 1024;
    int sinks = -1;
    int refined = 0;
    lk_row_type residual_type = LK_ROWS_OWN;
    int undo = 0;

    bool windows = false;  // stock types have a residual too

    // Blocks need a head size divisible by 32.
    bool valid() const { return head_size % 32 == 0 || (fits(type_k) && fits(type_v)); }
    static bool fits(lk_cache_type type) { return kv::stock_format(type).block_bytes == 0; }
    bool has_residual() const { return windows || kv::is_kivi(type_k) || kv::is_kivi(type_v); }

    kv::CacheConfig config() const {
        kv::CacheConfig c;
        c.n_layer = n_layer;
        c.n_head_kv = n_head_kv;
        c.head_size = head_size;
        c.n_ctx = n_ctx;
        c.n_seq_max = n_seq;
        c.n_ubatch = n_ubatch;
        c.params = {type_k,
                    type_v,
                    static_cast<uint32_t>(lengths.group),
                    has_residual() ? lengths.residual : 0,
                    sinks,
                    refined,
                    residual_type,
                    undo,
                    0};
        return c;
    }

    std::string text() const {
        return format("K %s, V %s, G %d, R %d, D %d", lk_cache_type_name(type_k), lk_cache_type_name(type_v),
                      lengths.group, lengths.residual, head_size);
    }
};

// Keys and values of n tokens, [layer][token, n_head_kv, D]. As in a real model, channels differ in range and centre,
// and the first key may be an outlier.
struct Tokens {
    Tokens(const Shape& shape, int n, uint32_t seed, float first_key = 8) : width(shape.n_head_kv * shape.head_size) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const auto draw = [&](bool keys) {
            std::vector<float> spread(width);
            std::vector<float> centre(width);
            for (int c = 0; c < width; ++c) {
                spread[c] = std::exp(0.7f * normal(random));
                centre[c] = normal(random);
            }
            std::vector<float> rows(static_cast<size_t>(n) * width);
            for (int t = 0; t < n; ++t) {
                const float outlier = keys && t == 0 ? first_key : 1.0f;
                for (int c = 0; c < width; ++c) {
                    rows[static_cast<size_t>(t) * width + c] = outlier * (centre[c] + spread[c] * normal(random));
                }
            }
            return rows;
        };
        for (int layer = 0; layer < shape.n_layer; ++layer) {
            k.push_back(draw(true));
            v.push_back(draw(false));
        }
    }

    int width;
    std::vector<std::vector<float>> k;
    std::vector<std::vector<float>> v;
};

inline void half_row(const float* x, int64_t n, half_t* out) {
    std::transform(x, x + n, out, float_to_half);
}

// Stages tokens [begin, end).
inline void stage(kv::Cache& cache, const Tokens& tokens, int begin, int end) {
    for (int layer = 0; layer < cache.config().n_layer; ++layer) {
        const size_t at = static_cast<size_t>(begin) * tokens.width;
        cpu::stage(cache, kv::Side::keys, layer, end - begin, tokens.k[layer].data() + at, half_row);
        cpu::stage(cache, kv::Side::values, layer, end - begin, tokens.v[layer].data() + at, half_row);
    }
}

// Reserves the segments' rows, stages tokens [begin, end) as the rows of the call, and stages their pages.
inline void stage_call(kv::Cache& cache, std::span<const kv::Segment> segments, const Tokens& tokens, int begin,
                       int end) {
    ThreadPool pool(1);
    cache.reserve(segments);
    stage(cache, tokens, begin, end);
    cpu::Append().stage_pages(cache, segments, cache.layers(), pool);
}

// Appends tokens [begin, end), in calls of as many rows as the cache stages.
inline void append(kv::Cache& cache, int seq, const Tokens& tokens, int begin, int end) {
    ThreadPool pool(1);
    while (begin < end) {
        const kv::Segment segment{seq, 0, std::min(end - begin, cache.config().n_ubatch)};
        stage_call(cache, {&segment, 1}, tokens, begin, begin + segment.n_rows);
        cpu::commit(cache, {&segment, 1}, pool);
        begin += segment.n_rows;
    }
}

// The rotation of keys, for shifted tokens. Valid in the calling thread.
inline kv::Rotation rotation(int head_size) {
    thread_local std::map<int, std::vector<float>> frequencies;  // tests prepare cases in parallel
    std::vector<float>& f = frequencies[head_size];
    for (int i = static_cast<int>(f.size()); i < head_size / 2; ++i) {
        f.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / head_size)));
    }
    return {f, RopePairs::adjacent};
}

// One token of a view, dequantized and rotated as attention reads it.
inline std::vector<float> cached_row(const kv::SideView& view, int token) {
    const int d = view.spec->format.head_size;
    std::vector<float> out(d);
    kv::read_row(view, token, rotation(d), out.data());
    return out;
}

// The complete content of a sequence.
struct Image {
    std::vector<int> counts;
    std::vector<half_t> ring;  // oldest first; rows of a q8_0 ring as bytes, in pairs
    std::vector<half_t> sinks;
    std::vector<int> tables;
    std::vector<std::vector<uint8_t>> pages;

    // Name of the first part that differs; empty if equal.
    std::string difference(const Image& other) const {
        return counts != other.counts   ? "counts"
               : ring != other.ring     ? "ring"
               : sinks != other.sinks   ? "sinks"
               : tables != other.tables ? "tables"
               : pages != other.pages   ? "pages"
                                        : "";
    }
};

inline Image image_of(const kv::Sequence& sequence, const kv::CacheConfig& config) {
    Image image;
    for (const kv::SequenceSide* side : {&sequence.k, &sequence.v}) {
        image.counts.insert(image.counts.end(), {side->length(), side->n_paged(), side->n_ring(), side->n_sinks()});
        for (const kv::PageRef& page : side->pages()) {
            image.counts.push_back(page.count);
        }
        for (int layer = 0; layer < config.n_layer; ++layer) {
            for (int head = 0; head < config.n_head_kv; ++head) {
                const kv::SideView view = side->view(layer, head);
                const int d = config.head_size;
                for (int i = 0; i < view.n_ring; ++i) {
                    const size_t at = (view.ring_start + i) % view.spec->ring_rows();
                    const size_t bytes = view.spec->ring_row_bytes();
                    const half_t* row = view.ring != nullptr
                                            ? view.ring + at * d
                                            : reinterpret_cast<const half_t*>(view.ring_blocks + at * bytes);
                    image.ring.insert(image.ring.end(), row, row + bytes / sizeof(half_t));
                }
                image.sinks.insert(image.sinks.end(), view.sinks, view.sinks + view.n_sinks * d);
                if (view.table != nullptr) {  // an empty sequence has no memory
                    image.tables.push_back(view.table->exponent);
                    image.tables.insert(image.tables.end(), view.table->refined.begin(), view.table->refined.end());
                    image.tables.insert(image.tables.end(), view.table->mu.begin(), view.table->mu.end());
                }
                for (size_t i = 0; i < view.pages.size(); ++i) {
                    image.pages.emplace_back(view.page(i), view.page(i) + view.spec->format.page_bytes);
                    // Nothing reads a page behind its last run, and saved states have zeros there.
                    size_t last = i;
                    while (last + 1 < view.pages.size() && view.pages[last + 1].block == view.pages[i].block) {
                        ++last;
                    }
                    kv::clear_tokens(view.spec->format, view.pages[last].end(), image.pages.back().data());
                }
            }
        }
    }
    return image;
}

inline Image image_of(const kv::Cache& cache, int seq) {
    return image_of(cache.sequence(seq), cache.config());
}

// All rows of a sequence that attention reads, as floats.
inline std::vector<std::vector<float>> rows_of(const kv::Cache& cache, int seq, int n) {
    std::vector<std::vector<float>> rows;
    const kv::Sequence& s = cache.sequence(seq);
    for (const kv::SequenceSide* side : {&s.k, &s.v}) {
        for (int layer = 0; layer < cache.config().n_layer; ++layer) {
            for (int head = 0; head < cache.config().n_head_kv; ++head) {
                for (int t = 0; t < n; ++t) {
                    rows.push_back(cached_row(side->view(layer, head), t));
                }
            }
        }
    }
    return rows;
}

// Expects body to throw lk::Error with the status and a message that contains all parts.
template <class Body>
void expect_error(lk_status status, const std::vector<std::string>& parts, Body body) {
    try {
        body();
        ADD_FAILURE() << "expected " << lk_status_name(status);
    } catch (const Error& e) {
        EXPECT_EQ(e.status(), status) << e.what();
        for (const std::string& part : parts) {
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << "no '" << part << "' in: " << e.what();
        }
    }
}

// The kernel tables that this processor supports.
inline std::vector<const cpu::Kernels*> kernel_tables() {
    std::vector<const cpu::Kernels*> tables;
    for (const cpu::NamedKernels& table : cpu::available_kernels()) {
        tables.push_back(table.kernels);
    }
    return tables;
}

}  // namespace lk::test
