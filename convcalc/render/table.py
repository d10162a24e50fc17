"""Reports as a table on a terminal, with rich."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convcalc.analysis.report import Report
from convcalc.render.text import people_rows, summary_lines

_NARROW = 100
"""Below this width the wide columns are left out, and the input's shape: it is the output of the row above."""


def print_table(report: Report, console: Console) -> None:
    """Print the table, then what the totals say that no column shows."""
    titles, rows, totals = people_rows(report)
    wide = {2, *(index for index, column in enumerate(report.columns, 4) if column.wide)}
    shown = [index for index in range(len(titles)) if index not in wide or console.width >= _NARROW]
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_footer=bool(totals), pad_edge=False)
    for index in shown:
        style = {0: "dim", 1: "cyan", 3: "green"}.get(index, "")
        table.add_column(
            titles[index],
            footer=totals[index] if totals else "",
            footer_style="bold",
            justify="left" if index < 4 else "right",
            style=style,
            no_wrap=index != 1,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)
    for name, text in summary_lines(report):
        console.print(Text.assemble("  ", (name, "dim"), " ", (text, "bold")))
