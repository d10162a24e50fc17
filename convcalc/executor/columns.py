"""Convolution as a matrix product over windows laid out as columns, block by block; and without laying out, for 1x1."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import numpy as np

from convcalc.executor.blocks import (
    BLOCK_ELEMENTS,
    COPY,
    Activation,
    Block,
    Problem,
    blocks,
    copy,
    even_slices,
    finish,
    for_threads,
    least_work,
    multiply,
    rows_read,
    shares,
    slab,
    taps_view,
)
from convcalc.executor.kernels import Array, parts_of
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.tracing import ceil_div, product


class Part(NamedTuple):
    """A block, and groups or channels first to last of it."""

    block: Block
    first: int
    last: int


def pointwise(
    problem: Problem,
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: Activation | None,
    out: Array,
    added: Sequence[Array] = (),
) -> None:
    """1x1 with stride 1 and no padding: weight (O, C) times the input as it lies, without a copy.

    Arrays of the output's shape are added to it.
    """
    flat, result, *more = (array.reshape(*array.shape[:2], -1) for array in (x, out, *added))

    def work(part: Part) -> Calls:
        calls: Calls = []
        own = slice(part.first, part.last)
        for image in range(part.block.first, part.block.last):
            place, terms = result[image, own], [array[image, own] for array in more]
            if bias is not None:
                terms.append(bias[own, None])
            multiply(weight[own], flat[image], place, weight.shape[1], calls, terms)
            finish(place, None, activation, calls)
        return calls

    share_calls(work, pointwise_parts(problem))


@for_threads
def pointwise_parts(problem: Problem) -> list[Part]:
    """Images with all places, and of few images the output channels in parts: what comes out lies together.

    NumPy takes three times as long for sums of arrays whose rows lie apart.
    """
    images, channels_out = problem.output[:2]
    count = thread_count() // gcd(thread_count(), images) if problem.macs >= least_work() * thread_count() else 1
    slices = shares(channels_out, problem.macs) if images == 1 else even_slices(channels_out, count)
    return [
        Part(Block(image, image + 1, 0, problem.output[2]), own.start, own.stop)
        for image in range(images)
        for own in slices
    ]


LEAST_PLACES = 64
"""Outputs of a channel for each thread, below which the weights are most of the work, so that threads share those."""


def by_outputs(problem: Problem) -> bool:
    """Whether threads share the output channels, and so the weights, and not the places."""
    places = problem.output[0] * product(problem.output[2:])
    count = thread_count()
    return count > 1 and places < LEAST_PLACES * count and problem.macs >= least_work() * count


def im2col(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Weight (O, C · ∏kernel_size) times blocks of columns, for one group.

    The bias, where there is one, is a last column of the weight, and stands for a tap that sees 1 everywhere.
    """
    images, channels, *sizes = out.shape
    depth = problem.depth
    row = product(sizes[1:])
    result = out.reshape(images, channels, -1)

    def lay(block: Block, part: slice, columns: Array, calls: Calls) -> None:
        """Lay out the columns of some of the input's channels."""
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = slab(x[:, part], problem.pads, block.first, block.last, top, bottom, calls)
        view = np.moveaxis(taps_view(padded, problem, (block.height, *sizes[1:])), 0, 1 + problem.rank)
        own = columns[part.start * problem.taps : part.stop * problem.taps]
        copy(own.reshape(view.shape), view, calls)

    def make(block: Block, own: slice, columns: Array, calls: Calls) -> None:
        """Compute some of the output's channels from the columns."""
        place = result[block.first, own, block.start * row : block.stop * row]
        if block.many == 1 and (place.flags.c_contiguous or (activation is None and parts_of(depth) == 1)):
            multiply(weight[own], columns, place, depth, calls)
            finish(place, None, activation, calls)
            return
        # Images beside each other in the columns: one product, which reads the weights once. And of what lies together
        # sums and activations are made faster than where it goes.
        found = scratch("found", (own.stop - own.start, columns.shape[1]), x.dtype)
        multiply(weight[own], columns, found, depth, calls)
        finish(found, None, activation, calls)
        target = result[block.first : block.last, own, block.start * row : block.stop * row]
        copy(target, found.reshape(len(found), block.many, -1).swapaxes(0, 1), calls)

    def work(block: Block) -> Calls:
        calls: Calls = []
        columns = scratch("columns", (weight.shape[1], block.many * block.height * row), x.dtype)
        lay(block, slice(0, x.shape[1]), columns, calls)
        calls.append((columns[depth:].fill, (1,)))
        make(block, slice(0, channels), columns, calls)
        return calls

    if not by_outputs(problem):
        share_calls(work, im2col_blocks(problem))
        return
    (whole,) = im2col_blocks(problem)
    columns = scratch("columns", (weight.shape[1], images * sizes[0] * row), x.dtype)

    def lay_part(part: slice) -> Calls:
        calls: Calls = [] if part.start else [(columns[depth:].fill, (1,))]
        lay(whole, part, columns, calls)
        return calls

    def make_part(own: slice) -> Calls:
        calls: Calls = []
        make(whole, own, columns, calls)
        return calls

    share_calls(lay_part, shares(x.shape[1], columns.size * COPY))
    share_calls(make_part, shares(channels, problem.macs))


@for_threads
def im2col_blocks(problem: Problem) -> list[Block]:
    """Rows of the output, by the columns for them."""
    images, channels, rows, *sizes = problem.output
    if by_outputs(problem):
        return [Block(0, images, 0, rows)]
    columns = problem.depth * product(sizes)
    return blocks(images, rows, columns, columns * channels, LAID_OUT_ELEMENTS)


LAID_OUT_ELEMENTS = BLOCK_ELEMENTS * 4
"""Numbers of columns of one group: fewer calls are worth more cache misses."""
GROUPED_ELEMENTS = BLOCK_ELEMENTS * 10
"""Numbers of columns of many groups: calls cost more than what does not fit in the cache."""


def grouped(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Weight (groups, O / groups, C / groups · ∏kernel_size) times the columns of each group: one call for many.

    With stride 1 whole padded rows are laid out and the ends of rows computed in vain: long copies are faster. The
    bias is a last column of the weights, as in `im2col`.
    """
    groups, rows_out, depth = weight.shape
    images, _, *sizes = out.shape
    inside = x.shape[1] // groups
    result = out.reshape(images, groups, rows_out, *sizes)
    whole_rows = set(problem.stride) == {1}

    def work(part: Part) -> Calls:
        calls: Calls = []
        block = part.block
        channels = slice(part.first * inside, part.last * inside)
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = slab(x[:, channels], problem.pads, block.first, block.last, top, bottom, calls)
        place = result[block.first : block.last, part.first : part.last, :, block.start : block.stop]
        if whole_rows and padded.flags.c_contiguous:
            view, strides = _whole_rows(problem, padded, place.shape[3:])
        else:
            view, strides = taps_view(padded, problem, place.shape[3:]), None
        length = product(view.shape[2 + problem.rank :])
        columns = scratch("columns", (*place.shape[:2], depth, length), x.dtype)
        laid = columns[:, :, : inside * problem.taps]
        shape = (*place.shape[:2], inside, *view.shape[2:])
        calls.append((np.copyto, (laid.reshape(shape), view.reshape(shape))))
        if inside * problem.taps < depth:
            calls.append((columns[:, :, inside * problem.taps :].fill, (1,)))
        found = scratch("found", (*place.shape[:3], length), x.dtype)
        multiply(weight[part.first : part.last], columns, found, depth, calls)
        if strides is None:
            inner = found.reshape(place.shape)
        else:
            lead = found.strides[:3]
            inner = np.lib.stride_tricks.as_strided(found, place.shape, (*lead, *strides), writeable=False)
        copy(place, inner, calls)
        finish(place, None, activation, calls)
        return calls

    share_calls(work, grouped_parts(problem))


@for_threads
def grouped_parts(problem: Problem) -> list[Part]:
    """As many groups at a time as fit with all rows of the output, one at least."""
    images, channels, rows, *sizes = problem.output
    groups, depth = problem.groups, problem.depth
    row = product(problem.widths if set(problem.stride) == {1} else sizes)
    together = max(1, min(groups, GROUPED_ELEMENTS // max(depth * rows * row, 1)))
    together = ceil_div(groups, ceil_div(groups, together))
    elements = together * depth * row
    parts = ceil_div(groups, together)
    return [
        Part(block, first, min(first + together, groups))
        for block in blocks(images, rows, elements, elements * channels // groups, GROUPED_ELEMENTS, parts)
        for first in range(0, groups, together)
    ]


def _whole_rows(problem: Problem, padded: Array, sizes: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """What the taps see with stride 1, (N, C, *kernel_size, length), and the strides of these outputs in the length.

    Every tap sees the flat padded array, shifted.
    """
    item = padded.itemsize
    steps = padded.strides[2:]
    length = 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) // item
    shifts = (step * dilation for step, dilation in zip(steps, problem.dilation, strict=True))
    view = np.lib.stride_tricks.as_strided(
        padded,
        (*padded.shape[:2], *problem.kernel_size, length),
        (*padded.strides[:2], *shifts, item),
        writeable=False,
    )
    return view, steps
