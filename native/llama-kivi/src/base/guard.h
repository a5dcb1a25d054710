// Turns exceptions into status codes and their text into a message of the thread: lk_last_error() in the engine,
// lk_plugin::last_error in a plugin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <utility>

#include "base/error.h"
#include "llama_kivi.h"

namespace lk {

struct ErrorAmounts {
    uint64_t needed = 0;
    uint64_t available = 0;
};

// Stores the calling thread's message, cut if very long. Allocates nothing, so it works out of memory.
void set_last_error(const char* message, ErrorAmounts amounts = {}) noexcept;

// Returns the calling thread's last message ("" if none), valid until the next set_last_error.
const char* last_error() noexcept;
ErrorAmounts last_error_amounts() noexcept;

// Runs body. Returns LK_OK, or the status of its exception.
template <class F>
lk_status guard(F&& body) noexcept {
    try {
        std::forward<F>(body)();
        return LK_OK;
    } catch (const Error& e) {
        set_last_error(e.what(), {e.needed(), e.available()});
        return e.status();
    } catch (const std::bad_alloc&) {
        set_last_error("out of memory");
        return LK_OUT_OF_MEMORY;
    } catch (const std::exception& e) {
        set_last_error(e.what());
        return LK_INTERNAL_ERROR;
    } catch (...) {
        set_last_error("unknown exception");
        return LK_INTERNAL_ERROR;
    }
}

// Rejects a parameter struct of another interface version. Use inside guard.
inline void check_struct_size(uint32_t given, size_t expected, const char* name) {
    LK_CHECK(given == expected, LK_INVALID_ARGUMENT,
             "%s.struct_size is %u, but this library expects %zu; set it with %s_default", name, given, expected, name);
}

// Rejects a NULL argument by name. Use inside guard.
#define LK_REQUIRE(argument) LK_CHECK((argument) != nullptr, LK_INVALID_ARGUMENT, "argument '%s' is NULL", #argument)

}  // namespace lk
