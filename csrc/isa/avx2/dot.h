// Products of a few rows with a block of 32 columns, in registers.
#pragma once
#include "plain_dot.h"

namespace quire {

#define QUIRE_MAX_ROWS 3
const int kRows = QUIRE_MAX_ROWS;  // rows of one product

}  // namespace quire
