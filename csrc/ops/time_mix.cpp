// Blends with the token before, and means of values whose weights decay: token by token, channel by channel.
//
// A thread takes sixteen channels of one sequence. A state is the same after the same tokens, however they came.
#include "functions.h"
#include "rows.h"
#include "states.h"

namespace quire {
namespace {

const int64_t kBlended = 64;  // channels that one thread takes at once: two cache lines of 16-bit numbers

template <class T> void shift(const QuireArgs_token_shift& args, Team& team) {
  const StatePlaces places(args);
  const int64_t C = args.C, M = args.M, chunks = (C + kBlended - 1) / kBlended;
  const int64_t count = places.plan.num_sequences * chunks;
  for (int64_t item; (item = team.next(0)) < count;) {
    const int64_t from = item % chunks * kBlended;
    const int64_t to = from + kBlended < C ? from + kBlended : C;
    each_piece(places, item / chunks, [&](int64_t begin, int64_t end, const float* source, float* target) {
      for (int64_t at = from; at < to; at += 16) {
        const int n = to - at < 16 ? (int)(to - at) : 16;
        vf before = source ? get(source + at, n) : vf_zero();
        for (int64_t t = begin; t < end; t++) {
          const vf x = get((const T*)args.x + t * args.x_stride + at, n);
          T* out = (T*)args.out + t * args.out_stride + at;
          for (int64_t m = 0; m < M; m++) {
            const vf share = get((const float*)args.shares + m * C + at, n);
            put(out + m * C, fma(share, x, (vf_set(1.0f) - share) * before), n);
          }
          before = x;
        }
        put(target + at, before, n);
      }
    });
  }
}

// States stand as [3][D]: sums of values, of weights, and the largest exponent in both.
template <class T> void weigh(const QuireArgs_wkv& args, Team& team) {
  const StatePlaces places(args);
  const int64_t D = args.D, chunks = (D + 15) / 16, count = places.plan.num_sequences * chunks;
  for (int64_t item; (item = team.next(0)) < count;) {
    const int64_t at = item % chunks * 16;
    const int n = D - at < 16 ? (int)(D - at) : 16;
    const vf decay = get((const float*)args.decay + at, n), first = get((const float*)args.first + at, n);
    each_piece(places, item / chunks, [&](int64_t begin, int64_t end, const float* source, float* target) {
      vf total = source ? get(source + at, n) : vf_zero();
      vf weight = source ? get(source + D + at, n) : vf_zero();
      vf most = source ? get(source + 2 * D + at, n) : vf_set(-1e38f);
      for (int64_t t = begin; t < end; t++) {
        const vf key = get((const T*)args.key + t * args.key_stride + at, n);
        const vf value = get((const T*)args.value + t * args.value_stride + at, n);
        const vf gate = get((const T*)args.gate + t * args.gate_stride + at, n);
        const vf now = first + key, top = max(most, now);
        vf older = exp(most - top), newer = exp(now - top);
        const vf mean = fma(newer, value, older * total) / fma(older, weight, newer);
        put((T*)args.out + t * args.out_stride + at,
            mean / (exp(vf_zero() - gate) + vf_set(1.0f)), n);
        const vf left = most + decay;
        most = max(left, key);
        older = exp(left - most);
        newer = exp(key - most);
        total = fma(newer, value, older * total);
        weight = fma(older, weight, newer);
      }
      put(target + at, total, n);
      put(target + D + at, weight, n);
      put(target + 2 * D + at, most, n);
    });
  }
}

}  // namespace

void token_shift(const QuireArgs_token_shift& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, shift<T>(args, team))
}

void wkv(const QuireArgs_wkv& args, Team& team) { QUIRE_FOR_DTYPE(args.dtype, T, weigh<T>(args, team)) }

}  // namespace quire
