"""Everything about a network in one table: shapes, parameters, MACs, memory, and who takes how much of the whole."""

from __future__ import annotations

from convcalc.analysis import analyse
from convcalc.analysis.costs import parts, total
from convcalc.analysis.grouping import MOST_LEVELS, nested
from convcalc.analysis.report import Column, Report, Row, Value
from convcalc.layers.base import choice, whole
from convcalc.network import Network
from convcalc.records import replace

SHARES = ("macs", "params", "memory")
"""What the share of the whole can be taken of."""

_SUMS = (
    Column("params", "Params"),
    Column("macs", "MACs"),
    Column("memory", "Memory", "bytes"),
)
_WHOLE = ("activations", "parameters", "buffers", "total", "peak", "peak_layer")


def summary(network: Network, *, depth: int | None = None, by: str = "macs", dtype: str = "float32") -> Report:
    """A row for every layer, nested as the dots in the names say, and a row for every module above its layers.

    `memory` is what a layer's own output and parameters take, in bytes; `share` the part that it has of the total `by`.
    With `depth`, what lies deeper is summed up in the module of that level. Raises `LayerError` for an unknown `by` or
    `dtype` and for a depth below 1.
    """
    choice("by", by, SHARES)
    levels = MOST_LEVELS if depth is None else min(whole("depth", depth), MOST_LEVELS)
    report = analyse(network, dtype=dtype)
    leaves = [replace(row, values=_values(row), reasons=_reasons(row)) for row in report.rows]
    totals = total(_SUMS, leaves)
    partial = (report.partial | parts(_SUMS, leaves)) & {*totals, *_WHOLE}
    rows = [_with_share(row, by, totals[by] if by not in partial else None) for row in nested(leaves, _SUMS, levels)]
    return Report(
        "summary",
        (*_SUMS, Column("share", {"macs": "MACs"}.get(by, by) + " share", "share", total=False)),
        tuple(rows),
        totals | {name: report.totals[name] for name in _WHOLE},
        totals["params"],
        report.diagnostics,
        partial=partial,
    )


def _values(row: Row) -> dict[str, Value]:
    sizes = [row.values[key] for key in ("output_bytes", "weight", "bias")]
    if row.reasons.get("output_bytes"):  # a view
        sizes[0] = 0
    known = [size for size in sizes if isinstance(size, int)]
    memory = sum(known) if len(known) == len(sizes) else None
    return {"params": row.values["params"], "macs": row.values["macs"], "memory": memory}


def _reasons(row: Row) -> dict[str, str]:
    return {key: reason for key, reason in row.reasons.items() if key in ("output", "params", "macs")}


def _with_share(row: Row, by: str, whole: Value) -> Row:
    value = row.values[by]
    share = value / whole if isinstance(value, int) and isinstance(whole, int) and whole else None
    return replace(row, values={**row.values, "share": share})
