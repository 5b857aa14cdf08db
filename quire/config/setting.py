"""How one setting is declared: its default, and what the command line and the help text need."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    choices: tuple[str, ...] | None = None,
    grows: bool = False,
    short: str | None = None,
    env: str | None = None,
) -> Any:
    """A dataclass field with its help line. Mutable defaults are copied for each object.

    flag   the long name on the command line when it is not the field's own.
    grows  whether plug-ins may add to the choices, see `config.plugins.Names`.
    short  a second, short spelling, with its one dash.
    env    the variable of `config.env.VARIABLES` that gives the value when flag and file do not.
    """
    metadata: dict[str, Any] = {"help": help, "flag": flag, "choices": choices, "grows": grows}
    metadata |= {"short": short, "env": env}
    if isinstance(default, (list, dict)):
        kind = type(default)
        return field(default_factory=lambda: kind(default), metadata=metadata)
    return field(default=default, metadata=metadata)
