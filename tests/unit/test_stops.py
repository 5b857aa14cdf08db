"""Stop strings are found across the borders of pieces, and held-back text comes out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.frontend.stops import StopMatcher


def whole(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The rule, by trying every end: first end wins, then the longest stop."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end if include else end - len(stop)], stop
    return text, None


def fed(text: str, stops: list[str], include: bool, cuts: list[int]) -> tuple[str, str | None]:
    """The same by pieces. Checks on the way that what is out can still be a part of the answer."""
    matcher = StopMatcher(stops, include=include)
    out = ""
    edges = [0, *sorted(cuts), len(text)]
    for low, high in pairwise(edges):
        piece, stop = matcher.feed(text[low:high])
        out += piece
        if stop is not None:
            return out, stop
        assert len(text[:high]) - len(out) < max(len(one) for one in stops)
    return out + matcher.finish(), None


@settings(max_examples=600, deadline=None)
@given(
    text=st.text("ab🙂", max_size=30),
    stops=st.lists(st.text("ab🙂", min_size=1, max_size=5), min_size=1, max_size=4),
    include=st.booleans(),
    cuts=st.lists(st.integers(0, 30), max_size=30),
)
def test_every_cut_gives_the_same(
    text: str, stops: list[str], include: bool, cuts: list[int]
) -> None:
    want = whole(text, stops, include)
    assert fed(text, stops, include, [min(cut, len(text)) for cut in cuts]) == want
    assert fed(text, stops, include, list(range(len(text)))) == want


def test_text_is_held_back_only_while_a_stop_may_begin_there() -> None:
    matcher = StopMatcher(["\n\nUser:", "STOP"])
    assert matcher.feed("abc") == ("abc", None)
    assert matcher.feed("d\n") == ("d", None)
    assert matcher.feed("\nUs") == ("", None)
    assert matcher.feed("ual ST") == ("\n\nUsual ", None)
    assert matcher.feed("OP and more") == ("", "STOP")


@pytest.mark.parametrize(("include", "text"), [(False, "one "), (True, "one two")])
def test_the_stop_string_is_kept_if_asked(include: bool, text: str) -> None:
    matcher = StopMatcher(["two"], include=include)
    pieces = [matcher.feed(piece) for piece in ("one t", "w", "o three")]
    assert "".join(piece for piece, _ in pieces) == text
    assert [stop for _, stop in pieces] == [None, None, "two"]


def test_skipped_text_does_not_stop_but_may_begin_a_stop() -> None:
    matcher = StopMatcher(["abab"])
    assert matcher.skip("xababa") == "xab"
    assert matcher.feed("b!") == ("", "abab")
    matcher = StopMatcher(["ab"])
    assert matcher.skip("ab") == "ab"
    assert matcher.feed("b") == ("b", None)


def test_without_stops_everything_passes() -> None:
    matcher = StopMatcher([])
    assert matcher.feed("text") == ("text", None)
    assert matcher.finish() == ""
