"""Winograd's minimal filtering, for convolution with stride 1: fewer multiplications, a little less exact.

F(m, r) gives m outputs of a filter of r taps from m + r - 1 inputs with as many multiplications. Source: Lavin and
Gray, Fast algorithms for convolutional neural networks, 2015. The transforms of all axes are done as one matrix
product, with the Kronecker product of the matrices for each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache, reduce
from itertools import product as combinations
from math import gcd, lcm
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from convcalc.executor.blas import SMALL_PRODUCT, has_small_products
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
    shares,
    slab,
    view_of,
)
from convcalc.executor.kernels import Array
from convcalc.executor.memory_format import lying
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.layers.base import Pairs
from convcalc.tracing import ceil_div, per_axis, product

LEAST_SPOTS = 64
"""Tiles of a block at least, where there are so many: each block reads all weights, which may be more than a cache."""
POINTS = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
"""Where the polynomials are evaluated, besides infinity: numbers of few bits near 1 lose least."""


class Transform(NamedTuple):
    """The matrices of F(tile, taps): of the input (size, size), the weights (size, taps), the output (tile, size)."""

    input: Array
    weight: Array
    output: Array


@cache
def axis_transform(tile: int, taps: int) -> Transform:
    """F(tile, taps) for one axis, worked out in fractions: Toom-Cook interpolation at `POINTS` and infinity.

    >>> f = axis_transform(2, 3)
    >>> f.output @ ((f.weight @ [1, 10, 100]) * (f.input @ [1, 2, 3, 4]))
    array([321., 432.])
    """
    size = tile + taps - 1
    points = POINTS[: size - 1]

    def evaluation(columns: int) -> list[list[Fraction]]:
        return [[point**power for power in range(columns)] for point in points] + [
            [Fraction(int(power == columns - 1)) for power in range(columns)]
        ]

    # Filtering is the transpose of multiplying polynomials, and interpolation is the inverse of `evaluation`.
    inverse = _inverse(evaluation(size))
    input_matrix = [[inverse[column][row] for column in range(size)] for row in range(size)]
    output_matrix = [list(column) for column in zip(*evaluation(tile), strict=True)]
    weight_matrix = evaluation(taps)
    # Whole numbers in the input's transform are exact; what they are scaled by goes to the weights.
    for row in range(size):
        scale = Fraction(
            lcm(*(value.denominator for value in input_matrix[row])),
            gcd(*(value.numerator for value in input_matrix[row])),
        )
        input_matrix[row] = [value * scale for value in input_matrix[row]]
        weight_matrix[row] = [value / scale for value in weight_matrix[row]]
    return Transform(*(np.array(matrix, dtype=np.float64) for matrix in (input_matrix, weight_matrix, output_matrix)))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """The inverse of a small matrix, exactly, by elimination."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for row in range(size):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[size:] for row in rows]


@cache
def transform(tiles: tuple[int, ...], taps: tuple[int, ...]) -> Transform:
    """F over all axes at once, on flattened tiles."""
    axes = per_axis(axis_transform, tiles, taps)
    return Transform(*(reduce(np.kron, matrices) for matrices in zip(*axes, strict=True)))


def tiles_of(kernel_size: Sequence[int], tile: int) -> tuple[int, ...]:
    """The outputs of a tile along each axis: there is nothing to save where the kernel is 1."""
    return tuple(tile if taps > 1 else 1 for taps in kernel_size)


TRANSFORM_ELEMENTS = 1 << 16
"""Numbers of weights that are transformed at once, in double precision."""


def transformed_weight(weight: Array, groups: int, tiles: tuple[int, ...]) -> Array:
    """Weights (O, C / groups, *taps) as products take them.

    That is (points, groups, 1, parts of O / groups, C / groups, O of a part).
    """
    matrix = transform(tiles, weight.shape[2:]).weight
    rows_out, channels, taps = len(weight) // groups, weight.shape[1], product(weight.shape[2:])
    part = channels_at_once(rows_out)
    split = weight.reshape(groups, rows_out // part, part, channels, taps)
    result = np.empty((len(matrix), groups, 1, rows_out // part, channels, part), weight.dtype)
    step = max(1, TRANSFORM_ELEMENTS // (len(matrix) * part))
    for group, index in np.ndindex(*split.shape[:2]):
        for start in range(0, channels, step):
            some = slice(start, start + step)
            turned = np.array(split[group, index, :, some].transpose(2, 1, 0), np.float64, order="C")
            made = result[:, group, 0, index, some]
            np.matmul(matrix, turned.reshape(taps, -1), out=made.reshape(len(matrix), -1), casting="same_kind")
    return result


def channels_at_once(channels_out: int) -> int:
    """How many output channels to multiply at once: where small products are fast, what makes them small.

    An even number of parts, which two threads can share.
    """
    if not has_small_products():
        return channels_out
    parts = [part for part in (64, 32, 16) if channels_out % part == 0]
    return next((part for part in parts if channels_out // part % 2 == 0), parts[0] if parts else channels_out)


@lru_cache(maxsize=1024)
def spots_at_once(spots: int, work: int) -> int:
    """How many tiles to multiply at once, a tile taking so much work: the most that are a small product.

    All, where those would be few or would not divide them evenly.
    """
    if spots * work <= SMALL_PRODUCT or not has_small_products():
        return spots
    return next((part for part in range(SMALL_PRODUCT // work, LEAST_ROWS - 1, -1) if spots % part == 0), spots)


LEAST_ROWS = 16
"""Rows of a product, below which to call it takes as long as to make it."""


def winograd(
    problem: Problem,
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: Activation | None,
    out: Array,
    *,
    tiles: tuple[int, ...],
) -> None:
    """Tiles of the padded input, transformed, times transformed weights, as `transformed_weight` has them.

    Inside channels come last: tiles are gathered and put together by rows of channels, and products of few tiles have
    as many columns as there are channels, for which libraries' kernels for small products are made. `x` and `out` may
    be any views.
    """
    filtering = _Filtering(problem, x, weight, bias, activation, out, tiles)
    if by_channels(problem, tiles):
        _by_channels(filtering)
    else:
        share_calls(filtering.block, winograd_blocks(problem, tiles))


@for_threads
def by_channels(problem: Problem, tiles: tuple[int, ...]) -> bool:
    """Whether threads share channels: there are so few tiles that the weights are most of the work."""
    spots = problem.output[0] * product(per_axis(ceil_div, problem.output[2:], tiles))
    return problem.groups == 1 and spots < LEAST_SPOTS * thread_count()


@for_threads
def winograd_blocks(problem: Problem, tiles: tuple[int, ...]) -> list[Block]:
    """Rows of tiles, by their numbers at all points."""
    points = product(per_axis(lambda tile, taps: tile + taps - 1, tiles, problem.kernel_size))
    counts = per_axis(ceil_div, problem.output[2:], tiles)
    channels, channels_out = problem.input[1], problem.output[1]
    spot, across = points * max(channels, channels_out), product(counts[1:])
    weights = points * channels * channels_out // problem.groups
    limit = max(BLOCK_ELEMENTS * 2, spot * LEAST_SPOTS)
    return blocks(problem.output[0], counts[0], spot * across, weights * across, limit)


def _by_channels(filtering: _Filtering) -> None:
    """All tiles at once: threads share the channels in, then the channels out, because the weights are most of it."""
    points, _, _, parts, channels, part = filtering.weight.shape
    images = filtering.x.shape[0]
    whole = Block(0, images, 0, filtering.counts[0])
    spots = images * product(filtering.counts)
    spectrum = scratch("all spectra", (points, spots, channels), filtering.x.dtype)

    def into(own: slice) -> Calls:
        calls: Calls = []
        filtering.spectrum(whole, own, spectrum[:, :, own], calls)
        return calls

    def out_of(own: slice) -> Calls:
        calls: Calls = []
        filtering.outputs(whole, own, spectrum, calls)
        return calls

    share_calls(into, shares(channels, points * channels * spots * (points + COPY)))
    if parts == 1:  # of which all channels can be shared
        share_calls(out_of, shares(part, filtering.weight.size * spots))
        return
    hands = thread_count() if filtering.weight.size * spots >= least_work() * thread_count() else 1
    share_calls(out_of, [slice(own.start * part, own.stop * part) for own in even_slices(parts, hands)])


class _Geometry(NamedTuple):
    """What does not depend on the arrays' numbers: transforms in their type, sizes, and the padding for whole tiles.

    `one` is the point at which the outputs' transform is 1 everywhere: what is added there is added to every output.
    """

    to_points: Array
    to_tile: Array
    sides: tuple[int, ...]
    counts: tuple[int, ...]
    pads: Pairs
    one: int


@lru_cache(maxsize=1024)
def _geometry(problem: Problem, tiles: tuple[int, ...], dtype: np.dtype[Any]) -> _Geometry:
    chosen = transform(tiles, problem.kernel_size)
    sides = per_axis(lambda tile, taps: tile + taps - 1, tiles, problem.kernel_size)
    counts = per_axis(ceil_div, problem.output[2:], tiles)
    # Room for the last tiles, which stick out.
    pads = tuple(
        (before, count * tile + side - tile - size - before)
        for (before, _), count, tile, side, size in zip(
            problem.pads, counts, tiles, sides, problem.input[2:], strict=True
        )
    )
    one = int(np.ravel_multi_index([min(1, side - 1) for side in sides], sides))
    return _Geometry(chosen.input.astype(dtype), chosen.output.astype(dtype), sides, counts, pads, one)


class _Filtering:
    """One convolution: its arrays, with the channels last, and the two halves of the work for a block."""

    def __init__(
        self,
        problem: Problem,
        x: Array,
        weight: Array,
        bias: Array | None,
        activation: Activation | None,
        out: Array,
        tiles: tuple[int, ...],
    ) -> None:
        self.x, self.out = x, lying(out)
        self.weight, self.bias, self.activation, self.tiles = weight, bias, activation, tiles
        self.to_points, self.to_tile, self.sides, self.counts, self.pads, self.one = _geometry(problem, tiles, x.dtype)

    def block(self, block: Block) -> Calls:
        """Everything for some rows of tiles."""
        calls: Calls = []
        channels = self.x.shape[1]
        spots = block.many * block.height * product(self.counts[1:])
        spectrum = scratch("spectrum", (len(self.weight), spots, channels), self.x.dtype)
        self.spectrum(block, slice(0, channels), spectrum, calls)
        self.outputs(block, slice(0, self.weight.shape[3] * self.weight.shape[5]), spectrum, calls)
        return calls

    def spectrum(self, block: Block, channels: slice, spectrum: Array, calls: Calls) -> None:
        """The tiles of a block and of some channels at all points: (points, spots, channels)."""
        top, bottom = block.start * self.tiles[0], block.stop * self.tiles[0] + self.sides[0] - self.tiles[0]
        x = self.x[:, channels]
        padded = lying(slab(x, self.pads, block.first, block.last, top, bottom, calls, channels_last=True))
        points, spots, wide = spectrum.shape
        steps = padded.strides[1:-1]
        source = view_of(
            padded,
            (*self.sides, block.many, block.height, *self.counts[1:], wide),
            (*steps, padded.strides[0], *map(mul, steps, self.tiles), padded.strides[-1]),
        )
        gathered = scratch("gathered", (points, spots * wide), self.x.dtype)
        copy(gathered.reshape(source.shape), source, calls)
        if spectrum.flags.c_contiguous:
            columns = columns_at_once(spots * wide, self.to_points.size)
            parts = (points, -1, columns)
        else:  # of some channels what is made lies together tile by tile
            parts = (points, spots, wide)
        turned = (array.reshape(parts).swapaxes(0, 1) for array in (gathered, spectrum))
        calls.append((np.matmul, (self.to_points, *turned)))

    def outputs(self, block: Block, channels: slice, spectrum: Array, calls: Calls) -> None:
        """The outputs of a block, some of each group's channels or parts of them, from (points, spots, C)."""
        parts, part = self.weight.shape[3], self.weight.shape[5]
        if parts > 1:
            weight = self.weight[:, :, :, channels.start // part : channels.stop // part]
        else:
            weight = self.weight[..., channels]
        points, groups, _, count, inside, part = weight.shape
        spots, wide = spectrum.shape[1], groups * count * part
        products = scratch("products", (points, spots, wide), self.x.dtype)
        together = spots_at_once(spots, inside * part)
        calls.append(
            (
                np.matmul,
                (
                    spectrum.reshape(points, -1, together, groups, inside).transpose(0, 3, 1, 2, 4)[:, :, :, None],
                    weight,
                    products.reshape(points, -1, together, groups, count, part).transpose(0, 3, 1, 4, 2, 5),
                ),
            )
        )
        if self.bias is not None:
            bias = self.bias.reshape(groups, -1)[:, channels].reshape(-1)
            calls.append((np.add, (products[self.one], bias, products[self.one])))
        found = scratch("gathered", (len(self.to_tile), spots * wide), self.x.dtype)
        columns = columns_at_once(spots * wide, self.to_tile.size)
        turned = (array.reshape(len(array), -1, columns).swapaxes(0, 1) for array in (products, found))
        calls.append((np.matmul, (self.to_tile, *turned)))
        finish(found, None, self.activation, calls)
        found = found.reshape(*self.tiles, block.many, block.height, *self.counts[1:], wide)
        own = slice(None) if groups > 1 else channels
        target = self.out[block.first : block.last, block.start * self.tiles[0] : block.stop * self.tiles[0], ..., own]
        self._place(found, target, calls)

    def _place(self, found: Array, target: Array, calls: Calls) -> None:
        """Write tiles (*tile, images, *counts, C) to (images, *sizes, C); the last ones stick out and are cut."""
        whole = target
        if target.strides[-1] != target.itemsize:
            # Put together first, and then turned at once. Places lie a little apart: where what is read one after the
            # other is a power of two apart, it fights for the same lines of the cache.
            apart = (*target.shape[:-1], target.shape[-1] + APART)
            whole = scratch("whole", apart, target.dtype)[..., : target.shape[-1]]
        for spots, inner in _regions(self.counts, self.tiles, target.shape[1:-1]):
            outputs = [part.stop for part in inner]
            sizes = [(part.stop - part.start) * many for part, many in zip(spots, outputs, strict=True)]
            first = [part.start * tile for part, tile in zip(spots, self.tiles, strict=True)]
            place = whole[(slice(None), *(slice(at, at + size) for at, size in zip(first, sizes, strict=True)))]
            split = [number for size, many in zip(sizes, outputs, strict=True) for number in (size // many, many)]
            place = place.reshape(len(place), *split, place.shape[-1])
            rank = len(split) // 2
            order = (*range(2, 2 * rank + 1, 2), 0, *range(1, 2 * rank + 1, 2), 2 * rank + 1)
            copy(place.transpose(order), found[(*inner, slice(None), *spots)], calls)
        if whole is not target:
            calls.append((np.copyto, (target, whole)))


APART = 8
"""Numbers between the channels of one place and those of the next where they are to be turned."""
LEAST_COLUMNS = 64
"""Columns of a product, below which to call it takes as long as to make it."""


@lru_cache(maxsize=1024)
def columns_at_once(columns: int, work: int) -> int:
    """Of a small matrix and many columns: the most that are a small product and divide them evenly."""
    if columns * work <= SMALL_PRODUCT or not has_small_products():
        return columns
    fitting = range(SMALL_PRODUCT // work, LEAST_COLUMNS - 1, -1)
    return next((part for part in fitting if columns % part == 0), columns)


@lru_cache(maxsize=1024)
def _regions(
    counts: tuple[int, ...], tiles: tuple[int, ...], sizes: tuple[int, ...]
) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """The tiles that are whole along each axis, and what there is of the last ones that are cut: tiles, and outputs."""
    axes = []
    for count, tile, size in zip(counts, tiles, sizes, strict=True):
        whole, cut = divmod(min(count * tile, size), tile)
        ends = [(slice(0, whole), slice(0, tile)), (slice(whole, whole + 1), slice(0, cut))]
        axes.append([(spots, inner) for spots, inner in ends if spots.stop > spots.start and inner.stop])
    return [tuple(zip(*parts, strict=True)) for parts in combinations(*axes)]
