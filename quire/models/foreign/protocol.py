"""What is asked of the process that looks at a model of Transformers, and what it answers."""

from __future__ import annotations

from typing import Any

import msgspec

from quire.models.foreign.program import Program


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A folder with its config.json, overrides merged in; they are told apart for remote code.

    pooled  the hidden states are wanted, of the model without what stands above them.
    """

    folder: str
    architecture: str
    config: dict[str, Any]
    overrides: dict[str, Any]
    trust_remote_code: bool
    pooled: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The program, or why there is none."""

    program: Program | None = None
    refusal: str = ""
