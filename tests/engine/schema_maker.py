"""Random schemas and random outputs of them, for tests and benchmarks of narrowed schemas."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from quire.config.demo import FOLDER
from quire.engine.grammar.backend import Compiled

TOKENIZER = tokenizers.Tokenizer.from_file(str(Path(FOLDER) / "tokenizer.json"))
EOS = 2
_NAMES = ["a", "b", "ab", "x"]
_LEAVES: list[Any] = [True, {"type": "integer"}, {"type": "string"}, {"const": 1}, {"enum": ["a", 2, None]},
                      {"type": "boolean"}]  # fmt: skip
_VALUES: list[Any] = [None, True, 0, 1, 2.5, "a", "bb", [], [1], {}, {"a": 1}]
_TYPES: list[Any] = ["object", "array", "string", "integer", "number", "boolean", ["object", "null"],
                     ["string", "integer"]]  # fmt: skip
_NAME_RULES = [
    {"pattern": "^a"},
    {"maxLength": 2},
    {"enum": ["a", "x"]},
    {"minLength": 2},
    {"not": {"const": "a"}},
]


class SchemaMaker:
    """Schemas of a few keywords each, which often speak of the same names and types."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._keywords: list[Callable[[int], dict[str, Any]]] = self._all()

    def schema(self, depth: int = 3) -> Any:
        rng = self._random
        if rng.random() < 0.04:
            return rng.choice([True, False, {}])
        made: dict[str, Any] = {}
        for _ in range(rng.choice([1, 1, 2, 2, 3])):
            made.update(rng.choice(self._keywords)(depth))
        return made

    def _all(self) -> list[Callable[[int], dict[str, Any]]]:
        rng, sub = self._random, self._inner
        few = [
            lambda d: {"type": rng.choice(_TYPES)},
            lambda d: {"type": rng.choice(_TYPES)},
            lambda d: {"properties": {n: sub(d) for n in rng.sample(_NAMES, rng.randint(1, 3))}},
            lambda d: {"not": sub(d)},
        ]
        return few * 2 + [
            lambda d: {"required": rng.sample(_NAMES, rng.randint(1, 2))},
            lambda d: {"additionalProperties": sub(d)},
            lambda d: {"patternProperties": {p: sub(d) for p in rng.sample(["^a", "b$", "x", "^.$"], 2)}},
            lambda d: {"propertyNames": rng.choice(_NAME_RULES)},
            lambda d: {rng.choice(["minProperties", "maxProperties"]): rng.randint(0, 2)},
            lambda d: {"dependentRequired": {"a": ["b"]}},
            lambda d: {"dependentSchemas": {"a": sub(d)}},
            lambda d: {"items": sub(d)},
            lambda d: {"prefixItems": [sub(d) for _ in range(rng.randint(1, 2))]},
            lambda d: {"contains": sub(d)},
            lambda d: {"contains": sub(d), "minContains": rng.randint(0, 2), "maxContains": rng.randint(1, 3)},
            lambda d: {"uniqueItems": True},
            lambda d: {rng.choice(["minItems", "maxItems"]): rng.randint(0, 2)},
            lambda d: {rng.choice(["minimum", "exclusiveMaximum"]): rng.randint(-2, 4)},
            lambda d: {"multipleOf": rng.choice([1, 2, 0.5])},
            lambda d: {rng.choice(["minLength", "maxLength"]): rng.randint(0, 2)},
            lambda d: {"pattern": rng.choice(["^a", "b", "^(a|b)$", r"^\w+$"])},
            lambda d: {"enum": rng.sample(_VALUES, 3)},
            lambda d: {"const": rng.choice(_VALUES)},
            lambda d: {rng.choice(["anyOf", "oneOf", "allOf"]): [sub(d), sub(d)]},
            lambda d: {"oneOf": [sub(d), sub(d), sub(d)]},
            lambda d: {"if": sub(d), "then": sub(d), "else": sub(d)},
            lambda d: {"unevaluatedProperties": rng.choice([False, {"type": "integer"}])},
            lambda d: {"unevaluatedItems": False},
        ]  # fmt: skip

    def _inner(self, depth: int) -> Any:
        return self.schema(depth - 1) if depth > 0 else self._random.choice(_LEAVES)


def _weights() -> Any:
    """How likely each token is: those that end or separate something are, so that outputs end soon."""
    weights = np.ones(3072)
    for text, place in TOKENIZER.get_vocab().items():
        bare = text.lstrip("Ġ")
        if bare[:1] in ('"', "]", "}") and len(bare) <= 3:
            weights[place] = 60
        elif bare.startswith('"') or bare[:2] == ',"':
            weights[place] = 20
        elif len(bare) == 1 and bare in "{[tfn012":
            weights[place] = 12
        elif not bare.isascii() or "Ċ" in text or text.startswith("ĠĠ"):
            weights[place] = 0.02
    weights[EOS] = 200
    return weights


WEIGHTS = _weights()


def walk(compiled: Compiled, seed: int, max_tokens: int = 120) -> str | None:
    """A random output under a constraint; None where it does not end by then.

    Raises GrammarError where nothing can follow, though the constraint has begun.
    """
    rng = np.random.default_rng(seed)
    matcher, ids = compiled.matcher(), []
    mask = np.zeros(len(WEIGHTS) // 32, dtype=np.uint32)
    for place in range(max_tokens):
        matcher.fill(mask)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        likely = np.where(bits > 0, WEIGHTS, 0.0)
        if place > max_tokens // 4:
            likely = likely * np.where(WEIGHTS > 10, 50, 1)
        likely[EOS] = WEIGHTS[EOS] if matcher.may_end else 0.0
        assert likely.any(), f"nothing may follow {TOKENIZER.decode(ids)!r}"
        chosen = int(rng.choice(len(likely), p=likely / likely.sum()))
        if chosen == EOS:
            return str(TOKENIZER.decode(ids, skip_special_tokens=False))
        matcher.advance([chosen])
        ids.append(chosen)
    return None
