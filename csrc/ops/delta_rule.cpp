// The gated delta rule: each head has a matrix that forgets, is corrected by one key and value a token, and
// answers one query.
//
// A thread takes all tokens of one head of one sequence, so that the matrix stays in its cache. Tokens come
// one after the other, whatever their number: neither chunks nor company change a bit. A matrix is worked on
// in strips of columns, which do not depend on each other.
#include "functions.h"
#include "rows.h"
#include "states.h"

namespace quire {
namespace {

const int64_t kTile = 16;   // tokens whose rows are prepared at once
const int64_t kStrip = 32;  // columns whose part of a matrix stays in the nearest cache
const float kUnit = 1e-6f;  // added to the sum of squares of what gets length 1

int64_t lanes(int64_t n) { return (n + 15) / 16 * 16; }

// What the tokens of a tile bring to one head, in float32.
struct Tile {
  int64_t count, K, V;     // K, V: the sizes in whole lanes
  float *q, *k, *decay;    // [kTile, K]
  float* v;                // [kTile, V]
  float strength[kTile];
};

// A row as float32 times `scale`, with length 1 before that if `unit`.
template <class T> void widen(const T* x, int64_t n, bool unit, float scale, float* out) {
  if (unit) {
    float total = in_sums(n, [=](int64_t i, int count, vf sum) {
      vf v = get(x + i, count);
      return fma(v, v, sum);
    });
    scale *= 1.0f / __builtin_sqrtf(total + kUnit);
  }
  vf factor = vf_set(scale);
  in_lanes(n, [=](int64_t i, int count) { put(out + i, get(x + i, count) * factor, count); });
}

// What is left of a matrix where x, its bias added, and the rate of the head say how it forgets.
QUIRE_INLINE vf left_of(float bound, vf x, vf rate) {
  if (bound > 0) return exp(vf_set(-bound) * sigmoid(x * rate));
  return exp(softplus(x) * (vf_zero() - rate));
}

template <class T> float decay_of(const QuireArgs_delta_rule& args, const T* a, int64_t head) {
  float left[16];
  vf rate = vf_set(((const float*)args.rate)[head]);
  if (a)
    store(left, left_of(args.bound, load(a + head, 1) + load((const float*)args.bias + head, 1), rate));
  else
    store(left, exp(vf_zero() - rate));
  return left[0];
}

template <class T>
void prepare(const QuireArgs_delta_rule& args, int64_t head, int64_t first, int64_t count, Tile& tile) {
  const int64_t Dk = args.Dk, Dv = args.Dv, keys = args.Hk * Dk;
  const int64_t key = (args.in_turns ? head % args.Hk : head / (args.H / args.Hk)) * Dk;
  tile.count = count;
  for (int64_t t = 0; t < count; t++) {
    const T* row = (const T*)args.qkv + (first + t) * args.qkv_stride;
    widen(row + key, Dk, args.unit, args.scale, tile.q + t * tile.K);
    widen(row + keys + key, Dk, args.unit, 1.0f, tile.k + t * tile.K);
    widen(row + 2 * keys + head * Dv, Dv, false, 1.0f, tile.v + t * tile.V);
    const T* a = args.decay ? (const T*)args.decay + (first + t) * args.decay_stride : nullptr;
    float* decay = tile.decay + t * tile.K;
    if (args.channels) {
      const float* bias = (const float*)args.bias + head * Dk;
      const vf rate = vf_set(((const float*)args.rate)[head]);
      const float bound = args.bound;
      in_lanes(Dk, [=](int64_t i, int n) {
        put(decay + i, left_of(bound, get(a + head * Dk + i, n) + get(bias + i, n), rate), n);
      });
    } else {
      float left = decay_of(args, a, head);
      for (int64_t i = 0; i < Dk; i++) decay[i] = left;
    }
    float strength[16] = {args.strength_scale};
    if (args.strength) {
      vf b = load((const T*)args.strength + (first + t) * args.strength_stride + head, 1);
      store(strength, vf_set(args.strength_scale) / (exp(vf_zero() - b) + vf_set(1.0f)));
    }
    tile.strength[t] = strength[0];
  }
}

// Two registers of columns, of which the first n are in use.
struct Pair { vf a, b; };
struct Columns {
  int n, m;
  explicit Columns(int64_t count)
      : n(count < 16 ? (int)count : 16), m(count < 16 ? 0 : count < 32 ? (int)count - 16 : 16) {}
};
QUIRE_INLINE Pair pair(vf x) { return {x, x}; }
QUIRE_INLINE Pair load2(const float* p) { return {load(p), load(p + 16)}; }
QUIRE_INLINE void store2(float* p, Pair x) { store(p, x.a); store(p + 16, x.b); }
QUIRE_INLINE Pair fma(vf s, Pair x, Pair y) { return {fma(s, x.a, y.a), fma(s, x.b, y.b)}; }
QUIRE_INLINE Pair operator*(Pair x, vf s) { return {x.a * s, x.b * s}; }
template <class T> QUIRE_INLINE void put2(T* p, Pair x, Columns c) {
  put(p, x.a, c.n);
  if (c.m) put(p + 16, x.b, c.m);
}
QUIRE_INLINE Pair get2(const float* p, Columns c) {
  return {get(p, c.n), c.m ? get(p + 16, c.m) : vf_zero()};
}

const int kPairs = 4;  // of registers that one token is worked on with

// One token on kPairs * kStrip columns: the matrix goes by twice, row after row, so that memory is read in
// order. The bits are those of `scan`.
template <class T>
void pass(const QuireArgs_delta_rule& args, const Tile& tile, int64_t column, const float* from, float* to,
          T* out) {
  const int64_t Dk = args.Dk, Dv = args.Dv;
  Pair known[kPairs], news[kPairs], answer[kPairs];
  for (int j = 0; j < kPairs; j++) known[j] = answer[j] = pair(vf_zero());
  for (int64_t i = 0; i < Dk; i++) {
    vf k = vf_set(tile.k[i]), left = vf_set(tile.decay[i]);
    for (int j = 0; j < kPairs; j++) known[j] = fma(k, load2(from + i * Dv + j * kStrip) * left, known[j]);
  }
  for (int j = 0; j < kPairs; j++) {
    news[j] = load2(tile.v + column + j * kStrip);
    if (args.corrects) news[j] = {news[j].a - known[j].a, news[j].b - known[j].b};
    news[j] = news[j] * vf_set(tile.strength[0]);
  }
  for (int64_t i = 0; i < Dk; i++) {
    vf k = vf_set(tile.k[i]), q = vf_set(tile.q[i]), left = vf_set(tile.decay[i]);
    for (int j = 0; j < kPairs; j++) {
      Pair row = fma(k, news[j], load2(from + i * Dv + j * kStrip) * left);
      answer[j] = fma(q, row, answer[j]);
      store2(to + i * Dv + j * kStrip, row);
    }
  }
  for (int j = 0; j < kPairs; j++) {
    store(out + column + j * kStrip, answer[j].a);
    store(out + column + j * kStrip + 16, answer[j].b);
  }
}

// The tokens of a tile on one strip: `from` and `to` are its first column in matrices [Dk, Dv], null for zeros;
// `strip` [Dk, kStrip] is room for it.
template <class T>
void scan(const QuireArgs_delta_rule& args, const Tile& tile, int64_t column, const float* from, float* to,
          float* strip, T* out) {
  const int64_t Dk = args.Dk, Dv = args.Dv;
  const Columns in_use(Dv - column);
  Pair known = pair(vf_zero());  // what the matrix says to the next key
  for (int64_t i = 0; i < Dk; i++) {
    Pair row = from ? get2(from + i * Dv, in_use) * vf_set(tile.decay[i]) : pair(vf_zero());
    store2(strip + i * kStrip, row);
    known = fma(vf_set(tile.k[i]), row, known);
  }
  for (int64_t t = 0; t < tile.count; t++) {
    const float *q = tile.q + t * tile.K, *k = tile.k + t * tile.K;
    const float *next_k = k + tile.K, *next_decay = tile.decay + (t + 1) * tile.K;
    Pair news = load2(tile.v + t * tile.V + column);
    if (args.corrects) news = {news.a - known.a, news.b - known.b};
    news = news * vf_set(tile.strength[t]);
    Pair answer = pair(vf_zero());
    known = answer;
    if (t + 1 < tile.count) {
      for (int64_t i = 0; i < Dk; i++) {
        Pair row = fma(vf_set(k[i]), news, load2(strip + i * kStrip));
        answer = fma(vf_set(q[i]), row, answer);
        row = row * vf_set(next_decay[i]);
        store2(strip + i * kStrip, row);
        known = fma(vf_set(next_k[i]), row, known);
      }
    } else {
      for (int64_t i = 0; i < Dk; i++) {
        Pair row = fma(vf_set(k[i]), news, load2(strip + i * kStrip));
        answer = fma(vf_set(q[i]), row, answer);
        put2(to + i * Dv, row, in_use);
      }
    }
    put2(out + t * args.out_stride + column, answer, in_use);
  }
}

template <class T> void delta_rules(const QuireArgs_delta_rule& args, Team& team) {
  const int64_t K = lanes(args.Dk), V = lanes(args.Dv) + kStrip, size = args.Dk * args.Dv;
  const StatePlaces places(args);
  Tile tile;
  tile.K = K;
  tile.V = V;
  tile.q = (float*)team.own((size_t)(kTile * (3 * K + V) + args.Dk * kStrip) * 4);
  tile.k = tile.q + kTile * K;
  tile.decay = tile.k + kTile * K;
  tile.v = tile.decay + kTile * K;
  float* strip = tile.v + kTile * V;
  const int64_t pieces = places.plan.num_sequences * args.H;
  for (int64_t piece; (piece = team.next(0)) < pieces;) {
    const int64_t head = piece % args.H;
    each_piece(places, piece / args.H, [&](int64_t begin, int64_t end, const float* source, float* target) {
      float* to = target + head * size;
      const float* from = source ? source + head * size : nullptr;
      for (int64_t first = begin; first < end; first += kTile, from = to) {
        prepare<T>(args, head, first, end - first < kTile ? end - first : kTile, tile);
        T* out = (T*)args.out + first * args.out_stride + head * args.Dv;
        int64_t column = 0;
        for (; tile.count == 1 && from && column + kPairs * kStrip <= args.Dv; column += kPairs * kStrip)
          pass(args, tile, column, from + column, to + column, out);
        for (; column < args.Dv; column += kStrip)
          scan(args, tile, column, from ? from + column : nullptr, to + column, strip, out);
      }
    });
  }
}

}  // namespace

void delta_rule(const QuireArgs_delta_rule& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, delta_rules<T>(args, team))
}

}  // namespace quire
