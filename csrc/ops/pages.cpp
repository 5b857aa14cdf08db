// Pages of fresh memory asked of the system before they are needed, by a thread that rests while steps run. Where the
// system takes long to give a page, as in a virtual machine, a step need not wait for it.
//
// The thread has no lower priority than others: with a page fault it holds what others of the process wait for (a
// mapping of memory next to it, the end of the process), and where all cores were busy, the lowest priority kept it, and
// them, for up to half a minute.
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

namespace {

const int64_t kPage = 4096;
const int64_t kQuietNs = 20 * 1000 * 1000;  // from the end of a step until there seems to be no next one
const int64_t kHeld = INT64_MAX;

int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

struct Pages {
  char* memory;
  int64_t wanted;      // bytes from the beginning that shall have been touched
  int64_t stepped_ns;  // when the last step ended; kHeld while one runs
  int32_t ends;
  sem_t more;
  pthread_t thread;
};

// Nothing that the memory holds changes, whoever writes there meanwhile.
void touch(char* place) { __atomic_fetch_or((volatile char*)place, 0, __ATOMIC_RELAXED); }

bool ends(const Pages& pages) { return __atomic_load_n(&pages.ends, __ATOMIC_ACQUIRE) != 0; }

bool steps(const Pages& pages) {
  const int64_t last_ns = __atomic_load_n(&pages.stepped_ns, __ATOMIC_ACQUIRE);
  return last_ns == kHeld || (last_ns != 0 && now_ns() - last_ns < kQuietNs);
}

void* work(void* given) {
  Pages& pages = *(Pages*)given;
  const timespec quiet = {0, kQuietNs};
  for (int64_t done = 0; !ends(pages);) {
    if (done >= __atomic_load_n(&pages.wanted, __ATOMIC_ACQUIRE)) {
      sem_wait(&pages.more);
    } else if (steps(pages)) {
      nanosleep(&quiet, nullptr);
    } else {
      touch(pages.memory + done);
      done += kPage;
    }
  }
  return nullptr;
}

}  // namespace

#define QUIRE_VISIBLE extern "C" __attribute__((visibility("default")))

// A thread for memory that is there until `quire_pages_end`; null where there can be none.
QUIRE_VISIBLE void* quire_pages_begin(char* memory) {
  Pages* pages = new Pages();
  pages->memory = memory;
  sem_init(&pages->more, 0, 0);
  sigset_t all, before;  // signals are for the threads that know what to do with them
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int failed = pthread_create(&pages->thread, nullptr, work, pages);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!failed) return pages;
  delete pages;
  return nullptr;
}

// From now on it touches so many bytes from the beginning.
QUIRE_VISIBLE void quire_pages_want(void* given, int64_t bytes) {
  Pages& pages = *(Pages*)given;
  __atomic_store_n(&pages.wanted, bytes, __ATOMIC_RELEASE);
  sem_post(&pages.more);
}

// Whether a step runs from now on. The thread rests until none does.
QUIRE_VISIBLE void quire_pages_step(void* given, int32_t begins) {
  __atomic_store_n(&((Pages*)given)->stepped_ns, begins ? kHeld : now_ns(), __ATOMIC_RELEASE);
}

QUIRE_VISIBLE void quire_pages_end(void* given) {
  Pages* pages = (Pages*)given;
  __atomic_store_n(&pages->ends, 1, __ATOMIC_RELEASE);
  sem_post(&pages->more);
  pthread_join(pages->thread, nullptr);
  delete pages;
}
