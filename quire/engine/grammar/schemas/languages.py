"""Sets of texts as regular languages: their intersections, complements, and regexes of what comes out.

By derivatives: a language is a term, a state is what a term has become. Reading regexes is `patterns`.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right

from quire.engine.grammar.backend import GrammarError

MAX_STATES = 160
MAX_REGEX = 20_000
_MAX_WORK = 40_000
LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


class Term:
    """A language. Equal terms are one object, so that comparing them is quick; made by the functions below.

    kind    set: one letter of `ranges`; empty: the empty text; star, not: of `parts[0]`; cat: one part after
            the other; or, and: of all parts.
    empty   whether the empty text is in it.
    """

    __slots__ = ("__weakref__", "empty", "kind", "parts", "ranges")

    empty: bool

    def __init__(self, kind: str, parts: tuple[Term, ...], ranges: Ranges) -> None:
        self.kind, self.parts, self.ranges = kind, parts, ranges
        inner: list[bool] = [part.empty for part in parts]
        self.empty = {
            "set": False,
            "empty": True,
            "star": True,
            "not": not any(inner),
            "cat": all(inner),
            "and": all(inner),
            "or": any(inner),
        }[kind]


_TERMS: weakref.WeakValueDictionary[object, Term] = weakref.WeakValueDictionary()


def _term(kind: str, parts: tuple[Term, ...] = (), ranges: Ranges = ()) -> Term:
    if kind in ("or", "and"):
        parts = tuple(sorted(parts, key=id))
    key = (kind, parts, ranges)
    found = _TERMS.get(key)
    if found is None:
        _TERMS[key] = found = Term(kind, parts, ranges)
    return found


class TooComplexError(GrammarError):
    """A language of more states, or a regex of more characters, than the limits allow."""


NOTHING = _term("set")
EMPTY = _term("empty")
ANY = _term("set", ranges=((0, LAST),))
EVERYTHING = _term("star", (ANY,))


def one_of(ranges: Ranges) -> Term:
    """Texts of one letter out of `ranges`, which are ordered and apart."""
    return _term("set", ranges=ranges)


def inverted(ranges: Ranges) -> Ranges:
    """All other letters."""
    found, start = [], 0
    for low, high in ranges:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        found.append((start, LAST))
    return tuple(found)


def merged(ranges: list[tuple[int, int]]) -> Ranges:
    """The same letters, ordered and apart."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def literal(text: str) -> Term:
    """One text."""
    return concat(*(one_of(((ord(letter), ord(letter)),)) for letter in text))


def concat(*terms: Term) -> Term:
    """One after the other."""
    made = EMPTY
    for term in reversed(terms):
        made = _joined(term, made)
    return made


def _joined(term: Term, rest: Term) -> Term:
    if term is NOTHING or rest is NOTHING:
        return NOTHING
    heads = []
    while term.kind == "cat":
        heads.append(term.parts[0])
        term = term.parts[1]
    for one in (term, *reversed(heads)):
        if one is not EMPTY:
            rest = one if rest is EMPTY else _term("cat", (one, rest))
    return rest


def union(*terms: Term) -> Term:
    """Texts of any of them."""
    return _many("or", terms, NOTHING, EVERYTHING)


def intersection(*terms: Term) -> Term:
    """Texts of all of them."""
    return _many("and", terms, EVERYTHING, NOTHING)


def complement(term: Term) -> Term:
    """All other texts."""
    if term.kind == "not":
        return term.parts[0]
    if term is EVERYTHING:
        return NOTHING
    return EVERYTHING if term is NOTHING else _term("not", (term,))


def star(term: Term) -> Term:
    """Any number of times, none too."""
    if term in (EMPTY, NOTHING):
        return EMPTY
    return term if term.kind == "star" else _term("star", (term,))


def _many(kind: str, terms: tuple[Term, ...], idle: Term, ruling: Term) -> Term:
    parts: set[Term] = set()
    for term in terms:
        parts.update(term.parts if term.kind == kind else (term,))
    parts.discard(idle)
    if ruling in parts:
        return ruling
    if len(parts) < 2:
        return next(iter(parts), idle)
    return _term(kind, tuple(parts))


class Automaton:
    """The states of a language and what leads from one to the next. Raises TooComplexError.

    steps      per state, the ranges that lead to each next state.
    accepting  the states in which a text may end; state 0 is the beginning.
    """

    def __init__(self, term: Term) -> None:
        starts = sorted(_cuts(term))
        classes = list(zip(starts, [*(one - 1 for one in starts[1:]), LAST], strict=True))
        states = {term: 0}
        waiting = [term]
        known: list[dict[Term, Term]] = [{} for _ in classes]
        self.steps: list[dict[int, list[tuple[int, int]]]] = []
        for state in waiting:
            row: dict[int, list[tuple[int, int]]] = {}
            for (low, high), done in zip(classes, known, strict=True):
                after = _after(state, low, done)
                if after is NOTHING:
                    continue
                if after not in states:
                    if len(states) >= MAX_STATES or sum(map(len, known)) > _MAX_WORK:
                        raise TooComplexError(
                            "its patterns are too complex together; simplify them"
                        )
                    states[after] = len(states)
                    waiting.append(after)
                row.setdefault(states[after], []).append((low, high))
            self.steps.append(row)
        self.accepting = {place for state, place in states.items() if state.empty}

    def is_empty(self) -> bool:
        """Whether no text is in the language."""
        return not self._alive()

    def _alive(self) -> set[int]:
        """The states from which a text may still end."""
        alive = set(self.accepting)
        while True:
            more = {
                place
                for place, row in enumerate(self.steps)
                if place not in alive and not alive.isdisjoint(row)
            }
            if not more:
                return alive
            alive |= more

    def regex(self) -> str:
        """An anchored regex of the language, which is not empty. Raises TooComplexError."""
        alive = self._alive()
        begin, end = -1, -2
        edges: dict[int, dict[int, str]] = {begin: {0: ""}}
        for place, row in enumerate(self.steps):
            if place in alive:
                edges[place] = {to: _letters(found) for to, found in row.items() if to in alive}
                if place in self.accepting:
                    edges[place][end] = ""
        left = sorted(alive)
        while left:
            place = min(left, key=lambda one: _weight(edges, one))
            left.remove(place)
            _eliminate(edges, place)
        return f"^(?:{edges[begin][end]})$"


def _after(term: Term, letter: int, known: dict[Term, Term]) -> Term:
    """What is left of a language behind a letter."""
    found = known.get(term)
    if found is None:
        known[term] = found = _derived(term, letter, known)
    return found


def _derived(term: Term, letter: int, known: dict[Term, Term]) -> Term:
    kind, parts = term.kind, term.parts
    if kind == "set":
        place = bisect_right(term.ranges, (letter, LAST + 1)) - 1
        return EMPTY if place >= 0 and letter <= term.ranges[place][1] else NOTHING
    if kind == "empty":
        return NOTHING
    if kind == "star":
        return concat(_after(parts[0], letter, known), term)
    if kind == "not":
        return complement(_after(parts[0], letter, known))
    if kind == "cat":
        made = concat(_after(parts[0], letter, known), parts[1])
        return union(made, _after(parts[1], letter, known)) if parts[0].empty else made
    after = [_after(one, letter, known) for one in parts]
    return union(*after) if kind == "or" else intersection(*after)


def _cuts(term: Term) -> set[int]:
    """The first letters of the classes between which a term can tell."""
    cuts, seen, waiting = {0}, {term}, [term]
    for one in waiting:
        for low, high in one.ranges:
            cuts |= {low, high + 1} if high < LAST else {low}
        more = [part for part in one.parts if part not in seen]
        seen.update(more)
        waiting += more
    return cuts


def _weight(edges: dict[int, dict[int, str]], place: int) -> int:
    """How much text taking a state out would make."""
    into = [row[place] for at, row in edges.items() if at != place and place in row]
    out = [text for to, text in edges[place].items() if to != place]
    return sum(map(len, into)) * max(1, len(out)) + sum(map(len, out)) * max(1, len(into))


def _eliminate(edges: dict[int, dict[int, str]], place: int) -> None:
    row = edges.pop(place)
    loop = row.pop(place, None)
    middle = "" if loop is None else f"(?:{loop})*"
    for out in edges.values():
        into = out.pop(place, None)
        if into is None:
            continue
        for to, text in row.items():
            made = into + middle + text
            if to in out and out[to] != made:
                made = f"(?:{out[to]}|{made})"
            if len(made) > MAX_REGEX:
                raise TooComplexError("its patterns are too complex together; simplify them")
            out[to] = made


def _letters(ranges: list[tuple[int, int]]) -> str:
    """A character class."""
    low_surrogate, high_surrogate = 0xD800, 0xDFFF
    parts = []
    for low, high in merged(ranges):
        for first, last in (
            (low, min(high, low_surrogate - 1)),
            (max(low, high_surrogate + 1), high),
        ):
            if first <= last:
                parts.append(f"\\x{{{first:x}}}" + (f"-\\x{{{last:x}}}" if last > first else ""))
    return f"[{''.join(parts)}]"
