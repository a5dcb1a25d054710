// The engine's side of the border with a plugin, against a plugin written in C.
#include "backend/plugin_device.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "fake_plugin.h"
#include "support/kv_helpers.h"

namespace lk {
namespace {

using kv::Segment;
using test::Shape;
using test::Tokens;

class PluginDeviceTest : public testing::Test {
protected:
    void SetUp() override { fake_record = {}; }
    void TearDown() override {
        device_.reset();
        EXPECT_EQ(fake_record.n_devices, 0);
        EXPECT_EQ(fake_record.n_backends, 0);
        EXPECT_EQ(fake_record.n_passes, 0);
        EXPECT_EQ(fake_record.n_buffers, 0);
    }

    Device& open() {
        device_ = open_plugin_device(fake_plugin, {}, nullptr);
        return *device_;
    }

    static void fail_next(const char* function, lk_status status) {
        fake_record.failing = function;
        fake_record.status = status;
    }

    // The status of the error that body throws.
    template <class Body>
    static lk_status status_of(Body&& body) {
        try {
            body();
        } catch (const Error& e) {
            EXPECT_STREQ(e.what(), "the fake device is tired");
            EXPECT_EQ(e.needed(), 300u);
            EXPECT_EQ(e.available(), 7u);
            return e.status();
        }
        return LK_OK;
    }

    std::shared_ptr<Device> device_;
};

TEST_F(PluginDeviceTest, ErrorsComeWithStatusMessageAndAmounts) {
    Device& device = open();
    const std::unique_ptr<Backend> backend = device.make_backend(false);
    fail_next("allocate", LK_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(status_of([&] { const Buffer<float> buffer(device.memory(), 10); }), LK_OUT_OF_DEVICE_MEMORY);
    fail_next("allocate", LK_OUT_OF_MEMORY);
    EXPECT_THROW(const Buffer<float> buffer(device.memory().nearest_host(), 10), std::bad_alloc);
    fail_next("finish", LK_NUMERIC_ERROR);
    EXPECT_EQ(status_of([&] { backend->finish(); }), LK_NUMERIC_ERROR);
    fail_next("create_backend", LK_DEVICE_ERROR);
    EXPECT_EQ(status_of([&] { device.make_backend(false); }), LK_DEVICE_ERROR);
    fail_next("upload", LK_DEVICE_ERROR);
    EXPECT_EQ(status_of([&] { device.upload("x", 1); }), LK_DEVICE_ERROR);
    fail_next("describe", LK_DEVICE_ERROR);
    EXPECT_EQ(status_of([&] { describe_plugin_device(fake_plugin, 0); }), LK_DEVICE_ERROR);
    EXPECT_STREQ(describe_plugin_device(fake_plugin, 3).name, "fake 3");
}

TEST_F(PluginDeviceTest, BatchInvarianceIsCheckedAndPassedOn) {
    Device& device = open();
    for (const bool invariant : {true, false}) {
        const std::unique_ptr<Backend> backend = device.make_backend(invariant);
        EXPECT_EQ(fake_record.batch_invariant, invariant ? 1 : 0);
    }
    kv::CacheConfig config;
    config.n_layer = config.n_head_kv = config.n_seq_max = 1;
    config.head_size = 64;
    config.n_ctx = config.n_ubatch = 32;
    config.params = {LK_CACHE_F16, LK_CACHE_F16, 32, 32, -1, 0, LK_ROWS_OWN, 0, 0};
    kv::Cache cache(config);
    device.check_invariant(cache);
    EXPECT_EQ(fake_record.checked_head_size, 64);
    fail_next("check_invariant", LK_UNSUPPORTED);
    EXPECT_EQ(status_of([&] { device.check_invariant(cache); }), LK_UNSUPPORTED);
}

TEST_F(PluginDeviceTest, OpeningPassesWeightsAndProgress) {
    const std::vector<uint8_t> bytes(12);
    const std::vector<float> frequency(4);
    const DeviceWeights weights{{bytes, std::span(bytes).first(5)}, frequency};
    float seen = 0;
    device_ = open_plugin_device(fake_plugin, weights, [&](float done) {
        seen = done;
        return true;
    });
    EXPECT_STREQ(fake_record.text, "17 bytes, 4 frequencies");
    EXPECT_EQ(seen, 0.5f);
    EXPECT_EQ(status_of([&] { open_plugin_device(fake_plugin, weights, [](float) { return false; }); }), LK_CANCELLED);
    const auto throws = [](float) -> bool { throw std::logic_error("not today"); };
    EXPECT_THROW(open_plugin_device(fake_plugin, weights, throws), std::logic_error);
    EXPECT_EQ(fake_record.n_devices, 1);
}

TEST_F(PluginDeviceTest, MemoryIsThePlugins) {
    Device& device = open();
    EXPECT_FALSE(device.memory().on_host());
    EXPECT_TRUE(device.memory().pools_buffers());
    Memory& host = device.memory().nearest_host();
    EXPECT_TRUE(host.on_host());
    EXPECT_EQ(&host.nearest_host(), &host);
    for (Memory* memory : {&device.memory(), &host}) {
        Buffer<int> buffer(*memory, 3);
        const int from[] = {5, 6, 7};
        memory->write(buffer.data(), from, sizeof(from));
        const Buffer<int> copied(buffer);
        memory->zero(buffer.data(), buffer.bytes());
        int to[3];
        memory->read(to, copied.data(), sizeof(to));
        EXPECT_EQ(to[2], 7);
        memory->read(to, buffer.data(), sizeof(to));
        EXPECT_EQ(to[2], 0);
    }
}

TEST_F(PluginDeviceTest, OperationsCrossWithAllTheirArguments) {
    Device& device = open();
    const std::unique_ptr<Backend> backend = device.make_backend(false);
    const Tensor w{WeightType::Q4_K, nullptr, 256, 10, 144, "blk.3.attn_q.weight", "attn_q", 3};
    float x[4] = {};
    const int32_t token = 42;
    backend->embed(w, &token, 1, x);
    EXPECT_STREQ(fake_record.text, "blk.3.attn_q.weight of 1, token 42");
    backend->make(Rows::layer_norm(x, x, x, 0.5f), 2, 3, x);
    EXPECT_STREQ(fake_record.text, "form 2, eps 0.5, 2 x 3");
    const Product products[] = {{&w, x}, {&w, x, true}};
    backend->matmul(Rows::plain(x), 1, products);
    EXPECT_STREQ(fake_record.text,
                 "blk.3.attn_q.weight (attn_q, layer 3, type 12, 10 x 256 of 144) "
                 "blk.3.attn_q.weight (attn_q, layer 3, type 12, 10 x 256 of 144)+ ");
    int32_t tokens[2] = {};
    const lk_sampling samplings[2] = {};
    backend->sample(x, 2, 2, samplings, tokens);
    EXPECT_EQ(tokens[1], 17);
}

TEST_F(PluginDeviceTest, APassIsEndedBeforeTheNextBegins) {
    const Shape shape{.n_layer = 2};
    Device& device = open();
    const std::unique_ptr<Backend> backend = device.make_backend(false);
    kv::Cache cache(shape.config(), device.memory());
    kv::Cache other(shape.config(), device.memory());
    std::unique_ptr<Pass> pass;
    for (int i = 0; i < 3; ++i) {
        const Segment segment{i % 2, 0, 3 + i};
        cache.reserve({&segment, 1});
        pass = backend->begin(cache, {&segment, 1}, std::move(pass));
        EXPECT_EQ(fake_record.n_passes, 1);
        float q = 0;
        backend->stage({.cache = &cache,
                        .layer = 1,
                        .n = segment.n_rows,
                        .n_head = 4,
                        .n_rot = 8,
                        .pairs = RopePairs::halves,
                        .q = &q,
                        .pass = pass.get()});
        EXPECT_EQ(fake_record.stage.layer, 1);
        EXPECT_EQ(fake_record.stage.n, segment.n_rows);
        EXPECT_EQ(fake_record.stage.n_head, 4);
        EXPECT_EQ(fake_record.stage.n_rot, 8);
        EXPECT_EQ(fake_record.stage.halves, 1);
        EXPECT_EQ(fake_record.stage.q, &q);
        backend->stage_pages(*pass, {0, 2});
        EXPECT_STREQ(fake_record.text, "layers 0 to 2");
        backend->attention({&cache, {&segment, 1}, &q, &q, 1, 4, 0.25f, test::rotation(64), 9, pass.get()});
        EXPECT_EQ(fake_record.attention.window, 9);
        EXPECT_EQ(fake_record.attention.scale, 0.25f);
        EXPECT_EQ(fake_record.attention.halves, 0);
        const int before = cache.length(segment.seq);
        fail_next("commit", LK_DEVICE_ERROR);
        EXPECT_EQ(status_of([&] { backend->commit(*pass); }), LK_DEVICE_ERROR);
        EXPECT_EQ(cache.length(segment.seq), before);
        backend->commit(*pass);
        EXPECT_EQ(cache.length(segment.seq), before + segment.n_rows);
    }
    EXPECT_EQ(fake_record.most_passes, 1);
    fail_next("begin", LK_OUT_OF_DEVICE_MEMORY);
    const Segment segment{0, 0, 1};
    EXPECT_EQ(status_of([&] { backend->begin(cache, {&segment, 1}, std::move(pass)); }), LK_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(fake_record.n_passes, 0);
    pass = backend->begin(cache, {&segment, 1}, nullptr);
    const auto refused = [](lk_status status, auto&& body) {
        try {
            body();
            return false;
        } catch (const Error& e) {
            return e.status() == status;
        }
    };
    EXPECT_TRUE(refused(LK_INTERNAL_ERROR, [&] { backend->stage({.cache = &cache}); }));
    EXPECT_TRUE(refused(LK_INTERNAL_ERROR, [&] { backend->stage({.cache = &other, .pass = pass.get()}); }));
}

}  // namespace
}  // namespace lk
