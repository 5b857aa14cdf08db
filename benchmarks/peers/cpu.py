"""What the processor can do, as Linux lists it, and the build flags of llama.cpp that follow from it.

Quire's own choice of instruction set is `quire.hardware.cpu`'s; this file only serves the build of a peer.
"""

from __future__ import annotations

from pathlib import Path

GGML_FLAGS = {
    "avx": "GGML_AVX",
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
    "avx_vnni": "GGML_AVX_VNNI",
    "avx512f": "GGML_AVX512",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512_bf16": "GGML_AVX512_BF16",
    "amx_tile": "GGML_AMX_TILE",
    "amx_int8": "GGML_AMX_INT8",
    "amx_bf16": "GGML_AMX_BF16",
}
"""What Linux calls a feature, and the CMake option of ggml that uses it."""

TILE_CONFIG_HEADER = """\
#pragma once
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
struct quire_tile_config { unsigned char bytes[64]; };
#undef _tile_loadconfig
#define _tile_loadconfig(from) \\
    __asm__ volatile("ldtilecfg %0" : : "m"(*(const struct quire_tile_config *)(from)) : "memory")
#endif
"""
"""GCC 12 declares 8 of the 64 bytes that `ldtilecfg` reads, so stores to the others may be dropped and
llama.cpp ends with SIGSEGV on int8 weights. Included before every source file where the processor has AMX."""


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The feature names of the first processor; empty where the file is not there or lists none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or "unknown"."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def has_amx(features: frozenset[str]) -> bool:
    """Whether llama.cpp would be built with tile instructions."""
    return "amx_tile" in features


def llama_cmake_args(features: frozenset[str]) -> list[str]:
    """CMake arguments for a llama.cpp that uses all that this processor has, and nothing else.

    The features are named one by one, since tools that build for "native" may not know the processor.
    """
    args = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=ON"]
    args += ["-DGGML_LLAMAFILE=ON", "-DGGML_CPU_REPACK=ON"]
    args += [
        f"-D{option}={'ON' if feature in features else 'OFF'}"
        for feature, option in GGML_FLAGS.items()
    ]
    return args
