// Attribution of NaN and infinity on a GPU: host functions.
#include "backend/cuda/plan/numeric_watch.h"

#include "support/kv_helpers.h"

namespace lk::cuda {
namespace {

TEST(NumericWatch, NamesTheOperationThatWrote) {
    NumericWatch watch;
    const auto fails = [](const char* name) { return [name] { LK_FAIL(LK_NUMERIC_ERROR, "%s", name); }; };
    const float x[100] = {};
    watch.add_result(x, 50, watch.add_place(fails("first")));
    watch.add_result(x + 50, 50, watch.add_place(fails("second")));
    const int place = watch.read_result(x + 60, fails("unknown"));
    test::expect_error(LK_NUMERIC_ERROR, {"second"}, [&] { watch.fail(place); });
    const float other = 0;
    const int unknown = watch.read_result(&other, fails("unknown"));
    test::expect_error(LK_NUMERIC_ERROR, {"unknown"}, [&] { watch.fail(unknown); });
    // A result that is overwritten belongs to the later operation.
    watch.add_result(x, 50, watch.add_place(fails("third")));
    test::expect_error(LK_NUMERIC_ERROR, {"third"}, [&] { watch.fail(watch.read_result(x, fails("unknown"))); });
    test::expect_error(LK_INTERNAL_ERROR, {"77"}, [&] { watch.fail(77); });
    test::expect_error(LK_INTERNAL_ERROR, {"0"}, [&] { watch.fail(0); });
}

TEST(NumericWatch, UnreadResultsAreCheckedOnce) {
    NumericWatch watch;
    const float x[100] = {};
    for (int i = 0; i < 10; ++i) {
        watch.add_result(x + 10 * i, 10, watch.add_place([] {}), i == 3);
    }
    watch.read_result(x + 42, [] {});
    std::vector<const float*> checked;
    const auto check = [&](const NumericWatch::Result& r) { checked.push_back(r.data); };
    watch.for_unread(check);
    EXPECT_EQ(checked.size(), 8u);
    EXPECT_EQ(std::count(checked.begin(), checked.end(), x + 30), 0);
    EXPECT_EQ(std::count(checked.begin(), checked.end(), x + 40), 0);
    watch.for_unread(check);
    EXPECT_EQ(checked.size(), 8u);
    watch.clear();
    watch.for_unread(check);
    EXPECT_EQ(checked.size(), 8u);
    EXPECT_EQ(watch.add_place([] {}), 1);
}

}  // namespace
}  // namespace lk::cuda
