"""Products of whole numbers that stand for floats: exact sums, less the zero points, and scaled once at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convcalc.executor.algorithms import ALGORITHMS, convolve
from convcalc.executor.conv import problem_of
from convcalc.executor.elementwise import quantized
from convcalc.executor.kernels import Array, Weights, kernel_of, largest
from convcalc.layers.base import Layer
from convcalc.layers.conv import Conv
from convcalc.tracing import ceil_div, product


def _less_zero(x: Array, zero: Array | None, axis: int, dtype: type[np.floating[Any]] = np.float64) -> Array:
    """x - zero, one zero for all or for each place of an axis.

    As float64, whose products are exact up to 2^53 and as fast as the matrix product is, or as float32.
    """
    wide = x.astype(dtype)
    if zero is None:
        return wide
    column = zero.astype(dtype)
    return wide - (column if column.ndim != 1 or column.size == 1 else column.reshape(_column(x.ndim, axis)))


def _column(rank: int, axis: int) -> tuple[int, ...]:
    return tuple(-1 if place == axis % rank else 1 for place in range(rank))


def _product(a: Array, zero: Array | None, b: Array, other: Array | None) -> Array:
    """The product of a - its zero and b - its zero, exactly, as float64.

    Of bytes in float32, which is twice as fast, in parts whose sums it holds exactly.
    """
    if a.dtype.itemsize > 1 or b.dtype.itemsize > 1:
        whole: Array = np.rint(np.matmul(_less_zero(a, zero, -2), _less_zero(b, other, -1)))
        return whole
    left, right = _less_zero(a, zero, -2, np.float32), _less_zero(b, other, -1, np.float32)
    terms = _EXACT // max(largest(left) * largest(right), 1)
    found: Array = np.matmul(left[..., :terms], right[..., :terms, :]).astype(np.float64)
    for start in range(terms, a.shape[-1], terms):
        found += np.matmul(left[..., start : start + terms], right[..., start : start + terms, :])
    return found


_EXACT = 2**24
"""Up to here float32 has all whole numbers. Products of bytes are below 2^16: at least 256 of them fit."""


def _convolved(
    layer: Conv, x: Array, zero: Array | None, weight: Array, weight_zero: Array | None, bias: Array | None = None
) -> Array:
    """The convolution of x - its zero with weights - theirs, exactly, as float64.

    Of bytes in float32, of as many channels at a time as have sums that it holds exactly.
    """
    channels = 0
    if x.dtype.itemsize == weight.dtype.itemsize == 1 and layer.bound[2] == 1 and x.size:
        wide, kernel = _less_zero(x, zero, 1, np.float32), _less_zero(weight, weight_zero, 0, np.float32)
        channels = _EXACT // (max(largest(wide) * largest(kernel), 1) * product(layer.kernel_size))
    if not channels:
        given = {"weight": _less_zero(weight, weight_zero, 0)}
        given |= {} if bias is None else {"bias": bias.astype(np.float64)}
        return np.rint(kernel_of(layer)(layer, (_less_zero(x, zero, 1),), given)[0])
    (shape,) = layer.infer(x.shape)
    found = np.zeros(shape)
    channels = ceil_div(x.shape[1], ceil_div(x.shape[1], channels))
    for start in range(0, x.shape[1], channels):
        some = (slice(None), slice(start, start + channels))
        problem = problem_of(layer, wide[some].shape, shape)
        name = "pointwise" if ALGORITHMS["pointwise"].fits(problem) else "im2col"
        found += convolve(name, problem, wide[some], {"weight": np.ascontiguousarray(kernel[some])})
    return found if bias is None else found + bias.reshape(_column(x.ndim, 1))


def conv_integer(
    layer: Conv, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The convolution of x - its zero with weights - theirs, as int32."""
    x, *zeros = inputs
    zero, weight_zero = (*zeros, None, None)[:2]
    found = _convolved(layer, x, zero, weights["weight"], weight_zero)
    return (found.astype(np.int64).astype(np.int32),)


def qlinear_conv(
    layer: Conv, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The same with a bias, times scale·weight scale / output scale, and quantised again."""
    x, scale, zero, weight_scale, weight_zero, out_scale, out_zero = inputs
    found = _convolved(layer, x, zero, weights["weight"], weight_zero, weights.get("bias"))
    per_channel = weight_scale.reshape(_column(x.ndim, 1) if weight_scale.ndim else ())
    factor = out_scale / (scale * per_channel).astype(np.float64)
    return (quantized(found, factor, out_zero, str(out_zero.dtype)),)


def matmul_integer(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """(a - its zero)·(b - its zero) as int32. A zero for each row of a, for each column of b."""
    a, b, *zeros = inputs
    zero, other = (*zeros, None, None)[:2]
    found = _product(a, zero, b, other)
    return (found.astype(np.int64).astype(np.int32),)


def qlinear_matmul(
    layer: Layer, attributes: Mapping[str, Any], inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The same times scale·scale / output scale, and quantised again."""
    a, b, scale, zero, other_scale, other_zero, out_scale, out_zero = inputs
    found = _product(a, zero, b, other_zero)
    rows = scale.reshape(_column(found.ndim, -2)) if scale.ndim == 1 else scale
    factor = out_scale / (rows * other_scale).astype(np.float64)
    return (quantized(found, factor, out_zero, str(out_zero.dtype)),)
