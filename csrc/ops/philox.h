// Philox4x32-10: random words as a pure function of a key and a counter (Salmon et al., SC 2011).
#pragma once
#include "wide.h"

namespace quire {

const uint64_t kFactor0 = 0xd2511f53, kFactor1 = 0xcd9e8d57;
const uint32_t kStep0 = 0x9e3779b9, kStep1 = 0xbb67ae85;
const int kRounds = 10;

// The first words of the counters (id, position, index, 0) under one key. What does not depend on
// the id is worked out once: all of the first round but one product, and one of the second.
struct Philox {
  uint64_t key0[kRounds], key1[kRounds];
  uint64_t word0, word1;      // after the first round
  uint64_t product0;          // of word0 in the second round

  void set(uint64_t seed, uint32_t position, uint32_t index) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < kRounds; i++, k0 += kStep0, k1 += kStep1) {
      key0[i] = k0;
      key1[i] = k1;
    }
    uint64_t first = index * kFactor1;
    word0 = (uint32_t)(first >> 32) ^ position ^ key0[0];
    word1 = (uint32_t)first;
    product0 = word0 * kFactor0;
  }

  // The words of eight ids; only the low halves of lanes mean something, here and below.
  inline __attribute__((always_inline)) vw words(vw id) const {
    const vw f0 = vw_set(kFactor0), f1 = vw_set(kFactor1);
    vw p0 = product(id, f0);
    vw p1 = product(high(p0) ^ vw_set(key1[0]), f1);
    vw c0 = high(p1) ^ vw_set(word1 ^ key0[1]);
    vw c1 = p1;
    vw c2 = p0 ^ vw_set(product0 >> 32 ^ key1[1]);
    vw c3 = vw_set(product0);
    for (int i = 2; i < kRounds - 1; i++) {
      p0 = product(c0, f0);
      p1 = product(c2, f1);
      c0 = high(p1) ^ c1 ^ vw_set(key0[i]);
      c1 = p1;
      c2 = high(p0) ^ c3 ^ vw_set(key1[i]);
      c3 = p0;
    }
    return high(product(c2, f1)) ^ c1 ^ vw_set(key0[kRounds - 1]);
  }

  // The words of the ids from, from + 1, ... from + 15.
  inline __attribute__((always_inline)) vi sixteen(uint32_t from) const {
    return interleave(words(vw_even(from)), words(vw_even(from + 1)));
  }
};

}  // namespace quire
