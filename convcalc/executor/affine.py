"""Numbers of each channel times one number, plus another: what a batch norm with running statistics does."""

from __future__ import annotations

import numpy as np

from convcalc.executor.blocks import BLOCK_ELEMENTS, Activation, even_slices, finish
from convcalc.executor.channel_products import repeated
from convcalc.executor.kernels import Array
from convcalc.executor.memory_format import as_they_lie, is_channels_last
from convcalc.executor.threads import Calls, share_calls, thread_count
from convcalc.tracing import ceil_div, product

FEW_NUMBERS = 1 << 14
"""Numbers of an image, up to which images are done many at a time: to call for each takes longer than its numbers."""


def affine_into(x: Array, scale: Array, move: Array, activation: Activation | None, out: Array) -> None:
    """x · scale + move, for each channel, activated, block by block; `x` and `out` are (N, C, *sizes)."""
    by_channels = is_channels_last(out) and is_channels_last(x)
    places = 1 if by_channels else product(x.shape[2:])
    few = len(scale) * places <= FEW_NUMBERS and x.flags.c_contiguous and out.flags.c_contiguous
    if by_channels or few:
        lines = [np.repeat(line, places) for line in (scale, move)]
        source, target = (array.reshape(-1, len(lines[0])) for array in as_they_lie(x, out))

        def work(own: slice) -> Calls:
            part, found = source[own], target[own]
            rows = [repeated(line, part) for line in lines]
            wide, made = (array.reshape(-1, len(rows[0])) for array in (part, found))
            return _calls(wide, rows[0], rows[1], activation, made)

        share_calls(work, _parts(*source.shape))
        return
    columns = [line.reshape(-1, *(1,) * (x.ndim - 2)) for line in (scale, move)]

    def some(task: tuple[int, slice]) -> Calls:
        image, own = task
        return _calls(x[image, own], columns[0][own], columns[1][own], activation, out[image, own])

    parts = _parts(len(scale), product(x.shape[2:]))
    share_calls(some, [(image, own) for image in range(len(x)) for own in parts])


def _calls(x: Array, scale: Array, move: Array, activation: Activation | None, out: Array) -> Calls:
    calls: Calls = [(np.multiply, (x, scale, out)), (np.add, (out, move, out))]
    finish(out, None, activation, calls)
    return calls


def _parts(rows: int, columns: int) -> list[slice]:
    """Rows by blocks that stay in the cache, equally many for each thread."""
    count = ceil_div(rows * columns, BLOCK_ELEMENTS)
    hands = thread_count()
    return even_slices(rows, count if count == 1 else ceil_div(count, hands) * hands)
