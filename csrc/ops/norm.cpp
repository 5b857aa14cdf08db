// Norms over the last axis: root mean square, alone and after an addition, and LayerNorm.
//
// A thread takes whole rows; sums have one order (`in_sums`), whatever the number of rows.
#include "rows.h"

namespace quire {
namespace {

template <class T> void rms_norms(const QuireArgs_rms_norm& args, Team& team) {
  int64_t from, to;
  share(team, args.rows * args.heads, args.C + kNormCost, &from, &to);
  for (int64_t i = from; i < to; i++) {
    int64_t row = i / args.heads, head = i % args.heads;
    rms_norm_row((const T*)args.x + row * args.x_stride + head * args.x_head,
                 (const float*)args.weight,
                 (T*)args.out + row * args.out_stride + head * args.out_head, args.C, args.eps);
  }
}

template <class T> void add_rms_norms(const QuireArgs_add_rms_norm& args, Team& team) {
  int64_t from, to;
  share(team, args.rows, args.C + kNormCost, &from, &to);
  const float* weight = (const float*)args.weight;
  for (int64_t row = from; row < to; row++) {
    const T* x = (const T*)args.x + row * args.x_stride;
    T* residual = (T*)args.residual + row * args.residual_stride;
    T* out = (T*)args.out + row * args.out_stride;
    float total = in_sums(args.C, [=](int64_t i, int n, vf sum) {
      vf v = rounded(get(residual + i, n) + get(x + i, n), residual);
      put(residual + i, v, n);
      return fma(v, v, sum);
    });
    vf factor = norm_factor(total, args.C, args.eps);
    in_lanes(args.C, [=](int64_t i, int n) {
      put(out + i, get(residual + i, n) * factor * get(weight + i, n), n);
    });
  }
}

template <class T>
QUIRE_INLINE void layer_norm_row(const T* x, const float* weight, const float* bias, T* out,
                                 int64_t C, float eps) {
  float total = in_sums(C, [=](int64_t i, int n, vf sum) { return sum + get(x + i, n); });
  vf mean = vf_set(total / (float)C);
  float squares = in_sums(C, [=](int64_t i, int n, vf sum) {
    vf v = select(first(n), get(x + i, n) - mean, vf_zero());
    return fma(v, v, sum);
  });
  vf factor = norm_factor(squares, C, eps);
  in_lanes(C, [=](int64_t i, int n) {
    vf v = (get(x + i, n) - mean) * factor * get(weight + i, n);
    put(out + i, bias ? v + get(bias + i, n) : v, n);
  });
}

template <class T> void layer_norms(const QuireArgs_layer_norm& args, Team& team) {
  int64_t from, to;
  share(team, args.rows * args.heads, args.C + 2 * kNormCost, &from, &to);
  const float* bias = (const float*)args.bias;
  for (int64_t i = from; i < to; i++) {
    int64_t row = i / args.heads, head = i % args.heads;
    layer_norm_row((const T*)args.x + row * args.x_stride + head * args.x_head,
                   (const float*)args.weight + head * args.weight_head,
                   bias ? bias + head * args.weight_head : nullptr,
                   (T*)args.out + row * args.out_stride + head * args.out_head, args.C, args.eps);
  }
}

}  // namespace

void rms_norm(const QuireArgs_rms_norm& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, rms_norms<T>(args, team))
}

void add_rms_norm(const QuireArgs_add_rms_norm& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, add_rms_norms<T>(args, team))
}

void layer_norm(const QuireArgs_layer_norm& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, layer_norms<T>(args, team))
}

}  // namespace quire
