// Tile registers in memory, for processors that have none: the kernels of ../amx run on them to be tested.
//
// They follow the instructions' descriptions (Intel SDM, volume 2): what needs a configuration ends the process
// without one, LDTILECFG and TILERELEASE clear the registers, and TDPBF16PS sums even and odd k apart, by
// fused operations whose inputs and results have no denormal numbers, and adds both sums and the old one. Products
// of bytes are sums of 32 bits, what overflows them is lost.
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
  // Steps of four bytes of sum += a * b; what the processor calls an error ends the process.
  int steps(int sum, int a, int b) const {
    const int steps = bytes(a) / 4;
    if (sum == a || sum == b || a == b || bytes(a) % 4 || bytes(sum) % 4) abort();
    if (rows(a) != rows(sum) || rows(b) != steps || bytes(b) != bytes(sum)) abort();
    return steps;
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
  uint8_t(*data)[64] = emulated_tiles.data[tile];
  if (bytes < 64 || rows < 16) memset(data, 0, sizeof emulated_tiles.data[tile]);
  for (int i = 0; i < rows; i++) {
    const char* row = (const char*)base + i * stride;
    if (bytes == 64) _mm512_store_si512(data[i], _mm512_loadu_si512(row));
    else memcpy(data[i], row, bytes);
  }
}

static inline void emulated_store(int tile, void* base, int64_t stride) {
  const int rows = emulated_tiles.rows(tile), bytes = emulated_tiles.bytes(tile);
  const uint8_t(*data)[64] = emulated_tiles.data[tile];
  for (int i = 0; i < rows; i++) {
    char* row = (char*)base + i * stride;
    if (bytes == 64) _mm512_storeu_si512(row, _mm512_load_si512(data[i]));
    else memcpy(row, data[i], bytes);
  }
}

// The upper halves of lanes as numbers, and the lower ones.
static inline __m512 odd_half(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline __m512 even_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }

// ROWS rows of the sum from `m` on, in MXCSR's present mode; `x` has the rows' even and odd numbers.
template <int ROWS>
static inline __attribute__((always_inline)) void emulated_rows(int sum, int b, int m, int steps,
                                                                const float (*x)[2][16]) {
  EmulatedTiles& tiles = emulated_tiles;
  __m512 even[ROWS], odd[ROWS];
  for (int i = 0; i < ROWS; i++) even[i] = odd[i] = _mm512_setzero_ps();
  for (int k = 0; k < steps; k++) {
    const __m512i y = _mm512_load_si512(tiles.data[b][k]);
    const __m512 left = even_half(y), right = odd_half(y);
    for (int i = 0; i < ROWS; i++) {
      even[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[m + i][0][k]), left, even[i]);
      odd[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[m + i][1][k]), right, odd[i]);
    }
  }
  for (int i = 0; i < ROWS; i++) {
    const __m512 both = _mm512_add_ps(even[i], odd[i]), old = _mm512_load_ps(tiles.data[sum][m + i]);
    _mm512_store_ps(tiles.data[sum][m + i], _mm512_add_ps(old, both));
  }
}

// Called, not inlined, so that nothing else is computed in the mode that it wants.
__attribute__((noinline)) inline void emulated_products(int sum, int b, int rows, int steps, const float (*x)[2][16]) {
  int m = 0;
  for (; m + 8 <= rows; m += 8) emulated_rows<8>(sum, b, m, steps, x);
  for (; m < rows; m++) emulated_rows<1>(sum, b, m, steps, x);
}

__attribute__((noinline)) inline void emulated_dpbf16ps(int sum, int a, int b) {
  EmulatedTiles& tiles = emulated_tiles;
  const int rows = tiles.rows(sum), steps = tiles.steps(sum, a, b);
  alignas(64) float x[16][2][16];
  for (int m = 0; m < rows; m++) {
    const __m512i pairs = _mm512_load_si512(tiles.data[a][m]);
    _mm512_store_ps(x[m][0], even_half(pairs));
    _mm512_store_ps(x[m][1], odd_half(pairs));
  }
  const unsigned int mode = _mm_getcsr();
  _mm_setcsr(0x9fc0);  // denormal inputs and results are zero, to nearest, no exceptions
  emulated_products(sum, b, rows, steps, x);
  _mm_setcsr(mode);
}

// sum += a * b, bytes of both signed or from 0 up. VNNI wants one of each kind: where both are of one, a's get the other
// sign bit, which adds or takes 128 times the sums of b's columns.
template <bool SIGNED_A, bool SIGNED_B> inline void emulated_dpb(int sum, int a, int b) {
  EmulatedTiles& tiles = emulated_tiles;
  const int rows = tiles.rows(sum), steps = tiles.steps(sum, a, b);
  const __m512i ones = _mm512_set1_epi8(1), none = _mm512_setzero_si512();
  const int flip = SIGNED_A == SIGNED_B ? (int)0x80808080u : 0;
  __m512i extra = none;
  for (int k = 0; k < steps && flip; k++) {
    const __m512i y = _mm512_load_si512(tiles.data[b][k]);
    extra = SIGNED_B ? _mm512_dpbusd_epi32(extra, ones, y) : _mm512_dpbusd_epi32(extra, y, ones);
  }
  extra = _mm512_slli_epi32(extra, 7);
  if (SIGNED_A) extra = _mm512_sub_epi32(none, extra);
  for (int m = 0; m < rows; m++) {
    __m512i c = _mm512_add_epi32(_mm512_load_si512(tiles.data[sum][m]), extra);
    for (int k = 0; k < steps; k++) {
      int32_t four;
      memcpy(&four, tiles.data[a][m] + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(four ^ flip), y = _mm512_load_si512(tiles.data[b][k]);
      c = SIGNED_B ? _mm512_dpbusd_epi32(c, x, y) : _mm512_dpbusd_epi32(c, y, x);
    }
    _mm512_store_si512(tiles.data[sum][m], c);
  }
}

}  // namespace quire

#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#define _tile_release() quire::emulated_release()
#define _tile_zero(tile) quire::emulated_zero(tile)
#define _tile_loadd(tile, base, stride) quire::emulated_load(tile, base, stride)
#define _tile_stored(tile, base, stride) quire::emulated_store(tile, base, stride)
#define _tile_dpbf16ps(sum, a, b) quire::emulated_dpbf16ps(sum, a, b)
#define _tile_dpbssd(sum, a, b) (quire::emulated_dpb<true, true>(sum, a, b))
#define _tile_dpbsud(sum, a, b) (quire::emulated_dpb<true, false>(sum, a, b))
#define _tile_dpbusd(sum, a, b) (quire::emulated_dpb<false, true>(sum, a, b))
#define _tile_dpbuud(sum, a, b) (quire::emulated_dpb<false, false>(sum, a, b))
