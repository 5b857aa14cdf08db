// Log-probabilities of chosen and best tokens, with their ranks.
#include "sampling.h"

namespace quire {
namespace {

// What a row wants, as the Python side packs it; its results begin at `out`.
struct Wanted {
  int64_t row;
  int64_t count;        // of the best entries
  int64_t asked, stop;  // the chosen id and the further ones in the list of asked ids
  int64_t out;
};

// 1 + the number of better entries; of equal entries the lowest id is better.
int64_t rank_of(const Line& line, int64_t id) {
  float value = line.one(id);
  int64_t rank = 1;
  for (int64_t start = 0; start < line.V; start += kBlock) {
    if (line.maxima[start / kBlock] < value) continue;
    int64_t end = start + kBlock < line.V ? start + kBlock : line.V;
    for (int64_t i = start; i < end; i += 16) {
      vf y = line.sixteen(i);
      rank += __builtin_popcount(bits(less(vf_set(value), y)));
      int before = id - i < 0 ? 0 : id - i < 16 ? (int)(id - i) : 16;
      uint32_t equals = bits(equal(y, vf_set(value)));
      rank += __builtin_popcount(equals & ((1u << before) - 1u));
    }
  }
  return rank;
}

struct Report {
  int64_t* ids;
  float* values;
  int64_t* ranks;
  int64_t size;

  void add(const Line& line, double shift, int64_t id, int64_t rank) {
    ids[size] = id;
    values[size] = (float)((double)line.one(id) - shift);
    ranks[size++] = rank;
  }
};

// The best `count` entries are in `found`, sorted.
void report_asked(const Line& line, const Found& found, int64_t count, double shift, int64_t id,
                  Report* report) {
  const int64_t near = count < 64 ? count : 64;
  for (int64_t i = 0; i < near; i++)
    if (found.ids[found.place_of(i)] == id) return report->add(line, shift, id, i + 1);
  report->add(line, shift, id, rank_of(line, id));
}

// A row without a finite best has no order; its values are NaN if they are to be normalised.
void report_broken(const Line& line, const Wanted& wanted, const int64_t* asked, bool normalize,
                   Report* report) {
  double shift = normalize ? __builtin_nan("") : 0.0;
  report->add(line, shift, asked[wanted.asked], 1);
  for (int64_t i = 0; i < wanted.count; i++) report->add(line, shift, i, i + 1);
  for (int64_t i = wanted.asked + 1; i < wanted.stop; i++) report->add(line, shift, asked[i], 1);
}

}  // namespace

void top_logprobs(const QuireArgs_top_logprobs& args, Team& team) {
  const int64_t V = args.V, pieces = num_pieces(V), blocks = num_blocks(V);
  const Wanted* wanted = (const Wanted*)args.params;
  const int64_t* asked = (const int64_t*)args.asked;
  float* maxima = (float*)team.common((size_t)args.count * (size_t)(pieces * 8 + blocks * 4) + 64);
  char* memory = (char*)team.own(Found::bytes(V));
  if (!maxima || !memory) return;
  double* masses = (double*)maxima;
  maxima = (float*)(masses + args.count * pieces);
  auto line_of = [&](int64_t at) -> Line {
    return {(const float*)args.x + wanted[at].row * args.stride, 1.0f, V, maxima + at * blocks, 0};
  };
  for (int64_t item; (item = team.next(0)) < args.count * pieces;)
    line_of(item / pieces).measure(item % pieces);
  team.barrier();
  for (int64_t item; args.normalize && (item = team.next(1)) < args.count * pieces;) {
    Line line = line_of(item / pieces);
    line.finish();
    if (line.is_finite()) masses[item] = mass_of_piece(line, item % pieces);
  }
  if (args.normalize) team.barrier();
  Found found;
  for (int64_t at; (at = team.next(2)) < args.count;) {
    const Wanted& one = wanted[at];
    Line line = line_of(at);
    line.finish();
    Report report = {(int64_t*)args.ids + one.out, (float*)args.values + one.out,
                     (int64_t*)args.ranks + one.out, 0};
    if (!line.is_finite()) {
      report_broken(line, one, asked, args.normalize != 0, &report);
      continue;
    }
    double shift = 0.0, total = 0.0;
    if (args.normalize) {
      for (int64_t piece = 0; piece < pieces; piece++) total += masses[at * pieces + piece];
      shift = (double)line.best + logarithm(total);
    }
    found.place(memory, V);
    if (one.count > 0) {
      found.gather(line, one.count < V ? kth_best(line, one.count, found) : -kInfinity, kInfinity);
      found.sort();
    }
    report_asked(line, found, one.count, shift, asked[one.asked], &report);
    for (int64_t i = 0; i < one.count; i++)
      report.add(line, shift, found.ids[found.place_of(i)], i + 1);
    for (int64_t i = one.asked + 1; i < one.stop; i++)
      report_asked(line, found, one.count, shift, asked[i], &report);
  }
}

}  // namespace quire
