"""Decides who runs in each step, and takes in what came of it.

Where cache blocks come from is `engine.kvcache`; carrying out a plan is the worker's.
"""

from __future__ import annotations

import time
from collections import deque

from quire.engine.kvcache.manager import CacheManager
from quire.engine.request import NEVER, Request, Sequence
from quire.engine.scheduler.plan import Draft, Flight
from quire.engine.scheduler.policy import check_policy, chunk_len, rank_of
from quire.engine.scheduler.queue import OrderedSequences
from quire.engine.scheduler.results import first_update, stop_of, unsent_logprobs
from quire.protocol.cache import CacheLayout
from quire.protocol.errors import InvalidRequestError, NotServedError, SettingsError
from quire.protocol.outputs import EngineStats, FinishReason, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import PositionLogprobs, RowGrowth, StepPlan, StepResult

_WAITS = -1


class Scheduler:
    """Queues, rows and cache of one engine. One step is schedule(), the worker's turn, update().

    Several plans may be in flight: schedule() may be called again before update(), and results come
    in the order of the plans. A sequence is in one place: waiting, running (it has a row), or alone
    without a row.

    token_budget  tokens of a step; may be set between steps, and acts between 1 and
                  max_num_batched_tokens.
    """

    def __init__(
        self,
        *,
        layout: CacheLayout,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        policy: str = "fcfs",
        long_prefill_token_threshold: int = 0,
        enable_prefix_caching: bool = True,
        hash_algo: str = "sha256",
    ) -> None:
        """Raises SettingsError for a limit below 1, an unknown policy, or a cache too small for one
        sequence of max_model_len tokens."""
        check_policy(policy)
        limits = {
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
            "max_model_len": max_model_len,
        }
        for name, value in limits.items():
            if value < 1:
                raise SettingsError(f"{name} is {value}; it must be at least 1")
        self.token_budget = max_num_batched_tokens
        self._max_budget = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._policy = policy
        self._longest_chunk = long_prefill_token_threshold
        self._caching = enable_prefix_caching
        self._cache = CacheManager(
            layout,
            max_model_len=max_model_len,
            max_chunk=max_num_batched_tokens,
            caching=enable_prefix_caching,
            hash_algo=hash_algo,
        )
        self._block_size = self._cache.block_size
        self._requests: dict[str, Request] = {}
        self._waiting = OrderedSequences()
        self._running = OrderedSequences()
        self._alone: list[Sequence] = []
        self._forks: dict[Sequence, None] = {}  # waiting forks with references, oldest first
        self._busy: dict[bytes, Sequence] = {}  # next key of each running sequence that has one
        self._flights: deque[Flight] = deque()
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._freed_rows: list[int] = []
        self._max_rows = max_num_seqs
        self._num_requests = 0
        self._step = 0
        self._stats = EngineStats()

    # Requests come and go.

    def add(self, request: EngineRequest) -> None:
        """Queues a request. Raises InvalidRequestError if it can never run here."""
        params = request.params
        if not isinstance(params, SamplingParams):
            raise NotServedError("this engine only generates text; it has no pooling", param="task")
        num_prompt = len(request.prompt_token_ids)
        if request.request_id in self._requests:
            raise InvalidRequestError(
                f"request id {request.request_id!r} is in use; choose another", param="request_id"
            )
        if not 1 <= num_prompt < self._max_model_len:
            raise InvalidRequestError(
                f"the prompt has {num_prompt} tokens; this model takes 1 to "
                f"{self._max_model_len - 1}, so that one token can follow",
                param="prompt",
            )
        state = Request(
            request,
            params,
            rank=rank_of(self._policy, request.priority),
            number=self._num_requests,
            max_model_len=self._max_model_len,
            caching=self._caching,
            now_s=time.monotonic(),
        )
        longest = max((len(ids) for ids in request.resume_ids or ()), default=0)
        if num_prompt + longest >= state.final_len:
            raise InvalidRequestError(
                f"the request ends at {state.final_len} tokens and has {num_prompt + longest} already; "
                "raise max_tokens",
                param="max_tokens",
            )
        self._num_requests += 1
        self._requests[request.request_id] = state
        self._waiting.add(state.make_sequence(0))

    def abort(self, request_id: str, index: int | None = None) -> list[SequenceUpdate]:
        """Ends a request, or one of its sequences; its blocks are free at once. [] if it is not known."""
        request = self._requests.get(request_id)
        if request is None or (index is not None and index not in request.unfinished):
            return []
        return self._end_request(request, "abort", None, index)

    def has_work(self) -> bool:
        """Whether any request is not finished."""
        return bool(self._requests)

    def stats(self) -> EngineStats:
        """Counters since start and gauges of now; one object, brought up to date by each call."""
        stats = self._stats
        pool = self._cache.pool
        stats.num_running = len(self._running)
        stats.num_waiting = len(self._waiting) + sum(s.row < 0 for s in self._alone)
        stats.cache_usage = pool.usage
        stats.blocks_in_use = pool.blocks_in_use
        return stats

    def reset_prefix_cache(self) -> bool:
        """Forgets every cached block; False, with nothing changed, while blocks are in use."""
        return self._cache.pool.reset()

    # Planning.

    def schedule(self) -> StepPlan | None:
        """The next plan; None if nothing can run before a result comes in."""
        draft = Draft()
        budget = max(1, min(self.token_budget, self._max_budget))
        if not self._alone:
            before = self._stats.num_preemptions
            budget = self._plan_running(draft, budget)
            if not self._alone and (self._stats.num_preemptions == before or not draft.rows):
                self._plan_waiting(draft, budget)
        if not draft.rows and not self._flights:
            if self._alone:
                self._plan_alone(draft, budget)
            elif self._waiting:
                self._force(draft, budget)
        if not draft.rows:
            return None
        for leader in draft.leaders:
            self._fork(leader)
        self._cache.release_sources(draft.sources)
        flight = draft.finish(self._step, self._freed_rows)
        self._freed_rows = []
        self._step += 1
        self._flights.append(flight)
        return flight.plan

    def _plan_running(self, draft: Draft, budget: int) -> int:
        """Plans the running sequences, oldest first; returns what is left of the budget."""
        add_row = draft.add_row
        # Only the tail is ever preempted, so the list may shrink while it is walked.
        for sequence in self._running.items:
            if budget <= 0:
                break
            start = sequence.computed
            count = sequence.length - start
            if sequence.length >= sequence.final_len:
                continue  # its last token is in flight
            if count > 1:
                count = self._chunk(start, count, budget)
            if start + count > sequence.capacity:
                count = self._claim(sequence, count, draft)
                if not count:
                    break
            add_row(sequence, start, count)
            if sequence.computed >= sequence.publish_at:
                self._cache.publish(sequence)
            if count > 1 or sequence.busy_key is not None:
                self._mark_busy(sequence)
            budget -= count
        return budget

    def _plan_waiting(self, draft: Draft, budget: int) -> None:
        """Gives rows to waiting sequences while budget, rows and blocks last."""
        admitted = []
        for sequence in self._waiting.items:
            if budget <= 0 or not self._free_rows:
                break
            if sequence.pending or sequence.wait_key in self._busy:
                continue
            count = self._admit(sequence, budget, draft)
            if count == _WAITS:
                continue
            if not count:
                break
            admitted.append(sequence)
            budget -= count
        self._waiting.remove_all(admitted)

    def _plan_alone(self, draft: Draft, budget: int) -> None:
        """Plans the first of those that run alone, at the cost of all others if need be."""
        sequence = self._alone[0]
        if sequence.row >= 0:
            start = sequence.computed
            count = self._chunk(start, sequence.length - start, budget)
            if start + count > sequence.capacity:
                count = self._claim(sequence, count, draft)
            if count:
                draft.add_row(sequence, start, count)
                self._cache.publish(sequence)
                self._mark_busy(sequence)
                return
        while not self._free_rows or not self._admit(sequence, budget, draft):
            if not self._make_room(sequence):
                self._admit_into_empty_cache(sequence, draft)
                return

    def _force(self, draft: Draft, budget: int) -> None:
        """Nothing runs and yet nobody got in: takes away what only waiting sequences hold."""
        while self._forks:
            self._strip(next(reversed(self._forks)))
        self._plan_waiting(draft, budget)
        if not draft.rows:
            sequence = self._waiting.items[0]
            self._admit_into_empty_cache(sequence, draft)
            self._waiting.remove(sequence)

    def _admit_into_empty_cache(self, sequence: Sequence, draft: Draft) -> None:
        """The last resort against slabs that are all a little used: one block's worth always fits."""
        if not self._cache.pool.reset() or not self._admit(sequence, self._block_size, draft):
            raise RuntimeError("a sequence does not fit into an empty cache")

    def _chunk(self, start: int, count: int, budget: int) -> int:
        return chunk_len(start, count, budget, self._longest_chunk, self._block_size)

    def _admit(self, sequence: Sequence, budget: int, draft: Draft) -> int:
        """Gives a sequence a row and plans its first tokens; returns how many.

        0 if blocks run out, _WAITS if the next block is being computed by somebody else.
        """
        cache = self._cache
        hit = 0
        if sequence.is_fork:
            start = sequence.computed
            count = self._chunk(start, sequence.length - start, budget)
            if not cache.start_fork(sequence, start + count, draft.copies, draft.sources):
                return 0
            del self._forks[sequence]
        else:
            hit = cache.match(sequence)
            if sequence.reads_cache and not self._alone and self._busy:
                sequence.wait_key = cache.next_key(sequence, hit)
                if sequence.wait_key in self._busy:
                    return _WAITS
            if self._running and not cache.fits(sequence, hit):
                return 0
            start = hit * self._block_size
            count = self._chunk(start, sequence.length - start, budget)
            if not cache.start(sequence, hit, start + count):
                return 0
        if sequence.num_cached < 0:
            sequence.num_cached = min(start, sequence.num_prompt)
            sequence.request.scheduled_s = sequence.request.scheduled_s or time.monotonic()
        if sequence.reads_cache:
            self._stats.prefix_queries += sequence.length
            self._stats.prefix_hits += start
        sequence.wait_key = None
        sequence.row = self._free_rows.pop()
        self._running.add(sequence)
        draft.add_new(sequence)
        draft.add_row(sequence, start, count)
        cache.publish(sequence)
        self._mark_busy(sequence)
        return count

    def _mark_busy(self, sequence: Sequence) -> None:
        """Notes the key that a sequence will fill next, so that others wait for it."""
        self._clear_busy(sequence)
        if sequence.publish_at <= sequence.length:
            key = self._cache.next_key(sequence, sequence.computed // self._block_size)
            if key is not None and self._busy.setdefault(key, sequence) is sequence:
                sequence.busy_key = key

    def _clear_busy(self, sequence: Sequence) -> None:
        if sequence.busy_key is not None:
            del self._busy[sequence.busy_key]
            sequence.busy_key = None

    # Forks, and who gives way.

    def _fork(self, leader: Sequence) -> None:
        """Makes the other sequences of a request whose prompt is planned to the end."""
        request = leader.request
        request.is_forked = True
        for index in sorted(request.unfinished - {leader.index}):
            child = request.make_sequence(index)
            child.num_cached = leader.num_cached
            self._cache.fork(leader, child)
            self._forks[child] = None
            self._waiting.add(child)

    def _strip(self, fork: Sequence) -> None:
        """Takes a waiting fork's references; it will compute its prompt itself, or find it cached."""
        del self._forks[fork]
        self._cache.release(fork)

    def _claim(self, sequence: Sequence, count: int, draft: Draft) -> int:
        """Blocks for `count` more tokens of a running sequence, at the cost of younger ones.

        Returns the tokens it got room for: fewer if it is the only one left, 0 if it was preempted.
        """
        while (grown := self._cache.grow(sequence, sequence.computed + count)) is None:
            if self._make_room(sequence):
                continue
            is_last = len(self._running) == 1
            if is_last and count > self._block_size:
                count = self._chunk(sequence.computed, count, self._block_size)
                continue
            self._preempt(sequence)
            if is_last and not sequence.alone_until:
                # Blocks are free, but no slab is: it starts over in an empty cache, and keeps it.
                self._waiting.remove(sequence)
                self._run_alone(sequence, NEVER)
            return 0
        draft.growth.append(RowGrowth(sequence.row, grown))
        return count

    def _make_room(self, sequence: Sequence) -> bool:
        """Takes blocks from a waiting fork or from the youngest; False if that is `sequence` itself.

        One that runs alone takes from everybody else.
        """
        if self._forks:
            self._strip(next(reversed(self._forks)))
            return True
        items = self._running.items
        victim = items[-1] if items else sequence
        if victim is sequence and sequence.alone_until and len(items) > 1:
            victim = items[-2]
        if victim is sequence:
            return False
        self._preempt(victim)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Back to waiting; its blocks stay findable until somebody needs them."""
        self._stats.num_preemptions += 1
        self._running.remove(sequence)
        self._drop(sequence)
        if not sequence.alone_until:
            self._waiting.add(sequence)

    def _drop(self, sequence: Sequence) -> None:
        """Lets go of row, blocks and key."""
        if sequence.row >= 0:
            self._free_rows.append(sequence.row)
            self._freed_rows.append(sequence.row)
            sequence.row = -1
        self._clear_busy(sequence)
        self._forks.pop(sequence, None)
        self._cache.release(sequence)

    def _run_alone(self, sequence: Sequence, until: int) -> None:
        sequence.alone_until = until
        self._alone.append(sequence)
        self._alone.sort(key=lambda other: other.order)

    # Taking in results.

    def update(self, plan: StepPlan, result: StepResult) -> list[SequenceUpdate]:
        """Takes in the result of the oldest plan in flight; returns what the front must hear."""
        flight = self._flights.popleft()
        if flight.plan.step != plan.step or len(result.rows) != len(flight.members):
            raise ValueError(f"result of step {plan.step} came while {flight.plan.step} was due")
        step = plan.step
        updates: list[SequenceUpdate] = []
        starts = plan.starts
        num_sampled = 0
        for i, (sequence, row, sampled) in enumerate(
            zip(flight.members, result.rows, plan.samples, strict=True)
        ):
            if sequence.valid_from > step:
                continue  # finished or started over since
            if row.error is not None or row.nonfinite:
                updates += self._take_trouble(sequence, row.error)
                continue
            request = sequence.request
            prompt_logprobs = None
            if row.prompt_logprobs and request.logprobs_at < sequence.num_prompt:
                prompt_logprobs = unsent_logprobs(request, starts[i], row.prompt_logprobs)
            if sampled:
                if len(row.token_ids) != 1:
                    problem = f"the step gave {len(row.token_ids)} tokens where one was due"
                    updates += self._take_trouble(sequence, problem)
                    continue
                num_sampled += 1
                updates.append(
                    self._take_token(sequence, row.token_ids, row.logprobs, prompt_logprobs)
                )
            elif prompt_logprobs:
                if sequence.is_announced:
                    news = SequenceUpdate(
                        request_id=sequence.request_id,
                        index=sequence.index,
                        prompt_logprobs=prompt_logprobs,
                    )
                else:
                    news = first_update(sequence, [], None, prompt_logprobs, None)
                updates.append(news)
        if self._alone:
            self._clear_alone(flight)
        stats = self._stats
        stats.generation_tokens += num_sampled
        stats.prompt_tokens_computed += flight.prompt_tokens
        stats.steps += 1
        stats.step_tokens += plan.num_tokens
        stats.step_s += result.elapsed_s
        return updates

    def _take_token(
        self,
        sequence: Sequence,
        token_ids: list[int],
        logprobs: list[PositionLogprobs] | None,
        prompt_logprobs: list[PositionLogprobs] | None,
    ) -> SequenceUpdate:
        """Appends a sampled token; ends the sequence if a stop rule says so."""
        token = token_ids[0]
        sequence.pending -= 1
        known = sequence.token_ids
        known.append(token)
        num_known = len(known)
        stop: tuple[FinishReason, int | None] | None = None
        if num_known >= sequence.final_len or token in sequence.stops:
            stop = stop_of(sequence)
        if stop is not None:
            self._finish(sequence)
        elif num_known >= sequence.publish_at:
            self._cache.publish(sequence)
        if stop is None and sequence.is_announced and prompt_logprobs is None:
            return SequenceUpdate(
                request_id=sequence.request_id,
                index=sequence.index,
                token_ids=token_ids,
                logprobs=logprobs,
            )
        if not sequence.is_announced:
            return first_update(sequence, token_ids, logprobs, prompt_logprobs, stop)
        return SequenceUpdate(
            request_id=sequence.request_id,
            index=sequence.index,
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            finish_reason=stop[0] if stop else None,
            stop_reason=stop[1] if stop else None,
        )

    def _take_trouble(self, sequence: Sequence, error: str | None) -> list[SequenceUpdate]:
        """A row's error ends its request. Logits that are not finite start it over once, uncached."""
        self._cache.withdraw(sequence, 0)
        if error is None and sequence.num_nonfinite:
            error = "the model gave numbers that are not finite, twice; the prompt or the weights may be at fault"
        if error is not None:
            return self._end_request(sequence.request, "error", error)
        sequence.num_nonfinite += 1
        sequence.reads_cache = False
        self._strip_forks(sequence.request)
        self._start_over(sequence)
        if not sequence.alone_until:
            self._waiting.add(sequence)
        return []

    def _strip_forks(self, request: Request) -> None:
        for other in request.sequences.values():
            if other.is_fork:
                self._strip(other)

    def _start_over(self, sequence: Sequence) -> None:
        """Takes a sequence out of its queue; nothing in flight counts for it any more."""
        self._unqueue(sequence)
        self._drop(sequence)
        sequence.pending = 0
        sequence.length = len(sequence.token_ids)
        sequence.valid_from = self._step

    def _unqueue(self, sequence: Sequence) -> None:
        if sequence.row >= 0:
            self._running.remove(sequence)
        elif not sequence.alone_until:
            self._waiting.remove(sequence)

    def _finish(self, sequence: Sequence) -> None:
        """A sequence ends: it holds nothing, and results in flight are not for it."""
        self._unqueue(sequence)
        self._drop(sequence)
        if sequence.alone_until:
            self._alone.remove(sequence)
            sequence.alone_until = 0
        sequence.valid_from = NEVER
        request = sequence.request
        del request.sequences[sequence.index]
        request.unfinished.discard(sequence.index)
        if not request.unfinished:
            del self._requests[request.request_id]

    def _end_request(
        self, request: Request, reason: FinishReason, error: str | None, index: int | None = None
    ) -> list[SequenceUpdate]:
        """Ends all sequences of a request that are left, or the one with `index`."""
        updates = []
        for which in sorted(request.unfinished) if index is None else [index]:
            updates.append(
                SequenceUpdate(
                    request_id=request.request_id, index=which, finish_reason=reason, error=error
                )
            )
            sequence = request.sequences.get(which)
            if sequence is not None:
                self._finish(sequence)
            request.unfinished.discard(which)
        if not request.unfinished:
            self._requests.pop(request.request_id, None)
        elif not request.sequences:
            # The leader went before its prompt was done: another one takes the lead.
            self._waiting.add(request.make_sequence(min(request.unfinished)))
        return updates

    # When a step fails.

    def fail(self, plans: list[StepPlan], error: str) -> list[SequenceUpdate]:
        """The first plan raised; the others were in flight behind it and are void.

        What they published is withdrawn, and their sequences start over, one at a time, alone in
        their steps, until each has come past the point where it was. One that fails alone ends.
        """
        flights = list(self._flights)
        if [plan.step for plan in plans] != [flight.plan.step for flight in flights]:
            raise ValueError("the plans that failed are not those in flight")
        self._flights.clear()
        first: dict[Sequence, int] = {}
        reached: dict[Sequence, int] = {}
        for flight in flights:
            plan = flight.plan
            for sequence, start, count in zip(
                flight.members, plan.starts, plan.counts, strict=True
            ):
                first[sequence] = min(start, first.get(sequence, start))
                reached[sequence] = max(start + count, reached.get(sequence, 0))
        members = flights[0].members if flights else []
        culprit = members[0] if len(members) == 1 and members[0].is_suspect else None
        for sequence, start in first.items():
            self._cache.withdraw(sequence, start)
            self._strip_forks(sequence.request)
        updates: list[SequenceUpdate] = []
        if culprit is not None and not culprit.is_finished:
            updates = self._end_request(culprit.request, "error", error)
        for sequence, until in reached.items():
            if not sequence.is_finished:
                self._start_over(sequence)
                sequence.is_suspect = True
                if not sequence.alone_until:
                    self._run_alone(sequence, until)
        # The worker may not have come to free these; freeing twice does no harm.
        again = [row for flight in flights for row in flight.plan.freed_rows]
        self._freed_rows = list(dict.fromkeys(again + self._freed_rows))
        return updates

    def _clear_alone(self, flight: Flight) -> None:
        """One that came alone past the point where it failed runs with the others again."""
        sequence = self._alone[0]
        if flight.members == [sequence] and sequence.computed >= sequence.alone_until:
            del self._alone[0]
            sequence.alone_until = 0
            sequence.is_suspect = False
