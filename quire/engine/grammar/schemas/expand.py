"""A set of schemas taken apart into cases of values that keep to all of them.

Every step from schemas to cases drops values or keeps them, and never adds one; what cannot be said exactly is
said narrower. What keywords mean is `keywords` and `refute`; how a case is written down is `shapes`.
"""

from __future__ import annotations

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.cases import Alternative, Case, Dead, Work
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.document import type_of
from quire.engine.grammar.schemas.holds import every
from quire.engine.grammar.schemas.keywords import take_in
from quire.engine.grammar.schemas.refute import Refuter

MAX_CASES = 40
"""Cases of one set of schemas; further ones are left out."""
_MAX_STEPS = 1_500
MAX_STEPS_IN_ALL = 25_000


class Expander:
    """Takes sets of schemas of one document apart."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refuter = Refuter(context)
        self._steps = 0

    def cases(self, wanted: frozenset[int]) -> list[Case]:
        """Some cases of the values that keep to every schema. Raises GrammarError beyond its limits."""
        stack = [Work([(one, ()) for one in sorted(wanted)])]
        found: list[Case] = []
        steps = 0
        while stack and len(found) < MAX_CASES and steps < _MAX_STEPS:
            steps += 1
            self._count()
            work = stack.pop()
            try:
                self._settle(work)
                ways = self._ways(work, wanted)
            except Dead:
                continue
            if ways is None:
                found.append(work.case)
            else:
                stack += [work.fork(way) for way in reversed(ways)]
        return found

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS_IN_ALL:
            raise GrammarError(
                "the schema is too complex: its alternatives, conditions and negations make too many "
                "combinations; simplify it"
            )

    def _ways(self, work: Work, wanted: frozenset[int]) -> tuple[Alternative, ...] | None:
        """The alternatives of the next open choice; None if there is none. Raises Dead."""
        case = work.case
        if case.values is not None:
            schemas = [self._context.document.schema(one) for one in wanted]
            kept = [v for v in case.values if type_of(v) in case.types]
            kept = [v for v in kept if every(self._context.checker.holds(s, v) for s in schemas)]
            if not kept:
                raise Dead
            case.values = tuple(kept)
            return None
        if work.choices:
            ways, work.choices = work.choices[0], work.choices[1:]
            return tuple(way for way in ways if self._may(way, case))
        while work.refuted:
            number, work.refuted = work.refuted[0], work.refuted[1:]
            broken = self._refuter.ways(self._context.document.schema(number), case)
            if broken is not None:
                return broken
        return None

    def _may(self, way: Alternative, case: Case) -> bool:
        return all(self._context.types(number) & case.types for number, _ in way)

    def _settle(self, work: Work) -> None:
        """Takes in what is pending. Raises Dead, or GrammarError for a keyword with a wrong value."""
        while work.pending:
            item = work.pending.pop(0)
            if item in work.seen:
                continue
            work.seen |= {item}
            number, scopes = item
            schema = self._context.document.schema(number)
            if schema is False:
                raise Dead
            if isinstance(schema, dict):
                self._count()
                take_in(self._context, work, schema, scopes)
