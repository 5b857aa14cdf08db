// Attention of packed queries over a paged cache, and the writing of keys and values into it.
//
// A sequence's keys are walked in tiles of 32 at absolute positions, with an online softmax for each
// segment of 1,024; segments are merged in order. The rows of an item are the query heads of one kv
// head at a few tokens. What a row goes through depends on its own keys alone: a tile in which it sees
// nothing leaves its state as it was, and how rows are grouped, or segments spread over threads, only
// decides who computes what. A query and kv head that chose blocks of tokens walk those as if there were no others.
// Sources: arXiv 2309.06180 (paging), 2205.14135 (online softmax).
#include "attention_cache.h"
#include "row_counts.h"

namespace quire {
namespace {

const int64_t kSegment = 1024 / kTile;  // in tiles
const int64_t kItemRows = kRows > 4 ? 48 : 24;
const float kLowest = -1e30f;
const float kLog2e = 1.44269504f;  // scores are kept in units in which a weight is a power of two
const int64_t kMaxShared = (int64_t)16 << 20;  // bytes of states that wait to be merged
const int64_t kMostTaken = 8;  // items that a thread takes at once
const int64_t kLeastRows = 6;  // what an item of fewer rows costs is reading its keys and values

// Softmax states of the rows of an item: values [rows][stride].
struct State { float* peak; float* weight; float* values; };

// Rows that go through the kernels together, and where their queries begin; fresh until a tile of the segment had a
// key for them.
struct Group { int64_t row; int rows; bool is_fresh; int64_t query; };

struct Shape {
  int64_t group, tokens, rows, stride, window;
  bool bidirectional, chunked;
  Chosen blocks;  // of the first query's first kv head
  explicit Shape(const QuireArgs_attention& args)
      : group(args.H / args.K), tokens(!args.picks && kItemRows / group > 1 ? kItemRows / group : 1),
        rows(tokens * group), stride((args.Dv + 15) / 16 * 16), window(args.window),
        bidirectional(args.bidirectional || args.picks), chunked(args.chunked),
        blocks{(const int32_t*)args.picks, args.pick_count, args.pick_size} {}
  int64_t state_floats() const { return rows * (stride + 2) + 16; }
  State state(float* memory) const { return {memory, memory + rows, memory + 2 * rows + (16 - 2 * rows % 16) % 16}; }
  // The keys from first to last that the query at `position` of a sequence of `length` may see.
  int64_t first(int64_t position) const {
    if (!window || position < window) return 0;
    return chunked ? position / window * window : position - window + 1;
  }
  int64_t last(int64_t position, int64_t length) const {
    if (!bidirectional) return position;
    return window && position + window < length ? position + window - 1 : length - 1;
  }
};

// Some tokens of a sequence and the query heads of one kv head. They see keys below `end`, in tiles
// [low, high). Positions and lengths are those among what was chosen.
struct Item {
  int64_t sequence, head, token, tokens, position, length, end, low, high;
  Chosen chosen;
};

// Sequences one after the other, each with its items; segments are [segment, segment + segments).
struct Cursor {
  const Plan& plan;
  const Shape& shape;
  const int64_t heads;
  int64_t sequence = -1, first_item = 0, first_unit = 0, parts = 0, segment = 0, segments = 0;

  Cursor(const Plan& p, const Shape& s, int64_t K) : plan(p), shape(s), heads(K) { next(); }
  int64_t num_items() const { return parts * heads; }
  bool done() const { return sequence >= plan.num_sequences; }
  void next() {
    first_item += num_items();
    first_unit += num_items() * segments;
    if (++sequence >= plan.num_sequences) return;
    int64_t count = plan.query_start[sequence + 1] - plan.query_start[sequence];
    parts = (count + shape.tokens - 1) / shape.tokens;
    if (!parts) return;
    segment = item(0, parts - 1).low / kSegment;
    int64_t high = item(0, 0).high;
    if (const int64_t most = shape.blocks.count * shape.blocks.size; shape.blocks.numbers)
      high = ((most < plan.seq_lens[sequence] ? most : plan.seq_lens[sequence]) + kTile - 1) / kTile;
    segments = (high - 1) / kSegment + 1 - segment;
  }
  // Goes to the sequence that has item number `index`; false behind the last item.
  bool seek(int64_t index) {
    while (!done() && index >= first_item + num_items()) next();
    return !done();
  }
  Item item(int64_t index) const { return item((index - first_item) / parts, (index - first_item) % parts); }
  // Part 0 is the last of the sequence: long items come before short ones.
  Item item(int64_t head, int64_t part) const {
    int64_t start = plan.query_start[sequence], count = plan.query_start[sequence + 1] - start;
    int64_t at = (parts - 1 - part) * shape.tokens;
    int64_t tokens = count - at < shape.tokens ? count - at : shape.tokens;
    int64_t length = plan.seq_lens[sequence], position = length - count + at;
    Chosen chosen = shape.blocks;
    if (chosen.numbers) {
      chosen.numbers += ((start + at) * heads + head) * chosen.count;
      length = chosen.tokens(position);
      position = length - 1;
    }
    int64_t end = shape.last(position + tokens - 1, length) + 1;
    return {sequence, head, start + at, tokens, position, length, end, shape.first(position) / kTile,
            (end + kTile - 1) / kTile, chosen};
  }
};

// One thread's working memory.
template <class T> struct Desk {
  typename Kind<T>::Query* query;
  typename Kind<T>::Weight* weights;
  typename Kind<T>::Unit* key_room;
  typename Kind<T>::Unit* value_room;
  T* spare;
  float* key_scales;
  float* value_scales;
  float* scores;
  float* made;   // what a tile of values adds [16][stride]
  float* lanes;  // sums of weights [rows][16]
  float* slopes;
  const float** biases;  // of each row's head, distance 0
  int32_t* first;
  int32_t* last;
  int32_t* position;
  Group* groups;
  State states[2];

  Desk(const Shape& shape, const Blocks<T>& blocks, Team& team) {
    int64_t bytes = lay(nullptr, shape, blocks);
    lay((char*)team.own(bytes), shape, blocks);
  }

 private:
  // Puts everything one after the other from `memory` on; returns the bytes that takes.
  int64_t lay(char* memory, const Shape& shape, const Blocks<T>& blocks) {
    int64_t at = 0;
    auto take = [&](auto*& start, int64_t count) {
      if (memory) start = (decltype(start + 0))(memory + at);
      at += (count * sizeof(*start) + 63) / 64 * 64;
    };
    if constexpr (Tiled<T>::is) take(query, (shape.rows / kRows + 1) * Tiled<T>::query_units(blocks.key_steps()));
    else take(query, shape.rows * blocks.key_steps());
    take(weights, 16 * kTile);
    take(key_room, 2 * kHalf * blocks.key_steps());
    take(value_room, kTile * blocks.stride());
    take(spare, blocks.has_codes() ? kHalf * (blocks.D + blocks.Dv) : 0);
    take(key_scales, kTile);
    take(value_scales, kTile);
    take(scores, 16 * kTile);
    take(made, Tiled<T>::is ? 16 * blocks.stride() : 0);
    take(lanes, shape.rows * 16);
    take(slopes, shape.rows);
    take(biases, shape.rows);
    take(first, shape.rows);
    take(last, shape.rows);
    take(position, shape.rows);
    take(groups, shape.rows / kRows + 1);
    for (State& state : states) {
      float* floats = nullptr;
      take(floats, shape.state_floats());
      if (memory) state = shape.state(floats);
    }
    return at;
  }
};

template <class T> struct Worker {
  typedef typename Kind<T>::Unit Unit;
  const QuireArgs_attention& args;
  const Plan& plan;
  const Shape& shape;
  const Blocks<T> blocks;
  Desk<T> desk;
  const float scale;
  const bool is_plain;  // scores are scaled and nothing else
  int64_t num_groups = 0;

  Worker(const QuireArgs_attention& a, const Plan& p, const Shape& s, Team& team)
      : args(a), plan(p), shape(s), blocks(a), desk(s, blocks, team),
        scale(a.softcap != 0 ? a.scale / a.softcap : a.scale * kLog2e),
        is_plain(a.softcap == 0 && !a.farthest && !a.slopes && !blocks.has_scales()) {}

  // Makes the rows of an item ready: packed queries, and which keys each row sees.
  void begin(const Item& item) {
    const int64_t rows = item.tokens * shape.group, steps = blocks.key_steps();
    const float* slopes = (const float*)args.slopes;
    num_groups = (rows + kRows - 1) / kRows;
    for (int64_t g = 0; g < num_groups; g++) {
      int64_t row = rows * g / num_groups;
      desk.groups[g] = {row, (int)(rows * (g + 1) / num_groups - row), true, row * steps};
      if constexpr (Tiled<T>::is) desk.groups[g].query = g * Tiled<T>::query_units(steps);
    }
    const Group* group = desk.groups;
    for (int64_t r = 0; r < rows; r++) {
      if (r == group->row + group->rows) group++;
      int64_t token = r / shape.group, head = item.head * shape.group + r % shape.group;
      int64_t position = item.position + token;
      desk.position[r] = (int32_t)position;
      desk.first[r] = (int32_t)shape.first(position);
      desk.last[r] = (int32_t)shape.last(position, item.length);
      if (args.farthest) desk.biases[r] = slopes + head * (2 * args.farthest + 1) + args.farthest;
      else if (slopes) desk.slopes[r] = slopes[head] * kLog2e;
      const T* q = (const T*)args.q + (item.token + token) * args.q_stride + head * args.q_head_stride;
      const int i = (int)(r - group->row);
      if constexpr (Tiled<T>::is) Tiled<T>::pack_query(q, blocks.D, i, desk.query + group->query);
      else pack_query(q, blocks.D, steps, group->rows, desk.query + group->query + i);
    }
  }

  Tiles<T> tiles_of(const Item& item) const {
    return {blocks, plan.block_table + item.sequence * plan.table_stride, item.chosen, item.head,
            desk.key_room, desk.value_room, desk.spare, desk.key_scales, desk.value_scales, {}, {}, 0, {}};
  }

  // The state of an item's rows after the keys of one segment; `after` is what is read next, or null.
  void attend(const Item& item, int64_t segment, const State& state, const Ahead* after) {
    const int64_t rows = item.tokens * shape.group;
    int64_t low = segment * kSegment, high = low + kSegment;
    if (low < item.low) low = item.low;
    if (high > item.high) high = item.high;
    for (int64_t r = 0; r < rows; r++) {
      state.peak[r] = kLowest;
      store(desk.lanes + 16 * r, vf_zero());
    }
    for (int64_t g = 0; g < num_groups; g++) desk.groups[g].is_fresh = true;
    Tiles<T> tiles = tiles_of(item);
    const int64_t end = item.end;
    for (int64_t tile = low; tile < high; tile++) {
      int64_t limit = end - tile * kTile < kTile ? end - tile * kTile : kTile;
      bool known = tile + 1 < item.high ? tiles.locate(tile + 1, end, &tiles.ahead) : after != nullptr;
      if (known && tile + 1 == item.high) tiles.ahead = *after;
      tiles.find(tile, limit, known);
      const Ahead ahead = tiles.next(known);
      for (int64_t g = 0; g < num_groups; g++) {
        Group& group = desk.groups[g];
        const int64_t top = group.row, bottom = group.row + group.rows - 1, start = tile * kTile;
        if (start > desk.last[bottom] || start + kTile <= desk.first[top]) continue;
        bool masked = start + kTile - 1 > desk.last[top] || start < desk.first[bottom];
        step_of(group, tiles, start, masked, state, ahead);
        group.is_fresh = false;
      }
    }
    for (int64_t g = 0; g < num_groups; g++) {
      const Group& group = desk.groups[g];
      for (int64_t r = group.row; r < group.row + group.rows; r++) {
        state.weight[r] = sum(load(desk.lanes + 16 * r));
        if (group.is_fresh) __builtin_memset(state.values + r * shape.stride, 0, shape.stride * 4);
      }
    }
  }

  // Joins `state` to `total`, an earlier one of the same rows.
  void merge(int64_t rows, const State& total, const State& state) {
    for (int64_t row = 0; row < rows; row += 16) {
      int n = rows - row < 16 ? (int)(rows - row) : 16;
      vf a = load(total.peak + row, n), b = load(state.peak + row, n), peak = max(a, b);
      float keep_a[16], keep_b[16];
      store(keep_a, power(a - peak));
      store(keep_b, power(b - peak));
      store(total.peak + row, peak, n);
      vf weight = load(total.weight + row, n) * load(keep_a);
      store(total.weight + row, fma(load(state.weight + row, n), load(keep_b), weight), n);
      for (int i = 0; i < n; i++) {
        float* to = total.values + (row + i) * shape.stride;
        const float* from = state.values + (row + i) * shape.stride;
        for (int64_t j = 0; j < shape.stride; j += 16)
          store(to + j, fma(load(from + j), vf_set(keep_b[i]), load(to + j) * vf_set(keep_a[i])));
      }
    }
  }

  // The results of an item's rows.
  void finish(const Item& item, const State& total) {
    const float* sinks = (const float*)args.sinks;
    for (int64_t r = 0; r < item.tokens * shape.group; r++) {
      int64_t token = item.token + r / shape.group, head = item.head * shape.group + r % shape.group;
      vf keep = vf_set(1.0f), weight = vf_set(total.weight[r]);
      if (sinks) {
        vf old = vf_set(total.peak[r]), sink = vf_set(sinks[head] * kLog2e), peak = max(old, sink);
        keep = power(old - peak);
        weight = fma(weight, keep, power(sink - peak));
      }
      T* out = (T*)args.out + token * args.out_stride + head * args.out_head_stride;
      for (int64_t j = 0; j < args.Dv; j += 16) {
        vf value = fma(load(total.values + r * shape.stride + j), keep, vf_zero()) / weight;
        value = value * vf_set(args.value_scale);
        store(out + j, value, args.Dv - j < 16 ? (int)(args.Dv - j) : 16);
      }
    }
  }

 private:
  void step_of(const Group& group, const Tiles<T>& tiles, int64_t start, bool masked, const State& state,
               const Ahead& ahead) {
    QUIRE_FOR_ROWS(group.rows, step<R>(group, tiles, start, masked, state, ahead))
  }

  // One tile for one group of rows: scores, weights, sums of values.
  template <int R>
  __attribute__((noinline)) void step(const Group& group, const Tiles<T>& tiles, int64_t start, bool masked,
                                      const State& state, const Ahead& ahead) {
    const auto* query = desk.query + group.query;
    if constexpr (Tiled<T>::is) Tiled<T>::score(query, tiles.keys, blocks.key_steps(), desk.scores, ahead);
    else score<R>(query, tiles.keys, blocks.key_steps(), desk.scores, ahead);
    float peaks[16], keep[16];
    if (R > 4 && is_plain && !masked) {
      scale_scores<R>(peaks);
    } else {
      for (int i = 0; i < 16; i++) peaks[i] = kLowest;
      for (int i = 0; i < R; i++) peaks[i] = adjust(group.row + i, tiles, start, masked, desk.scores + kTile * i);
    }
    vf old = load(state.peak + group.row, R), peak = max(load(peaks), old);
    bool rises = any(less(old, peak)) && !group.is_fresh;
    store(keep, power(old - peak));
    store(state.peak + group.row, peak, R);
    store(peaks, peak);
    for (int i = 0; i < R; i++) {
      float* lanes = desk.lanes + 16 * (group.row + i);
      const float* s = desk.scores + kTile * i;
      vf top = vf_set(peaks[i]), sum = load(lanes);
      if (rises) sum = sum * vf_set(keep[i]);
      vf low = power(load(s) - top), high = power(load(s + 16) - top);
      if (blocks.has_scales()) {
        store(lanes, sum + (low + high));
        low = low * load(tiles.value_scales);
        high = high * load(tiles.value_scales + 16);
        put_weights(T(), low, high, vf_zero(), desk.weights + i * Kind<T>::row);
      } else {
        store(lanes, put_weights(T(), low, high, sum, desk.weights + i * Kind<T>::row));
      }
    }
    float* sums = state.values + group.row * shape.stride;
    if constexpr (Tiled<T>::is) {
      Tiled<T>::mix(desk.weights, tiles.values[0], shape.stride, desk.made, ahead);
      add_made<R>(sums, rises ? keep : nullptr, group.is_fresh);
    } else {
      columns<R, widest(R)>(tiles, sums, rises ? keep : nullptr, group.is_fresh, ahead, 0);
    }
  }

  // Sums [R][stride] = sums * keep + what a tile added; a row that keeps all of its sum is one with keep 1.
  template <int R>
  inline __attribute__((always_inline)) void add_made(float* sums, const float* keep, bool fresh) {
    for (int i = 0; i < R; i++) {
      const vf kept = vf_set(keep ? keep[i] : 1.0f);
      float* row = sums + i * shape.stride;
      const float* more = desk.made + i * shape.stride;
      for (int64_t j = 0; j < shape.stride; j += 16)
        store(row + j, fresh ? load(more + j) : fma(load(row + j), kept, load(more + j)));
    }
  }

  // The biases of 16 keys, the first at `distance` from the row's query.
  inline __attribute__((always_inline)) vf bias_of(int64_t row, int64_t distance) {
    const int64_t farthest = args.farthest;
    const float* biases = desk.biases[row];
    if (distance >= farthest) return vf_set(biases[farthest]);
    if (distance + 15 <= -farthest) return vf_set(biases[-farthest]);
    if (distance >= -farthest && distance + 15 <= farthest) return load(biases + distance);
    float found[16];
    for (int i = 0; i < 16; i++) {
      int64_t at = distance + i < -farthest ? -farthest : distance + i;
      found[i] = biases[at > farthest ? farthest : at];
    }
    return load(found);
  }

  // Scores of a tile that all rows see, scaled; the highest of each row, and what is lowest for rows that are not.
  template <int R> inline __attribute__((always_inline)) void scale_scores(float* peaks) {
    vf best[R];
    for (int i = 0; i < R; i++) {
      float* s = desk.scores + kTile * i;
      const vf low = load(s) * vf_set(scale), high = load(s + 16) * vf_set(scale);
      store(s, low);
      store(s + 16, high);
      best[i] = max(low, high);
    }
    highest_each<R>(best, kLowest, peaks);
  }

  // Scores as the rule has them: scaled, capped, with a slope or biases, -infinity where not seen; the highest.
  inline __attribute__((always_inline)) float adjust(int64_t row, const Tiles<T>& tiles, int64_t start, bool masked,
                                                     float* scores) {
    vf best[2];
    for (int c = 0; c < 2; c++) {
      vf s = load(scores + 16 * c);
      if (blocks.has_scales()) s = s * load(tiles.key_scales + 16 * c);
      s = s * vf_set(scale);
      vi key = vi_iota() + vi_set((int32_t)start + 16 * c);
      if (args.softcap != 0) s = tanh(s) * vf_set(args.softcap * kLog2e);
      if (args.farthest) {
        s = fma(bias_of(row, start + 16 * c - desk.position[row]), vf_set(kLog2e), s);
      } else if (args.slopes) {  // what is behind the query falls as what is before it
        vf distance = magnitude(to_float(key - vi_set(desk.position[row])));
        s = fma(vf_zero() - distance, vf_set(desk.slopes[row]), s);
      }
      if (masked) {
        const vf hidden = vf_set(-__builtin_inff());
        s = select(less(key, vi_set(desk.first[row])), hidden, s);
        s = select(less(vi_set(desk.last[row]), key), hidden, s);
      }
      store(scores + 16 * c, s);
      best[c] = s;
    }
    return highest(max(best[0], best[1]));
  }

  static constexpr int widest(int rows) {
    return rows * 8 <= kSumVectors ? 8 : rows * 4 <= kSumVectors ? 4 : rows * 2 <= kSumVectors ? 2 : 1;
  }

  // Columns of values from vector `from` on, C vectors at a time and the rest with fewer.
  template <int R, int C>
  inline __attribute__((always_inline)) void columns(const Tiles<T>& tiles, float* sums, const float* keep, bool fresh,
                                                     const Ahead& ahead, int64_t from) {
    for (; 16 * (from + C) <= shape.stride; from += C)
      mix<R, C>(desk.weights, tiles.values, tiles.value_steps, shape.stride, 16 * from, sums, keep, fresh, ahead);
    if constexpr (C > 1)
      if (16 * from < shape.stride) columns<R, C / 2>(tiles, sums, keep, fresh, ahead, from);
  }
};

// Whether segments are computed apart: where one item is too much for one thread's share of the work.
bool is_shared(const Plan& plan, const Shape& shape, int64_t heads, int32_t threads, int64_t* units) {
  int64_t total = 0, longest = 0, most = 0;
  Cursor at(plan, shape, heads);
  for (; !at.done(); at.next()) {
    if (!at.parts) continue;
    const Item item = at.item(0, 0);
    int64_t rows = item.tokens * shape.group;
    int64_t cost = (item.high - item.low) * (rows < kLeastRows ? kLeastRows : rows);
    total += cost * at.num_items();
    if (cost > longest) longest = cost;
    if (at.segments > most) most = at.segments;
  }
  *units = at.first_unit;
  return most > 1 && longest * 4 * threads > total && *units * shape.state_floats() * 4 <= kMaxShared;
}

// Items one after the other, each by one thread. Single tokens are taken a few at a time: then it is
// known early what this thread reads next.
template <class T> void attend_items(Worker<T>& worker, Team& team) {
  const Plan& plan = worker.plan;
  const State total = worker.desk.states[0], fresh = worker.desk.states[1];
  int64_t taken = plan.num_tokens == plan.num_sequences ? plan.num_tokens * worker.args.K / (32 * team.size) : 1;
  taken = taken < 1 ? 1 : taken > kMostTaken ? kMostTaken : taken;
  Cursor at(plan, worker.shape, worker.args.K);
  for (int64_t begin = team.next(0, taken); at.seek(begin); begin = team.next(0, taken))
    for (int64_t index = begin; index < begin + taken && at.seek(index); index++) {
      const Item item = at.item(index);
      Cursor coming = at;
      Ahead ahead;
      bool known = index + 1 < begin + taken && coming.seek(index + 1);
      if (known) {
        const Item other = coming.item(index + 1);
        known = worker.tiles_of(other).locate(other.low, other.end, &ahead);
      }
      worker.begin(item);
      int64_t segment = item.low / kSegment;
      worker.attend(item, segment, total, known ? &ahead : nullptr);
      for (segment++; segment * kSegment < item.high; segment++) {
        worker.attend(item, segment, fresh, known ? &ahead : nullptr);
        worker.merge(item.tokens * worker.shape.group, total, fresh);
      }
      worker.finish(item, total);
    }
}

// Segments of items by any thread, and then the merging of each item's.
template <class T> void attend_segments(Worker<T>& worker, Team& team, int64_t units) {
  const Shape& shape = worker.shape;
  float* states = (float*)team.common(units * shape.state_floats() * 4);
  Cursor at(worker.plan, shape, worker.args.K);
  for (int64_t next = team.next(0);; next = team.next(0)) {
    while (!at.done() && next >= at.first_unit + at.num_items() * at.segments) at.next();
    if (at.done()) break;
    int64_t index = (next - at.first_unit) / at.segments, segment = at.segment + (next - at.first_unit) % at.segments;
    const Item item = at.item(index / at.parts, index % at.parts);
    if (segment < item.low / kSegment || segment * kSegment >= item.high) continue;
    worker.begin(item);
    worker.attend(item, segment, shape.state(states + next * shape.state_floats()), nullptr);
  }
  team.barrier();
  Cursor from(worker.plan, shape, worker.args.K);
  for (int64_t next = team.next(1);; next = team.next(1)) {
    if (!from.seek(next)) return;
    const Item item = from.item(next);
    int64_t unit = from.first_unit + (next - from.first_item) * from.segments - from.segment;
    int64_t segment = item.low / kSegment;
    const State total = shape.state(states + (unit + segment) * shape.state_floats());
    for (segment++; segment * kSegment < item.high; segment++)
      worker.merge(item.tokens * shape.group, total, shape.state(states + (unit + segment) * shape.state_floats()));
    worker.finish(item, total);
  }
}

template <class T> void attention_of(const QuireArgs_attention& args, Team& team) {
  const Plan plan(args.plan);
  const Shape shape(args);
  int64_t units = 0;
  bool shared = team.size > 1 && is_shared(plan, shape, args.K, team.size, &units);
  Worker<T> worker(args, plan, shape, team);
  if constexpr (Tiled<T>::is) Tiled<T>::begin(worker.blocks.key_steps());
  if (shared) attend_segments(worker, team, units);
  else attend_items(worker, team);
  if constexpr (Tiled<T>::is) Tiled<T>::end();
}

// Puts keys [D] and values [Dv] of E, in `T` or its codes, where slot `slot` of a head has them.
template <class E, class T>
void scatter(const Blocks<T>& blocks, char* head, int64_t slot, const E* k, const E* v) {
  const int64_t per = Kind<T>::per, width = blocks.width(), paired = blocks.D / per * per;
  E* key = (E*)(head + blocks.cell(slot)) + slot % width * per;
  E* value = (E*)(head + blocks.value(slot)) + slot % per;
  for (int64_t d = 0; d < paired; d += per) __builtin_memcpy(key + d * width, k + d, per * sizeof(E));
  // an odd last number stands alone: its row has one place a slot
  if (paired < blocks.D) key[paired * width - slot % width * (per - 1)] = k[paired];
  for (int64_t j = 0; j < blocks.Dv; j++) value[j * per] = v[j];
}

// One token's key and value of a head, at the head's place in its block.
template <class T>
void write_one(const QuireArgs_attention_write& args, const Blocks<T>& blocks, char* place, int64_t slot,
               const T* k, const T* v, uint8_t* codes) {
  if (!codes) return scatter(blocks, place, slot, k, v);
  float key_scale = narrow(blocks.format, k, args.D, codes, args.key_inverse);
  float value_scale = narrow(blocks.format, v, args.Dv, codes + args.D, args.value_inverse);
  scatter(blocks, place, slot, (const uint8_t*)codes, (const uint8_t*)codes + args.D);
  if (!blocks.has_scales()) return;
  float* scales = (float*)(place + blocks.scales(slot));
  scales[0] = key_scale;
  scales[blocks.size] = value_scale;
}

// A few tokens of one head at a time, which fill cells, and then of the next: their rows are still near.
template <class T> void write_of(const QuireArgs_attention_write& args, Team& team) {
  const Plan plan(args.plan);
  const Blocks<T> blocks(args);
  uint8_t* codes = blocks.has_codes() ? (uint8_t*)team.own(args.D + args.Dv) : nullptr;
  const int64_t step = 64 / sizeof(T), after = args.k_head_stride, after_value = args.v_head_stride;
  int64_t from, to;
  team.part((plan.num_tokens + kHalf - 1) / kHalf * args.K, &from, &to);
  for (int64_t unit = from; unit < to;) {
    const int64_t start = unit / args.K * kHalf, head_from = unit % args.K;
    const int64_t heads = args.K - head_from < to - unit ? args.K - head_from : to - unit;
    const int64_t tokens = plan.num_tokens - start < kHalf ? plan.num_tokens - start : kHalf;
    char* places[kHalf];
    for (int64_t i = 0; i < tokens; i++) places[i] = blocks.keys(plan.slots[start + i] >> blocks.shift, 0);
    const int64_t head_bytes = blocks.keys(0, 1) - blocks.keys(0, 0);
    for (int64_t head = head_from; head < head_from + heads; head++)
      for (int64_t i = 0; i < tokens; i++) {
        const T* k = (const T*)args.k + (start + i) * args.k_stride + head * args.k_head_stride;
        const T* v = (const T*)args.v + (start + i) * args.v_stride + head * args.v_head_stride;
        for (int64_t at = 0; at < args.D; at += step) fetch((const char*)(k + after + at));
        for (int64_t at = 0; at < args.Dv; at += step) fetch((const char*)(v + after_value + at));
        write_one(args, blocks, places[i] + head * head_bytes, plan.slots[start + i] & (blocks.size - 1), k, v, codes);
      }
    unit += heads;
  }
}

}  // namespace

void attention(const QuireArgs_attention& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, attention_of<T>(args, team))
}

void attention_write(const QuireArgs_attention_write& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T, write_of<T>(args, team))
}

}  // namespace quire
