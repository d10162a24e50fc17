"""Convolution by Fourier transforms: what a kernel costs hardly depends on its size."""

from __future__ import annotations

from math import log2

import numpy as np

from convcalc.executor.blocks import Activation, Problem, finish, slab
from convcalc.executor.kernels import Array
from convcalc.executor.threads import Calls, perform, share
from convcalc.tracing import ceil_div, product

_TRANSFORM_COST = 40.0
"""What a transform takes for each number and each doubling of its length, in multiply-adds of a matrix product."""
_PRODUCT_COST = 40.0
"""What a complex multiply-add takes, in those of a matrix product of real numbers."""


def lengths(problem: Problem) -> tuple[int, ...]:
    """The transform's length for each axis: the padded size, rounded up to a product of 2, 3 and 5."""
    sizes = (size + sum(pair) for size, pair in zip(problem.input[2:], problem.pads, strict=True))
    return tuple(map(_good_length, sizes))


def _good_length(size: int) -> int:
    """The next product of 2, 3 and 5.

    >>> _good_length(97), _good_length(64)
    (100, 64)
    """
    best = 1 << (size - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            # The least power of two that is enough beside these factors.
            best = min(best, odd << (ceil_div(size, odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return best


def spectrum_elements(problem: Problem) -> int:
    """The complex numbers of the weights' spectrum, about."""
    return int(product(lengths(problem))) // 2 * problem.input[1] * problem.output[1] // problem.groups


def fft_macs(problem: Problem) -> float:
    """What the transforms and products take, in multiply-adds of a matrix product; the weights' are done once."""
    size = product(lengths(problem))
    images, channels_out = problem.output[:2]
    channels = problem.input[1]
    transforms = images * (channels + channels_out) * size * log2(size) * _TRANSFORM_COST
    return float(transforms + images * spectrum_elements(problem) * _PRODUCT_COST)


def weight_spectrum(problem: Problem, weight: Array) -> Array:
    """Weights (O, C / groups, *kernel_size), turned and transformed: (*frequencies, groups, O / groups, C / groups)."""
    axes = tuple(range(-problem.rank, 0))
    spectrum = np.conj(np.fft.rfftn(weight, lengths(problem), axes=axes))
    grouped = spectrum.reshape(problem.groups, -1, *spectrum.shape[1:])
    moved = np.moveaxis(grouped, range(3, 3 + problem.rank), range(problem.rank))
    return np.ascontiguousarray(moved, dtype=np.result_type(weight.dtype, np.complex64))


def fft(
    problem: Problem, x: Array, weight: Array, bias: Array | None, activation: Activation | None, out: Array
) -> None:
    """Transform the padded input, multiply with the weights' spectrum, transform back, and keep what is not wrapped."""
    rank = problem.rank
    axes = tuple(range(-rank, 0))
    size = lengths(problem)
    starts = tuple(
        slice(0, (count - 1) * step + 1, step) for count, step in zip(out.shape[2:], problem.stride, strict=True)
    )
    column = None if bias is None else bias.reshape(-1, *(1,) * rank)

    def work(image: int) -> None:
        before: Calls = []
        padded = slab(x, problem.pads, image, image + 1, 0, x.shape[2] + sum(problem.pads[0]), before)
        perform(before)
        spectrum = np.fft.rfftn(padded[0].reshape(problem.groups, -1, 1, *padded.shape[2:]), size, axes=axes)
        spectrum = np.moveaxis(spectrum, range(3, 3 + rank), range(rank)).astype(weight.dtype, copy=False)
        products = np.matmul(weight, np.ascontiguousarray(spectrum))[..., 0]
        products = np.moveaxis(products, range(rank), range(2, 2 + rank))
        found = np.fft.irfftn(products, size, axes=axes).reshape(out.shape[1], *size)
        out[image] = found[(slice(None), *starts)]
        after: Calls = []
        finish(out[image], column, activation, after)
        perform(after)

    share(work, range(out.shape[0]))
