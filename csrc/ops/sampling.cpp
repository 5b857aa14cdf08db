// From rows of logits to token ids: the best entry, the filters, the draw.
//
// A row's result is a maximum, a selection, or a sum in pieces of fixed size: who takes which piece
// cannot change it. Steps of a call: the maxima of all blocks; for rows that need it the mass of each
// piece; then one thread for each row, and for rows without a filter all threads for the draw.
#include "sampling.h"

#include "philox.h"

namespace quire {

float kth_largest(float* values, int64_t n, int64_t k) {
  for (int shift = 21; n > 32 && shift >= -1; shift -= 11) {
    int low = shift < 0 ? 0 : shift;
    int32_t counts[2048] = {};
    for (int64_t i = 0; i < n; i++) counts[Found::falling(values[i]) >> low & 2047]++;
    int digit = 0;
    for (; counts[digit] < k; digit++) k -= counts[digit];
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
      float value = values[i];
      values[kept] = value;
      kept += (Found::falling(value) >> low & 2047) == (uint32_t)digit;
    }
    n = kept;
  }
  if (n > 32) return values[0];  // all digits are equal, and so are the values
  for (int64_t i = 1; i < n; i++) {
    float value = values[i];
    int64_t j = i;
    for (; j > 0 && values[j - 1] < value; j--) values[j] = values[j - 1];
    values[j] = value;
  }
  return values[k - 1];
}

float kth_best(const Line& line, int64_t k, Found& found) {
  int64_t blocks = num_blocks(line.V);
  float low = -kInfinity;
  if (k <= blocks) {  // as many blocks, so as many entries, reach the k-th of the maxima
    __builtin_memcpy(found.masses, line.maxima, (size_t)blocks * 4);
    low = kth_largest(found.masses, blocks, k);
  } else if (k <= 16 * blocks) {  // the same with sixteen maxima of each block
    for (int64_t b = 0; b < blocks; b++) {
      vf most = vf_set(-kInfinity);
      int64_t end = b * kBlock + kBlock < line.V ? b * kBlock + kBlock : line.V;
      for (int64_t i = b * kBlock; i < end; i += 16) most = max(line.sixteen(i), most);
      store(found.masses + 16 * b, most);
    }
    low = kth_largest(found.masses, 16 * blocks, k);
  }
  found.gather(line, low, kInfinity);
  __builtin_memcpy(found.masses, found.values, (size_t)found.count * 4);
  return kth_largest(found.masses, found.count, k);
}

// By the series of the inverse hyperbolic tangent.
double logarithm(double x) {
  uint64_t raw;
  __builtin_memcpy(&raw, &x, 8);
  int64_t exponent = (int64_t)(raw >> 52) - 1023;
  raw = (raw & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  __builtin_memcpy(&m, &raw, 8);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent++;
  }
  double f = m - 1.0, s = f / (2.0 + f), z = s * s;
  double p = 0.0;
  for (int n = 23; n > 1; n -= 2) p = p * z + 1.0 / n;
  double e = (double)exponent;
  double low = 2.0 * s * (z * p) + e * 1.90821492927058770002e-10;  // ln 2 in two parts
  return e * 6.93147180369123816490e-01 + (2.0 * s + low);
}

namespace {

// What a row asks, as the Python side packs it.
struct Asked {
  int64_t row;
  uint64_t seed;
  uint32_t position, index;
  double log_min_p;  // minus infinity is off
  double top_p;      // 1 is off
  int64_t top_k;     // 0 is off
  float temperature;  // 0 takes the best entry
  int32_t reserved;
};

// What the threads know of a row while a call lasts.
struct State {
  Line line;
  double best_score;  // of those drawn so far; a hint for the others
  bool in_pieces;     // drawn by all threads
};

struct Drawn {
  double score;
  int64_t id;
};

double gumbel(uint32_t word) {
  double u = ((double)word + 0.5) * (1.0 / 4294967296.0);
  return -logarithm(-logarithm(u));
}

// The best of the entries that a cut leaves, among the ids [from, stop), and the `best` so far.
//
// An entry y wins only if its Gumbel number g reaches score - y. As g <= -log(1 - u), it must hold
// that log2(1 - u) <= (y - score) * log2(e); the bits of a float32 read as an integer give a lower
// bound of its logarithm. Nearly all entries end there, and a few have their number worked out.
void draw(const Line& line, const Cut& cut, const Philox& philox, int64_t from, int64_t stop,
          const double* hint, Drawn* best) {
  const vf scale = vf_set(1.44269504f * 8388608.0f), offset = vf_set(158.01f * 8388608.0f);
  double score = best->score > *hint ? best->score : *hint;
  float low = (float)score - __builtin_fabsf((float)score) * 2e-7f;
  float reach = low - 23.0f - __builtin_fabsf(low) * 2e-7f;  // g is at most 22.9
  for (int64_t start = from; start < stop; start += kBlock) {
    float most = line.maxima[start / kBlock];
    if (most < reach || most < cut.floor) continue;
    int64_t end = start + kBlock < stop ? start + kBlock : stop;
    for (int64_t at = start; at < end; at += 16) {
      vf y = line.sixteen(at);
      vm open = both(less_equal(cut.sixteen(at), y), less_equal(vf_set(reach), y));
      if (!any(open)) continue;
      vi word = philox.sixteen((uint32_t)at);
      vf bound = to_float(as_int(to_float(shift_right<1>(word ^ vi_set(-1)))));
      uint32_t chosen = bits(both(open, less_equal(bound, fma(y - vf_set(low), scale, offset))));
      if (!chosen) continue;
      float lanes[16];
      int32_t words[16];
      store(lanes, y);
      store(words, word);
      for (; chosen; chosen &= chosen - 1) {
        int lane = __builtin_ctz(chosen);
        double found = (double)lanes[lane] + gumbel((uint32_t)words[lane]);
        if (found < best->score || (found == best->score && at + lane > best->id)) continue;
        *best = {found, at + lane};
        if (found <= score) continue;
        score = found;
        low = (float)score - __builtin_fabsf((float)score) * 2e-7f;
        reach = low - 23.0f - __builtin_fabsf(low) * 2e-7f;
      }
    }
  }
}

bool has_floor(const Asked& asked, int64_t V) {
  return asked.log_min_p > -__builtin_inf() || (asked.top_k > 0 && asked.top_k < V);
}
bool has_filter(const Asked& asked, int64_t V) { return has_floor(asked, V) || asked.top_p < 1.0; }
bool needs_mass(const Asked& asked, int64_t V) {
  return asked.temperature > 0.0f && asked.top_p < 1.0 && !has_floor(asked, V);
}

// How far below the best entry each stretch of the sorted search for top-p begins.
const float kStretches[] = {1, 2, 3, 4, 6, 8, 11, 15, 20, 30};

// The fewest best entries above the floor of `cut` whose mass reaches `limit`.
Cut nucleus(const Line& line, const Cut& cut, double limit, Found& found) {
  float high = kInfinity;
  double running = 0;
  for (int stretch = 0; high > cut.floor; stretch++) {
    bool is_last = stretch == (int)(sizeof kStretches / sizeof kStretches[0]);
    float low = is_last ? cut.floor : line.best - kStretches[stretch];
    if (low < cut.floor) low = cut.floor;
    if (low == -kInfinity) low = above(low);
    found.gather(line, low, high);
    found.weigh(line.best);
    found.sort();
    for (int64_t i = 0; i < found.count; i++) {
      int64_t place = found.place_of(i);
      running += (double)found.masses[place];
      if (running >= limit) return {found.values[place], found.ids[place]};
    }
    if (is_last) break;
    high = low;
  }
  return cut;
}

// What min-p, then top-k, then top-p leave of a row whose best entry is finite. `masses` are those
// of its pieces where neither of the first two is on.
Cut filter(const Line& line, const Asked& asked, const double* masses, Found& found) {
  float floor = (float)((double)line.best + asked.log_min_p);
  if (asked.top_k > 0 && asked.top_k < line.V) {
    float kth = kth_best(line, asked.top_k, found);
    if (kth > floor) floor = kth;
  }
  Cut cut = {floor, line.V};
  if (floor == -kInfinity) cut.last = -1;  // those at minus infinity are out already
  if (asked.top_p >= 1.0) return cut;
  double total = 0;
  if (needs_mass(asked, line.V)) {
    for (int64_t piece = 0; piece < num_pieces(line.V); piece++) total += masses[piece];
  } else {
    found.gather(line, cut.last < 0 ? above(floor) : floor, kInfinity);
    total = found.weigh(line.best);
  }
  return nucleus(line, cut, asked.top_p * total, found);
}

// The memory that the threads of a call share: states, then what the rows' pieces and blocks give.
struct Common {
  State* states;
  Drawn* drawn;    // [count, pieces]
  double* masses;  // [count, pieces]
  float* maxima;   // [count, blocks]
  int64_t count, pieces, blocks;

  Common(Team& team, int64_t count, int64_t V)
      : count(count), pieces(num_pieces(V)), blocks(num_blocks(V)) {
    size_t each = sizeof(State) + (size_t)pieces * (sizeof(Drawn) + 8) + (size_t)blocks * 4;
    states = (State*)team.common((size_t)count * each + 64);
    drawn = (Drawn*)(states + count);
    masses = (double*)(drawn + count * pieces);
    maxima = (float*)(masses + count * pieces);
  }

  Line line(int64_t at, const float* x, float divisor, int64_t V) const {
    return {x, divisor, V, maxima + at * blocks, 0};
  }
};

const Asked& asked_of(const void* params, int64_t at) { return ((const Asked*)params)[at]; }

float divisor_of(const Asked& asked) { return asked.temperature > 0.0f ? asked.temperature : 1.0f; }

// The steps that filters and draws begin with; x, stride and V are in elements.
void measure(const Common& common, const float* x, int64_t stride, int64_t V, const void* params,
             Team& team) {
  int64_t items = common.count * common.pieces;
  for (int64_t item; (item = team.next(0)) < items;) {
    int64_t at = item / common.pieces;
    const Asked& asked = asked_of(params, at);
    common.line(at, x + asked.row * stride, divisor_of(asked), V).measure(item % common.pieces);
  }
  bool is_needed = false;
  for (int64_t at = 0; at < common.count; at++)
    is_needed = is_needed || needs_mass(asked_of(params, at), V);
  team.barrier();
  if (!is_needed) return;
  for (int64_t item; (item = team.next(1)) < items;) {
    int64_t at = item / common.pieces;
    const Asked& asked = asked_of(params, at);
    if (!needs_mass(asked, V)) continue;
    Line line = common.line(at, x + asked.row * stride, divisor_of(asked), V);
    line.finish();
    if (line.is_finite()) common.masses[item] = mass_of_piece(line, item % common.pieces);
  }
  team.barrier();
}

}  // namespace

// The best id of each row and its entry, NaN if the row has one.
void argmax(const QuireArgs_argmax& args, Team& team) {
  Common common(team, args.count, args.V);
  if (!common.states) return;
  const int64_t* rows = (const int64_t*)args.rows;
  auto line_of = [&](int64_t at) {
    const float* x = (const float*)args.x + (rows ? rows[at] : at) * args.stride;
    return common.line(at, x, 1.0f, args.V);
  };
  for (int64_t item; (item = team.next(0)) < args.count * common.pieces;)
    line_of(item / common.pieces).measure(item % common.pieces);
  team.barrier();
  for (int64_t at; (at = team.next(1)) < args.count;) {
    Line line = line_of(at);
    line.finish();
    ((int64_t*)args.ids)[at] = line.best_id();
    ((float*)args.values)[at] = line.best;
  }
}

// Temperature, filters and draw of each row; `values` are its best entries after the temperature.
void sample_rows(const QuireArgs_sample_rows& args, Team& team) {
  const int64_t V = args.V;
  Common common(team, args.count, V);
  char* memory = (char*)team.own(Found::bytes(V));
  if (!common.states || !memory) return;
  measure(common, (const float*)args.x, args.stride, V, args.params, team);
  bool all_whole = true;
  for (int64_t at = 0; at < args.count; at++) {
    const Asked& asked = asked_of(args.params, at);
    if (asked.temperature > 0.0f && !has_filter(asked, V)) all_whole = false;
  }
  Found found;
  Philox philox;
  for (int64_t at; (at = team.next(2)) < args.count;) {
    const Asked& asked = asked_of(args.params, at);
    Line line = common.line(at, (const float*)args.x + asked.row * args.stride, divisor_of(asked), V);
    line.finish();
    ((float*)args.values)[at] = line.best;
    int64_t* id = (int64_t*)args.ids + at;
    State& state = common.states[at];
    state = {line, -__builtin_inf(), false};
    *id = line.best_id();
    if (asked.temperature == 0.0f || !line.is_finite()) continue;
    philox.set(asked.seed, asked.position, asked.index);
    int32_t words[16];
    store(words, philox.sixteen((uint32_t)*id));
    Drawn best = {(double)line.best + gumbel((uint32_t)words[0]), *id};
    state.best_score = best.score;
    state.in_pieces = !has_filter(asked, V);
    if (state.in_pieces) continue;
    found.place(memory, V);
    Cut cut = filter(line, asked, common.masses + at * common.pieces, found);
    draw(line, cut, philox, 0, V, &state.best_score, &best);
    *id = best.id;
  }
  if (all_whole) return;
  team.barrier();
  const Cut all = {-kInfinity, -1};
  int64_t last = -1;
  for (int64_t item; (item = team.next(3)) < args.count * common.pieces;) {
    int64_t at = item / common.pieces, piece = item % common.pieces;
    State& state = common.states[at];
    if (!state.in_pieces) continue;
    const Asked& asked = asked_of(args.params, at);
    if (at != last) philox.set(asked.seed, asked.position, asked.index);
    last = at;
    int64_t stop = piece * kPiece + kPiece < V ? piece * kPiece + kPiece : V;
    double hint;
    __atomic_load(&state.best_score, &hint, __ATOMIC_RELAXED);
    Drawn best = {-__builtin_inf(), V};
    draw(state.line, all, philox, piece * kPiece, stop, &hint, &best);
    if (best.score > hint) __atomic_store(&state.best_score, &best.score, __ATOMIC_RELAXED);
    common.drawn[item] = best;
  }
  team.barrier();
  for (int64_t at; (at = team.next(4)) < args.count;) {
    if (!common.states[at].in_pieces) continue;
    Drawn best = {-__builtin_inf(), V};
    for (int64_t piece = 0; piece < common.pieces; piece++) {
      Drawn one = common.drawn[at * common.pieces + piece];
      if (one.score > best.score) best = one;
    }
    ((int64_t*)args.ids)[at] = best.id;
  }
}

// Sets what the filters of each row leave out to minus infinity; rows without a finite best stay.
void filter_rows(const QuireArgs_filter_rows& args, Team& team) {
  const int64_t V = args.V;
  Common common(team, args.count, V);
  char* memory = (char*)team.own(Found::bytes(V));
  if (!common.states || !memory) return;
  measure(common, (const float*)args.x, args.stride, V, args.params, team);
  Found found;
  for (int64_t at; (at = team.next(2)) < args.count;) {
    const Asked& asked = asked_of(args.params, at);
    float* x = (float*)args.x + asked.row * args.stride;
    Line line = common.line(at, x, 1.0f, V);
    line.finish();
    if (!line.is_finite()) continue;
    found.place(memory, V);
    Cut cut = filter(line, asked, common.masses + at * common.pieces, found);
    for (int64_t i = 0; i < V; i += 16) {
      vf y = line.sixteen(i);
      y = select(less_equal(cut.sixteen(i), y), y, vf_set(-kInfinity));
      store(x + i, y, V - i < 16 ? (int)(V - i) : 16);
    }
  }
}

}  // namespace quire
