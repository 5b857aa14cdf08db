"""GritLM's instructions: whether a checkpoint knows them, and the tokens that they stand between.

What a mean makes of them is `worker.pooling`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.models.head_layers import token_ids
from quire.protocol.pooler import InstructionMarks

GRIT = "GritLM"
"""Mistral whose tokens see both ways when it embeds, by the mean without the instruction. Source: arXiv 2402.09906."""


def grits(values: Mapping[str, Any]) -> bool:
    """Whether config.json names that architecture."""
    names = values.get("architectures")
    return isinstance(names, list) and GRIT in names


def instruction_marks(folder: Path) -> InstructionMarks:
    """<|user|>, a line, <|embed|> and a line's end, or the last two alone, in the tokens of Mistral's tokenizer.

    Raises ModelLoadError if it lacks one of them.
    """
    names = ("<s>", "\u2581<", "<", "|", ">", "<0x0A>", "user", "embed")
    begin, first, inner, bar, end, line, user, embed = token_ids(folder, names, "GritLM needs")
    return InstructionMarks(
        begin=begin,
        opening=(first, bar, user, bar, end, line),
        closing=(line, inner, bar, embed, bar, end, line),
        bare=(first, bar, embed, bar, end, line),
    )
