"""The process of an engine, started by `engine.child.Child` as `python -m quire.engine.process MEMORY PARENT`.

What it does is `engine.loop`; that is imported while the collector rests, whose passes over what is there to stay
took a tenth of a start, and while a thread loads the libraries of torch.
"""

from __future__ import annotations

import gc
import importlib
import signal
import sys

from quire.hardware.torch_libraries import load_ahead

if __name__ == "__main__":
    gc.disable()  # until the engine is ready
    # The front decides when a drain is over; a Ctrl-C in the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    load_ahead()
    sys.exit(importlib.import_module("quire.engine.loop").main(sys.argv[1:]))
