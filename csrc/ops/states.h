// Recurrent states in blocks: a block stands for an interval of a sequence's tokens and holds the state after
// the last of them so far.
#pragma once
#include "quire_ops.h"
#include "team.h"

namespace quire {

// One state of one layer in all blocks, and the step that goes on with it.
struct StatePlaces {
  const Quire_state_plan& plan;
  char* states;
  int64_t slab_bytes, block_bytes, blocks_per_slab;

  template <class A>
  explicit StatePlaces(const A& args)
      : plan(*(const Quire_state_plan*)args.plan), states((char*)args.states),
        slab_bytes(args.slab_bytes), block_bytes(args.block_bytes), blocks_per_slab(args.blocks_per_slab) {}

  float* at(int64_t block) const {
    return (float*)(states + block / blocks_per_slab * slab_bytes + block % blocks_per_slab * block_bytes);
  }
};

// body(begin, end, source, target) for the packed tokens of sequence `row`, cut where intervals begin: they
// start from the state at `source` (null: zeros) and leave theirs at `target`, which may be the same.
template <class F> QUIRE_INLINE void each_piece(const StatePlaces& places, int64_t row, F body) {
  const Quire_state_plan& plan = places.plan;
  const int32_t* table = (const int32_t*)plan.block_table + row * plan.table_stride;
  const int32_t* starts = (const int32_t*)plan.query_start + row;
  int64_t begin = starts[0], end = starts[1];
  int64_t position = ((const int32_t*)plan.seq_lens)[row] - (end - begin);
  while (begin < end) {
    const int64_t index = position / plan.interval, place = position % plan.interval;
    const int64_t count = end - begin < plan.interval - place ? end - begin : plan.interval - place;
    const float* source = position ? places.at(table[place ? index : index - 1]) : nullptr;
    body(begin, begin + count, source, places.at(table[index]));
    begin += count;
    position += count;
  }
}

}  // namespace quire
