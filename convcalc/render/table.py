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
_NARROWEST_LAYER = 12
"""Columns that the layer's expression keeps when the terminal is narrow; it is folded."""
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
            min_width=min(widths[index], _NARROWEST_LAYER) if index == _LAYER else widths[index],
            no_wrap=index != _LAYER,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)
    for name, text in summary_lines(report):
        console.print(Text.assemble("  ", (name, "dim"), " ", (text, "bold")))


def _two_lines(title: str) -> tuple[str, str]:
    first, _, second = title.partition("\n")
    return first, second


def _columns_that_fit(report: Report, widths: list[int], width: int) -> list[int]:
    """All columns if they fit; else without the input, which is the output above, then the wide ones."""
    wide = [index for index, column in enumerate(report.columns, 4) if column.wide]
    shown = list(range(len(widths)))
    others = [index for index in range(4, len(widths) - 1) if index not in wide]
    for index in [_INPUT, *reversed(wide), *others]:
        if sum(widths[column] for column in shown) + _GAP * (len(shown) - 1) + _EDGES <= width:
            break
        shown.remove(index)
    return shown
