// Attention's products in the tile registers, for bfloat16: up to 16 rows with 32 keys, and weights with values.
//
// A cell of keys is a tile for each 32 numbers of a key, as it lies, and so are 16 columns of the values of 32 tokens.
// Tiles 0 and 1 hold rows, 2, 3 and 6 keys or values, 4 and 5 sums; 1 and 3 are for what a key has behind its last
// 32 numbers. Rows that are not there have any numbers, and results that nobody reads.
#pragma once
#include "attend_lanes.h"
#include "tile_config.h"

namespace quire {

template <> struct Tiled<bf16> {
  static const bool is = true;
  static const int64_t kRowsOf = 16, kSteps = 16;  // of a tile

  // The configuration belongs to the thread, and holds for one call; `steps` pairs of numbers make a key.
  static void begin(int64_t steps) {
    TileConfig config = {};
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
      config.column_bytes[i] = 64;
      config.rows[i] = 16;
    }
    if (const int64_t rest = steps % kSteps) {
      config.column_bytes[1] = (uint16_t)(4 * rest);
      config.rows[3] = (uint8_t)rest;
    }
    configure_tiles(config);
  }
  static void end() { _tile_release(); }

  static int64_t query_units(int64_t steps) { return (steps + kSteps - 1) / kSteps * kSteps * kRowsOf; }

  // Row `i` of a group: [k / 32][16 rows][32], zeros behind its last number.
  static void pack_query(const bf16* x, int64_t size, int i, uint32_t* group) {
    for (int64_t k = 0; k < size; k += 2 * kSteps) {
      const int64_t n = size - k < 2 * kSteps ? size - k : 2 * kSteps;
      bf16* out = (bf16*)(group + k / 2 * kRowsOf + i * kSteps);
      __builtin_memcpy(out, x + k, 2 * n);
      __builtin_memset(out + n, 0, 64 - 2 * n);
    }
  }

  // Scores [16][32] = queries times two cells of keys.
  static void score(const uint32_t* q, const uint32_t* const k[2], int64_t steps, float* out, const Ahead& ahead) {
    const uint32_t *left = k[0], *right = k[1];
    _tile_zero(4);
    _tile_zero(5);
    int64_t s = 0;
    for (; s + kSteps <= steps; s += kSteps, q += kSteps * kRowsOf) {
      _tile_loadd(0, q, 64);
      _tile_loadd(2, left + kHalf * s, 64);
      _tile_dpbf16ps(4, 0, 2);
      _tile_loadd(6, right + kHalf * s, 64);
      _tile_dpbf16ps(5, 0, 6);
      for (int64_t i = s; i < s + kSteps; i++) {
        fetch(ahead.keys[0] + 64 * i);
        fetch(ahead.keys[1] + 64 * i);
      }
    }
    if (s < steps) {
      _tile_loadd(1, q, 64);
      _tile_loadd(3, left + kHalf * s, 64);
      _tile_dpbf16ps(4, 1, 3);
      _tile_loadd(3, right + kHalf * s, 64);
      _tile_dpbf16ps(5, 1, 3);
    }
    _tile_stored(4, out, 128);
    _tile_stored(5, out + 16, 128);
  }

  // made [16][stride] = weights [16][32] times values [16 pairs][stride].
  static void mix(const uint32_t* weights, const uint32_t* v, int64_t stride, float* made, const Ahead& ahead) {
    _tile_loadd(0, weights, 64);
    for (int64_t at = 0; at < stride; at += 32) {
      _tile_zero(4);
      _tile_loadd(2, v + at, 4 * stride);
      _tile_dpbf16ps(4, 0, 2);
      _tile_stored(4, made + at, 4 * stride);
      if (at + 16 < stride) {
        _tile_zero(5);
        _tile_loadd(6, v + at + 16, 4 * stride);
        _tile_dpbf16ps(5, 0, 6);
        _tile_stored(5, made + at + 16, 4 * stride);
      }
      for (int64_t i = 0; i < 16; i++) {
        const int64_t place = 4 * (i % 8 * stride + at);
        fetch(ahead.values[i / 8] + place);
        if (at + 16 < stride) fetch(ahead.values[i / 8] + place + 64);
      }
    }
  }

  static const int64_t kHalf = 16;  // slots of a cell
};

}  // namespace quire
