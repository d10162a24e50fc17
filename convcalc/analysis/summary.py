"""Everything about a network in one table: shapes, parameters, MACs, memory, and who takes how much of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from convcalc.analysis import analyse
from convcalc.analysis.costs import parts, total
from convcalc.analysis.report import Column, Report, Row, Value
from convcalc.layers.base import choice, whole
from convcalc.network import Network

SHARES = ("macs", "params", "memory")
"""What the share of the whole can be taken of."""

MOST_LEVELS = 20
"""Levels of modules inside modules that are told apart."""

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
    rows = [_with_share(row, by, totals[by] if by not in partial else None) for row in _nested(leaves, levels)]
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


class _Module:
    """A module of the tree that the dots in the names make. `rows` are all the layers below it."""

    __slots__ = ("inside", "label", "level", "rows")

    def __init__(self, label: str, level: int) -> None:
        self.label = label
        self.level = level
        self.inside: dict[str, _Module] = {}
        self.rows: list[Row] = []


def _nested(rows: Sequence[Row], levels: int) -> Iterator[Row]:
    """The rows in the order of the tree, each module before what is in it."""
    names = {row.name for row in rows}
    root = _Module("", -1)
    for row in rows:
        module = root
        for label in _labels(row.name, names)[:levels]:
            module = module.inside.setdefault(label, _Module(label, module.level + 1))
            module.rows.append(row)
    stack = [(module, module.label) for module in reversed(root.inside.values())]
    while stack:
        module, name = stack.pop()
        if not module.inside and len(module.rows) == 1 and module.rows[0].name == name:
            yield replace(module.rows[0], level=module.level)
            continue
        yield _sum(module, name)
        stack += [(inner, f"{name}.{inner.label}") for inner in reversed(module.inside.values())]


def _labels(name: str, names: set[str]) -> list[str]:
    """The modules that a layer is in, and the layer: its name's words, but none that is a layer's whole name itself.

    >>> _labels("a.b.c", {"a.b.c"}), _labels("a.1.x", {"a", "a.1.x"})
    (['a', 'b', 'c'], ['a.1.x'])
    """
    words = name.split(".")
    prefix = ""
    for index, word in enumerate(words[:-1]):
        prefix += word
        if prefix in names:
            return [*words[:index], ".".join(words[index:])]
        prefix += "."
    return words


def _sum(module: _Module, name: str) -> Row:
    """The row of a module: what its first layer takes and its last gives, and the sums."""
    rows = module.rows
    sums = total(_SUMS, rows)
    unknown = parts(_SUMS, rows)
    return Row(
        name,
        "module",
        f"{len(rows)} layers" if len(rows) > 1 else "1 layer",
        rows[0].inputs,
        rows[-1].outputs,
        {key: None if key in unknown else value for key, value in sums.items()},
        level=module.level,
        header=bool(module.inside),
    )
