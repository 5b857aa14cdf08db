// The lanes of AVX-512, as processors with AMX have them.
#pragma once
#define QUIRE_ISA "amx_emulated"
#include "../avx512/vec.h"
