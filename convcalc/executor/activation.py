"""Activations: the layer's own formula on whole arrays, and the slope of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convcalc import formulas as F
from convcalc.executor import pieces
from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.executor.pieces import Formula, able, each
from convcalc.layers import activation as L
from convcalc.layers.activation import Elementwise

Slope = Callable[[Any, Any, Any], Any]

SLOPES: dict[type[Elementwise], Slope] = {
    L.ReLU: lambda layer, x, y: x > 0,
    L.ReLU6: lambda layer, x, y: (x > 0) & (x < 6),
    L.Hardsigmoid: lambda layer, x, y: (abs(x) < 3) / 6,
    L.Hardswish: lambda layer, x, y: np.where(abs(x) < 3, x / 3 + 0.5, x > 0),
    L.SELU: lambda layer, x, y: np.where(x > 0, F.selu(1.0), y - F.selu(-np.inf)),
    L.SiLU: lambda layer, x, y: F.sigmoid(x) * (1 + x * F.sigmoid(-x)),
    L.Mish: lambda layer, x, y: mish_slope(x),
    L.Sigmoid: lambda layer, x, y: y * F.sigmoid(-x),
    L.Tanh: lambda layer, x, y: 1 - y * y,
    L.LogSigmoid: lambda layer, x, y: F.sigmoid(-x),
    L.Softsign: lambda layer, x, y: 1 / (1 + abs(x)) ** 2,
    L.Tanhshrink: lambda layer, x, y: np.tanh(x) ** 2,
}
"""The slope of each activation, from the layer, its input and its output. Where there is a corner, as PyTorch says."""


def mish_slope(x: Any) -> Array:
    """The slope of x·tanh(softplus(x))."""
    bent = np.tanh(np.logaddexp(0, x))
    result: Array = bent + x * F.sigmoid(x) * (1 - bent * bent)
    return result


QUICK: dict[type[Elementwise], Callable[[Any], Formula | None]] = {}
"""Formulas that give the same as a layer's own in less time, for those of such layers where they do."""


def formula_of(layer: Elementwise) -> Formula:
    """The formula that a layer is computed by."""
    found = QUICK[type(layer)](layer) if type(layer) in QUICK else None
    return found or layer.formula


def change(layer: Elementwise, part: Array) -> None:
    """The formula of a layer without weights, written over an array."""
    if able(part):
        pieces.change(formula_of(layer), part, *layer.arguments)
    else:
        np.copyto(part, elementwise(layer, (part,), {})[0])


@kernel(Elementwise)
def elementwise(layer: Elementwise, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The formula of the layer, element by element."""
    (x,) = inputs
    if able(x):
        return (each(formula_of(layer), x, *layer.arguments),)
    y = np.asarray(layer.formula(x, *layer.arguments))
    # Floats stay what they are; what becomes of whole numbers, the formula decides.
    return (y.astype(x.dtype, copy=False) if x.dtype.kind == "f" else y,)


@gradient(Elementwise)
def elementwise_gradient(
    layer: Elementwise,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The gradient times the slope, in the gradient's type: numbers of NumPy's own are of double precision."""
    slope_of = next(slopes for cls in type(layer).__mro__ if (slopes := SLOPES.get(cls)) is not None)
    slope = np.asarray(slope_of(layer, inputs[0], outputs[0]))
    return (grads[0] * (slope if slope.dtype == bool else slope.astype(grads[0].dtype, copy=False)),), {}
