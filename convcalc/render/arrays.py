"""Arrays as text, as JSON, as a table, and as a heat map of coloured half blocks or shades of characters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convcalc.arrays.text import nested
from convcalc.executor.report import RunReport
from convcalc.layers.base import shape_text
from convcalc.render.document import VERSION

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Array = npt.NDArray[Any]

_TABLE_LINES = 40
"""An array of more lines is a heat map on a terminal."""
_MARK = 16
"""Columns that the words below a curve may take."""
_MOST_LEARNED = 64
"""A learned weight of more numbers is a line on a terminal."""
_MOST_DRAWN = 6
"""Of more learned weights each is a line."""
_MOST_NAMED = 24
"""Of how many learned weights a terminal says anything."""
_MOST_PLANES = 4
"""How many planes of an array a terminal is shown; files and pipes get all."""


# --- for scripts ----------------------------------------------------------------------------------------------------


def nested_text(array: Array) -> str:
    """Nested lists without spaces, as `run` and its options read them.

    >>> nested_text(np.array([[19, 25], [37, 43]]))
    '[[19,25],[37,43]]'
    """
    text = compact_json(nested(array))
    return text.replace("NaN", "nan").replace("Infinity", "inf")


def compact_json(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def run_document(report: RunReport, part: str | None = None) -> dict[str, Any]:
    """The report as the document that JSON output holds and `--get` looks into; numbers of one `part` alone, if given.

    JSON has no nan and no infinity: they are the texts "nan", "inf" and "-inf".
    """

    def numbers(array: Array, key: str) -> Any:
        return _json_safe(nested(array)) if part in (None, key) else None

    document: dict[str, Any] = {
        "version": VERSION,
        "verb": "run",
        "status": "complete",
        "shape": list(report.output.shape),
        "dtype": str(report.output.dtype),
        "output": numbers(report.output, "output"),
    }
    for name, array in report.others.items():
        group, _, key = name.partition(".")
        document.setdefault(group, {})[key] = numbers(array, group)
    if report.losses:
        document["losses"] = _json_safe(list(report.losses))
    document["diagnostics"] = [
        {"level": item.level, "layer": item.layer, "message": item.message} for item in report.diagnostics
    ]
    return document


def document_text(document: Mapping[str, Any]) -> str:
    """The document as JSON with a line for each key; a line for each number would be too many."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _json_safe(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_safe(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parted(separator: str) -> Callable[[RunReport], Iterator[str]]:
    """Rows with a separator between the numbers, and an empty line between planes and arrays; all digits."""

    def lines(report: RunReport) -> Iterator[str]:
        for number, (_, plane) in enumerate(_all_planes(report)):
            if number:
                yield ""
            for row in _rows(plane):
                yield separator.join(map(str, row))

    return lines


def _rows(plane: Array) -> list[list[float]]:
    values = nested(plane)
    return values if plane.ndim == 2 else [values if plane.ndim == 1 else [values]]


def plain(report: RunReport) -> Iterator[str]:
    """Aligned numbers of four digits, each plane under its name."""
    for title, plane in _all_planes(report):
        if title:
            yield title
        cells = [[number_text(value) for value in row] for row in _rows(plane)]
        width = max(len(cell) for row in cells for cell in row)
        for row in cells:
            yield "  ".join(cell.rjust(width) for cell in row)


def markdown(report: RunReport) -> Iterator[str]:
    """A Markdown table for each plane."""
    for number, (title, plane) in enumerate(_all_planes(report)):
        if number:
            yield ""
        if title:
            yield from (f"{title}:", "")
        rows = _rows(plane)
        yield "| " + " | ".join(["", *map(str, range(len(rows[0])))]) + " |"
        yield "|" + " ---: |" * (len(rows[0]) + 1)
        for index, row in enumerate(rows):
            yield "| " + " | ".join([str(index), *map(number_text, row)]) + " |"


def number_text(value: float) -> str:
    """A number for people: whole numbers in full, others in four digits.

    >>> number_text(12345), number_text(0.123456), number_text(-1.0)
    ('12345', '0.1235', '-1')
    """
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def planes(array: Array, name: str = "") -> Iterator[tuple[str, Array]]:
    """The last two axes of an array, plane by plane, and what each is called."""
    if array.ndim <= 2:
        yield name, array
        return
    for index in np.ndindex(*array.shape[:-2]):
        place = f"channel {index[0]}" if array.ndim == 3 else "plane " + ",".join(map(str, index))
        yield f"{name}, {place}" if name else place, array[index]


def _all_planes(report: RunReport) -> Iterator[tuple[str, Array]]:
    for name, array in _shown(report).items():
        yield from planes(array, name)


def _shown(report: RunReport) -> dict[str, Array]:
    """The arrays by the names that people are told."""
    others = {name: array for name, array in report.others.items() if name != report.same}
    return {report.same: report.output, **others}


WRITERS: dict[str, Callable[[RunReport], Iterator[str]]] = {
    "plain": plain,
    "table": plain,
    "markdown": markdown,
    "tsv": parted("\t"),
    "csv": parted(","),
}
"""What writes a report in each format but JSON."""


# --- for people -----------------------------------------------------------------------------------------------------


def print_arrays(report: RunReport, console: Console, how: str | None = None) -> None:
    """Print every array as `how` says, "table" or "heatmap"; or as a table where it fits and else as a heat map.

    The losses of a fit are drawn above it. Large weights are a line each unless `how` asks for more, and all are where
    there are many, as far as a screen holds them.
    """
    if report.losses:
        from convcalc.render.plot import curve_lines

        console.print("loss")
        for line in curve_lines(report.losses, min(console.width - _MARK, 72)):
            console.print(line, markup=False, no_wrap=True)
        console.print()
    shown = list(_shown(report).items())
    lines = bool(report.losses) and how is None
    if lines and len(shown) > _MOST_NAMED:
        left = len(shown) - _MOST_NAMED
        shown = shown[:_MOST_NAMED]
    else:
        left = 0
    for name, array in shown:
        if lines and (array.size > _MOST_LEARNED or left or len(shown) > _MOST_DRAWN):
            low, high = number_text(array.min().item()), number_text(array.max().item())
            span = low if array.size == 1 else f"{shape_text(array.shape)}, from {low} to {high}"
            console.print(f"{name}  {span}", markup=False)
            continue
        chosen = how or ("table" if _fits(array, console.width) else "heatmap")
        if chosen == "table":
            _print_table(array, name, console)
        else:
            _print_heatmap(array, name, console)
    if left:
        console.print(f"and {left} more; -o FILE.npz keeps all", markup=False)


def _fits(array: Array, width: int) -> bool:
    if array.size > 4096:
        return False
    lines, columns = 0, 0
    for _, plane in planes(array):
        rows = _upright(_rows(plane), width)
        lines += len(rows)
        columns = max(columns, _columns(rows))
    return lines <= _TABLE_LINES and columns <= width


def _columns(rows: list[list[float]]) -> int:
    """How wide the table of these rows is."""
    return len(rows[0]) * _cell(rows) + 6


def _cell(rows: list[list[float]]) -> int:
    """How wide a column of these rows is, with its gap."""
    return max(len(number_text(value)) for row in rows for value in row) + 2


def _upright(rows: list[list[float]], width: int) -> list[list[float]]:
    """The rows; a single one that is too wide, such as what a classifier gives, as a column."""
    return [[value] for value in rows[0]] if len(rows) == 1 and _columns(rows) > width else rows


def _print_table(array: Array, name: str, console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    left_out = 0
    for title, plane in planes(array, name):
        whole = _rows(plane)
        rows = _upright(whole, console.width)
        if title:
            console.print(Text(title))
        table = Table(
            box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), show_edge=False, pad_edge=False,
            show_header=rows is whole,
        )  # fmt: skip
        table.add_column("", style="dim", justify="right")
        # Where not all columns fit the first and the last are shown, as NumPy does.
        most = max((console.width - 6) // _cell(rows), 3)
        shown = list(range(len(rows[0])))
        if len(shown) > most:
            shown = [*shown[: most // 2], -1, *shown[len(shown) - (most - 1) // 2 :]]
            left_out = len(rows[0]) - len(shown) + 1
        for column in shown:
            table.add_column("…" if column < 0 else str(column), justify="right", no_wrap=True)
        for index, row in enumerate(rows):
            table.add_row(str(index), *("…" if column < 0 else number_text(row[column]) for column in shown))
        console.print(table)
    if left_out:
        console.print(Text(f"{left_out} columns do not fit; -o FILE writes all", style="dim"))


SHADES = " .:-=+*#%@"
_SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
_NOT_A_NUMBER = (255, 0, 255)
_SMALL = 32
"""A picture smaller than this is made larger, by a whole factor."""


class Scale:
    """From values to shares of the way from the least to the largest, and to colours.

    Values of both signs get colours that meet at 0; values of one sign go from dark to light.
    """

    def __init__(self, array: Array) -> None:
        finite = array[np.isfinite(array)]
        self.low = finite.min().item() if finite.size else 0.0
        self.high = finite.max().item() if finite.size else 0.0
        self.diverging = self.low < 0 < self.high

    def share(self, value: float) -> float:
        """From 0 for the least to 1 for the largest."""
        if self.high == self.low:
            return 0.0
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def shade(self, value: float) -> str:
        """One of `SHADES`; ? for nan."""
        return "?" if math.isnan(value) else SHADES[round(self.share(value) * (len(SHADES) - 1))]

    def colour(self, value: float) -> str:
        """As rich names it."""
        if math.isnan(value):
            return _rgb(_NOT_A_NUMBER)
        if not self.diverging:
            return _between(_SEQUENTIAL, self.share(value))
        largest = max(-self.low, self.high)
        return _between(_DIVERGING, min(max(value / largest, -1.0), 1.0) / 2 + 0.5)


def _between(colours: tuple[tuple[int, int, int], ...], share: float) -> str:
    position = share * (len(colours) - 1)
    index = min(int(position), len(colours) - 2)
    part = position - index
    mixed = [round(a + (b - a) * part) for a, b in zip(colours[index], colours[index + 1], strict=True)]
    return _rgb((mixed[0], mixed[1], mixed[2]))


def _rgb(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _print_heatmap(array: Array, name: str, console: Console) -> None:
    from rich.text import Text

    plain = console.no_color or console.color_system is None
    scale = Scale(array)
    count = int(np.prod(array.shape[:-2])) if array.ndim > 2 else 1
    for number, (title, plane) in enumerate(planes(array, name)):
        if number == _MOST_PLANES:
            console.print(Text(f"and {count - _MOST_PLANES} more; -o FILE writes all", style="dim"))
            break
        if title:
            console.print(Text(title))
        pixels = resized(np.array(_rows(plane), dtype=np.float64), console.width)
        for line in heat_lines(pixels, scale, plain=plain):
            console.print(line, no_wrap=True, crop=True)
    console.print(_legend(array, scale, plain=plain))


def resized(plane: Array, width: int) -> Array:
    """The plane as pixels, at most `width` in a row: small ones larger by a whole factor, large ones averaged."""
    height, length = plane.shape
    factor = max(min(width // length, _SMALL // max(height, length)), 1)
    if length <= width:
        return np.repeat(np.repeat(plane, factor, axis=0), factor, axis=1)
    rows = max(round(height * width / length), 1)
    for axis, (size, parts) in enumerate(((height, rows), (length, width))):
        edges = np.arange(parts) * size // parts
        counts = np.diff([*edges, size])
        plane = np.add.reduceat(plane, edges, axis=axis) / np.expand_dims(counts, 1 - axis)
    return plane


def heat_lines(pixels: Array, scale: Scale, *, plain: bool) -> Iterator[Text]:
    """Lines of text, two rows of pixels in each: half blocks in colour, or the shade of both together."""
    from rich.style import Style
    from rich.text import Text

    for top in range(0, len(pixels), 2):
        upper = pixels[top]
        lower = pixels[top + 1] if top + 1 < len(pixels) else None
        line = Text()
        for column, value in enumerate(upper.tolist()):
            below = None if lower is None else float(lower[column])
            if plain:
                line.append(scale.shade(value if below is None else (value + below) / 2))
            else:
                back = None if below is None else scale.colour(below)
                line.append("▀", Style(color=scale.colour(value), bgcolor=back))
        yield line


def _legend(array: Array, scale: Scale, *, plain: bool) -> Text:
    """The least and the largest value, and what is between them."""
    from rich.text import Text

    legend = Text(number_text(scale.low) + " ")
    steps = len(SHADES) if plain else 24
    for step in range(steps):
        value = scale.low + (scale.high - scale.low) * step / (steps - 1)
        legend.append(scale.shade(value)) if plain else legend.append("█", scale.colour(value))
    legend.append(f" {number_text(scale.high)}   {shape_text(array.shape)}")
    if np.isnan(array).any():
        legend.append("   nan ")
        legend.append("?") if plain else legend.append("█", _rgb(_NOT_A_NUMBER))
    return legend
