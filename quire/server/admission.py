"""Who may queue: a request is admitted if its first token can be expected within a number of seconds.

Answering 429 is `server.errors`; the order of the queue itself is the engine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from quire.protocol.errors import OutOfCapacityError
from quire.protocol.outputs import EngineStats
from quire.protocol.results import RequestOutput
from quire.server.forecast import Forecast

Prompt = str | Sequence[int] | Mapping[str, str]
"""Text, token ids, or a dictionary whose values are files of embeddings, whose tokens cannot be told."""

_GENERATIONS, _MIN_UNMEASURED = 4, 64
"""Of sequences that run at once, and requests: so many may wait while nothing is measured yet."""
_LEARNING_S = 1.0  # of time with a queue, before which an unknown rate refuses nobody
_PRIOR_SHARE = 0.8  # of the engine's rate at start, as it had nothing else to do then
_CLOSE_SHARE, _OPEN_SHARE, _EMPTY_SHARE = 0.75, 0.45, 0.1
"""Of the longest wait: where admission closes, with something left for what cannot be foreseen; where the queue
is expected to be when it opens again; and where it opens before its time, so that the engine never lacks work."""
_RAMP_S, _FIRST_SHARE = 10.0, 0.8
"""A queue may be four fifths as long when it begins, and all of it so much later: what was learned before, of few
requests at once, is a little better than what many will see."""
_STEP_S = 0.5  # after the last news, in which the queue is taken to have gone on
_CHARS_PER_TOKEN = 4.0  # of English text; corrected by the prompts that come
_MAX_RETRY_S = 60.0


class Admission:
    """The queue of one server, as the front sees it. Use it from one thread.

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
        self._forecast = Forecast(tokens_per_s * _PRIOR_SHARE, step_tokens, max_num_seqs)
        self._opens_at_s: float | None = None
        self._is_owed = False
        self._is_restarting = False
        self._seen_at_s = self._moved_at_s = clock()
        self._busy_s = self._queue_s = self._age_s = self._worked_s = 0.0
        self._seen = EngineStats()
        self._chars, self._tokens = 100 * _CHARS_PER_TOKEN, 100.0

    def watch(self, stats: EngineStats, *, is_restarting: bool = False) -> None:
        """Takes the engine's counters; the same ones may come again. A restart says nothing of the rate."""
        before, self._seen = self._seen, stats
        has_queue = self._has_queue
        self._pass_time()
        self._is_restarting = is_restarting
        prompts = stats.prompt_tokens_computed + stats.prefix_hits
        prompts = max(0, prompts - before.prompt_tokens_computed - before.prefix_hits)
        made = max(0, stats.generation_tokens - before.generation_tokens)
        if prompts or made:
            self._moved_at_s = self._seen_at_s
        self._forecast.see(
            self._busy_s,
            prompts,
            made,
            max(0, stats.steps - before.steps),
            num_unplaced=stats.num_waiting,
            has_queue=has_queue,
        )
        self._busy_s = 0.0
        self._num_unplaced = stats.num_waiting

    @property
    def _has_queue(self) -> bool:
        return self.num_waiting > 0 and (
            self._num_unplaced > 0 or self._tokens_ahead > self._step_tokens
        )

    def _pass_time(self) -> None:
        now_s = self._clock()
        passed_s, self._seen_at_s = now_s - self._seen_at_s, now_s
        if self._is_restarting:
            self._moved_at_s += passed_s
            return
        has_queue = self._has_queue
        if self.num_waiting or self._forecast.running.num_rows:
            self._busy_s += passed_s
            self._worked_s += passed_s
        self._queue_s += passed_s if has_queue else 0.0
        self._age_s = min(_RAMP_S, max(0.0, self._age_s + (passed_s if has_queue else -passed_s)))

    @property
    def is_closed(self) -> bool:
        """Whether the last that came was refused."""
        return self._opens_at_s is not None

    def wait_s(self) -> float:
        """Seconds until what waits now has been begun; 0 where there is no queue or no rate is known."""
        self._pass_time()
        if not self.num_waiting:
            return 0.0
        if not self._forecast.is_known:
            # At best one of them is about to begin.
            return self._queue_s * self.num_waiting if self._queue_s >= _LEARNING_S else 0.0
        since_s = min(self._seen_at_s - self._moved_at_s, _STEP_S)
        return max(0.0, self._forecast.seconds_for(self.num_waiting, self._tokens_ahead) - since_s)

    def enter(
        self, prompts: Sequence[Prompt], *, num_choices: int = 0, max_tokens: int | None = None
    ) -> Admitted:
        """Admits the prompts of one request together. Raises OutOfCapacityError.

        num_choices, max_tokens  of the answers to each prompt; none for what is not answered in tokens.
        """
        self.check()
        self._is_owed = False
        return Admitted(self, prompts, num_choices, max_tokens)

    def check(self) -> None:
        """Raises OutOfCapacityError while admission is closed, to whatever size.

        It opens at the moment that refusals were told, not when the queue happens to be short: a queue
        that went down a little faster or slower makes nobody's time wrong. Is the queue still as long as when
        it closed, one request is admitted then, as long as the promise allows.
        """
        if self._max_wait_s <= 0:
            return
        wait_s = self.wait_s()
        self._move(wait_s, self._max_wait_s)
        if self._opens_at_s is not None:
            more_s = self._opens_at_s - self._seen_at_s
            raise OutOfCapacityError(
                f"the queue is full: a first token is expected after {wait_s:.0f} s, {self._max_wait_s:g} s "
                f"are promised, and no more join before that is sure; try again in {more_s:.1f} s",
                retry_after_s=min(_MAX_RETRY_S, more_s),
            )
        if not self._forecast.is_known and self.num_waiting >= self._max_unmeasured:
            raise OutOfCapacityError(
                f"the queue is full: {self.num_waiting} requests wait for their first token, and it is "
                "not known yet how long that takes; try again in a second",
                retry_after_s=1.0,
            )

    def _move(self, wait_s: float, longest_s: float) -> None:
        """Closes admission, opens it, or tells another time, for a queue that takes so long."""
        now_s, opens_at_s = self._seen_at_s, self._opens_at_s
        # While little is known of what work costs, what is told is short.
        far_s = now_s + (_MAX_RETRY_S if self._worked_s >= _LEARNING_S else _LEARNING_S)
        if opens_at_s is None:
            share = _CLOSE_SHARE * (_FIRST_SHARE + (1 - _FIRST_SHARE) * self._age_s / _RAMP_S)
            if wait_s > (1.0 if self._is_owed else share) * longest_s:
                self._opens_at_s = min(far_s, now_s + wait_s - _OPEN_SHARE * longest_s)
            return
        # A time that was told is moved only if the queue would then be too long or empty, and as little as can be.
        first_s = now_s + wait_s - longest_s
        if first_s > opens_at_s:
            first_s += (1 - _CLOSE_SHARE) * longest_s
        last_s = now_s + max(0.0, wait_s - _EMPTY_SHARE * longest_s)
        opens_at_s = self._opens_at_s = min(max(opens_at_s, first_s), last_s, far_s)
        if now_s >= opens_at_s:
            self._opens_at_s, self._is_owed = None, True

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
        self._forecast.add(size)

    def wait_ends(self, size: float) -> None:
        """A prompt has got its first token, or is given up."""
        self._pass_time()
        self.num_waiting -= 1
        self._tokens_ahead = self._tokens_ahead - size if self.num_waiting else 0.0
        self._forecast.forget()

    def answer_begins(self, num_choices: int, max_tokens: int | None) -> int:
        """The answers to a prompt run; returns their number."""
        return self._forecast.running.begin(num_choices, max_tokens)

    def answer_ends(self, number: int) -> None:
        """They run no more."""
        self._forecast.forget()
        self._forecast.running.end(number)

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
            self.begin(place, output.encoder_prompt_token_ids or output.prompt_token_ids)

    def begin(self, place: int, prompt_token_ids: Sequence[int] | None) -> None:
        """A prompt, which had so many tokens, has got its first token, or its only result."""
        size = self._sizes.pop(place)
        self._admission.wait_ends(size)
        self._admission.num_started += 1
        self._answers.append(self._admission.answer_begins(*self._answer))
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
