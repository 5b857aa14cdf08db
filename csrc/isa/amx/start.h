// What a process must ask for before it may use tiles.
#pragma once
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace quire {

// 0 if the system lets this process use the tile registers (Linux 5.16, arch_prctl(2)).
static inline int32_t start() {
  const long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : 1;
}

}  // namespace quire
