// Pages of fresh memory asked of the system before they are needed, by a thread that runs only where nothing else wants
// its core. Where the system takes long to give a page, as in a virtual machine, a step need not wait for it.
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>

namespace {

const int64_t kPage = 4096;

struct Pages {
  char* memory;
  int64_t wanted;  // bytes from the beginning that shall have been touched
  int32_t ends;
  sem_t more;
  pthread_t thread;
};

// Nothing that the memory holds changes, whoever writes there meanwhile.
void touch(char* place) { __atomic_fetch_or((volatile char*)place, 0, __ATOMIC_RELAXED); }

void* work(void* given) {
  Pages& pages = *(Pages*)given;
#ifdef SCHED_IDLE
  const sched_param none = {};
  pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
#endif
  for (int64_t done = 0;;) {
    while (sem_wait(&pages.more) != 0) continue;
    for (; !__atomic_load_n(&pages.ends, __ATOMIC_ACQUIRE); done += kPage) {
      if (done >= __atomic_load_n(&pages.wanted, __ATOMIC_ACQUIRE)) break;
      touch(pages.memory + done);
    }
    if (__atomic_load_n(&pages.ends, __ATOMIC_ACQUIRE)) return nullptr;
  }
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

QUIRE_VISIBLE void quire_pages_end(void* given) {
  Pages* pages = (Pages*)given;
  __atomic_store_n(&pages->ends, 1, __ATOMIC_RELEASE);
  sem_post(&pages->more);
  pthread_join(pages->thread, nullptr);
  delete pages;
}
