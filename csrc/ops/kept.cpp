// Bytes of a mapped file brought into memory and added up, by as many threads as come: packed weights of an
// earlier start.
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace {

const int64_t kPage = 4096;

// A piece of a mapped file. `first` is the place of its first page in what is added up; only the last piece ends
// elsewhere than at a page. Sums of pages count by their places, bytes behind the last whole page three times.
struct Piece {
  const char* data;
  uint64_t* sum;
  int64_t num_bytes, first;
};

uint64_t sum_of(const char* data, int64_t num_bytes, int64_t first) {
  uint64_t total = 0;
  int64_t at = 0;
  for (; at + kPage <= num_bytes; at += kPage, first++) {
    uint64_t page = 0, word;
    for (int64_t i = 0; i < kPage; i += 8) {
      __builtin_memcpy(&word, data + at + i, 8);
      page += word;
    }
    total += page * (uint64_t)(first + 1);
  }
  for (; at < num_bytes; at++) total += (uint64_t)(uint8_t)data[at] * 3;
  return total;
}

// Whether the piece can be read: a file that was cut short, or a disk that fails, would end the process where it
// is touched. Systems before Linux 5.14 do not say.
bool bring(const Piece& piece) {
  uintptr_t begin = (uintptr_t)piece.data & ~(uintptr_t)(kPage - 1);
  size_t size = (uintptr_t)piece.data + (size_t)piece.num_bytes - begin;
  return madvise((void*)begin, size, MADV_POPULATE_READ) == 0 || errno == EINVAL;
}

}  // namespace

// Reads the pieces that no other thread has taken yet; `next` is the first of them. What cannot be read sets
// `failed`.
extern "C" __attribute__((visibility("default"))) void quire_read(
    const Piece* pieces, int32_t count, int64_t* next, int32_t* failed) {
  for (int64_t i; (i = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < count;) {
    const Piece& piece = pieces[i];
    if (!bring(piece)) {
      __atomic_store_n(failed, 1, __ATOMIC_RELAXED);
      continue;
    }
    uint64_t total = sum_of(piece.data, piece.num_bytes, piece.first);
    __atomic_fetch_add(piece.sum, total, __ATOMIC_RELAXED);
  }
}
