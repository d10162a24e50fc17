"""Reports as a table on a terminal, with rich."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from convcalc.analysis.report import Report, Row
from convcalc.render.terminal import Console, Segment, Segments, Style, Text, cell_len
from convcalc.render.text import merged_rows, people_rows, summary_lines
from convcalc.render.units import share_text

_STYLES = {0: "dim", 1: "cyan", 2: "dim", 3: "green"}
_LAYER, _INPUT = 1, 2
_NARROWEST_LAYER = 8
"""Columns that the layer's expression keeps when the terminal is narrow; it is folded at its commas."""
_BARS = (8, 4, 0)
"""How long the longest bar of a share is; shorter ones where columns would have to be left out."""
_GAP, _EDGES = 2, 2
"""Columns between two cells, and at both ends together."""
_SPACE = " " * _GAP


def print_table(report: Report, console: Console) -> None:
    """Print the table, as wide as the terminal allows, then what the totals say that no column shows."""
    titles, rows, totals = people_rows(report)
    merged = merged_rows(report)
    titles = ["\n".join(filter(None, title.rpartition(" ")[::2])) for title in titles]
    wanted = {index for index, column in enumerate(report.columns, 4) if not column.wide}
    for longest in _BARS if any(column.unit == "share" for column in report.columns) else _BARS[:1]:
        rows = [_with_bars(report, item, row, longest) for item, row in zip(report.rows, rows, strict=True)]
        lines = [
            *zip(*(_two_lines(title) for title in titles), strict=True),
            *rows,
            *([totals] if totals else []),
            *merged,
        ]
        widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
        shown = _columns_that_fit(report, widths, console.width)
        if wanted <= set(shown):
            break
    console.print(Segments(_segments(report, rows, titles, [totals, *merged], shown, widths)), end="")
    hidden = _hidden(report, rows, shown)
    if hidden:
        columns = "1 column does" if hidden == 1 else f"{hidden} columns do"
        console.print(Text(f"  {columns} not fit; a wider terminal or --format plain shows all", "dim"))
    for name, text in summary_lines(report):
        gap = " " if cell_len(name) + cell_len(text) + 3 <= console.width else "\n    "
        console.print(Text.assemble("  ", (name, "dim"), gap, (text, "bold")))


def _segments(
    report: Report,
    rows: Sequence[Sequence[str]],
    titles: Sequence[str],
    below: Sequence[Sequence[str]],
    shown: Sequence[int],
    widths: Sequence[int],
) -> list[Segment]:
    """The lines of the table as rich prints them in the end.

    Widths are known, so that nothing is left for rich's own table to find out; that takes longer than the costs do.
    """
    bold = Style(bold=True)
    titled = [bold] * len(shown)
    styles = [Style.parse(_STYLES.get(index, "none")) for index in shown]
    across = Segment("─" * (sum(widths[index] for index in shown) + _GAP * (len(shown) - 1) + 1) + "\n")
    found: list[Segment] = []

    def add(cells: Sequence[str], styles: Sequence[Style]) -> None:
        parts = [_lines_of(cells[index], widths[index] if index == _LAYER else None) for index in shown]
        for line in range(max(map(len, parts))):
            # Neighbours of one style are one segment: writing them out takes as long as making them.
            before: Style | None = None
            for index, part, style in zip(shown, parts, styles, strict=True):
                text = part[line] if line < len(part) else ""
                space = " " * (widths[index] - _width(text))
                text = f"{text}{space}{_SPACE}" if index < 4 else f"{space}{text}{_SPACE}"
                if style is before:
                    text = found.pop().text + text
                found.append(Segment(text, style))
                before = style
            found[-1] = Segment(found[-1].text[: 1 - _GAP] + "\n", before)

    deepest = max(title.count("\n") for title in titles)
    add(["\n" * (deepest - title.count("\n")) + title for title in titles], titled)
    found.append(across)
    for item, row in zip(report.rows, rows, strict=True):
        add(row, [style + bold for style in styles] if item.header else styles)
    if any(below):
        found.append(Segment("\n"))
    for cells in filter(None, below):
        add(cells, titled)
    return found


def _hidden(report: Report, rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    """How many columns with something in them are not shown; the input of a chain is, as the output above it."""
    hidden = {index for index in range(len(rows[0])) if index not in shown and any(row[index] for row in rows)}
    if not any(row.inputs for row in report.rows):
        hidden -= {_INPUT, _INPUT + 1}
    if all(row.inputs == before.outputs for before, row in pairwise(report.rows)):
        hidden.discard(_INPUT)
    return len(hidden)


def _with_bars(report: Report, item: Row, cells: Sequence[str], longest: int) -> list[str]:
    """The cells of a row with the bars of its shares this long."""
    if longest == _BARS[0]:
        return list(cells)
    found = list(cells)
    for index, column in enumerate(report.columns, 4):
        share = item.values.get(column.key)
        if column.unit == "share" and isinstance(share, int | float):
            found[index] = share_text(share, longest)
    return found


def _lines_of(text: str, width: int | None) -> list[str]:
    """The lines of a cell, folded if a width is given."""
    return text.split("\n") if width is None else _folded(text, width)


def _width(text: str) -> int:
    """How many columns a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def _two_lines(title: str) -> tuple[str, str]:
    first, _, second = title.partition("\n")
    return first, second


def _columns_that_fit(report: Report, widths: list[int], width: int) -> list[int]:
    """All columns if they fit; else without the input, which is the output above, and without the wide ones.

    Then the layer is folded: its width in `widths` becomes what is left. What does not fit even so is dropped, the
    last column at the end.
    """
    wide = [index for index, column in enumerate(report.columns, 4) if column.wide]
    # Without an input there are no shapes to show, and the curve of a split shows no layers.
    shapes = any(row.inputs for row in report.rows)
    shown = [
        index
        for index in range(len(widths))
        if (shapes or index not in (_INPUT, _INPUT + 1)) and (widths[index] or index != _LAYER)
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
    last = len(widths) - 1
    if excess() > 0 and last > 3 and last in shown:  # not even the last column fits; the narrower ones before it may
        shown.remove(last)
        for index in range(4, last):
            if index not in wide and widths[index] + _GAP <= -excess():
                shown.append(index)
    widths[_LAYER] = min(whole, max(narrowest, narrowest - excess()))
    return shown


def _folded(text: str, width: int) -> list[str]:
    """The lines of an expression that is folded after its commas and spaces, at a colon what is wider than all, and
    anywhere what is so even then.

    >>> _folded("conv2d:64,k7,s2,p3", 13)
    ['conv2d:64,k7,', 's2,p3']
    >>> _folded("maxpool2d:3,s2 relu", 11)
    ['maxpool2d:', '3,s2 relu']
    """
    lines = [""]
    for whole in text.replace(",", ",\n").replace(" ", " \n").split("\n"):
        for piece in [whole] if _fits(whole, width) else whole.replace(":", ":\n").split("\n"):
            if lines[-1] and not _fits(lines[-1] + piece, width):
                lines.append("")
            rest = lines.pop() + piece
            cut = [rest] if _fits(rest, width) else [rest[at : at + width] for at in range(0, len(rest), width)]
            lines += cut
    return [line.rstrip() for line in lines]


def _fits(text: str, width: int) -> bool:
    return len(text.rstrip()) <= width
