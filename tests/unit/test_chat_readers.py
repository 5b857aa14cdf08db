"""Readers are opened as the settings say: by name, from a user's file; frames are what parsers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quire.config.demo import with_model
from quire.config.schema import ParserConfig, Settings
from quire.frontend.chat_readers import FRAMES, ReaderSource
from quire.protocol.errors import SettingsError
from quire.protocol.message import MessageDelta, ReadOptions

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
]
PLUGIN = """
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.plugins import register_tool_format

register_tool_format("bracketed", JsonCalls(tags=("[[",), ends=("]]",)))
"""


def read(config: ParserConfig, text: str, **options: Any) -> MessageDelta:
    given = {"tools": TOOLS, "tool_choice": "auto", **options}
    reader, other = ReaderSource(config, None).open(ReadOptions(**given), 2)
    assert reader is not other
    deltas = [*(reader.feed(one, [0]) for one in text), reader.finish()]
    return MessageDelta(
        reasoning="".join(one.reasoning for one in deltas),
        content="".join(one.content for one in deltas),
        calls=[call for one in deltas for call in one.calls],
    )


def test_names_that_are_not_known_are_refused() -> None:
    for config in (
        ParserConfig(tool_call_parser="nosuch"),
        ParserConfig(reasoning_parser="nosuch"),
    ):
        with pytest.raises(SettingsError, match=r"nosuch.*known are"):
            ReaderSource(config, None)


def test_a_users_file_adds_a_format(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    config = ParserConfig(tool_call_parser="bracketed", tool_parser_plugin=str(file))
    found = read(config, 'Yes. [[{"name": "f", "arguments": {"a": 1}}]]')
    assert found.calls[0].name == "f"
    assert "".join(one.arguments for one in found.calls) == '{"a": 1}'
    missing = ParserConfig(tool_parser_plugin=str(tmp_path / "other.py"))
    with pytest.raises(SettingsError, match=r"other\.py"):
        ReaderSource(missing, None)


@pytest.mark.parametrize("name", FRAMES)
def test_what_a_frame_makes_is_what_its_parser_reads(name: str) -> None:
    frame = FRAMES[name]
    assert (frame.opening or frame.begin).startswith(frame.trigger)
    arguments = ['{"a": 1}', '{"b": {"c": ["</tool_call>", "}"]}}']
    calls = frame.separator.join(
        frame.begin.replace("{name}", "f")
        + f"{place}{frame.counted}" * bool(frame.counted)
        + one
        + frame.end
        for place, one in enumerate(arguments)
    )
    found = read(ParserConfig(tool_call_parser=name), frame.opening + calls + frame.closing)
    assert found.content == ""
    joined = ["", ""]
    for call in found.calls:
        joined[call.index] += call.arguments
    assert joined == arguments and {one.name for one in found.calls if one.name} == {"f"}


def test_the_demo_model_knows_how_it_calls_tools_and_thinks() -> None:
    parsers = with_model(Settings()).parsers
    assert parsers.tool_call_parser == "hermes" and parsers.enable_auto_tool_choice
    found = read(
        parsers, '<think>\nwhy\n</think>\nok <tool_call>{"name": "f", "arguments": {}}</tool_call>'
    )
    assert "why" in found.reasoning and "ok" in found.content and found.calls[0].name == "f"
    own = Settings(parsers=ParserConfig(tool_call_parser="mistral", reasoning_parser="mistral"))
    assert with_model(own).parsers == own.parsers
