"""Reducing windows by an operation that can be done axis by axis, tap by tap: maxima and sums of shifted arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from sys import byteorder

import numpy as np

from convcalc.executor.blocks import BLOCK_ELEMENTS, COPY, Block, blocks, copy, span
from convcalc.executor.kernels import Array
from convcalc.executor.memory_format import is_channels_last, lying
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
    if is_channels_last(x) and is_channels_last(out) and set(dilation) == {1} and x.ndim == 4:
        _with_channels_last(operation, lying(x), before, kernel_size, stride, lying(out), fill)
        return
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


def _with_channels_last(
    operation: np.ufunc,
    x: Array,
    before: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    out: Array,
    fill: float,
) -> None:
    """The same of (N, H, W, C): along the columns at every place, for long rows, of which every so many-th is taken."""
    images, rows, count, channels = out.shape
    wide = max(before[1] + x.shape[2], (count - 1) * stride[1] + kernel_size[1])
    inside = slice(before[1], before[1] + x.shape[2])

    def work(block: Block) -> Calls:
        calls: Calls = []
        padded = scratch("axis 0", (block.many, block.height, wide, channels), x.dtype)
        edges = padded[:, :, : inside.start], padded[:, :, inside.stop :]
        calls += [(edge.fill, (fill,)) for edge in edges if edge.size]
        front = before[0] - block.start * stride[0]
        read, reduced = x[block.first : block.last].swapaxes(0, 1), padded[:, :, inside].swapaxes(0, 1)
        _reduce_axis(operation, read, reduced, front, kernel_size[0], stride[0], 1, block.height, fill, calls)
        flat = padded.reshape(-1)
        length = flat.size - (kernel_size[1] - 1) * channels
        best = flat
        if kernel_size[1] > 1:
            best = scratch("axis 1", padded.shape, x.dtype).reshape(-1)
            found = best[:length]
            for tap in range(1, kernel_size[1]):
                shifted = flat[tap * channels : tap * channels + length]
                calls.append((partial(operation, out=found), (found if tap > 1 else flat[:length], shifted)))
        taken = best.reshape(padded.shape)[:, :, : (count - 1) * stride[1] + 1 : stride[1]]
        copy(out[block.first : block.last, block.start : block.stop], taken, calls)
        return calls

    share_calls(work, blocks(images, rows, wide * channels, wide * channels * COPY))


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
