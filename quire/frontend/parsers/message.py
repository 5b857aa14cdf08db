"""An assistant's message under construction: what readers of formats write into.

Where it goes is a `MessageDelta` for each piece of output; cutting text apart is `parsers.source`.
"""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable

from quire.frontend.parsers.schemas import ToolSchemas
from quire.protocol.message import CallDelta, MessageDelta

MakeId = Callable[[str, int], str]
"""The id of a call, from the name of its tool and its number."""

_SHORT_ID = 9
_ALPHABET = string.ascii_letters + string.digits


def long_id(name: str, index: int) -> str:
    """An id as OpenAI's clients know it from vLLM."""
    return f"chatcmpl-tool-{uuid.uuid4().hex}"


def short_id(name: str, index: int) -> str:
    """Nine letters and digits, the only form that Mistral's templates accept."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_SHORT_ID))


def counted_id(name: str, index: int) -> str:
    """The tool's name and the call's number, as Kimi's templates write it."""
    return f"functions.{name}:{index}"


class Message:
    """Collects reasoning, content and calls until they are taken.

    holds_space  white space before a call and after the last one is no content.
    may_reason   nor is white space before the reasoning.
    parallel     False keeps the first call only.
    tools        the schemas of the arguments, for formats whose arguments are plain text.
    """

    def __init__(
        self,
        *,
        tools: ToolSchemas,
        make_id: MakeId,
        holds_space: bool,
        may_reason: bool,
        parallel: bool,
    ) -> None:
        self.tools = tools
        self.num_calls = 0
        self.has_content = False
        self._make_id = make_id
        self._holds_space = holds_space
        self._holds_start = holds_space or may_reason
        self._parallel = parallel
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._space: list[str] = []
        self._calls: list[CallDelta] = []
        self._pieces: list[str] = []

    def reason(self, text: str) -> None:
        """Adds to the reasoning."""
        self._reasoning.append(text)

    def say(self, text: str) -> None:
        """Adds to the content."""
        if not text:
            return
        if not (self._holds_space or self._holds_start):
            self._content.append(text)
            return
        body = text.rstrip()
        if body:
            self._content += self._space
            self._content.append(body)
            self._space = []
            self.has_content = True
            self._holds_start = False
        if len(body) == len(text):
            return
        held = self._space if self._holds_space or not body else self._content
        held.append(text[len(body) :])

    def begin_reasoning(self) -> None:
        """Reasoning follows; white space that is all there was before it is none of the content."""
        if not self.has_content:
            self._space = []

    def call(self, name: str, call_id: str = "") -> None:
        """Begins a call; `argue` then writes its arguments."""
        self._space = []
        self._flush_arguments()
        index = self.num_calls
        self.num_calls += 1
        if index == 0 or self._parallel:
            made = call_id or self._make_id(name, index)
            self._calls.append(CallDelta(index=index, id=made, name=name))

    def argue(self, text: str) -> None:
        """Adds to the arguments of the last call."""
        if self.num_calls == 1 or self._parallel:
            self._pieces.append(text)

    def call_whole(self, name: str, arguments: str, call_id: str = "") -> None:
        """A call of which everything is known."""
        self.call(name, call_id)
        self.argue(arguments)

    def end(self) -> None:
        """Nothing follows: white space that was held back belongs to a message without calls."""
        if not self.num_calls:
            self._content += self._space
        self._space = []

    def taken(self) -> MessageDelta:
        """What came since the last time."""
        if self._content and not self._reasoning and not self.num_calls:
            content, self._content = self._content, []
            return MessageDelta(content=content[0] if len(content) == 1 else "".join(content))
        self._flush_arguments()
        delta = MessageDelta(
            reasoning="".join(self._reasoning), content="".join(self._content), calls=self._calls
        )
        self._reasoning, self._content, self._calls = [], [], []
        return delta

    def _flush_arguments(self) -> None:
        text = "".join(self._pieces)
        if not text:
            return
        self._pieces = []
        if self._calls:
            self._calls[-1].arguments += text
        else:
            self._calls.append(CallDelta(index=self.num_calls - 1, arguments=text))
