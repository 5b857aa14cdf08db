"""Constraints in a running engine: valid outputs whatever happens to a request, and neighbours left alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tokenizers

from quire.config.demo import FOLDER
from quire.engine.client import EngineClient
from quire.engine.grammar import masks
from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.guidance import GuidanceMatcher
from quire.protocol.outputs import REFUSED
from quire.protocol.request import EngineRequest, GrammarSpec
from tests.e2e.driver import Collected, Job, bits, engine, run

EOS = 2
TOKENIZER = tokenizers.Tokenizer.from_file(str(Path(FOLDER) / "tokenizer.json"))
THINK, END_THINK = 3066, 3067
ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 9999},
        "kind": {"enum": ["new", "old"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        "note": {"type": ["string", "null"], "maxLength": 30},
    },
    "required": ["id", "kind", "tags", "note"],
    "additionalProperties": False,
}
SCHEMA = GrammarSpec(kind="json", text=json.dumps(ORDER), options={"whitespace": "[ ]{0,1}"})


@dataclass(frozen=True)
class Bound(Job):
    """A job under a constraint, of the demo model. more are fields of the EngineRequest."""

    grammar: GrammarSpec | None = SCHEMA
    more: tuple[tuple[str, Any], ...] = ()

    def request(self, request_id: str, **changes: Any) -> EngineRequest:
        own = {"grammar": self.grammar, "eos_token_ids": (EOS,)}
        return super().request(request_id, **own, **dict(self.more), **changes)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False).ids)


def text_of(one: Collected) -> str:
    return str(TOKENIZER.decode(one.token_ids, skip_special_tokens=True))


def job(number: int, grammar: GrammarSpec | None = SCHEMA, **params: Any) -> Bound:
    how = {"max_tokens": 160, "temperature": 1.0, "logprobs": 1, **params}
    return Bound(
        ids_of(f"Tell me {number} things about a lake."), how, seed=number, grammar=grammar
    )


def plain(number: int) -> Bound:
    return job(number, None, max_tokens=40, ignore_eos=True)


def check(found: list[list[Collected]]) -> None:
    for sequences in found:
        for one in sequences:
            assert one.finish_reason == "stop", (one.finish_reason, one.error, text_of(one))
            jsonschema.validate(json.loads(text_of(one)), ORDER)


JOBS = [job(n) if n % 2 else plain(n) for n in range(8)]
JOBS += [
    job(20, n=3, presence_penalty=0.5, repetition_penalty=1.1),
    job(21, min_tokens=150, temperature=0.0),
]


@pytest.fixture(scope="module")
def alone() -> list[list[Collected]]:
    """What each job gives by itself."""
    with engine(Path(FOLDER)) as client:
        return [run(client, [one], tag=f"solo{place}")[0] for place, one in enumerate(JOBS)]


def test_alone_each_is_valid(alone: list[list[Collected]]) -> None:
    check([found for found, one in zip(alone, JOBS, strict=True) if one.grammar])
    assert len({one.bits for one in alone[8]}) == 3


@pytest.mark.parametrize(
    "how",
    [
        {}, {"async_scheduling": True}, {"max_num_batched_tokens": 16}, {"num_gpu_blocks_override": 12},
        {"num_gpu_blocks_override": 12, "async_scheduling": True}, {"enable_prefix_caching": False},
    ],
)  # fmt: skip
def test_nothing_but_the_request_decides(alone: list[list[Collected]], how: dict[str, Any]) -> None:
    preemptions: list[int] = []
    with engine(Path(FOLDER), max_model_len=384, **how) as client:
        found = run(client, JOBS, on_stats=lambda stats: preemptions.append(stats.num_preemptions))
    assert bits(found) == bits(alone)
    if "num_gpu_blocks_override" in how:
        assert preemptions[-1] > 0, "the cache was not small enough"


def test_an_output_goes_on_from_any_point(alone: list[list[Collected]]) -> None:
    whole = alone[1][0].token_ids
    for cut in (1, len(whole) // 2, len(whole) - 1):
        with engine(Path(FOLDER)) as client:
            more = (("resume_ids", [whole[:cut]]),)
            again = run(client, [Bound(JOBS[1].prompt, JOBS[1].params, JOBS[1].seed, more=more)])
        assert again[0][0].token_ids == whole[cut:]


def test_stop_tokens_wait_until_it_may_end() -> None:
    brace = ids_of("}")[0]
    with engine(Path(FOLDER)) as client:
        early = run(client, [job(3, stop_token_ids=[brace], max_tokens=200)])[0][0]
    text = text_of(early)
    assert early.finish_reason == "stop", text
    jsonschema.validate(json.loads(text), ORDER)


def test_length_ends_it_with_a_beginning() -> None:
    with engine(Path(FOLDER)) as client:
        found = run(client, [job(4, max_tokens=1), job(4, max_tokens=9)])
        whole = run(client, [job(4)], tag="whole")[0][0]
    assert [one[0].finish_reason for one in found] == ["length", "length"]
    assert all(text_of(whole).startswith(text_of(one[0])) for one in found)


def test_thinking_is_free_and_bounded() -> None:
    yes = GrammarSpec(kind="choice", text='["yes", "no"]', starts_after_ids=(END_THINK,))
    marks = (("end_of_thinking_ids", (END_THINK,)), ("start_of_thinking_ids", ()))
    how = {"max_tokens": 30, "temperature": 1.0, "thinking_token_budget": 7}
    with engine(Path(FOLDER)) as client:
        jobs = [Bound(ids_of("Hm."), how, seed=n, grammar=yes, more=marks) for n in range(6)]
        only = [Bound(ids_of("Hm."), how, seed=n, grammar=None, more=marks) for n in range(3)]
        found = run(client, jobs + only)
    for place, (one,) in enumerate(found):
        at = one.token_ids.index(END_THINK)
        assert at <= 7
        if place < len(jobs):
            assert TOKENIZER.decode(one.token_ids[at + 1 :]) in ("yes", "no")
            assert one.finish_reason == "stop"


def test_a_constraint_that_cannot_be_compiled_ends_its_request_only() -> None:
    bad = GrammarSpec(kind="json", text='{"type": "something"}')
    with engine(Path(FOLDER)) as client:
        found = run(client, [job(1), job(2, bad, n=2), plain(3)])
    check(found[:1])
    assert [one.finish_reason for one in found[1]] == ["error", "error"]
    assert "something" in (found[1][0].error or "") and found[2][0].finish_reason == "length"


def test_a_mask_that_takes_too_long_ends_its_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine(Path(FOLDER)) as client:
        good = run(client, [plain(3)], tag="before")
        monkeypatch.setattr(masks, "MAX_MASK_S", -1.0)
        found = run(client, [job(1), plain(3)])
        assert found[0][0].finish_reason == "error" and "too complex" in (found[0][0].error or "")
        assert bits([found[1]]) == bits(good)
        monkeypatch.setattr(masks, "MAX_MASK_S", 0.05)
        check(run(client, [job(1)], tag="after"))


def test_a_matcher_that_raises_among_others_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bad: list[GuidanceMatcher] = []
    fill = GuidanceMatcher.fill

    def all_raise(matchers: list[GuidanceMatcher], *rest: Any) -> None:
        raise GrammarError("planted")

    def first_raises(self: GuidanceMatcher, mask: Any) -> None:
        if not bad:
            bad.append(self)
        if self is bad[0]:
            raise GrammarError("planted")
        fill(self, mask)

    with engine(Path(FOLDER)) as client:
        good = run(client, [job(1), plain(3)], tag="before")
        monkeypatch.setattr(GuidanceMatcher, "fill_all", staticmethod(all_raise))
        assert bits(run(client, [job(1), plain(3)], tag="each")) == bits(good)
        monkeypatch.setattr(GuidanceMatcher, "fill", first_raises)
        found = run(client, [job(2), job(1), plain(3)])
    assert found[0][0].finish_reason == "error" and "planted" in (found[0][0].error or "")
    assert found[0][0].stop_reason == REFUSED
    assert bits(found[1:]) == bits(good)


def _steps_until_idle(client: EngineClient) -> int:
    count = 0
    while client.step() is not None:
        count += 1
    return count


def test_a_request_may_go_while_its_constraint_is_compiled() -> None:
    with engine(Path(FOLDER)) as client:
        client.add(job(1).request("gone-1"))
        client.abort("gone-1")
        assert _steps_until_idle(client) <= 2
        assert not client.call("has_work") and client.call("blocks_in_use") == 0
        client.add(job(1).request("gone-2"))
        for _ in range(5):
            client.step()
        client.abort("gone-2")
        _steps_until_idle(client)
        assert client.call("blocks_in_use") == 0
