"""Numbers of a measurement as text and JSON: percentiles, tables, result files.

What is measured is the other files' business.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.protocol.errors import SettingsError


def percentile(values: Sequence[float], rank: float) -> float:
    """The value below which `rank` percent lie, straight lines between neighbours; 0.0 of nothing.

    `rank` is from 0 to 100. The same as numpy's default method.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * rank / 100.0
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles(values: Sequence[float], ranks: Sequence[float]) -> dict[str, float]:
    """Rank as text -> percentile, `99.0` written `99`."""
    return {rank_name(rank): percentile(values, rank) for rank in ranks}


def rank_name(rank: float) -> str:
    """A rank without a needless fraction: 99, 99.9."""
    return str(int(rank)) if rank == int(rank) else str(rank)


def summary(values: Sequence[float], ranks: Sequence[float]) -> dict[str, float]:
    """mean, median, std (of the whole, not a sample) and pNN for each rank; zeros of nothing."""
    found = {
        "mean": statistics.fmean(values) if values else 0.0,
        "median": percentile(values, 50.0),
        "std": statistics.pstdev(values) if values else 0.0,
    }
    return found | {f"p{name}": value for name, value in percentiles(values, ranks).items()}


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as text; the first row is the head. Numbers stand at the right of their column."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = []
    for cells in texts:
        parts = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def write_json(path: str | Path, content: Mapping[str, Any], *, append: bool = False) -> None:
    """Writes a result, or with `append` one more line of a file of results. Makes the folder.

    Raises SettingsError if the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if append:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        else:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"the result cannot be written to {path}: {error.strerror}") from error
