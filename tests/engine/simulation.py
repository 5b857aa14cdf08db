"""A worker without a model: it carries out plans on a shadow of the cache and checks every read.

Each slot of the shadow holds a digest of the token, its position and all that stands before it, so that
a stale, moved, foreign or missing slot is seen at the first attention that would read it. A block of
recurrent states has one slot, the digest of the last token that went into it. Sampling is a
pure function of the prefix and the sequence's index, so the right answer of a request is known
beforehand. What the model computes is tested elsewhere.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quire.engine.kvcache.limits import slabs_needed
from quire.engine.scheduler.scheduler import Scheduler
from quire.protocol.cache import NULL_BLOCK, CacheGroup, CacheLayout
from quire.protocol.outputs import SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import AdapterRef, EncoderInput, EngineRequest, MediaItem
from quire.protocol.step import NewRow, PositionLogprobs, RowResult, StepPlan, StepResult

VOCAB_SIZE = 40
EOS = 0
MAX_MODEL_LEN = 64
GARBAGE = -1
_MASK = (1 << 61) - 1


def mix(*numbers: int) -> int:
    """A number that depends on all the numbers and their order; the same in every process."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = ((value ^ (number + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) & _MASK
        value ^= value >> 29
    return value


def root_of(request: EngineRequest | NewRow, salt: str | None) -> int:
    """Digest of what stands before the first token: salt and adapter."""
    adapter = request.adapter
    parts = [0] if adapter is None else [1, adapter.id, adapter.generation]
    parts += [] if request.encoder is None else request.encoder.token_ids
    return mix(*parts, *(salt or "").encode())


def media_at(items: tuple[MediaItem, ...], position: int) -> int:
    """Stands for the embedding that replaces a placeholder token."""
    for item in items:
        if item.offset <= position < item.offset + item.length:
            return mix(*item.digest, position - item.offset)
    return 0


def first_seen(group: CacheGroup, position: int) -> int:
    """The first position that a query at `position` sees."""
    if group.window is None:
        return 0
    if group.kind == "chunked":
        return position - position % group.window
    return max(0, position - group.window + 1)


def digests_of(root: int, token_ids: list[int], media: tuple[MediaItem, ...] = ()) -> list[int]:
    """The slot of each token; the last one stands for the whole prefix."""
    slots = []
    for position, token in enumerate(token_ids):
        root = mix(root, token, position, media_at(media, position))
        slots.append(root)
    return slots


def read_by(row: NewRow) -> list[int]:
    """The slots of what an encoder read for a row."""
    given = [] if row.encoder is None else row.encoder.token_ids
    return digests_of(mix(*row.request_id.encode()), given)


def sample(digest: int, index: int, banned: frozenset[int]) -> int:
    """The token after a prefix, for the sequence with `index`."""
    turn = 0
    while (token := mix(digest, index, turn) % VOCAB_SIZE) in banned:
        turn += 1
    return token


def banned_of(request: EngineRequest | NewRow, num_output: int) -> frozenset[int]:
    """Ids that may not be sampled yet, because of min_tokens."""
    params = request.params
    assert isinstance(params, SamplingParams)
    if num_output >= params.min_tokens:
        return frozenset()
    return frozenset(params.stop_token_ids or ()) | frozenset(request.eos_token_ids)


def answer_of(request: EngineRequest, index: int, max_model_len: int) -> tuple[list[int], str, Any]:
    """The right output of a sequence, with finish_reason and stop_reason."""
    params = request.params
    assert isinstance(params, SamplingParams)
    known = list(request.prompt_token_ids)
    num_prompt = len(known)
    digest = digests_of(root_of(request, request.cache_salt), known, request.media)[-1]
    while True:
        num_output = len(known) - num_prompt
        token = sample(digest, index, banned_of(request, num_output))
        known.append(token)
        digest = mix(digest, token, len(known) - 1, 0)
        output = known[num_prompt:]
        if len(output) >= params.min_tokens:
            if token in request.eos_token_ids and not params.ignore_eos:
                return output, "stop", None
            if token in (params.stop_token_ids or ()):
                return output, "stop", token
        if len(known) >= max_model_len or len(output) == params.max_tokens:
            return output, "length", None


class StepFailure(Exception):
    """The fake worker raised in a step, as it was told to."""


@dataclass
class Trouble:
    """What shall go wrong with a request once it samples at `position` or later.

    kind  "error" for its row, "nan" once, "nans" always, "poison" for the whole step.
    """

    kind: str
    position: int
    done: set[int] = field(default_factory=set)


@dataclass
class ShadowRow:
    """A row as the worker knows it."""

    new: NewRow
    token_ids: list[int]
    slots: list[int]
    tables: list[list[int]]


class FakeWorker:
    """Executes plans in order. Raises AssertionError for a plan that a real worker could not carry out."""

    def __init__(self, layout: CacheLayout, salts: dict[str, str | None]) -> None:
        self.groups = layout.groups
        self.salts = salts
        self.trouble: dict[str, Trouble] = {}
        self.rows: dict[int, ShadowRow] = {}
        self.cache = [
            [
                [GARBAGE] * (1 if group.kind == "recurrent" else group.block_size)
                for _ in range(layout.max_blocks(g))
            ]
            for g, group in enumerate(layout.groups)
        ]
        self.num_rows = 0
        self.num_copies = 0
        self.num_encoded = 0

    def step(self, plan: StepPlan, fail: bool = False) -> StepResult:
        """Carries out a plan; raises StepFailure in the middle of it if told to, or if it is poisoned."""
        self.apply(plan)
        for copy in plan.copies:
            self.num_copies += 1
            blocks = self.cache[copy.group]
            blocks[copy.target] = list(blocks[copy.source])
        if fail or any(self._is_poisoned(plan, i) for i in range(len(plan.rows))):
            self.spoil(plan)
            raise StepFailure
        self._encode(plan)
        self._check_states(plan)
        self._write(plan)
        for i in range(len(plan.rows)):
            self._check_reads(plan, i)
        rows = [self._result(plan, i) for i in range(len(plan.rows))]
        self.num_rows += len(rows)
        return StepResult(step=plan.step, rows=rows)

    def apply(self, plan: StepPlan) -> None:
        """Rows go, come and grow."""
        for row in plan.freed_rows:
            self.rows.pop(row, None)
        for new in plan.new_rows:
            assert new.row not in self.rows, f"row {new.row} is taken"
            root = root_of(new, self.salts[new.request_id])
            self.rows[new.row] = ShadowRow(
                new,
                list(new.token_ids),
                digests_of(root, new.token_ids, new.media),
                [list(table) for table in new.block_ids],
            )
        for growth in plan.growth:
            for table, blocks in zip(self.rows[growth.row].tables, growth.block_ids, strict=True):
                table += blocks
        targets = [(copy.group, copy.target) for copy in plan.copies]
        sources = {(copy.group, copy.source) for copy in plan.copies}
        assert len(set(targets)) == len(targets) and not sources & set(targets)
        assert len(set(plan.rows)) == len(plan.rows)

    def spoil(self, plan: StepPlan) -> None:
        """A step that fails leaves anything behind where it was to write."""
        for row, start, count in zip(plan.rows, plan.starts, plan.counts, strict=True):
            for position in range(start, start + count):
                self._put(self.rows[row], position, GARBAGE)

    def _put(self, row: ShadowRow, position: int, slot: int) -> list[tuple[int, int]]:
        written = []
        for g, (group, table) in enumerate(zip(self.groups, row.tables, strict=True)):
            if group.kind == "cross":
                continue
            index, place = divmod(position, group.block_size)
            block = table[index]
            assert block != NULL_BLOCK, f"position {position} is written to no block"
            if group.kind == "recurrent":
                self.cache[g][block] = [slot]
                continue
            self.cache[g][block][place] = slot
            written.append((g, block * group.block_size + place))
        return written

    def _encode(self, plan: StepPlan) -> None:
        """The texts of a plan are read whole, into blocks that no other text of the plan has."""
        seen: set[tuple[int, int]] = set()
        self.num_encoded += len(plan.encodes)
        for row, count in plan.encodes.items():
            assert row in plan.rows and count == len(read_by(self.rows[row].new))
            for g, table in self._crossed(self.rows[row]):
                size = self.groups[g].block_size
                for position, slot in enumerate(read_by(self.rows[row].new)):
                    place = table[position // size], position % size
                    assert place not in seen, f"two texts use slot {place}"
                    seen.add(place)
                    self.cache[g][place[0]][place[1]] = slot

    def _crossed(self, row: ShadowRow) -> list[tuple[int, list[int]]]:
        """Groups of what an encoder read, each with the row's table, which is exactly as long as it must be."""
        found = [(g, row.tables[g]) for g, it in enumerate(self.groups) if it.kind == "cross"]
        for g, table in found:
            assert len(table) == -(-len(read_by(row.new)) // self.groups[g].block_size)
        return found

    def _check_states(self, plan: StepPlan) -> None:
        """Every row starts from the state before its first token, which no other row touches."""
        for g, group in enumerate(self.groups):
            if group.kind != "recurrent":
                continue
            users: dict[int, int] = {}
            for row, start, count in zip(plan.rows, plan.starts, plan.counts, strict=True):
                state, size = self.rows[row], group.block_size
                first = (start - 1) // size if start else 0
                touched = state.tables[g][first : (start + count - 1) // size + 1]
                if start:
                    assert touched[0] != NULL_BLOCK, f"group {g} starts from a block let go"
                    assert self.cache[g][touched[0]] == [state.slots[start - 1]], (
                        f"{state.new.request_id}: group {g} starts from a wrong state at {start}"
                    )
                written = touched[start // size - first :]
                assert not any(users.get(block) for block in touched), "a state is not a row's own"
                assert not any(block in users for block in written), "two rows use a state"
                users |= dict.fromkeys(touched, 0) | dict.fromkeys(written, 1)

    def _write(self, plan: StepPlan) -> None:
        seen: set[tuple[int, int]] = set()
        for row, start, count in zip(plan.rows, plan.starts, plan.counts, strict=True):
            assert count > 0
            state = self.rows[row]
            assert start + count <= len(state.slots), "a token is computed that nobody knows"
            for position in range(start, start + count):
                for place in self._put(state, position, state.slots[position]):
                    assert place not in seen, f"two rows write slot {place}"
                    seen.add(place)

    def _check_reads(self, plan: StepPlan, i: int) -> None:
        state, start = self.rows[plan.rows[i]], plan.starts[i]
        end = start + plan.counts[i]
        for g, group in enumerate(self.groups):
            size = group.block_size
            if group.kind in ("recurrent", "cross"):
                continue
            first = first_seen(group, start)
            table = state.tables[g]
            for index in range(first // size, -(-end // size)):
                low, high = max(first, index * size), min(end, (index + 1) * size)
                block = table[index]
                assert block != NULL_BLOCK, f"group {g} reads a block that was let go"
                slots = self.cache[g][block][low - index * size : high - index * size]
                assert slots == state.slots[low:high], (
                    f"{state.new.request_id}: group {g} reads wrong slots at {low} to {high}"
                )

        for g, table in self._crossed(state):
            slots = [slot for block in table for slot in self.cache[g][block]]
            wanted = read_by(state.new)
            assert slots[: len(wanted)] == wanted, f"{state.new.request_id}: another text is read"

    def _is_poisoned(self, plan: StepPlan, i: int) -> bool:
        trouble = self.trouble.get(self.rows[plan.rows[i]].new.request_id)
        reached = plan.starts[i] + plan.counts[i]
        return trouble is not None and trouble.kind == "poison" and reached >= trouble.position

    def _result(self, plan: StepPlan, i: int) -> RowResult:
        row, end = plan.rows[i], plan.starts[i] + plan.counts[i]
        state = self.rows[row]
        new = state.new
        prompt_logprobs = self._prompt_logprobs(state, plan.starts[i], end)
        trouble = self.trouble.get(new.request_id)
        if trouble is not None and end >= trouble.position:
            if trouble.kind == "error":
                self._append_garbage(state, plan.samples[i])
                return RowResult(row=row, error="told to")
            if trouble.kind == "nans" or (trouble.kind == "nan" and new.index not in trouble.done):
                trouble.done.add(new.index)
                self._append_garbage(state, plan.samples[i])
                return RowResult(row=row, nonfinite=True)
        if not plan.samples[i]:
            assert end < len(state.slots), "the last known token is computed and nothing sampled"
            return RowResult(row=row, prompt_logprobs=prompt_logprobs)
        assert end == len(state.slots), "a token is sampled before all known ones are computed"
        token = sample(state.slots[-1], new.index, banned_of(new, end - new.num_prompt_tokens))
        state.token_ids.append(token)
        state.slots.append(mix(state.slots[-1], token, end, 0))
        logprobs = [PositionLogprobs([token], [float(end)], [1])]
        return RowResult(
            row=row, token_ids=[token], logprobs=logprobs, prompt_logprobs=prompt_logprobs
        )

    def _append_garbage(self, state: ShadowRow, sampled: bool) -> None:
        """A step in flight may already run on the token that did not come."""
        if sampled:
            state.token_ids.append(GARBAGE)
            state.slots.append(GARBAGE)

    def _prompt_logprobs(
        self, state: ShadowRow, start: int, end: int
    ) -> list[PositionLogprobs] | None:
        if state.new.params.prompt_logprobs is None:
            return None
        last = min(end, state.new.num_prompt_tokens - 1)
        return [
            PositionLogprobs([state.token_ids[p]], [float(p)], [1])
            for p in range(start + 1, last + 1)
        ]


@dataclass
class Watch:
    """One sequence as the front sees it."""

    request: EngineRequest
    index: int
    answer: list[int]
    finish: str
    stop_reason: Any
    got: list[int]
    ended: str | None = None
    was_aborted: bool = False


@dataclass(frozen=True)
class Setting:
    """What a simulated engine is like; drawn from the seed by `draw_setting`."""

    layout: CacheLayout
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    policy: str
    threshold: int
    caching: bool
    hash_algo: str
    depth: int


def draw_setting(rng: random.Random, **fixed: Any) -> Setting:
    """Tiny pools, so that everything runs out all the time."""
    size = 8
    full = CacheGroup(kind="full", layers=(0,), block_size=size, bytes_per_token=3)
    window = CacheGroup(
        kind=rng.choice(("sliding_window", "sliding_window", "chunked")),
        layers=(1,),
        block_size=size,
        bytes_per_token=2,
        window=rng.choice([1, 8, 13, 20]),
    )
    states = CacheGroup(
        kind="recurrent",
        layers=(2,),
        block_size=rng.choice([8, 16, 32]),
        bytes_per_token=1,
        window=2,
        state_bytes=rng.choice([5, 24]),
    )
    groups = rng.choice(
        [(full, window), (full,), (window,), (full, states), (full, window, states), (states,)]
    )
    layout = CacheLayout(groups=groups, slab_bytes=rng.choice([24, 48, 96]), num_slabs=1)
    num_slabs = slabs_needed(layout, MAX_MODEL_LEN) + rng.choice([0, 0, 0, 1, 2, 6])
    layout = msgspec.structs.replace(layout, num_slabs=num_slabs)
    values: dict[str, Any] = {
        "layout": layout,
        "max_num_seqs": rng.choice([1, 3, 6, 10]),
        "max_num_batched_tokens": rng.choice([3, 8, 20, 64, 200]),
        "max_model_len": MAX_MODEL_LEN,
        "policy": rng.choice(["fcfs", "priority"]),
        "threshold": rng.choice([0, 0, 5, 16]),
        "caching": rng.random() < 0.8,
        "hash_algo": rng.choice(["sha256", "sha256", "sha256_cbor"]),
        "depth": rng.choice([1, 2]),
    }
    return Setting(**(values | fixed))


class Simulation:
    """A scheduler, a fake worker and a front that knows the right answers.

    faults  share of steps that fail, and of requests with which something goes wrong.
    check   call check_invariants() after every operation.
    """

    def __init__(self, seed: int, *, faults: float = 0.1, check: bool = True, **fixed: Any) -> None:
        self.rng = random.Random(seed)
        self.setting = draw_setting(self.rng, **fixed)
        self.scheduler = Scheduler(
            layout=self.setting.layout,
            max_num_seqs=self.setting.max_num_seqs,
            max_num_batched_tokens=self.setting.max_num_batched_tokens,
            max_model_len=self.setting.max_model_len,
            policy=self.setting.policy,
            long_prefill_token_threshold=self.setting.threshold,
            enable_prefix_caching=self.setting.caching,
            hash_algo=self.setting.hash_algo,
        )
        self.salts: dict[str, str | None] = {}
        self.worker = FakeWorker(self.setting.layout, self.salts)
        self.faults = faults
        self.check = check
        self.flights: deque[StepPlan] = deque()
        self.watched: dict[tuple[str, int], Watch] = {}
        self.logprobs: dict[str, list[int]] = {}
        self.live: list[str] = []
        self.num_added = 0
        self.num_done = 0
        self.num_steps = 0
        self.num_failures = 0
        self.segments = [[self.rng.randrange(1, VOCAB_SIZE) for _ in range(8)] for _ in range(4)]

    def run(self, operations: int) -> None:
        """That many random operations, then everything to its end."""
        for _ in range(operations):
            self.operate()
            if self.check:
                self.scheduler.check_invariants()
        self.drain()

    def operate(self) -> None:
        """One random operation."""
        chance = self.rng.random()
        if chance < 0.25 and len(self.live) < 30:
            self.add()
        elif chance < 0.265 and self.live:
            self.abort()
        elif chance < 0.27:
            self.scheduler.reset_prefix_cache()
        elif chance < 0.275:
            self.scheduler.token_budget = self.rng.choice([0, 1, 9, 50, 1000])
        elif len(self.flights) < self.setting.depth and self.rng.random() < 0.7:
            self.plan()
        elif self.flights:
            self.collect()

    def drain(self) -> None:
        """Steps until all is done; fails if it does not come to an end."""
        turns = 0
        while self.scheduler.has_work() or self.flights:
            turns += 1
            assert turns < 20_000, "the scheduler makes no progress"
            while len(self.flights) < self.setting.depth and self.plan():
                pass
            assert self.flights or not self.scheduler.has_work(), "work waits and nothing runs"
            if self.flights:
                self.collect()
            if self.check:
                self.scheduler.check_invariants()
        self.scheduler.check_invariants()
        assert not self.live, f"never finished: {self.live}"
        assert self.scheduler.stats().blocks_in_use == 0
        assert self.scheduler.reset_prefix_cache()

    def draw_request(self) -> EngineRequest:
        """A request whose beginning others may share, with anything set."""
        rng = self.rng
        limit = self.setting.max_model_len
        prompt: list[int] = []
        for _ in range(rng.randint(0, 5)):
            prompt += rng.choice(self.segments)
        prompt += [rng.randrange(1, VOCAB_SIZE) for _ in range(rng.choice([0, 0, 1, 5, 9]))]
        prompt = (prompt or [1])[: limit - 2]
        max_tokens = rng.choice([None, 1, 4, 12, 30])
        params = SamplingParams(
            n=rng.choice([1, 1, 1, 2, 3]),
            max_tokens=max_tokens,
            min_tokens=rng.choice([0, 0, 1 if max_tokens == 1 else 3]),
            ignore_eos=rng.random() < 0.3,
            stop_token_ids=rng.choice([[], [5], [5, EOS]]),
            prompt_logprobs=rng.choice([None, None, None, 0]),
            skip_reading_prefix_cache=rng.choice([None, None, True]),
        )
        encoder = None
        if any(group.kind == "cross" for group in self.setting.layout.groups):
            length = rng.choice([1, 7, 8, 9, 20])
            encoder = EncoderInput(token_ids=[rng.randrange(1, VOCAB_SIZE) for _ in range(length)])
        media = ()
        if len(prompt) > 12 and rng.random() < 0.2:
            media = (
                MediaItem(modality="image", offset=3, length=7, digest=rng.choice([b"x", b"y"])),
            )
        return EngineRequest(
            encoder=encoder,
            request_id=f"r{self.num_added}",
            prompt_token_ids=prompt,
            params=params,
            eos_token_ids=(EOS,),
            priority=rng.choice([0, 0, 1, -1]),
            cache_salt=rng.choice([None, None, None, "a", "b"]),
            adapter=rng.choice([None, None, AdapterRef(id=1), AdapterRef(id=1, generation=1)]),
            media=media,
        )

    def add(self) -> None:
        """A request comes in, now and then one that had got some output before."""
        request = self.draw_request()
        self.num_added += 1
        name, params = request.request_id, request.params
        assert isinstance(params, SamplingParams)
        answers = [answer_of(request, i, self.setting.max_model_len) for i in range(params.n)]
        if self.rng.random() < 0.1:
            resume = [output[: self.rng.randint(0, len(output) - 1)] for output, _, _ in answers]
        else:
            resume = [[] for _ in answers]
        if any(resume):
            changed = {key: getattr(request, key) for key in request.__struct_fields__}
            request = EngineRequest(**(changed | {"resume_ids": [list(ids) for ids in resume]}))
        for index, (output, finish, reason) in enumerate(answers):
            self.watched[name, index] = Watch(
                request, index, output, finish, reason, list(resume[index])
            )
        self.salts[name] = request.cache_salt
        if self.rng.random() < self.faults:
            kind = self.rng.choice(["error", "nan", "nan", "nans", "poison"])
            position = len(request.prompt_token_ids) + self.rng.randint(-6, 6)
            self.worker.trouble[name] = Trouble(kind, max(position, 1))
        self.logprobs[name] = []
        self.live.append(name)
        self.scheduler.add(request)

    def abort(self) -> None:
        """A client goes, or gives up one of its sequences."""
        name = self.rng.choice(self.live)
        index = self.rng.choice([None, None, 0, 1])
        for (other, i), watch in self.watched.items():
            if other == name and index in (None, i):
                watch.was_aborted = True
        self.take(self.scheduler.abort(name, index))

    def plan(self) -> bool:
        """Asks for a plan; False if there is none."""
        plan = self.scheduler.schedule()
        if plan is None:
            assert self.flights or not self.scheduler.has_work(), (
                "work waits and nothing is planned"
            )
            return False
        assert plan.rows
        budget = max(1, min(self.scheduler.token_budget, self.setting.max_num_batched_tokens))
        assert sum(plan.counts) <= budget
        assert plan.num_tokens <= budget or len(plan.encodes) == 1  # one text is read in any case
        assert all(0 <= row < self.setting.max_num_seqs for row in plan.rows)
        self.flights.append(plan)
        if self.rng.random() < 0.5:
            self.scheduler.settle()
        return True

    def collect(self) -> None:
        """The oldest plan is carried out and its result goes back."""
        plan = self.flights.popleft()
        self.num_steps += 1
        # One row alone is not failed at random: then it would rightly be held to be the culprit.
        fail = len(plan.rows) > 1 and self.rng.random() < 0.1 * self.faults
        try:
            result = self.worker.step(plan, fail)
        except StepFailure:
            self.num_failures += 1
            void = list(self.flights)
            self.flights.clear()
            if self.rng.random() < 0.5:
                for later in void:
                    self.worker.apply(later)
                    self.worker.spoil(later)
            self.take(self.scheduler.fail([plan, *void], "the step failed"))
            return
        self.take(self.scheduler.update(plan, result))

    def take(self, updates: list[SequenceUpdate]) -> None:
        """What the front hears is compared with the right answers."""
        for update in updates:
            name = update.request_id
            watch = self.watched[name, update.index]
            assert watch.ended is None, f"{name}[{update.index}] goes on after its end"
            assert len(update.token_ids) == len(update.logprobs or [])
            for position in update.logprobs or []:
                assert position.token_ids == [watch.answer[len(watch.got)]], f"{name} went wrong"
                num_known = len(watch.request.prompt_token_ids) + len(watch.got)
                assert position.logprobs == [float(num_known)]
                watch.got += position.token_ids
            self.logprobs[name] += [int(p.logprobs[0]) for p in update.prompt_logprobs or []]
            if update.finish_reason is not None:
                self.end(watch, update)

    def end(self, watch: Watch, update: SequenceUpdate) -> None:
        """A sequence ended: was it its time, and did everything arrive?"""
        name = watch.request.request_id
        watch.ended = update.finish_reason
        trouble = self.worker.trouble.get(name)
        assert watch.got == watch.answer[: len(watch.got)]
        if update.finish_reason == "abort":
            assert watch.was_aborted
        elif update.finish_reason == "error":
            assert update.error and trouble is not None and trouble.kind != "nan", (
                f"{name}: {update}"
            )
        else:
            assert watch.got == watch.answer, f"{name} has the wrong output"
            assert (update.finish_reason, update.stop_reason) == (watch.finish, watch.stop_reason)
            params = watch.request.params
            if isinstance(params, SamplingParams) and params.prompt_logprobs is not None:
                wanted = list(range(1, len(watch.request.prompt_token_ids)))
                assert self.logprobs[name] == wanted, f"{name}: prompt logprobs are incomplete"
        mates = [other for (n, _), other in self.watched.items() if n == name]
        if all(mate.ended for mate in mates):
            self.live.remove(name)
            self.num_done += 1
            for mate in mates:
                del self.watched[name, mate.index]
