// Which blocks of cached tokens each head of an indexer picks: those whose best key fits a query best.
//
// Neighbouring queries are an item, whose keys are walked in tiles of 32 at absolute positions. Whole blocks of an
// item's keys are a unit, and any thread takes it: a score is the same whoever made it, and the best of a block does
// not depend on an order. Where all blocks are picked no score is made.
#include "attention_cache.h"
#include "row_counts.h"

namespace quire {
namespace {

const int64_t kUnitTokens = 1024;                 // of a unit, at least
const int64_t kItemRows = kRows > 4 ? 48 : 24;
const int64_t kMostScores = (int64_t)1 << 20;     // best scores of blocks that are kept at once

// Queries [token, token + tokens) of a sequence, the first one at `position`; picks are made from `blocks` blocks.
struct Item {
  int64_t sequence, token, tokens, position, blocks;
  int64_t end() const { return position + tokens; }
};

// Items one after the other.
struct Cursor {
  const QuireArgs_pick_blocks& args;
  const Plan& plan;
  int64_t sequence = 0, token = 0;

  Cursor(const QuireArgs_pick_blocks& a, const Plan& p) : args(a), plan(p) { skip(); }
  bool done() const { return sequence >= plan.num_sequences; }
  Item item() const {
    const int64_t most = kItemRows / args.H > 1 ? kItemRows / args.H : 1, left = plan.query_start[sequence + 1] - token;
    const int64_t tokens = left < most ? left : most, position = plan.seq_lens[sequence] - left;
    return {sequence, token, tokens, position, (position + tokens - 1) / args.size + 1};
  }
  void next() {
    token += item().tokens;
    skip();
  }

 private:
  void skip() {
    while (!done() && token >= plan.query_start[sequence + 1]) sequence++;
  }
};

// One thread's working memory.
template <class T> struct Desk {
  typename Kind<T>::Query* query;
  typename Kind<T>::Unit* key_room;
  T* spare;
  float *key_scales, *value_scales, *scores;

  Desk(int64_t rows, const Blocks<T>& blocks, Team& team) {
    int64_t bytes = lay(nullptr, rows, blocks);
    lay((char*)team.own(bytes), rows, blocks);
  }

 private:
  // Puts everything one after the other from `memory` on; returns the bytes that takes.
  int64_t lay(char* memory, int64_t rows, const Blocks<T>& blocks) {
    int64_t at = 0;
    auto take = [&](auto*& start, int64_t count) {
      if (memory) start = (decltype(start + 0))(memory + at);
      at += (count * sizeof(*start) + 63) / 64 * 64;
    };
    take(query, rows * blocks.key_steps());
    take(key_room, 2 * kHalf * blocks.key_steps());
    take(spare, blocks.has_codes() ? kHalf * blocks.D : 0);
    take(key_scales, kTile);
    take(value_scales, kTile);
    take(scores, kRows * kTile);
    return at;
  }
};

template <class T> struct Worker {
  const QuireArgs_pick_blocks& args;
  const Plan& plan;
  const Blocks<T> blocks;
  Desk<T> desk;
  const int64_t unit;  // tokens: whole blocks, and whole tiles

  Worker(const QuireArgs_pick_blocks& a, const Plan& p, Team& team)
      : args(a), plan(p), blocks(a), desk(kItemRows > a.H ? kItemRows : a.H, blocks, team), unit(unit_of(a.size)) {}

  static int64_t unit_of(int64_t size) {
    int64_t least = size;
    while (least % kTile) least *= 2;
    return (kUnitTokens + least - 1) / least * least;
  }

  bool picks_all(const Item& item) const { return item.blocks <= args.pick_count; }
  int64_t rows(const Item& item) const { return item.tokens * args.H; }
  int64_t floats(const Item& item) const { return picks_all(item) ? 0 : rows(item) * item.blocks; }
  int64_t units(const Item& item) const { return picks_all(item) ? 0 : (item.end() + unit - 1) / unit; }

  // The best scores of the blocks of an item's unit `number`, into best [rows][blocks].
  void score_unit(const Item& item, int64_t number, float* best) {
    const int64_t count = rows(item), groups = (count + kRows - 1) / kRows, steps = blocks.key_steps();
    const int64_t low = number * unit, high = low + unit < item.end() ? low + unit : item.end();
    for (int64_t g = 0; g < groups; g++)
      for (int64_t first = count * g / groups, last = count * (g + 1) / groups, r = first; r < last; r++) {
        const T* q = (const T*)args.q + (item.token + r / args.H) * args.q_stride + r % args.H * args.q_head_stride;
        pack_query(q, blocks.D, steps, (int)(last - first), desk.query + first * steps + (r - first));
      }
    for (int64_t r = 0; r < count; r++)
      for (int64_t b = low / args.size; b * args.size < high; b++) best[r * item.blocks + b] = -__builtin_inff();
    Tiles<T> tiles = {blocks, plan.block_table + item.sequence * plan.table_stride, {}, 0, desk.key_room, nullptr,
                      desk.spare, desk.key_scales, desk.value_scales, {}, {}, 0, {}};
    for (int64_t start = low; start < high; start += kTile) {
      const bool known = start + kTile < high && tiles.locate(start / kTile + 1, high, &tiles.ahead);
      tiles.find(start / kTile, high - start < kTile ? high - start : kTile, known);
      const Ahead ahead = tiles.next(known);
      for (int64_t g = 0; g < groups; g++) {
        const int64_t first = count * g / groups, last = count * (g + 1) / groups;
        if (start > item.position + (last - 1) / args.H) continue;
        QUIRE_FOR_ROWS(last - first, score<R>(desk.query + first * steps, tiles.keys, steps, desk.scores, ahead))
        for (int64_t r = first; r < last; r++)
          note(start, item.position + r / args.H, desk.scores + (r - first) * kTile, best + r * item.blocks);
      }
    }
  }

  // Scores of a tile from `start` on, of which those up to `position` count.
  void note(int64_t start, int64_t position, float* scores, float* best) const {
    for (int64_t i = 0; i < kTile && start + i <= position; i += kHalf) {
      const int n = position + 1 - start - i < kHalf ? (int)(position + 1 - start - i) : (int)kHalf;
      vf s = load(scores + i);
      if (blocks.has_scales()) s = s * load(desk.key_scales + i);
      if (args.size % kHalf == 0) {
        s = select(first(n), s, vf_set(-__builtin_inff()));
        raise(best + (start + i) / args.size, any(is_nan(s)) ? __builtin_nanf("") : highest(s));
        continue;
      }
      store(scores + i, s);
      for (int j = 0; j < n; j++) raise(best + (start + i + j) / args.size, scores[i + j]);
    }
  }

  // What is not a number counts as more than any, and stays.
  static void raise(float* best, float score) {
    if (score != score || score > *best) *best = score;
  }
  static bool is_above(float a, float b) { return a != a ? b == b : a > b; }

  // The picks of one row, whose query stands at `position`.
  void pick(int64_t position, float* best, int32_t* picks) const {
    const int64_t count = args.pick_count, seen = position / args.size + 1;
    if (seen <= count) {
      for (int64_t i = 0; i < count; i++) picks[i] = i < seen ? (int32_t)i : -1;
      return;
    }
    for (int64_t b = seen > args.local ? seen - args.local : 0; b < seen; b++) best[b] = __builtin_inff();
    int64_t found = 0;
    for (int64_t b = 0; b < seen; b++) {
      if (found == count && !is_above(best[b], best[picks[count - 1]])) continue;
      int64_t at = found < count ? found++ : count - 1;
      for (; at > 0 && is_above(best[b], best[picks[at - 1]]); at--) picks[at] = picks[at - 1];
      picks[at] = (int32_t)b;
    }
    for (int64_t i = 1; i < count; i++) {  // ascending
      const int32_t number = picks[i];
      int64_t at = i;
      for (; at > 0 && picks[at - 1] > number; at--) picks[at] = picks[at - 1];
      picks[at] = number;
    }
  }
};

// Items whose best scores have room together are a round: first all their units, then all their rows.
template <class T> void pick_of(const QuireArgs_pick_blocks& args, Team& team) {
  const Plan plan(args.plan);
  Worker<T> worker(args, plan, team);
  int64_t taken = 0;
  for (Cursor at(args, plan); !at.done();) {
    const Cursor begin = at;
    int64_t floats = 0, units = 0;
    do {
      const Item item = at.item();
      floats += worker.floats(item);
      units += worker.units(item);
      at.next();
    } while (!at.done() && floats + worker.floats(at.item()) <= kMostScores);
    float* const scores = units ? (float*)team.common(floats * 4) : nullptr;
    if (units) {
      Cursor from = begin;
      float* best = scores;
      int64_t next = team.next(0) - taken;
      for (int64_t first = 0; next < units; next = team.next(0) - taken) {
        while (next >= first + worker.units(from.item())) {
          best += worker.floats(from.item());
          first += worker.units(from.item());
          from.next();
        }
        worker.score_unit(from.item(), next - first, best);
      }
      taken += units + team.size;
      team.barrier();
    }
    float* best = scores;
    int64_t row = 0;
    for (Cursor from = begin; from.sequence != at.sequence || from.token != at.token; from.next()) {
      const Item item = from.item();
      for (int64_t r = 0; r < worker.rows(item); r++, row++) {
        if (row % team.size != team.id) continue;
        int32_t* picks = (int32_t*)args.picks + (item.token * args.H + r) * args.pick_count;
        worker.pick(item.position + r / args.H, best + r * item.blocks, picks);
      }
      best += worker.floats(item);
    }
  }
}

}  // namespace

void pick_blocks(const QuireArgs_pick_blocks& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, pick_of<T>(args, team))
}

}  // namespace quire
