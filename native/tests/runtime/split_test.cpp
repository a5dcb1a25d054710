// A model whose last layers are on a second backend. That backend is also a CPU backend, so all results must be
// bit-identical.
#include <new>

#include "backend/cpu/cpu_backend.h"
#include "runtime/context.h"
#include "runtime/memory_estimate.h"
#include "support/kv_helpers.h"
#include "support/model_helpers.h"

namespace lk {
namespace {

// Host memory with a size limit.
class ScarceMemory final : public Memory {
public:
    bool on_host() const override { return true; }
    void* allocate(size_t bytes) override {
        if (fails) {
            throw std::bad_alloc();
        }
        return host_memory().allocate(bytes);
    }
    void free(void* data, size_t bytes) noexcept override { host_memory().free(data, bytes); }
    void copy(void* to, const void* from, size_t bytes) override { host_memory().copy(to, from, bytes); }
    void zero(void* data, size_t bytes) override { host_memory().zero(data, bytes); }
    void read(void* to, const void* from, size_t bytes) override { host_memory().read(to, from, bytes); }
    void write(void* to, const void* from, size_t bytes) override { host_memory().write(to, from, bytes); }

    bool pools_buffers() const override { return true; }

    bool fails = false;
};

// The operation in which the device fails.
enum class Failure { none, forward, stage_pages, commit };

// A CPU backend that fails like a device.
class FragileBackend final : public Backend {
public:
    explicit FragileBackend(const Failure& failure) : failure_(failure) {}

    void embed(const Tensor& table, const int32_t* tokens, int n, float* out) override {
        cpu_->embed(table, tokens, n, out);
    }
    void make(const Rows& rows, int n, int dim, float* out) override { cpu_->make(rows, n, dim, out); }
    void matmul(const Rows& rows, int n, std::span<const Product> products) override {
        cpu_->matmul(rows, n, products);
    }
    void stage(const StageArgs& args) override { cpu_->stage(args); }
    void attention(const AttentionArgs& args) override {
        cpu_->attention(args);
        fail_at(Failure::forward);
    }
    void sample(float* logits, int n, int n_vocab, const lk_sampling* samplings, int32_t* tokens) override {
        cpu_->sample(logits, n, n_vocab, samplings, tokens);
    }
    void stage_pages(Pass& pass, kv::Layers layers) override {
        cpu_->stage_pages(pass, layers);
        if (failure_ == Failure::stage_pages) {
            throw std::bad_alloc();
        }
    }
    void commit(Pass& pass) override {
        cpu_->commit(pass);
        fail_at(Failure::commit);
    }

private:
    void fail_at(Failure place) const {
        LK_CHECK(failure_ != place, LK_DEVICE_ERROR, "the GPU's driver failed: unspecified launch failure");
    }

    const Failure& failure_;
    std::unique_ptr<Backend> cpu_ = make_cpu_backend(1);
};

class OtherCpu final : public Device {
public:
    Memory& memory() override { return memory_; }
    std::unique_ptr<Backend> make_backend(bool) override { return std::make_unique<FragileBackend>(failure_); }
    void check_invariant(kv::Cache&) const override {}
    void upload(const void*, size_t) override {}

    ScarceMemory memory_;
    Failure failure_ = Failure::none;
};

struct SplitModel {
    SplitModel(const std::string& path, int n_device_layers) : device(std::make_shared<OtherCpu>()) {
        auto loaded = std::const_pointer_cast<Model>(Model::load(path, true, 0, nullptr));
        loaded->device = device;
        loaded->placement.n_device_layers = n_device_layers;
        model = loaded;
    }

    std::shared_ptr<OtherCpu> device;
    std::shared_ptr<const Model> model;
};

lk_context_params params_of(lk_cache_type type) {
    lk_context_params params = test::small_params(type);
    params.n_ubatch = 48;
    params.n_threads = 1;
    return params;
}

// Appends tokens [begin, end) of a text to a sequence. Returns the logits of the last.
std::vector<float> read(Context& context, int32_t seq, int begin, int end) {
    const std::vector<int32_t> text = test::text_tokens(end);
    const std::vector<int32_t> seqs(end - begin, seq);
    lk_batch batch{};
    batch.n_tokens = static_cast<uint32_t>(end - begin);
    batch.tokens = text.data() + begin;
    batch.seq_ids = seqs.data();
    context.decode(batch);
    const float* logits = context.logits(batch.n_tokens - 1);
    return {logits, logits + context.model().config.n_vocab};
}

std::vector<uint8_t> save(const Context& context, int32_t seq) {
    std::vector<uint8_t> state(context.state_size(seq));
    context.save_state(seq, state);
    return state;
}

// Runs every operation that changes a cache on both contexts and compares them.
void expect_same(Context& whole, Context& split) {
    const auto both = [&](const auto& act) {
        act(whole);
        act(split);
        for (int32_t seq = 0; seq < 3; ++seq) {
            ASSERT_EQ(save(split, seq), save(whole, seq));
        }
    };
    const auto expect_reads_same = [&](int32_t seq, int begin, int end) {
        EXPECT_EQ(read(split, seq, begin, end), read(whole, seq, begin, end));
    };
    expect_reads_same(0, 0, 150);
    expect_reads_same(0, 150, 151);
    both([](Context& c) { c.copy(0, 1); });
    expect_reads_same(1, 151, 190);
    both([](Context& c) { c.remove(0, 20, 90); });
    expect_reads_same(0, 90, 140);
    both([](Context& c) { c.truncate(1, 60); });
    expect_reads_same(1, 60, 62);
    const std::vector<uint8_t> state = save(whole, 0);
    both([&](Context& c) { c.load_state(2, state); });
    expect_reads_same(2, 140, 150);
    lk_cache_usage a = whole.cache().usage();
    lk_cache_usage b = split.cache().usage();
    a.held_bytes = b.held_bytes = 0;  // slabs of one place hold more slots
    // Every place rounds the size of its slots up.
    EXPECT_NEAR(static_cast<double>(a.allocated_bytes), static_cast<double>(b.allocated_bytes), 4096);
    a.allocated_bytes = b.allocated_bytes = 0;
    EXPECT_EQ(std::memcmp(&a, &b, sizeof(a)), 0);
}

TEST(Split, EverythingIsAsInOnePlace) {
    for (const lk_cache_type type : {LK_CACHE_F16, LK_CACHE_KIVI2, LK_CACHE_KIVI2_PAPER, LK_CACHE_Q8_0}) {
        for (const int n_device_layers : {1, 7}) {
            SCOPED_TRACE(format("%s, %d layers", lk_cache_type_name(type), n_device_layers));
            Context whole(Model::load(test::demo_model_path(), true, 0, nullptr), params_of(type));
            Context split(SplitModel(test::demo_model_path(), n_device_layers).model, params_of(type));
            ASSERT_EQ(split.cache().parts().size(), 2u);
            expect_same(whole, split);
        }
    }
}

TEST(Split, FalconToo) {
    const std::string path = std::string(LK_GOLDEN_DIR) + "/falcon-40b.gguf";
    const auto whole = Model::load(path, true, 0, nullptr);
    const SplitModel split(path, 1);
    lk_context_params params = params_of(LK_CACHE_F16);
    params.n_ctx = 64;
    Context a(whole, params);
    Context b(split.model, params);
    const std::vector<int32_t> tokens = {1, 5, 9, 2, 7, 30, 11};
    lk_batch batch{};
    batch.n_tokens = static_cast<uint32_t>(tokens.size());
    batch.tokens = tokens.data();
    a.decode(batch);
    b.decode(batch);
    const int n_vocab = whole->config.n_vocab;
    EXPECT_TRUE(std::equal(a.logits(6), a.logits(6) + n_vocab, b.logits(6)));
}

TEST(Split, AFailureInOnePlaceChangesNoPlace) {
    const SplitModel split(test::demo_model_path(), 4);
    Context context(split.model, params_of(LK_CACHE_KIVI2));
    Context calm(split.model, params_of(LK_CACHE_KIVI2));
    read(context, 0, 0, 100);
    read(calm, 0, 0, 100);
    const std::vector<uint8_t> before = save(context, 0);
    const auto expect_unchanged = [&](const auto& act) {
        split.device->memory_.fails = true;
        EXPECT_ANY_THROW(act());
        split.device->memory_.fails = false;
        EXPECT_EQ(save(context, 0), before);
        EXPECT_EQ(context.cache().length(1), 0);
    };
    expect_unchanged([&] { read(context, 0, 100, 300); });
    expect_unchanged([&] { context.copy(0, 1); });
    expect_unchanged([&] { context.remove(0, 10, 20); });
    expect_unchanged([&] { context.load_state(1, before); });
    EXPECT_EQ(read(context, 0, 100, 160), read(calm, 0, 100, 160));
}

TEST(Split, NoRoomForACommitChangesNoPlace) {
    const SplitModel split(test::demo_model_path(), 4);
    Context context(split.model, params_of(LK_CACHE_KIVI2));
    Context calm(split.model, params_of(LK_CACHE_KIVI2));
    read(context, 0, 0, 60);
    read(calm, 0, 0, 60);
    // The first flush, then continued pages.
    for (const auto& [begin, end] :
         {std::pair(60, 100), std::pair(100, 140), std::pair(140, 141), std::pair(141, 180)}) {
        const std::vector<uint8_t> before = save(context, 0);
        split.device->failure_ = Failure::stage_pages;
        EXPECT_THROW(read(context, 0, begin, end), std::bad_alloc);
        split.device->failure_ = Failure::none;
        EXPECT_EQ(save(context, 0), before);
        EXPECT_EQ(read(context, 0, begin, end), read(calm, 0, begin, end));
        EXPECT_EQ(save(context, 0), save(calm, 0));
    }
}

// A device that fails may have written half of a commit.
TEST(Split, ADevicesFailureEndsTheContext) {
    for (const Failure failure : {Failure::forward, Failure::commit}) {
        const SplitModel split(test::demo_model_path(), 4);
        Context context(split.model, params_of(LK_CACHE_KIVI2));
        read(context, 0, 0, 20);
        const std::vector<uint8_t> state = save(context, 0);
        const auto refused = [](const std::vector<std::string>& parts, const auto& act) {
            test::expect_error(LK_DEVICE_ERROR, parts, act);
        };
        split.device->failure_ = failure;
        refused({"unspecified launch failure"}, [&] { read(context, 0, 20, 60); });
        split.device->failure_ = Failure::none;
        const std::vector<std::string> lost = {"this context is unusable", "unspecified launch failure",
                                               "create another"};
        refused(lost, [&] { read(context, 0, 20, 60); });
        refused(lost, [&] { context.logits(0); });
        refused(lost, [&] { context.cache().usage(); });
        refused(lost, [&] { context.check_seq(0); });
        refused(lost, [&] { context.truncate(0, 1); });
        refused(lost, [&] { context.remove(0, 0, 1); });
        refused(lost, [&] { context.copy(0, 1); });
        refused(lost, [&] { save(context, 0); });
        refused(lost, [&] { context.load_state(0, state); });
        refused(lost, [&] { context.set_threads(1); });
        refused(lost, [&] { context.observe({}); });
        // The model and its other contexts are not affected.
        Context another(split.model, params_of(LK_CACHE_KIVI2));
        another.load_state(0, state);
        read(another, 0, 20, 60);
    }
}

TEST(Split, TheEstimateCountsTheDevicesPart) {
    const auto model = Model::load(test::demo_model_path(), true, 0, nullptr);
    const lk_context_params params = params_of(LK_CACHE_KIVI2);
    const auto bytes = [&](int n_gpu_layers) {
        return estimate_memory(*model->file, n_gpu_layers, params).device_bytes;
    };
    EXPECT_EQ(bytes(0), 0u);
    EXPECT_LT(bytes(1), bytes(4));
    EXPECT_LT(bytes(4), bytes(10));
    EXPECT_EQ(bytes(10), bytes(-1));
    EXPECT_EQ(bytes(99), bytes(-1));
}

}  // namespace
}  // namespace lk
