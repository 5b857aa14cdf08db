"""The parts that parameters are made of: kinds of output and sampling, constraints, detections.

The parameters of a request are `protocol.params` and `protocol.pooling`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from quire.protocol.checks import limits, refuse


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


class StructuredOutputsParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A constraint on the output; exactly one of the first six must be set.

    `json` is a JSON schema as text, as a dict, or as a class with `model_json_schema()`, which is
    replaced by its schema.
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

    def __post_init__(self) -> None:
        describe: Callable[[], dict[str, Any]] | None = getattr(
            self.json, "model_json_schema", None
        )
        if describe is not None:
            self.json = describe()
        kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            refuse(
                "structured_outputs",
                f"structured_outputs has {len(given)} constraints {given}; "
                f"give exactly one of {list(kinds)}.",
            )


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
