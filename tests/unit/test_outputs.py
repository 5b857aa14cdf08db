"""From engine messages to outputs: kinds, stops, log-probabilities, errors, aborts, times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.frontend.outputs import OutputProcessor, Processed
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.outputs import EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.results import CompletionOutput, RequestOutput
from quire.protocol.step import PositionLogprobs
from tests import checkpoints
from tests.unit.tokenizers_built import sentencepiece_like

EOS = checkpoints.EOS_ID
KINDS = list(RequestOutputKind)
CUMULATIVE, DELTA, FINAL_ONLY = KINDS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(sentencepiece_like(tmp_path_factory.mktemp("pieces")))


class Feed:
    """One request in a processor, fed update by update."""

    def __init__(
        self, tokenizer: Tokenizer | None, *, prompt: list[int] | None = None, **params: Any
    ) -> None:
        self.processor = OutputProcessor(tokenizer)
        self.params = SamplingParams(**params)
        request = EngineRequest(
            request_id="r-1",
            prompt_token_ids=prompt or [0, 50],
            params=self.params,
            seed=77,
            arrival_time=1.0,
        )
        self.processor.add(request, "r", "words")
        self.aborts: list[tuple[str, int]] = []
        self.outputs: list[RequestOutput] = []

    def send(self, *updates: SequenceUpdate, at_s: float = 10.0) -> list[RequestOutput]:
        done: Processed = self.processor.process(
            EngineOutputs(updates=list(updates), stats=EngineStats(), at_s=at_s)
        )
        self.aborts += done.aborts
        made = [output for _, output in done.outputs]
        self.outputs += made
        return made

    def tokens(
        self, ids: list[int], finish: Any = None, *, index: int = 0, **more: Any
    ) -> list[RequestOutput]:
        return self.send(update(ids, finish, index=index, **more))


def update(ids: list[int], finish: Any = None, *, index: int = 0, **more: Any) -> SequenceUpdate:
    return SequenceUpdate(
        request_id="r-1", index=index, token_ids=ids, finish_reason=finish, **more
    )


def joined(outputs: list[RequestOutput], kind: RequestOutputKind) -> RequestOutput:
    """The stream of one request as a single output."""
    whole = outputs[0]
    for one in outputs[1:]:
        whole.add(one, aggregate=kind is DELTA)
    return whole


def plain(choice: CompletionOutput) -> tuple[Any, ...]:
    return choice.text, choice.token_ids, choice.finish_reason, choice.stop_reason


# --- output kinds


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ends_with_the_same_answer(
    tokenizer: Tokenizer, kind: RequestOutputKind
) -> None:
    ids = tokenizer.encode("Über the bridge 😀 ran", False)
    feed = Feed(tokenizer, output_kind=kind, max_tokens=len(ids))
    for one in ids[:-1]:
        feed.tokens([one])
    assert len(feed.outputs) == (0 if kind is FINAL_ONLY else len(ids) - 1)
    assert not any(output.finished for output in feed.outputs)
    feed.tokens(ids[-1:], "length")
    whole = joined(feed.outputs, kind)
    assert whole.finished and len(feed.processor) == 0
    assert plain(whole.outputs[0]) == ("Über the bridge 😀 ran", ids, "length", None)
    assert (whole.request_id, whole.prompt, whole.prompt_token_ids) == ("r", "words", [0, 50])
    assert whole.outputs[0].seed == 77 and whole.outputs[0].cumulative_logprob is None


def test_cumulative_grows_and_delta_does_not(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the bread and the honey", False)
    grown, news = Feed(tokenizer, output_kind=CUMULATIVE), Feed(tokenizer, output_kind=DELTA)
    for place, one in enumerate(ids):
        (whole,), (piece,) = grown.tokens([one]), news.tokens([one])
        assert whole.outputs[0].token_ids == ids[: place + 1] and piece.outputs[0].token_ids == [
            one
        ]
        assert whole.outputs[0].text == tokenizer.decode(ids[: place + 1])


def test_a_cumulative_output_is_not_changed_by_later_tokens(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, logprobs=0)
    (first,) = feed.tokens([60], logprobs=[logprobs([60], [-1.0])])
    feed.tokens([61], logprobs=[logprobs([61], [-1.0])])
    assert first.outputs[0].token_ids == [60] and len(first.outputs[0].logprobs or ()) == 1
    assert first.metrics is not None and first.metrics.num_generation_tokens == 1


@pytest.mark.parametrize("kind", KINDS)
def test_choices_of_one_request_share_an_output(
    tokenizer: Tokenizer, kind: RequestOutputKind
) -> None:
    feed = Feed(tokenizer, n=2, output_kind=kind)
    made = feed.send(update([60], index=1))
    if kind is CUMULATIVE:
        assert [choice.token_ids for choice in made[0].outputs] == [[], [60]]
    elif kind is DELTA:
        assert [choice.index for choice in made[0].outputs] == [1]
    feed.send(update([61], "length", index=1), update([62], index=0))
    assert not any(output.finished for output in feed.outputs)
    feed.send(update([63], "length", index=0))
    whole = joined(feed.outputs, kind)
    assert whole.finished
    assert [choice.token_ids for choice in whole.outputs] == [[62, 63], [60, 61]]


def test_an_interval_holds_outputs_back_but_not_the_first_and_last(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, output_kind=DELTA, stream_interval=3)
    for place in range(8):
        feed.tokens([60 + place], "length" if place == 7 else None)
    assert [len(output.outputs[0].token_ids) for output in feed.outputs] == [1, 3, 3, 1]


def test_prefill_gives_no_output(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer)
    assert feed.send(update([], queued_s=1.0, num_cached_tokens=4)) == []
    (first,) = feed.tokens([60])
    assert first.num_cached_tokens == 4


# --- text and stops


def test_without_detokenizing_there_is_no_text(tokenizer: Tokenizer) -> None:
    for feed in (Feed(tokenizer, detokenize=False), Feed(None, detokenize=False)):
        (output,) = feed.tokens([60, 61], "length")
        assert plain(output.outputs[0]) == ("", [60, 61], "length", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_stop_string_cuts_text_and_keeps_its_tokens(
    tokenizer: Tokenizer, kind: RequestOutputKind, include: bool, size: int
) -> None:
    ids = tokenizer.encode("one stone, two stones and more", False)
    feed = Feed(
        tokenizer, stop=["o st", "wo s"], output_kind=kind, include_stop_str_in_output=include
    )
    for start in range(0, len(ids), size):
        feed.tokens(ids[start : start + size])
    whole = joined(feed.outputs, kind)
    choice = whole.outputs[0]
    assert choice.text == "one stone, t" + ("wo s" if include else "")
    assert (choice.finish_reason, choice.stop_reason, whole.finished) == ("stop", "wo s", True)
    kept = next(n for n in range(len(ids) + 1) if "wo s" in tokenizer.decode(ids[:n]))
    assert choice.token_ids == ids[:kept]
    assert feed.aborts == [("r-1", 0)]


def test_an_ended_engine_sequence_is_not_aborted(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the end", False)
    feed = Feed(tokenizer, stop=["end"])
    feed.tokens(ids, "length")
    assert plain(feed.outputs[-1].outputs[0])[2:] == ("stop", "end") and feed.aborts == []


def test_held_back_text_comes_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("to the en", False)
    feed = Feed(tokenizer, stop=["ending"], output_kind=DELTA)
    for one in ids:
        feed.tokens([one])
    before = joined(feed.outputs, DELTA).outputs[0].text
    (last,) = feed.tokens([EOS], "stop")
    assert last.outputs[0].text.endswith("en")
    assert before + last.outputs[0].text == "to the en"


def test_no_stop_string_before_min_tokens(tokenizer: Tokenizer) -> None:
    ids = [one for _ in range(4) for one in tokenizer.encode("a", False)]
    feed = Feed(tokenizer, stop=["a"], min_tokens=2)
    for one in ids:
        feed.tokens([one])
    choice = feed.outputs[-1].outputs[0]
    assert (choice.text, choice.token_ids) == ("aa", ids[:3])


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("stop", [[], ["zzz"]])
def test_the_ending_token_is_text_only_if_asked_for(
    tokenizer: Tokenizer, include: bool, stop: list[str]
) -> None:
    ids = tokenizer.encode("the sea", False)
    feed = Feed(tokenizer, stop=stop, include_stop_str_in_output=include)
    (output,) = feed.tokens(ids, "stop", stop_reason=ids[-1])
    expected = tokenizer.decode(ids if include else ids[:-1])
    assert plain(output.outputs[0]) == (expected, ids, "stop", ids[-1])


def test_an_incomplete_character_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀", False)
    feed = Feed(tokenizer, output_kind=DELTA)
    feed.tokens(ids[:2])
    (last,) = feed.tokens(ids[2:-1], "length")
    assert last.outputs[0].text == tokenizer.decode(ids[:-1])


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_however_the_tokens_arrive_the_answer_is_the_same(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, 511), min_size=1, max_size=30))
    stop = data.draw(st.lists(st.text("aeo thn", min_size=1, max_size=3), max_size=2))
    answers = set()
    for kind in KINDS:
        feed = Feed(tokenizer, stop=stop, output_kind=kind)
        at = 0
        while at < len(ids):
            step = data.draw(st.integers(1, 5))
            feed.tokens(ids[at : at + step], "length" if at + step >= len(ids) else None)
            at += step
        text, kept, *end = plain(joined(feed.outputs, kind).outputs[0])
        answers.add((text, tuple(kept), *end))
    assert len(answers) == 1


# --- log-probabilities


def logprobs(
    ids: list[int], values: list[float], ranks: list[int] | None = None
) -> PositionLogprobs:
    return PositionLogprobs(ids, values, ranks or list(range(1, len(ids) + 1)))


def test_logprobs_hold_the_chosen_token_first(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, logprobs=2)
    (output,) = feed.tokens([60], logprobs=[logprobs([60, 61, 62], [-3.0, -0.5, -1.0], [9, 1, 2])])
    (second,) = feed.tokens(
        [61], "length", logprobs=[logprobs([61, 61, 60], [-0.25, -0.25, -2.0], [1, 1, 2])]
    )
    position = (output.outputs[0].logprobs or [])[0]
    assert [(i, one.logprob, one.rank) for i, one in position.items()] == [
        (60, -3.0, 9), (61, -0.5, 1), (62, -1.0, 2)
    ]  # fmt: skip
    choice = second.outputs[0]
    assert choice.logprobs is not None and list(choice.logprobs[1]) == [61, 60]
    assert choice.cumulative_logprob == -3.25


@pytest.mark.parametrize("kind", ["tokenizer", "pieces"])
def test_decoded_tokens_joined_are_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode("the cat é 😀 sat", False)[:-1]
    prompt = [tokenizer.bos_token_id or 0, *tokenizer.encode("a", False)]
    feed = Feed(tokenizer, logprobs=0, prompt=prompt)
    for place, one in enumerate(ids):
        feed.tokens([one], "length" if one == ids[-1] and place == len(ids) - 1 else None,
                    logprobs=[logprobs([one], [-1.0])])  # fmt: skip
    choice = feed.outputs[-1].outputs[0]
    assert choice.logprobs is not None
    assert (
        "".join(p[i].decoded_token or "" for p, i in zip(choice.logprobs, ids, strict=True))
        == choice.text
    )


def test_a_broken_character_at_the_end_belongs_to_the_last_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀", False)[:1]
    feed = Feed(tokenizer, logprobs=0)
    (output,) = feed.tokens(ids, "length", logprobs=[logprobs(ids, [-1.0])])
    assert output.outputs[0].text == "�"
    assert (output.outputs[0].logprobs or [])[0][ids[0]].decoded_token == "�"


def test_logprobs_stop_with_the_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a b c d", False)
    feed = Feed(tokenizer, logprobs=0, stop=["b"])
    (output,) = feed.tokens(ids, logprobs=[logprobs([one], [-1.0]) for one in ids])
    choice = output.outputs[0]
    assert len(choice.logprobs or ()) == len(choice.token_ids) < len(ids)
    assert choice.cumulative_logprob == -len(choice.token_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_logprobs_come_in_slices_and_leave_whole(
    tokenizer: Tokenizer, kind: RequestOutputKind
) -> None:
    prompt = [0, *tokenizer.encode("the é", False)]
    feed = Feed(tokenizer, prompt=prompt, prompt_logprobs=1, output_kind=kind)
    slices = [logprobs([one, 99], [-1.0, -2.0]) for one in prompt[1:]]
    feed.send(update([], prompt_logprobs=slices[:1]))
    feed.tokens([60], prompt_logprobs=slices[1:])
    feed.tokens([61], "length")
    first = feed.outputs[0].prompt_logprobs
    assert first is not None and first[0] is None and len(first) == len(prompt)
    decoded = [
        p[i].decoded_token for p, i in zip(first[1:], prompt[1:], strict=True) if p is not None
    ]
    assert "".join(filter(None, decoded)) == "the é"
    if kind is DELTA:
        assert feed.outputs[1].prompt_logprobs is None


# --- ends that are not the engine's own


def test_an_error_ends_all_choices_with_its_sentence(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, n=2)
    (output,) = feed.send(
        update([], "error", index=0, error="the row failed"),
        update([], "error", index=1, error="the row failed"),
    )
    assert output.finished and output.error == "the row failed"
    assert [choice.finish_reason for choice in output.outputs] == ["error", "error"]


@pytest.mark.parametrize("kind", KINDS)
def test_abort_gives_a_last_output(tokenizer: Tokenizer, kind: RequestOutputKind) -> None:
    feed = Feed(tokenizer, output_kind=kind, stop=["zz"])
    feed.tokens(tokenizer.encode("a z", False))
    ended = feed.processor.abort(["r-1", "unknown"])
    assert [name for name, _ in ended] == ["r-1"]
    whole = joined([*feed.outputs, ended[0][1]], kind)
    assert whole.finished and plain(whole.outputs[0])[0] == "a z"
    assert whole.outputs[0].finish_reason == "abort"
    assert len(feed.processor) == 0 and feed.processor.abort(["r-1"]) == []


def test_news_of_ended_requests_and_choices_is_passed_over(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, n=2, stop=["a"])
    feed.send(update(tokenizer.encode("a", False)))
    assert feed.aborts == [("r-1", 0)]
    assert feed.send(update([60])) == [] and feed.send(update([], "abort")) == []
    feed.processor.abort(["r-1"])
    assert feed.send(update([60], index=1)) == []


def test_live_ids_by_the_name_that_the_user_gave(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer)
    twin = EngineRequest(request_id="r-2", prompt_token_ids=[1], params=SamplingParams())
    feed.processor.add(twin, "r", None)
    assert feed.processor.live_ids("r") == ["r-1", "r-2"] and feed.processor.live_ids("x") == []


def test_times(tokenizer: Tokenizer) -> None:
    feed = Feed(tokenizer, output_kind=FINAL_ONLY)
    feed.send(update([], queued_s=1.5, scheduled_s=2.5), at_s=3.0)
    feed.send(update([60], queued_s=9.0), at_s=4.0)
    feed.send(update([61, 62], "length"), at_s=5.0)
    stats = feed.outputs[0].metrics
    assert stats is not None
    assert (stats.queued_ts, stats.scheduled_ts, stats.first_token_ts, stats.last_token_ts) == (
        1.5,
        2.5,
        4.0,
        5.0,
    )
    assert (
        stats.num_generation_tokens == 3
        and stats.arrival_time == 1.0
        and stats.first_token_latency > 0
    )
