#include "base/log.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "llama_kivi.h"

namespace lk {

namespace {

struct Listener {
    std::mutex mutex;  // held during a callback: set_log returns only after the previous callback's last call
    lk_log_callback callback = nullptr;
    void* user_data = nullptr;
};

Listener& listener() {
    static Listener instance;
    return instance;
}

}  // namespace

void set_log(lk_log_callback callback, void* user_data) {
    Listener& l = listener();
    const std::lock_guard lock(l.mutex);
    l.callback = callback;
    l.user_data = user_data;
}

void log(lk_log_level level, const char* text, ...) {
    Listener& l = listener();
    const std::lock_guard lock(l.mutex);
    if (l.callback == nullptr) {
        return;
    }
    char line[1024];
    va_list args;
    va_start(args, text);
    std::vsnprintf(line, sizeof line, text, args);
    va_end(args);
    l.callback(level, line, l.user_data);
}

}  // namespace lk
