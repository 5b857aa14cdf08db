"""What the reader needs to know of a format: where calls begin and how to read them, where reasoning stands.

The formats themselves are `parsers.tools` and `parsers.reasoning`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from quire.frontend.parsers.message import MakeId, Message
from quire.frontend.parsers.source import Source, Step
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.message import ReadOptions

Split = Callable[[str, ReadOptions, Tokenizer | None], tuple[str, str]]
"""(reasoning, content) of a whole output."""


class ToolFormat(Protocol):
    """How a family of models writes calls of tools."""

    def __hash__(self) -> int: ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Texts at which calls begin."""
        ...

    @property
    def openings(self) -> Container[str]:
        """Characters that begin calls without a tag, where they begin the content."""
        ...

    @property
    def drops(self) -> tuple[str, ...]:
        """Texts that belong to the format and are no content."""
        ...

    @property
    def needs_special_tokens(self) -> bool:
        """Whether its marks are special tokens, which the text must then show."""
        ...

    @property
    def make_id(self) -> MakeId:
        """Makes the ids of its calls."""
        ...

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads calls behind `tag`, or without one if `tag` is "".

        False if what comes is no call: what the source recorded since its mark is content then.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ThinkFormat:
    """Where a family of models puts its reasoning.

    starts, ends  what stands around it.
    inside        an output begins within the reasoning where the prompt does not tell.
    may_skip      but not after a prompt that is known and opens none: there the model opens it, or not.
    switches      template variables that turn reasoning on and off.
    thinks        reasoning is on if no variable tells; without it everything is content.
    again         reasoning may come back in the middle of content.
    calls_end_it  a call of a tool ends the reasoning too.
    drops         texts that belong to the format and are neither reasoning nor content.
    opening       put before an output that begins within the reasoning, all of which is content then.
    whole         reads the whole output, reasoning too, where no format of calls does.
    split         takes the reasoning out of an output that has ended, in place of all of this.
    needs_special_tokens  its marks are special tokens, which the text must show.
    """

    starts: tuple[str, ...] = ("<think>",)
    ends: tuple[str, ...] = ("</think>",)
    inside: bool = False
    may_skip: bool = False
    switches: tuple[str, ...] = ()
    thinks: bool = True
    again: bool = False
    calls_end_it: bool = False
    drops: tuple[str, ...] = ()
    opening: str = ""
    whole: ToolFormat | None = None
    split: Split | None = None
    needs_special_tokens: bool = False
