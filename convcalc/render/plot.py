"""A curve in characters: values from left to right, a few lines high."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_WIDE_RANGE = 50
"""Values whose largest is so many times the least are drawn by their logarithms."""


def curve_lines(values: Sequence[float], width: int, height: int = 6) -> Iterator[str]:
    """The curve with its largest and least value beside it, and below it the first and the last number of a value.

    Of more values than columns the largest of each column's is drawn, so that no peak is lost, and in the last column
    the last of all. Positive values of a wide range are drawn by their logarithms, and the last line says so.

    >>> print(*curve_lines([4, 3, 2, 1, 0], 11, 2), sep="\\n")
    4 ┤█▄▁
    0 ┤███▅▁
       0   4
    >>> print(*curve_lines([4, 9, 3, 3, 2, 1, 1, 1], 7, 2), sep="\\n")
    9 ┤█
    1 ┤█▅▃▁
       0  7
    """
    shown = [value for value in values if math.isfinite(value)]
    if not shown:
        return
    low, high = min(shown), max(shown)
    labels = [f"{high:.4g}", f"{low:.4g}"]
    margin = max(map(len, labels))
    columns = max(min(width - margin - 2, len(values)), 1)
    starts = [column * len(values) // columns for column in range(columns + 1)]
    drawn = [max(values[start:end], key=_height) for start, end in pairwise(starts[:-1])] + [values[-1]]
    logarithmic = low > 0 and high / low >= _WIDE_RANGE
    scale = math.log if logarithmic else float
    least, span = scale(low), (scale(high) - scale(low)) or 1.0
    levels = [
        1 + round((scale(value) - least) / span * (8 * height - 1)) if math.isfinite(value) else 0 for value in drawn
    ]
    for line in range(height):
        label = labels[0] if line == 0 else labels[1] if line == height - 1 else ""
        floor = 8 * (height - 1 - line)
        cells = "".join(_EIGHTHS[min(max(level - floor, 0), 8)] for level in levels)
        yield f"{label.rjust(margin)} ┤{cells}".rstrip()
    last = str(len(values) - 1)
    axis = "0" if len(values) == 1 else "0" + last.rjust(columns - 1)
    yield " " * (margin + 2) + axis + ("  (logarithmic)" if logarithmic else "")


def _height(value: float) -> float:
    """What is not finite is not drawn, and so the lowest."""
    return value if math.isfinite(value) else -math.inf
