"""Who may queue: a request is admitted if its first token can be expected within a number of seconds.

Answering 429 is `server.errors`; the order of the queue itself is the engine's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from quire.protocol.errors import OutOfCapacityError
from quire.protocol.outputs import EngineStats
from quire.protocol.results import RequestOutput

_MEMORY_S = 20.0  # of time with a queue, by which a measured rate is forgotten to 37 %
_LEARNING_S = 1.0  # of time with a queue, before which nothing is refused for its wait
_MAX_UNMEASURED = 4096
"""Requests that may wait for their first token while no rate is known yet."""
_CHARS_PER_TOKEN = 4.0  # of English text; corrected by the prompts that come
_MAX_RETRY_S = 60.0


class Admission:
    """The queue of one server, as the front sees it. Use it from one thread.

    The rate is that of prompt tokens, computed or found in the cache, over the time in which there was
    a queue: more tokens ahead than one step takes, or requests that the engine could not place. So it
    covers whatever holds the queue up: arithmetic, sequences at once, or memory.

    max_wait_s   longest wait that is promised; 0 admits everything.
    step_tokens  prompt tokens that one step of the engine takes.
    clock        seconds, monotonic.
    """

    def __init__(
        self,
        max_wait_s: float,
        *,
        step_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._step_tokens = step_tokens
        self._clock = clock
        self.num_waiting = 0
        self.num_started = 0
        self._tokens_ahead = 0.0
        self._num_unplaced = 0
        self._queue_s = 0.0
        self._progress = 0.0
        self._seen_at_s = clock()
        self._seen_tokens = 0
        self._chars, self._tokens = 100 * _CHARS_PER_TOKEN, 100.0

    def watch(self, stats: EngineStats) -> None:
        """Takes the engine's counters; the same ones may come again."""
        tokens = stats.prompt_tokens_computed + stats.prefix_hits
        made = tokens - self._seen_tokens
        self._seen_tokens = tokens
        has_queue = self._has_queue
        self._pass_time()
        if has_queue and made > 0:
            self._progress += made
        self._num_unplaced = stats.num_waiting

    @property
    def _has_queue(self) -> bool:
        return self._num_unplaced > 0 or self._tokens_ahead > self._step_tokens

    def _pass_time(self) -> None:
        now_s = self._clock()
        passed_s, self._seen_at_s = now_s - self._seen_at_s, now_s
        if self.num_waiting and self._has_queue:
            kept = math.exp(-passed_s / _MEMORY_S)
            self._queue_s = self._queue_s * kept + passed_s
            self._progress *= kept

    def wait_s(self) -> float:
        """Seconds until what waits now has been begun; 0 where there is no queue or no rate is known.

        Counts one request more than was begun, so that a queue that has not moved yet has a rate too.
        """
        self._pass_time()
        if not self.num_waiting or not self._has_queue or self._queue_s < _LEARNING_S:
            return 0.0
        one = self._tokens_ahead / self.num_waiting
        return self._tokens_ahead * self._queue_s / (self._progress + one)

    def enter(self, prompts: Sequence[str | Sequence[int]]) -> Admitted:
        """Admits the prompts of one request together. Raises OutOfCapacityError."""
        wait_s = self.wait_s()
        if self._max_wait_s > 0:
            if wait_s > self._max_wait_s:
                raise OutOfCapacityError(
                    f"the queue is full: a first token is expected after {wait_s:.0f} s, and more than "
                    f"{self._max_wait_s:g} s are not promised; try again later",
                    retry_after_s=min(_MAX_RETRY_S, max(1.0, wait_s - self._max_wait_s)),
                )
            if self._queue_s < _LEARNING_S and self.num_waiting >= _MAX_UNMEASURED:
                raise OutOfCapacityError(
                    f"the queue is full: {self.num_waiting} requests wait for their first token; try again "
                    "later",
                    retry_after_s=1.0,
                )
        return Admitted(self, prompts)

    def size_of(self, prompt: str | Sequence[int]) -> float:
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

    def learn(self, num_chars: int, num_tokens: int) -> None:
        """A text of so many characters was so many tokens."""
        self._chars += num_chars
        self._tokens += num_tokens


class Admitted:
    """The prompts of one request, from their admission until each has its first token or is given up."""

    def __init__(self, admission: Admission, prompts: Sequence[str | Sequence[int]]) -> None:
        self._admission = admission
        self._prompts = prompts
        self._sizes = {place: admission.size_of(prompt) for place, prompt in enumerate(prompts)}
        for size in self._sizes.values():
            admission.wait_begins(size)

    def take(self, place: int, output: RequestOutput) -> None:
        """Looks whether an output of a prompt is its first with a token, or its last."""
        if place not in self._sizes:
            return
        if not output.finished and not any(choice.token_ids for choice in output.outputs):
            return
        self._admission.wait_ends(self._sizes.pop(place))
        self._admission.num_started += 1
        prompt = self._prompts[place]
        if isinstance(prompt, str) and output.prompt_token_ids:
            self._admission.learn(len(prompt), len(output.prompt_token_ids))

    def close(self) -> None:
        """Nothing of it waits any more; may be called twice."""
        for size in self._sizes.values():
            self._admission.wait_ends(size)
        self._sizes = {}
