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
    finish,
    for_threads,
    shares,
    slab,
    view_of,
)
from convcalc.executor.kernels import Array
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
    """Weights (O, C / groups, *taps) as the product takes them: (points, groups, O / groups, C / groups)."""
    matrix = transform(tiles, weight.shape[2:]).weight
    flat = weight.reshape(-1, product(weight.shape[2:]))
    result = np.empty((len(matrix), len(flat)), weight.dtype)
    step = max(1, TRANSFORM_ELEMENTS // len(matrix))
    for start in range(0, len(flat), step):
        part = flat[start : start + step].astype(np.float64)
        np.matmul(matrix, part.T, out=result[:, start : start + step], casting="same_kind")
    return result.reshape(len(matrix), groups, -1, weight.shape[1])


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
    """Tiles of the padded input, transformed, times transformed weights (points, groups, O / groups, C / groups).

    `out` may be any view.
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
    points, _, channels_out, channels = filtering.weight.shape
    images = filtering.x.shape[0]
    whole = Block(0, images, 0, filtering.counts[0])
    spots = images * product(filtering.counts)
    spectrum = scratch("all spectra", (points, channels * spots), filtering.x.dtype)

    def into(part: slice) -> Calls:
        calls: Calls = []
        filtering.spectrum(whole, part, spectrum[:, part.start * spots : part.stop * spots], calls)
        return calls

    def out_of(part: slice) -> Calls:
        calls: Calls = []
        filtering.outputs(whole, part, spectrum.reshape(points, 1, channels, spots), calls)
        return calls

    share_calls(into, shares(channels, points * channels * spots * (points + COPY)))
    share_calls(out_of, shares(channels_out, filtering.weight.size * spots))


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
    """One convolution: its arrays, and the two halves of the work for a block."""

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
        self.x, self.weight, self.activation, self.out, self.tiles = x, weight, activation, out, tiles
        self.to_points, self.to_tile, self.sides, self.counts, self.pads, self.one = _geometry(problem, tiles, x.dtype)
        self.bias = None if bias is None else bias.reshape(*weight.shape[1:3], 1)

    def block(self, block: Block) -> Calls:
        """Everything for some rows of tiles."""
        calls: Calls = []
        points, groups, rows_out, inside = self.weight.shape
        spots = block.many * block.height * product(self.counts[1:])
        spectrum = scratch("spectrum", (points, groups * inside * spots), self.x.dtype)
        self.spectrum(block, slice(0, groups * inside), spectrum, calls)
        self.outputs(block, slice(0, rows_out), spectrum.reshape(points, groups, inside, spots), calls)
        return calls

    def spectrum(self, block: Block, channels: slice, spectrum: Array, calls: Calls) -> None:
        """The tiles of a block and of some channels at all points: (points, channels · spots)."""
        tiles, sides = self.tiles, self.sides
        top, bottom = block.start * tiles[0], block.stop * tiles[0] + sides[0] - tiles[0]
        padded = slab(self.x[:, channels], self.pads, block.first, block.last, top, bottom, calls)
        steps = padded.strides[2:]
        source = view_of(
            padded,
            (*sides, channels.stop - channels.start, block.many, block.height, *self.counts[1:]),
            (*steps, padded.strides[1], padded.strides[0], *(s * t for s, t in zip(steps, tiles, strict=True))),
        )
        gathered = scratch("gathered", spectrum.shape, self.x.dtype)
        calls.append((np.copyto, (gathered.reshape(source.shape), source)))
        parts = (len(gathered), -1, columns_at_once(gathered.shape[1], self.to_points.size))
        calls.append(
            (np.matmul, (self.to_points, *(array.reshape(parts).swapaxes(0, 1) for array in (gathered, spectrum))))
        )

    def outputs(self, block: Block, rows: slice, spectrum: Array, calls: Calls) -> None:
        """The outputs of a block, some rows of each group, from (points, groups, C / groups, spots)."""
        points, groups, _, spots = spectrum.shape
        count = rows.stop - rows.start
        products = scratch("products", (points, groups, count, spots), self.x.dtype)
        together = rows_at_once(count, self.weight.shape[3] * spots)
        parts = (points, groups, count // together, together)
        weight = self.weight[:, :, rows].reshape(*parts, -1)
        calls.append((np.matmul, (weight, spectrum[:, :, None], products.reshape(*parts, spots))))
        if self.bias is not None:
            finish(products[self.one], self.bias[:, rows], None, calls)
        # Turned, so that the outputs of a tile's row lie beside each other.
        found = scratch("gathered", (groups * count * spots, len(self.to_tile)), self.x.dtype)
        columns = columns_at_once(len(found), self.to_tile.size)
        turned = products.reshape(points, -1, columns).transpose(1, 2, 0)
        calls.append((np.matmul, (turned, self.to_tile.T, found.reshape(-1, columns, found.shape[1]))))
        finish(found, None, self.activation, calls)
        found = found.reshape(groups * count, block.many, block.height, *self.counts[1:], *self.tiles)
        channels = slice(None) if groups > 1 else rows
        _place(found, self.out[block.first : block.last, channels, block.start * self.tiles[0] :], self.tiles, calls)


@lru_cache(maxsize=1024)
def rows_at_once(rows: int, work: int) -> int:
    """How many rows of the weights to multiply at once, a row taking so much work: all, or what is a small product.

    What the library lays out before a large product takes longer than a product of few columns.
    """
    if rows * work <= SMALL_PRODUCT or not has_small_products():
        return rows
    return next((part for part in (64, 32) if rows % part == 0 and part * work <= SMALL_PRODUCT), rows)


LEAST_COLUMNS = 64
"""Columns of a product, below which to call it takes as long as to make it."""


@lru_cache(maxsize=1024)
def columns_at_once(columns: int, work: int) -> int:
    """The same for a small matrix and many columns: the most that are a small product and divide them evenly."""
    if columns * work <= SMALL_PRODUCT or not has_small_products():
        return columns
    fitting = range(SMALL_PRODUCT // work, LEAST_COLUMNS - 1, -1)
    return next((part for part in fitting if columns % part == 0), columns)


def _place(found: Array, target: Array, tiles: tuple[int, ...], calls: Calls) -> None:
    """Write tiles (O, images, *counts, *tiles) to (images, O, *sizes); the last ones stick out and are cut."""
    rank = len(tiles)
    apart = target.strides[-1] != target.itemsize
    found = found.swapaxes(0, 1)
    for region in _regions(found.shape[2 : 2 + rank], tiles, target.shape[2:]):
        place, source = target[region.place], found[region.source]
        split = region.split
        if region.whole and not apart:
            # The outputs of a row of a tile as one number: they lie beside each other on both sides.
            together = np.dtype((np.void, tiles[-1] * target.itemsize))
            place, source, split = place.view(together), source.view(together), (*split[:-1], 1)
        place = place.reshape(place.shape[:2] + split)
        calls.append((np.copyto, (place.transpose(region.order), source)))


class _Region(NamedTuple):
    """Outputs that are copied at once: where in what is made and in the output, whose axes are split into tiles.

    `whole`: rows of tiles are not cut.
    """

    source: tuple[slice, ...]
    place: tuple[slice, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    whole: bool


@lru_cache(maxsize=1024)
def _regions(counts: tuple[int, ...], tiles: tuple[int, ...], sizes: tuple[int, ...]) -> list[_Region]:
    """The tiles that are whole along each axis, and what there is of the last ones that are cut."""
    rank, every = len(tiles), (slice(None), slice(None))
    axes = []
    for count, tile, size in zip(counts, tiles, sizes, strict=True):
        whole, cut = divmod(min(count * tile, size), tile)
        axes.append([part for part in ((0, whole, tile), (whole, 1, cut)) if part[1] and part[2]])
    regions = []
    for parts in combinations(*axes):
        spots = tuple(slice(first, first + many) for first, many, _ in parts)
        inner = tuple(slice(0, outputs) for *_, outputs in parts)
        place = tuple(
            slice(first * tile, first * tile + many * outputs)
            for (first, many, outputs), tile in zip(parts, tiles, strict=True)
        )
        split = tuple(number for _, many, outputs in parts for number in (many, outputs))
        order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2))
        whole = parts[-1][2] == tiles[-1] > 1
        regions.append(_Region(every + spots + inner, every + place, split, order, whole))
    return regions
