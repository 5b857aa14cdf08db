// Pairs of 16-bit integers: AVX-512 as it is.
#pragma once
#include "dot.h"
#include "../avx512/dot_int.h"
