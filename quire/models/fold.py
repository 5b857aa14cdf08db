"""What may be done to numbers of a checkpoint while they are read, by name.

What each does is told at `models.names.Rule`; `models.loading` carries it out.
"""

from __future__ import annotations

from typing import Literal

Fold = Literal[
    "none",
    "add_one",
    "add_fifth",
    "add_eleventh",
    "exp",
    "minus_exp",
    "minus",
    "over_width",
    "over_root",
    "gather_heads",
    "gather_quarters",
    "split_turns",
    "swap_halves",
    "turn_back",
    "unit_rows",
    "paired_rows",
    "first_halves",
    "second_halves",
    "set_rows",
    "set_columns",
]
SETS = ("set_rows", "set_columns")
"""Those of heads that stand in sets along an axis of their own."""


def shape_in_sets(fold: Fold, shape: tuple[int, ...], sets: int) -> tuple[int, ...]:
    """The shape of a matrix [out, in] of heads, rows of them or columns, in a checkpoint that has them in sets."""
    rows, columns = shape
    if fold == "set_rows":
        return sets, rows // sets, columns
    return sets, rows, columns // sets
