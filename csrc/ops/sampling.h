// One row of logits as the operations of sampling see it: its largest entries by blocks, searches
// that skip blocks, sums in pieces, and the order "value falling, id rising".
#pragma once
#include <math.h>

#include "functions.h"
#include "numbers.h"
#include "team.h"

namespace quire {

const int64_t kBlock = 256;   // entries whose maximum is known
const int64_t kPiece = 8192;  // entries that one thread takes, and that are summed by themselves
const float kInfinity = __builtin_inff();

QUIRE_INLINE int64_t num_blocks(int64_t V) { return (V + kBlock - 1) / kBlock; }
QUIRE_INLINE int64_t num_pieces(int64_t V) { return (V + kPiece - 1) / kPiece; }

// The entries of a row are x / divisor; `maxima` are those of its blocks, NaN where a block has one.
struct Line {
  const float* x;
  float divisor;
  int64_t V;
  float* maxima;
  float best;  // of the whole row, or NaN

  // Sixteen entries from `at` on; minus infinity past the end.
  inline __attribute__((always_inline)) vf sixteen(int64_t at) const {
    vf y;
    if (V - at >= 16) {
      y = load(x + at);
    } else {
      int n = (int)(V - at);
      y = select(first(n), load(x + at, n), vf_set(-kInfinity));
    }
    return divisor == 1.0f ? y : y / vf_set(divisor);
  }

  float one(int64_t at) const { return x[at] / divisor; }

  // Writes the maxima of the blocks of one piece.
  void measure(int64_t piece) const {
    int64_t stop = piece * kPiece + kPiece < V ? piece * kPiece + kPiece : V;
    for (int64_t start = piece * kPiece; start < stop; start += kBlock) {
      int64_t end = start + kBlock < stop ? start + kBlock : stop;
      vf best = vf_set(-kInfinity), limit = vf_set(kInfinity);
      vm good = first(16);
      for (int64_t i = start; i < end; i += 16) {
        int n = end - i < 16 ? (int)(end - i) : 16;
        vf y = n == 16 ? load(x + i) : select(first(n), load(x + i, n), vf_set(-kInfinity));
        best = max(y, best);
        good = both(good, less_equal(y, limit));
      }
      float found = largest(best) / divisor;  // a division keeps the order
      maxima[start / kBlock] = bits(good) == 0xffff ? found : __builtin_nanf("");
    }
  }

  // From the maxima to `best`.
  void finish() {
    best = -kInfinity;
    for (int64_t b = 0; b < num_blocks(V); b++) {
      float y = maxima[b];
      if (y > best) best = y;
      if (y != y) {
        best = y;
        return;
      }
    }
  }

  bool is_finite() const { return best - best == 0.0f; }

  // The lowest id with the best entry; of a NaN, the first.
  int64_t best_id() const {
    for (int64_t b = 0; b < num_blocks(V); b++) {
      if (maxima[b] != best && maxima[b] == maxima[b]) continue;
      int64_t end = b * kBlock + kBlock < V ? b * kBlock + kBlock : V;
      for (int64_t i = b * kBlock; i < end; i++) {
        float y = one(i);
        if (y == best || y != y) return i;
      }
    }
    return 0;
  }
};

// The least number above a finite x, or above minus infinity.
QUIRE_INLINE float above(float x) {
  if (x == 0.0f) return 1e-45f;
  int32_t raw;
  __builtin_memcpy(&raw, &x, 4);
  raw += raw < 0 ? -1 : 1;
  __builtin_memcpy(&x, &raw, 4);
  return x;
}

// What a filter leaves: entries above `floor`, and those equal to it with ids up to `last`.
struct Cut {
  float floor;
  int64_t last;

  // The thresholds of the ids at, at + 1, ... at + 15.
  inline __attribute__((always_inline)) vf sixteen(int64_t at) const {
    if (at + 15 <= last) return vf_set(floor);
    if (at > last) return vf_set(above(floor));
    return select(first((int)(last - at + 1)), vf_set(floor), vf_set(above(floor)));
  }
};

// Sixteen sums in float64, which are added in order at the end.
struct Sums {
  typedef double Eight __attribute__((vector_size(64)));
  typedef float Half __attribute__((vector_size(32)));
  Eight low = {}, high = {};

  inline __attribute__((always_inline)) void add(vf a) {
    float lanes[16];
    Half first, second;
    store(lanes, a);
    __builtin_memcpy(&first, lanes, 32);
    __builtin_memcpy(&second, lanes + 8, 32);
    low += __builtin_convertvector(first, Eight);
    high += __builtin_convertvector(second, Eight);
  }

  double total() const {
    double sum = 0;
    for (int j = 0; j < 8; j++) sum += low[j];
    for (int j = 0; j < 8; j++) sum += high[j];
    return sum;
  }
};

// The sum of exp(y - best) over one piece.
inline double mass_of_piece(const Line& line, int64_t piece) {
  Sums sums;
  int64_t stop = piece * kPiece + kPiece < line.V ? piece * kPiece + kPiece : line.V;
  vf best = vf_set(line.best);
  for (int64_t i = piece * kPiece; i < stop; i += 16) sums.add(exp(line.sixteen(i) - best));
  return sums.total();
}

// Entries found in a row, in the order of their ids; memory for as many as the row has.
struct Found {
  float* values;
  int32_t* ids;
  float* masses;    // exp(y - best), where asked for
  uint64_t* order;  // after `sort`: places in the low halves, best first
  uint64_t* spare;
  int64_t count;

  static size_t bytes(int64_t V) { return (size_t)(V + 16) * (4 + 4 + 4 + 8 + 8) + 5 * 64; }

  void place(char* memory, int64_t V) {
    size_t room = (size_t)(V + 16);
    order = (uint64_t*)memory;
    spare = order + room;
    values = (float*)(spare + room);
    ids = (int32_t*)(values + room);
    masses = (float*)(ids + room);
    count = 0;
  }

  // The entries with low <= y < high; high infinite is no limit.
  void gather(const Line& line, float low, float high) {
    count = 0;
    const vf least = vf_set(low), limit = vf_set(high);
    for (int64_t start = 0; start < line.V; start += kBlock) {
      if (line.maxima[start / kBlock] < low) continue;
      int64_t end = start + kBlock < line.V ? start + kBlock : line.V;
      for (int64_t i = start; i < end; i += 16) {
        vf y = line.sixteen(i);
        uint32_t chosen = bits(both(less_equal(least, y), less(y, limit)));
        if (end - i < 16) chosen &= (1u << (end - i)) - 1u;
        if (!chosen) continue;
        float lanes[16];
        store(lanes, y);
        for (; chosen; chosen &= chosen - 1) {
          int lane = __builtin_ctz(chosen);
          values[count] = lanes[lane];
          ids[count++] = (int32_t)(i + lane);
        }
      }
    }
  }

  // exp(y - best) of all; returns their sum, as `mass_of_piece` forms it.
  double weigh(float best) {
    Sums sums;
    for (int64_t i = 0; i < count; i += 16) {
      int n = count - i < 16 ? (int)(count - i) : 16;
      vf y = select(first(n), load(values + i, n), vf_set(-kInfinity));
      vf mass = exp(y - vf_set(best));
      store(masses + i, mass);  // there is room for whole vectors
      sums.add(mass);
    }
    return sums.total();
  }

  // Fills `order` with keys that rise as values fall, each with its place below.
  void sort() {
    for (int64_t i = 0; i < count; i++) order[i] = (uint64_t)falling(values[i]) << 32 | (uint64_t)i;
    if (count <= 32) {
      for (int64_t i = 1; i < count; i++) {
        uint64_t key = order[i];
        int64_t j = i;
        for (; j > 0 && order[j - 1] > key; j--) order[j] = order[j - 1];
        order[j] = key;
      }
      return;
    }
    for (int shift = 32; shift < 64; shift += 8) {  // by bytes of the key; equal keys keep their order
      int64_t starts[256] = {};
      for (int64_t i = 0; i < count; i++) starts[order[i] >> shift & 255]++;
      if (starts[order[0] >> shift & 255] == count) continue;
      int64_t sum = 0;
      for (int j = 0; j < 256; j++) {
        int64_t size = starts[j];
        starts[j] = sum;
        sum += size;
      }
      for (int64_t i = 0; i < count; i++) spare[starts[order[i] >> shift & 255]++] = order[i];
      uint64_t* filled = spare;
      spare = order;
      order = filled;
    }
  }

  int64_t place_of(int64_t nth) const { return (int64_t)(order[nth] & 0xffffffffu); }

  // A number that rises as x falls; the two zeros are equal.
  static uint32_t falling(float x) {
    x += 0.0f;
    uint32_t raw;
    __builtin_memcpy(&raw, &x, 4);
    return raw >> 31 ? raw : ~raw & 0x7fffffffu;
  }
};

// The natural logarithm of a normal positive number.
double logarithm(double x);

// The k-th largest of n values, which are put out of order; 1 <= k <= n, no NaN.
float kth_largest(float* values, int64_t n, int64_t k);

// The k-th largest entry of a row, 1 <= k <= V; afterwards `found` holds entries from some value
// on that is not above it, at least k of them.
float kth_best(const Line& line, int64_t k, Found& found);

}  // namespace quire
