// Tile registers in memory, for processors that have none: the kernels of ../amx run on them to be tested.
//
// They follow the instructions' descriptions (Intel SDM, volume 2): what needs a configuration ends the process
// without one, LDTILECFG and TILERELEASE clear the registers, and TDPBF16PS sums even and odd k apart, by
// fused operations whose inputs and results have no denormal numbers, and adds both sums and the old one.
#pragma once
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "../amx/tile_config.h"

namespace quire {

struct EmulatedTiles {
  TileConfig config;
  alignas(64) uint8_t data[8][16][64];

  int rows(int tile) const {
    if (config.palette != 1 || tile < 0 || tile > 7 || config.rows[tile] > 16) abort();
    return config.rows[tile];
  }
  int bytes(int tile) const {
    if (config.column_bytes[tile] > 64) abort();
    return config.column_bytes[tile];
  }
};

inline thread_local EmulatedTiles emulated_tiles;  // of all files: a kernel begun in one may run in another

static inline void configure_tiles(const TileConfig& config) {
  emulated_tiles = {};
  emulated_tiles.config = config;
}

static inline void emulated_release() { emulated_tiles = {}; }

static inline void emulated_zero(int tile) {
  emulated_tiles.rows(tile);
  memset(emulated_tiles.data[tile], 0, sizeof emulated_tiles.data[tile]);
}

static inline void emulated_load(int tile, const void* base, int64_t stride) {
  const int rows = emulated_tiles.rows(tile), bytes = emulated_tiles.bytes(tile);
  memset(emulated_tiles.data[tile], 0, sizeof emulated_tiles.data[tile]);
  for (int i = 0; i < rows; i++) memcpy(emulated_tiles.data[tile][i], (const char*)base + i * stride, bytes);
}

static inline void emulated_store(int tile, void* base, int64_t stride) {
  const int rows = emulated_tiles.rows(tile), bytes = emulated_tiles.bytes(tile);
  for (int i = 0; i < rows; i++) memcpy((char*)base + i * stride, emulated_tiles.data[tile][i], bytes);
}

// Numbers below the least normal one become zero of their sign.
static inline __m512 without_denormals(__m512 a) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  const __mmask16 small = _mm512_cmp_ps_mask(_mm512_abs_ps(a), _mm512_set1_ps(0x1p-126f), _CMP_LT_OQ);
  return _mm512_mask_and_ps(a, small, a, sign);
}

static inline __m512 emulated_fma(__m512 a, __m512 b, __m512 c) {
  return without_denormals(_mm512_fmadd_ps(without_denormals(a), without_denormals(b), c));
}

// The upper halves of lanes as numbers, and the lower ones.
static inline __m512 odd_half(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline __m512 even_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }

static inline void emulated_dpbf16ps(int sum, int a, int b) {
  EmulatedTiles& tiles = emulated_tiles;
  const int rows = tiles.rows(sum), steps = tiles.bytes(a) / 4;
  // shapes that do not fit each other are an error of the processor
  if (tiles.rows(a) != rows || tiles.rows(b) != steps || tiles.bytes(b) != tiles.bytes(sum)) abort();
  for (int m = 0; m < rows; m++) {
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    for (int k = 0; k < steps; k++) {
      int32_t pair;
      memcpy(&pair, tiles.data[a][m] + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(pair), y = _mm512_load_si512(tiles.data[b][k]);
      even = emulated_fma(even_half(x), even_half(y), even);
      odd = emulated_fma(odd_half(x), odd_half(y), odd);
    }
    const __m512 both = without_denormals(_mm512_add_ps(even, odd));
    const __m512 old = without_denormals(_mm512_load_ps(tiles.data[sum][m]));
    _mm512_store_ps(tiles.data[sum][m], without_denormals(_mm512_add_ps(old, both)));
  }
}

}  // namespace quire

#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_release() quire::emulated_release()
#define _tile_zero(tile) quire::emulated_zero(tile)
#define _tile_loadd(tile, base, stride) quire::emulated_load(tile, base, stride)
#define _tile_stored(tile, base, stride) quire::emulated_store(tile, base, stride)
#define _tile_dpbf16ps(sum, a, b) quire::emulated_dpbf16ps(sum, a, b)
