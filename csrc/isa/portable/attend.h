// Register kernels of attention.
#pragma once
#include "dot.h"
#include "plain_attend.h"

namespace quire {

const int kSumVectors = 4;  // sums of sixteen lanes that registers hold in `mix`

}  // namespace quire
