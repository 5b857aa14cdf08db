// Bytes of a file read into memory and added up, by as many threads as come: packed weights of an earlier start.
#include <stdint.h>
#include <unistd.h>

namespace {

const int64_t kPage = 4096, kPart = (int64_t)1 << 18;  // a part stays in the cache until it is added up

// A piece of a file. `first` is the place of its first page in what is added up; only the last piece ends
// elsewhere than at a page. Sums of pages count by their places, bytes behind the last whole page three times.
struct Piece {
  char* out;
  uint64_t* sum;
  int64_t file, begin, num_bytes, first;
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

bool read_whole(const Piece& piece) {
  uint64_t total = 0;
  for (int64_t at = 0; at < piece.num_bytes;) {
    int64_t size = piece.num_bytes - at < kPart ? piece.num_bytes - at : kPart;
    for (int64_t done = 0; done < size;) {
      int64_t got = pread((int)piece.file, piece.out + at + done, size - done, piece.begin + at + done);
      if (got <= 0) return false;
      done += got;
    }
    total += sum_of(piece.out + at, size, piece.first + at / kPage);
    at += size;
  }
  __atomic_fetch_add(piece.sum, total, __ATOMIC_RELAXED);
  return true;
}

}  // namespace

// Reads the pieces that no other thread has taken yet; `next` is the first of them. What cannot be read whole
// sets `failed`.
extern "C" __attribute__((visibility("default"))) void quire_read(
    const Piece* pieces, int32_t count, int64_t* next, int32_t* failed) {
  for (int64_t i; (i = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < count;)
    if (!read_whole(pieces[i])) __atomic_store_n(failed, 1, __ATOMIC_RELAXED);
}
