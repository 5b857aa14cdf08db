// The register kernels of AVX-512; products with bfloat16 weights and of bytes have tiles.
#pragma once
#include "../avx512/dot.h"
#include "unit.h"

#include "tiles.h"
#include "byte_tiles.h"
#define QUIRE_TILES
