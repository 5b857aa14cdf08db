// What a process must ask for before it may use these instructions: nothing.
#pragma once
#include "../avx512/start.h"
