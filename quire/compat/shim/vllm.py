"""`import vllm` as Quire, for processes whose PYTHONPATH holds this folder.

The folder is put there by `python -m quire.compat.vllm`, for the programs that a program starts.
"""

from __future__ import annotations

import sys

from quire.compat.vllm.modules import furnish, present

present()
furnish(sys.modules[__name__])
