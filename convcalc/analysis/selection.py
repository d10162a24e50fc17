"""Rows of a report that are asked for: one layer, the layers of a module, those with the most of something."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from convcalc.analysis.report import Column, Diagnostic, Report, Row
from convcalc.errors import ExpressionError, did_you_mean, refuse_below_one
from convcalc.network import no_such_layer


def selected(report: Report, *, layer: str | None = None, sort: str | None = None, top: int | None = None) -> Report:
    """The report with fewer rows, or in another order. Totals stay those of the whole network.

    `layer` keeps the rows of this layer, or of this module; `sort` puts the most of a column first, unknown ones last;
    `top` keeps so many of the first, by `share` or MACs, or else the last column, where `sort` says nothing.

    Raises `ExpressionError` for no such layer, no such column, and a `top` below 1.
    """
    rows, notes = report.rows, report.diagnostics
    if layer is not None:
        rows = tuple(row for row in rows if row.name == layer or row.name.startswith((f"{layer}.", f"{layer}/")))
        if not rows:
            raise no_such_layer("--layer", layer, [row.name for row in report.rows])
    refuse_below_one("--top", top)
    if sort is not None or top is not None:
        column = _column(report, sort)
        # Out of its module's rows a layer has its whole name.
        rows = tuple(replace(row, level=0) for row in rows if not row.header)
        rows = tuple(sorted(rows, key=lambda row: _number(row, column), reverse=True))
        if top is not None and top < len(rows):
            notes = (*notes, Diagnostic("note", f"{top} of {len(rows)} rows, with the most {column.title}"))
            rows = rows[:top]
    return replace(report, rows=rows, diagnostics=notes)


def _column(report: Report, key: str | None) -> Column:
    """The column of that key or title; without a key the one that the verb is most about."""
    keys = [column.key for column in report.columns]
    if key is None:
        found = next((index for name in ("share", "macs") for index, each in enumerate(keys) if each == name), -1)
        if keys:
            return report.columns[found]
        raise ExpressionError(f"--top needs a column to sort by, and {report.verb} has none here")
    for column in report.columns:
        if key.lower() in (column.key, column.title.lower()):
            return column
    has = f"; there is {', '.join(keys)}{did_you_mean(key, keys)}" if keys else ""
    raise ExpressionError(f"--sort {key}: {report.verb} has no such column{has}", value=key)


def _number(row: Row, column: Column) -> float:
    """What a row is sorted by; -1 where it is unknown."""
    value = row.values.get(column.key)
    if isinstance(value, tuple) and all(isinstance(size, int) for size in value):
        return prod(value)
    return value if isinstance(value, int | float) else -1
