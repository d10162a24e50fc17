"""Reports as a table on a terminal, with rich."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convcalc.analysis.report import Report
from convcalc.render.text import people_rows, summary_lines

_STYLES = {0: "dim", 1: "cyan", 2: "dim", 3: "green"}
_LAYER, _INPUT = 1, 2
_NARROWEST_LAYER = 8
"""Columns that the layer's expression keeps when the terminal is narrow; it is folded at its commas."""
_GAP, _EDGES = 2, 2
"""Columns between two cells, and at both ends together."""


def print_table(report: Report, console: Console) -> None:
    """Print the table, as wide as the terminal allows, then what the totals say that no column shows."""
    titles, rows, totals = people_rows(report)
    titles = [title.replace(" ", "\n") for title in titles]
    lines = [*zip(*(_two_lines(title) for title in titles), strict=True), *rows, *([totals] if totals else [])]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(titles))]
    shown = _columns_that_fit(report, widths, console.width)
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_footer=bool(totals), padding=(0, 1, 0, 0), show_edge=False)
    for index in shown:
        table.add_column(
            titles[index],
            footer=Text(totals[index]) if totals else "",
            footer_style="bold",
            justify="left" if index < 4 else "right",
            style=_STYLES.get(index, ""),
            min_width=widths[index],
            no_wrap=True,
            overflow="fold",
        )
    for item, row in zip(report.rows, rows, strict=True):
        texts = [*row]
        texts[_LAYER] = "\n".join(_folded(texts[_LAYER], widths[_LAYER]))
        table.add_row(*(Text(texts[index]) for index in shown), style="bold" if item.header else None)
    console.print(table)
    for name, text in summary_lines(report):
        gap = " " if cell_len(name) + cell_len(text) + 3 <= console.width else "\n    "
        console.print(Text.assemble("  ", (name, "dim"), gap, (text, "bold")))


def _two_lines(title: str) -> tuple[str, str]:
    first, _, second = title.partition("\n")
    return first, second


def _columns_that_fit(report: Report, widths: list[int], width: int) -> list[int]:
    """All columns if they fit; else without the input, which is the output above, and without the wide ones.

    Then the layer is folded: its width in `widths` becomes what is left. What does not fit even so is dropped, the
    last column at the end.
    """
    wide = [index for index, column in enumerate(report.columns, 4) if column.wide]
    # Without an input there are no shapes to show.
    shown = [
        index
        for index in range(len(widths))
        if index not in (_INPUT, _INPUT + 1) or any(row.inputs for row in report.rows)
    ]

    def excess() -> int:
        return sum(widths[column] for column in shown) + _GAP * (len(shown) - 1) + _EDGES - width

    for index in [_INPUT, *reversed(wide)]:
        if excess() <= 0:
            return shown
        if index in shown:
            shown.remove(index)
    whole = widths[_LAYER]
    narrowest = min(whole, _NARROWEST_LAYER)
    widths[_LAYER] = narrowest
    for index in [index for index in range(4, len(widths) - 1) if index not in wide]:
        if excess() <= 0:
            break
        shown.remove(index)
    if excess() > 0 and len(widths) > 4:  # not even the last column fits; the narrower ones before it may
        shown.remove(len(widths) - 1)
        for index in range(4, len(widths) - 1):
            if index not in wide and widths[index] + _GAP <= -excess():
                shown.append(index)
    widths[_LAYER] = min(whole, max(narrowest, narrowest - excess()))
    return shown


def _folded(text: str, width: int) -> list[str]:
    """The lines of an expression that is folded after its commas, and inside only what is wider than all.

    >>> _folded("conv2d:64,k7,s2,p3", 13)
    ['conv2d:64,k7,', 's2,p3']
    """
    lines = [""]
    for piece in text.replace(",", ",\n").split("\n"):
        if len(lines[-1]) + len(piece) > width and lines[-1]:
            lines.append("")
        rest = lines.pop() + piece
        lines += [rest[start : start + width] for start in range(0, len(rest), width)] or [""]
    return lines
