// Runs lists of calls on a team of OpenMP threads: one parallel region for a whole list.
#include <omp.h>
#include <sched.h>
#include <sys/mman.h>

#include "quire_ops.h"
#include "start.h"
#include "team.h"
#include "vec.h"

namespace quire {

#define QUIRE_DECLARE(name) void name(const QuireArgs_##name& args, Team& team);
QUIRE_OPERATIONS(QUIRE_DECLARE)
#undef QUIRE_DECLARE

namespace {

typedef void (*Function)(const void* args, Team& team);

#define QUIRE_WRAP(name) \
  void call_##name(const void* args, Team& team) { name(*(const QuireArgs_##name*)args, team); }
QUIRE_OPERATIONS(QUIRE_WRAP)
#undef QUIRE_WRAP

const Function kFunctions[] = {
#define QUIRE_ENTRY(name) call_##name,
    QUIRE_OPERATIONS(QUIRE_ENTRY)
#undef QUIRE_ENTRY
};
const int32_t kNumFunctions = sizeof(kFunctions) / sizeof(kFunctions[0]);

const size_t kHuge = (size_t)2 << 20;
const int kSpins = 4096;  // turns before a waiting thread lets others have its core

Shared g_shared;
uint64_t g_pulse;  // until somebody gives a better place

struct Own {
  void* memory;
  size_t bytes;
};
thread_local Own t_own;

// Zeroed memory aligned to 2 MiB, where the system may use huge pages.
void* map_memory(size_t bytes) {
  size_t room = (bytes + kHuge - 1) / kHuge * kHuge + kHuge;
  char* start = (char*)mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == (char*)MAP_FAILED) return nullptr;
  char* aligned = (char*)(((uintptr_t)start + kHuge - 1) / kHuge * kHuge);
  if (aligned > start) munmap(start, aligned - start);
  size_t kept = room - kHuge;
  if (aligned + kept < start + room) munmap(aligned + kept, start + room - aligned - kept);
  madvise(aligned, kept, MADV_HUGEPAGE);
  return aligned;
}

void grow(void** memory, size_t* bytes, size_t wanted) {
  if (*bytes >= wanted) return;
  size_t room = (wanted + kHuge - 1) / kHuge * kHuge;
  void* fresh = map_memory(room);
  if (*memory) munmap(*memory, *bytes);
  *memory = fresh;
  *bytes = fresh ? room : 0;
}

}  // namespace

void Team::barrier() {
  if (size == 1) return;
  phase ^= 1;
  if (__atomic_add_fetch(&shared->arrived, 1, __ATOMIC_ACQ_REL) == size) {
    shared->arrived = 0;
    __atomic_store_n(&shared->phase, phase, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) != phase; spins++) {
    if (spins < kSpins) {
      cpu_relax();
    } else {
      sched_yield();
    }
  }
}

void* Team::common(size_t bytes) {
  barrier();  // nobody uses what an earlier call of this function gave
  if (id == 0) grow(&shared->scratch, &shared->scratch_bytes, bytes);
  barrier();
  return shared->scratch;
}

void* Team::own(size_t bytes) {
  grow(&t_own.memory, &t_own.bytes, bytes);
  return t_own.memory;
}

// Scratch of these sizes, so that what runs later need not ask for it.
void reserve(const QuireArgs_reserve& args, Team& team) {
  void* common = team.common(args.common_bytes);
  void* own = team.own(args.own_bytes);
  if ((args.common_bytes && !common) || (args.own_bytes && !own)) *(int32_t*)args.failed = 1;
}

}  // namespace quire

using namespace quire;

extern "C" {

__attribute__((visibility("default"))) int32_t quire_version() { return QUIRE_VERSION; }

__attribute__((visibility("default"))) const char* quire_isa() { return QUIRE_ISA; }

// Asks the system for what the kernels need, once for each process; 0 if they may run.
__attribute__((visibility("default"))) int32_t quire_start() { return start(); }

// From now on this number rises with every call, and with every piece of one that the first thread takes.
__attribute__((visibility("default"))) void quire_pulse(uint64_t* pulse) {
  g_shared.pulse = pulse ? pulse : &g_pulse;
}

// Carries out `count` calls in order with `threads` threads. Returns 0, or 1 + the place of the
// first call whose operation is unknown, in which case nothing was run.
__attribute__((visibility("default"))) int32_t quire_run(
    const QuireCall* calls, int32_t count, int32_t threads) {
  for (int32_t i = 0; i < count; i++)
    if (calls[i].operation < 0 || calls[i].operation >= kNumFunctions) return 1 + i;
  if (!g_shared.pulse) g_shared.pulse = &g_pulse;
  g_shared.arrived = 0;
  g_shared.phase = 0;
  __builtin_memset(g_shared.counters, 0, sizeof g_shared.counters);
#pragma omp parallel num_threads(threads)
  {
    Team team = {omp_get_thread_num(), omp_get_num_threads(), 0, 0, &g_shared};
    for (int32_t i = 0; i < count; i++) {
      if (team.id == 0) {  // of the next call; the call before this one is over for everybody
        __builtin_memset(g_shared.counters[team.turn ^ 1], 0, sizeof g_shared.counters[0]);
        __atomic_store_n(g_shared.pulse, *g_shared.pulse + 1, __ATOMIC_RELAXED);
      }
      kFunctions[calls[i].operation](calls[i].args, team);
      if (i + 1 < count) team.barrier();
      team.turn ^= 1;
    }
  }
  return 0;
}

// Carries out the calls that no other thread has taken yet, each by this thread alone, until there are
// none; several threads may do so at once, beside quire_run too. `next` is the first that nobody has taken.
// Only for operations that need nothing of their team. Returns as quire_run.
__attribute__((visibility("default"))) int32_t quire_share(
    const QuireCall* calls, int32_t count, int64_t* next) {
  for (int32_t i = 0; i < count; i++)
    if (calls[i].operation < 0 || calls[i].operation >= kNumFunctions) return 1 + i;
  uint64_t pulse = 0;
  Shared shared = {};
  shared.pulse = &pulse;
  Team team = {0, 1, 0, 0, &shared};
  for (int64_t i; (i = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < count;)
    kFunctions[calls[i].operation](calls[i].args, team);
  return 0;
}

// Memory of `bytes` zeros aligned to 2 MiB, in huge pages where the system has them; null if none.
__attribute__((visibility("default"))) void* quire_map(uint64_t bytes) { return map_memory(bytes); }

}  // extern "C"
