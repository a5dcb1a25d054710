// Admits calls of the C interface to a context, one at a time.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/guard.h"
#include "runtime/context.h"

struct lk_context {
    lk_context(std::shared_ptr<const lk::Model> model, const lk_context_params& params)
        : context(std::move(model), params) {}

    lk::Context context;
    // Number of threads in a call on this context, plus the flags below. Rejected calls count too, because they still
    // read the context for their message. The last thread to leave deletes a freed context.
    mutable std::atomic<uint32_t> state{0};
    mutable std::atomic<const char*> call{nullptr};  // name of the admitted call, for messages
};

namespace lk {

constexpr uint32_t kContextEntered = 1u << 31;
constexpr uint32_t kContextFreed = 1u << 30;

// Counts a thread in a call on a context, which keeps the context alive.
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

// Exclusive use of a context by one call. Throws LK_BUSY while another call holds it.
class ContextEntry {
public:
    ContextEntry(const lk_context* context, const char* call) : context_(context), visit_(context) {
        const uint32_t before = context_->state.fetch_or(kContextEntered);
        if ((before & kContextEntered) != 0) {
            const char* const running = context_->call.load();  // null if it has returned since
            throw Error(LK_BUSY, format("%s: the context is in %s. A context takes one call at a time: wait until it "
                                        "returns, or create another context of the model",
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
    ContextVisit visit_;  // destroyed after ~ContextEntry has released the context
};

// Runs body with exclusive use of the context. call: name of the C function, in static storage.
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
