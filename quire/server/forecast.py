"""How long a queue of prompts takes while answers that run take their share, more begin, and some end.

Who is admitted by that is `server.admission`.
"""

from __future__ import annotations

import math

_MEMORY_S = 8.0  # in which what was seen of rates is forgotten to 37 %
_FADES_S = 60.0
_STEP_S, _NUM_STEPS = 0.5, 80
_FLOOR = 0.02  # of the rate without answers: what prompts get at least
_FIRST_LENGTH, _FIRST_WEIGHT, _MOST_WEIGHT = 512.0, 2.0, 50.0
"""Tokens of an answer while none has ended, and what that counts for among those that have; how many count."""
_LATE_SHARE = 0.2  # of its expected length: what is left of an answer that is longer than expected


class Running:
    """The answers that run, and the line between their number and the rate at which prompts are begun.

    The line goes through the rate without answers and through what was seen lately, so that for the
    number that runs now it says what is seen now.

    tokens_per_s  prompt tokens a second where nothing else runs; 0 if that is not known.
    max_rows      that run at once.
    """

    def __init__(self, tokens_per_s: float, max_rows: int) -> None:
        self._max_rows = max_rows
        self._at_start = self._alone = tokens_per_s
        self._ending: list[float] | None = None
        self._ends: dict[
            int, tuple[int, float, float]
        ] = {}  # number: rows, tokens, where they began
        self._numbers = 0
        self.num_rows = self._rows_before = 0
        self._at = 0.0  # tokens that a row which always ran would have made
        self._seconds = self._rows_s = self._tokens = 0.0
        self._row_seconds = self._made = self._busy_s = 0.0
        self._longest = math.inf  # max_tokens of the last that began
        self._lengths, self._weight = _FIRST_LENGTH * _FIRST_WEIGHT, _FIRST_WEIGHT
        self._requests, self._sizes, self._rows = 1.0, 0.0, 1.0

    def begin(self, size: float, num_rows: int, max_tokens: int | None) -> int:
        """Answers to a prompt of so many tokens have begun; returns their number for `end`."""
        self._longest = max_tokens or math.inf
        length = min(self._longest, self._lengths / self._weight)
        self._ending = None
        self._numbers += 1
        self._ends[self._numbers] = (num_rows, length, self._at)
        self.num_rows += num_rows
        self._requests, self._sizes, self._rows = (
            0.95 * old + new
            for old, new in ((self._requests, 1), (self._sizes, size), (self._rows, num_rows))
        )
        return self._numbers

    def end(self, number: int) -> None:
        """They have ended, or are given up."""
        self._ending = None
        num_rows, _, began = self._ends.pop(number)
        self.num_rows -= num_rows
        kept = 1.0 if self._weight < _MOST_WEIGHT else 1 - 1 / _MOST_WEIGHT
        self._lengths = self._lengths * kept + (self._at - began)
        self._weight = self._weight * kept + 1

    def pass_time(
        self, seconds: float, prompt_tokens: float, made: float, *, has_queue: bool
    ) -> None:
        """So many prompt tokens and tokens of answers were done in a time; rates count with a queue."""
        kept = math.exp(-seconds / _MEMORY_S)
        self._row_seconds = self._row_seconds * kept + seconds * self.num_rows
        self._made = self._made * kept + made
        if self.num_rows:
            self._busy_s = self._busy_s * kept + seconds
        self._at += made / max(1, self.num_rows, self._rows_before)
        self._rows_before = self.num_rows
        self._ending = None
        if has_queue:
            self._seconds = self._seconds * kept + seconds
            self._rows_s = self._rows_s * kept + seconds * self.num_rows
            self._tokens = self._tokens * kept + prompt_tokens
            # A rate from times with a fuller prefix cache, say, counts for a minute or so.
            faded = self._at_start + (self._alone - self._at_start) * math.exp(-seconds / _FADES_S)
            self._alone = max(faded, self._tokens / max(self._seconds, _MEMORY_S / 2))

    def _pace(self) -> float:
        """Tokens a second of one answer."""
        return self._made / self._row_seconds if self._row_seconds > 0 else 0.0

    def seconds_for(self, tokens: float) -> float:
        """How long the queue takes; 0 where too little was seen to tell."""
        rows = self._rows_s / self._seconds if self._seconds else 0.0
        if self._seconds < 1.0 or rows < 1.0 or not self._alone or not self._sizes:
            return 0.0
        seen = self._tokens / self._seconds
        share = max(0.0, (self._alone - seen) / rows)
        if self._ending is None:
            self._ending = self._ends_by_step()
        ends = self._ending
        new_rows = self._rows / self._sizes
        running, left = float(self.num_rows), tokens
        for step in range(_NUM_STEPS):
            # Beyond what was seen no line goes on for ever: twice the answers leave half the rate at least.
            least = max(_FLOOR * self._alone, seen * min(1.0, rows / max(running, rows)))
            rate = max(least, self._alone - share * running)
            if left <= rate * _STEP_S:
                return step * _STEP_S + left / rate
            left -= rate * _STEP_S
            running += rate * _STEP_S * new_rows - ends[step]
        return _NUM_STEPS * _STEP_S

    def seconds_for_places(self, num_prompts: int) -> float:
        """How long until so many prompts have places among the rows that run; 0 where there are enough."""
        pace = self._pace()
        missing = (
            self.num_rows + num_prompts * max(1.0, self._rows / self._requests) - self._max_rows
        )
        if missing <= 0 or pace <= 0 or not self._busy_s:
            return 0.0
        # A step of more rows takes longer, though not by as much as there are more.
        expected = max(self.num_rows, min(self.num_rows + num_prompts, self._max_rows))
        pace *= math.sqrt(min(1.0, self._row_seconds / self._busy_s / expected))
        rounds, missing = divmod(missing, max(1, self.num_rows))
        left = rounds * min(self._lengths / self._weight, self._longest)
        for one, num_rows in sorted((self._left(*one), one[0]) for one in self._ends.values()):
            missing -= num_rows
            if missing <= 0:
                left += one
                break
        return min(left / pace, _STEP_S * _NUM_STEPS)

    def _left(self, num_rows: int, length: float, began: float) -> float:
        """Tokens that an answer still makes, as far as can be expected."""
        left = length - (self._at - began)
        return max(left, _LATE_SHARE * length)

    def _ends_by_step(self) -> list[float]:
        """How many of the rows that run end in each step to come."""
        found = [0.0] * _NUM_STEPS
        pace = self._pace()
        if pace > 0:
            for one in self._ends.values():
                place = int(self._left(*one) / pace / _STEP_S)
                if place < _NUM_STEPS:
                    found[place] += one[0]
        return found
