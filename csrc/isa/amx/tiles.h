// Products of up to 32 rows with a block of 32 columns in the tile registers, for bfloat16.
//
// What a tile register does comes from elsewhere, included before: unit.h here, or in amx_emulated.
#pragma once
#include "numbers.h"

namespace quire {

// Tiles 0 and 1 hold rows of `bytes`, 2 and 3 weights, a row of 64 bytes for each four of them, 4 to 7 sums. The
// configuration belongs to the thread, and other libraries change it: it is set for each call.
static inline void shape_tiles(int bytes) {
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; i++) {
    config.column_bytes[i] = i < 2 ? bytes : 64;
    config.rows[i] = i == 2 || i == 3 ? bytes / 4 : 16;
  }
  configure_tiles(config);
}

struct Tiles {
  typedef bf16 A;  // [k / 32][rows rounded up to 16][32], rows that are not there are zero
  static const int k = 2;
  static const int rows = 32;
  static const int per_step = 2;

  static void begin() { shape_tiles(64); }
  static void end() { _tile_release(); }

  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

  // Row `i` of a group of `count` rows; `steps` pairs of k, a multiple of 16.
  static void pack_row(const bf16* x, int64_t K, int64_t steps, int count, int i, bf16* group) {
    const int64_t height = padded(count);
    for (int64_t s = 0; s < steps / 16; s++) {
      int64_t left = K - 32 * s, n = left < 0 ? 0 : left < 32 ? left : 32;
      bf16* out = group + (s * height + i) * 32;
      __builtin_memcpy(out, x + 32 * s, 2 * n);
      __builtin_memset(out + n, 0, 64 - 2 * n);
      if (i == count - 1) __builtin_memset(out + 32, 0, (height - count) * 64);
    }
  }

  // C [32][32] (+)= the group's rows times B [steps][32][2], in the order of the steps.
  static void tile(int count, const bf16* group, int64_t from, const bf16* B, int64_t steps,
                   float* C, bool fresh, const char* ahead, int64_t ahead_step) {
    const int64_t height = padded(count);
    const bf16* A = group + from / 16 * height * 32;
    if (count <= 16) {
      if (fresh) {
        _tile_zero(4);
        _tile_zero(5);
      } else {
        _tile_loadd(4, C, 128);
        _tile_loadd(5, C + 16, 128);
      }
      for (int64_t s = 0; s < steps; s += 16, A += 32 * 16, B += 64 * 16) {
        _tile_loadd(0, A, 64);
        _tile_loadd(2, B, 128);
        _tile_dpbf16ps(4, 0, 2);
        _tile_loadd(3, B + 32, 128);
        _tile_dpbf16ps(5, 0, 3);
        for (int i = 0; i < 16; i++, ahead += ahead_step) _mm_prefetch(ahead, _MM_HINT_T1);
      }
      _tile_stored(4, C, 128);
      _tile_stored(5, C + 16, 128);
      return;
    }
    if (fresh) {
      _tile_zero(4);
      _tile_zero(5);
      _tile_zero(6);
      _tile_zero(7);
    } else {
      _tile_loadd(4, C, 128);
      _tile_loadd(5, C + 16, 128);
      _tile_loadd(6, C + 512, 128);
      _tile_loadd(7, C + 528, 128);
    }
    for (int64_t s = 0; s < steps; s += 16, A += 32 * 32, B += 64 * 16) {
      _tile_loadd(0, A, 64);
      _tile_loadd(2, B, 128);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(3, B + 32, 128);
      _tile_dpbf16ps(5, 0, 3);
      _tile_loadd(1, A + 512, 64);
      _tile_dpbf16ps(6, 1, 2);
      _tile_dpbf16ps(7, 1, 3);
      for (int i = 0; i < 16; i++, ahead += ahead_step) _mm_prefetch(ahead, _MM_HINT_T1);
    }
    _tile_stored(4, C, 128);
    _tile_stored(5, C + 16, 128);
    _tile_stored(6, C + 512, 128);
    _tile_stored(7, C + 528, 128);
  }
};

}  // namespace quire
