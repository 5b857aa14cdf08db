"""The import of torch in a process that only computes: without the shapes of operations on meta tensors.

Which process that is, is `engine.loop`'s to say: one in which nobody else's code runs.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

_LEFT_OUT = ("torch._meta_registrations", "torch.distributed._meta_registrations")
"""They register shape functions, written in Python, of about a thousand operations; nothing else asks for them."""


def import_lean() -> None:
    """Imports torch, if it is not there, a quarter quicker; computing with numbers is the same.

    What needs no numbers does not work until the modules left out are imported too: meta and fake tensors,
    and with them torch.compile and torch.export.
    """
    if "torch" in sys.modules:
        return
    empty = {name: ModuleType(name) for name in _LEFT_OUT}
    sys.modules.update(empty)
    module_of = inspect.getmodule

    # For a frame it looks through the files of all modules, 55 ms; without it the source is found as well.
    def quick_module_of(object: object, _filename: str | None = None) -> ModuleType | None:
        return None if inspect.isframe(object) else module_of(object, _filename)

    inspect.getmodule = quick_module_of
    try:
        torch = importlib.import_module("torch")
    finally:
        inspect.getmodule = module_of
        for name, module in empty.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    for name, module in empty.items():
        if vars(torch).get(name.rpartition(".")[2]) is module:
            delattr(torch, name.rpartition(".")[2])
    _allow_generators(torch)


def _allow_generators(torch: Any) -> None:
    """What the modules left out do beside: since 2.13 they say of which kind the class of generators is."""
    try:
        if hasattr(torch._C, "_set_generator_metaclass"):
            base = importlib.import_module("torch._opaque_base")
            torch._C._set_generator_metaclass(base.OpaqueBaseMeta)
        torch.Generator().manual_seed(0)
    except (AttributeError, ImportError, RuntimeError):  # another version: as a whole, then
        importlib.import_module(_LEFT_OUT[0])
