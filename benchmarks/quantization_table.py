"""The table of docs/quantization.md: each form of checkpoint with its answers, bytes and speed.

What is found is kept in a file as soon as it is known, so that a run goes on where another was stopped, and
answers, which may be counted on a busy machine, and speeds, which may not, can be had apart.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.product_speed import Speeds
from benchmarks.quantized_forms import NAMES, STORE, Form, floats_of, forms
from quire.models.registry import describe
from quire.ops.formats import parse

KEPT = STORE.results() / "quantization.json"
PAGE = Path("docs/quantization.md")
BEGIN = "<!-- benchmarks.quantization --table -->"
END = "<!-- end -->"
ROWS = ("1", "32")
PARTS = ("mixer.qkv", "mixer.out", "feed_forward.gate_up", "feed_forward.down")

FAMILIES = (
    *("bfloat16", "GGUF", "GPTQ", "AWQ", "AutoRound", "compressed-tensors", "fp8", "fbgemm_fp8"),
    *("ptpc_fp8", "modelopt", "bitsandbytes", "Quark", "HQQ", "torchao"),
)
"""The order of rows, by how their names begin."""

Ask = Callable[[str], tuple[int, int]]
"""The answers of a checkpoint that are right, and those that are the plain one's."""
Compare = Callable[[str, str], int]
"""The answers of two checkpoints that are the same, both computed in float32."""


class Findings:
    """What is known: rows by the name of their form, and times of formats over plain ones by rows."""

    def __init__(self, path: Path = KEPT) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.is_file() else {}
        self.forms: dict[str, dict[str, Any]] = found.get("forms", {})
        self.times: dict[str, dict[str, float]] = found.get("times", {})

    def save(self) -> None:
        """Writes the file anew."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps({"forms": self.forms, "times": self.times}, indent=1))
        unfinished.rename(self._path)

    def formats(self) -> list[str]:
        """Names of all formats that products of the rows have, each run of a joined one by itself."""
        found = {
            run for row in self.forms.values() for name in row["counts"] for run in _runs(name)
        }
        return sorted(found - {"plain"})


def count_answers(findings: Findings, ask: Ask, compare: Compare, wanted: list[str]) -> None:
    """Adds the rows of the forms that are not there yet; given names in `wanted`, those anew and no others."""
    for form in forms():
        is_known = "same_as_floats" in findings.forms.get(form.name, {})
        if form.name not in wanted and (wanted or is_known):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = _row(form, form.place(Path(folder)), ask, compare)
        findings.forms[form.name] = row
        findings.save()
        print(form.name, row, flush=True)


def _row(form: Form, path: Path, ask: Ask, compare: Compare) -> dict[str, Any]:
    description = describe(str(path))
    counts: dict[str, int] = {}
    for layer in range(len(description.spec.layers)):
        for part in PARTS:
            format = description.formats.of(f"layers.{layer}.{part}.weight").name
            counts[format] = counts.get(format, 0) + 1
    right, same = ask(str(path))
    floats = floats_of(path)
    return {
        "writer": form.writer,
        "bytes": (path if path.is_file() else path / "model.safetensors").stat().st_size,
        "right": right,
        "same": same,
        "same_as_floats": "" if floats is None else compare(str(path), str(floats)),
        "counts": counts,
    }


def time_products(findings: Findings, dtype: str, rounds: int) -> None:
    """Times every format of the rows anew; takes minutes, and an idle machine."""
    speeds = Speeds(dtype, rounds)
    for name in findings.formats():
        findings.times[name] = {rows: speeds.time(name, int(rows)) for rows in ROWS}
        findings.save()
        print(name, findings.times[name], flush=True)


def _runs(format: str) -> dict[str, float]:
    """The formats of a product, and their share of its columns."""
    runs = parse(format).runs
    if len(runs) < 2:
        return {format: 1.0}
    shares: dict[str, float] = {}
    for kind, columns in runs:
        shares[kind] = shares.get(kind, 0.0) + columns / sum(size for _, size in runs)
    return shares


def _speed(findings: Findings, counts: dict[str, int], rows: str) -> str:
    """How many times as fast as plain ones all products of a form are; "" if that was not timed."""
    total = 0.0
    for name, count in counts.items():
        for run, share in _runs(name).items():
            if run != "plain" and run not in findings.times:
                return ""
            total += count * share * (1.0 if run == "plain" else findings.times[run][rows])
    return f"{sum(counts.values()) / total:.2f}"


def table(findings: Findings) -> str:
    """The rows, family by family."""
    lines = [
        "| form | written by | kept as | bytes | right | as plain | as its floats | 1 row | 32 rows |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in sorted(findings.forms.items(), key=lambda item: _rank(item[0])):
        kept = ", ".join(sorted({run for format in row["counts"] for run in _runs(format)}))
        speeds = " | ".join(_speed(findings, row["counts"], rows) for rows in ROWS)
        numbers = (
            f"{row['bytes']:,} | {row['right']} | {row['same']} | {row.get('same_as_floats', '')}"
        )
        lines.append(f"| {name} | {row['writer']} | {kept} | {numbers} | {speeds} |")
    return "\n".join(lines)


def _rank(name: str) -> tuple[int, int]:
    family = next(place for place, start in enumerate(FAMILIES) if name.startswith(start))
    return family, NAMES.index(name) if name in NAMES else len(NAMES)


def write_page(findings: Findings, page: Path = PAGE) -> None:
    """Puts the table between its marks in the page. Raises ValueError if they are not there."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n\n{table(findings)}\n\n{END}{after}")


__all__ = ["Findings", "count_answers", "table", "time_products", "write_page"]
