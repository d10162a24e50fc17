"""A curve in characters: values from left to right, a few lines high."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_WIDE_RANGE = 50
"""Values whose largest is so many times the least are drawn by their logarithms."""


def curve_lines(values: Sequence[float], width: int, height: int = 6) -> Iterator[str]:
    """The curve with its largest and least value beside it, and below it the first and the last number of a value.

    More values than columns are drawn by the last of each column's. Positive values of a wide range are drawn by their
    logarithms, and the last line says so.

    >>> print(*curve_lines([4, 3, 2, 1, 0], 11, 2), sep="\\n")
    4 ┤█▄▁
    0 ┤███▅▁
       0   4
    """
    shown = [value for value in values if math.isfinite(value)]
    if not shown:
        return
    low, high = min(shown), max(shown)
    labels = [f"{high:.4g}", f"{low:.4g}"]
    margin = max(map(len, labels))
    columns = max(min(width - margin - 2, len(values)), 1)
    ends = [(column + 1) * len(values) // columns - 1 for column in range(columns)]
    logarithmic = low > 0 and high / low >= _WIDE_RANGE
    scale = math.log if logarithmic else float
    least, span = scale(low), (scale(high) - scale(low)) or 1.0
    levels = [
        1 + round((scale(values[end]) - least) / span * (8 * height - 1)) if math.isfinite(values[end]) else 0
        for end in ends
    ]
    for line in range(height):
        label = labels[0] if line == 0 else labels[1] if line == height - 1 else ""
        floor = 8 * (height - 1 - line)
        cells = "".join(_EIGHTHS[min(max(level - floor, 0), 8)] for level in levels)
        yield f"{label.rjust(margin)} ┤{cells}".rstrip()
    last = str(len(values) - 1)
    axis = "0" if len(values) == 1 else "0" + last.rjust(columns - 1)
    yield " " * (margin + 2) + axis + ("  (logarithmic)" if logarithmic else "")
