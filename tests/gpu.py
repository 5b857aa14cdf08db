"""The mark of tests that need an NVIDIA GPU, with the reason where they are skipped; `make gpu-check` runs them."""

from __future__ import annotations

import pytest
import torch

from quire.hardware.cuda import read_gpus


def why_not() -> str:
    """Why no GPU can be used here; empty if one can."""
    if torch.cuda.is_available():
        return ""
    found = read_gpus()
    if found:
        return f"the driver shows {found[0]}, but torch {torch.__version__} cannot use it"
    return "no NVIDIA GPU that torch can use"


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not())]
"""For `pytestmark` of a file."""
