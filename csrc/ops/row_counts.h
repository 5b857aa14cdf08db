// Numbers of rows that register kernels take, as constants. To be included behind those kernels.
#pragma once

// Calls `body` with the number of rows, at most kRows, as a constant R.
#if QUIRE_MAX_ROWS > 3
#define QUIRE_MORE_ROWS(X, ...)                                                              \
  X(3, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__) X(7, __VA_ARGS__)   \
  X(8, __VA_ARGS__) X(9, __VA_ARGS__) X(10, __VA_ARGS__) X(11, __VA_ARGS__) X(12, __VA_ARGS__)
#elif QUIRE_MAX_ROWS > 2
#define QUIRE_MORE_ROWS(X, ...) X(3, __VA_ARGS__)
#else
#define QUIRE_MORE_ROWS(X, ...)
#endif
#define QUIRE_ROWS_CASE(number, ...) \
  case number: { const int R = number; __VA_ARGS__; break; }
#define QUIRE_FOR_ROWS(rows, ...)                             \
  switch (rows) {                                             \
    QUIRE_ROWS_CASE(1, __VA_ARGS__)                           \
    QUIRE_ROWS_CASE(2, __VA_ARGS__)                           \
    QUIRE_MORE_ROWS(QUIRE_ROWS_CASE, __VA_ARGS__)             \
  }

// Before a loop over rows or columns of registers: GCC 12 keeps their arrays in memory where such a loop is not
// written out early. Two rows of lanes without registers of their own take twice as long to compile so, for nothing.
#if QUIRE_MAX_ROWS > 2
#define QUIRE_WRITTEN_OUT _Pragma("GCC unroll 12")
#else
#define QUIRE_WRITTEN_OUT
#endif
