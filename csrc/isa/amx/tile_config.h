// The 64 bytes that say which shape each tile register has (Intel SDM, LDTILECFG).
#pragma once
#include <stdint.h>

namespace quire {

struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
};

}  // namespace quire
