"""Reducing windows by an operation that can be done axis by axis, tap by tap: maxima and sums of shifted arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from sys import byteorder

import numpy as np

from convcalc.executor.blocks import BLOCK_ELEMENTS, span
from convcalc.executor.kernels import Array
from convcalc.executor.threads import Calls, scratch, share_calls
from convcalc.tracing import product


def reduce_windows(
    operation: np.ufunc,
    x: Array,
    before: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    out: Array,
    fill: float,
) -> None:
    """Every window of `x` (N, C, *sizes) reduced to one number, into `out` (N, C, *output).

    What a window reads outside of `x` is `fill`, which must change nothing. `before` is the padding in front.
    """
    planes = x.reshape(-1, *x.shape[2:])
    output = out.shape[2:]
    result = out.reshape(len(planes), *output)
    together = max(1, BLOCK_ELEMENTS // max(product(x.shape[2:]), 1))

    def work(first: int) -> Calls:
        calls: Calls = []
        part = planes[first : first + together]
        last = len(output) - 1
        for axis, geometry in enumerate(zip(before, kernel_size, stride, dilation, output, strict=True)):
            shape = (*part.shape[: axis + 1], output[axis], *part.shape[axis + 2 :])
            target = result[first : first + together] if axis == last else scratch(f"axis {axis}", shape, x.dtype)
            _reduce_axis(
                operation, np.moveaxis(part, axis + 1, 0), np.moveaxis(target, axis + 1, 0), *geometry, fill, calls
            )
            part = target
        return calls

    share_calls(work, range(0, len(planes), together))


def _reduce_axis(
    operation: np.ufunc,
    x: Array,
    target: Array,
    before: int,
    taps: int,
    stride: int,
    dilation: int,
    count: int,
    fill: float,
    calls: Calls,
) -> None:
    """The same along the first axis, for `count` windows."""
    spans = []
    for tap in range(taps):
        shift = tap * dilation - before
        low, high, start = span(shift, stride, count, len(x))
        spans.append((high - low, low, high, start))
    spans.sort(reverse=True)  # the tap that most windows have inside starts them
    for index, (size, low, high, start) in enumerate(spans):
        if not index:
            calls += [(edge.fill, (fill,)) for edge in (target[:low], target[high:]) if edge.size]
        if not size:
            continue
        source = x[start : start + (size - 1) * stride + 1 : stride]
        if index:
            calls.append((partial(operation, out=target[low:high]), (target[low:high], source)))
        else:
            calls.append((np.copyto, (target[low:high], source)))


def take_every(step: int, start: int, source: Array, target: Array, calls: Calls) -> None:
    """Every so many-th number from one on, of as many times what there is room for; arrays of one axis.

    Of two numbers of 4 bytes that follow each other a conversion from 8 to 4 bytes keeps the first: it is done with
    many at a time, in half the time of a copy.
    """
    if step != 2 or source.dtype.itemsize != 4 or byteorder != "little" or not len(target):
        calls.append((np.copyto, (target, source[start::step])))
        return
    pairs, halves = source[start : len(source) - start].view(np.int64), target.view(np.int32)
    calls.append((partial(np.copyto, casting="unsafe"), (halves[: len(pairs)], pairs)))
    if start:  # the second of the last pair has nothing after it
        calls.append((np.copyto, (target[-1:], source[-1:])))
