// Products of bytes in the tile registers, and how numbers are put in order for them.
#pragma once
#include "numbers.h"
#include "tiles.h"

namespace quire {

const int kTileRows = 16;
const int64_t kPlane = 2048;  // bytes of 16 rows of 128 k: two tiles, one after the other

// sums [PLANES][16][32] of `unit` k (128, 64 or 32, as the tiles were shaped for) of 16 rows and 32 columns. Rows are
// tiles of 64 k; the first plane has signed bytes, the second, kPlane further, bytes from 0 up. B is [unit / 4][32][4].
template <int PLANES>
QUIRE_INLINE void tile_unit(const int8_t* rows, const int8_t* B, int unit, int32_t* sums) {
  _tile_zero(4);
  _tile_zero(5);
  if (PLANES > 1) {
    _tile_zero(6);
    _tile_zero(7);
  }
  for (int k = 0; k < unit; k += 64, rows += kTileRows * 64, B += 64 * 32) {
    _tile_loadd(0, rows, 64);
    _tile_loadd(2, B, 128);
    _tile_dpbssd(4, 0, 2);
    _tile_loadd(3, B + 64, 128);
    _tile_dpbssd(5, 0, 3);
    if (PLANES > 1) {
      _tile_loadd(1, rows + kPlane, 64);
      _tile_dpbusd(6, 1, 2);
      _tile_dpbusd(7, 1, 3);
    }
  }
  _tile_stored(4, sums, 128);
  _tile_stored(5, sums + 16, 128);
  if (PLANES > 1) {
    _tile_stored(6, sums + 512, 128);
    _tile_stored(7, sums + 528, 128);
  }
}

// sums [16 or 32][32] (+)= rows times B [16 * steps][32][4]. Rows are tiles of 64 k of bytes from 0 up; TALL: two of
// them. Of each step `lines` cache lines of what is ahead come nearer.
template <bool TALL>
void tile_bytes(const int8_t* rows, const int8_t* B, int64_t steps, int32_t* sums, bool fresh, const char* ahead,
                int lines) {
  if (fresh) {
    _tile_zero(4);
    _tile_zero(5);
    if (TALL) {
      _tile_zero(6);
      _tile_zero(7);
    }
  } else {
    _tile_loadd(4, sums, 128);
    _tile_loadd(5, sums + 16, 128);
    if (TALL) {
      _tile_loadd(6, sums + 512, 128);
      _tile_loadd(7, sums + 528, 128);
    }
  }
  for (int64_t s = 0; s < steps; s++, rows += (TALL ? 2 : 1) * kTileRows * 64, B += 64 * 32) {
    _tile_loadd(0, rows, 64);
    _tile_loadd(2, B, 128);
    _tile_dpbusd(4, 0, 2);
    _tile_loadd(3, B + 64, 128);
    _tile_dpbusd(5, 0, 3);
    if (TALL) {
      _tile_loadd(1, rows + kTileRows * 64, 64);
      _tile_dpbusd(6, 1, 2);
      _tile_dpbusd(7, 1, 3);
    }
    for (int i = 0; i < lines; i++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);
  }
  _tile_stored(4, sums, 128);
  _tile_stored(5, sums + 16, 128);
  if (TALL) {
    _tile_stored(6, sums + 512, 128);
    _tile_stored(7, sums + 528, 128);
  }
}

// Two k of each of 32 columns, and the two k after them, as four k of columns 0 to 15 and of columns 16 to 31.
QUIRE_INLINE void fours_of(vi one, vi two, vi out[2]) {
  const __m512i low = _mm512_unpacklo_epi16(one.v, two.v), high = _mm512_unpackhi_epi16(one.v, two.v);
  const __m512i left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), more = _mm512_set1_epi64(4);
  out[0] = {_mm512_permutex2var_epi64(low, left, high)};
  out[1] = {_mm512_permutex2var_epi64(low, _mm512_or_si512(left, more), high)};
}
QUIRE_INLINE vi sub_bytes(vi a, vi b) { return {_mm512_sub_epi8(a.v, b.v)}; }

}  // namespace quire
