"""Convolution as one matrix product for each tap of the kernel, on the input as it lies: nothing is laid out.

Source: Vasudevan, Anderson and Gregg, Parallel multi channel convolution using general matrix multiplication, 2017.
"""

from __future__ import annotations

from itertools import product as combinations

import numpy as np

from convcalc.executor.blocks import (
    BLOCK_ELEMENTS,
    Activation,
    Block,
    Problem,
    blocks,
    copy,
    finish,
    for_threads,
    rows_read,
    slab,
)
from convcalc.executor.kernels import Array, aligned, sums_of_products
from convcalc.executor.threads import Calls, scratch, share_calls
from convcalc.tracing import product


def taps_first(weight: Array) -> Array:
    """Weights (O, C, *kernel_size) as (∏kernel_size, O, C)."""
    return np.ascontiguousarray(np.moveaxis(aligned(weight).reshape(*weight.shape[:2], -1), 2, 0))


def kn2row(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Weight (∏kernel_size, O, C) times the flat padded input, tap by tap, shifted, added up: stride 1, one group."""
    _, channels, *sizes = out.shape
    column = None if bias is None else bias[:, None]

    def work(block: Block) -> Calls:
        calls: Calls = []
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = slab(x, problem.pads, block.first, block.last, top, bottom, calls)
        steps = tuple(stride // padded.itemsize for stride in padded.strides[2:])
        height = (block.stop - block.start, *sizes[1:])
        length = 1 + sum((size - 1) * step for size, step in zip(height, steps, strict=True))
        found = scratch("found", (channels, length), x.dtype)
        part, room = (scratch(name, found.shape, x.dtype) for name in ("part", "room"))
        shifts = [
            sum(tap * spread * step for tap, spread, step in zip(taps, problem.dilation, steps, strict=True))
            for taps in combinations(*map(range, problem.kernel_size))
        ]
        for image in range(block.first, block.last):
            flat = padded[image - block.first].reshape(x.shape[1], -1)
            calls.append((sums_of_products, (weight[0], flat[:, :length], found, room)))
            for tap, shift in enumerate(shifts[1:], 1):
                calls.append((sums_of_products, (weight[tap], flat[:, shift : shift + length], part, room)))
                calls.append((np.add, (found, part, found)))
            target = out[image, :, block.start : block.stop]
            strides = (found.strides[0], *(step * found.itemsize for step in steps))
            finish(found, column, activation, calls)
            copy(target, np.lib.stride_tricks.as_strided(found, target.shape, strides, writeable=False), calls)
        return calls

    share_calls(work, kn2row_blocks(problem))


@for_threads
def kn2row_blocks(problem: Problem) -> list[Block]:
    """Rows of the output, by what is read and made for them; every image by itself."""
    images, channels, rows, *_ = problem.output
    row = product(problem.widths)
    read = (problem.input[1] + 2 * channels) * row
    return blocks(images, rows, read, problem.depth * row * channels, BLOCK_ELEMENTS * 4)
