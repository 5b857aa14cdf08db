"""An assistant's message as blocks that follow one another: reasoning, text, calls of tools.

How a block goes over the wire is `server.responses` and `server.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quire.protocol.message import MessageDelta

Kind = Literal["reasoning", "text", "call"]


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to the one open block; `call_id` and `name` come when a call opens."""

    action: Literal["open", "add", "close"]
    kind: Kind
    text: str = ""
    call_id: str = ""
    name: str = ""


class Blocks:
    """Turns the news of one message into steps. At most one block is open at a time.

    White space before the first other character of a text is held back: a text of nothing else is no
    block, unless the whole message is that.
    """

    def __init__(self) -> None:
        self._open: Kind | None = None
        self._call = -1
        self._space = ""
        self._num_blocks = 0

    def feed(self, delta: MessageDelta) -> list[Step]:
        """The steps that the news amount to."""
        steps: list[Step] = []
        if delta.reasoning:
            self._enter("reasoning", steps)
            steps.append(Step("add", "reasoning", delta.reasoning))
        if delta.content:
            self._text(delta.content, steps)
        for call in delta.calls:
            if self._open != "call" or call.index != self._call:
                self._enter("call", steps, again=True, call_id=call.id, name=call.name)
                self._call = call.index
            if call.arguments:
                steps.append(Step("add", "call", call.arguments))
        return steps

    def finish(self) -> list[Step]:
        """The steps after the last news."""
        steps: list[Step] = []
        space = self._space
        if space and not self._num_blocks:
            self._enter("text", steps)
            steps.append(Step("add", "text", space))
        self._close(steps)
        return steps

    def _text(self, text: str, steps: list[Step]) -> None:
        if self._open != "text":
            self._space += text
            if self._space.isspace():
                return
            text, self._space = self._space, ""
            self._enter("text", steps)
        steps.append(Step("add", "text", text))

    def _enter(
        self,
        kind: Kind,
        steps: list[Step],
        *,
        again: bool = False,
        call_id: str = "",
        name: str = "",
    ) -> None:
        if self._open == kind and not again:
            return
        self._close(steps)
        self._space = ""
        self._open = kind
        self._num_blocks += 1
        steps.append(Step("open", kind, call_id=call_id, name=name))

    def _close(self, steps: list[Step]) -> None:
        if self._open is not None:
            steps.append(Step("close", self._open))
            self._open = None
