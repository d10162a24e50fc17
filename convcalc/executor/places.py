"""Where the maximum of each window stands: found again from the maxima, tap by tap.

Of each phase of the stride, what every so many-th window sees is laid out in a grid of its own, with as many places as
there are windows. A tap is then one of these grids, shifted, and all rows of some planes are compared in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product as combinations
from typing import NamedTuple

import numpy as np

from convcalc.executor.blocks import BLOCK_ELEMENTS, span
from convcalc.executor.kernels import Array
from convcalc.executor.sliding import take_every
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.layers.base import Shape
from convcalc.layers.pool import MaxPool
from convcalc.tracing import ceil_div, product

Next = Callable[[slice, Array], Calls]
"""From some planes and where their maxima stand, an array (planes, *output), to what is to be called next."""


class _Tap(NamedTuple):
    """An element of the window: its phase, how far its grid is shifted, and which windows see nothing there.

    These are slices of an array (planes, *grid).
    """

    phase: Shape
    shift: int
    outside: tuple[tuple[slice, ...], ...]


def find_places(layer: MaxPool, planes: Array, maxima: Array, out: Array | None, step: int, then: Next) -> None:
    """Find where the maxima (planes, *output) stand, the first of equals, and do what comes after it.

    Places are counted along the last axis first; those of some planes that are found together begin at `step` after the
    plane before. They are written into `out`, or if there is none into an array for as long as `then` takes. A window
    of padding alone says 0.
    """
    sizes, output = planes.shape[1:], maxima.shape[1:]
    hands = thread_count()
    # Few calls are worth more than what stays in the cache where threads wait for the interpreter in between.
    together = max(1, (1 if hands == 1 else 4) * BLOCK_ELEMENTS // max(product(sizes), 1))
    hands = max(1, min(hands, ceil_div(len(planes), together)))
    grid = tuple(max(count, ceil_div(size, by)) for count, size, by in zip(output, sizes, layer.stride, strict=True))
    taps = [_tap(layer, tap, sizes, output, grid) for tap in combinations(*map(range, layer.kernel_size))]
    along = [product(sizes[axis + 1 :]) for axis in range(len(sizes))]
    # What each tap adds to the place where its window begins.
    ways = np.array(along) * layer.dilation @ np.indices(layer.kernel_size).reshape(len(sizes), -1)
    begins = (np.arange(together if step else 1) * step).reshape(-1, *(1,) * len(sizes))
    windows = np.indices(output)
    alone, starts = np.zeros(output, bool), np.zeros(output, np.int64)
    for axis, (by, (before, _)) in enumerate(zip(layer.stride, layer.padding, strict=True)):
        starts += (windows[axis] * by - before) * along[axis]
        reads = windows[axis][..., None] * by - before + np.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        alone |= ((reads < 0) | (reads >= sizes[axis])).all(axis=-1)
    starts = starts + begins
    # What is no number is the largest.
    odd = maxima.dtype.kind == "f" and bool(np.isnan(maxima.max(initial=0)))

    def work(hand: int) -> Calls:
        calls: Calls = []
        searches: dict[int, _Search] = {}
        for first in range(hand * together, len(planes), hands * together):
            own = slice(first, min(first + together, len(planes)))
            count = own.stop - first
            if count not in searches:
                searches[count] = _Search(layer.stride, taps, (count, *grid), planes.dtype, odd=odd)
            found = scratch("found", (count, *output), starts.dtype) if out is None else out[own]
            calls += searches[count].calls(planes[own], maxima[own], ways)
            calls.append((np.add, (_corner(searches[count].way, found.shape), starts[:count], found)))
            if alone.any():
                calls.append((partial(np.copyto, where=alone), (found, begins[:count])))
            calls += then(own, found)
        return calls

    share_calls(work, range(hands))


class _Search:
    """What is called to find out, for each window of some planes, which tap has the maximum: always the same."""

    def __init__(
        self, stride: Shape, taps: Sequence[_Tap], shape: Shape, dtype: np.dtype[np.generic], *, odd: bool
    ) -> None:
        wide = (*shape[:-1], shape[-1] * stride[-1])
        self.stride = stride
        self.rows = {tap.phase[:-1]: scratch(f"rows {tap.phase[:-1]}", wide, dtype) for tap in taps}
        self.wanted = scratch("wanted", shape, dtype)
        self.way = scratch("way", shape, np.dtype(np.int64))
        # So many taps are passed over before the first that has the maximum.
        self.passed = scratch("passed", shape, np.min_scalar_type(len(taps)))
        self.comparing = self._compare(taps, odd=odd)

    def calls(self, planes: Array, maxima: Array, ways: Array) -> Calls:
        """What is called for these planes."""
        calls: Calls = [(np.copyto, (_corner(self.wanted, maxima.shape), maxima))]
        for phase, rows in self.rows.items():
            every = (slice(start, None, step) for start, step in zip(phase, self.stride[:-1], strict=True))
            part = planes[(slice(None), *every)]
            calls.append((np.copyto, (_corner(rows, part.shape), part)))
        return [*calls, *self.comparing, (partial(ways.take, out=self.way, mode="clip"), (self.passed,))]

    def _compare(self, taps: Sequence[_Tap], *, odd: bool) -> Calls:
        calls: Calls = []
        shape = self.wanted.shape
        grids = {}
        for *lead, last in dict.fromkeys(tap.phase for tap in taps):
            grids[*lead, last] = rows = self.rows[tuple(lead)]
            if self.stride[-1] > 1:
                grids[*lead, last] = scratch(f"phase {lead} {last}", shape, rows.dtype)
                take_every(self.stride[-1], last, rows.reshape(-1), grids[*lead, last].reshape(-1), calls)
        going, other, number = (scratch(name, shape, np.dtype(bool)) for name in ("going", "other", "number"))
        calls += [(self.passed.fill, (0,)), (going.fill, (True,))]
        for tap in taps[:-1]:  # it is the last if it is none of the others
            low = max(-tap.shift, 0)
            high = max(self.wanted.size - max(tap.shift, 0), low)
            seen = grids[tap.phase].reshape(-1)[low + tap.shift : high + tap.shift]
            differs = other.reshape(-1)[low:high]
            calls.append((np.not_equal, (seen, self.wanted.reshape(-1)[low:high], differs)))
            if odd:
                is_number = number.reshape(-1)[low:high]
                calls += [(np.equal, (seen, seen, is_number)), (np.logical_and, (differs, is_number, differs))]
            calls += [(other[part].fill, (True,)) for part in tap.outside]
            calls.append((np.logical_and, (going, other, going)))
            calls.append((np.add, (self.passed, going.view(np.uint8), self.passed)))
        return calls


def _corner(array: Array, shape: Shape) -> Array:
    return array[tuple(map(slice, shape))]


def _tap(layer: MaxPool, tap: Shape, sizes: Shape, output: Shape, grid: Shape) -> _Tap:
    """Where a tap is found, and which windows see nothing there."""
    phases, shift, outside = [], 0, []
    geometry = zip(tap, layer.dilation, layer.padding, layer.stride, output, sizes, strict=True)
    for axis, (place, wide, (before, _), stride, count, size) in enumerate(geometry):
        steps, phase = divmod(place * wide - before, stride)
        phases.append(phase)
        shift += steps * product(grid[axis + 1 :])
        low, high, _ = span(place * wide - before, stride, count, size)
        every = (slice(None),) * (axis + 1)
        outside += [(*every, part) for part in (slice(0, low), slice(high, count)) if part.start < part.stop]
    return _Tap(tuple(phases), shift, tuple(outside))
