"""Convolution and transposed convolution as matrix products over windows laid out as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from convcalc.executor.algorithms import SMALL, algorithm_for, convolve, direct_only
from convcalc.executor.blocks import Activation, Problem
from convcalc.executor.kernels import (
    Array,
    Weights,
    derived,
    kernel,
    largest,
    matmul,
    refuse_wrapping,
)
from convcalc.executor.subpixel import subpixel
from convcalc.executor.threads import perform, share
from convcalc.executor.windows import add_columns, columns, pad, unpad
from convcalc.layers.base import Pairs, Shape
from convcalc.layers.conv import Conv, ConvTranspose
from convcalc.tracing import product

COLUMN_LIMIT = 1 << 24
"""How many elements of columns are laid out at once; beyond it the batch goes through in parts."""


@kernel(Conv)
def conv(layer: Conv, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """weight @ columns, and the bias, by the algorithm that `choose` names."""
    return (convolution(layer, inputs[0], weights),)


def convolution(
    layer: Conv,
    x: Array,
    weights: Weights,
    activation: Activation | None = None,
    out: Array | None = None,
    added: Sequence[Array] = (),
) -> Array:
    """A convolution, arrays of its shape added to it, and what is done to that block by block.

    Into `out` where that is given.
    """
    given = x.shape
    shape = derived(weights, f"shape {given}", lambda: layer.infer(given)[0])
    if layer.padding_mode != "zeros":
        x = _padded(layer, x)
    problem = derived(weights, f"problem {given}", lambda: problem_of(layer, x.shape, shape))
    name = algorithm_for(problem, [x.dtype, *(weight.dtype for weight in weights.values())])
    if name != "direct":
        return convolve(name, problem, x, weights, activation, out, added)
    if out is not None:
        share(lambda whole: np.copyto(whole, _directly(layer, problem, x, weights, activation, added)), [out])
        return out
    return _directly(layer, problem, x, weights, activation, added)


def _directly(
    layer: Conv, problem: Problem, x: Array, weights: Weights, activation: Activation | None, added: Sequence[Array]
) -> Array:
    """All columns at once."""
    weight = _weight_matrix(layer, weights["weight"])
    shape = problem.output
    parts = [matmul(weight, cols) for cols in _column_parts(problem, pad(x, problem.pads), shape)]
    y = _with_bias(np.concatenate(parts).reshape(shape), weights)
    for array in added:
        y += array
    if activation is not None:
        perform(activation(y))
    return y


def problem_of(layer: Conv, x: Shape, y: Shape) -> Problem:
    """The numbers of a convolution. What is padded with other than zeros comes in with its padding."""
    none = ((0, 0),) * len(layer.kernel_size)
    pads = layer.pads(x[2:]) if layer.padding_mode == "zeros" else none
    return Problem(*_geometry(layer), pads, layer.bound[2], x, y)


def padded_problem(layer: Conv, x: Shape, y: Shape) -> tuple[Problem, int]:
    """The convolution in numbers, and the elements of the copy that other padding than zeros takes."""
    if layer.padding_mode == "zeros":
        return problem_of(layer, x, y), 0
    pads = layer.pads(x[2:])
    x = (*x[:2], *(size + before + after for size, (before, after) in zip(x[2:], pads, strict=True)))
    return problem_of(layer, x, y), int(product(x))


@kernel(ConvTranspose)
def conv_transpose(layer: ConvTranspose, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Every input element times the kernel, added up where they overlap, then cropped by the padding.

    Or phase by phase, where that is faster.
    """
    (x,) = inputs
    (shape,) = layer.infer(x.shape)
    if by_phases(layer, x.shape, [x.dtype, *(weight.dtype for weight in weights.values())]):
        return (subpixel(layer, x, weights, shape),)
    return (_with_bias(convolved_columns(layer, x, weights["weight"], shape), weights),)


def convolved_columns(layer: ConvTranspose, x: Array, weight: Array, shape: Shape) -> Array:
    """A transposed convolution of this output shape: columns made by one product, and added up where they overlap."""
    rows = x.reshape(x.shape[0], layer.bound[2], -1, product(x.shape[2:]))
    cols = matmul(_weight_matrix(layer, weight).swapaxes(-1, -2), rows)
    if cols.dtype.kind != "f":
        refuse_wrapping(largest(cols) * product(layer.kernel_size))
    uncropped = tuple(size + sum(pair) for size, pair in zip(shape[2:], _crop(layer), strict=True))
    full = add_columns(cols, shape[1], uncropped, *_geometry(layer), x.shape[2:])
    return unpad(full, _crop(layer), shape[2:])


def by_phases(layer: ConvTranspose, x: Shape, dtypes: Sequence[np.dtype[Any]]) -> bool:
    """Whether a transposed convolution of an input of this shape is done phase by phase."""
    macs = product(x) * product(layer.parameters()["weight"][1:])
    apart = all(stride == 1 or dilation == 1 for stride, dilation in zip(layer.stride, layer.dilation, strict=True))
    return bool(macs >= SMALL and apart and not direct_only(dtypes))


def im2col(layer: Conv, x: Array) -> Array:
    """The windows of an input (N, C, *sizes), one a row: (N · ∏output, C · ∏kernel_size).

    A convolution without groups is `im2col(layer, x) @ weight.reshape(out_channels, -1).T`.
    """
    (shape,) = layer.infer(x.shape)
    cols = columns(_padded(layer, x), 1, *_geometry(layer), shape[2:])
    return cols[:, 0].swapaxes(1, 2).reshape(-1, cols.shape[2])


def _geometry(layer: Conv | ConvTranspose) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return layer.kernel_size, layer.stride, layer.dilation


def _padded(layer: Conv, x: Array) -> Array:
    return pad(x, layer.pads(x.shape[2:]), layer.padding_mode)


def _crop(layer: ConvTranspose) -> Pairs:
    return cast("Pairs", layer.padding)


def _weight_matrix(layer: Conv | ConvTranspose, weight: Array) -> Array:
    """(groups, a group's first channels, a group's second channels · ∏kernel_size)."""
    groups = layer.bound[2]
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _column_parts(problem: Problem, padded: Array, shape: Shape) -> Iterator[Array]:
    each = padded.shape[1] * problem.taps * product(shape[2:])
    step = max(COLUMN_LIMIT // max(each, 1), 1)
    for start in range(0, max(shape[0], 1), step):  # of no images a part of none
        geometry = (problem.kernel_size, problem.stride, problem.dilation)
        yield columns(padded[start : start + step], problem.groups, *geometry, shape[2:])


def _with_bias(y: Array, weights: Weights) -> Array:
    bias = weights.get("bias")
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))
