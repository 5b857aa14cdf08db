// Rotary positions in place, alone and after the norms of query and key heads.
//
// Products are rounded before they are added, as in the definition, so that its bits are these.
#include "rows.h"

namespace quire {
namespace {

// Pairs of neighbours: the first numbers of n pairs in one vector, the second ones in another.
QUIRE_INLINE void get_pairs(const f32* x, int n, vf* a, vf* b) {
  float even[16] = {}, odd[16] = {};
  for (int i = 0; i < n; i++) even[i] = x[2 * i], odd[i] = x[2 * i + 1];
  *a = load(even);
  *b = load(odd);
}
QUIRE_INLINE void put_pairs(f32* x, int n, vf a, vf b) {
  float even[16], odd[16];
  store(even, a);
  store(odd, b);
  for (int i = 0; i < n; i++) x[2 * i] = even[i], x[2 * i + 1] = odd[i];
}
// Two 16-bit numbers are one lane of 32 bits.
QUIRE_INLINE void get_pairs(const bf16* x, int n, vf* a, vf* b) {
  vi pairs = load((const int32_t*)x, n);
  *a = from_bf16(pairs);
  *b = from_bf16(shift_right<16>(pairs));
}
QUIRE_INLINE void put_pairs(bf16* x, int n, vf a, vf b) {
  store((int32_t*)x, (to_bf16(a) & vi_set(0xffff)) | shift_left<16>(to_bf16(b)), n);
}
QUIRE_INLINE void get_pairs(const f16* x, int n, vf* a, vf* b) {
  vi pairs = load((const int32_t*)x, n);
  *a = from_half(pairs & vi_set(0xffff));
  *b = from_half(shift_right<16>(pairs));
}
QUIRE_INLINE void put_pairs(f16* x, int n, vf a, vf b) {
  store((int32_t*)x, (to_half(a) & vi_set(0xffff)) | shift_left<16>(to_half(b)), n);
}

// Turns the first 2 * half numbers of a head by the angles whose cosines and sines are given.
template <class T>
QUIRE_INLINE void turn(T* x, const float* cosines, int64_t half, bool interleaved) {
  const float* sines = cosines + half;
  if (interleaved) {
    in_lanes(half, [=](int64_t i, int n) {
      vf a, b, c = get(cosines + i, n), s = get(sines + i, n);
      get_pairs(x + 2 * i, n, &a, &b);
      put_pairs(x + 2 * i, n, a * c - b * s, b * c + a * s);
    });
  } else {
    in_lanes(half, [=](int64_t i, int n) {
      vf a = get(x + i, n), b = get(x + half + i, n);
      vf c = get(cosines + i, n), s = get(sines + i, n);
      put(x + i, a * c - b * s, n);
      put(x + half + i, b * c + a * s, n);
    });
  }
}

// A token's row of the table of angles, or null for a position that it does not have.
QUIRE_INLINE const float* angles(const void* table, int64_t rot, int64_t max_len, int64_t position) {
  bool known = position >= 0 && position < max_len;
  return known ? (const float*)table + position * rot : nullptr;
}

template <class T> void turn_rows(const QuireArgs_rope& args, Team& team) {
  int64_t from, to;
  share(team, args.rows, args.heads * args.rot, &from, &to);
  const int64_t* positions = (const int64_t*)args.positions;
  for (int64_t row = from; row < to; row++) {
    const float* here = angles(args.table, args.rot, args.max_len, positions[row]);
    for (int64_t head = 0; head < args.heads; head++) {
      T* x = (T*)args.x + row * args.stride + head * args.head;
      if (here) turn(x, here, args.rot / 2, args.interleaved); else put_nan(x, args.rot);
    }
  }
}

template <class T> void norm_and_turn_rows(const QuireArgs_qk_rope& args, Team& team) {
  int64_t from, to;
  share(team, args.rows * args.heads, 2 * args.D + kNormCost, &from, &to);
  const int64_t* positions = (const int64_t*)args.positions;
  for (int64_t i = from; i < to; i++) {
    int64_t row = i / args.heads, head = i % args.heads;
    const float* here = angles(args.table, args.rot, args.max_len, positions[row]);
    T* x = (T*)args.x + row * args.stride + head * args.head;
    const void* weight = head < args.q_heads ? args.q_weight : args.k_weight;
    rms_norm_row(x, (const float*)weight, x, args.D, args.eps);
    if (here) turn(x, here, args.rot / 2, args.interleaved); else put_nan(x, args.rot);
  }
}

}  // namespace

void rope(const QuireArgs_rope& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, turn_rows<T>(args, team))
}

void qk_rope(const QuireArgs_qk_rope& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, norm_and_turn_rows<T>(args, team))
}

}  // namespace quire
