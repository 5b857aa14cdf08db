"""Feeds text to a reader in pieces and joins what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from quire.frontend.parsers.reader import make_reader
from quire.protocol.message import ReadOptions


@dataclass(frozen=True)
class Read:
    """A whole message; calls are (id, name, arguments)."""

    reasoning: str
    content: str
    calls: tuple[tuple[str, str, str], ...]


def read(
    pieces: Iterable[str],
    *,
    tools: str | None = None,
    reasoning: str | None = None,
    tokenizer: Any = None,
    tools_given: Any = None,
    **options: Any,
) -> Read:
    """What a reader makes of the pieces; ids are made of a call's name and number."""
    choice = "auto" if tools else "none"
    given = ReadOptions(**{"tool_choice": choice, "tools": tools_given, **options})
    reader = make_reader(reasoning, tools, given, tokenizer, make_id=lambda name, n: f"{name}#{n}")
    deltas = [reader.feed(piece, ()) for piece in pieces]
    deltas.append(reader.finish())
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.calls:
            if call.index not in calls:
                assert call.name and call.id, "a call begins with its name and id"
                assert call.index == len(calls), "calls begin in order"
                calls[call.index] = [call.id, call.name, ""]
            else:
                assert not call.name and not call.id, "name and id come once"
            calls[call.index][2] += call.arguments
    return Read(
        "".join(delta.reasoning for delta in deltas),
        "".join(delta.content for delta in deltas),
        tuple((one[0], one[1], one[2]) for one in calls.values()),
    )
