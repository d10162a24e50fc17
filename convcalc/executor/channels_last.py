"""Convolution of images whose channels lie together, as (N, *sizes, C) in memory: `format_choice` says which do.

To lay out windows is to copy rows of channels then, sums and activations are made of whole blocks, and products of few
places have as many columns as there are channels. Arrays are seen as (N, C, *sizes) everywhere, whatever their order in
memory. The numbers are those of `columns` and `rows`, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    view_of,
)
from convcalc.executor.channel_products import (
    Places,
    Weight,
    add_row,
    laid_by_parts,
    multiply_places,
    parts_at_once,
    share_products,
)
from convcalc.executor.columns import by_outputs
from convcalc.executor.kernels import Array, Weights, aligned, parts_of
from convcalc.executor.memory_format import is_channels_last, lying, seen
from convcalc.executor.rows import lay_rows
from convcalc.executor.threads import Calls, scratch, share_calls
from convcalc.tracing import ceil_div, per_axis, product

VARIANTS: Mapping[str, str] = {
    **{name: name for name in ("pointwise", "im2col", "rows", "winograd2", "winograd4")},
    "kn2row": "im2col",
}
"""What computes with the channels last instead of an algorithm of `algorithms.ALGORITHMS`."""


def places_of(problem: Problem) -> int:
    """The places of all images."""
    return int(problem.output[0] * product(problem.output[2:]))


def matrix(problem: Problem, weights: Weights) -> tuple[str, Callable[[], Weight]]:
    """What `pointwise` and `im2col` take of the weights, by a name and what makes it."""
    parts = parts_at_once(places_of(problem), problem.depth, problem.output[1])

    def make() -> Weight:
        weight = aligned(weights["weight"])
        taps = weight.reshape(*weight.shape[:2], -1)
        if problem.taps > 1:  # in the order of windows whose channels lie together
            taps = np.ascontiguousarray(taps.swapaxes(1, 2))
        return laid_by_parts(taps.reshape(len(weight), -1), parts)

    return f"channels last in {parts}", make


def pointwise(
    problem: Problem,
    x: Array,
    weight: Weight,
    bias: Array | None,
    activation: Activation | None,
    out: Array,
    added: Sequence[Array] = (),
) -> None:
    """1x1 with stride 1: the places times the weight, of all images at once where they lie so."""
    arrays = (x, out, *added)
    if all(map(is_channels_last, arrays)):
        images = [tuple(lying(array).reshape(-1, array.shape[1]) for array in arrays)]
    else:
        images = list(zip(*(map(_by_places, array) for array in arrays), strict=True))
    everything = [Places(values, result, more) for values, result, *more in images]
    share_products(everything, weight, bias, activation, problem.macs)


def _by_places(image: Array) -> Array:
    """An image (C, *sizes) as (places, C)."""
    if image.flags.c_contiguous:
        return image.reshape(len(image), -1).T
    return np.moveaxis(image, 0, -1).reshape(-1, len(image))


def im2col(
    problem: Problem,
    x: Array,
    weight: Weight,
    bias: Array | None,
    activation: Activation | None,
    out: Array,
    added: Sequence[Array] = (),
) -> None:
    """Windows as rows (places, ∏kernel_size · C) times the weight, whose terms are in the same order."""
    images, _, *sizes = problem.output
    across, depth = product(sizes[1:]), problem.depth
    arrays = (out, *added)
    turn = turned_at_once(problem) and not all(map(is_channels_last, arrays))

    def lay(block: Block, windows: Array) -> Calls:
        calls: Calls = []
        top, bottom = rows_read(problem, block.start, block.stop)
        padded = lying(slab(x, problem.pads, block.first, block.last, top, bottom, calls, channels_last=True))
        steps = padded.strides[1:-1]
        shape = (block.many, block.height, *sizes[1:], *problem.kernel_size, x.shape[1])
        strides = (
            padded.strides[0],
            *per_axis(lambda step, stride: step * stride, steps, problem.stride),
            *per_axis(lambda step, dilation: step * dilation, steps, problem.dilation),
            padded.strides[-1],
        )
        copy(windows.reshape(shape), view_of(padded, shape, strides), calls)
        return calls

    def places(block: Block, windows: Array) -> list[Places]:
        if block.height == sizes[0] and all(map(is_channels_last, arrays)):
            result, *more = (lying(array)[block.first : block.last].reshape(len(windows), -1) for array in arrays)
            return [Places(windows, result, more)]
        rows, found = slice(block.start * across, block.stop * across), []
        for image, part in zip(range(block.first, block.last), np.split(windows, block.many), strict=True):
            result, *more = (_by_places(array[image])[rows] for array in arrays)
            found.append(Places(part, result, more))
        return found

    def work(block: Block) -> Calls:
        windows = scratch("columns", (block.many * block.height * across, depth), x.dtype)
        calls = lay(block, windows)
        if turn:
            whole = scratch("whole", (len(windows), problem.output[1]), x.dtype)
            multiply_places(Places(windows, whole), weight.array, bias, None if added else activation, calls)
            target, *more = (array[block.first : block.last] for array in arrays)
            calls.append((np.copyto, (target, seen(whole, target.shape))))
            calls += [(np.add, (target, array, target)) for array in more]
            finish(target, None, activation if added else None, calls)
            return calls
        for image in places(block, windows):
            multiply_places(image, weight.array, bias, activation, calls)
        return calls

    if not by_outputs(problem):
        share_calls(work, im2col_blocks(problem))
        return
    whole = Block(0, images, 0, sizes[0])
    windows = scratch("columns", (images * sizes[0] * across, depth), x.dtype)
    split = windows.reshape(images, sizes[0], across, depth)
    cut = blocks(images, sizes[0], depth * across, depth * across * problem.output[1])
    share_calls(lambda block: lay(block, split[block.first : block.last, block.start : block.stop]), cut)
    share_products(places(whole, windows), weight, bias, activation, problem.macs)


FEW_PLACES_OF_AN_IMAGE = 64
"""Places, below which a product for each image takes longer than one for several, which is turned then."""


def turned_at_once(problem: Problem) -> bool:
    """Whether the places of several images are multiplied at once, even where the output lies as it is seen."""
    few = places_of(problem) < FEW_PLACES_OF_AN_IMAGE * problem.output[0]
    return few and not by_outputs(problem) and any(block.many > 1 for block in im2col_blocks(problem))


LAID_OUT_ELEMENTS = BLOCK_ELEMENTS * 4
"""Numbers of windows: fewer calls are worth more cache misses."""


@for_threads
def im2col_blocks(problem: Problem) -> list[Block]:
    """Rows of the output, by the windows for them."""
    images, channels_out, rows, *sizes = problem.output
    if by_outputs(problem):
        return [Block(0, images, 0, rows)]
    windows = problem.depth * product(sizes)
    return blocks(images, rows, windows, windows * channels_out, LAID_OUT_ELEMENTS)


def rows(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """As `rows.rows`, of one group: what it lays out, turned, times the weight (O, ∏kernel_size · C)."""
    images, channels_out, *sizes = problem.output
    taps, across, step = problem.kernel_size[0], product(sizes[1:]), problem.stride[0]
    depth, length = problem.depth // taps, ceil_div(problem.depth, parts_of(problem.depth))
    result = lying(out).reshape(images, sizes[0], across, channels_out)

    def work(block: Block) -> Calls:
        calls: Calls = []
        read = (block.height - 1) * step + taps
        laid = scratch("rows", (block.many, 1, read, depth, across), x.dtype)
        lay_rows(problem, x[block.first : block.last, None], block.start * step, laid, calls)
        shape = (block.many, block.height, taps * depth, across)
        strides = (laid.strides[0], step * laid.strides[2], *laid.strides[3:])
        turned = view_of(laid, shape, strides).swapaxes(2, 3)
        place = result[block.first : block.last, block.start : block.stop]
        room = scratch("part", place.shape, x.dtype)
        for start in range(0, problem.depth, length):
            part = slice(start, start + length)
            calls.append((np.matmul, (turned[..., part], weight[:, part].T, room if start else place)))
            if start:
                calls.append((np.add, (place, room, place)))
        for image in place:
            if bias is not None:
                add_row(image.reshape(-1, channels_out), bias, calls)
            finish(image, None, activation, calls)
        return calls

    share_calls(work, rows_blocks(problem))


@for_threads
def rows_blocks(problem: Problem) -> list[Block]:
    """Rows of the output, by what is laid out and made for them."""
    images, channels_out, rows_out, *sizes = problem.output
    across = product(sizes)
    laid = problem.depth // problem.kernel_size[0] * problem.stride[0] * across
    made = channels_out * across
    return blocks(images, rows_out, laid + made, problem.depth * made, BLOCK_ELEMENTS * 16)
