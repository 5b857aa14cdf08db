"""Classes of vLLM's that programs name and ours do without: settings as dictionaries, and pieces of answers.

The classes themselves are `quire.llm` and others.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class CompilationConfig(dict[str, Any]):
    """Settings of a compiler. Nothing is compiled here, so they have no effect, and start says so."""


class AttentionConfig(dict[str, Any]):
    """Settings of attention kernels. Each operation chooses its own here; see `quire ops`."""


class PoolerConfig(dict[str, Any]):
    """How a model pools: the dictionary that `pooler_config` takes."""


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
