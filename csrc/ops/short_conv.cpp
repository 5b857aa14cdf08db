// The gated short convolution: each channel mixes its last few inputs, between two gates.
//
// A thread takes some channels of one sequence. A token's result comes from its own inputs and those of the
// tokens before it, added in one order, so that neither chunks nor company change a bit.
#include "rows.h"
#include "states.h"

namespace quire {
namespace {

const int64_t kChannels = 64;  // that one thread takes at once: two cache lines of 16-bit numbers

// Sixteen channels (n of them) of the tokens from `begin` to `end` from row 0 of x on.
template <class T>
void convolve(const QuireArgs_short_conv& args, int64_t begin, int64_t end, int64_t channel, int n,
              const float* source, float* target, vf* past) {
  const int64_t W = args.W, C = args.C;
  const float* weight = (const float*)args.weight + channel;  // [W, C], the oldest input first
  const vf bias = args.bias ? get((const float*)args.bias + channel, n) : vf_zero();
  for (int64_t w = 0; w + 1 < W; w++) past[w] = source ? get(source + w * C + channel, n) : vf_zero();
  for (int64_t t = begin; t < end; t++) {
    const T* row = (const T*)args.x + t * args.x_stride + channel;
    past[W - 1] = get(row, n) * get(row + 2 * C, n);
    vf total = bias;
    for (int64_t w = 0; w < W; w++) total = fma(get(weight + w * C, n), past[w], total);
    put((T*)args.out + t * args.out_stride + channel, get(row + C, n) * total, n);
    for (int64_t w = 0; w + 1 < W; w++) past[w] = past[w + 1];
  }
  for (int64_t w = 0; w + 1 < W; w++) put(target + w * C + channel, past[w], n);
}

template <class T> void short_convs(const QuireArgs_short_conv& args, Team& team) {
  const StatePlaces places(args);
  const int64_t per_row = (args.C + kChannels - 1) / kChannels;
  vf* past = (vf*)team.own((size_t)args.W * sizeof(vf));
  const int64_t pieces = places.plan.num_sequences * per_row;
  for (int64_t piece; (piece = team.next(0)) < pieces;) {
    const int64_t first = piece % per_row * kChannels;
    const int64_t last = first + kChannels < args.C ? first + kChannels : args.C;
    each_piece(places, piece / per_row, [&](int64_t begin, int64_t end, const float* source, float* target) {
      for (int64_t channel = first; channel < last; channel += 16) {
        int n = last - channel < 16 ? (int)(last - channel) : 16;
        convolve<T>(args, begin, end, channel, n, source, target, past);
      }
    });
  }
}

}  // namespace

void short_conv(const QuireArgs_short_conv& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, short_convs<T>(args, team))
}

}  // namespace quire
