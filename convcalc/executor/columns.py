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
    finish,
    rows_read,
    slab,
    taps_view,
)
from convcalc.executor.kernels import Array
from convcalc.executor.threads import scratch, share
from convcalc.tracing import ceil_div, product


def pointwise(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """1x1 with stride 1 and no padding: weight (O, C) times the input as it lies, without a copy."""
    flat = x.reshape(*x.shape[:2], -1)
    result = out.reshape(*out.shape[:2], -1)
    column = None if bias is None else bias[:, None]

    def work(block: Block) -> None:
        for image in range(block.first, block.last):
            part = result[image, :, block.start : block.stop]
            np.matmul(weight, flat[image, :, block.start : block.stop], out=part)
            finish(part, column, activation)

    share(work, blocks(x.shape[0], flat.shape[2], sum(weight.shape), weight.size, BLOCK_ELEMENTS * 4))


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

    def work(block: Block) -> None:
        many = block.many
        columns = scratch("columns", (weight.shape[1], many * block.height * row), x.dtype)
        padded = slab(x, problem.pads, block.first, block.last, *rows_read(problem, block.start, block.stop))
        view = np.moveaxis(taps_view(padded, problem, (block.height, *sizes[1:])), 0, 1 + problem.rank)
        np.copyto(columns[:depth].reshape(view.shape), view)
        columns[depth:] = 1
        if many == 1:
            part = result[block.first, :, block.start * row : block.stop * row]
            np.matmul(weight, columns, out=part)
            finish(part, None, activation)
            return
        # Images beside each other in the columns: one product, which reads the weights once.
        found = scratch("found", (channels, columns.shape[1]), x.dtype)
        np.matmul(weight, columns, out=found)
        finish(found, None, activation)
        np.copyto(result[block.first : block.last], found.reshape(channels, many, -1).swapaxes(0, 1))

    share(work, blocks(images, sizes[0], depth * row, depth * row * channels, BLOCK_ELEMENTS * 2))


class _Part(NamedTuple):
    """A block, and groups first to last of it."""

    block: Block
    first: int
    last: int


def grouped(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Weight (groups, O / groups, C / groups · ∏kernel_size) times the columns of each group: one call for many.

    With stride 1 whole padded rows are laid out and the ends of rows computed in vain: long copies are faster.
    """
    groups, rows_out, depth = weight.shape
    images, _, *sizes = out.shape
    inside = depth // problem.taps
    result = out.reshape(images, groups, rows_out, *sizes)
    column = None if bias is None else bias.reshape(groups, rows_out, *(1,) * problem.rank)
    whole_rows = set(problem.stride) == {1}
    row = product(
        [
            size + sum(pair) if whole_rows else count
            for size, pair, count in zip(x.shape[3:], problem.pads[1:], sizes[1:], strict=True)
        ]
    )
    # As many groups at a time as fit with all rows, one at least.
    together = max(1, min(groups, BLOCK_ELEMENTS * 4 // max(depth * sizes[0] * row, 1)))
    together = ceil_div(groups, max(ceil_div(groups, together), 1))

    def work(part: _Part) -> None:
        block, many = part.block, part.last - part.first
        channels = slice(part.first * inside, part.last * inside)
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = slab(x[:, channels], problem.pads, block.first, block.last, top, bottom)
        place = result[block.first : block.last, part.first : part.last, :, block.start : block.stop]
        weights = weight[part.first : part.last]
        if whole_rows and padded.flags.c_contiguous:
            found = _whole_rows(problem, padded, weights, block)
        else:
            view = taps_view(padded, problem, place.shape[3:])
            columns = scratch("columns", (block.many, many, depth, product(place.shape[3:])), x.dtype)
            np.copyto(columns.reshape(view.shape), view)
            found = np.matmul(weights, columns, out=scratch("found", (*place.shape[:3], columns.shape[3]), x.dtype))
            found = found.reshape(place.shape)
        if column is None:
            np.copyto(place, found)
        else:
            np.add(found, column[part.first : part.last], out=place)
        finish(place, None, activation)

    tasks = [
        _Part(block, first, min(first + together, groups))
        for block in blocks(
            images,
            sizes[0],
            together * depth * row,
            together * depth * row * rows_out,
            BLOCK_ELEMENTS * 4,
            ceil_div(groups, together),
        )
        for first in range(0, groups, together)
    ]
    share(work, tasks)


def _whole_rows(problem: Problem, padded: Array, weight: Array, block: Block) -> Array:
    """The outputs of a block with stride 1, (N, groups, O / groups, *sizes), as a view of rows as wide as the padding.

    Every tap sees the flat padded array, shifted.
    """
    images, channels, *padded_sizes = padded.shape
    groups, rows_out, depth = weight.shape
    steps = [product(padded_sizes[axis + 1 :]) for axis in range(problem.rank)]
    sizes = (block.height, *problem.output[3:])
    length = 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    item = padded.itemsize
    view = np.lib.stride_tricks.as_strided(
        padded,
        (images, channels, *problem.kernel_size, length),
        (
            *padded.strides[:2],
            *(step * dilation * item for step, dilation in zip(steps, problem.dilation, strict=True)),
            item,
        ),
        writeable=False,
    )
    columns = scratch("columns", (images, groups, depth, length), padded.dtype)
    np.copyto(columns.reshape(view.shape), view)
    found = np.matmul(weight, columns, out=scratch("found", (images, groups, rows_out, length), padded.dtype))
    return np.lib.stride_tricks.as_strided(
        found, (*found.shape[:3], *sizes), (*found.strides[:3], *(step * item for step in steps)), writeable=False
    )
