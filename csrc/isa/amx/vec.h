// The lanes of AVX-512: processors with AMX have all of it.
#pragma once
#define QUIRE_ISA "amx"
#include "../avx512/vec.h"
