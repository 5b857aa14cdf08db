// Mixtures of experts: which experts a row is sent to, and what they make of it.
//
// Rows are sorted by expert, so that each expert's weights are read once for all of its rows. A row's
// result depends on itself only: products add in one order whatever the number of rows, and what a
// row's experts made is added up in the router's order.
#include "float8.h"
#include "functions.h"
#include "int_tiles.h"
#include "rows.h"

namespace quire {
namespace {

// The `count` largest of values[0 .. n), best first; of equals the first. Returns how many there are.
int best_of(const float* values, int64_t n, int64_t count, int32_t* ids) {
  int found = 0;
  for (int64_t e = 0; e < n; e++) {
    float value = values[e];
    if (!(value > -__builtin_inff())) continue;  // NaN and what was ruled out
    if (found == count && !(value > values[ids[found - 1]])) continue;
    int at = found < count ? found++ : found - 1;
    for (; at > 0 && value > values[ids[at - 1]]; at--) ids[at] = ids[at - 1];
    ids[at] = (int32_t)e;
  }
  return found;
}

const int kMostChosen = 32;

// e^(x - largest) of n numbers in place, up to whole lanes; returns their sum, in one order.
float powers(float* x, int64_t n) {
  int64_t room = (n + 15) / 16 * 16;
  for (int64_t i = n; i < room; i++) x[i] = -__builtin_inff();
  vf most = load(x);
  for (int64_t i = 16; i < room; i += 16) most = max(load(x + i), most);
  vf peak = vf_set(largest(most)), sums = vf_zero();
  for (int64_t i = 0; i < room; i += 16) {
    vf power = exp(load(x + i) - peak);
    store(x + i, power);
    sums = sums + power;
  }
  return sum(sums);
}

void keep_best_groups(const QuireArgs_route& args, float* choices) {
  const int64_t each = args.E / args.groups;
  float totals[256];
  int32_t ids[256];
  for (int64_t g = 0; g < args.groups; g++) {
    int32_t best[2];
    int n = best_of(choices + g * each, each, args.group_best, best);
    totals[g] = n ? choices[g * each + best[0]] : -__builtin_inff();
    for (int i = 1; i < n; i++) totals[g] += choices[g * each + best[i]];
  }
  int kept = best_of(totals, args.groups, args.top_groups, ids);
  for (int64_t g = 0; g < args.groups; g++) {
    bool is_kept = false;
    for (int i = 0; i < kept; i++) is_kept |= ids[i] == g;
    for (int64_t e = 0; !is_kept && e < each; e++) choices[g * each + e] = -__builtin_inff();
  }
}

// The best of `left` in turn, each weighed by its softmax among those that are left and near it.
void route_sparsely(const QuireArgs_route& args, const float* x, float* left, int32_t* ids,
                    float* weights) {
  int found = best_of(left, args.E, args.top_k, ids);
  for (int i = 0; i < args.top_k; i++) {
    if (i >= found) {
      ids[i] = i;  // a row that is not a number stays so
      weights[i] = __builtin_nanf("");
      continue;
    }
    const float best = x[ids[i]];
    const vf top = vf_set(best);
    float total = 0, power[16];
    for (int64_t e = 0; e < args.E; e += 16) {
      const int n = args.E - e < 16 ? (int)(args.E - e) : 16;
      store(power, exp(get(left + e, n) - top));
      for (int j = 0; j < n; j++) {
        float size = x[e + j] < 0 ? -x[e + j] : x[e + j];
        if (!((best - x[e + j]) / (size > best ? size : best) > 2 * args.jitter)) total += power[j];
      }
    }
    weights[i] = 1.0f / total;
    left[ids[i]] = -__builtin_inff();
  }
}

template <class T> void route_row(const QuireArgs_route& args, int64_t row, float* scores) {
  const T* logits = (const T*)args.logits + row * args.stride;
  const float* bias = (const float*)args.bias;
  const int64_t E = args.E, k = args.top_k;
  float* choices = scores + (E + 15) / 16 * 16;
  int32_t* ids = (int32_t*)args.ids + row * k;
  float* weights = (float*)args.weights + row * k;
  in_lanes(E, [=](int64_t i, int n) { put(scores + i, get(logits + i, n), n); });
  if (args.scoring == 2) {
    in_lanes(E, [=](int64_t i, int n) { put(choices + i, get(logits + i, n), n); });
    return route_sparsely(args, scores, choices, ids, weights);
  }
  if (args.scoring == 0) {
    vf total = vf_set(powers(scores, E));
    in_lanes(E, [=](int64_t i, int n) { put(scores + i, get(scores + i, n) / total, n); });
  } else {
    vf one = vf_set(1.0f);
    in_lanes(E, [=](int64_t i, int n) {
      put(scores + i, one / (exp(vf_zero() - get(scores + i, n)) + one), n);
    });
  }
  const bool by_logit = args.scoring == 3;
  in_lanes(E, [=](int64_t i, int n) {
    vf choice = by_logit ? get(logits + i, n) : get(scores + i, n);
    put(choices + i, bias ? choice + get(bias + i, n) : choice, n);
  });
  if (args.groups > 1) keep_best_groups(args, choices);
  int found = best_of(choices, E, k, ids);
  float chosen[kMostChosen], total = 0;
  for (int i = 0; i < found; i++) chosen[i] = scores[ids[i]];
  if (args.normalize) {
    for (int i = 0; i < found; i++) total += chosen[i];
    total += 1e-20f;
  } else {
    total = 1;
  }
  for (int i = 0; i < k; i++) {
    if (i >= found) ids[i] = i;  // a row that is not a number stays so
    weights[i] = i < found ? chosen[i] / total * args.scale : __builtin_nanf("");
  }
}

// --- experts

const int64_t kTokens = 512;             // rows whose experts work at once
const int64_t kMadeBytes = 32 << 20;     // of what those experts made
const int64_t kExpertRows = 96;          // rows of an expert that are packed at once

int64_t rounded_up(int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

// Which rows belong to which expert: pair p is place p % k of row p / k. Ids from E on have no expert and no place.
struct Sorted {
  int64_t E;
  int32_t* begin;  // [E + 1] places among the sorted pairs
  int32_t* order;  // [pairs] the pair at each place
  int32_t* place;  // [pairs] the place of each pair

  static size_t bytes(int64_t E, int64_t pairs) {
    return whole_lines((size_t)(E + 1) * 4) + 2 * whole_lines((size_t)pairs * 4);
  }

  Sorted(void* memory, int64_t experts, int64_t pairs) : E(experts) {
    begin = (int32_t*)memory;
    order = (int32_t*)((char*)memory + whole_lines((size_t)(E + 1) * 4));
    place = (int32_t*)((char*)order + whole_lines((size_t)pairs * 4));
  }

  void sort(const int32_t* ids, int64_t pairs) {
    __builtin_memset(begin, 0, (E + 1) * 4);
    for (int64_t p = 0; p < pairs; p++)
      if (ids[p] < E) begin[ids[p] + 1]++;
    for (int64_t e = 0; e < E; e++) begin[e + 1] += begin[e];
    for (int64_t p = 0; p < pairs; p++) {
      if (ids[p] >= E) {
        place[p] = -1;
        continue;
      }
      place[p] = begin[ids[p]]++;
      order[place[p]] = (int32_t)p;
    }
    for (int64_t e = E; e > 0; e--) begin[e] = begin[e - 1];
    begin[0] = 0;
  }

  int64_t active() const {
    int64_t count = 0;
    for (int64_t e = 0; e < E; e++) count += begin[e + 1] > begin[e];
    return count;
  }
};

// Pieces of work: each expert that has rows, times equal shares of `blocks` blocks.
struct Work {
  int64_t blocks, shares, pieces;
  Work(int64_t active, int64_t all_blocks, int threads) : blocks(all_blocks) {
    shares = active ? (8 * threads + active - 1) / active : 1;
    if (shares > blocks) shares = blocks;
    pieces = active * shares;
  }
  int64_t begin(int64_t piece) const { return blocks * (piece % shares) / shares; }
  int64_t end(int64_t piece) const { return blocks * (piece % shares + 1) / shares; }
};

// body(expert, first block, last block) for the pieces that this thread takes.
template <class F>
void take_pieces(const Sorted& sorted, const Work& work, int counter, int64_t* taken, Team& team,
                 F body) {
  int64_t expert = -1, seen = -1;
  for (int64_t next; (next = team.next(counter) - *taken) < work.pieces;) {
    for (; seen < next / work.shares; seen += sorted.begin[expert + 1] > sorted.begin[expert])
      expert++;
    body(expert, work.begin(next), work.end(next));
  }
  *taken += work.pieces + team.size;
}

// `order` has the pairs of the rows, whose weights multiply gate and up if the experts weigh their inputs.
// Experts of one half have no gate: g is then of up, and u is not read.
template <class T>
void gate_rows(const QuireArgs_experts& args, const float* g, const float* u, const float* g_scale,
               const float* u_scale, const float* bias, const int32_t* order, const float* weights,
               int rows, int64_t column, T* out, int64_t stride) {
  const vf limit = vf_set(args.limit), highest = vf_set(args.gate_limit);
  for (int i = 0; i < rows; i++, g += kColumns, u += kColumns, out += stride)
    for (int64_t j = 0; j < kColumns && column + j < args.F; j += 16) {
      int n = args.F - column - j < 16 ? (int)(args.F - column - j) : 16;
      if (args.halves == 1) {
        vf up = load(g + j);
        if (g_scale) up = up * load(g_scale + j);
        if (bias) up = up + load(bias + j);
        if (args.weigh_inputs) up = up * vf_set(weights[order[i]]);
        up = rounded(up, out);
        QUIRE_FOR_ACT(args.act, put(out + column + j, f(up), n))
        continue;
      }
      vf first = load(g + j), up = load(u + j);
      if (g_scale) first = first * load(g_scale + j), up = up * load(u_scale + j);
      if (bias) first = first + load(bias + j), up = up + load(bias + kColumns + j);
      if (args.weigh_inputs) {
        vf weight = vf_set(weights[order[i]]);
        first = first * weight, up = up * weight;
      }
      first = rounded(first, out);
      up = rounded(up, out);
      if (args.limit > 0) {
        first = min(highest, first);  // NaN stays: the second is taken
        up = max(vf_zero() - limit, min(limit, up));
      }
      if (args.act == QUIRE_SWIGLU_CLAMPED) {
        put(out + column + j, swish_gated(first, up), n);
      } else {
        QUIRE_FOR_ACT(args.act, put(out + column + j, f(first) * up, n))
      }
    }
}

template <class T, class P, class Make>
void run_experts(const QuireArgs_experts& args, Team& team, Make make) {
  const int64_t k = args.top_k, C = rounded_up(args.C), F = rounded_up(args.F), halves = args.halves;
  int64_t tokens = kMadeBytes / (k * C * 4);
  tokens = tokens < 16 ? 16 : tokens > kTokens ? kTokens : tokens;
  if (tokens > args.rows) tokens = args.rows;
  const int64_t pairs = tokens * k;
  const P first_up = make(args.gate_up, halves * F, args.C), first_down = make(args.down, args.C, args.F);
  const Groups most(pairs < kExpertRows ? pairs : kExpertRows, first_up.rows);
  size_t packed_bytes = first_up.packed_bytes(most), other = first_down.packed_bytes(most);
  packed_bytes = whole_lines(packed_bytes > other ? packed_bytes : other);  // grows with the rows
  const size_t sums_bytes = (size_t)first_up.sum_rows(most) * kColumns * 4;
  const size_t sorted_bytes = Sorted::bytes(args.E, pairs), gated_bytes = whole_lines(pairs * F * sizeof(T));
  char* common = (char*)team.common(gated_bytes + (size_t)pairs * C * 4);
  char* room = (char*)team.own(sorted_bytes + packed_bytes + 2 * sums_bytes + P::temporary_bytes());
  T* gated = (T*)common;
  float* made = (float*)(common + gated_bytes);
  void* packed = room + sorted_bytes;
  float* sums = (float*)(room + sorted_bytes + packed_bytes);
  float* more_sums = (float*)((char*)sums + sums_bytes);
  void* temporary = (char*)more_sums + sums_bytes;
  Sorted sorted(room, args.E, pairs);
  int64_t taken[2] = {0, 0};
  first_up.begin();
  for (int64_t start = 0; start < args.rows; start += tokens) {
    const int64_t n = args.rows - start < tokens ? args.rows - start : tokens;
    sorted.sort((const int32_t*)args.ids + start * k, n * k);
    const int64_t active = sorted.active();
    take_pieces(sorted, Work(active, F / kColumns, team.size), 0, &taken[0], team,
                [&](int64_t e, int64_t from, int64_t to) {
      const P up = make((const char*)args.gate_up + e * args.gate_up_bytes, halves * F, args.C);
      const float* bias = args.gate_up_bias ? (const float*)args.gate_up_bias + e * halves * F : nullptr;
      for (int64_t row = sorted.begin[e]; row < sorted.begin[e + 1]; row += kExpertRows) {
        int64_t left = sorted.begin[e + 1] - row;
        Groups groups(left < kExpertRows ? left : kExpertRows, up.rows);
        for (int64_t g = 0; g < groups.count; g++)
          for (int i = 0; i < groups.size(g); i++)
            up.pack((const T*)args.x +
                        (start + sorted.order[row + groups.begin(g) + i] / k) * args.x_stride,
                    groups, g, i, packed);
        for (int64_t b = from; b < to; b++) {
          const int64_t first = halves * b, second = first + halves - 1;
          up.sums(groups, packed, first, sums, temporary);
          if (halves == 2) up.sums(groups, packed, second, more_sums, temporary);
          for (int64_t g = 0; g < groups.count; g++)
            gate_rows<T>(args, sums + up.first(groups, g) * kColumns,
                         more_sums + up.first(groups, g) * kColumns, up.scale(first),
                         up.scale(second), bias ? bias + first * kColumns : nullptr,
                         sorted.order + row + groups.begin(g),
                         (const float*)args.weights + start * k, groups.size(g), b * kColumns, gated + (row + groups.begin(g)) * F, F);
        }
      }
    });
    team.barrier();
    take_pieces(sorted, Work(active, C / kColumns, team.size), 1, &taken[1], team,
                [&](int64_t e, int64_t from, int64_t to) {
      const P down = make((const char*)args.down + e * args.down_bytes, args.C, args.F);
      const float* bias = args.down_bias ? (const float*)args.down_bias + e * C : nullptr;
      for (int64_t row = sorted.begin[e]; row < sorted.begin[e + 1]; row += kExpertRows) {
        int64_t left = sorted.begin[e + 1] - row;
        Groups groups(left < kExpertRows ? left : kExpertRows, down.rows);
        for (int64_t g = 0; g < groups.count; g++)
          for (int i = 0; i < groups.size(g); i++)
            down.pack(gated + (row + groups.begin(g) + i) * F, groups, g, i, packed);
        for (int64_t b = from; b < to; b++) {
          down.sums(groups, packed, b, sums, temporary);
          const float* scale = down.scale(b);
          for (int64_t g = 0; g < groups.count; g++)
            for (int i = 0; i < groups.size(g); i++)
              for (int j = 0; j < kColumns; j += 16) {
                vf sum = load(sums + (down.first(groups, g) + i) * kColumns + j);
                if (scale) sum = sum * load(scale + j);
                if (bias) sum = sum + load(bias + b * kColumns + j);
                store(made + (row + groups.begin(g) + i) * C + b * kColumns + j, sum);
              }
        }
      }
    });
    team.barrier();
    int64_t from, to;
    share(team, n, args.C * k, &from, &to);
    for (int64_t t = from; t < to; t++) {
      const float* weights = (const float*)args.weights + (start + t) * k;
      T* out = (T*)args.out + (start + t) * args.out_stride;
      in_lanes(args.C, [&](int64_t i, int lanes) {
        vf total = vf_zero();
        for (int64_t j = 0; j < k; j++)
          if (const int64_t place = sorted.place[t * k + j]; place >= 0)
            total = total + vf_set(args.weigh_inputs ? 1.0f : weights[j]) * load(made + place * C + i);
        put(out + i, total, lanes);
      });
    }
  }
  first_up.end();
}

}  // namespace

void route(const QuireArgs_route& args, Team& team) {
  float* scores = (float*)team.own(2 * (size_t)(args.E + 16) * 4);
  int64_t from, to;
  share(team, args.rows, args.E * 16, &from, &to);
  for (int64_t row = from; row < to; row++) {
    QUIRE_FOR_DTYPE(args.dtype, T, route_row<T>(args, row, scores))
  }
}

template <class T> void weigh_heads(const QuireArgs_weigh_sets& args, Team& team) {
  int64_t from, to;
  share(team, args.rows * args.heads * args.E, args.D + args.top_k, &from, &to);
  for (int64_t i = from; i < to; i++) {
    const int64_t row = i / (args.heads * args.E), set = i % args.E;
    const int32_t* ids = (const int32_t*)args.ids + row * args.top_k;
    const float* weights = (const float*)args.weights + row * args.top_k;
    float weight = 0;
    for (int64_t j = 0; j < args.top_k; j++)
      if (ids[j] == set) weight = weights[j];
    const T* x = (const T*)args.x + i * args.D;
    T* out = (T*)args.out + i * args.D;
    const vf factor = vf_set(weight);
    in_lanes(args.D, [=](int64_t k, int n) { put(out + k, get(x + k, n) * factor, n); });
  }
}

void weigh_sets(const QuireArgs_weigh_sets& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, weigh_heads<T>(args, team))
}

template <class T, class W> void quantized_experts(const QuireArgs_experts& args, Team& team) {
  const int64_t group = args.group;
  const int32_t format = args.format;
  if (format == kSuper) {
    typedef SuperProduct<T> P;
    return run_experts<T, P>(
        args, team, [](const void* data, int64_t n, int64_t depth) { return P(data, n, depth); });
  }
  if (format == kSuper + kShortRows) {
    typedef ShortSuperProduct<T> P;
    return run_experts<T, P>(
        args, team, [](const void* data, int64_t n, int64_t depth) { return P(data, n, depth); });
  }
  if (format & kShortRows) {
    typedef BestShort<T> P;
    return run_experts<T, P>(args, team, [=](const void* data, int64_t n, int64_t depth) {
      return P(data, n, depth, group, format);
    });
  }
  if (has_byte_rows(format)) {
    typedef BestByte<T> P;
    return run_experts<T, P>(args, team, [=](const void* data, int64_t n, int64_t depth) {
      return P(data, n, depth, format);
    });
  }
  if (format == kFp8) {
    typedef FloatProduct<T, W> P;
    return run_experts<T, P>(args, team, [=](const void* data, int64_t n, int64_t depth) {
      return P(data, n, depth, group, format);
    });
  }
  typedef BestInt<T> P;
  run_experts<T, P>(args, team, [=](const void* data, int64_t n, int64_t depth) {
    return P(data, n, depth, group, format);
  });
}

template <class T, class W> void all_experts(const QuireArgs_experts& args, Team& team) {
  if (args.format) return quantized_experts<T, W>(args, team);
  typedef PlainProduct<T> P;
  run_experts<T, P>(args, team,
                    [](const void* data, int64_t n, int64_t depth) { return P(data, n, depth); });
}

void experts(const QuireArgs_experts& args, Team& team) {
  switch (args.dtype) {
    case QUIRE_FLOAT32: return all_experts<f32, f32>(args, team);
    case QUIRE_BFLOAT16: return all_experts<bf16, bf16>(args, team);
    case QUIRE_FLOAT16: return all_experts<f16, f32>(args, team);
  }
}

}  // namespace quire
