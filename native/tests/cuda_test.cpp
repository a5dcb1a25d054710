// The CUDA backend's pages against the CPU's. Without a GPU the tests are skipped.
#include "cuda_helpers.h"

namespace lk {
namespace {

TEST_F(Cuda, PagesEqualTheCpus) {
    size_t n_bytes = 0;
    size_t n_different = 0;
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
                for (size_t i = 0; i < expected.size(); ++i) {
                    different += actual[i] != expected[i];
                }
                EXPECT_LE(different, 8 + expected.size() / 1000);  // 8: the checksum
                n_bytes += expected.size();
                n_different += different > 8 ? different - 8 : 0;
            }
        }
    }
    std::printf("pages: %zu of %zu bytes differ from the CPU's\n", n_different, n_bytes);
}

}  // namespace
}  // namespace lk
