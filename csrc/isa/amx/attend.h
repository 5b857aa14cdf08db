// Register kernels of attention: those of AVX-512, and products of bfloat16 in tile registers.
#pragma once
#include "vec.h"

#include "../avx512/attend.h"
#include "unit.h"

#include "attend_tiles.h"
