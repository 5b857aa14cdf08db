// Gates of what a mixer gives: a norm of each head times a function of its gate, or that function alone;
// and the number that each key adds to its scores.
#include "functions.h"
#include "rows.h"

namespace quire {
namespace {

const int64_t kSigmoid = 4;  // cost of an element, against moving it
const int64_t kCurve = 32;   // of a number of which a whole head's factor is made

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

// The softplus of one number, in all lanes.
template <class T> QUIRE_INLINE vf softplus_at(const T* p) {
  float lanes[16];
  store(lanes, load(p, 1));
  return softplus(vf_set(lanes[0]));
}

template <class T> void gate_heads(const QuireArgs_mul_softplus& args, Team& team) {
  int64_t from, to;
  share(team, args.rows * args.heads, args.D + kCurve, &from, &to);
  for (int64_t i = from; i < to; i++) {
    const int64_t row = i / args.heads, head = i % args.heads;
    const T* x = (const T*)args.x + row * args.x_stride + head * args.x_head;
    T* out = (T*)args.out + row * args.out_stride + head * args.out_head;
    const vf factor = softplus_at((const T*)args.gate + row * args.gate_stride + head);
    in_lanes(args.D, [=](int64_t j, int n) { put(out + j, get(x + j, n) * factor, n); });
  }
}

template <class T> void tell(const QuireArgs_tell_keys& args, Team& team) {
  const int64_t heads = args.queries + args.keys;
  const float* rates = (const float*)args.rates;
  int64_t from, to;
  share(team, args.rows * heads, args.D + args.R + kCurve, &from, &to);
  for (int64_t i = from; i < to; i++) {
    const int64_t row = i / heads, head = i % heads, key = head - args.queries;
    T* out = (T*)args.out + i * (args.D + args.R);
    __builtin_memcpy(out, (const T*)args.x + row * args.x_stride + head * args.x_head, args.D * sizeof(T));
    vf told = vf_set(args.of_queries);
    if (key >= 0) told = exp(vf_set(rates[key]) * softplus_at((const T*)args.steps + row * args.steps_stride + key));
    __builtin_memset(out + args.D, 0, args.R * sizeof(T));
    store(out + args.D, told, 1);
  }
}

}  // namespace

void rms_norm_gated(const QuireArgs_rms_norm_gated& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gated_norms<T>(args, team))
}

void mul_sigmoid(const QuireArgs_mul_sigmoid& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gate_rows<T>(args, team))
}

void mul_softplus(const QuireArgs_mul_softplus& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gate_heads<T>(args, team))
}

void tell_keys(const QuireArgs_tell_keys& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, tell<T>(args, team))
}

}  // namespace quire
