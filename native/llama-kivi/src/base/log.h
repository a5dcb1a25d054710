// The engine's log: lines for the callback of lk_log_set.
#pragma once

#include "base/error.h"
#include "llama_kivi.h"

namespace lk {

void set_log(lk_log_callback callback, void* user_data);

// Logs a printf-style line, cut at 1023 bytes. Formats nothing without a callback.
[[gnu::format(LK_PRINTF, 2, 3)]] void log(lk_log_level level, const char* text, ...);

}  // namespace lk
