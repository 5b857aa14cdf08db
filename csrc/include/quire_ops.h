// Made by tools/native_header.py from quire/ops/cpu/structs.py; do not edit.
#pragma once
#include <stdint.h>

#define QUIRE_VERSION 1

#define QUIRE_FLOAT32 0
#define QUIRE_BFLOAT16 1
#define QUIRE_FLOAT16 2

#define QUIRE_OPERATIONS(X) \
  X(linear) \
  X(pack_linear) \
  X(probe_read) \
  X(probe_dot)

typedef struct {
  const void* x;
  const void* weight;
  const void* scales;
  const void* bias;
  const void* delta;
  void* out;
  int64_t rows;
  int64_t x_stride;
  int64_t out_stride;
  int64_t delta_stride;
  int64_t N;
  int64_t K;
  int32_t dtype;
  int32_t format;
  int32_t group;
  int32_t reserved;
} QuireArgs_linear;

typedef struct {
  const void* weight;
  void* out;
  int64_t N;
  int64_t K;
  int64_t stride;
  int32_t dtype;
  int32_t format;
} QuireArgs_pack_linear;

typedef struct {
  const void* data;
  void* out;
  int64_t bytes;
} QuireArgs_probe_read;

typedef struct {
  void* out;
  int64_t steps;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_probe_dot;

typedef struct {
  int32_t operation;
  int32_t reserved;
  const void* args;
} QuireCall;
