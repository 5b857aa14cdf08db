// Rows taken from a table and put into one, and blocks of cache copied.
//
// No index leads outside of the memory that the arguments name.
#include "rows.h"

namespace quire {
namespace {

template <class T> void take(const QuireArgs_take_rows& args, Team& team) {
  int64_t from, to;
  share(team, args.count, args.width, &from, &to);
  const int64_t* chosen = (const int64_t*)args.chosen;
  vf scale = vf_set(args.scale);
  for (int64_t i = from; i < to; i++) {
    const T* x = (const T*)args.x + chosen[i] * args.x_stride;
    T* out = (T*)args.out + i * args.out_stride;
    if (chosen[i] < 0 || chosen[i] >= args.rows) {
      put_nan(out, args.width);
    } else if (args.scale == 1.0f) {
      __builtin_memcpy(out, x, args.width * sizeof(T));
    } else {
      in_lanes(args.width, [=](int64_t j, int n) { put(out + j, get(x + j, n) * scale, n); });
    }
  }
}

template <class T, class V> void put_all(const QuireArgs_put_rows& args, Team& team) {
  int64_t from, to;
  share(team, args.count, args.width, &from, &to);
  const int64_t* chosen = (const int64_t*)args.chosen;
  for (int64_t i = from; i < to; i++) {
    if (chosen[i] < 0 || chosen[i] >= args.rows) continue;
    T* x = (T*)args.x + chosen[i] * args.x_stride;
    const V* values = (const V*)args.values + i * args.values_stride;
    in_lanes(args.width, [=](int64_t j, int n) { put(x + j, get(values + j, n), n); });
  }
}

// A number of a row lies 32 numbers, or for bfloat16 32 pairs, behind the one before it.
template <class T> void take_packed_rows(const QuireArgs_take_packed& args, Team& team) {
  const int64_t pair = sizeof(T) == 2 && args.dtype == QUIRE_BFLOAT16 ? 2 : 1;
  const int64_t depth = (args.width + 31) / 32 * 32;
  int64_t from, to;
  share(team, args.count, 8 * args.width, &from, &to);
  const int64_t* chosen = (const int64_t*)args.chosen;
  vf scale = vf_set(args.scale);
  for (int64_t i = from; i < to; i++) {
    T* out = (T*)args.out + i * args.out_stride;
    if (chosen[i] < 0 || chosen[i] >= args.rows) {
      put_nan(out, args.width);
      continue;
    }
    const T* x = (const T*)args.table + (chosen[i] / 32 * depth * 32) + chosen[i] % 32 * pair;
    for (int64_t k = 0; k < args.width; k++) out[k] = x[k / pair * 32 * pair + k % pair];
    if (args.scale != 1.0f)
      in_lanes(args.width, [=](int64_t j, int n) { put(out + j, get(out + j, n) * scale, n); });
  }
}

}  // namespace

void take_packed(const QuireArgs_take_packed& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, take_packed_rows<T>(args, team))
}

void take_rows(const QuireArgs_take_rows& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, take<T>(args, team))
}

void put_rows(const QuireArgs_put_rows& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T,
                  QUIRE_FOR_DTYPE(args.values_dtype, V, (put_all<T, V>(args, team))))
}

// Each thread copies the same stretch of bytes of one block after the other, so that a block that
// is written and then read is whole for every byte.
void copy_blocks(const QuireArgs_copy_blocks& args, Team& team) {
  int64_t from, to, lines = (args.block_bytes + 63) / 64;
  share(team, lines, args.count * 64, &from, &to);
  from *= 64;
  to = to * 64 < args.block_bytes ? to * 64 : args.block_bytes;
  if (from >= to) return;
  const int64_t* sources = (const int64_t*)args.sources;
  const int64_t* targets = (const int64_t*)args.targets;
  const int64_t per = args.blocks_per_slab, blocks = args.num_slabs * per;
  char* buffer = (char*)args.buffer + from;
  for (int64_t i = 0; i < args.count; i++) {
    int64_t s = sources[i], t = targets[i];
    if (s < 0 || s >= blocks || t < 0 || t >= blocks || s == t) continue;
    __builtin_memcpy(buffer + t / per * args.slab_bytes + t % per * args.block_bytes,
                     buffer + s / per * args.slab_bytes + s % per * args.block_bytes, to - from);
  }
}

}  // namespace quire
