"""Merging the outputs of one request."""

from __future__ import annotations

import logging

import pytest

from quire.protocol.results import CompletionOutput, Logprob, RequestOutput, RequestStateStats


def output(*choices: CompletionOutput, finished: bool = False, **values: object) -> RequestOutput:
    return RequestOutput("r", "p", [1], None, list(choices), finished, **values)  # type: ignore[arg-type]


def piece(index: int, text: str, ids: list[int], **values: object) -> CompletionOutput:
    return CompletionOutput(index, text, ids, **values)  # type: ignore[arg-type]


def test_pieces_are_joined_by_index() -> None:
    whole = output(
        piece(1, "b", [2], logprobs=[{2: Logprob(-1.0, 1, "b")}], cumulative_logprob=-1.0)
    )
    later = piece(1, "c", [3], logprobs=[{3: Logprob(-2.0)}], cumulative_logprob=-3.0, finish_reason="stop",
                  stop_reason=9)  # fmt: skip
    stats = RequestStateStats(num_generation_tokens=2)
    whole.add(output(piece(0, "x", [4]), later, finished=True, metrics=stats), aggregate=True)
    first, second = whole.outputs
    assert (first.index, first.text) == (0, "x")
    assert (second.text, second.token_ids, second.cumulative_logprob) == ("bc", [2, 3], -3.0)
    assert second.logprobs is not None and [*map(list, second.logprobs)] == [[2], [3]]
    assert (second.finish_reason, second.stop_reason, second.finished()) == ("stop", 9, True)
    assert whole.finished and whole.metrics is stats


def test_whole_choices_replace_older_ones() -> None:
    whole = output(piece(0, "a", [1]), piece(1, "b", [2]))
    whole.add(output(piece(0, "ab", [1, 2]), num_cached_tokens=3), aggregate=False)
    assert [choice.text for choice in whole.outputs] == ["ab", "b"]
    assert not whole.finished and whole.num_cached_tokens == 3


def test_joining_leaves_earlier_lists_alone() -> None:
    ids = [1]
    whole = output(piece(0, "a", ids))
    whole.add(output(piece(0, "b", [2])), aggregate=True)
    assert ids == [1] and whole.outputs[0].token_ids == [1, 2]


def test_unknown_arguments_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        output(shape=1)
    assert "shape" in caplog.text
