"""Decides who runs in each step, and takes in what came of it.

Where cache blocks come from is `engine.kvcache`; carrying out a plan is the worker's.
"""

from __future__ import annotations

import time
from collections import deque
from copy import copy

from quire.engine.kvcache.manager import COMING, CacheManager
from quire.engine.request import NEVER, Request, Sequence
from quire.engine.scheduler.intake import accept
from quire.engine.scheduler.places import Places
from quire.engine.scheduler.plan import Draft, Flight, extents
from quire.engine.scheduler.policy import check_settings, chunk_len
from quire.engine.scheduler.results import (
    late_logprobs,
    make_update,
    pooled_update,
    refused,
    stop_of,
    unsent_logprobs,
)
from quire.protocol.cache import CacheLayout
from quire.protocol.errors import InvalidRequestError
from quire.protocol.outputs import EngineStats, FinishReason, SequenceUpdate
from quire.protocol.request import EngineRequest
from quire.protocol.step import RowGrowth, RowResult, StepPlan, StepResult

_WAITS = -1


class Scheduler:
    """Queues, rows and cache of one engine. One step is schedule(), the worker's turn, update().

    Several plans may be in flight: schedule() may be called again before update(), and results come
    in the order of the plans. A sequence is in one place: waiting, running (it has a row), or alone
    without a row.

    token_budget  tokens of a step; may be set between steps, and acts between 1 and
                  max_num_batched_tokens.
    whole_prompts  a prompt runs in one step or waits for the next; the budget must hold the longest.
    places, flights  where every sequence is, and the plans without a result; to be looked at only.
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
        whole_prompts: bool = False,
    ) -> None:
        """Raises SettingsError for a limit below 1, an unknown policy, or a cache too small for one
        sequence of max_model_len tokens."""
        check_settings(
            policy,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
        )
        self.token_budget = max_num_batched_tokens
        self._max_budget = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._policy = policy
        self._longest_chunk = 0 if whole_prompts else long_prefill_token_threshold
        self._whole_prompts = whole_prompts
        self._caching = enable_prefix_caching
        self._cache = CacheManager(
            layout, max_model_len=max_model_len, max_chunk=self._max_budget, hash_algo=hash_algo
        )
        self._block_size = self._cache.block_size
        self.places = self._places = Places(self._cache, max_num_seqs)
        self.flights = self._flights = deque[Flight]()
        self._num_requests = 0
        self._step = 0
        self._is_settled = True
        self._stats = EngineStats()

    # Requests come and go.

    def add(self, request: EngineRequest) -> None:
        """Queues a request. Raises InvalidRequestError if it can never run here."""
        if request.request_id in self._places.requests:
            raise InvalidRequestError(
                f"request id {request.request_id!r} is in use; choose another", param="request_id"
            )
        state = accept(
            request,
            policy=self._policy,
            number=self._num_requests,
            max_model_len=self._max_model_len,
            caching=self._caching,
        )
        self._num_requests += 1
        self._places.requests[request.request_id] = state
        leader = state.make_sequence(0)
        self._cache.hash_prompt(leader)
        self._places.waiting.add(leader)

    def abort(self, request_id: str, index: int | None = None) -> list[SequenceUpdate]:
        """Ends a request, or one of its sequences; its blocks are free at once. [] if it is not known."""
        request = self._places.requests.get(request_id)
        if request is None or (index is not None and index not in request.unfinished):
            return []
        updates = self._end_request(request, "abort", None, index)
        self._cache.settle()
        return updates

    def has_work(self) -> bool:
        """Whether any request is not finished."""
        return bool(self._places.requests)

    def stats(self) -> EngineStats:
        """Counters since start and gauges of now, as an object of its own. Blocks of sequences that
        ended since the last plan went out may still count as in use."""
        return self._places.gauges(copy(self._stats))

    def reset_prefix_cache(self) -> bool:
        """Forgets every cached block; False, with nothing changed, while blocks are in use."""
        return self._cache.reset()

    # Planning.

    def settle(self) -> None:
        """What can wait until a plan is with the worker: keys, and blocks of sequences that ended."""
        self._is_settled = True
        self._cache.settle()

    def schedule(self) -> StepPlan | None:
        """The next plan; None if nothing can run before a result comes in."""
        if not self._is_settled:
            self.settle()  # nobody did since the last plan
        self._cache.begin_plan()
        draft = Draft()
        places = self._places
        budget = max(1, min(self.token_budget, self._max_budget))
        if not places.alone:
            before = places.num_preemptions
            budget = self._plan_running(draft, budget)
            # Who was just preempted would be let in again at the cost of those who stayed.
            if not places.alone and (places.num_preemptions == before or not draft.rows):
                self._plan_waiting(draft, budget)
        if not draft.rows and not self._flights:
            if places.alone:
                self._plan_alone(draft, budget)
            elif places.waiting:
                self._force(draft, budget)
        if not draft.rows:
            return None
        for leader in draft.leaders:
            places.fork(leader, draft.copies)
        self._cache.release_sources(draft.sources)
        flight = draft.finish(self._step, places.freed_rows)
        places.freed_rows = []
        self._step += 1
        self._is_settled = False
        self._flights.append(flight)
        return flight.plan

    def _plan_running(self, draft: Draft, budget: int) -> int:
        """Plans the running sequences, oldest first; returns what is left of the budget."""
        rows, starts, members = draft.rows, draft.starts, draft.members
        # Only the tail is ever preempted, so the list may shrink while it is walked.
        for sequence in self._places.running.items:
            if budget <= 0:
                break
            length = sequence.length
            if length <= sequence.plain_until:
                # What most rows do in most steps, written out.
                sequence.computed = length
                sequence.length = length + 1
                rows.append(sequence.row)
                starts.append(length - 1)
                members.append(sequence)
                budget -= 1
                continue
            if length >= sequence.final_len:
                continue  # its last token is in flight
            start = sequence.computed
            count = 1 if length - start == 1 else self._chunk(sequence, start, budget)
            if start + count > sequence.capacity:
                count = self._claim(sequence, count, draft)
                if not count:
                    break
            self._plan_row(sequence, start, count, draft)
            budget -= count
        return budget

    def _plan_row(self, sequence: Sequence, start: int, count: int, draft: Draft) -> None:
        """Puts `count` tokens of a sequence that has the blocks for them into the plan."""
        is_last = draft.add_row(sequence, start, count)
        if start + count >= sequence.publish_at:
            self._cache.publish_later(sequence)
        publish_at = sequence.publish_at
        if sequence.busy_key is not None or publish_at <= len(sequence.token_ids):
            self._places.mark_busy(sequence)
        if is_last:
            reach = sequence.capacity
            if publish_at <= reach:
                reach = publish_at - 1
            sequence.plain_until = reach if reach < sequence.final_len else sequence.final_len - 1

    def _plan_waiting(self, draft: Draft, budget: int) -> None:
        """Gives rows to waiting sequences while budget, rows and blocks last."""
        places = self._places
        admitted = []
        for sequence in places.waiting.items:
            if budget <= 0 or not places.free_rows:
                break
            if sequence.length != len(sequence.token_ids) or sequence.wait_key in places.busy:
                continue
            count = self._admit(sequence, budget, draft)
            if count == _WAITS:
                continue
            if not count:
                break
            admitted.append(sequence)
            budget -= count
        places.waiting.remove_all(admitted)

    def _plan_alone(self, draft: Draft, budget: int) -> None:
        """Plans the first of those that run alone, at the cost of all others if need be."""
        places = self._places
        sequence = places.alone[0]
        if sequence.row >= 0:
            start = sequence.computed
            count = self._chunk(sequence, start, budget)
            if start + count > sequence.capacity:
                count = self._claim(sequence, count, draft)
            if count:
                self._plan_row(sequence, start, count, draft)
                return
        if sequence.alone_until != NEVER:
            while not places.free_rows or not self._admit(sequence, budget, draft):
                if not places.make_room(sequence):
                    break
            else:
                return
        while places.make_room(sequence):
            pass
        self._admit_into_empty_cache(sequence, draft)

    def _force(self, draft: Draft, budget: int) -> None:
        """Nothing runs and yet nobody got in: takes away what only waiting sequences hold."""
        places = self._places
        places.strip_all()
        self._plan_waiting(draft, budget)
        if not draft.rows:
            sequence = places.waiting.items[0]
            self._admit_into_empty_cache(sequence, draft)
            places.waiting.remove(sequence)

    def _admit_into_empty_cache(self, sequence: Sequence, draft: Draft) -> None:
        """The last resort against slabs that are all a little used: one block's worth always fits."""
        if not self._cache.reset() or self._admit(sequence, self._block_size, draft) <= 0:
            raise RuntimeError("a sequence does not fit into an empty cache")

    def _chunk(self, sequence: Sequence, start: int, budget: int) -> int:
        count = self._cache.known_length(sequence, start) - start
        if count <= budget and self._longest_chunk <= 0:
            return count
        return chunk_len(start, count, budget, self._longest_chunk, self._block_size)

    def _admit(self, sequence: Sequence, budget: int, draft: Draft) -> int:
        """Gives a sequence a row and plans its first tokens; returns how many.

        0 if blocks run out, _WAITS if the next block is being computed by somebody else.
        """
        cache, places = self._cache, self._places
        encoded = draft.encoder_cost(sequence, budget)
        if encoded < 0 or (self._whole_prompts and sequence.length > budget):
            return 0
        budget = max(budget - encoded, 1)
        if sequence.is_fork:
            start = sequence.computed
            count = self._chunk(sequence, start, budget)
            if not cache.start_fork(sequence, start + count, draft.copies, draft.sources):
                return 0
            del places.forks[sequence]
        else:
            if (hit := cache.match(sequence)) == COMING:
                return _WAITS
            if places.busy and not places.alone:
                sequence.wait_key = cache.awaited_key(sequence, hit)
                if sequence.wait_key in places.busy:
                    return _WAITS
            if places.running.items and not cache.fits(sequence, hit):
                return 0
            start = hit * self._block_size
            count = self._chunk(sequence, start, budget)
            if not cache.start(sequence, hit, start + count):
                return 0
            if sequence.num_cached < 0:
                sequence.num_cached = min(start, sequence.num_prompt)
            if sequence.reads_cache:
                self._stats.prefix_queries += sequence.length
                self._stats.prefix_hits += start
        request = sequence.request
        if not request.scheduled_s:
            request.scheduled_s = time.monotonic()
        sequence.wait_key = None
        places.seat(sequence)
        draft.add_new(sequence, encoded)
        self._plan_row(sequence, start, count, draft)
        return count + encoded

    def _claim(self, sequence: Sequence, count: int, draft: Draft) -> int:
        """Blocks for `count` more tokens of a running sequence, at the cost of younger ones.

        Returns the tokens it got room for: fewer if it is the only one left, 0 if it was preempted.
        """
        places = self._places
        while (grown := self._cache.grow(sequence, sequence.computed + count)) is None:
            if places.make_room(sequence):
                continue
            is_last = len(places.running) == 1
            if is_last and count > self._block_size:
                count = self._chunk(sequence, sequence.computed, self._block_size)
                continue
            places.preempt(sequence)
            if is_last:
                places.set_apart_for_good(sequence)
            return 0
        draft.growth.append(RowGrowth(sequence.row, grown))
        return count

    # Taking in results.

    def update(self, plan: StepPlan, result: StepResult) -> list[SequenceUpdate]:
        """Takes in the result of the oldest plan in flight; returns what the front must hear."""
        flight = self._flights.popleft()
        if flight.plan.step != plan.step or len(result.rows) != len(flight.members):
            raise ValueError(f"result of step {plan.step} came while {flight.plan.step} was due")
        step = plan.step
        updates: list[SequenceUpdate] = []
        num_quiet = 0
        for sequence, row, start, sampled in zip(
            flight.members, result.rows, plan.starts, plan.samples, strict=True
        ):
            token_ids = row.token_ids
            num_known = start + 2
            if (
                num_known > sequence.quiet_until
                or len(token_ids) != 1
                or token_ids[0] in sequence.stops
                or row.error is not None
                or row.nonfinite
                or row.prompt_logprobs
            ):
                if sequence.valid_from <= step:
                    updates += self._take_row(sequence, row, start, sampled)
                elif row.prompt_logprobs:
                    updates += late_logprobs(sequence, row.prompt_logprobs, start)
                continue
            # What most rows do in most steps, written out.
            sequence.token_ids.append(token_ids[0])
            if num_known >= sequence.publish_at:
                self._cache.publish_later(sequence)
            num_quiet += 1
            updates.append(
                SequenceUpdate(
                    request_id=sequence.request_id,
                    index=sequence.index,
                    token_ids=token_ids,
                    logprobs=row.logprobs,
                )
            )
        alone = self._places.alone
        if alone and flight.members == alone[:1] and alone[0].computed >= alone[0].alone_until:
            self._places.rejoin()
        flight.count(self._stats, num_quiet, result.elapsed_s)
        if not self._places.requests:
            self.settle()
        return updates

    def _take_row(
        self, sequence: Sequence, row: RowResult, start: int, sampled: bool
    ) -> list[SequenceUpdate]:
        """Takes in a row whatever it brings: a token, prompt logprobs, an end, or trouble."""
        error = row.error
        num_given = len(row.token_ids) + (row.pooled is not None)
        if error is None and not row.nonfinite and num_given != sampled:
            error = f"the step gave {num_given} tokens where {int(sampled)} was due"
        if error is not None or row.nonfinite:
            return self._take_trouble(sequence, start, error, row.is_refused)
        request = sequence.request
        if request.pools and row.pooled is not None:
            self._places.finish(sequence)
            return [pooled_update(sequence, row.pooled)]
        prompt_logprobs = None
        if request.logprobs_at < sequence.num_prompt:
            prompt_logprobs = unsent_logprobs(request, start, row.prompt_logprobs)
        stop = None
        if sampled:
            sequence.token_ids += row.token_ids
            self._stats.generation_tokens += 1
            num_known = len(sequence.token_ids)
            if num_known >= sequence.final_len or row.token_ids[0] in sequence.stops:
                stop = stop_of(sequence)
            if stop is not None:
                self._places.finish(sequence)
            else:
                if sequence.row >= 0:
                    sequence.quiet_until = sequence.final_len - 1
                if num_known >= sequence.publish_at:
                    self._cache.publish_later(sequence)
        elif not prompt_logprobs:
            return []
        return [make_update(sequence, row.token_ids, row.logprobs, prompt_logprobs, stop)]

    def _take_trouble(
        self, sequence: Sequence, start: int, error: str | None, is_refused: bool
    ) -> list[SequenceUpdate]:
        """A row's error ends its request. Logits that are not finite start it over once, uncached.

        start  where the row began in this step; what it published from there on is not trusted.
        """
        self._cache.withdraw(sequence, start if error is not None else 0)
        if error is None and sequence.num_nonfinite:
            error = (
                "the model gave numbers that are not finite, twice; "
                "check the prompt and the weights, or try --dtype float32"
            )
        if error is not None:
            return refused(self._end_request(sequence.request, "error", error), is_refused)
        sequence.num_nonfinite += 1
        sequence.reads_cache = False
        self._places.strip(sequence.request)
        self._places.start_over(sequence, self._step)
        if not sequence.alone_until:
            self._places.waiting.add(sequence)
        return []

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
                self._places.finish(sequence)
            request.unfinished.discard(which)
        if not request.unfinished:
            self._places.requests.pop(request.request_id, None)
        elif not request.sequences:
            # The leader went before its prompt was done: another one takes the lead.
            self._places.waiting.add(request.make_sequence(min(request.unfinished)))
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
        places = self._places
        first, reached = extents(flights)
        for sequence, start in first.items():
            self._cache.withdraw(sequence, start)
            places.strip(sequence.request)
        updates: list[SequenceUpdate] = []
        members = flights[0].members if flights else []
        if len(members) == 1 and members[0].is_suspect and not members[0].is_finished:
            updates = self._end_request(members[0].request, "error", error)
        for sequence, until in reached.items():
            if not sequence.is_finished:
                places.start_over(sequence, self._step)
                sequence.is_suspect = True
                if not sequence.alone_until:
                    places.set_apart(sequence, until)
        # The worker may not have come to free these; freeing twice does no harm.
        again = [row for flight in flights for row in flight.plan.freed_rows]
        places.freed_rows = list(dict.fromkeys(again + places.freed_rows))
        self._cache.settle()
        return updates

    def check_invariants(self) -> None:
        """Raises AssertionError if queues, rows, tables or references contradict each other."""
        assert len({flight.plan.step for flight in self._flights}) == len(self._flights)
        self._places.check_invariants()
