"""Activations with numbers of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convcalc import formulas as F
from convcalc.executor.activation import QUICK, SLOPES
from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.pieces import Formula, able, together
from convcalc.executor.special import erf, gelu
from convcalc.layers import parametric as L

SLOPES.update({
    L.LeakyReLU: lambda layer, x, y: np.where(x > 0, 1, *layer.arguments),
    L.RReLU: lambda layer, x, y: np.where(x > 0, 1, *layer.arguments),
    L.ELU: lambda layer, x, y: np.where(x > 0, 1, y + layer.alpha),
    L.CELU: lambda layer, x, y: np.where(x > 0, 1, np.exp(x / layer.alpha)),
    L.Hardtanh: lambda layer, x, y: (x > layer.min_val) & (x < layer.max_val),
    L.Threshold: lambda layer, x, y: ~(x <= layer.threshold),
    L.Hardshrink: lambda layer, x, y: ~(abs(x) <= layer.lambd),
    L.Scale: lambda layer, x, y: layer.factor,
    L.Shift: lambda layer, x, y: 1,
    L.Softplus: lambda layer, x, y: np.where(layer.beta * x > layer.threshold, 1, F.sigmoid(layer.beta * x)),
    L.GELU: lambda layer, x, y: _gelu_slope(layer, x),
})  # fmt: skip


def _leaky_as_maximum(layer: L.LeakyReLU | L.RReLU) -> Formula | None:
    """The larger of x and slope·x, for slopes from above 0 to 1."""
    return _larger if 0 < layer.arguments[0] <= 1 else None


def _larger(x: Any, slope: Any) -> Any:
    return np.maximum(x, slope * x)


def _beyond(x: Any, limit: Any) -> Any:
    """How far x is from what lies between -limit and limit."""
    return x - np.minimum(np.maximum(x, -limit), limit)


QUICK.update({
    L.LeakyReLU: _leaky_as_maximum,
    L.RReLU: _leaky_as_maximum,
    L.GELU: lambda layer: gelu if layer.approximate == "none" else None,
    L.Softshrink: lambda layer: _beyond,
})  # fmt: skip


def _gelu_slope(layer: L.GELU, x: Any) -> Array:
    """Φ(x) + x·φ(x); of the approximation likewise, by the chain rule."""
    if layer.approximate == "none":
        normal = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        exact: Array = (1 + erf(math.sqrt(0.5) * x)) / 2 + x * normal
        return exact
    factor, cubic = math.sqrt(2 / math.pi), 0.044715
    bent = np.tanh(factor * (x + cubic * x**3))
    result: Array = (1 + bent) / 2 + x / 2 * (1 - bent**2) * factor * (1 + 3 * cubic * x * x)
    return result


@kernel(L.PReLU)
def prelu(layer: L.PReLU, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A leaky ReLU with the slope of each channel."""
    x: Any = inputs[0]
    slopes = _slopes(x, weights)
    if not able(x, slopes):
        return (np.asarray(F.leaky_relu(x, slopes)),)
    as_maximum = 0 < slopes.min() <= slopes.max() <= 1
    return (together(_larger if as_maximum else F.leaky_relu, x, slopes),)


@gradient(L.PReLU)
def prelu_gradient(
    layer: L.PReLU, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The slope's gradient sums what is below 0."""
    (x,), (grad,) = inputs, grads
    below = grad * np.minimum(x, 0)
    axes = tuple(axis for axis in range(x.ndim) if axis != 1 or layer.num_parameters == 1)
    grad_weight = below.sum(axis=axes).reshape(weights["weight"].shape)
    return (grad * np.where(x > 0, 1, _slopes(x, weights)),), {"weight": grad_weight}


def _slopes(x: Any, weights: Weights) -> Any:
    return weights["weight"].reshape(-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else weights["weight"]


@kernel(L.GLU)
def glu(layer: L.GLU, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """One half, through the gate that the other is."""
    halves: Any = np.split(floats(inputs[0]), 2, axis=layer.dim)
    return (together(F.glu, *halves) if able(*halves) else np.asarray(F.glu(*halves)),)


@gradient(L.GLU)
def glu_gradient(
    layer: L.GLU, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """g·σ for the one half, g·x·σ·(1 − σ) for the other."""
    gate: Any = np.split(inputs[0], 2, axis=layer.dim)[1]
    halves = [grads[0] * F.sigmoid(gate), grads[0] * outputs[0] * F.sigmoid(-gate)]
    return (np.concatenate(halves, axis=layer.dim),), {}
