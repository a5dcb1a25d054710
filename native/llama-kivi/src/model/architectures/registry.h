// The list of architectures, one per line.
#pragma once

#include "model/architecture.h"

// NAME.cpp defines NAME_architecture.
#define LK_ARCHITECTURES(X) \
    X(llama)                \
    X(falcon)

namespace lk {

#define LK_DECLARE(NAME) extern const Architecture NAME##_architecture;
LK_ARCHITECTURES(LK_DECLARE)
#undef LK_DECLARE

}  // namespace lk
