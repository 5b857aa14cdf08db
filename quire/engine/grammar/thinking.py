"""Where the thinking of an output stands: whether it goes on, how long it has, what must come next.

The marks around it are ids; which parser they belong to is the front's matter.
"""

from __future__ import annotations


class Thinking:
    """Follows one output, a pure function of its ids.

    start_ids  the mark that begins thinking; empty: the prompt has begun it. An output that does not
               begin with the mark has no thinking.
    end_ids    the mark that ends it; empty: there is none to follow.
    """

    def __init__(self, start_ids: tuple[int, ...], end_ids: tuple[int, ...]) -> None:
        self._start = list(start_ids)
        self._end = list(end_ids)
        self._seen = 0
        self._over_at: int | None = None if end_ids else 0

    def over_at(self, output_ids: list[int]) -> int | None:
        """Where the answer begins: after the end mark, or 0 without thinking. None while it is open
        or may yet begin."""
        if self._over_at is not None and self._over_at <= len(output_ids):
            return self._over_at
        self._over_at = None
        if self._misses_start(output_ids):
            return 0
        size = len(self._end)
        # The end mark stands behind the start mark, and nothing before `_seen` was one.
        first = max(min(self._seen, len(output_ids)) - size + 1, len(self._start))
        for at in range(first, len(output_ids) - size + 1):
            if output_ids[at : at + size] == self._end:
                self._over_at = at + size
                return self._over_at
        self._seen = len(output_ids)
        return None

    def _misses_start(self, output_ids: list[int]) -> bool:
        head = output_ids[: len(self._start)]
        return head != self._start[: len(head)]

    def may_start(self, output_ids: list[int]) -> int | None:
        """The next id of the start mark while the output is only a part of it; None otherwise."""
        if len(output_ids) < len(self._start) and not self._misses_start(output_ids):
            return self._start[len(output_ids)]
        return None

    def forced(self, output_ids: list[int], budget: int) -> int | None:
        """The id that must come next because the thinking has used up its budget of tokens."""
        thought = len(output_ids) - len(self._start)
        if thought < budget or self._misses_start(output_ids) or thought < 0:
            return None
        size = len(self._end)
        for done in range(min(size - 1, thought), 0, -1):
            if output_ids[-done:] == self._end[:done]:
                return self._end[done]
        return self._end[0]
