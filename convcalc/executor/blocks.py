"""What the fast convolutions share: the problem in numbers, its division into blocks, and padding block by block.

A block is as much work as stays in a core's cache; blocks are what threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as combinations
from typing import NamedTuple

import numpy as np

from convcalc import formulas as F
from convcalc.executor.kernels import Array
from convcalc.executor.threads import scratch, thread_count
from convcalc.layers.base import Pairs, Shape
from convcalc.tracing import ceil_div, per_axis, product

BLOCK_ELEMENTS = 1 << 17
"""Numbers that a block works on: half a megabyte of float32, half of the second level of many a core's cache."""
LEAST_WORK = 1 << 22
"""Multiply-adds below which a block is not worth a thread's while."""

Activation = Callable[[Array], None]
"""Changes an array where it stands."""


class Problem(NamedTuple):
    """A convolution in numbers: `pads` are zeros (before, after) for each axis, `output` the shape (N, O, *sizes)."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pairs
    groups: int
    input: Shape
    output: Shape

    @property
    def rank(self) -> int:
        return len(self.kernel_size)

    @property
    def taps(self) -> int:
        """The elements of the kernel, for one channel."""
        return int(product(self.kernel_size))

    @property
    def depth(self) -> int:
        """The terms of each output element."""
        return self.input[1] // self.groups * self.taps

    @property
    def widths(self) -> tuple[int, ...]:
        """The padded sizes of all axes but the first."""
        return tuple(size + sum(pair) for size, pair in zip(self.input[3:], self.pads[1:], strict=True))

    @property
    def macs(self) -> int:
        """Multiply-adds, done directly."""
        return int(product(self.output)) * self.depth


class Block(NamedTuple):
    """Images first to last, and rows (of the first spatial axis of the output) start to stop."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def many(self) -> int:
        return self.last - self.first

    @property
    def height(self) -> int:
        return self.stop - self.start


def blocks(
    images: int, rows: int, row_elements: int, row_work: float, limit: int = BLOCK_ELEMENTS, parts: int = 1
) -> list[Block]:
    """Blocks of at most `limit` elements: parts of an image, or several whole images when they are small.

    There is a block for every thread, unless blocks would fall below `LEAST_WORK`. `parts` says how many more blocks
    the caller makes of each.
    """
    fair = ceil_div(images * rows * parts, thread_count())
    least = max(1, int(LEAST_WORK / max(row_work, 1)))
    height = max(1, min(limit // max(row_elements, 1), max(fair, least)))
    if height >= rows:
        together = ceil_div(images, ceil_div(images, height // rows))  # blocks of about one size
        return [Block(first, min(first + together, images), 0, rows) for first in range(0, images, together)]
    height = ceil_div(rows, ceil_div(rows, height))
    return [
        Block(image, image + 1, start, min(start + height, rows))
        for image, start in combinations(range(images), range(0, rows, height))
    ]


def slab(x: Array, pads: Pairs, first: int, last: int, top: int, bottom: int) -> Array:
    """Images first to last and rows top to bottom of `x` padded with zeros, rows counted in what is padded.

    A view where nothing is padded, else a copy that stands until this thread asks for the next. Rows beyond the
    padding are zeros too.
    """
    if not any(before or after for before, after in pads) and bottom <= x.shape[2]:
        return x[first:last, :, top:bottom]
    front, height = pads[0][0], x.shape[2]
    low, high = min(max(top - front, 0), height), max(min(bottom - front, height), 0)
    high = max(low, high)
    inner = [(max(low + front - top, 0), high - low)] + [
        (before, size) for (before, _), size in zip(pads[1:], x.shape[3:], strict=True)
    ]
    sizes = [bottom - top] + [
        before + size + after for size, (before, after) in zip(x.shape[3:], pads[1:], strict=True)
    ]
    target = scratch("slab", (last - first, x.shape[1], *sizes), x.dtype)
    for axis, (start, size) in enumerate(inner):
        lead = (slice(None), slice(None), *(slice(start, start + size) for start, size in inner[:axis]))
        target[(*lead, slice(None, start))] = 0
        target[(*lead, slice(start + size, None))] = 0
    core = (slice(None), slice(None), *(slice(start, start + size) for start, size in inner))
    target[core] = x[first:last, :, low:high]
    return target


def rows_read(problem: Problem, start: int, stop: int) -> tuple[int, int]:
    """The rows of the padded input that output rows start to stop read."""
    extent = F.kernel_extent(problem.kernel_size[0], problem.dilation[0])
    return start * problem.stride[0], (stop - 1) * problem.stride[0] + extent


def taps_view(padded: Array, problem: Problem, sizes: Sequence[int]) -> Array:
    """(N, C, *kernel_size, *sizes): what each tap of the kernel sees, for so many outputs, as a view."""
    steps = padded.strides[2:]
    return np.lib.stride_tricks.as_strided(
        padded,
        (*padded.shape[:2], *problem.kernel_size, *sizes),
        (
            *padded.strides[:2],
            *per_axis(lambda step, dilation: step * dilation, steps, problem.dilation),
            *per_axis(lambda step, stride: step * stride, steps, problem.stride),
        ),
        writeable=False,
    )


def finish(part: Array, bias: Array | None, activation: Activation | None) -> None:
    """Add the bias, shaped to fit, and apply the activation, while the block is in the cache."""
    if bias is not None:
        part += bias
    if activation is not None:
        activation(part)
