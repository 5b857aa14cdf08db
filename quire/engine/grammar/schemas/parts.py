"""Shapes: what is written of one case and one JSON type, with sets of schemas where values stand inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Wanted = frozenset[int]
"""Numbers of schemas that a value keeps to, all of them."""
NEVER: Wanted = frozenset((1,))


def all_of(numbers: frozenset[int] | set[int]) -> Wanted:
    """The same set without what asks for nothing, and NEVER if one of them allows nothing."""
    return NEVER if 1 in numbers else frozenset(numbers) - {0}


@dataclass
class Shape:
    """A schema with holes.

    plain     keywords as they are written.
    named     members by name; patterned: (regex, members), no two regexes match the same name.
    required  names of members that must be there; they are named.
    first     items by place.
    other     members or items beyond; None where there are none to be.
    least     items that must be there.
    """

    plain: dict[str, Any]
    named: dict[str, Wanted] = field(default_factory=dict)
    patterned: list[tuple[str, Wanted]] = field(default_factory=list)
    required: tuple[str, ...] = ()
    first: tuple[Wanted, ...] = ()
    other: Wanted | None = None
    least: int = 0

    @property
    def needed(self) -> list[Wanted]:
        """What must have a value, so that the shape has one."""
        head = list(self.first[: self.least])
        if self.least > len(self.first):
            head.append(NEVER if self.other is None else self.other)
        return [self.named[name] for name in self.required] + head

    @property
    def holes(self) -> list[Wanted]:
        """All that stands inside."""
        inner = [*self.named.values(), *(one for _, one in self.patterned), *self.first]
        return inner if self.other is None else [*inner, self.other]
