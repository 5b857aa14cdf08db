"""Finds stop strings in text that comes in pieces, and holds back what may be the start of one.

Which tokens made the text, and ending the request, is `frontend.outputs`' business.
"""

from __future__ import annotations


class StopMatcher:
    """Feeds on the text of one sequence. For every way of cutting the text the result is the same.

    The stop string that is complete first wins; of two that end on the same character, the one
    that begins first. Time is linear in the text (Knuth, Morris, Pratt 1977).

    include  whether the stop string itself is part of the text.
    """

    def __init__(self, stops: list[str], *, include: bool = False) -> None:
        self._include = include
        self._stops = sorted(stops, key=len, reverse=True)
        self._fallbacks = [_fallbacks(stop) for stop in self._stops]
        self._matched = [0] * len(stops)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str | None]:
        """The text that is certain now, and the stop string that ended it, or None.

        After a match the rest of the piece is dropped and nothing more may be fed.
        """
        text = self._held + piece
        for place in range(len(self._held), len(text)):
            stop = self._advance(text[place])
            if stop is not None:
                self._held = ""
                end = place + 1 if self._include else place + 1 - len(stop)
                return text[:end], stop
        return self._release(text), None

    def skip(self, piece: str) -> str:
        """Like `feed`, but a stop string that is complete within the piece does not count."""
        for character in piece:
            self._advance(character)
        return self._release(self._held + piece)

    def finish(self) -> str:
        """The text still held back; no stop string ends in it."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        """Takes one character in; the longest stop string that it completes."""
        found = None
        for at, stop in enumerate(self._stops):
            matched = self._matched[at]
            if matched == len(stop):
                matched = self._fallbacks[at][-1]
            while matched and stop[matched] != character:
                matched = self._fallbacks[at][matched - 1]
            if stop[matched] == character:
                matched += 1
            self._matched[at] = matched
            if matched == len(stop) and found is None:
                found = stop
        return found

    def _release(self, text: str) -> str:
        """Keeps the longest end of the text that a stop string begins with; gives back the rest."""
        kept = max(
            (
                fallback[-1] if matched == len(fallback) else matched
                for matched, fallback in zip(self._matched, self._fallbacks)
            ),
            default=0,
        )
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of a non-empty stop: the length of its longest proper prefix that also ends it."""
    table = [0] * len(stop)
    matched = 0
    for place in range(1, len(stop)):
        while matched and stop[matched] != stop[place]:
            matched = table[matched - 1]
        if stop[matched] == stop[place]:
            matched += 1
        table[place] = matched
    return table
