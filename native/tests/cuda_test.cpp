// The CUDA backend's pages against the CPU's. Without a GPU the tests are skipped.
#include "cuda_helpers.h"

namespace lk {
namespace {

// docs/decisions/0008-cuda.md: not one byte differs, whatever the type, the head size and the group.
TEST_F(Cuda, PagesEqualTheCpus) {
    size_t n_bytes = 0;
    for (const lk_cache_type type : kAllTypes) {
        for (const test::Lengths& lengths : kAllLengths) {
            for (const int d : {64, 80, 96, 128, 256}) {
                const Shape shape{
                    .type_k = type, .type_v = type, .lengths = lengths, .head_size = d, .n_layer = 2, .n_head_kv = 2};
                if (!shape.valid()) {
                    continue;
                }
                SCOPED_TRACE(shape.text());
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
    }
    std::printf("pages: %zu bytes compared with the CPU's\n", n_bytes);
}

}  // namespace
}  // namespace lk
