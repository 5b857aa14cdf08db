"""Parsers written as classes in the manner of vLLM, and the formats that they become.

A class is given the whole output at its end, so that its answer is the same streamed or not; its methods
for streaming are not called. Registering a class is `parsers.plugins`.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Container
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.source import Source, Step
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.message import ReadOptions

logger = logging.getLogger(__name__)


@dataclass
class FunctionCall:
    """The tool's name, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


@dataclass
class ToolCall:
    """One call; without an id it gets one."""

    function: FunctionCall
    id: str = ""
    type: str = "function"


@dataclass
class ExtractedToolCallInformation:
    """What `ToolParser.extract_tool_calls` found."""

    tools_called: bool
    tool_calls: list[ToolCall] = field(default_factory=list)
    content: str | None = None


class ToolParser:
    """Base of classes that take calls of tools out of an output.

    tokenizer  `model_tokenizer` too; `vocab` is its vocabulary.
    """

    supports_required_and_named = True

    def __init__(self, tokenizer: Any, tools: Any = None) -> None:
        self.model_tokenizer = self.tokenizer = tokenizer
        self.tools = tools
        self.prev_tool_call_arr: list[dict[str, Any]] = []
        self.current_tool_id = -1
        self.current_tool_name_sent = False
        self.streamed_args_for_tool: list[str] = []

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id."""
        found: dict[str, int] = self.model_tokenizer.get_vocab() if self.model_tokenizer else {}
        return found

    def adjust_request(self, request: Any) -> Any:
        """May set `request.skip_special_tokens` to False, so that the text shows special tokens."""
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> Any:
        """The calls in a whole output: an `ExtractedToolCallInformation` or an object like it."""
        return ExtractedToolCallInformation(False, [], model_output)


class ReasoningParser:
    """Base of classes that take the reasoning out of an output."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        self.model_tokenizer = self.tokenizer = tokenizer

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id."""
        found: dict[str, int] = self.model_tokenizer.get_vocab() if self.model_tokenizer else {}
        return found

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """The reasoning and the content of a whole output."""
        return self.extract_reasoning_content(model_output, request)

    def extract_reasoning_content(
        self, model_output: str, request: Any
    ) -> tuple[str | None, str | None]:
        """The older name of `extract_reasoning`."""
        return None, model_output


class _Everything(Container[str]):
    """Any first character."""

    def __contains__(self, item: object) -> bool:
        return True


@dataclass(frozen=True)
class ClassTools:
    """The `ToolFormat` of a `ToolParser`; `bound` makes the one for a request."""

    parser: type[ToolParser]
    needs_special_tokens: bool = False
    options: ReadOptions | None = field(default=None, compare=False)
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    tags: tuple[str, ...] = ()
    openings: Container[str] = field(default=_Everything(), compare=False)
    drops: tuple[str, ...] = ()
    make_id: MakeId = long_id

    def bound(self, options: ReadOptions, tokenizer: Tokenizer | None) -> ClassTools:
        """The same for one request. Raises what the class raises."""
        request = as_request(options)
        request = self._made(options, tokenizer).adjust_request(request) or request
        return ClassTools(
            self.parser, not getattr(request, "skip_special_tokens", True), options, tokenizer
        )

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads all that follows; see `ToolFormat`. An error of the class makes it content."""
        pieces: list[str] = []
        while (yield from source.more()):
            pieces.append(source.take(len(source.text)))
        options = self.options or ReadOptions()
        try:
            parser = self._made(options, self.tokenizer)
            found = parser.extract_tool_calls("".join(pieces), as_request(options))
            calls = [
                (str(call.function.name), _text_of(call.function.arguments), call.id or "")
                for call in (found.tool_calls if found.tools_called else ())
            ]
            content = found.content or ""
        except Exception:  # a plug-in may raise anything
            logger.exception("the tool parser %s failed", self.parser.__name__)
            return False
        message.say(content)
        for name, arguments, call_id in calls:
            message.call_whole(name, arguments, call_id)
        return True

    def _made(self, options: ReadOptions, tokenizer: Tokenizer | None) -> ToolParser:
        takes_tools = "tools" in inspect.signature(self.parser.__init__).parameters
        return self.parser(tokenizer, options.tools) if takes_tools else self.parser(tokenizer)


@dataclass(frozen=True)
class ClassThinking:
    """Splits whole outputs as a `ReasoningParser` does."""

    parser: type[ReasoningParser]

    def __call__(
        self, text: str, options: ReadOptions, tokenizer: Tokenizer | None
    ) -> tuple[str, str]:
        """(reasoning, content). An error of the class makes all of it content."""
        try:
            kwargs = {"chat_template_kwargs": dict(options.template_kwargs)}
            takes = inspect.signature(self.parser.__init__).parameters.values()
            more = kwargs if any(one.kind is one.VAR_KEYWORD for one in takes) else {}
            made = self.parser(tokenizer, **more)
            reasoning, content = made.extract_reasoning(text, as_request(options))
            return reasoning or "", content or ""
        except Exception:  # a plug-in may raise anything
            logger.exception("the reasoning parser %s failed", self.parser.__name__)
            return "", text


def thinking_of_class(parser: type[ReasoningParser]) -> ThinkFormat:
    """The format of a `ReasoningParser`."""
    return ThinkFormat(starts=(), ends=(), split=ClassThinking(parser))


def as_request(options: ReadOptions) -> Any:
    """What of a request a parser may look at."""
    return SimpleNamespace(
        tools=[_attributes(tool) for tool in options.tools or ()] or None,
        tool_choice=options.tool_choice,
        parallel_tool_calls=options.parallel_tool_calls,
        chat_template_kwargs=dict(options.template_kwargs),
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        include_reasoning=True,
    )


def _attributes(tool: dict[str, Any]) -> Any:
    """A tool whose parts are attributes; its schema stays a dictionary."""
    function = tool.get("function", tool)
    return SimpleNamespace(type="function", function=SimpleNamespace(
        name=function.get("name"), description=function.get("description"),
        parameters=function.get("parameters"),
    ))  # fmt: skip


def _text_of(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
