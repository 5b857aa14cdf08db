// Matrices that forget and take keys and values in by gates: each head has one, and the sums of its keys behind it.
//
// A thread takes all tokens of one head of one sequence, one after the other, whatever their number: neither chunks
// nor company change a bit. A matrix is worked on in strips of columns, which do not depend on each other, some
// tokens on each strip while it is near.
#include "functions.h"
#include "rows.h"
#include "states.h"

namespace quire {
namespace {

const int64_t kTokens = 16;  // whose rows are prepared at once
const int64_t kStrip = 64;   // columns of a strip, four registers

// What some tokens bring to one head, in float32, and what they read of its matrix.
struct Tile {
  int64_t count, K, W;  // K in whole lanes, W: the columns, those of the sums among them, in whole strips
  float *q, *k;         // [kTokens, K]
  float *v, *read;      // [kTokens, W]
  float kept[kTokens], least[kTokens];
};

QUIRE_INLINE float first_of(vf x) {
  float lanes[16];
  store(lanes, x);
  return lanes[0];
}

template <class T> QUIRE_INLINE void widen(const T* x, int64_t n, float scale, float* out) {
  const vf factor = vf_set(scale);
  in_lanes(n, [=](int64_t i, int count) { put(out + i, get(x + i, count) * factor, count); });
}

// Makes the tile of `count` tokens from `first` on; `most` is the largest exponent before them, and after them.
template <class T>
void prepare(const QuireArgs_matrix_memory& args, int64_t head, int64_t first, int64_t count, float& most,
             Tile& tile) {
  const float scale = 1.0f / __builtin_sqrtf((float)args.K);
  tile.count = count;
  for (int64_t t = 0; t < count; t++) {
    const T* gates = (const T*)args.gates + (first + t) * args.gates_stride + head;
    const vf enters = load(gates, 1), stays = load(gates + args.H, 1);
    const vf left = vf_set(most) - softplus(vf_zero() - stays), top = max(left, enters);
    tile.kept[t] = first_of(exp(left - top));
    tile.least[t] = first_of(exp(vf_zero() - top));
    most = first_of(top);
    widen((const T*)args.q + (first + t) * args.q_stride + head * args.K, args.K, scale, tile.q + t * tile.K);
    widen((const T*)args.k + (first + t) * args.k_stride + head * args.K, args.K, first_of(exp(enters - top)),
          tile.k + t * tile.K);
    float* v = tile.v + t * tile.W;
    widen((const T*)args.v + (first + t) * args.v_stride + head * args.V, args.V, 1.0f, v);
    v[args.V] = 1.0f;
    for (int64_t i = args.V + 1; i < tile.W; i++) v[i] = 0.0f;
  }
}

// The tokens of a tile on one strip, of which `columns` are there; `from` and `to` are its first column in
// matrices with rows of `stride`, null for zeros.
template <bool whole>
void scan(Tile& tile, int64_t keys, int64_t stride, int64_t column, int64_t columns, const float* from, float* to) {
  int counts[4];
  for (int j = 0; j < 4; j++) {
    const int64_t left = columns - 16 * j;
    counts[j] = left >= 16 ? 16 : left > 0 ? (int)left : 0;
  }
  for (int64_t t = 0; t < tile.count; t++, from = to) {
    const float *q = tile.q + t * tile.K, *k = tile.k + t * tile.K, *v = tile.v + t * tile.W + column;
    const vf kept = vf_set(tile.kept[t]);
    vf value[4], read[4];
    for (int j = 0; j < 4; j++) {
      value[j] = load(v + 16 * j);
      read[j] = vf_zero();
    }
    for (int64_t i = 0; i < keys; i++) {
      const vf key = vf_set(k[i]), query = vf_set(q[i]);
      for (int j = 0; j < 4; j++) {
        if (!whole && !counts[j]) break;
        const float* old = from ? from + i * stride + 16 * j : nullptr;
        vf row = !old ? vf_zero() : whole ? load(old) : get(old, counts[j]);
        row = fma(key, value[j], row * kept);
        if (whole) store(to + i * stride + 16 * j, row);
        else put(to + i * stride + 16 * j, row, counts[j]);
        read[j] = fma(query, row, read[j]);
      }
    }
    for (int j = 0; j < 4; j++) store(tile.read + t * tile.W + column + 16 * j, read[j]);
  }
}

template <class T> void remember(const QuireArgs_matrix_memory& args, Team& team) {
  const StatePlaces places(args);
  const int64_t stride = args.V + 1, size = (args.K + 1) * stride;
  Tile tile;
  tile.K = (args.K + 15) / 16 * 16;
  tile.W = (stride + kStrip - 1) / kStrip * kStrip;
  tile.q = (float*)team.own((size_t)(2 * kTokens * (tile.K + tile.W)) * 4);
  tile.k = tile.q + kTokens * tile.K;
  tile.v = tile.k + kTokens * tile.K;
  tile.read = tile.v + kTokens * tile.W;
  const int64_t pieces = places.plan.num_sequences * args.H;
  for (int64_t piece; (piece = team.next(0)) < pieces;) {
    const int64_t head = piece % args.H;
    each_piece(places, piece / args.H, [&](int64_t begin, int64_t end, const float* source, float* target) {
      float* to = target + head * size;
      const float* from = source ? source + head * size : nullptr;
      float most = from ? from[args.K * stride] : 0.0f;
      for (int64_t first = begin; first < end; first += kTokens, from = to) {
        prepare<T>(args, head, first, end - first < kTokens ? end - first : kTokens, most, tile);
        for (int64_t column = 0; column < stride; column += kStrip) {
          const float* old = from ? from + column : nullptr;
          if (stride - column >= kStrip) scan<true>(tile, args.K, stride, column, kStrip, old, to + column);
          else scan<false>(tile, args.K, stride, column, stride - column, old, to + column);
        }
        for (int64_t t = 0; t < tile.count; t++) {
          const float *read = tile.read + t * tile.W, weight = __builtin_fabsf(read[args.V]);
          const vf over = vf_set((weight > tile.least[t] ? weight : tile.least[t]) + args.eps);
          T* out = (T*)args.out + (first + t) * args.out_stride + head * args.V;
          in_lanes(args.V, [=](int64_t i, int n) { put(out + i, get(read + i, n) / over, n); });
        }
      }
      to[args.K * stride] = most;
    });
  }
}

}  // namespace

void matrix_memory(const QuireArgs_matrix_memory& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, remember<T>(args, team))
}

}  // namespace quire
