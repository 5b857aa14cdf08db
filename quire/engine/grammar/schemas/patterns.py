"""Reads a regex of JSON schema as a language, on the safe side of what validators disagree on.

Validators differ in what \\w, \\d, \\s and . mean beyond ASCII. `wide` asks for every text that one of them may
find, without it for those that all of them find; a complement of the wide reading is right for all.
"""

from __future__ import annotations

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.languages import (
    ANY,
    EMPTY,
    EVERYTHING,
    LAST,
    Ranges,
    Term,
    complement,
    concat,
    intersection,
    inverted,
    merged,
    one_of,
    star,
    union,
)

_MAX_COUNT = 300
_BEYOND = (0x80, LAST)
_SPACES = [(9, 13), (32, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
           (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]  # fmt: skip
_CLASSES: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
    "d": ([(48, 57)], [(48, 57), _BEYOND]),
    "w": ([(48, 57), (65, 90), (95, 95), (97, 122)], [(48, 57), (65, 90), (95, 95), (97, 122), _BEYOND]),
    "s": ([(9, 13), (32, 32)], [*_SPACES, (28, 31)]),
}  # fmt: skip
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_LINE_ENDS = [(10, 10), (13, 13), (0x2028, 0x2029)]


class UnreadError(GrammarError):
    """A regex beyond what is read here."""


def language(pattern: str, *, wide: bool) -> Term:
    """The texts in which the regex finds something. Raises UnreadError."""
    reader = _Reader(pattern, wide)
    term = reader.branches(whole=True, after=EVERYTHING)
    if reader.more:
        raise UnreadError(f"the regex {pattern[:60]!r} has a bracket too many")
    return term


def lengths(least: int, most: int | None) -> Term:
    """Texts of so many letters. Raises UnreadError for counts that make too many states."""
    if max(least, most or 0) > _MAX_COUNT:
        raise UnreadError(f"a length of more than {_MAX_COUNT} together with other patterns")
    return _repeated(ANY, least, most)


class _Reader:
    def __init__(self, pattern: str, wide: bool) -> None:
        self._text = pattern
        self._at = 0
        self._wide = wide
        self._depth = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._text)

    def branches(self, *, whole: bool, after: Term) -> Term:
        """Alternatives up to the end or a closing bracket.

        whole  they stand for all that is before them; `after` is what may follow, if they say no end.
        """
        found = [self._branch(whole=whole, after=after)]
        while self._take("|"):
            found.append(self._branch(whole=whole, after=after))
        return union(*found)

    def _branch(self, *, whole: bool, after: Term) -> Term:
        anchored = False
        while whole and self._take("^"):
            anchored = True
        # what follows a look-ahead is needed to read it: pieces are joined from the last to the first
        pieces: list[tuple[str, Term]] = []
        ended = False
        while self.more and self._text[self._at] not in "|)":
            if self._take("$"):
                ended = True
                continue
            if ended or self._text[self._at] == "^":
                raise self._unread("an anchor in the middle")
            pieces.append(self._piece(top=whole))
        if ended and not whole:
            raise self._unread("an anchor in a group")
        made = EMPTY if ended else after
        for kind, term in reversed(pieces):
            if kind == "text":
                made = concat(term, made)
            else:
                made = intersection(made, term)
        return made if anchored or not whole else concat(EVERYTHING, made)

    def _piece(self, *, top: bool) -> tuple[str, Term]:
        for mark, is_not in (("(?!", True), ("(?=", False)):
            if self._text.startswith(mark, self._at):
                if not top:
                    raise self._unread("a look-ahead in a group")
                self._at += 3
                return "look", self._look(is_not)
        term = self._atom()
        return "text", self._counted(term)

    def _look(self, is_not: bool) -> Term:
        self._wide ^= is_not
        self._depth += 1
        found = [self._ahead()]
        while self._take("|"):
            found.append(self._ahead())
        self._depth -= 1
        self._wide ^= is_not
        if not self._take(")"):
            raise self._unread("a bracket that is not closed")
        return complement(union(*found)) if is_not else union(*found)

    def _ahead(self) -> Term:
        """A branch of a look-ahead: it stands at the beginning of the rest."""
        made, ended = EMPTY, False
        while self.more and self._text[self._at] not in "|)":
            if self._take("$"):
                ended = True
            elif ended or self._text[self._at] == "^" or self._text.startswith("(?=", self._at):
                raise self._unread("an anchor in the middle")
            else:
                made = concat(made, self._piece(top=False)[1])
        return made if ended else concat(made, EVERYTHING)

    def _atom(self) -> Term:
        letter = self._next()
        if letter == "(":
            if self._take("?") and not self._take(":"):
                raise self._unread("a group of a special kind")
            self._depth += 1
            if self._depth > 60:
                raise self._unread("deep nesting")
            term = self.branches(whole=False, after=EMPTY)
            self._depth -= 1
            if not self._take(")"):
                raise self._unread("a bracket that is not closed")
            return term
        if letter == "[":
            return one_of(self._class())
        if letter == ".":
            return one_of(inverted(merged([(10, 10)] if self._wide else _LINE_ENDS)))
        if letter == "\\":
            return one_of(self._escape())
        if letter in "*+?":
            raise self._unread("a repeat of nothing")
        return one_of(((ord(letter), ord(letter)),))

    def _counted(self, term: Term) -> Term:
        least, most = 1, 1
        if self._take("*"):
            least, most = 0, -1
        elif self._take("+"):
            least, most = 1, -1
        elif self._take("?"):
            least, most = 0, 1
        elif self._text.startswith("{", self._at):
            least, most = self._bounds()
        else:
            return term
        self._take("?")  # lazy or not, the texts are the same
        if self.more and self._text[self._at] in "*+?{":
            raise self._unread("a repeat of a repeat")
        if max(least, most) > _MAX_COUNT:
            raise self._unread(f"more than {_MAX_COUNT} repeats")
        return _repeated(term, least, None if most < 0 else most)

    def _bounds(self) -> tuple[int, int]:
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at + 1 : end].partition(",")
        if end < 0 or not least.isdecimal() or not (most.isdecimal() or not most):
            raise self._unread("a brace")
        self._at = end + 1
        return int(least), int(most) if most else (-1 if comma else int(least))

    def _class(self) -> Ranges:
        negated = self._take("^")
        self._wide ^= negated
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            first = self._member()
            is_single = len(first) == 1 and first[0][0] == first[0][1]
            follows = self._text[self._at : self._at + 2]
            if is_single and follows[:1] == "-" and follows[1:] not in ("", "]"):
                self._at += 1
                last = self._member()
                if len(last) != 1 or last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                    raise self._unread("a range of classes")
                ranges.append((first[0][0], last[0][0]))
            else:
                ranges += first
        self._wide ^= negated
        found = merged(ranges)
        return inverted(found) if negated else found

    def _member(self) -> Ranges:
        letter = self._next()
        if letter == "\\":
            if self._take("b"):
                return ((8, 8),)
            return self._escape()
        if letter == "[" and self._text[self._at : self._at + 1] == ":":
            raise self._unread("a named class")
        return ((ord(letter), ord(letter)),)

    def _escape(self) -> Ranges:
        letter = self._next()
        if letter in _CLASSES:
            return merged(_CLASSES[letter][self._wide])
        if letter.lower() in _CLASSES:
            return inverted(merged(_CLASSES[letter.lower()][not self._wide]))
        if letter in _CONTROLS and not self._text[self._at : self._at + 1].isdecimal():
            code = _CONTROLS[letter]
        elif letter in "xu":
            size = 2 if letter == "x" else 4
            digits = self._text[self._at : self._at + size]
            try:
                code = int(digits, 16)
            except ValueError:
                raise self._unread("an escape") from None
            if len(digits) < size or 0xD800 <= code <= 0xDFFF:
                raise self._unread("an escape")
            self._at += size
        elif not letter.isalnum() or letter == "_":
            code = ord(letter)
        else:
            raise self._unread(f"the escape \\{letter}")
        return ((code, code),)

    def _next(self) -> str:
        if not self.more:
            raise self._unread("an end too soon")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _unread(self, what: str) -> UnreadError:
        return UnreadError(
            f"the regex {self._text[:60]!r} has {what}, which cannot be combined here"
        )


def _repeated(term: Term, least: int, most: int | None) -> Term:
    tail = star(term) if most is None else EMPTY
    for _ in range(0 if most is None else most - least):
        tail = union(EMPTY, concat(term, tail))
    return concat(*([term] * least), tail)
