// The threads that carry out one call together, and what they share.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define QUIRE_INLINE static inline __attribute__((always_inline))

namespace quire {

const int kCounters = 8;

// What the threads of a parallel region share. One lives for as long as the library.
struct Shared {
  alignas(64) int32_t arrived;
  alignas(64) int32_t phase;
  alignas(64) int64_t counters[2][kCounters];  // two sets, used by calls in turn
  alignas(64) void* scratch;
  size_t scratch_bytes;
  uint64_t* pulse;  // rises while the team works; a watcher in another process may read it
};

// One thread's view of the team.
struct Team {
  int32_t id;
  int32_t size;
  int32_t phase;  // of the barrier, each thread's own
  int32_t turn;   // which set of counters this call uses
  Shared* shared;

  // Waits until all threads of the team are here.
  void barrier();

  // This thread's part [begin, end) of `count` things, in equal contiguous parts.
  inline void part(int64_t count, int64_t* begin, int64_t* end) const {
    *begin = count * id / size;
    *end = count * (id + 1) / size;
  }

  // The next number that no thread of this call has taken from counter `which`, from 0 up.
  inline int64_t next(int which, int64_t step = 1) {
    if (id == 0) __atomic_store_n(shared->pulse, *shared->pulse + 1, __ATOMIC_RELAXED);
    return __atomic_fetch_add(&shared->counters[turn][which], step, __ATOMIC_RELAXED);
  }

  // At least `bytes` of memory that all threads see, aligned to 64; every thread must call it.
  // Contents do not survive the call; null if the machine has no memory left.
  void* common(size_t bytes);

  // At least `bytes` of this thread's own memory, aligned to 64, kept between calls.
  void* own(size_t bytes);
};

// Shares of some work in order: a thread has those of its own part first, which lie side by side, and then what
// others have left. One round follows another with the same counters; each takes all of them.
struct Shares {
  Team& team;
  int64_t count, round;
  int tried;  // parts that are used up

  Shares(Team& t, int64_t shares, int64_t number) : team(t), count(shares), round(number), tried(0) {}

  // The next share for this thread, -1 after the last.
  inline int64_t next() {
    const int parts = team.size < kCounters ? team.size : kCounters;
    for (; tried < parts; tried++) {
      const int part = (team.id + tried) % parts;
      const int64_t begin = count * part / parts, size = count * (part + 1) / parts - begin;
      const int64_t at = team.next(part) - round * (size + team.size);  // each thread fails once a round
      if (at < size) return begin + at;
    }
    return -1;
  }
};

}  // namespace quire
