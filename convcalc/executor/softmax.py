"""Softmax and its kin, on x − max(x), which no exponential of can overflow."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.layers.softmax import LogSoftmax, Softmax, Softmax2d, Softmin


@kernel(Softmax, Softmax2d)
def softmax(layer: Softmax | Softmax2d, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """exp(x) / Σ exp(x)."""
    return (_shares(floats(inputs[0]), layer.axis(inputs[0].shape)),)


@kernel(Softmin)
def softmin(layer: Softmin, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Softmax of −x."""
    return (_shares(-floats(inputs[0]), layer.axis(inputs[0].shape)),)


@kernel(LogSoftmax)
def log_softmax(layer: LogSoftmax, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x − max − ln Σ exp(x − max)."""
    x = floats(inputs[0])
    axis = layer.axis(x.shape)
    moved = x - x.max(axis=axis, keepdims=True)
    return (moved - np.log(np.exp(moved).sum(axis=axis, keepdims=True)),)


def _shares(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    result: Array = powers / powers.sum(axis=axis, keepdims=True)
    return result


@gradient(Softmax, Softmin, Softmax2d)
def softmax_gradient(
    layer: Softmax | Softmin | Softmax2d,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """y·(g − Σ g·y), and the sign of what softmin is taken of."""
    (y,), (grad,) = outputs, grads
    result = y * (grad - (grad * y).sum(axis=layer.axis(y.shape), keepdims=True))
    return (-result if isinstance(layer, Softmin) else result,), {}


@gradient(LogSoftmax)
def log_softmax_gradient(
    layer: LogSoftmax,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """g − exp(y)·Σ g."""
    (y,), (grad,) = outputs, grads
    return (grad - np.exp(y) * grad.sum(axis=layer.axis(y.shape), keepdims=True),), {}
