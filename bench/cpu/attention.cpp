// Times the cache's part of decode and prefill on the CPU, one thread: staging, attention, and flushes with commit.
//   llama-kivi-bench-cpu [SHAPE [TURNS [TABLE [DEPTH [TYPE]]]]]
// SHAPE: small, falcon, large, multi; TABLE: as LLAMA_KIVI_CPU; DEPTH: -1 for prefill; TYPE: as printed. Default: all.
// Prints processor time per token, the minimum of the turns; the types take turns, so that other load affects all. At a
// depth, attention is that of the fastest token.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace {

using namespace lk;

struct Shape {
    const char* name;
    int n_layer;
    int n_head;
    int n_head_kv;
    int head_size;
};

constexpr Shape kShapes[] = {
    {"small", 30, 9, 3, 64},   // SmolLM2-135M
    {"falcon", 12, 6, 1, 64},  // one KV head
    {"large", 6, 32, 8, 128},  // six layers of Llama-3-8B
    {"multi", 4, 6, 6, 64},    // as many KV heads as query heads
};

struct Type {
    const char* name;
    lk_cache_type type;
};

constexpr Type kTypes[] = {
    {"f16", LK_CACHE_F16},     {"q8_0", LK_CACHE_Q8_0},   {"q4_0", LK_CACHE_Q4_0},
    {"kivi4", LK_CACHE_KIVI4}, {"kivi3", LK_CACHE_KIVI3}, {"kivi2", LK_CACHE_KIVI2},
};

constexpr int kPrefill = 512;
constexpr int kDepths[] = {0, 3072, 16384};

// Seconds of processor time.
double now() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Times {
    double stage = 0;
    double attention = 0;
    double append = 0;

    double total() const { return stage + attention + append; }
};

class Run {
public:
    Run(const Shape& shape, const Type& type, int depth)
        : shape_(shape), backend_(make_cpu_backend(1)), cache_(config(shape, type)) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        const size_t width = static_cast<size_t>(shape.n_head_kv) * shape.head_size;
        k_.resize(kPrefill * width);
        v_.resize(kPrefill * width);
        q_.resize(static_cast<size_t>(kPrefill) * shape.n_head * shape.head_size);
        for (std::vector<float>* const rows : {&k_, &v_, &q_}) {
            std::generate(rows->begin(), rows->end(), [&] { return normal(random); });
        }
        out_.resize(q_.size());
        angles_.resize(static_cast<size_t>(kPrefill) * shape.head_size);
        for (size_t i = 0; i < angles_.size(); i += 2) {
            angles_[i] = std::cos(static_cast<float>(i));
            angles_[i + 1] = std::sin(static_cast<float>(i));
        }
        Times ignored;
        for (int at = 0; at < depth; at += kPrefill) {
            step(std::min(kPrefill, depth - at), false, ignored);
        }
        start_ = std::make_unique<kv::Sequence>(cache_.snapshot(0));
    }

    // Times of a call of n tokens at the start depth, times calls one after another.
    Times measure(int n, int calls, bool from_start) {
        kv::Sequence copy(*start_);
        cache_.swap(0, copy);
        Times sum;
        double least = 1;  // attention at a depth: of the least disturbed call
        for (int i = 0; i < calls; ++i) {
            Times times;
            step(n, true, times);
            sum.stage += times.stage;
            sum.attention += times.attention;
            sum.append += times.append;
            least = std::min(least, times.attention);
        }
        const double factor = 1e6 / (static_cast<double>(n) * calls);  // us per token
        const double attention = from_start ? sum.attention : least * calls;
        return {sum.stage * factor, attention * factor, sum.append * factor};
    }

private:
    static kv::CacheConfig config(const Shape& shape, const Type& type) {
        kv::CacheConfig c;
        c.n_layer = shape.n_layer;
        c.n_head_kv = shape.n_head_kv;
        c.head_size = shape.head_size;
        c.n_ctx = 1 << 20;
        c.n_seq_max = 1;
        c.n_ubatch = kPrefill;
        c.params = {type.type, type.type, 0, 128, -1, 0, LK_ROWS_OWN, 0, 0};
        return c;
    }

    void step(int n, bool attend, Times& times) {
        const kv::Segment segment{0, 0, n};
        cache_.reserve({&segment, 1});
        pass_ = backend_->begin(cache_, {&segment, 1}, std::move(pass_));
        for (int layer = 0; layer < shape_.n_layer; ++layer) {
            const double begin = now();
            backend_->stage({.cache = &cache_,
                             .layer = layer,
                             .n = n,
                             .n_head = shape_.n_head,
                             .n_rot = shape_.head_size,
                             .cos_sin = angles_.data(),
                             .q = q_.data(),
                             .k = k_.data(),
                             .v = v_.data()});
            const double staged = now();
            backend_->stage_pages(*pass_, {layer, layer + 1});
            const double paged = now();
            if (attend) {
                backend_->attention({.cache = &cache_,
                                     .segments = {&segment, 1},
                                     .q = q_.data(),
                                     .out = out_.data(),
                                     .layer = layer,
                                     .n_head = shape_.n_head,
                                     .scale = 1 / std::sqrt(static_cast<float>(shape_.head_size)),
                                     .rotation = {},
                                     .window = 0,
                                     .pass = pass_.get()});
            }
            const double attended = now();
            times.stage += staged - begin;
            times.append += paged - staged;
            times.attention += attended - paged;
        }
        const double begin = now();
        backend_->commit(*pass_);
        times.append += now() - begin;
    }

    Shape shape_;
    std::unique_ptr<Backend> backend_;
    kv::Cache cache_;
    std::unique_ptr<kv::Sequence> start_;
    std::unique_ptr<Pass> pass_;
    std::vector<float> k_;
    std::vector<float> v_;
    std::vector<float> q_;
    std::vector<float> out_;
    std::vector<float> angles_;
};

void measure(const Shape& shape, int depth, int n, int calls, int turns, const std::string& only) {
    std::vector<std::unique_ptr<Run>> runs;
    std::vector<const char*> names;
    for (const Type& type : kTypes) {
        if (only.empty() || only == type.name) {
            runs.push_back(std::make_unique<Run>(shape, type, depth));
            names.push_back(type.name);
        }
    }
    std::vector<Times> best(runs.size(), Times{1e9, 1e9, 1e9});
    for (int turn = 0; turn < turns; ++turn) {
        for (size_t i = 0; i < runs.size(); ++i) {
            const Times t = runs[i]->measure(n, calls, depth == 0);
            best[i] = {std::min(best[i].stage, t.stage), std::min(best[i].attention, t.attention),
                       std::min(best[i].append, t.append)};
        }
    }
    for (size_t i = 0; i < runs.size(); ++i) {
        std::printf("| %s | %d | %d | %s | %.1f | %.1f | %.1f | %.2f | %.2f |\n", shape.name, depth, n, names[i],
                    best[i].stage, best[i].attention, best[i].append, best[0].attention / best[i].attention,
                    best[0].total() / best[i].total());
    }
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string wanted = argc > 1 ? argv[1] : "small";
    const int turns = argc > 2 ? std::atoi(argv[2]) : 7;
    if (argc > 3) {
        setenv("LLAMA_KIVI_CPU", argv[3], 1);
    }
    const auto* const shape =
        std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return wanted == s.name; });
    if (shape == std::end(kShapes) || turns < 1) {
        std::fprintf(stderr, "usage: %s [small|falcon|large|multi [TURNS [TABLE [DEPTH [TYPE]]]]]\n", argv[0]);
        return 1;
    }
    std::printf("%s\n\n", cpu_description().c_str());
    std::printf(
        "| shape | depth | tokens a call | type | stage, us | attention, us | append, us | f16 attention / this |"
        " f16 total / this |\n|---|---|---|---|---|---|---|---|---|\n");
    const std::string only = argc > 5 ? argv[5] : "";
    for (const int depth : kDepths) {
        if (argc <= 4 || std::atoi(argv[4]) == depth) {
            measure(*shape, depth, 1, depth == 0 ? 120 : 24, turns, only);
        }
    }
    if (argc <= 4 || std::atoi(argv[4]) < 0) {
        measure(*shape, 0, kPrefill, 2, turns, only);
    }
    return 0;
}
