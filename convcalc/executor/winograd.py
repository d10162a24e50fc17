"""Winograd's minimal filtering, for convolution with stride 1: fewer multiplications, a little less exact.

F(m, r) gives m outputs of a filter of r taps from m + r - 1 inputs with as many multiplications. Source: Lavin and
Gray, Fast algorithms for convolutional neural networks, 2015. The transforms of all axes are done as one matrix
product, with the Kronecker product of the matrices for each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, reduce
from math import gcd, lcm
from typing import NamedTuple

import numpy as np

from convcalc.executor.blocks import (
    BLOCK_ELEMENTS,
    Activation,
    Block,
    Problem,
    blocks,
    finish,
    slab,
)
from convcalc.executor.kernels import Array
from convcalc.executor.threads import scratch, share
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
    chosen = transform(tiles, problem.kernel_size)
    to_points, to_tile = chosen.input.astype(x.dtype), chosen.output.astype(x.dtype)
    points, groups, rows_out, inside = weight.shape
    channels_out, *sizes = out.shape[1:]
    channels = groups * inside
    sides = per_axis(lambda tile, taps: tile + taps - 1, tiles, problem.kernel_size)
    counts = per_axis(ceil_div, sizes, tiles)
    # Room for the last tiles, which stick out.
    pads = tuple(
        (before, count * tile + side - tile - size - before)
        for (before, _), count, tile, side, size in zip(problem.pads, counts, tiles, sides, x.shape[2:], strict=True)
    )
    across = product(counts[1:])
    # The outputs' transform at the point 1 is 1 everywhere: what is added there is added to every output.
    one = np.ravel_multi_index([min(1, side - 1) for side in sides], sides)
    column = None if bias is None else bias.reshape(groups, rows_out, 1)

    def work(block: Block) -> None:
        many, height = block.many, block.height
        spots = many * height * across
        top, bottom = block.start * tiles[0], block.stop * tiles[0] + sides[0] - tiles[0]
        padded = slab(x, pads, block.first, block.last, top, bottom)
        steps = padded.strides[2:]
        source = np.lib.stride_tricks.as_strided(
            padded,
            (*sides, channels, many, height, *counts[1:]),
            (*steps, padded.strides[1], padded.strides[0], *(s * t for s, t in zip(steps, tiles, strict=True))),
            writeable=False,
        )
        gathered = scratch("gathered", (points, channels * spots), x.dtype)
        np.copyto(gathered.reshape(source.shape), source)
        spectrum = np.matmul(to_points, gathered, out=scratch("spectrum", gathered.shape, x.dtype))
        products = np.matmul(
            weight,
            spectrum.reshape(points, groups, inside, spots),
            out=scratch("products", (points, groups, rows_out, spots), x.dtype),
        )
        if column is not None:
            products[one] += column
        found = np.matmul(
            to_tile,
            products.reshape(points, channels_out * spots),
            out=scratch("gathered", (len(to_tile), channels_out * spots), x.dtype),
        ).reshape(*tiles, channels_out, many, height, *counts[1:])
        finish(found, None, activation)
        _place(found, out, block, tiles)

    share(work, winograd_blocks(problem, tiles))


def winograd_blocks(problem: Problem, tiles: tuple[int, ...]) -> list[Block]:
    """Rows of tiles, by their numbers at all points."""
    points = product(per_axis(lambda tile, taps: tile + taps - 1, tiles, problem.kernel_size))
    counts = per_axis(ceil_div, problem.output[2:], tiles)
    channels, channels_out = problem.input[1], problem.output[1]
    spot, across = points * max(channels, channels_out), product(counts[1:])
    weights = points * channels * channels_out // problem.groups
    limit = max(BLOCK_ELEMENTS, spot * LEAST_SPOTS)
    return blocks(problem.output[0], counts[0], spot * across, weights * across, limit)


def _place(found: Array, out: Array, block: Block, tiles: tuple[int, ...]) -> None:
    """Write tiles (*tile, O, images, *counts) to their places; the last ones stick out and are cut."""
    target = out[block.first : block.last, :, block.start * tiles[0] : block.stop * tiles[0]]
    for spot in np.ndindex(*tiles):
        place = target[(slice(None), slice(None), *(slice(s, None, t) for s, t in zip(spot, tiles, strict=True)))]
        part = found[(*spot, slice(None), slice(None), *map(slice, place.shape[2:]))]
        np.copyto(place, part.swapaxes(0, 1))
