// The CUDA backend's pages against the CPU's. Without a GPU the tests are skipped.
#include "support/cuda_helpers.h"
#include "support/recipe_shapes.h"

namespace lk {
namespace {

// Every type and recipe, with heads of one size.
std::vector<test::NamedShape> shapes_of(int head_size) {
    std::vector<test::NamedShape> shapes;
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            const Shape shape{.type_k = type, .type_v = type, .lengths = lengths, .n_layer = 2};
            shapes.push_back({shape.text(), shape});
        }
    }
    for (test::NamedShape& s : test::recipe_shapes()) {
        shapes.push_back(std::move(s));
    }
    for (test::NamedShape& s : shapes) {
        s.shape.head_size = head_size;
        s.shape.n_head_kv = 2;
    }
    std::erase_if(shapes, [](const test::NamedShape& s) { return !s.shape.valid(); });
    return shapes;
}

// No byte may differ, for any type, recipe, head size and group (docs/decisions/0008-cuda.md).
TEST_F(Cuda, PagesEqualTheCpus) {
    size_t n_bytes = 0;
    for (const int d : {64, 80, 96, 128, 256}) {
        for (const auto& [name, shape] : shapes_of(d)) {
            SCOPED_TRACE(name + format(", D %d", d));
            kv::Cache cpu(shape.config());
            kv::Cache gpu(shape.config(), device_->memory());
            const Tokens tokens(shape, 700, 3);
            int at = 0;
            for (const int n : {1, 3, 130, 1, 1, 200, 31, 300, 33}) {
                test::append(cpu, 0, tokens, at, at + n);
                append(gpu, 0, tokens, at, at + n);
                at += n;
            }
            const std::vector<uint8_t> expected = state(cpu);
            const std::vector<uint8_t> actual = state(gpu);
            ASSERT_EQ(actual.size(), expected.size());
            size_t different = 0;
            size_t first = expected.size();
            for (size_t i = 0; i < expected.size(); ++i) {
                if (actual[i] != expected[i]) {
                    ++different;
                    first = std::min(first, i);
                }
            }
            EXPECT_EQ(different, 0u) << "of " << expected.size() << " bytes, the first one byte " << first;
            n_bytes += expected.size();
        }
    }
    std::printf("pages: %zu bytes compared with the CPU's\n", n_bytes);
}

// Rows taken back return from the ring and its undo window, as on the CPU.
TEST_F(Cuda, PagesEqualTheCpusAfterGoingBack) {
    for (const auto& [name, shape] : shapes_of(64)) {
        SCOPED_TRACE(name);
        kv::Cache cpu(shape.config());
        kv::Cache gpu(shape.config(), device_->memory());
        const Tokens tokens(shape, 500, 5);
        int at = 0;
        for (const int n : {137, 1, 60, 20}) {
            test::append(cpu, 0, tokens, at, at + n);
            append(gpu, 0, tokens, at, at + n);
            at += n - (n > 1 ? 9 : 1);
            cpu.truncate(0, at);
            gpu.truncate(0, at);
        }
        test::append(cpu, 0, tokens, at, at + 150);
        append(gpu, 0, tokens, at, at + 150);
        EXPECT_TRUE(state(gpu) == state(cpu));
    }
}

// Staged pages and tables equal the committed ones, whether staged layer by layer or all at once.
TEST_F(Cuda, StagedPagesAreTheCommittedOnes) {
    const auto fetch = [&](const uint8_t* data, size_t n) {
        std::vector<uint8_t> bytes(n);
        device_->memory().read(bytes.data(), data, n);
        return bytes;
    };
    size_t n_pages = 0;
    for (const int d : {80}) {
        for (const auto& [name, shape] : shapes_of(d)) {
            SCOPED_TRACE(name + format(", D %d", d));
            kv::Cache once(shape.config(), device_->memory());
            kv::Cache gpu(shape.config(), device_->memory());
            const Tokens tokens(shape, 700, 4);
            int at = 0;
            for (const int n : {1, 90, 130, 1, 200, 31, 214, 33}) {
                append(once, 0, tokens, at, at + n);
                const std::vector<uint8_t> before = state(gpu);
                const Segment segment{0, 0, n};
                gpu.reserve({&segment, 1});
                stage(gpu, segment, tokens, at, at + n);
                for (int layer = 0; layer < shape.n_layer; ++layer) {
                    backend_->stage_pages(*pass_, {layer, layer + 1});
                }
                backend_->finish();
                EXPECT_EQ(state(gpu), before);
                struct Staged {
                    std::vector<std::vector<uint8_t>> pages;
                    std::vector<uint8_t> tables;
                };
                Staged staged[2];
                for (const Side side : {Side::keys, Side::values}) {
                    const kv::SequenceSide& s = gpu.sequence(0).side(side);
                    const kv::SideSpec& spec = gpu.spec(side);
                    Staged& to = staged[side == Side::values];
                    for (const kv::PageRef& run : s.staged_pages()) {
                        to.pages.push_back(fetch(run.block->data.data(), spec.block_bytes()));
                    }
                    to.tables = fetch(s.staged_tables(), spec.head_count() * spec.table_bytes());
                }
                backend_->commit(*pass_);
                backend_->finish();
                for (const Side side : {Side::keys, Side::values}) {
                    const kv::SequenceSide& s = gpu.sequence(0).side(side);
                    const kv::SideSpec& spec = gpu.spec(side);
                    const Staged& was = staged[side == Side::values];
                    const auto last = s.pages().last(was.pages.size());
                    for (size_t i = 0; i < last.size(); ++i) {
                        EXPECT_EQ(fetch(last[i].block->data.data(), spec.block_bytes()), was.pages[i]);
                        ++n_pages;
                    }
                    EXPECT_EQ(fetch(s.tables(), was.tables.size()), was.tables);
                }
                EXPECT_EQ(state(gpu), state(once));
                at += n;
            }
        }
    }
    EXPECT_GT(n_pages, 100u);
}

}  // namespace
}  // namespace lk
