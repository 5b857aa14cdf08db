// What the machine can do at most: a rate of reading memory, and one of arithmetic on registers.
#include "dot.h"

namespace quire {
namespace {

const int kSums = 12;

template <class T>
vf dot_registers(int64_t steps) {
  vf sums[kSums], a = vf_set(1.0f), b = vf_set(0.5f);
  for (int i = 0; i < kSums; i++) sums[i] = vf_set((float)i);
  for (int64_t s = 0; s < steps; s++)
    for (int i = 0; i < kSums; i++) {
      keep(a);
      sums[i] = dot_step(T(), a, b, sums[i]);
    }
  for (int i = 1; i < kSums; i++) sums[0] = sums[0] + sums[i];
  return sums[0];
}

#ifdef QUIRE_TILES
// The same number of multiply-adds on tile registers, each of whose products is that of 256 others.
template <> vf dot_registers<bf16>(int64_t steps) {
  alignas(64) float out[16 * 16];
  Tiles::begin();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t s = 0; s < steps * kSums / 256; s += 4) {
    _tile_dpbf16ps(4, 0, 2);
    _tile_dpbf16ps(5, 0, 3);
    _tile_dpbf16ps(6, 1, 2);
    _tile_dpbf16ps(7, 1, 3);
  }
  _tile_stored(4, out, 64);
  Tiles::end();
  return load(out);
}
#endif

}  // namespace

// Reads `bytes` (a multiple of 4 KiB for each thread) of `data` once; out [16] int32 is their mix.
void probe_read(const QuireArgs_probe_read& args, Team& team) {
  int64_t from, to;
  team.part(args.bytes / 4096, &from, &to);
  vi mix[4] = {vi_set(0), vi_set(0), vi_set(0), vi_set(0)};
  for (const char* p = (const char*)args.data + from * 4096; p < (const char*)args.data + to * 4096; p += 256)
    for (int i = 0; i < 4; i++) mix[i] = mix[i] ^ load((const int32_t*)(p + 64 * i));
  store((int32_t*)args.out + 16 * team.id, mix[0] ^ mix[1] ^ mix[2] ^ mix[3]);
}

// Every thread carries out steps x 12 multiply-adds of whole registers; out [16 x threads] float32.
void probe_dot(const QuireArgs_probe_dot& args, Team& team) {
  vf total = vf_zero();
  QUIRE_FOR_DTYPE(args.dtype, T, total = dot_registers<T>(args.steps))
  store((float*)args.out + 16 * team.id, total);
}

}  // namespace quire
