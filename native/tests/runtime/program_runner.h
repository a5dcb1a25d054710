// Runs a random program, then its oracle: the operations of one sequence alone, in a new context, one token a call.
#pragma once

#include <optional>
#include <string>

#include "random_program.h"

namespace lk::test {

// Says what differs; nullopt: nothing.
std::optional<std::string> failure_of(const Program& p);

}  // namespace lk::test
