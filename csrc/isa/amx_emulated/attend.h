// Register kernels of attention: those of AVX-512.
#pragma once
#include "vec.h"

#include "../avx512/attend.h"
