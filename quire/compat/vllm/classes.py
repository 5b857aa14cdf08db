"""What vLLM's programs expect of a class beyond what ours has: refusals with a reason, and empty settings.

The classes themselves are `quire.llm` and others.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NoReturn

import quire.llm
from quire.protocol.errors import NotServedError


class LLM(quire.llm.LLM):
    """`quire.LLM`, with vLLM's pooling methods, which say that they are not served."""

    def encode(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotServedError."""
        _refuse_pooling("encode")

    def embed(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotServedError."""
        _refuse_pooling("embed")

    def classify(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotServedError."""
        _refuse_pooling("classify")

    def score(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotServedError."""
        _refuse_pooling("score")

    def reward(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotServedError."""
        _refuse_pooling("reward")


def _refuse_pooling(method: str) -> NoReturn:
    raise NotServedError(
        f"LLM.{method} needs a pooling model, and Quire serves none: it generates text; use generate or chat",
        param="task",
    )


class CompilationConfig(dict[str, Any]):
    """Settings of a compiler. Nothing is compiled here, so they have no effect, and start says so."""


class AttentionConfig(dict[str, Any]):
    """Settings of attention kernels. Each operation chooses its own here; see `quire ops`."""


@dataclass
class DeltaFunctionCall:
    """A piece of a call, as a parser class of vLLM writes it in its streaming method.

    Quire calls the method that takes the whole call, and streams what comes out itself.
    """

    name: str | None = None
    arguments: str | None = None


@dataclass
class DeltaToolCall:
    """A piece of the call number `index`."""

    index: int
    id: str | None = None
    type: str | None = None
    function: DeltaFunctionCall | None = None


@dataclass
class DeltaMessage:
    """A piece of an answer."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[DeltaToolCall] = field(default_factory=list)


class UsageContext(enum.StrEnum):
    """From where an engine is made. Nothing is reported to anybody, so nobody reads it."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    OPENAI_API_SERVER = "OPENAI_API_SERVER"
    OPENAI_BATCH_RUNNER = "OPENAI_BATCH_RUNNER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"
