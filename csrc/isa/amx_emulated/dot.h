// The register kernels of AMX on emulated tiles.
#pragma once
#include "../avx512/dot.h"
#include "unit.h"

#include "../amx/tiles.h"
#include "../amx/byte_tiles.h"
#define QUIRE_TILES
