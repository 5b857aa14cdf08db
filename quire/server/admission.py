"""Who may queue: a request is admitted if its first token can be expected within a number of seconds.

Answering 429 is `server.errors`; the order of the queue itself is the engine's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from quire.protocol.errors import OutOfCapacityError
from quire.protocol.outputs import EngineStats
from quire.protocol.results import RequestOutput
from quire.server.forecast import Running

Prompt = str | Sequence[int] | Mapping[str, str]
"""Text, token ids, or a dictionary whose values are files of embeddings, whose tokens cannot be told."""

_MEMORIES_S = (4.0, 20.0)
"""Times with a queue by which a measured rate is forgotten to 37 %. The slower of the two rates counts: one
that falls, as answers begin to take their share, is seen soon, and a few quick steps impress nobody."""
_LEARNING_S = 1.0  # of time with a queue, before which nothing measured of it counts alone
_GENERATIONS, _MIN_UNMEASURED = 4, 64
"""Of sequences that run at once, and requests: so many may wait while nothing is measured yet."""
_PRIOR_SHARE = 0.8  # of the engine's rate at start, as it had nothing else to do then
_CLOSE_SHARE, _OPEN_SHARE, _EMPTY_SHARE = 0.75, 0.45, 0.1
"""Of the longest wait: where admission closes, with something left for what cannot be foreseen; where the queue
is expected to be when it opens again; and where it opens before its time, so that the engine never lacks work."""
_RAMP_S, _FIRST_SHARE = 20.0, 0.2
"""A queue may be a fifth of the longest wait when it begins, and all of it so much later: at first the
prompts have the engine for themselves, and the answers that take it from them are still to come."""
_TOLERANCE = 0.3  # of the times that are told
_FULL = 0.97
"""Of the sequences that may run at once: from there a queue waits for ends, which are foreseen one by one, and says
nothing of the rate at which prompts are computed."""
_CHARS_PER_TOKEN = 4.0  # of English text; corrected by the prompts that come
_MAX_RETRY_S = 60.0


class _Rate:
    """Prompt tokens over the time with a queue, the past counting less and less."""

    def __init__(self, memory_s: float, prior: float) -> None:
        self._memory_s = memory_s
        self.queue_s = _LEARNING_S if prior else 0.0
        self.progress = prior * self.queue_s

    def pass_time(self, seconds: float) -> None:
        """Time with a queue."""
        kept = math.exp(-seconds / self._memory_s)
        self.queue_s = self.queue_s * kept + seconds
        self.progress *= kept

    def seconds_for(self, tokens: float, more: float) -> float:
        """How long the queue takes, if `more` tokens were done than were seen."""
        return tokens * self.queue_s / (self.progress + more)


class Admission:
    """The queue of one server, as the front sees it. Use it from one thread.

    The rate is that of prompt tokens, computed or found in the cache, over the time in which there was
    a queue: more tokens ahead than one step takes, or requests that the engine could not place. So it
    covers whatever holds the queue up: arithmetic, sequences at once, or memory.

    max_wait_s    longest wait that is promised; 0 admits everything.
    step_tokens   prompt tokens that one step of the engine takes.
    max_num_seqs  sequences that run at once; bounds how many wait before a rate is measured.
    tokens_per_s  prompt tokens a second that the engine did at start; 0 if that is not known.
    clock         seconds, monotonic.
    """

    def __init__(
        self,
        max_wait_s: float,
        *,
        step_tokens: int,
        max_num_seqs: int = 256,
        tokens_per_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._step_tokens = step_tokens
        self._max_unmeasured = max(_MIN_UNMEASURED, _GENERATIONS * max_num_seqs)
        self._clock = clock
        self.num_waiting = 0
        self.num_started = 0
        self._tokens_ahead = 0.0
        self._num_unplaced = 0
        self._rates = [_Rate(memory_s, tokens_per_s * _PRIOR_SHARE) for memory_s in _MEMORIES_S]
        self._running = Running(tokens_per_s * _PRIOR_SHARE, max_num_seqs)
        self._measured_s = 0.0
        self._busy_s = 0.0
        self._opens_at_s: float | None = None
        self._is_restarting = False
        self._seen_at_s = clock()
        self._seen_tokens = self._seen_made = 0
        self._passed_s = 0.0
        self._max_num_seqs, self._is_full = max_num_seqs, False
        self._chars, self._tokens = 100 * _CHARS_PER_TOKEN, 100.0

    def watch(self, stats: EngineStats, *, is_restarting: bool = False) -> None:
        """Takes the engine's counters; the same ones may come again. A restart says nothing of the rate."""
        tokens = stats.prompt_tokens_computed + stats.prefix_hits
        made = tokens - self._seen_tokens
        self._seen_tokens = tokens
        has_queue = self._has_queue
        self._pass_time()
        self._is_restarting = is_restarting
        self._running.pass_time(
            self._passed_s,
            max(0, made),
            max(0, stats.generation_tokens - self._seen_made),
            has_queue=has_queue and self.num_waiting > 0 and not self._is_full,
        )
        self._passed_s = 0.0
        self._seen_made = stats.generation_tokens
        is_full, self._is_full = self._is_full, self._running.num_rows >= _FULL * self._max_num_seqs
        if has_queue and made > 0 and not is_full:
            for rate in self._rates:
                rate.progress += made
        self._num_unplaced = stats.num_waiting

    @property
    def _has_queue(self) -> bool:
        return self._num_unplaced > 0 or self._tokens_ahead > self._step_tokens

    def _pass_time(self) -> None:
        now_s = self._clock()
        passed_s, self._seen_at_s = now_s - self._seen_at_s, now_s
        if self._is_restarting:
            return
        self._passed_s += passed_s
        if not self.num_waiting or not self._has_queue:
            self._busy_s = max(0.0, self._busy_s - passed_s)
        else:
            self._busy_s = min(_RAMP_S, self._busy_s + passed_s)
            self._measured_s += passed_s
            for rate in self._rates if not self._is_full else ():
                rate.pass_time(passed_s)

    def wait_s(self) -> float:
        """Seconds until what waits now has been begun; 0 where there is no queue or no rate is known.

        Counts one request more than was begun, so that a queue that has not moved yet has a rate too.
        """
        self._pass_time()
        if not self.num_waiting or not self._has_queue:
            return 0.0
        places_s = self._running.seconds_for_places(self.num_waiting)
        if self._is_full or self._rates[-1].queue_s < _LEARNING_S:
            return places_s
        one = self._tokens_ahead / self.num_waiting
        known_s = max(rate.seconds_for(self._tokens_ahead, one) for rate in self._rates)
        return max(known_s, self._running.seconds_for(self._tokens_ahead), places_s)

    def enter(
        self, prompts: Sequence[Prompt], *, num_choices: int = 0, max_tokens: int | None = None
    ) -> Admitted:
        """Admits the prompts of one request together. Raises OutOfCapacityError.

        num_choices, max_tokens  of the answers to each prompt; none for what is not answered in tokens.
        """
        self.check()
        return Admitted(self, prompts, num_choices, max_tokens)

    def check(self) -> None:
        """Raises OutOfCapacityError while admission is closed, to whatever size.

        It opens at the moment that refusals were told, not when the queue happens to be short: a queue
        that went down a little faster or slower makes nobody's time wrong.
        """
        if self._max_wait_s <= 0:
            return
        wait_s = self.wait_s()
        growth = _OPEN_SHARE * self._max_wait_s * (1 - _FIRST_SHARE) / _RAMP_S
        share = _FIRST_SHARE + (1 - _FIRST_SHARE) * self._busy_s / _RAMP_S
        longest_s = share * self._max_wait_s
        over_s = wait_s - _CLOSE_SHARE * longest_s
        now_s = self._seen_at_s
        opens_at_s = self._opens_at_s
        if over_s > 0 and (opens_at_s is None or now_s + over_s > opens_at_s):
            # A time that was told already is put off by as little as can be.
            open_share = _OPEN_SHARE if opens_at_s is None else _CLOSE_SHARE
            more_s = wait_s - open_share * longest_s
            if self._busy_s < _RAMP_S:
                more_s /= 1.0 + growth
            self._opens_at_s = max(now_s + more_s, opens_at_s or 0.0)
        elif opens_at_s is not None and (
            wait_s <= _EMPTY_SHARE * longest_s or (now_s >= opens_at_s and over_s <= 0)
        ):
            self._opens_at_s = None
        elif opens_at_s is not None and self._is_full:
            # What was foreseen before all places were taken may have been far too long.
            more_s = max(0.0, wait_s - _OPEN_SHARE * longest_s)
            if more_s < (1 - _TOLERANCE) * (opens_at_s - now_s):
                self._opens_at_s = now_s + more_s
        if self._opens_at_s is not None:
            more_s = self._opens_at_s - now_s
            raise OutOfCapacityError(
                f"the queue is full: a first token is expected after {wait_s:.0f} s, and more than "
                f"{longest_s:.0f} s are not promised now; try again in {more_s:.1f} s",
                retry_after_s=min(_MAX_RETRY_S, more_s),
            )
        if self._measured_s < _LEARNING_S and self.num_waiting >= self._max_unmeasured:
            raise OutOfCapacityError(
                f"the queue is full: {self.num_waiting} requests wait for their first token, and it is "
                "not known yet how long that takes; try again in a second",
                retry_after_s=1.0,
            )

    def size_of(self, prompt: Prompt) -> float:
        """Tokens of a prompt; of a text, those to be expected."""
        if isinstance(prompt, str):
            return 1.0 + len(prompt) * self._tokens / self._chars
        return 1.0 + len(prompt)

    def wait_begins(self, size: float) -> None:
        """A prompt has joined the queue."""
        self._pass_time()
        self.num_waiting += 1
        self._tokens_ahead += size

    def wait_ends(self, size: float) -> None:
        """A prompt has got its first token, or is given up."""
        self._pass_time()
        self.num_waiting -= 1
        self._tokens_ahead = self._tokens_ahead - size if self.num_waiting else 0.0

    def answer_begins(self, size: float, num_choices: int, max_tokens: int | None) -> int:
        """The answers to a prompt run; returns their number."""
        return self._running.begin(size, num_choices, max_tokens)

    def answer_ends(self, number: int) -> None:
        """They run no more."""
        self._running.end(number)

    def learn(self, num_chars: int, num_tokens: int) -> None:
        """A text of so many characters was so many tokens."""
        self._chars += num_chars
        self._tokens += num_tokens


class Admitted:
    """The prompts of one request, from their admission until each has its first token or is given up."""

    def __init__(
        self,
        admission: Admission,
        prompts: Sequence[Prompt],
        num_choices: int = 0,
        max_tokens: int | None = None,
    ) -> None:
        self._admission = admission
        self._answer = (num_choices, max_tokens)
        self._answers: list[int] = []
        self._prompts = prompts
        self._sizes = {place: admission.size_of(prompt) for place, prompt in enumerate(prompts)}
        for size in self._sizes.values():
            admission.wait_begins(size)

    def take(self, place: int, output: RequestOutput) -> None:
        """Looks whether an output of a prompt is its first with a token, or its last."""
        if place in self._sizes and (
            output.finished or any(choice.token_ids for choice in output.outputs)
        ):
            self.begin(place, output.prompt_token_ids)

    def begin(self, place: int, prompt_token_ids: Sequence[int] | None) -> None:
        """A prompt, which had so many tokens, has got its first token, or its only result."""
        size = self._sizes.pop(place)
        self._admission.wait_ends(size)
        self._admission.num_started += 1
        if self._answer[0]:
            self._answers.append(self._admission.answer_begins(size, *self._answer))
        prompt = self._prompts[place]
        if isinstance(prompt, str) and prompt_token_ids:
            self._admission.learn(len(prompt), len(prompt_token_ids))

    def close(self) -> None:
        """Nothing of it waits or runs any more; may be called twice."""
        while self._answers:
            self._admission.answer_ends(self._answers.pop())
        for size in self._sizes.values():
            self._admission.wait_ends(size)
        self._sizes = {}
