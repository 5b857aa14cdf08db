"""Opens the readers of a model's answers, as the settings name their formats.

The formats and how they are read are `frontend.parsers`.
"""

from __future__ import annotations

from quire.config.schema import ParserConfig
from quire.frontend.parsers.plugins import load_plugin
from quire.frontend.parsers.reader import make_reader
from quire.frontend.parsers.registry import think_format, tool_format
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.message import CallFrame, MessageReader, ReadOptions


def _listed(opening: str, closing: str) -> CallFrame:
    """Calls as one JSON list."""
    begin = '{"name": "{name}", "arguments": '
    return CallFrame(begin=begin, end="}", separator=", ", opening=opening, closing=closing)


FRAMES = {
    "hermes": CallFrame(
        begin='<tool_call>{"name": "{name}", "arguments": ',
        end="}</tool_call>",
        trigger="<tool_call>",
        separator="\n",
    ),
    "deepseek_v31": CallFrame(
        begin="<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",
        end="<｜tool▁call▁end｜>",
        trigger="<｜tool▁call▁begin｜>",
        opening="<｜tool▁calls▁begin｜>",
        closing="<｜tool▁calls▁end｜>",
    ),
    "llama3_json": CallFrame(begin='{"name": "{name}", "parameters": ', end="}", separator="; "),
    "granite": _listed("<|tool_call|>[", "]"),
    "jamba": _listed("<tool_calls>[", "]</tool_calls>"),
    "phi4_mini_json": _listed("functools[", "]"),
}
"""How calls look in formats whose arguments are a JSON object between fixed texts."""


class ReaderSource:
    """Makes readers for one model. Loads the files of users that the settings name.

    Raises SettingsError for a format that is not known, or a file that adds none.

    tokenizer  None where there is none; then nothing is known of special tokens.
    `frame` is what stands around a call's arguments, None where that cannot be said.
    """

    def __init__(self, config: ParserConfig, tokenizer: Tokenizer | None) -> None:
        load_plugin(config.reasoning_parser_plugin)
        load_plugin(config.tool_parser_plugin)
        self._reasoning = config.reasoning_parser or None
        self._tools = config.tool_call_parser or None
        self._tokenizer = tokenizer
        self.frame = FRAMES.get(self._tools or "")
        if self._reasoning is not None:
            think_format(self._reasoning)
        if self._tools is not None:
            tool_format(self._tools)

    def open(self, options: ReadOptions, count: int) -> list[MessageReader]:
        """A reader for each of `count` choices of one request."""
        return [
            make_reader(self._reasoning, self._tools, options, self._tokenizer)
            for _ in range(count)
        ]
