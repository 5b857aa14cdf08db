"""Text that arrives in pieces, read by generators that pause where it ends for now.

A format is written as if the whole text were there: every look at the input is a `yield from`, and
what is decided never depends on where a piece ended. What the text becomes is `parsers.message`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from quire.frontend.parsers.places import SpecialPlaces

_T = TypeVar("_T")

Step = Generator[None, None, _T]
"""A reading in progress: yields while it needs more text, returns what it read."""

Write = Callable[[str], None]

_FAR = 1 << 60
_NO_SPACE = re.compile(r"[^ \t\r\n]")


class Tags:
    """A set of texts to look for. The earliest wins; of those that begin together, the longest."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(texts) - {""}
        longest_first = sorted(self.texts, key=lambda text: (-len(text), text))
        self._whole = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        firsts = "".join(sorted({text[0] for text in self.texts}))
        self._first = re.compile(f"[{re.escape(firsts)}]" if firsts else "(?!)")
        self._beginnings = frozenset(
            text[:end] for text in self.texts for end in range(1, len(text))
        )
        self._open = self._beginnings | {""}
        self._reach = max(map(len, self.texts), default=1) - 1

    def find(self, text: str, at: int, ended: bool, limit: int = _FAR) -> tuple[int, str]:
        """Up to where the text from `at` is none of these, and the one that stands there or "".

        ended  no text follows, so that a beginning is no longer held back.
        limit  only those that begin before this place are looked for.
        """
        first = self._first.search(text, at, limit)
        if first is None:
            return min(len(text), limit), ""
        held = min(limit, len(text) if ended else self._held(text, first.start()))
        found = self._whole.search(text, first.start(), limit + self._reach)
        if found is not None and found.start() < held:
            return found.start(), found.group()
        return held, ""

    def here(self, text: str, at: int, ended: bool) -> str | None:
        """The longest of these that begins at `at`, "" for none, None while that is open."""
        if not ended and len(text) - at <= self._reach and text[at:] in self._open:
            return None
        found = self._whole.match(text, at)
        return found.group() if found else ""

    def _held(self, text: str, at: int) -> int:
        """Where the beginning of one of these stands at the text's end, or the length of the text."""
        place = max(at, len(text) - self._reach)
        while place < len(text):
            first = self._first.search(text, place)
            if first is None:
                break
            place = first.start()
            if text[place:] in self._beginnings:
                return place
            place += 1
        return len(text)


class Source:
    """The text that is not yet read, and a record of what was read since a mark.

    places  tells tags that are special tokens from text that looks like them; None for no difference.

    Whatever waits for more text has taken all that is certain, so that what waits is short and the
    time for a text is linear in it, however it is cut.
    """

    def __init__(self, places: SpecialPlaces | None = None) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._places = places
        self._num_gone = 0  # characters before `text`
        self._record: list[str] | None = None

    def put(self, text: str) -> None:
        """Adds text at the end."""
        self._num_gone += self.at
        self.text = self.text[self.at :] + text if self.at < len(self.text) else text
        self.at = 0

    def mark(self, already: str = "") -> None:
        """Begins a record of what is read, with `already` in it."""
        self._record = [already]

    def marked(self) -> str:
        """Ends the record; the text in it."""
        record, self._record = self._record, None
        return "".join(record or ())

    def take(self, end: int) -> str:
        """Reads up to the place `end` of `text`."""
        piece = self.text[self.at : end]
        self.at = end
        if self._record is not None:
            self._record.append(piece)
        return piece

    def give_back(self, tag: str) -> None:
        """Makes the tag that was just read unread again."""
        self.at -= len(tag)
        if self._record is not None:
            self._record.pop()

    def _is_real(self, tag: str, at: int) -> bool:
        return self._places is None or self._places.is_real(tag, self._num_gone + at)

    def more(self) -> Step[bool]:
        """Waits until there is a character that is not yet read; False at the end of the text."""
        while self.at >= len(self.text):
            if self.ended:
                return False
            yield
        return True

    def character(self) -> Step[str]:
        """The next character, which stays unread; "" at the end."""
        there = yield from self.more()
        return self.text[self.at] if there else ""

    def space(self) -> Step[str]:
        """Reads white space. What was read."""
        pieces = []
        while (yield from self.more()):
            found = _NO_SPACE.search(self.text, self.at)
            end = found.start() if found else len(self.text)
            pieces.append(self.take(end))
            if found:
                break
        return "".join(pieces)

    def one_of(self, tags: Tags) -> Step[str]:
        """Reads the longest of the tags that stands here. That one, or "" if none does."""
        while (tag := tags.here(self.text, self.at, self.ended)) is None:
            yield
        if not tag or not self._is_real(tag, self.at):
            return ""
        self.take(self.at + len(tag))
        return tag

    def until(self, tags: Tags, write: Write) -> Step[str]:
        """Writes the text up to the next of the tags, which is read too. That one, or "" at the end."""
        while True:
            safe, tag = tags.find(self.text, self.at, self.ended)
            if tag and not self._is_real(tag, safe):
                write(self.take(safe + 1))
                continue
            if safe > self.at:
                write(self.take(safe))
            if tag:
                self.take(self.at + len(tag))
                return tag
            if self.ended:
                return ""
            yield

    def short(self, tags: Tags, limit: int) -> Step[tuple[str, str]]:
        """Reads a short text up to one of the tags: the text, and the tag.

        The tag is "" if there is none within `limit` characters; what was read then is in the record.
        """
        pieces: list[str] = []
        left = limit
        while left > 0:
            safe, tag = tags.find(self.text, self.at, self.ended, self.at + left)
            if tag and not self._is_real(tag, safe):
                safe += 1
            if safe > self.at:
                pieces.append(self.take(safe))
                left -= len(pieces[-1])
                continue
            if tag:
                self.take(self.at + len(tag))
                return "".join(pieces), tag
            if self.ended:
                break
            yield
        return "".join(pieces), ""
