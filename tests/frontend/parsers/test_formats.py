"""Every format reads its recorded outputs, whole and in pieces of every kind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.frontend.parsers.registry import THINK_FORMATS, TOOL_FORMATS
from tests.frontend.parsers.reading import Read, read
from tests.frontend.parsers.shapes import TOOLS

DATA = Path(__file__).parents[2] / "data" / "parsers"
SAME = {
    "glm4_moe": "glm45", "poolside_v1": "poolside", "cohere_command3": "cohere",
    "cohere_command4": "cohere", "deepseek_v31": "deepseek_v3", "deepseek_v4": "deepseek_v3",
}  # fmt: skip
"""Names that stand for the format of another name; where they do not, they have files of their own."""


def recorded(kind: str, name: str) -> list[dict[str, Any]]:
    path = DATA / kind / f"{name}.json"
    if not path.exists():
        path = DATA / kind / f"{SAME[name]}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def reads(kind: str, name: str, row: dict[str, Any], pieces: list[str]) -> Read:
    more = {"template_kwargs": row.get("template_kwargs", {}), "tools_given": TOOLS}
    if kind == "tools":
        return read(pieces, tools=name, **more)
    return read(pieces, reasoning=name, tools=row.get("tools"), **more)


CASES = [("tools", name) for name in sorted(TOOL_FORMATS)] + [
    ("reasoning", name) for name in sorted(THINK_FORMATS)
]
DISTINCT = [
    ("tools", name) for name in {form: name for name, form in TOOL_FORMATS.items()}.values()
]
DISTINCT += [
    ("reasoning", name) for name in {form: name for name, form in THINK_FORMATS.items()}.values()
]
"""One name for each format that has several."""


def parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_whole(kind: str, name: str) -> None:
    rows = recorded(kind, name)
    assert len(rows) >= 20
    for row in rows:
        found = reads(kind, name, row, [row["text"]])
        assert found.content == row["content"], row["note"]
        assert found.reasoning == row.get("reasoning", ""), row["note"]
        calls = [{"name": name, "arguments": parsed(given)} for _, name, given in found.calls]
        assert calls == row["calls"], row["note"]


def check_splits(kind: str, name: str, most: int) -> None:
    """In single characters, and in two pieces at `most` places or all."""
    for row in recorded(kind, name):
        text = row["text"]
        whole = reads(kind, name, row, [text])
        assert reads(kind, name, row, list(text)) == whole, row["note"]
        places: Sequence[int] = range(1, len(text), max(1, len(text) // most))
        if len(text) > 300:  # inside a long word one cut is like another
            word = re.compile(r"[a-z9]{4}")
            places = [at for at in places if not word.match(text, at - 2) or at % 16 == 0]
        for at in places:
            assert reads(kind, name, row, [text[:at], text[at:]]) == whole, (row["note"], at)


@pytest.mark.parametrize(("kind", "name"), DISTINCT)
def test_splits(kind: str, name: str) -> None:
    check_splits(kind, name, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), DISTINCT)
def test_every_split(kind: str, name: str) -> None:
    check_splits(kind, name, 700)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_random_cuts(data: st.DataObject) -> None:
    kind, name = data.draw(st.sampled_from(CASES))
    row = data.draw(st.sampled_from(recorded(kind, name)))
    text = row["text"]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
    assert reads(kind, name, row, pieces) == reads(kind, name, row, [text])


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mixtures(data: st.DataObject) -> None:
    """Pieces of recorded outputs in any order: nothing is raised, and cuts change nothing."""
    kind, name = data.draw(st.sampled_from(CASES))
    texts = [row["text"][:500] for row in recorded(kind, name)]
    text = ""
    for _ in range(data.draw(st.integers(1, 4))):
        one = data.draw(st.sampled_from(texts))
        start, end = sorted(data.draw(st.integers(0, len(one))) for _ in range(2))
        text += one[start:end]
    row: dict[str, Any] = {"tools": data.draw(st.sampled_from([None, "hermes"]))}
    whole = reads(kind, name, row, [text])
    assert reads(kind, name, row, list(text)) == whole
    at = data.draw(st.integers(0, len(text)))
    assert reads(kind, name, row, [text[:at], text[at:]]) == whole
