"""`import vllm` is Quire. Everything below this package is made by `quire.compat.vllm`."""

from __future__ import annotations

import sys

from quire_as_vllm import refuse_beside_vllm

from quire.compat.vllm.modules import furnish, present

refuse_beside_vllm()
present()
furnish(sys.modules[__name__])
