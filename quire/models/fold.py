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
]
