// What a process must ask for before it may use these instructions: nothing.
#pragma once
#include <stdint.h>

namespace quire {

static inline int32_t start() { return 0; }

}  // namespace quire
