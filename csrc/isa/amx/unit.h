// The tile registers of the processor: the compiler's intrinsics, but for two.
#pragma once
#include <immintrin.h>

#include "tile_config.h"

namespace quire {

// All 64 bytes are an input, which the intrinsic of some compilers does not say.
static inline void configure_tiles(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

}  // namespace quire

// It reads memory, which the compiler's own does not say: what was stored before must be there.
#undef _tile_loadd
#define _tile_loadd(tile, base, stride)                \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile \
                   :                                   \
                   : "r"((const void*)(base)), "r"((int64_t)(stride)) : "memory")
