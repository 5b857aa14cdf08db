// What changes logits in place before a token is chosen: masks, lists of ids, penalties, temperature.
//
// One thread works on a row. Lists of ids are laid end to end: those of row i are [offsets[i],
// offsets[i + 1]).
#include "sampling.h"

namespace quire {
namespace {

const int32_t kKeep = 0, kBias = 1;  // other modes ban

float* row_of(void* x, const void* rows, int64_t at, int64_t stride) {
  return (float*)x + ((const int64_t*)rows)[at] * stride;
}

bool has_any(const float* x, int64_t V) {
  Line line = {x, 1.0f, V, nullptr, 0};
  for (int64_t i = 0; i < V; i += 16)
    if (any(less(vf_set(-kInfinity), line.sixteen(i)))) return true;
  return false;
}

void keep(float* x, int64_t V, const int64_t* ids, int64_t count, float* room) {
  bool is_open = false;
  for (int64_t i = 0; i < count; i++) {
    room[i] = x[ids[i]];
    is_open = is_open || !(room[i] <= -kInfinity);
  }
  if (!is_open) return;
  for (int64_t i = 0; i < V; i += 16) store(x + i, vf_set(-kInfinity), V - i < 16 ? (int)(V - i) : 16);
  for (int64_t i = 0; i < count; i++) x[ids[i]] = room[i];
}

void ban(float* x, int64_t V, const int64_t* ids, int64_t count, float* room) {
  for (int64_t i = 0; i < count; i++) room[i] = x[ids[i]];
  for (int64_t i = 0; i < count; i++) x[ids[i]] = -kInfinity;
  if (has_any(x, V)) return;
  for (int64_t i = 0; i < count; i++) x[ids[i]] = room[i];
}

}  // namespace

// Sets the ids whose bit is 0 to minus infinity; `words` points to the words of each row.
void mask_bits(const QuireArgs_mask_bits& args, Team& team) {
  for (int64_t at; (at = team.next(0)) < args.count;) {
    float* x = row_of(args.x, args.rows, at, args.stride);
    const uint16_t* words = ((const uint16_t* const*)args.words)[at];
    for (int64_t i = 0; i < args.V; i += 16) {
      uint16_t allowed = words[i / 16];
      if (allowed == 0xffff) continue;
      int n = args.V - i < 16 ? (int)(args.V - i) : 16;
      vf y = allowed ? select(from_bits(allowed), load(x + i, n), vf_set(-kInfinity))
                     : vf_set(-kInfinity);
      store(x + i, y, n);
    }
  }
}

// Keeps, bans or adds to the listed ids of each row. A row stays as it is if nothing would be left.
void edit_ids(const QuireArgs_edit_ids& args, Team& team) {
  const int64_t* offsets = (const int64_t*)args.offsets;
  for (int64_t at; (at = team.next(0)) < args.count;) {
    float* x = row_of(args.x, args.rows, at, args.stride);
    const int64_t* ids = (const int64_t*)args.ids + offsets[at];
    int64_t count = offsets[at + 1] - offsets[at];
    if (args.mode == kBias) {
      const float* values = (const float*)args.values + offsets[at];
      for (int64_t i = 0; i < count; i++) x[ids[i]] += values[i];
      continue;
    }
    float* room = (float*)team.own((size_t)count * 4 + 64);
    if (!room) return;
    if (args.mode == kKeep) {
      keep(x, args.V, ids, count, room);
    } else {
      ban(x, args.V, ids, count, room);
    }
  }
}

// Repetition over the ids of `seen`, each once; then frequency and presence over those of `output`.
void penalize(const QuireArgs_penalize& args, Team& team) {
  int32_t* counts = (int32_t*)team.own((size_t)args.V * 4 + 64);
  if (!counts) return;
  for (int64_t at; (at = team.next(0)) < args.count;) {
    float* x = row_of(args.x, args.rows, at, args.stride);
    const int64_t* from = (const int64_t*)args.seen_offsets + at;
    const int64_t* seen = (const int64_t*)args.seen;
    float factor = ((const float*)args.repetition)[at];
    if (factor != 1.0f) {
      for (int64_t i = from[0]; i < from[1]; i++) counts[seen[i]] = 0;
      for (int64_t i = from[0]; i < from[1]; i++) {
        float* y = x + seen[i];
        if (counts[seen[i]]++ == 0) *y = *y > 0.0f ? *y / factor : *y * factor;
      }
    }
    from = (const int64_t*)args.output_offsets + at;
    const int64_t* output = (const int64_t*)args.output;
    float frequency = ((const float*)args.frequency)[at];
    float presence = ((const float*)args.presence)[at];
    if (frequency == 0.0f && presence == 0.0f) continue;
    for (int64_t i = from[0]; i < from[1]; i++) counts[output[i]] = 0;
    for (int64_t i = from[0]; i < from[1]; i++) counts[output[i]]++;
    for (int64_t i = from[0]; i < from[1]; i++) {
      float* y = x + output[i];
      int32_t count = counts[output[i]];
      counts[output[i]] = 0;
      if (count) *y = *y - (float)count * frequency - presence;
    }
  }
}

// Divides each row by its own number.
void divide_rows(const QuireArgs_divide_rows& args, Team& team) {
  const int64_t pieces = num_pieces(args.V);
  for (int64_t item; (item = team.next(0)) < args.count * pieces;) {
    float divisor = ((const float*)args.divisors)[item / pieces];
    if (divisor == 1.0f) continue;
    float* x = row_of(args.x, args.rows, item / pieces, args.stride);
    int64_t start = item % pieces * kPiece;
    int64_t stop = start + kPiece < args.V ? start + kPiece : args.V;
    for (int64_t i = start; i < stop; i += 16) {
      int n = stop - i < 16 ? (int)(stop - i) : 16;
      store(x + i, load(x + i, n) / vf_set(divisor), n);
    }
  }
}

}  // namespace quire
