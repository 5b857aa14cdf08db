// Weights rounded to codes of 4 and 8 bits: a scale for each group of a column, and the nearest codes.
//
// Every step is one rounding of float32 in one order, so that all machines make the same codes.
#include "codes.h"
#include "groups.h"

namespace quire {
namespace {

enum Format { kInt8 = 1, kInt4 = 2, kInt4Zero = 3, kFp8 = 4 };
const float kShares[] = {1.0f, 0.94f, 0.88f, 0.82f, 0.76f};
const float kEnds[] = {-8.0f, 7.0f};  // what the number of largest magnitude becomes

// One group of one column: `x` holds `n` numbers, padded with zeros to a multiple of 16.
struct Group {
  const float* x;
  int64_t n;
  uint8_t* codes;

  void put(int64_t at, vi code) const {
    store8((int8_t*)codes + at, code, n - at < 16 ? (int)(n - at) : 16);
  }

  // The number of largest magnitude, the first of several; what is not a number is larger than any.
  float largest() const {
    vi most = vi_set(-1), where = vi_set(0);
    for (int64_t i = 0; i < n; i += 16) {
      vi size = as_int(load(x + i)) & vi_set(0x7fffffff);
      vm more = less(most, size);
      most = select(more, size, most);
      where = select(more, vi_set((int32_t)i) + vi_iota(), where);
    }
    int32_t sizes[16], places[16];
    store(sizes, most);
    store(places, where);
    int best = 0;
    for (int i = 1; i < 16; i++)
      if (sizes[i] > sizes[best] || (sizes[i] == sizes[best] && places[i] < places[best])) best = i;
    return x[places[best]];
  }

  float int8(float limit) const {
    Scale scale(limit, 127);
    for (int64_t i = 0; i < n; i += 16)
      put(i, to_int(nearest(load(x + i), scale.inverse, scale.inverse != 0)));
    return scale.value;
  }

  float fp8(float limit) const {
    Scale scale(limit, 448);
    for (int64_t i = 0; i < n; i += 16) {
      vf value = scale.inverse != 0 ? load(x + i) * vf_set(scale.inverse) : vf_zero();
      put(i, to_fp8(clamp(value, -448, 448)));
    }
    return scale.value;
  }

  // The scale with the least squared error: the number of largest magnitude, or a share of it, is put
  // on the code -8 or 7.
  float int4(float limit) const {
    Scale best(limit, -8);
    float least = __builtin_inff();
    for (float share : kShares)
      for (float end : kEnds) {
        Scale scale(limit * share, end);
        if (scale.inverse == 0) continue;
        vf error = vf_zero();
        for (int64_t i = 0; i < n; i += 16) {
          vf number = load(x + i);
          vf code = clamp(round(number * vf_set(scale.inverse)), -8, 7);
          vf off = code * vf_set(scale.value) - number;
          error = error + off * off;
        }
        float total = sum(error);
        if (total < least) {
          least = total;
          best = scale;
        }
      }
    for (int64_t i = 0; i < n; i += 16)
      put(i, to_int(clamp(nearest(load(x + i), best.inverse, best.inverse != 0), -8, 7)) + vi_set(8));
    return best.value;
  }

  float int4_zero(float limit, uint8_t* zero) const {
    vf low = vf_zero(), high = vf_zero();
    for (int64_t i = 0; i < n; i += 16) {
      low = min(low, load(x + i));
      high = max(high, load(x + i));
    }
    float span = limit - limit == 0 ? largest_of(high) + largest_of(vf_zero() - low) : limit;
    Scale scale(span, 15);
    vf shift = nearest(vf_set(largest_of(vf_zero() - low)), scale.inverse, scale.inverse != 0);
    for (int64_t i = 0; i < n; i += 16) {
      vf code = nearest(load(x + i), scale.inverse, scale.inverse != 0) + shift;
      put(i, to_int(clamp(code, 0, 15)));
    }
    int32_t lanes[16];
    store(lanes, to_int(shift));
    *zero = (uint8_t)lanes[0];
    return scale.value;
  }
  static float largest_of(vf a) { return quire::largest(a); }
};

template <class T>
void round_column(const QuireArgs_round_weight& args, int64_t column, float* room) {
  const int64_t size = args.group ? args.group : args.K, groups = (args.K + size - 1) / size;
  const T* row = (const T*)args.weight + column * args.stride;
  const int64_t padded = (args.K + 15) / 16 * 16;
  for (int64_t i = 0; i < padded; i += 16)
    store(room + i, args.K - i >= 16 ? load(row + i) : load(row + i, (int)(args.K - i)));
  for (int64_t g = 0; g < groups; g++) {
    int64_t n = args.K - g * size < size ? args.K - g * size : size;
    Group group = {room + g * size, n, (uint8_t*)args.codes + column * args.K + g * size};
    float limit = group.largest();
    int64_t at = column * groups + g;
    if (args.limits) limit = ((const float*)args.limits)[at];
    if (args.format == kInt8 || args.format == kFp8) limit = limit < 0 ? -limit : limit;
    float scale = 0;
    switch (args.format) {
      case kInt8: scale = group.int8(limit); break;
      case kInt4: scale = group.int4(limit); break;
      case kInt4Zero: scale = group.int4_zero(limit, (uint8_t*)args.zeros + at); break;
      case kFp8: scale = group.fp8(limit); break;
    }
    ((float*)args.scales)[at] = scale;
  }
}

}  // namespace

// weight [N, K] to codes [N, K], scales and zeros [N, groups]; `limits` [N, groups] are the magnitudes
// that the largest codes stand for, null for each group's own.
void round_weight(const QuireArgs_round_weight& args, Team& team) {
  float* room = (float*)team.own((size_t)(args.K + 16) * 4);
  for (int64_t column; (column = team.next(0)) < args.N;) {
    QUIRE_FOR_DTYPE(args.dtype, T, round_column<T>(args, column, room))
  }
}

}  // namespace quire
