"""The process of an engine, started by `engine.child.Child` as
`python -m quire.engine.process IN OUT MEMORY PARENT SETTINGS`.

What it does is `engine.loop`; that is imported while the collector rests, whose passes over what is there to stay
took a tenth of a start.
"""

from __future__ import annotations

import gc
import importlib
import sys

if __name__ == "__main__":
    gc.disable()  # until the engine is ready
    sys.exit(importlib.import_module("quire.engine.loop").main(sys.argv[1:]))
