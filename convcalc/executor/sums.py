"""Sums and extremes of rows by what NumPy computes fastest: its own sums take a tenth of a microsecond for each row.

Rows are those of an array (rows, columns) that lies without gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.executor.pieces import PIECE, ROW, hands_for, piece_of
from convcalc.executor.threads import share
from convcalc.tracing import ceil_div

_SHORT = 512
"""Columns up to which one sum of all is exact enough; longer rows are added up in parts, as NumPy does."""
_PART = 1024
FUNCTIONS = 4
"""How many functions of every number something of rows takes, for what threads are worth."""


def row_sums(x: Array) -> Array:
    """The sum of each row of floats."""
    columns = x.shape[1]
    if columns <= _SHORT:
        return x @ np.ones(columns, x.dtype)
    if not hasattr(np, "vecdot"):  # before NumPy 2
        whole: Array = x.sum(axis=1)
        return whole
    if columns < 8 * _PART:
        return row_dots(x, np.ones(columns, x.dtype))
    parts = columns // _PART
    split = x[:, : parts * _PART].reshape(len(x), parts, _PART)
    found: Array = np.vecdot(split, np.ones(_PART, x.dtype)).sum(axis=1) + row_sums(x[:, parts * _PART :])
    return found


def row_dots(a: Array, b: Array) -> Array:
    """The sum of the products of each row of a with that of b, or with b; of long rows in parts, which rounds less."""
    found: Array
    if not hasattr(np, "vecdot"):
        found = (a * b).sum(axis=1)
        return found
    parts = a.shape[1] // _PART
    if parts < 8:
        found = np.vecdot(a, b)
        return found
    body = parts * _PART
    split = [x[..., :body].reshape(*x.shape[:-1], parts, _PART) for x in (a, b)]
    found = np.vecdot(*split).sum(axis=1) + np.vecdot(a[:, body:], b[..., body:])
    return found


def row_extremes(extreme: np.ufunc, x: Array) -> Array:
    """The largest or the smallest of each row, by `np.maximum` or `np.minimum`; nan where there is one."""
    rows, columns = x.shape
    if columns > 4 * _PART or not rows:
        whole: Array = extreme.reduce(x, axis=1)
        return whole
    found: Array = extreme.reduceat(x.reshape(-1), np.arange(0, rows * columns, columns))
    return found


def running_sums(x: Array, out: Array) -> None:
    """The sum of each row's numbers up to each, into an array of its shape.

    Of two numbers next to each other, then of four, and so on: NumPy adds one after the other and waits for each sum,
    which takes more than twice as long and rounds as often as there are numbers.
    """
    rows, columns = x.shape
    together = max(1, PIECE // x.dtype.itemsize // max(columns, 1))
    if columns == 1:
        np.copyto(out, x)
    for first in range(0, rows if columns > 1 else 0, together):
        now, last = x[first : first + together], out[first : first + together]
        rooms = [np.empty_like(now), np.empty_like(now)]
        reach = 1
        while reach < columns:
            room = last if 2 * reach >= columns else rooms[reach.bit_length() % 2]
            np.add(now[:, reach:], now[:, :-reach], out=room[:, reach:])
            np.copyto(room[:, :reach], now[:, :reach])
            now = room
            reach *= 2


def repeated(row: Array) -> Array:
    """A row as often as makes it long, for `on_rows`."""
    return np.tile(row, max(1, ROW // max(len(row), 1)))


def on_rows(function: np.ufunc, x: Array, row: Array) -> None:
    """Write over each row of x its function with a row that is `repeated`, of several rows at once.

    NumPy calls its loop for each row, which takes as long as some hundred numbers.
    """
    columns = x.shape[1]
    times = len(row) // max(columns, 1)
    body = len(x) // times * times
    long = x[:body].reshape(-1, len(row))
    function(long, row, out=long)
    function(x[body:], row[:columns], out=x[body:])


def by_rows(
    work: Callable[[slice], None], rows: int, columns: int, dtype: np.dtype[Any], functions: int = FUNCTIONS
) -> None:
    """Call `work` for rows that fit the cache, by as many threads as it is worth."""
    hands = hands_for(rows * columns * functions)
    if hands == functions == 1:  # there is nothing that would have to stay in the cache
        work(slice(0, rows))
        return
    # Twice as much as a formula takes at once, because there are more calls.
    together = (
        ceil_div(2 * piece_of(rows * columns, hands, dtype), max(columns, 1)) if hands == 1 else ceil_div(rows, hands)
    )
    parts = [slice(start, start + together) for start in range(0, rows, together)]
    if hands > 1:
        share(work, parts)
        return
    for part in parts:
        work(part)
