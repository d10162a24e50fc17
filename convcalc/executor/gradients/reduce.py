"""Gradients of reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convcalc.executor.gradients.tensor import top_k_gradient
from convcalc.executor.kernels import Array, Gradients, Weights, gradient
from convcalc.layers.reduce import Cumulate, Reduce, TopK

gradient(TopK)(top_k_gradient)


SLOPES: dict[str, Callable[[Any, Any, int], Any]] = {
    "sum": lambda x, y, count: np.ones_like(x),
    "mean": lambda x, y, count: np.full_like(x, 1 / count),
    "l1": lambda x, y, count: np.sign(x),
    "l2": lambda x, y, count: np.where(y == 0, 0, x / np.where(y == 0, 1, y)),
    "logsum": lambda x, y, count: np.exp(-y) + np.zeros_like(x),
    "logsumexp": lambda x, y, count: np.exp(x - y),
    "sumsquare": lambda x, y, count: 2 * x,
}
"""The slope of each element, of the input, the output and how many elements make one of it."""


def others(x: Array, axis: int) -> Array:
    """The product of all other elements along an axis, where one may be 0: of those before times those after."""
    ones = np.ones_like(x.take([0], axis))
    size = x.shape[axis]
    before = np.cumprod(np.concatenate([ones, x.take(range(size - 1), axis)], axis), axis)
    after = np.cumprod(np.concatenate([ones, np.flip(x, axis).take(range(size - 1), axis)], axis), axis)
    found: Array = before * np.flip(after, axis)
    return found


@gradient(Reduce)
def reduce_gradient(
    layer: Reduce, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient to all its elements, times the slope of each; of equal maxima each has its part."""
    (x,) = inputs
    if layer.function.startswith("arg"):
        return (None,), {}
    axes = tuple(sorted(layer.axes(x.shape)))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    grad, y = grads[0].reshape(kept), outputs[0].reshape(kept)
    count = x.size // max(y.size, 1)
    if layer.function in ("max", "min"):
        equal = x == y
        slope = equal / equal.sum(axis=axes, keepdims=True)
    elif layer.function == "prod":
        flat = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
        rest = others(flat.reshape(*flat.shape[: x.ndim - len(axes)], -1), -1).reshape(flat.shape)
        slope = np.moveaxis(rest, range(x.ndim - len(axes), x.ndim), axes)
    else:
        slope = SLOPES[layer.function](x, y, count)
    return ((grad * slope).astype(x.dtype, copy=False),), {}


@gradient(Cumulate)
def cumulate_gradient(
    layer: Cumulate, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Of a sum: all gradients from here on. Of a product: each times the product of all others till there."""
    (x,), (grad,) = inputs, (np.moveaxis(grads[0], layer.dim, 0),)
    if layer.function == "sum":
        return (np.moveaxis(np.cumsum(grad[::-1], axis=0)[::-1], 0, layer.dim),), {}
    moved = np.moveaxis(x, layer.dim, 0)
    result = np.zeros_like(moved)
    for end in range(len(moved)):
        result[: end + 1] += grad[end] * others(moved[: end + 1], 0)
    return (np.moveaxis(result, 0, layer.dim),), {}
