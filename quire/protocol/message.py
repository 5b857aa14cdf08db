"""An assistant's message as it grows: reasoning, text and calls of tools, taken out of the model's output.

Reading model output is `quire.frontend.parsers`; writing messages in a client's format is the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec


class CallDelta(msgspec.Struct, omit_defaults=True):
    """News of the call number `index`: `id` and `name` come once and first, `arguments` in pieces.

    The pieces of `arguments` joined are the text of one JSON object.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class MessageDelta(msgspec.Struct, omit_defaults=True):
    """What a piece of output adds to a message; empty parts add nothing."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallDelta] = []

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class MessageReader(Protocol):
    """Splits one choice's output, fed in pieces. However it is cut, the joined result is the same."""

    def feed(self, text: str, token_ids: Sequence[int]) -> MessageDelta:
        """Takes the next piece: its text and the ids it came from. Never raises for what a model says."""
        ...

    def finish(self) -> MessageDelta:
        """What was held back, once the output has ended."""
        ...

    @property
    def needs_special_tokens(self) -> bool:
        """Whether it must be fed text in which special tokens show."""
        ...

    @property
    def num_reasoning_tokens(self) -> int:
        """Ids fed so far that belong to the reasoning."""
        ...


@dataclass(frozen=True, kw_only=True)
class CallFrame:
    """What a model writes around the JSON object of a call's arguments.

    begin, end  around one call; `{name}` in begin is where the tool's name stands.
    trigger     how every begin begins and no text does; "" where calls cannot be told from text so early.
    separator   between two calls.
    opening, closing  around all calls of a message; where there is a trigger, opening begins with it.
    counted     behind begin stand a number and this text.
    text        a regex of answers that are no calls, where calls are the whole message.
    """

    begin: str
    end: str
    trigger: str = ""
    separator: str = ""
    opening: str = ""
    closing: str = ""
    counted: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a request says about how its answer is to be read.

    tools         definitions in OpenAI's form, already checked; None for none.
    tool_choice   "none", "auto", "required" or "named"; then `named_tool` is the one to call.
    parallel_tool_calls  False keeps the first call only.
    template_kwargs      variables of the chat template, as `enable_thinking`.
    prompt_token_ids     the rendered prompt, which may end inside the reasoning.
    """

    tools: list[dict[str, Any]] | None = None
    tool_choice: str = "none"
    named_tool: str | None = None
    parallel_tool_calls: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    prompt_token_ids: Sequence[int] = ()
