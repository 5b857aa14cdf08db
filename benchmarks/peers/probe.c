/* The state of the machine at this moment: read bandwidth of memory, and the rate of multiply-adds on registers.
 * Compiled for the processor that it runs on; how the figures are used is probe.py's. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define MAX_THREADS 256
#define BYTES ((size_t)256 << 20)
#define PASSES 3
#define SECONDS 0.04

typedef int64_t wide __attribute__((vector_size(64)));

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

struct job {
  const char *begin;
  size_t bytes;
  double flops;
  int64_t sink;
};

/* Runs `body` on every job at once; seconds until the last one ended. */
static double run(void *(*body)(void *), struct job *jobs, int num_threads) {
  pthread_t threads[MAX_THREADS];
  double start = seconds();
  for (int i = 1; i < num_threads; i++) pthread_create(&threads[i], 0, body, &jobs[i]);
  body(&jobs[0]);
  for (int i = 1; i < num_threads; i++) pthread_join(threads[i], 0);
  return seconds() - start;
}

static void *read_part(void *argument) {
  struct job *job = argument;
  wide sums[8] = {{0}};
  for (size_t at = 0; at < job->bytes; at += sizeof sums) {
    const wide *from = (const wide *)(job->begin + at);
    __builtin_prefetch(job->begin + at + 4096);
    for (int i = 0; i < 8; i++) sums[i] |= from[i];
  }
  for (int i = 1; i < 8; i++) sums[0] |= sums[i];
  job->sink = sums[0][0];
  return 0;
}

/* GB/s: the best of a few passes over 256 MiB, cut among the threads; 0 without memory. */
double probe_read_gbps(int num_threads) {
  static struct job jobs[MAX_THREADS];
  if (num_threads < 1 || num_threads > MAX_THREADS) return 0;
  char *memory = mmap(0, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, BYTES, MADV_HUGEPAGE);
  memset(memory, 1, BYTES);
  size_t part = BYTES / num_threads / 512 * 512;
  for (int i = 0; i < num_threads; i++) jobs[i] = (struct job){memory + i * part, part, 0, 0};
  double best = 0;
  for (int pass = 0; pass < PASSES; pass++) {
    double rate = (double)part * num_threads / run(read_part, jobs, num_threads) / 1e9;
    if (rate > best) best = rate;
  }
  munmap(memory, BYTES);
  return best;
}

#if defined(__AMX_BF16__) && defined(__AMX_TILE__)
const char *probe_fma_kind(void) { return "amx bf16"; }
struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
#define STEP_FLOPS (4 * 2.0 * 16 * 16 * 32)
static int may_run(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
static void *multiply_part(void *argument) {
  struct job *job = argument;
  struct tile_config config = {.palette = 1};
  for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  double end = seconds() + SECONDS;
  do {
    for (int i = 0; i < 10000; i++) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    job->flops += 10000 * STEP_FLOPS;
  } while (seconds() < end);
  _tile_release();
  return 0;
}
#else
static int may_run(void) { return 1; }
#define NUM_SUMS 12
#ifdef __AVX512BF16__
const char *probe_fma_kind(void) { return "avx512 bf16"; }
typedef __m512 vector;
#define STEP_FLOPS (NUM_SUMS * 2.0 * 32)
#define MULTIPLY(sum, x, y) _mm512_dpbf16_ps(sum, (__m512bh)(x), (__m512bh)(y))
#else
const char *probe_fma_kind(void) { return "vector f32"; }
typedef float vector __attribute__((vector_size(32)));
#define STEP_FLOPS (NUM_SUMS * 2.0 * 8)
#define MULTIPLY(sum, x, y) ((sum) + (x) * (y))
#endif
static void *multiply_part(void *argument) {
  struct job *job = argument;
  vector x = {0}, y = {0}, sums[NUM_SUMS] = {{0}};
  double end = seconds() + SECONDS;
  do {
    for (int i = 0; i < 100000; i++) {
      __asm__ volatile("" : "+x"(x), "+x"(y));
#pragma GCC unroll 12
      for (int k = 0; k < NUM_SUMS; k++) sums[k] = MULTIPLY(sums[k], x, y);
    }
    job->flops += 100000 * STEP_FLOPS;
  } while (seconds() < end);
  for (int k = 1; k < NUM_SUMS; k++) sums[0] = sums[0] + sums[k];
  job->sink = (int64_t)sums[0][0];
  return 0;
}
#endif

/* TFLOP/s of all threads together over about 40 ms; 0 where the system refuses the instructions. */
double probe_fma_tflops(int num_threads) {
  static struct job jobs[MAX_THREADS];
  if (num_threads < 1 || num_threads > MAX_THREADS || !may_run()) return 0;
  memset(jobs, 0, sizeof jobs);
  double taken = run(multiply_part, jobs, num_threads), flops = 0;
  for (int i = 0; i < num_threads; i++) flops += jobs[i].flops;
  return flops / taken / 1e12;
}
