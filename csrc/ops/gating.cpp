// Gates of what a mixer gives: a norm of each head times a function of its gate, or the sigmoid alone.
#include "functions.h"
#include "rows.h"

namespace quire {
namespace {

const int64_t kSigmoid = 4;  // cost of an element, against moving it

template <class T> void gated_norms(const QuireArgs_rms_norm_gated& args, Team& team) {
  const float* weight = (const float*)args.weight;
  const bool by_gate = args.silu;
  int64_t from, to;
  share(team, args.rows * args.heads, args.C * kSigmoid + kNormCost, &from, &to);
  for (int64_t i = from; i < to; i++) {
    int64_t row = i / args.heads, head = i % args.heads;
    const T* x = (const T*)args.x + row * args.x_stride + head * args.x_head;
    const T* gate = (const T*)args.gate + row * args.gate_stride + head * args.gate_head;
    T* out = (T*)args.out + row * args.out_stride + head * args.out_head;
    float total = in_sums(args.C, [=](int64_t i, int n, vf sum) {
      vf v = get(x + i, n);
      return fma(v, v, sum);
    });
    vf factor = norm_factor(total, args.C, args.eps);
    in_lanes(args.C, [=](int64_t i, int n) {
      vf g = get(gate + i, n), share = sigmoid(g);
      put(out + i, get(x + i, n) * factor * get(weight + i, n) * (by_gate ? g * share : share), n);
    });
  }
}

template <class T> void gate_rows(const QuireArgs_mul_sigmoid& args, Team& team) {
  int64_t from, to;
  share(team, args.rows, args.width * kSigmoid, &from, &to);
  for (int64_t row = from; row < to; row++) {
    const T* x = (const T*)args.x + row * args.x_stride;
    const T* gate = (const T*)args.gate + row * args.gate_stride;
    T* out = (T*)args.out + row * args.out_stride;
    in_lanes(args.width, [=](int64_t i, int n) {
      put(out + i, get(x + i, n) * sigmoid(get(gate + i, n)), n);
    });
  }
}

}  // namespace

void rms_norm_gated(const QuireArgs_rms_norm_gated& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gated_norms<T>(args, team))
}

void mul_sigmoid(const QuireArgs_mul_sigmoid& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gate_rows<T>(args, team))
}

}  // namespace quire
