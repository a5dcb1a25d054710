// The engine's log: lines for whoever called lk_log_set.
#pragma once

#include "llama_kivi.h"

namespace lk {

void set_log(lk_log_callback callback, void* user_data);

// printf-style; a line that is very long is cut. Costs next to nothing while nobody listens.
[[gnu::format(printf, 2, 3)]] void log(lk_log_level level, const char* text, ...);

}  // namespace lk
