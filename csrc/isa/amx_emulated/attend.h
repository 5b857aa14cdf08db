// Register kernels of attention: those of AMX on emulated tiles.
#pragma once
#include "vec.h"

#include "../avx512/attend.h"
#include "unit.h"

#include "../amx/attend_tiles.h"
