// State-space mixers: the convolution before them and their recurrence, token by token.
//
// A state is the same after the same tokens, however they came: one by one, in pieces, or at once.
#include "functions.h"
#include "rows.h"
#include "states.h"

namespace quire {
namespace {

// Lanes of one item: so many numbers of a state stay in registers or in the nearest cache while an item's
// tokens run.
const int64_t kLanes = 32;

// body(row, chunk) for all pairs of sequences and chunks of numbers, as threads come to them.
template <class F>
QUIRE_INLINE void over_chunks(Team& team, const StatePlaces& places, int64_t chunks, F body) {
  int64_t count = places.plan.num_sequences * chunks;
  for (int64_t item = team.next(0); item < count; item = team.next(0))
    body(item / chunks, item % chunks);
}

template <class T> QUIRE_INLINE void widen(const T* x, float* out, int64_t count) {
  in_lanes(count, [=](int64_t i, int n) { put(out + i, get(x + i, n), n); });
}

// Copies lanes [at, at + n) of `rows` rows of `width` numbers to `target`; zeros if there is no source.
QUIRE_INLINE void begin_state(const float* source, float* target, int64_t rows, int64_t width,
                              int64_t at, int64_t n) {
  if (source == target) return;
  for (int64_t row = 0; row < rows; row++) {
    float* to = target + row * width + at;
    if (source) {
      __builtin_memcpy(to, source + row * width + at, n * sizeof(float));
    } else {
      __builtin_memset(to, 0, n * sizeof(float));
    }
  }
}

// The window of W - 1 inputs stands in `states` [W - 1][C], the oldest first.
template <class T, int W>
void convolve(const QuireArgs_causal_conv& args, Team& team) {
  const StatePlaces places(args);
  const int64_t C = args.C, chunks = (C + kLanes - 1) / kLanes;
  over_chunks(team, places, chunks, [&](int64_t row, int64_t chunk) {
    for (int64_t at = chunk * kLanes; at < C && at < (chunk + 1) * kLanes; at += 16) {
      const int n = C - at < 16 ? (int)(C - at) : 16;
      vf weight[W], window[W];
      for (int w = 0; w < W; w++) weight[w] = get((const float*)args.weight + w * C + at, n);
      vf bias = args.bias ? get((const float*)args.bias + at, n) : vf_zero();
      each_piece(places, row, [&](int64_t begin, int64_t end, const float* source, float* target) {
        for (int w = 0; w + 1 < W; w++)
          window[w] = source ? get(source + w * C + at, n) : vf_zero();
        for (int64_t t = begin; t < end; t++) {
          window[W - 1] = get((const T*)args.x + t * args.x_stride + at, n);
          vf sum = bias;
          for (int w = 0; w < W; w++) sum = fma(weight[w], window[w], sum);
          put((T*)args.out + t * args.out_stride + at, args.act ? silu(sum) : sum, n);
          for (int w = 0; w + 1 < W; w++) window[w] = window[w + 1];
        }
        for (int w = 0; w + 1 < W; w++) put(target + w * C + at, window[w], n);
      });
    }
  });
}

template <class T> void convolve_any(const QuireArgs_causal_conv& args, Team& team) {
  switch (args.W) {
    case 2: return convolve<T, 2>(args, team);
    case 3: return convolve<T, 3>(args, team);
    case 4: return convolve<T, 4>(args, team);
  }
}

// One token of a state of N rows of `width` numbers, of which two vectors from `state` on are dealt with:
// state = state * keep + write[i] * value; the sums of state * read[i] over the rows come back.
struct Two { vf a, b; };
QUIRE_INLINE Two advance(float* state, int64_t width, int64_t N, int n, int m, vf keep, Two value,
                         const float* write, const float* read) {
  Two sums[2] = {{vf_zero(), vf_zero()}, {vf_zero(), vf_zero()}};
  auto row = [&](int64_t i, Two& sum) {
    vf w = vf_set(write[i]), r = vf_set(read[i]);
    float* s = state + i * width;
    vf a = fma(w, value.a, get(s, n) * keep);
    put(s, a, n);
    sum.a = fma(r, a, sum.a);
    if (m) {
      vf b = fma(w, value.b, get(s + 16, m) * keep);
      put(s + 16, b, m);
      sum.b = fma(r, b, sum.b);
    }
  };
  int64_t i = 0;
  for (; i + 2 <= N; i += 2) {
    row(i, sums[0]);
    row(i + 1, sums[1]);
  }
  if (i < N) row(i, sums[0]);
  return {sums[0].a + sums[1].a, sums[0].b + sums[1].b};
}

// States of a head stand as [N][P].
template <class T> void ssd(const QuireArgs_ssd_scan& args, Team& team) {
  const StatePlaces places(args);
  const int64_t P = args.P, N = args.N, per_group = args.H / args.G;
  const int64_t chunks = (P + kLanes - 1) / kLanes;
  float* read = (float*)team.own(2 * N * sizeof(float));
  float* write = read + N;
  over_chunks(team, places, args.H * chunks, [&](int64_t row, int64_t which) {
    const int64_t head = which / chunks, group = head / per_group;
    const int64_t at = which % chunks * kLanes;
    const int64_t lanes = P - at < kLanes ? P - at : kLanes;
    const int n = lanes < 16 ? (int)lanes : 16, m = (int)lanes - n;
    const vf decay = vf_set(((const float*)args.decay)[head]);
    const vf skip = vf_set(((const float*)args.skip)[head]);
    const vf bias = vf_set(((const float*)args.step_bias)[head]);
    each_piece(places, row, [&](int64_t begin, int64_t end, const float* source, float* target) {
      float* state = target + head * N * P;
      begin_state(source ? source + head * N * P : nullptr, state, N, P, at, lanes);
      for (int64_t t = begin; t < end; t++) {
        widen((const T*)args.b + t * args.b_stride + group * N, write, N);
        widen((const T*)args.c + t * args.c_stride + group * N, read, N);
        float raw[16];
        store(raw, get((const T*)args.steps + t * args.steps_stride + head, 1));
        vf step = softplus(vf_set(raw[0]) + bias);
        step = min(max(step, vf_set(args.least)), vf_set(args.most));
        const T* x = (const T*)args.x + t * args.x_stride + head * P + at;
        T* out = (T*)args.out + t * args.out_stride + head * P + at;
        Two value = {get(x, n), m ? get(x + 16, m) : vf_zero()};
        Two made = advance(state + at, P, N, n, m, exp(step * decay),
                           {value.a * step, value.b * step}, write, read);
        put(out, fma(skip, value.a, made.a), n);
        if (m) put(out + 16, fma(skip, value.b, made.b), m);
      }
    });
  });
}

// States stand as [N][D], and so does what each of their numbers decays by.
template <class T> void selective(const QuireArgs_selective_scan& args, Team& team) {
  const StatePlaces places(args);
  const int64_t D = args.D, N = args.N, chunks = (D + 15) / 16;
  float* read = (float*)team.own(2 * N * sizeof(float));
  float* write = read + N;
  over_chunks(team, places, chunks, [&](int64_t row, int64_t chunk) {
    const int64_t at = chunk * 16;
    const int n = D - at < 16 ? (int)(D - at) : 16;
    const float* decay = (const float*)args.decay + at;
    const vf skip = get((const float*)args.skip + at, n);
    const vf bias = get((const float*)args.step_bias + at, n);
    each_piece(places, row, [&](int64_t begin, int64_t end, const float* source, float* target) {
      begin_state(source, target, N, D, at, n);
      for (int64_t t = begin; t < end; t++) {
        widen((const T*)args.b + t * args.b_stride, write, N);
        widen((const T*)args.c + t * args.c_stride, read, N);
        vf x = get((const T*)args.x + t * args.x_stride + at, n);
        vf step = softplus(get((const T*)args.steps + t * args.steps_stride + at, n) + bias);
        vf value = step * x, sum = skip * x;
        for (int64_t i = 0; i < N; i++) {
          float* state = target + i * D + at;
          vf keep = exp(step * get(decay + i * D, n));
          vf s = fma(vf_set(write[i]), value, get(state, n) * keep);
          put(state, s, n);
          sum = fma(vf_set(read[i]), s, sum);
        }
        put((T*)args.out + t * args.out_stride + at, sum, n);
      }
    });
  });
}

// States stand as [D], D = H W; chunks of lanes end with a head.
template <class T> void linear_units(const QuireArgs_gated_lru& args, Team& team) {
  const StatePlaces places(args);
  const int64_t W = args.W, per_head = (W + 15) / 16, chunks = args.H * per_head;
  over_chunks(team, places, chunks, [&](int64_t row, int64_t chunk) {
    const int64_t head = chunk / per_head, inside = chunk % per_head * 16, at = head * W + inside;
    const int n = W - inside < 16 ? (int)(W - inside) : 16;
    const int64_t gate = 2 * head * W + inside;
    const vf to_bias = get((const float*)args.bias + gate, n);
    const vf keep_bias = get((const float*)args.bias + gate + W, n);
    const vf rate = get((const float*)args.rate + at, n);
    each_piece(places, row, [&](int64_t begin, int64_t end, const float* source, float* target) {
      vf state = source ? get(source + at, n) : vf_zero();
      for (int64_t t = begin; t < end; t++) {
        const T* gates = (const T*)args.gates + t * args.gates_stride + gate;
        const vf x = get((const T*)args.x + t * args.x_stride + at, n);
        const vf value = x * sigmoid(get(gates, n) + to_bias);
        const vf fall = rate * sigmoid(get(gates + W, n) + keep_bias);
        if (t == begin && !source) {
          state = value;
        } else {
          state = fma(exp(fall), state, value * sqrt(vf_set(1.0f) - exp(fall + fall)));
        }
        put((T*)args.out + t * args.out_stride + at, state, n);
      }
      put(target + at, state, n);
    });
  });
}

// out = norm(x * silu(gate)), norm(x) * silu(gate) or x * silu(gate) by kind 0, 1, 2.
template <class T> void gated_norms(const QuireArgs_group_norm_gated& args, Team& team) {
  int64_t from, to;
  const int64_t width = args.C / args.groups;
  share(team, args.rows * args.groups, 4 * width + kNormCost, &from, &to);
  for (int64_t i = from; i < to; i++) {
    const int64_t row = i / args.groups, at = i % args.groups * width;
    const T* x = (const T*)args.x + row * args.x_stride + at;
    const T* gate = (const T*)args.gate + row * args.gate_stride + at;
    const float* weight = (const float*)args.weight + at;
    T* out = (T*)args.out + row * args.out_stride + at;
    auto act = [&](int64_t j, int n) {
      return silu(get(gate + j, n));
    };
    if (args.kind == 2) {
      in_lanes(width, [&](int64_t j, int n) { put(out + j, get(x + j, n) * act(j, n), n); });
      continue;
    }
    const bool first = args.kind == 0;
    float total = in_sums(width, [&](int64_t j, int n, vf sum) {
      vf v = get(x + j, n);
      if (first) v = v * act(j, n);
      return fma(v, v, sum);
    });
    vf factor = norm_factor(total, width, args.eps);
    in_lanes(width, [&](int64_t j, int n) {
      vf gated = get(x + j, n) * act(j, n);
      put(out + j, gated * factor * get(weight + j, n), n);
    });
  }
}

}  // namespace

void causal_conv(const QuireArgs_causal_conv& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, convolve_any<T>(args, team))
}

void ssd_scan(const QuireArgs_ssd_scan& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, ssd<T>(args, team))
}

void selective_scan(const QuireArgs_selective_scan& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, selective<T>(args, team))
}

void gated_lru(const QuireArgs_gated_lru& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, linear_units<T>(args, team))
}

void group_norm_gated(const QuireArgs_group_norm_gated& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, gated_norms<T>(args, team))
}

}  // namespace quire
