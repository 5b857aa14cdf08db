// Work on rows: how it is shared out, loops over lanes, and the norm that several operations hold.
#pragma once
#include "numbers.h"

namespace quire {

// Cost up to which one thread works alone, as a second one would save less than a microsecond.
const int64_t kAlone = 8192;
const int64_t kNormCost = 128;  // of a norm, whatever its width: the sum of lanes, root, division

// This thread's [begin, end) of `count` things that cost `cost` each: 1 for moving an element.
QUIRE_INLINE void share(const Team& team, int64_t count, int64_t cost, int64_t* begin, int64_t* end) {
  if (count * cost > kAlone) return team.part(count, begin, end);
  *begin = 0;
  *end = team.id == 0 ? count : 0;
}

// n numbers from p on, in the first lanes.
template <class T> QUIRE_INLINE vf get(const T* p, int n) { return n >= 16 ? load(p) : load(p, n); }
template <class T> QUIRE_INLINE void put(T* p, vf a, int n) { n >= 16 ? store(p, a) : store(p, a, n); }

// What `a` is after it was stored as numbers of the pointer's type.
QUIRE_INLINE vf rounded(vf a, const f32*) { return a; }
QUIRE_INLINE vf rounded(vf a, const bf16*) { return from_bf16(to_bf16(a)); }
QUIRE_INLINE vf rounded(vf a, const f16*) { return from_half(to_half(a)); }

// body(i, n) for each stretch of 16 elements: n of them from i on, fewer at the end only.
template <class F> QUIRE_INLINE void in_lanes(int64_t count, F body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(i, 16);
  if (i < count) body(i, (int)(count - i));
}

// The sum over all elements of what add(i, n, sums) puts on top of sixteen running sums. Stretches
// of 16 elements take turns on four such sums, which are added up at the end in one order.
template <class F> QUIRE_INLINE float in_sums(int64_t count, F add) {
  vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
  int64_t i = 0;
  for (; i + 64 <= count; i += 64)
    for (int j = 0; j < 4; j++) sums[j] = add(i + 16 * j, 16, sums[j]);
  for (int j = 0; i < count; i += 16, j++)
    sums[j] = add(i, count - i < 16 ? (int)(count - i) : 16, sums[j]);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// 1 / sqrt(total / count + eps): the factor of a norm from a sum of squares.
QUIRE_INLINE vf norm_factor(float total, int64_t count, float eps) {
  return vf_set(1.0f / __builtin_sqrtf(total / (float)count + eps));
}

// out = x / rms(x) * weight, rounded once; out may be x.
template <class T>
QUIRE_INLINE void rms_norm_row(const T* x, const float* weight, T* out, int64_t C, float eps) {
  float total = in_sums(C, [=](int64_t i, int n, vf sum) {
    vf v = get(x + i, n);
    return fma(v, v, sum);
  });
  vf factor = norm_factor(total, C, eps);
  in_lanes(C, [=](int64_t i, int n) { put(out + i, get(x + i, n) * factor * get(weight + i, n), n); });
}

// A row of numbers that are not: what an operation gives for an index outside of its table.
template <class T> QUIRE_INLINE void put_nan(T* out, int64_t count) {
  __builtin_memset(out, 0xff, count * sizeof(T));
}

}  // namespace quire
