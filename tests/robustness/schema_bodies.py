"""Requests made from the server's own OpenAPI document by schemathesis: the fuzzer's second source.

schemathesis is no dependency of the project: without it, `benchmarks.fuzz` says so and uses the other source alone.
"""

from __future__ import annotations

import importlib.util
import json
import random
from typing import TYPE_CHECKING, Any

from tests.robustness.spoilt import Sent
from tests.robustness.valid import ROUTES

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KIND = "schemathesis"
_PER_OPERATION = 25
"""Bodies taken from one operation before the next: a search has a cost of its own."""
_METHODS_WITHOUT_BODY = ("get", "delete")


def is_installed() -> bool:
    """Whether schemathesis can be used here."""
    return importlib.util.find_spec("schemathesis") is not None


class SchemaBodies:
    """Requests of every operation in an OpenAPI document, in what it allows and what it does not."""

    def __init__(self, document: dict[str, Any]) -> None:
        import schemathesis

        found = schemathesis.openapi.from_dict(document)
        self._operations = [one.ok() for one in found.get_all_operations()]
        self._shares = [_share(one.path, one.method) for one in self._operations]
        self._strategies: dict[tuple[int, str], SearchStrategy[Any]] = {}

    def chunk(self, seed: int, number: int, count: int) -> list[Sent]:
        """`count` requests; the same every time for a seed and number, with one version of the packages.

        In two of five a valid body of the path lies under what was made, so that more of them run.
        """
        rng = random.Random(f"{seed}:schema:{number}")
        made: list[Sent] = []
        while len(made) < count:
            index = rng.choices(range(len(self._operations)), self._shares)[0]
            operation = self._operations[index]
            without = operation.method in _METHODS_WITHOUT_BODY
            mode = "positive" if without or rng.random() < 0.5 else "negative"
            for case in self._cases(index, mode, rng.randrange(2**32)):
                made.append(_sent(rng, operation.path, case))
        return made[:count]

    def _cases(self, index: int, mode: str, seed: int) -> list[Any]:
        import hypothesis
        from schemathesis.generation.modes import GenerationMode

        key = (index, mode)
        if key not in self._strategies:
            operation = self._operations[index]
            self._strategies[key] = operation.as_strategy(generation_mode=GenerationMode(mode))
        cases: list[Any] = []

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=_PER_OPERATION,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(self._strategies[key])
        def collect(case: Any) -> None:
            cases.append(case)

        try:
            collect()
        except hypothesis.errors.Unsatisfiable:
            return cases  # an operation without a body has nothing that could be wrong
        return cases


def _share(path: str, method: str) -> float:
    if method in _METHODS_WITHOUT_BODY:
        return 0.3
    return 1.0 + (ROUTES[path][0] if path in ROUTES else 1.0)


def _sent(rng: random.Random, path: str, case: Any) -> Sent:
    body = case.body
    if isinstance(body, dict) and path in ROUTES and rng.random() < 0.4:
        body = body | ROUTES[path][1](rng)
    if isinstance(body, bytes):
        data = body
    elif type(body).__name__ == "NotSet":
        data = b""
    else:
        data = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    lines = ("Content-Type: application/json",) if data else ()
    return Sent(KIND, case.formatted_path, lines, data, case.method.upper())
