// The wide lanes of AVX-512.
#pragma once
#include "../avx512/wide.h"
