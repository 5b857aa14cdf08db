"""The text of `quire ops`: which provider carries out each operation, and who refused.

Leaves the choices to `ops.registry` and the printing to the command line.
"""

from __future__ import annotations

from quire.ops.registry import PROVIDER_ORDER, Table, load_all, operations, providers

_ROW = tuple[str, str, str, str]


def render(table: Table | None = None) -> str:
    """A plain-text table, one line for each binding of `table`, in the order they were made.

    Without a table, one line for each declared operation with every provider it has, fastest first,
    and what the operation is. Lines end without spaces; the text ends without a line break.
    """
    if table is None:
        return _declared()
    return render_lines(lines(table))


def lines(table: Table) -> list[_ROW]:
    """(operation, signature, provider, refusals) of each binding, in the order they were made."""
    return [
        (
            binding.op.name,
            str(binding.signature),
            binding.provider,
            "; ".join(f"{name}: {reason}" for name, reason in binding.refusals),
        )
        for binding in table.bindings
    ]


def render_lines(rows: list[_ROW]) -> str:
    """The lines of `lines` as a plain-text table."""
    return _columns([("operation", "signature", "provider", "refused"), *rows])


def _declared() -> str:
    load_all()
    rows: list[_ROW] = [("operation", "kind", "providers", "what it is")]
    for op in operations():
        known = providers(op)
        names = [name for name in PROVIDER_ORDER if name in known]
        names += sorted(set(known) - set(names))
        rows.append((op.name, op.kind, ", ".join(names), op.summary))
    return _columns(rows)


def _columns(rows: list[_ROW]) -> str:
    """Cells side by side, each column as wide as its longest cell, two spaces between."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    texts = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(text.rstrip() for text in texts)
