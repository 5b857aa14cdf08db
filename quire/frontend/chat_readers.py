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


def _listed(opening: str, closing: str, trigger: str, name: str = "name") -> CallFrame:
    """Calls as one JSON list."""
    arguments = "arguments" if name == "name" else "parameters"
    return CallFrame(
        begin=f'{{"{name}": "{{name}}", "{arguments}": ',
        end="}",
        separator=", ",
        trigger=trigger,
        opening=opening,
        closing=closing,
    )


def _object(begin: str, end: str, separator: str = "", arguments: str = "arguments") -> CallFrame:
    """Each call a JSON object behind a tag of its own."""
    return CallFrame(
        begin=f'{begin}{{"name": "{{name}}", "{arguments}": ',
        end="}" + end,
        trigger=begin.split("\n")[0],
        separator=separator,
    )


def _deepseek(begin: str, end: str) -> CallFrame:
    return CallFrame(
        begin="<｜tool▁call▁begin｜>" + begin,
        end=end + "<｜tool▁call▁end｜>",
        trigger="<｜tool▁calls▁begin｜>",
        opening="<｜tool▁calls▁begin｜>",
        closing="<｜tool▁calls▁end｜>",
    )


_COMMAND = _listed("<|START_ACTION|>[", "]<|END_ACTION|>", "<|START_ACTION|>", "tool_name")
_LLAMA = CallFrame(
    begin='{"name": "{name}", "parameters": ',
    end="}",
    separator="; ",
    text=r"([^\s{\[](.|\n)*)?",
)
FRAMES = {
    "hermes": _object("<tool_call>", "</tool_call>", "\n"),
    "longcat": _object("<longcat_tool_call>", "</longcat_tool_call>", "\n"),
    "ernie45": _object("<tool_call>\n", "\n</tool_call>\n"),
    "granite-20b-fc": _object("<function_call>", "</function_call>"),
    "internlm": _object("<|action_start|><|plugin|>", "<|action_end|>", arguments="parameters"),
    "gigachat3": _object("<|function_call|>", ""),
    "mistral": CallFrame(begin="[TOOL_CALLS]{name}[ARGS]", end="", trigger="[TOOL_CALLS]"),
    "deepseek_v3": _deepseek("function<｜tool▁sep｜>{name}\n```json\n", "\n```"),
    "deepseek_v31": _deepseek("{name}<｜tool▁sep｜>", ""),
    "kimi_k2": CallFrame(
        begin="<|tool_call_begin|>functions.{name}:",
        counted="<|tool_call_argument_begin|>",
        end="<|tool_call_end|>",
        trigger="<|tool_calls_section_begin|>",
        opening="<|tool_calls_section_begin|>",
        closing="<|tool_calls_section_end|>",
    ),
    "llama3_json": _LLAMA,
    "llama4_json": _LLAMA,
    "granite": _listed("<|tool_call|>[", "]", "<|tool_call|>"),
    "jamba": _listed("<tool_calls>[", "]</tool_calls>", "<tool_calls>"),
    "phi4_mini_json": _listed("functools[", "]", "functools["),
    "cohere": _COMMAND,
    "cohere_command3": _COMMAND,
    "cohere_command4": _COMMAND,
}
"""How calls look in formats whose arguments are a JSON object between fixed texts."""


def check_parsers(config: ParserConfig) -> None:
    """Loads the files of users that the settings name; raises SettingsError for what `ReaderSource` refuses.

    It needs no model, so it can be asked before the weights are loaded.
    """
    load_plugin(config.reasoning_parser_plugin)
    load_plugin(config.tool_parser_plugin)
    if config.reasoning_parser:
        think_format(config.reasoning_parser)
    if config.tool_call_parser:
        tool_format(config.tool_call_parser)


class ReaderSource:
    """Makes readers for one model. Raises SettingsError for a format that is not known, or a file that adds none.

    tokenizer  None where there is none; then nothing is known of special tokens.
    `frame` is what stands around a call's arguments, None where that cannot be said.
    """

    def __init__(self, config: ParserConfig, tokenizer: Tokenizer | None) -> None:
        check_parsers(config)
        self._reasoning = config.reasoning_parser or None
        self._tools = config.tool_call_parser or None
        self._tokenizer = tokenizer
        self.frame = FRAMES.get(self._tools or "")

    def open(self, options: ReadOptions, count: int) -> list[MessageReader]:
        """A reader for each of `count` choices of one request."""
        return [
            make_reader(self._reasoning, self._tools, options, self._tokenizer)
            for _ in range(count)
        ]
