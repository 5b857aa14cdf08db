"""`vllm.profiler.layerwise_profile`: a block of a program, and what each layer took in it.

The table is that of `engine.layer_table`; vLLM's columns of GPU time are not in it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from quire.engine.client import InProcessClient
from quire.engine.layer_table import LayerTable, read_table

_MODEL = ("module", "class", "calls", "self_ms", "total_ms", "share")
_SUMMARY = ("class", "calls", "self_ms", "share")


class LayerwiseProfileResults:
    """What was measured. Milliseconds; shares are of the time of steps, 0 to 1."""

    def __init__(self, table: LayerTable, num_running_seqs: int | None) -> None:
        self.table = table
        self.num_running_seqs = num_running_seqs

    def print_model_table(self, column_widths: Mapping[str, int] | None = None) -> None:
        """Prints every module and its operations; widths are those of the content."""
        print(self.table.as_text(), end="")

    def print_summary_table(self, column_widths: Mapping[str, int] | None = None) -> None:
        """Prints a line for each class of modules, the dearest first."""
        print(f"{'class':<32}{'calls':>10}{'self ms':>12}{'share':>9}")
        for line in self._summary():
            name, calls, self_ms, share = (line[column] for column in _SUMMARY)
            print(f"{name:<32}{calls:>10}{self_ms:>12.2f}{share:>9.1%}")

    def export_model_stats_table_csv(self, filename: str) -> None:
        """Writes the table of modules."""
        _write(filename, _MODEL, json.loads(self.table.as_json())["modules"])

    def export_summary_stats_table_csv(self, filename: str) -> None:
        """Writes the table of classes."""
        _write(filename, _SUMMARY, self._summary())

    def convert_stats_to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it: metadata, summary_stats, model_stats."""
        return {
            "metadata": {"num_running_seqs": self.num_running_seqs},
            "summary_stats": self._summary(),
            "model_stats": json.loads(self.table.as_json()),
        }

    def _summary(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for line in self.table.modules:
            name = line.cls or line.module or "between operations"
            sums = found.setdefault(name, dict.fromkeys(_SUMMARY, 0) | {"class": name})
            sums["calls"] += line.calls
            sums["self_ms"] += line.self_ms
        for sums in found.values():
            sums["share"] = sums["self_ms"] / self.table.step_ms if self.table.step_ms else 0.0
        return sorted(found.values(), key=lambda sums: -float(sums["self_ms"]))


class layerwise_profile:
    """Measures what the one engine of this process does inside the block; then `results` is there.

    num_running_seqs  goes into the results as it is.
    Raises ValueError if there is no engine in this process, or more than one, or if a profile runs.
    """

    results: LayerwiseProfileResults

    def __init__(self, num_running_seqs: int | None = None) -> None:
        self._num_running_seqs = num_running_seqs

    def __enter__(self) -> layerwise_profile:
        engines = list(InProcessClient.living)
        if len(engines) != 1:
            raise ValueError(
                f"layerwise_profile needs one engine in this process, and there are {len(engines)}; make "
                "one LLM before the block, or profile a server with --profiler-config"
            )
        self._engine = engines[0]
        self._engine.call("start_layers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        table = read_table(self._engine.call("stop_layers"))
        self.results = LayerwiseProfileResults(table, self._num_running_seqs)


def _write(filename: str, columns: tuple[str, ...], lines: Iterable[Mapping[str, Any]]) -> None:
    with Path(filename).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
