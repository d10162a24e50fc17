"""Reports as text without rich: tab-separated, CSV, aligned plain text, Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from convcalc.analysis.report import Report, Row
from convcalc.layers.base import Shape
from convcalc.render.units import plain_text, printable, value_text

_TOTAL = "total"
_MERGED = "merged"
_MOST_NUMBERS = 100
"""Of an array that is shown in full."""


def shapes_text(shapes: Sequence[Shape], *, people: bool = False) -> str:
    """One shape, or several with commas between."""
    return (", " if people else ",").join([plain_text(shape) for shape in shapes])


def machine_rows(report: Report) -> Iterator[list[str]]:
    """A header and one row a layer, all digits; a total row where columns have totals, and what merges after it."""
    keys = [column.key for column in report.columns]
    yield ["name", "kind", "input", "output", *keys]
    for row in report.rows:
        if row.header:
            continue
        yield [row.name, row.kind, *_cells(row, keys)]
    if any(column.total for column in report.columns):
        totals = [plain_text(report.totals.get(column.key, "")) for column in report.columns]
        yield [_TOTAL, "", "", "", *totals]
    for row in report.merged:
        yield [_MERGED, row.kind, *_cells(row, keys)]


def _cells(row: Row, keys: Sequence[str]) -> list[str]:
    shapes = [shapes_text(row.inputs), shapes_text(row.outputs)]
    return [*shapes, *[plain_text(row.values.get(key, "")) for key in keys]]


def people_rows(report: Report) -> tuple[list[str], list[list[str]], list[str]]:
    """Titles, one row a layer and the totals (empty without any), in units for people."""
    titles = ["Layer", "", "Input", "Output", *(column.title for column in report.columns)]
    rows = [[*row_head(row), *row_values(report, row)] for row in report.rows]
    totals: list[str] = []
    if any(column.total for column in report.columns):
        values = [
            total_text(report, column.key, column.unit) if column.key in report.totals else ""
            for column in report.columns
        ]
        totals = [_TOTAL, "", "", "", *values]
    return titles, rows, totals


def merged_rows(report: Report) -> list[list[str]]:
    """The layers that can take the place of those of the rows, in units for people."""
    return [[_MERGED, *row_head(row)[1:], *row_values(report, row)] for row in report.merged]


def total_text(report: Report, key: str, unit: str) -> str:
    """A total for people, marked where it is only a part."""
    value = report.totals[key]
    return ("≥ " if key in report.partial and value is not None else "") + value_text(value, unit)


def row_head(row: Row) -> list[str]:
    """Name, expression and shapes of a row. No control code in a file's names reaches the terminal."""
    none = "" if row.layers else value_text(None)
    shapes = [shapes_text(shapes, people=True) or none for shapes in (row.inputs, row.outputs)]
    return [printable(row_name(row)), printable(row.layer), *shapes]


def row_name(row: Row) -> str:
    """The name of a row: inside a module the last part of it, moved in."""
    mark = "/" if "/" in row.name else "."
    return row.name if not row.level else "  " * row.level + row.name.lstrip("/").split(mark, row.level)[-1]


def row_values(report: Report, row: Row) -> list[str]:
    """The values of a row in units for people; what a row has no value for is empty."""
    return [
        value_text(row.values[column.key], column.unit) if column.key in row.values else "" for column in report.columns
    ]


def tsv(report: Report) -> Iterator[str]:
    """Tab-separated lines with one header line."""
    for cells in machine_rows(report):
        line = "\t".join(cells)
        if "\n" in line or line.count("\t") >= len(cells):
            line = "\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in cells)
        yield line


def csv(report: Report) -> Iterator[str]:
    """Comma-separated lines with one header line, quoted where needed."""
    import csv as writer
    import io

    for cells in machine_rows(report):
        line = io.StringIO()
        writer.writer(line, lineterminator="").writerow(cells)
        yield line.getvalue()


def plain(report: Report) -> Iterator[str]:
    """Aligned columns, no lines, no colour; what is about the totals follows."""
    titles, rows, totals = people_rows(report)
    lines = [titles, *rows, *([totals] if totals else []), *merged_rows(report)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(titles))]
    for line in lines:
        cells = [
            cell.ljust(width) if index < 4 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    for name, text in summary_lines(report):
        yield f"{name}: {text}"


def markdown(report: Report) -> Iterator[str]:
    """A Markdown table; what is about the totals follows as a list."""
    titles, rows, totals = people_rows(report)
    marks = ["---"] * 4 + ["---:"] * len(report.columns)
    for line in [titles, marks, *rows, *([totals] if totals else []), *merged_rows(report)]:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
    summary = summary_lines(report)
    if summary:
        yield ""
    for name, text in summary:
        yield f"- {name}: {text}"


_SUMMARY = {
    "activations": ("activations, each tensor once", "bytes"),
    "parameters": ("parameters", "bytes"),
    "buffers": ("buffers", "bytes"),
    "total": ("in all", "bytes"),
    "peak": ("peak of inference, weights apart", "bytes"),
    "gradients": ("gradients of the parameters", "bytes"),
    "optimizer": ("optimizer state", "bytes"),
    "training": ("training in all", "bytes"),
    "samples": ("samples", "count"),
    "total_flops": ("FLOPs for all samples", "count"),
    "seconds": ("time", "seconds"),
    "threads": ("threads", "count"),
    "matmul_gflops": ("this machine's matrix product", "gflops"),
    "planned_peak": ("planned peak, all included", "bytes"),
    "measured_peak": ("measured peak", "bytes"),
    "split": ("split", "text"),
    "merged": ("merged", "text"),
    "merging": ("merging", "text"),
    "merged_weights": ("its weights", "count"),
    "merged_macs": ("its MACs", "count"),
    "difference_inside": ("largest difference inside", "number"),
    "difference_border": ("largest difference at the border", "number"),
}


def total_unit(report: Report, key: str) -> str:
    """The unit of a total: its column's, or what it has where no column shows it."""
    units = {column.key: column.unit for column in report.columns}
    return units.get(key) or _SUMMARY.get(key, ("", "bytes" if report.verb == "memory" else "count"))[1]


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """What the totals say that no column shows, as (name, text) for people."""
    shown = {column.key for column in report.columns}
    lines = []
    for key, (name, unit) in _SUMMARY.items():
        value = report.totals.get(key)
        if key in report.totals and key not in shown and value != 0:
            text = total_text(report, key, unit)
            if key == "peak":
                text += f" at layer {report.totals['peak_layer']}"
            lines.append((name, text))
    return lines + [(name, _array_text(array)) for name, array in report.arrays.items()]


def _array_text(array: Any) -> str:
    """A small array as nested lists, leading axes of one left out; of a larger one the shape."""
    array = without_leading(array)
    if array.size > _MOST_NUMBERS:
        return f"{shapes_text([array.shape])}, {array.size} numbers"
    return _lists(array.tolist())


def without_leading(array: Any) -> Any:
    """An array without leading axes of one."""
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    return array


def _lists(value: Any) -> str:
    return f"[{','.join(map(_lists, value))}]" if isinstance(value, list) else f"{value:.6g}"
