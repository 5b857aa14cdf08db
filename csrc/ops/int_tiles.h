// Products of whole numbers with more rows than a few on tile registers: those of quantized.h and short_rows.h, the same
// exact sums and float32 in the same order.
//
// A row's number of 16 bits is 256 times a signed byte and a byte from 0 up, which have a plane each; one of 8 bits is a
// single plane. A part of a block becomes signed bytes, four k of a column side by side, once for all rows: of four bits
// less their zero points, of eight as they are, whose zero points times the sums of rows are taken off the sums.
#pragma once
#include "byte_rows.h"
#include "short_rows.h"

namespace quire {

#ifdef QUIRE_TILES

const int64_t kFewTileRows = 4;  // up to here rows wait for memory, and a tile would be all but empty
const int64_t kTileParts = 4;    // of a block, that lie ready for all rows
const int kMostUnits = kPart / 32;

inline bool is_few(const Groups& groups) { return groups.rows <= kFewTileRows; }

// What becomes of a part of a block: its bytes [32][32][4], and of each unit scales and zero points where there are some.
struct alignas(64) TilePart {
  int8_t numbers[kPart * kColumns];
  float scales[kMostUnits][kColumns];
  int32_t zeros[kMostUnits][kColumns];
  int units;  // of the part that are there
};

// Parts, and sums of two groups of rows, of which one is made while the other is added up.
struct alignas(64) TileRoom {
  TilePart parts[kTileParts];
  int32_t sums[2][kMostUnits][2][kTileRows * kColumns];
};

// `count` numbers of a record as bytes; SHORT: as they lie for rows of 8 bits.
template <bool NIBBLES, bool SHORT>
QUIRE_INLINE void spread_unit(const uint8_t* in, int64_t count, int64_t far, const vi (&zero)[2], int8_t* out) {
  const vi mask = vi_set(0x0f0f0f0f);
  const int kEach = SHORT ? 8 : 4;
  for (int64_t k = 0; k < count; k += kEach, out += 32 * kEach) {
    const int32_t* here = (const int32_t*)in;
    vi fours[2][2];
    if (SHORT && !NIBBLES) {
      for (int j = 0; j < 4; j++)
        fours[j / 2][j % 2] = sub_bytes(load(here + 16 * j), vi_set((int32_t)0x80808080));  // as they are
    } else if (SHORT) {
      for (int j = 0; j < 2; j++) {
        const vi both = load(here + 16 * j);
        fours[0][j] = both & mask;
        fours[1][j] = shift_right<4>(both) & mask;
      }
    } else if (NIBBLES) {
      const vi both = load(here);
      fours_of(both & mask, shift_right<4>(both) & mask, fours[0]);
    } else {
      fours_of(load(here), load(here + 16), fours[0]);
    }
    for (int s = 0; s < kEach / 4; s++)
      for (int j = 0; j < 2; j++)
        store((int32_t*)out + 32 * s + 16 * j, NIBBLES ? sub_bytes(fours[s][j], zero[j]) : fours[s][j]);
    for (int b = 0; b < (NIBBLES ? 16 : 32) * kEach; b += 64, in += 64) __builtin_prefetch(in + far, 0, 2);
  }
}

// A part that has `count` k.
template <bool NIBBLES, bool SHORT>
void spread_part(IntRecords& record, int64_t count, int64_t far, TilePart& part) {
  part.units = 0;
  for (int64_t k = 0; k < count; k += record.unit, IntRecords::next(record), part.units++) {
    vi zero[2];
    for (int j = 0; j < 2; j++) {
      const vi one = record.zeros ? load8((const int8_t*)record.zeros + 16 * j) : vi_set(8);
      zero[j] = one * vi_set(0x01010101);
      if (record.head) store(part.scales[part.units] + 16 * j, IntRecords::scale_of(record, j));
      store(part.zeros[part.units] + 16 * j, one);
    }
    IntRecords::fetch_head(record);
    const int64_t n = count - k < record.unit ? count - k : record.unit;
    spread_unit<NIBBLES, SHORT>(record.at + record.head, n, far, zero, part.numbers + k * kColumns);
  }
}

// Rows of a group: planes of each part, its steps [16], and of each unit the sums of rows [16].
struct TileRows {
  int8_t* planes;
  float* steps;
  int32_t* sums;
};

// sums [count][32] += what UNITS units of a part, c [UNITS][planes][16][32], stand for; as add_unit and add_steps do.
template <int UNITS, int PLANES, bool SCALED, bool SHIFTED>
void add_tiles(const int32_t (*c)[2][kTileRows * kColumns], const TilePart& part, const TileRows& rows, int count,
               float* sums) {
  for (int j = 0; j < 2; j++)
    for (int i = 0; i < count; i++) {
      const int64_t place = i * kColumns + 16 * j;
      vf total = vf_zero();
      for (int u = 0; u < UNITS; u++) {
        vi sum = load(c[u][0] + place);
        if (PLANES > 1) sum = shift_left<8>(sum) + load(c[u][1] + place);
        if (SHIFTED) sum = sum - vi_set(rows.sums[u * kTileRows + i]) * load(part.zeros[u] + 16 * j);
        vf number = to_float(sum);
        if (SCALED) number = number * load(part.scales[u] + 16 * j);
        total = u ? total + number : number;
      }
      store(sums + place, load(sums + place) + total * vf_set(rows.steps[i]));
    }
}

// The product BASE, of `PLANES` planes, on tiles where there are more rows than a few.
template <class T, class BASE, int PLANES> struct TileProduct : BASE {
  static const int rows = kTileRows;
  using BASE::BASE;
  using BASE::l;
  using BASE::one_scale;
  using BASE::unit;

  void begin() const { shape_tiles(unit < 64 ? unit : 64); }
  static void end() { _tile_release(); }
  static size_t temporary_bytes() { return sizeof(TileRoom); }

  bool has_shift() const { return l.halves == 2 && l.head > l.scales; }
  int64_t parts() const { return (l.depth + kPart - 1) / kPart; }
  int64_t group_bytes() const { return parts() * (PLANES * kPlane + (1 + kPart / unit) * kTileRows * 4); }
  size_t packed_bytes(const Groups& groups) const {
    return is_few(groups) ? BASE::packed_bytes(groups) : groups.count * group_bytes();
  }
  // From the part on that begins at k.
  TileRows rows_of(const void* packed, int64_t g, int64_t k) const {
    int8_t* memory = (int8_t*)packed + g * group_bytes();
    float* steps = (float*)(memory + parts() * PLANES * kPlane);
    int32_t* sums = (int32_t*)steps + parts() * kTileRows;
    return {memory + k / kPart * PLANES * kPlane, steps + k / kPart * kTileRows, sums + k / unit * kTileRows};
  }

  // Rows that are not there may be anything, nobody reads their sums.
  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    if (is_few(groups)) return BASE::pack(x, groups, g, i, packed);
    for (int64_t k = 0; k < l.depth; k += kPart) {
      const RowPart part(x, BASE::order, l, k, PLANES > 1 ? kLargest : kLargestShort);
      const TileRows out = rows_of(packed, g, k);
      vi numbers[8], pairs[4];
      for (int j = 0; j < 8; j++) {
        int8_t* here = out.planes + j / 4 * (kPlane / 2) + i * 64 + j % 4 * 16;
        numbers[j] = RowPart::take(part, j);
        store8(here, PLANES > 1 ? shift_right<8>(numbers[j]) : numbers[j]);
        if (PLANES > 1) store8(here + kPlane, numbers[j]);
      }
      out.steps[i] = part.step;
      if (!has_shift()) continue;
      int32_t sixteens[8];
      for (int j = 0; j < 4; j++) pairs[j] = pairs_of(numbers[2 * j], numbers[2 * j + 1]);
      add_up<false>(pairs, sixteens);
      put_sums(sixteens, l.depth - k, unit, kTileRows, out.sums + i);
    }
  }

  void spread(IntRecords& record, int64_t count, int64_t far, TilePart& part) const {
    if (PLANES == 1 && l.halves == 2) return spread_part<false, true>(record, count, far, part);
    if (PLANES == 1) return spread_part<true, true>(record, count, far, part);
    if (l.halves == 1) return spread_part<true, false>(record, count, far, part);
    spread_part<false, false>(record, count, far, part);
  }

  template <int UNITS, bool SCALED>
  void add_units(const int32_t (*c)[2][kTileRows * kColumns], const TilePart& part, const TileRows& group, int count,
                 float* sums) const {
    if (has_shift()) return add_tiles<UNITS, PLANES, SCALED, true>(c, part, group, count, sums);
    add_tiles<UNITS, PLANES, SCALED, false>(c, part, group, count, sums);
  }

  void add(const int32_t (*c)[2][kTileRows * kColumns], const TilePart& part, const TileRows& group, int count,
           float* sums) const {
    if (one_scale) return add_units<1, false>(c, part, group, count, sums);
    switch (part.units) {
      QUIRE_ROWS_CASE(1, add_units<R, true>(c, part, group, count, sums))
      QUIRE_ROWS_CASE(2, add_units<R, true>(c, part, group, count, sums))
      QUIRE_ROWS_CASE(3, add_units<R, true>(c, part, group, count, sums))
      QUIRE_ROWS_CASE(4, add_units<R, true>(c, part, group, count, sums))
    }
  }

  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void* memory) const {
    if (is_few(groups)) return BASE::sums(groups, packed, block, out, memory);
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    TileRoom& room = *(TileRoom*)memory;
    IntRecords record(BASE::block_of(block), l, one_scale);
    const int64_t stretch = groups.count > 2 ? kTileParts * kPart : kPart;
    const int64_t ahead = stretch / unit * record.bytes, far = ahead < kFar ? kFar : ahead;
    for (int64_t from = 0; from < l.depth; from += stretch) {
      const int64_t to = l.depth - from < stretch ? l.depth : from + stretch;
      for (int64_t k = from; k < to; k += kPart)
        spread(record, to - k < kPart ? to - k : kPart, far, room.parts[(k - from) / kPart]);
      int turn = 0;
      int64_t last_group = -1, last_k = 0;
      const auto add_last = [&] {  // while tiles are busy with what came after it
        if (last_group < 0) return;
        add(room.sums[turn ^ 1], room.parts[(last_k - from) / kPart], rows_of(packed, last_group, last_k),
            groups.size(last_group), out + groups.begin(last_group) * kColumns);
      };
      for (int64_t g = 0; g < groups.count; g++)
        for (int64_t k = from; k < to; k += kPart, turn ^= 1) {
          const TilePart& part = room.parts[(k - from) / kPart];
          const int8_t* planes = rows_of(packed, g, k).planes;
          for (int u = 0; u < part.units; u++)
            tile_unit<PLANES>(planes + u * unit / 64 * (kPlane / 2) + u * unit % 64, part.numbers + u * unit * kColumns,
                              unit, room.sums[turn][u][0]);
          add_last();
          last_group = g;
          last_k = k;
        }
      add_last();
    }
  }
};

// The product of byte_rows.h on tiles, two of them where there are more than 16 rows. A group's rows are tiles of 64 k,
// then steps and zeros of rows.
template <class T> struct TileByteProduct : ByteProduct<T> {
  typedef ByteProduct<T> Base;
  static const int rows = 2 * kTileRows;
  using Base::Base;
  using Base::l;

  static void begin() { shape_tiles(64); }
  static void end() { _tile_release(); }
  static size_t temporary_bytes() { return 64 * kColumns; }  // a last step of 32 k and what follows

  static int64_t padded(int64_t count) { return (count + kTileRows - 1) / kTileRows * kTileRows; }
  int64_t height(const Groups& groups) const { return padded(groups.largest()); }
  int64_t first(const Groups& groups, int64_t g) const { return g * height(groups); }
  int64_t sum_rows(const Groups& groups) const { return groups.count * height(groups); }
  int64_t row_bytes() const { return (l.depth + 63) / 64 * 64; }
  size_t packed_bytes(const Groups& groups) const {
    return is_few(groups) ? Base::packed_bytes(groups) : sum_rows(groups) * (row_bytes() + 8);
  }
  int8_t* bytes_of(const Groups& groups, int64_t g, const void* packed) const {
    return (int8_t*)packed + first(groups, g) * (row_bytes() + 8);
  }
  ByteRows rows_of(const Groups& groups, int64_t g, const void* packed) const {
    const int64_t tall = height(groups);
    float* steps = (float*)(bytes_of(groups, g, packed) + tall * row_bytes());
    return {nullptr, steps, (int32_t*)steps + tall};
  }

  // Rows that are not there may be anything, nobody reads their sums.
  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    if (is_few(groups)) return Base::pack(x, groups, g, i, packed);
    const ByteRows out = rows_of(groups, g, packed);
    const int64_t tall = padded(groups.size(g));
    int8_t* place = bytes_of(groups, g, packed) + i * 64;
    const auto put = [=](int64_t k, vi code) { store8(place + k / 64 * 64 * tall + k % 64, code); };
    pack_byte_row(x, l, Base::format, Base::weight, out.steps[i], out.zeros[i], put);
    for (int64_t k = l.depth; k < row_bytes(); k += 16) put(k, vi_set(0));
  }

  template <class Done = Nobody>
  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void* memory, Done done = {}) const {
    if (is_few(groups)) return Base::sums(groups, packed, block, out, memory, done);
    const uint8_t* data = Base::block_of(block);
    const int8_t* numbers = (const int8_t*)data + l.head;
    const int64_t stretch = groups.count > 2 ? kByteStretch : row_bytes(), rest = l.depth % 64;
    const int lines = (int)((32 + groups.count - 1) / groups.count);
    if (rest) __builtin_memcpy(memory, numbers + l.bytes(l.depth - rest), l.bytes(rest));
    for (int64_t k = 0; k < l.depth; k += stretch) {
      const int64_t end = l.depth - k < stretch ? l.depth : k + stretch, steps = (end - k) / 64;
      const int8_t* here = numbers + l.bytes(k);
      for (int64_t g = 0; g < groups.count; g++) {
        const int count = groups.size(g);
        const char* ahead = (const char*)here + (groups.count > 1 ? l.bytes(end - k) + g * steps * lines * 64 : kFar);
        const int8_t* bytes = bytes_of(groups, g, packed) + k * padded(count);
        float* sums = out + first(groups, g) * kColumns;
        const auto multiply = [&](int64_t from, int64_t n, const int8_t* b) {
          const int8_t* a = bytes + from * padded(count);
          if (count > kTileRows) tile_bytes<true>(a, b, n, (int32_t*)sums, k + from == 0, ahead, lines);
          else tile_bytes<false>(a, b, n, (int32_t*)sums, k + from == 0, ahead, lines);
        };
        if (steps) multiply(0, steps, here);
        if (end == l.depth && rest) multiply(64 * steps, 1, (const int8_t*)memory);
        if (end < l.depth) continue;
        Base::finish_sums(data, rows_of(groups, g, packed), count, sums);
        done(g);
      }
    }
  }
};

template <class T> using BestInt = TileProduct<T, IntProduct<T>, 2>;
template <class T> using BestShort = TileProduct<T, ShortProduct<T>, 1>;
template <class T> using BestByte = TileByteProduct<T>;
#else
template <class T> using BestInt = IntProduct<T>;
template <class T> using BestShort = ShortProduct<T>;
template <class T> using BestByte = ByteProduct<T>;
#endif

}  // namespace quire
