// Operations on each element: sums, factors, activations, conversion.
//
// Computed in float32 with the roundings of the definition; an element's place changes no bit.
#include "functions.h"
#include "rows.h"

namespace quire {
namespace {

const int64_t kPiece = 1024;   // elements that one thread takes at once
const int64_t kFunction = 4;  // cost of a function of an element, against moving it

// body(row, from, to) for this thread's stretches of rows of `width` elements.
template <class F>
QUIRE_INLINE void over(const Team& team, int64_t rows, int64_t width, int64_t cost, F body) {
  int64_t per_row = (width + kPiece - 1) / kPiece, from, to;
  share(team, rows * per_row, (width < kPiece ? width : kPiece) * cost, &from, &to);
  for (int64_t piece = from; piece < to; piece++) {
    int64_t row = piece / per_row, start = piece % per_row * kPiece;
    body(row, start, start + kPiece < width ? start + kPiece : width);
  }
}

// out = function(x) for any args with x, out and their strides.
template <class In, class Out, class A, class F>
QUIRE_INLINE void map(const A& args, Team& team, int64_t cost, F function) {
  over(team, args.rows, args.width, cost, [&](int64_t row, int64_t from, int64_t to) {
    const In* x = (const In*)args.x + row * args.x_stride + from;
    Out* out = (Out*)args.out + row * args.out_stride + from;
    in_lanes(to - from, [=](int64_t i, int n) { put(out + i, function(get(x + i, n)), n); });
  });
}

// out = f(gate, up) for args whose x has both side by side.
template <class T, class A, class F> QUIRE_INLINE void gate(const A& args, Team& team, F f) {
  over(team, args.rows, args.width, kFunction, [&](int64_t row, int64_t from, int64_t to) {
    const T* x = (const T*)args.x + row * args.x_stride + from;
    const T* up = x + args.width;
    T* out = (T*)args.out + row * args.out_stride + from;
    in_lanes(to - from, [=](int64_t i, int n) { put(out + i, f(get(x + i, n), get(up + i, n)), n); });
  });
}

template <class T> void sums(const QuireArgs_add& args, Team& team) {
  vf scale = vf_set(args.scale);
  over(team, args.rows, args.width, 1, [&](int64_t row, int64_t from, int64_t to) {
    const T* x = (const T*)args.x + row * args.x_stride + from;
    const T* y = (const T*)args.y + row * args.y_stride + from;
    T* out = (T*)args.out + row * args.out_stride + from;
    in_lanes(to - from, [=](int64_t i, int n) {
      put(out + i, get(y + i, n) * scale + get(x + i, n), n);
    });
  });
}

template <class T> void gated_sums(const QuireArgs_add_gated& args, Team& team) {
  const vf one = vf_set(1.0f);
  over(team, args.rows, args.width, 1, [&](int64_t row, int64_t from, int64_t to) {
    const T* x = (const T*)args.x + row * args.x_stride + from;
    const T* y = (const T*)args.y + row * args.y_stride + from;
    T* out = (T*)args.out + row * args.out_stride + from;
    float gate[16];
    store(gate, load((const T*)args.gate + row * args.gate_stride, 1));
    vf share = one / (exp(vf_set(-gate[0])) + one);
    in_lanes(to - from, [=](int64_t i, int n) {
      put(out + i, get(y + i, n) * share + get(x + i, n), n);
    });
  });
}

}  // namespace

void add(const QuireArgs_add& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, sums<T>(args, team))
}

void add_gated(const QuireArgs_add_gated& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gated_sums<T>(args, team))
}

void scale(const QuireArgs_scale& args, Team& team) {
  vf factor = vf_set(args.factor);
  auto f = [=](vf x) { return x * factor; };
  QUIRE_FOR_DTYPE(args.dtype, T, (map<T, T>(args, team, 1, f)))
}

void clamp(const QuireArgs_clamp& args, Team& team) {
  vf high = vf_set(args.limit), low = vf_set(-args.limit);
  auto f = [=](vf x) { return max(low, min(high, x)); };  // NaN stays: the second is taken
  QUIRE_FOR_DTYPE(args.dtype, T, (map<T, T>(args, team, 1, f)))
}

void soft_cap(const QuireArgs_soft_cap& args, Team& team) {
  vf cap = vf_set(args.cap);
  auto f = [=](vf x) { return tanh(x / cap) * cap; };
  QUIRE_FOR_DTYPE(args.dtype, T, (map<T, T>(args, team, kFunction, f)))
}

void to_float32(const QuireArgs_to_float32& args, Team& team) {
  auto f = [](vf x) { return x; };
  QUIRE_FOR_DTYPE(args.dtype, T, (map<T, f32>(args, team, 1, f)))
}

void act(const QuireArgs_act& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, QUIRE_FOR_ACT(args.act, (map<T, T>(args, team, kFunction, f))))
}

void act_mul(const QuireArgs_act_mul& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, QUIRE_FOR_ACT(args.act, gate<T>(args, team, [=](vf g, vf up) { return f(g) * up; })))
}

void swiglu_clamped(const QuireArgs_swiglu_clamped& args, Team& team) {
  vf high = vf_set(args.limit), low = vf_set(-args.limit);
  auto f = [=](vf g, vf up) { return swish_gated(min(high, g), max(low, min(high, up))); };
  QUIRE_FOR_DTYPE(args.dtype, T, gate<T>(args, team, f))
}

}  // namespace quire
