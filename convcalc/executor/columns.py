"""Convolution as a matrix product over windows laid out as columns, block by block; and without laying out, for 1x1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convcalc.executor.blocks import (
    BLOCK_ELEMENTS,
    Activation,
    Block,
    Problem,
    blocks,
    copy,
    finish,
    multiply,
    rows_read,
    slab,
    taps_view,
)
from convcalc.executor.kernels import Array
from convcalc.executor.threads import Calls, scratch, share_calls
from convcalc.tracing import ceil_div, product


def pointwise(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """1x1 with stride 1 and no padding: weight (O, C) times the input as it lies, without a copy."""
    flat = x.reshape(*x.shape[:2], -1)
    result = out.reshape(*out.shape[:2], -1)
    column = None if bias is None else bias[:, None]

    def work(block: Block) -> Calls:
        calls: Calls = []
        for image in range(block.first, block.last):
            part = result[image, :, block.start : block.stop]
            multiply(weight, flat[image, :, block.start : block.stop], part, weight.shape[1], calls)
            finish(part, column, activation, calls)
        return calls

    share_calls(work, pointwise_blocks(problem))


def pointwise_blocks(problem: Problem) -> list[Block]:
    """Places of the images, as they lie."""
    channels, channels_out = problem.input[1], problem.output[1]
    places = product(problem.output[2:])
    return blocks(problem.output[0], places, channels + channels_out, channels * channels_out, LAID_OUT_ELEMENTS)


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

    def work(block: Block) -> Calls:
        calls: Calls = []
        many = block.many
        columns = scratch("columns", (weight.shape[1], many * block.height * row), x.dtype)
        padded = slab(x, problem.pads, block.first, block.last, *rows_read(problem, block.start, block.stop), calls)
        view = np.moveaxis(taps_view(padded, problem, (block.height, *sizes[1:])), 0, 1 + problem.rank)
        copy(columns[:depth].reshape(view.shape), view, calls)
        calls.append((columns[depth:].fill, (1,)))
        if many == 1:
            part = result[block.first, :, block.start * row : block.stop * row]
            multiply(weight, columns, part, depth, calls)
            finish(part, None, activation, calls)
            return calls
        # Images beside each other in the columns: one product, which reads the weights once.
        found = scratch("found", (channels, columns.shape[1]), x.dtype)
        multiply(weight, columns, found, depth, calls)
        finish(found, None, activation, calls)
        copy(result[block.first : block.last], found.reshape(channels, many, -1).swapaxes(0, 1), calls)
        return calls

    share_calls(work, im2col_blocks(problem))


def im2col_blocks(problem: Problem) -> list[Block]:
    """Rows of the output, by the columns for them."""
    images, channels, rows, *sizes = problem.output
    columns = problem.depth * product(sizes)
    return blocks(images, rows, columns, columns * channels, LAID_OUT_ELEMENTS)


LAID_OUT_ELEMENTS = BLOCK_ELEMENTS * 4
"""Numbers of columns of one group: fewer calls are worth more cache misses."""
GROUPED_ELEMENTS = BLOCK_ELEMENTS * 10
"""Numbers of columns of many groups: calls cost more than what does not fit in the cache."""


class Part(NamedTuple):
    """A block, and groups first to last of it."""

    block: Block
    first: int
    last: int


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
