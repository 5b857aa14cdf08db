"""When each prompt of a queue gets its first token: what steps cost, and the queue run ahead in thought.

Who is admitted by that is `server.admission`.
"""

from __future__ import annotations

import heapq
import math

_SHAPE_S, _PACE_S = 30.0, 6.0
"""Busy time in which what was seen is forgotten to 37 %: of how the costs relate, and of how fast all is."""
_PRIOR_S, _DRAW_S = 1.0, 0.02
"""Seen time that the costs assumed at first count for: in the pace, and each alone in the fit, where an error as
large as the cost weighs no more than one of a seventh of it does in a second of work."""
_ANSWER_SHARE, _STEP_SHARE = 3.0, 10.0
"""Of the cost of a prompt token: that of a token of an answer, and that of a step, while neither was seen."""
_FIRST_LENGTH, _FIRST_WEIGHT, _MOST_WEIGHT = 512.0, 2.0, 50.0
"""Tokens of an answer while none has ended, and what that counts for among those that have; how many count."""
_LATE_SHARE = 0.2  # of its expected length: what is left of an answer that is longer than expected
_CHUNK_SHARE = 0.2  # of a difference in the prompt tokens of a step, how much is believed
_STUCK_STEPS = (
    3  # without a token of a prompt, while some wait: no more requests find memory at once
)
_STEP_S = 0.5  # that a step may take before it counts as standing still
_FAR_S = 120.0  # nothing is foreseen beyond


class Costs:
    """Seconds of work = prompt tokens * a + tokens of answers * b + steps * c, fitted to the work that was seen.

    Least squares, in which every second seen weighs the same and the past less and less, drawn to the
    costs assumed at first where the work seen does not tell the three apart.

    tokens_per_s  prompt tokens a second where nothing else runs; must be positive.
    """

    def __init__(self, tokens_per_s: float) -> None:
        one = 1.0 / tokens_per_s
        self._assumed = (one, _ANSWER_SHARE * one, _STEP_SHARE * one)
        self._products = [[0.0] * 3 for _ in range(3)]
        self._sums = [0.0] * 3
        self._found: tuple[float, float, float] | None = self._assumed
        self._seen_s = self._expected_s = _PRIOR_S
        self._open_s = 0.0  # of a step whose work is not counted yet

    def see(
        self, seconds: float, prompt_tokens: int, made: int, steps: int, *, has_queue: bool
    ) -> None:
        """So much work was done in a time in which there was some. Without a queue it may have waited for
        something else, a grammar say: of more than the length of a step nothing is concluded then."""
        work = (prompt_tokens, made, steps)
        self._open_s += seconds
        if not has_queue:
            self._open_s = min(self._open_s, _STEP_S)
        seconds = self._open_s
        if seconds <= 0 or not any(work):
            return
        self._open_s = 0.0
        kept = math.exp(-seconds / _PACE_S)
        self._seen_s = self._seen_s * kept + seconds
        self._expected_s = self._expected_s * kept
        self._expected_s += sum(cost * one for cost, one in zip(self.each(), work, strict=True))
        kept = math.exp(-seconds / _SHAPE_S)
        for row, mine in enumerate(work):
            self._sums[row] = self._sums[row] * kept + mine
            products = self._products[row]
            for column, other in enumerate(work):
                products[column] = products[column] * kept + mine * other / seconds
        self._found = None

    def pace(self) -> float:
        """How many times slower than the costs say work went lately; also where it stood still."""
        stood_s = max(0.0, self._open_s - _STEP_S)
        return (self._seen_s + stood_s) / self._expected_s

    def each(self) -> tuple[float, float, float]:
        """Seconds of a prompt token, of a token of an answer, and of a step."""
        if self._found is None:
            self._found = self._fit()
        return self._found

    def _fit(self) -> tuple[float, float, float]:
        """None is negative: one that would be is left out, and the others are fitted without it."""
        used = [0, 1, 2]
        while used:
            matrix = [[self._products[i][j] for j in used] + [self._sums[i]] for i in used]
            for place, i in enumerate(used):
                matrix[place][place] += _DRAW_S / self._assumed[i] ** 2
                matrix[place][-1] += _DRAW_S / self._assumed[i]
            found = _solved(matrix)
            least = min(range(len(used)), key=lambda place: found[place])
            if found[least] >= 0:
                costs = dict(zip(used, found, strict=True))
                return costs.get(0, 0.0), costs.get(1, 0.0), costs.get(2, 0.0)
            del used[least]
        return self._assumed


def _solved(matrix: list[list[float]]) -> list[float]:
    """Of equations with a positive definite matrix, the right side its last column."""
    size = len(matrix)
    for place in range(size):
        for below in range(place + 1, size):
            factor = matrix[below][place] / matrix[place][place]
            for column in range(place, size + 1):
                matrix[below][column] -= factor * matrix[place][column]
    found = [0.0] * size
    for place in reversed(range(size)):
        rest = sum(matrix[place][column] * found[column] for column in range(place + 1, size))
        found[place] = (matrix[place][-1] - rest) / matrix[place][place]
    return found


class Running:
    """The answers that run: how many rows of a step they are, and how many steps each still takes.

    A row makes a token in each step; so the steps done are the clock by which answers are seen to end.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self.steps = 0.0
        self._ends: dict[int, tuple[int, float, float, float]] = {}
        """Rows, tokens, at which step begun, and how few tokens can be left while they run."""
        self._numbers = 0
        self._longest = math.inf  # max_tokens of the last that began
        self._lengths, self._weight = _FIRST_LENGTH * _FIRST_WEIGHT, _FIRST_WEIGHT
        self._requests = self._rows = 0.0

    def begin(self, num_rows: int, max_tokens: int | None) -> int:
        """Answers to a prompt have begun, or none; returns their number for `end`."""
        if num_rows:
            self._longest = max_tokens or math.inf
        self._numbers += 1
        length = self.length()
        least = 1.0 if length == self._longest else _LATE_SHARE * length
        self._ends[self._numbers] = (num_rows, length, self.steps, least)
        self.num_rows += num_rows
        self._requests = 0.95 * self._requests + 1
        self._rows = 0.95 * self._rows + num_rows
        return self._numbers

    def end(self, number: int) -> None:
        """They have ended, or are given up."""
        num_rows, _, begun, _ = self._ends.pop(number)
        self.num_rows -= num_rows
        if not num_rows:
            return
        kept = 1.0 if self._weight < _MOST_WEIGHT else 1 - 1 / _MOST_WEIGHT
        self._lengths = self._lengths * kept + (self.steps - begun)
        self._weight = self._weight * kept + 1

    def length(self) -> float:
        """Tokens to be expected of an answer that begins now."""
        return min(self._longest, self._lengths / self._weight)

    def rows_each(self) -> float:
        """Answers to one prompt, of those that began lately."""
        return self._rows / self._requests if self._requests else 1.0

    def ends(self) -> list[tuple[float, float]]:
        """(steps from now, rows) of the ends to be expected, as a heap."""
        found = [
            (max(length - (self.steps - begun), least), float(num_rows))
            for num_rows, length, begun, least in self._ends.values()
        ]
        heapq.heapify(found)
        return found


class Line:
    """The queue, run ahead from now: prompts take places as answers end, and share steps with those that run.

    each        `Costs.each`, times the pace.
    chunk       prompt tokens in a step.
    max_rows    that run at once.
    seconds     until the last prompt that was added has its first token.
    """

    def __init__(
        self, running: Running, each: tuple[float, float, float], chunk: float, max_rows: float
    ) -> None:
        self.seconds = 0.0
        self._token_s, self._row_s, self._step_s = each
        self._chunk = max(1.0, chunk)
        self._max_rows = max_rows
        self._rows = float(running.num_rows)
        self._rows_each, self._length = running.rows_each(), running.length()
        self._ends = running.ends()
        self._step = 0.0

    def _pass(self, steps: float, chunk: float) -> None:
        self._step += steps
        self.seconds += steps * (self._step_s + self._row_s * self._rows + self._token_s * chunk)

    def add(self, size: float) -> None:
        """A prompt of so many tokens is the last of the queue."""
        if self.seconds >= _FAR_S:
            return
        ends = self._ends
        while ends and self._rows + self._rows_each > self._max_rows:
            self._pass(max(0.0, ends[0][0] - self._step), 0.0)
            self._rows -= heapq.heappop(ends)[1]
        needed = size / self._chunk
        while ends and ends[0][0] <= self._step + needed:
            part = max(0.0, ends[0][0] - self._step)
            needed -= part
            self._pass(part, self._chunk)
            self._rows -= heapq.heappop(ends)[1]
        self._pass(needed, self._chunk)
        if self._rows_each:
            self._rows += self._rows_each
            heapq.heappush(ends, (self._step + self._length, self._rows_each))


class Forecast:
    """Follows an engine's counters, and says how long its queue takes.

    tokens_per_s  prompt tokens a second with nothing else to do; 0 if that is not known.
    step_tokens   prompt tokens that a step takes at most.
    max_rows      that run at once.
    """

    def __init__(self, tokens_per_s: float, step_tokens: int, max_rows: int) -> None:
        self.running = Running()
        self._costs = Costs(tokens_per_s) if tokens_per_s else None
        self._unknown_s = 0.0
        self._chunk = float(step_tokens)
        self._most_rows, self._max_rows = max_rows, float(max_rows)
        self._stuck, self._rows_before = 0.0, 0
        self._line: Line | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything is known of what work costs."""
        return self._costs is not None

    def forget(self) -> None:
        """The queue or what runs is not what it was."""
        self._line = None

    def see(
        self,
        seconds: float,
        prompt_tokens: int,
        made: int,
        steps: int,
        *,
        num_unplaced: int,
        has_queue: bool,
    ) -> None:
        """What the engine did in a time; `num_unplaced` requests wait in it."""
        self._line = None
        self.running.steps += steps
        if self._costs is None:
            self._unknown_s += seconds if has_queue else 0.0
            if prompt_tokens and self._unknown_s:
                self._costs = Costs(prompt_tokens / self._unknown_s)
        else:
            self._costs.see(seconds, prompt_tokens, made, steps, has_queue=has_queue)
        if prompt_tokens and steps and has_queue:
            self._chunk += _CHUNK_SHARE * (prompt_tokens / steps - self._chunk)
        self._follow_places(prompt_tokens, steps, num_unplaced)

    def _follow_places(self, prompt_tokens: int, steps: int, num_unplaced: int) -> None:
        """Where memory ends first, there are fewer places than may run at once."""
        rows, before, self._rows_before = (
            self.running.num_rows,
            self._rows_before,
            self.running.num_rows,
        )
        has_place = before + self.running.rows_each() <= self._most_rows
        is_stuck = has_place and num_unplaced and not prompt_tokens
        self._stuck = self._stuck + steps if is_stuck else 0.0
        if not num_unplaced:
            self._max_rows = self._most_rows
        elif self._stuck >= _STUCK_STEPS and rows:
            self._max_rows = rows
        else:
            self._max_rows = max(self._max_rows, rows)

    def add(self, size: float) -> None:
        """A prompt has joined the queue."""
        if self._line is not None:
            self._line.add(size)

    def seconds_for(self, num_prompts: int, tokens: float) -> float:
        """How long a queue takes, from what was seen last; something must be known."""
        assert self._costs is not None
        if self._line is None:
            pace = self._costs.pace()
            token, row, step = self._costs.each()
            each = (token * pace, row * pace, step * pace)
            self._line = Line(self.running, each, self._chunk, self._max_rows)
            for _ in range(num_prompts):
                self._line.add(tokens / num_prompts)
        return self._line.seconds
