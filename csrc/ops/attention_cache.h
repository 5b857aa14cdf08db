// How keys and values lie in the blocks of a cache, and one tile of them as the kernels want it.
//
// A block holds for each kv head the keys of its slots and then their values. Keys stand in cells of
// sixteen slots (eight in blocks of eight): all slots' first numbers, then all their second ones.
// Values stand slot by slot. In bfloat16 two numbers that one instruction takes lie side by side:
// 2 i and 2 i + 1 of a key (an odd last one is not paired), and those of slots 2 i and 2 i + 1.
//
// Codes of one byte stand in the same order as the numbers that they become. Formats with scales have
// them behind the values of each head: those of the keys of all slots, then those of the values.
#pragma once
#include "cache_codes.h"

namespace quire {

const int64_t kTile = 32;
const int64_t kHalf = 16;  // slots of a cell, and of half a tile

// A step of a cache group, as its record has it now.
struct Plan {
  const int32_t *query_start, *seq_lens, *block_table;
  const int64_t* slots;
  int64_t table_stride, num_sequences, num_tokens;
  explicit Plan(const void* memory) {
    const Quire_attention_plan& plan = *(const Quire_attention_plan*)memory;
    query_start = (const int32_t*)plan.query_start;
    seq_lens = (const int32_t*)plan.seq_lens;
    block_table = (const int32_t*)plan.block_table;
    slots = (const int64_t*)plan.slot_mapping;
    table_stride = plan.table_stride;
    num_sequences = plan.num_sequences;
    num_tokens = plan.num_tokens;
  }
};

// Some of a sequence's tokens as if they were all: those of `count` blocks of `size` tokens, a multiple of sixteen,
// one after the other. Without numbers they are all of them.
struct Chosen {
  const int32_t* numbers;  // ascending, and -1 behind the last
  int64_t count, size;

  // How many tokens those up to `position` are.
  int64_t tokens(int64_t position) const {
    int64_t n = 0;
    while (n < count && numbers[n] >= 0) n++;
    if (!n) return 0;
    const int64_t last = numbers[n - 1] * size, left = position + 1 - last;
    return (n - 1) * size + (left < size ? left : size);
  }
  // Where the token at place `at` among them stands in the sequence.
  int64_t position(int64_t at) const { return numbers ? numbers[at / size] * size + at % size : at; }
};

// One layer's part of all blocks; a block has 2^shift slots.
template <class T> struct Blocks {
  typedef typename Kind<T>::Unit Unit;
  static const int per = Kind<T>::per;
  char* base;
  int64_t slab_bytes, block_bytes, per_slab, size, D, Dv;
  int shift;
  int32_t format;

  template <class Args> explicit Blocks(const Args& args)
      : base((char*)args.cache), slab_bytes(args.slab_bytes), block_bytes(args.block_bytes),
        per_slab(args.blocks_per_slab), size(args.block_size), D(args.D), Dv(args.Dv),
        shift(__builtin_ctzll(args.block_size)), format(args.format) {}

  int64_t width() const { return size < kHalf ? size : kHalf; }  // of a cell
  int64_t key_steps() const { return (D + per - 1) / per; }
  int64_t stride() const { return (Dv + 15) / 16 * 16; }  // of values as the kernels want them
  bool has_codes() const { return format != kPlain; }
  bool has_scales() const { return format == kFp8Scaled || format == kInt8Scaled; }
  int64_t item() const { return has_codes() ? 1 : sizeof(T); }  // bytes of one stored number
  // A block's keys of a head.
  char* keys(int64_t block, int64_t head) const {
    char* place = base + block / per_slab * slab_bytes + block % per_slab * block_bytes;
    return place + head * size * ((D + Dv) * item() + (has_scales() ? 2 * sizeof(float) : 0));
  }
  // From there to where the cell or the values of slot `slot` begin, and to its scales: the key's, and
  // `size` floats later the value's.
  int64_t cell(int64_t slot) const { return slot / width() * width() * D * item(); }
  int64_t value(int64_t slot) const { return (size * D + slot / per * per * Dv) * item(); }
  int64_t scales(int64_t slot) const { return size * (D + Dv) * item() + slot * sizeof(float); }
};

// The tiles of one sequence's keys and values of one kv head.
template <class T> struct Tiles {
  typedef typename Kind<T>::Unit Unit;
  static const int per = Kind<T>::per;
  const Blocks<T>& blocks;
  const int32_t* table;
  const Chosen chosen;  // what is walked, in tiles
  int64_t head;
  Unit* key_room;    // for two cells
  Unit* value_room;  // for a tile of values
  T* spare;          // for a cell, or the values of `per` slots
  float* key_scales;  // [32] each
  float* value_scales;
  const Unit* keys[2];
  const Unit* values[2];
  int64_t value_steps;
  Ahead ahead;  // what is brought nearer while codes become numbers

  // Points at tile `tile`, of which `limit` tokens may be read; what is absent reads as zeros. `known`:
  // whether `ahead` was set for it.
  void find(int64_t tile, int64_t limit, bool known) {
    if (!known)
      for (int h = 0; h < 2; h++) ahead.keys[h] = ahead.values[h] = (const char*)key_room;
    value_steps = (limit + per - 1) / per;
    find_half(0, tile * kTile, limit);
    find_half(1, tile * kTile + kHalf, limit - kHalf);
    if constexpr (Tiled<T>::is) join_values();
  }

  // What kernels bring nearer while they work on the tile that was found.
  Ahead next(bool known) const {
    if (known && !blocks.has_codes()) return ahead;
    return {{(const char*)keys[0], (const char*)keys[1]}, {(const char*)values[0], (const char*)values[1]}};
  }

  // Where the numbers of a tile begin that will be read after this one; false if it is absent.
  bool locate(int64_t tile, int64_t end, Ahead* ahead) const {
    for (int h = 0; h < 2; h++) {
      int64_t start = tile * kTile + h * kHalf;
      start = chosen.position(start < end ? start : tile * kTile);
      int64_t block = table[start >> blocks.shift], slot = start & (blocks.size - 1);
      if (block < 0) return false;
      const char* first = blocks.keys(block, head);
      ahead->keys[h] = first + blocks.cell(slot);
      ahead->values[h] = first + blocks.value(slot);
      if (!blocks.has_scales()) continue;
      fetch(first + blocks.scales(slot));
      fetch(first + blocks.scales(slot + blocks.size));
    }
    return true;
  }

 private:
  // Half h of a tile, sixteen tokens from `start`, of which `limit` may be read.
  void find_half(int h, int64_t start, int64_t limit) {
    if (limit > 0) start = chosen.position(start);
    int64_t block = limit > 0 ? table[start >> blocks.shift] : -1, slot = start & (blocks.size - 1);
    const bool is_whole = blocks.size >= kHalf && block >= 0;
    const char* first = is_whole ? blocks.keys(block, head) : nullptr;
    Unit* room = key_room + h * kHalf * blocks.key_steps();
    keys[h] = room;
    if (!is_whole || blocks.D % per)
      for (int64_t at = 0; at < kHalf; at += blocks.width()) copy_keys(h, start + at, limit - at, room + at);
    else keys[h] = (const Unit*)numbers(first + blocks.cell(slot), kHalf * blocks.D, (T*)room, ahead.keys[h]);
    const int64_t count = limit < kHalf ? limit : kHalf;
    room = value_room + h * (kHalf / per) * blocks.stride();
    values[h] = room;
    if (!is_whole || blocks.Dv != blocks.stride() || count % per) copy_values(h, start, count, room);
    else values[h] = (const Unit*)numbers(first + blocks.value(slot), count * blocks.Dv, (T*)room, ahead.values[h]);
    if (blocks.has_scales()) copy_scales(start, count, h * kHalf);
  }

  // Values of both halves one after the other, and zeros behind the last, as tile registers take them.
  void join_values() {
    const int64_t stride = blocks.stride(), rows = kHalf / per;
    if (value_steps == 2 * rows && values[1] == values[0] + rows * stride) return;
    for (int64_t h = 0; h < 2; h++) {
      Unit* room = value_room + h * rows * stride;
      int64_t n = value_steps - h * rows;
      n = n < 0 ? 0 : n < rows ? n : rows;
      if (values[h] != room) __builtin_memcpy(room, values[h], n * stride * sizeof(Unit));
      __builtin_memset((void*)(room + n * stride), 0, (rows - n) * stride * sizeof(Unit));
      values[h] = room;
    }
  }

  // `n` stored numbers: where they lie, or what codes become, in `room`.
  const T* numbers(const char* from, int64_t n, T* room, const char* next) const {
    if (!blocks.has_codes()) return (const T*)from;
    widen(blocks.format, (const uint8_t*)from, n, room, next);
    return room;
  }

  // Scales of half a tile, zeros where there is no token.
  void copy_scales(int64_t start, int64_t limit, int64_t to) {
    for (int64_t at = 0; at < kHalf; at += blocks.width()) {
      int64_t block = at < limit ? table[(start + at) >> blocks.shift] : -1;
      int n = block < 0 ? 0 : limit - at < blocks.width() ? (int)(limit - at) : (int)blocks.width();
      const char* from = (const char*)key_scales;
      if (n) from = blocks.keys(block, head) + blocks.scales((start + at) & (blocks.size - 1));
      int width = (int)blocks.width();
      store(key_scales + to + at, load((const float*)from, n), width);
      store(value_scales + to + at, load((const float*)from + (n ? blocks.size : 0), n), width);
    }
  }

  // The cell at `start` as a part of one of sixteen, with an odd last number made a pair.
  void copy_keys(int h, int64_t start, int64_t limit, Unit* out) {
    const int64_t width = blocks.width();
    int64_t block = limit > 0 ? table[start >> blocks.shift] : -1;
    const T* from = nullptr;
    if (block >= 0) {
      const char* place = blocks.keys(block, head) + blocks.cell(start & (blocks.size - 1));
      from = numbers(place, width * blocks.D, spare, ahead.keys[h]);
    }
    for (int64_t s = 0; s < blocks.key_steps(); s++, out += kHalf) {
      if (from && (s + 1) * per <= blocks.D) {
        __builtin_memcpy(out, from + s * per * width, width * sizeof(Unit));
        continue;
      }
      __builtin_memset((void*)out, 0, width * sizeof(Unit));
      for (int64_t i = 0; from && i < width; i++) __builtin_memcpy(out + i, from + s * per * width + i, sizeof(T));
    }
  }

  void copy_values(int h, int64_t start, int64_t limit, Unit* out) {
    const int64_t stride = blocks.stride();
    for (int64_t t = 0; t < limit; t += per, out += stride) {
      int64_t block = table[(start + t) >> blocks.shift], known = block < 0 ? 0 : blocks.Dv;
      if (known) {
        const char* place = blocks.keys(block, head) + blocks.value((start + t) & (blocks.size - 1));
        __builtin_memcpy(out, numbers(place, per * blocks.Dv, spare, ahead.values[h]), known * sizeof(Unit));
      }
      __builtin_memset((void*)(out + known), 0, (stride - known) * sizeof(Unit));
      // the second token's slot may not have been written
      for (int64_t j = 0; t + per > limit && j < known; j++)
        __builtin_memset((char*)(out + j) + sizeof(T), 0, sizeof(Unit) - sizeof(T));
    }
  }
};

}  // namespace quire
