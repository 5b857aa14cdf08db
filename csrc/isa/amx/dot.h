// The register kernels of AVX-512; products with bfloat16 weights have tiles of their own.
#pragma once
#include "../avx512/dot.h"
#include "unit.h"

#include "tiles.h"
#define QUIRE_TILES
