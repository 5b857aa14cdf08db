// The tile registers of the processor: the compiler's intrinsics, but for one.
#pragma once
#include <immintrin.h>

#include "tile_config.h"

namespace quire {

// All 64 bytes are an input, which the intrinsic of some compilers does not say.
static inline void configure_tiles(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

}  // namespace quire
