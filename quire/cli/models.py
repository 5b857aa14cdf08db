"""`quire models`: lists the architectures that checkpoints can have, or says what one checkpoint is.

What a description holds is told in `quire.models.spec`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from quire.models.catalogue import Row, rows
from quire.models.registry import describe
from quire.models.spec_json import to_json
from quire.protocol.errors import QuireError


def main(argv: Sequence[str]) -> int:
    """Prints the list or the description; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quire models",
        description="The names in `architectures` of config.json that are known, with the parts that their "
        "checkpoints may have. With a folder: how that checkpoint is described; no weights are read.",
    )
    parser.add_argument("model", nargs="?", help="folder of a checkpoint, or a part of a name")
    parser.add_argument("--json", action="store_true", help="the list as JSON")
    arguments = parser.parse_args(list(argv))
    if arguments.model is not None and ("/" in arguments.model or arguments.model == "."):
        return _one(arguments.model)
    word = (arguments.model or "").lower()
    chosen = [
        row
        for row in rows()
        if any(word in name.lower() for name in (row.name, row.family, *row.also))
    ]
    if not chosen:
        sys.stderr.write(
            f"quire models: no known architecture has {arguments.model!r} in its name\n"
        )
        return 1
    sys.stdout.write(_as_json(chosen) if arguments.json else _as_text(chosen))
    return 0


def _one(folder: str) -> int:
    try:
        found = describe(folder)
    except QuireError as error:
        sys.stderr.write(f"quire models: {error}\n")
        return 2
    facts = {"architecture": found.architecture, "max_model_len": found.max_model_len}
    sys.stdout.write(json.dumps(facts | to_json(found.spec), indent=2) + "\n")
    return 0


def _as_json(chosen: Sequence[Row]) -> str:
    values = [
        {"name": row.name, "family": row.family, "parts": row.parts, "also": row.also}
        for row in chosen
    ]
    return json.dumps(values, indent=2) + "\n"


def _as_text(chosen: Sequence[Row]) -> str:
    width = max(len(row.name) for row in chosen)
    family = max(len(row.family) for row in chosen)
    lines = []
    for row in chosen:
        notes = [*row.parts, *(f"also {name}" for name in row.also)]
        lines.append(f"{row.name:{width}}  {row.family:{family}}  {', '.join(notes)}".rstrip())
    lines.append(f"{len(chosen)} architectures")
    return "\n".join(lines) + "\n"
