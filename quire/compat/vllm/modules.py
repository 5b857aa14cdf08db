"""Modules called `vllm` that show our objects; a name that is not there is an ImportError that says so.

What they show is `compat.vllm.names`. Nothing is patched: the modules exist only once `present` was called.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from quire.compat.vllm.names import MODULES, PROGRAMS, REASONS, SOURCES, WHOLE

TOP = "vllm"


def present() -> None:
    """From now on `import vllm` and everything below it is ours in this process; may be called again."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def furnish(module: ModuleType) -> None:
    """Gives a module of vLLM's name what it shows, looked up when it is first used."""
    name = module.__name__
    names = MODULES[name].split()

    def get(attribute: str) -> Any:
        if attribute not in names:
            raise AttributeError(missing(f"{name}.{attribute}"))
        found = lookup(attribute)
        setattr(module, attribute, found)
        return found

    space: dict[str, Any] = vars(module)
    space.setdefault(
        "__path__", []
    )  # so that modules below it are looked for, though no folder has them
    space["__doc__"] = f"Quire under vLLM's name {name}."
    space["__all__"] = [one for one in names if not one.startswith("__")]
    space["__getattr__"] = get
    space["__dir__"] = lambda: sorted(names)


def lookup(name: str) -> Any:
    """The object behind a public name."""
    module, _, other = SOURCES[name].partition(":")
    return getattr(importlib.import_module(module), other or name)


def missing(path: str) -> str:
    """A sentence about a name that is not there: what, why, and what there is instead."""
    module, _, name = path.rpartition(".")
    text = f"Quire has no {path}"
    reason = REASONS.get(name)
    prefix = path
    while reason is None and prefix:
        reason = REASONS.get(prefix)
        prefix = prefix.rpartition(".")[0]
    if reason:
        return f"{text}: {reason}"
    known = [*MODULES.get(module, "").split(), *(one for one in (*MODULES, *PROGRAMS))]
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(
        path, known, n=1
    )
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{text}; what it has of vLLM's names is listed in quire/compat/vllm/names.py{hint}"


class _Finder(MetaPathFinder):
    """Answers for every name below `vllm`, known or not."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TOP and not fullname.startswith(TOP + "."):
            return None
        if fullname in PROGRAMS:
            return ModuleSpec(fullname, _Loader(), is_package=False)
        if fullname in MODULES or fullname in WHOLE:
            # each is a package, so that a wrong name in `from ... import` is looked for here too
            return ModuleSpec(fullname, _Loader(), is_package=True)
        if fullname.rpartition(".")[2].startswith("__"):
            return None
        raise ImportError(missing(fullname), name=fullname)


class _Loader(InspectLoader):
    """Makes one module."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in PROGRAMS:
            exec(self.get_code(name), vars(module))  # our own two lines, made below
        elif name in WHOLE:
            whole = importlib.import_module(WHOLE[name])
            vars(module).update(
                {k: v for k, v in vars(whole).items() if k in ("__getattr__", "__dir__")}
            )
        else:
            furnish(module)

    def get_source(self, fullname: str) -> str:
        """A program's text: it runs its command where it is the main one."""
        command = PROGRAMS.get(fullname)
        if command is None:
            return ""
        return (
            f"from quire.compat.vllm.commands import {command} as main\n"
            "if __name__ == '__main__':\n    raise SystemExit(main())\n"
        )

    def get_code(self, fullname: str) -> CodeType:
        """The compiled text."""
        return compile(self.get_source(fullname), f"<{fullname} of Quire>", "exec")
