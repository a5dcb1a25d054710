// The only way from the C interface into a context: one call at a time.
#pragma once

#include <atomic>
#include <cstdint>

#include "c_api_guard.h"
#include "runtime/context.h"

struct lk_context {
    lk_context(std::shared_ptr<const lk::Model> model, const lk_context_params& params)
        : context(std::move(model), params) {}

    lk::Context context;
    // Threads in a call on this context, refused ones included, and the flags below. Whoever leaves last deletes a
    // freed context: a refused call still reads the context to say why.
    mutable std::atomic<uint32_t> state{0};
    mutable std::atomic<const char*> call{nullptr};  // name of the call that was admitted, for messages
};

namespace lk {

constexpr uint32_t kContextEntered = 1u << 31;
constexpr uint32_t kContextFreed = 1u << 30;

// A thread in a call on a context: the context lives as long.
class ContextVisit {
public:
    explicit ContextVisit(const lk_context* context) : context_(context) { context_->state.fetch_add(1); }
    ~ContextVisit() {
        if (context_->state.fetch_sub(1) - 1 == kContextFreed) {
            delete context_;
        }
    }
    ContextVisit(const ContextVisit&) = delete;
    ContextVisit& operator=(const ContextVisit&) = delete;

private:
    const lk_context* context_;
};

// The one call that uses a context; LK_BUSY while there is another.
class ContextEntry {
public:
    ContextEntry(const lk_context* context, const char* call) : context_(context), visit_(context) {
        const uint32_t before = context_->state.fetch_or(kContextEntered);
        if ((before & kContextEntered) != 0) {
            const char* const running = context_->call.load();  // it may have left since
            throw Error(LK_BUSY, format("%s: the context is in %s. A context takes one call at a time: wait for its "
                                        "end, or create another context of the model",
                                        call, running != nullptr ? running : "another call"));
        }
        if ((before & kContextFreed) != 0) {
            context_->state.fetch_and(~kContextEntered);
            throw Error(LK_INVALID_ARGUMENT, format("%s: the context was freed", call));
        }
        context_->call.store(call);
    }
    ~ContextEntry() {
        context_->call.store(nullptr);
        context_->state.fetch_and(~kContextEntered);
    }
    ContextEntry(const ContextEntry&) = delete;
    ContextEntry& operator=(const ContextEntry&) = delete;

private:
    const lk_context* context_;
    ContextVisit visit_;  // left last
};

// Runs body with the context, which no other call uses meanwhile. call: the function's name, in static storage.
template <class F>
lk_status enter(lk_context* context, const char* call, F&& body) noexcept {
    return guard([&] {
        LK_REQUIRE(context);
        const ContextEntry entry(context, call);
        body(context->context);
    });
}

template <class F>
lk_status enter(const lk_context* context, const char* call, F&& body) noexcept {
    return guard([&] {
        LK_REQUIRE(context);
        const ContextEntry entry(context, call);
        body(context->context);
    });
}

}  // namespace lk
