"""The parts that parameters are made of: kinds of output and sampling, constraints, detections.

The parameters of a request are `protocol.params` and `protocol.pooling`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from quire.protocol.checks import limits, refuse, shown, strings, truth


class SamplingType(enum.IntEnum):
    """How a token is chosen: argmax, a drawn seed, or the user's seed."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


class RequestOutputKind(enum.Enum):
    """What each output of a stream holds: all so far, the news only, or one output at the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
"""The kinds of constraints."""


class StructuredOutputsParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A constraint on the output; exactly one of the first six must be set.

    json                a JSON schema as text, as a dict, or as a class with `model_json_schema()`,
                        which is replaced by its schema.
    grammar             EBNF with a rule `root`, or Lark with a rule `start`.
    structural_tag      a JSON object as text: free text in which marked parts follow a schema.
    whitespace_pattern  a regex of the whitespace that JSON may have between its parts.
    backend             what the engine was started with, or nothing; `disable_fallback` is not read.
    origin              the field of a request that it comes from, which errors name; "" is its own name.
    """

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    backend: str | None = None
    disable_fallback: bool = False
    origin: str = ""

    def __post_init__(self) -> None:
        describe: Callable[[], dict[str, Any]] | None = getattr(
            self.json, "model_json_schema", None
        )
        if describe is not None:
            self.json = describe()
        given = [kind for kind in CONSTRAINTS if getattr(self, kind) is not None]
        if len(given) != 1:
            refuse(
                "structured_outputs",
                f"structured_outputs has {len(given)} constraints {given}; "
                f"give exactly one of {list(CONSTRAINTS)}.",
            )
        self._check_constraint(given[0], getattr(self, given[0]))
        for name in ("whitespace_pattern", "backend"):
            if not isinstance(getattr(self, name), (str, type(None))):
                refuse("structured_outputs", f"structured_outputs.{name} must be a string.")
        for name in ("disable_any_whitespace", "disable_additional_properties"):
            truth(f"structured_outputs.{name}", getattr(self, name))

    @staticmethod
    def _check_constraint(kind: str, value: Any) -> None:
        """Raises InvalidRequestError for a value of a wrong type, or one that asks for nothing."""
        place = f"structured_outputs.{kind}"
        if kind == "json_object":
            if value is not True:
                refuse(place, f"{place} is {shown(value)}; it must be True, or left out.")
        elif kind == "choice":
            if not strings(place, value):
                refuse(place, f"{place} is an empty list; give at least one string.")
        elif kind == "json" and isinstance(value, dict):
            pass
        elif not isinstance(value, str) or not value.strip():
            wanted = "a schema" if kind == "json" else "a string that is not empty"
            refuse(place, f"{place} is {shown(value)}; it must be {wanted}.")


class RepetitionDetectionParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Ends a sequence whose tail repeats: pattern sizes in tokens, `min_count` repeats in a row."""

    max_pattern_size: int
    min_pattern_size: int = 1
    min_count: int = 2

    def __post_init__(self) -> None:
        limits("repetition_detection.min_count", self.min_count, low=2)
        limits("repetition_detection.min_pattern_size", self.min_pattern_size, low=1)
        limits(
            "repetition_detection.max_pattern_size",
            self.max_pattern_size,
            low=self.min_pattern_size,
        )


class LateInteractionParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How one side of a late-interaction score is kept or used; `query_uses` in documents."""

    mode: Literal["cache_query", "score_doc"]
    query_key: str
    query_uses: int | None = None
