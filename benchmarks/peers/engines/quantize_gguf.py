"""Writes a GGUF file of floats in another kind (Q4_0, Q4_K_M ...) with llama.cpp's own quantizer.

Run by the Python of llama.cpp's environment: `quantize_gguf.py SOURCE TARGET KIND`.
"""

from __future__ import annotations

import ctypes
import os
import sys

import llama_cpp

THREADS = 2


def main(source: str, target: str, kind: str) -> int:
    """The code of llama.cpp, 0 if it went well; the file has another name until it is whole."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
    params.nthread = THREADS
    unfinished = target + ".part"
    code: int = llama_cpp.llama_model_quantize(
        source.encode(), unfinished.encode(), ctypes.byref(params)
    )
    if not code:
        os.replace(unfinished, target)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
