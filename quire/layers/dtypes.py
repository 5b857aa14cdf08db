"""The names that operations' signatures give to torch's number types.

Bytes of a stored format are in `quant.formats`.
"""

from __future__ import annotations

import torch


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32, and so on."""
    return str(dtype).removeprefix("torch.")
