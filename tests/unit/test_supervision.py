"""What follows from an engine's death: what is sent again, who is charged, who is tried, when it ends."""

from __future__ import annotations

import os
from typing import Any

import pytest

from quire.engine.record import Memory, RecordReader, RecordWriter, name_of, new_memory
from quire.engine.replay import Live, Roster, RunningStats
from quire.engine.supervision import WINDOW_S, Court, Death, Restarts
from quire.protocol.errors import RequestFailedError
from quire.protocol.outputs import EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import NewRow, PositionLogprobs, StepPlan


def request(name: str, **params: Any) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=[5, 6, sum(name.encode())],
        params=SamplingParams(**params),
        seed=3,
    )


def update(name: str, *ids: int, **changes: Any) -> SequenceUpdate:
    return SequenceUpdate(request_id=name, token_ids=list(ids), **changes)


def news(*updates: SequenceUpdate) -> EngineOutputs:
    return EngineOutputs(updates=list(updates), stats=EngineStats(), at_s=0.0)


def position(token: int) -> PositionLogprobs:
    return PositionLogprobs([token], [-1.0], [1])


# What is sent again.


def test_a_request_that_got_nothing_is_sent_as_it_came() -> None:
    roster = Roster()
    live = roster.add(request("a", n=2))
    assert roster.send(live) == (live.request, [])


def test_a_request_goes_on_behind_what_was_received() -> None:
    roster = Roster()
    live = roster.add(request("a", n=3))
    roster.send(live)
    roster.take(news(update("a", 7, 8), update("a", 9, index=1)))
    roster.take(news(update("a", 10, index=2, finish_reason="stop"), update("a", 11)))
    assert roster.recall_all() == [live] and live.sent_as is None
    again, ended = roster.send(live)
    assert again.resume_ids == [[7, 8, 11], [9], []] and ended == [2]
    assert again.request_id == live.sent_as != "a"
    assert (again.seed, again.params) == (3, live.request.params)
    # Its news have the name that the front knows, and news under the old name are nobody's.
    late, fresh = update("a", 12), update(again.request_id, 12)
    assert roster.take(news(late, fresh)) == [update("a", 12)]
    assert live.received == [[7, 8, 11, 12], [9], [10]]


def test_sequences_that_the_front_ended_are_not_heard_of_again() -> None:
    roster = Roster()
    live = roster.add(request("a", n=2))
    roster.send(live)
    roster.end("a", 0)
    assert roster.take(news(update("a", 7), update("a", 8, index=1))) == [update("a", 8, index=1)]
    roster.end("a")
    assert not roster.live and not roster.sent
    assert roster.take(news(update("a", 9, index=1))) == []
    assert roster.end("a") is None


def test_prompt_logprobs_are_told_once() -> None:
    roster = Roster()
    live = roster.add(request("a", prompt_logprobs=1))
    roster.send(live)
    first = [position(1), position(2)]
    roster.take(news(update("a", prompt_logprobs=first)))
    roster.recall_all()
    again = roster.send(live)[0].request_id
    told = roster.take(news(update(again, prompt_logprobs=[position(1)])))
    told += roster.take(news(update(again, 4, prompt_logprobs=[position(2), position(3)])))
    assert [one.prompt_logprobs for one in told] == [[], [position(3)]]
    assert told[1].token_ids == [4]


def test_counters_go_on_over_lives() -> None:
    counts = RunningStats()
    assert counts.add(EngineStats(steps=5, step_s=0.5, num_running=3)).steps == 5
    counts.restart()
    assert (counts.now.restarts, counts.now.num_running, counts.now.steps) == (1, 0, 5)
    after = counts.add(EngineStats(steps=2, step_s=0.25, num_running=1))
    assert (after.steps, after.step_s, after.num_running, after.restarts) == (7, 0.75, 1, 1)
    counts.restart()
    assert counts.add(EngineStats(steps=1)).steps == 8 and counts.now.restarts == 2


# Who is charged, and tried.


class World:
    """A roster, a court and a clock, with requests a, b, c…"""

    def __init__(self, names: str) -> None:
        self.now_s = 1000.0
        self.roster = Roster()
        self.court = Court(self.roster, clock=lambda: self.now_s)
        self.lives = {name: self.roster.add(request(name)) for name in names}
        self.start()

    def start(self) -> None:
        self.court.open()
        self.turn()

    def turn(self) -> None:
        recalled, sent = self.court.turn()
        for live in recalled:
            self.roster.recall(live)
        for live in sent:
            self.roster.send(live)

    @property
    def running(self) -> str:
        return "".join(sorted(live.request.request_id for live in self.roster.sent))

    def die(self, in_step: str, *, is_theirs: bool = True) -> Live | None:
        names = frozenset(name_of(self.lives[name].sent_as or "") for name in in_step)
        guilty = self.court.charge(Death("it died", "internal", names, is_theirs))
        if guilty is not None:
            self.roster.end(guilty.request.request_id)
        self.start()
        return guilty

    def run(self, name: str, count: int, *, ends: bool = False) -> None:
        live = self.lives[name]
        assert live.sent_as is not None
        reason: Any = "stop" if ends else None
        self.roster.take(news(update(live.sent_as, *range(count), finish_reason=reason)))
        self.turn()


def test_the_killer_is_found_among_suspects_at_the_third_death() -> None:
    world = World("abcd")
    assert world.running == "abcd"
    assert world.die("abc") is None and world.running == "abcd"
    assert world.die("abc") is None
    # Three suspects, tried alone one after the other; d waits meanwhile.
    assert world.running == "a" and world.court.is_sitting
    world.run("a", 7)
    assert world.running == "a"
    world.run("a", 1)
    assert world.running == "b"
    guilty = world.die("b")
    assert guilty is world.lives["b"]
    assert world.running == "acd" and not world.court.is_sitting
    assert world.die("acd") is None and world.running == "acd"  # the others began anew


def test_the_innocent_go_on_together_after_their_trials() -> None:
    world = World("abc")
    world.die("ab")
    world.die("ab")
    world.run("a", 8)
    late = world.lives["d"] = world.roster.add(request("d"))
    world.turn()
    assert world.running == "b" and late.sent_as is None
    world.run("b", 3, ends=True)
    assert world.running == "acd" and not world.court.is_sitting


def test_who_kills_late_is_found_by_long_trials() -> None:
    world = World("abc")
    world.die("ab")
    world.die("ab")
    world.run("a", 8)
    world.run("b", 8)
    assert world.running == "abc"
    assert world.die("ab") is None
    assert world.running == "ac"  # to its end, beside those that are not suspect
    world.run("a", 500)
    assert world.running == "ac"
    world.run("a", 1, ends=True)
    assert world.running == "bc"
    assert world.die("c") is None and world.running == "bc"  # it had no part in that
    assert world.die("bc") is world.lives["b"]
    assert world.running == "c"


def test_a_death_between_steps_is_charged_to_all_that_were_there() -> None:
    world = World("ab")
    world.die("")
    world.die("")
    assert world.running == "a"
    assert world.die("") is world.lives["a"]
    assert world.running == "b"


def test_somebody_elses_kill_is_charged_to_nobody() -> None:
    world = World("ab")
    for _ in range(10):
        assert world.die("ab", is_theirs=False) is None
        assert world.running == "ab" and not world.court.is_sitting


def test_the_like_of_a_killer_is_refused_for_ten_minutes() -> None:
    world = World("a")
    for _ in range(2):
        assert world.die("a") is None
    assert world.die("a") is world.lives["a"]
    twin = Live(request("a"))
    with pytest.raises(RequestFailedError, match="refused for 600 s"):
        world.court.check(twin)
    world.court.check(Live(request("a", temperature=0.5)))
    world.court.check(Live(request("b")))
    world.now_s += WINDOW_S + 1
    world.court.check(twin)


def test_restarts_are_counted_within_ten_minutes() -> None:
    now_s = 0.0
    restarts = Restarts(2, clock=lambda: now_s)
    assert [restarts.take() for _ in range(3)] == [True, True, False]
    now_s = WINDOW_S + 1
    assert restarts.take()
    assert not Restarts(0).take()


# The record.


def plan(step: int, rows: list[int], new: dict[int, str] | None = None) -> StepPlan:
    rows_of_new = [
        NewRow(
            row=row, request_id=name, index=0, token_ids=[1], num_prompt_tokens=1,
            params=SamplingParams(), seed=0, block_ids=[[]],
        )
        for row, name in (new or {}).items()
    ]  # fmt: skip
    return StepPlan(step=step, rows=rows, new_rows=rows_of_new)


def test_the_record_names_who_is_in_the_steps_in_flight() -> None:
    descriptor = new_memory()
    mine, theirs = Memory(descriptor), Memory(descriptor)
    os.close(descriptor)
    writer, reader = RecordWriter(theirs), RecordReader(mine)
    a, b, c = (name_of(name) for name in "abc")
    before = reader.moved()
    writer.turn()
    assert reader.moved() != before and reader.in_step() == set()
    writer.begin(plan(0, [0, 1], {0: "a", 1: "b"}))
    assert reader.in_step() == {a, b}
    writer.begin(plan(1, [1]))
    assert reader.in_step() == {a, b}
    writer.end()
    assert reader.in_step() == {b}
    writer.begin(plan(2, [0, 1], {0: "c"}))
    assert reader.in_step() == {b, c}
    writer.end()
    writer.end()
    assert reader.in_step() == set()
    writer.begin(plan(3, [0, 1]))
    assert reader.in_step() == {b, c}
    mine.close()
    theirs.close()


def test_a_step_of_more_requests_than_the_record_holds_is_cut() -> None:
    descriptor = new_memory()
    memory = Memory(descriptor)
    os.close(descriptor)
    writer = RecordWriter(memory)
    writer.begin(plan(0, list(range(9000)), {row: str(row) for row in range(9000)}))
    assert 8000 < len(RecordReader(memory).in_step()) < 9000
