"""Gradients of functions of one or several tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convcalc.errors import UnsupportedOpError
from convcalc.executor.join import unbroadcast
from convcalc.executor.kernels import Array, Gradients, Weights, gradient
from convcalc.layers.elementwise import Clip, Combine, Function, HardSigmoid

SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "abs": lambda x, y: np.sign(x), "acos": lambda x, y: -1 / np.sqrt(1 - x * x),
    "acosh": lambda x, y: 1 / np.sqrt(x * x - 1), "asin": lambda x, y: 1 / np.sqrt(1 - x * x),
    "asinh": lambda x, y: 1 / np.sqrt(x * x + 1), "atan": lambda x, y: 1 / (1 + x * x),
    "atanh": lambda x, y: 1 / (1 - x * x), "cos": lambda x, y: -np.sin(x), "cosh": lambda x, y: np.sinh(x),
    "erf": lambda x, y: 2 / np.sqrt(np.pi) * np.exp(-x * x), "exp": lambda x, y: y, "log": lambda x, y: 1 / x,
    "neg": lambda x, y: -1, "reciprocal": lambda x, y: -y * y, "sin": lambda x, y: np.cos(x),
    "sinh": lambda x, y: np.cosh(x), "sqrt": lambda x, y: 0.5 / y, "tan": lambda x, y: 1 + y * y,
    **dict.fromkeys(("ceil", "floor", "round", "sign"), lambda x, y: 0),
}  # fmt: skip
"""The slope of each function, of its input and output."""


@gradient(Function)
def function_gradient(
    layer: Function, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient times the slope; questions have none."""
    if layer.function not in SLOPES:
        return (None,), {}
    found = grads[0] * SLOPES[layer.function](inputs[0], outputs[0])
    return (np.asarray(found, grads[0].dtype),), {}


def _chosen(output: Array, grad: Array, *inputs: Array) -> list[Array]:
    """Of maxima and minima: to those that are chosen, in equal parts where several are."""
    equal = [(x == output).astype(grad.dtype) for x in inputs]
    share = grad / sum(equal)
    return [share * each for each in equal]


def _clipped(output: Array, grad: Array, x: Array, least: Array, *most: Array) -> list[Any]:
    inside = (x >= least) & (x <= most[0]) if most else x >= least
    return [grad * inside, None, *(None for _ in most)]


COMBINED: dict[str, Callable[..., Sequence[Any]]] = {
    "sub": lambda y, grad, a, b: (grad, -grad),
    "div": lambda y, grad, a, b: (grad / b, -grad * y / b),
    "pow": lambda y, grad, a, b: (grad * b * a ** (b - 1), grad * y * np.log(np.where(a > 0, a, 1))),
    "prelu": lambda y, grad, x, slope: (np.where(x < 0, slope, 1) * grad, np.where(x < 0, x, 0) * grad),
    "mean": lambda y, grad, *xs: (grad / len(xs),) * len(xs),
    "where": lambda y, grad, chosen, a, b: (None, np.where(chosen, grad, 0), np.where(chosen, 0, grad)),
    "max": _chosen,
    "min": _chosen,
    "clip": _clipped,
}
"""From the output, its gradient and the inputs: the gradient of each, not yet added up where it was repeated."""


@gradient(Combine)
def combine_gradient(
    layer: Combine, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """For each input the gradient times its slope, added up where it was repeated. Comparisons have none."""
    if outputs[0].dtype.kind != "f":
        return (None,) * len(inputs), {}
    if layer.function not in COMBINED:
        raise UnsupportedOpError(f"{layer.function} has no gradient here, so that nothing before it can be fitted")
    found = COMBINED[layer.function](outputs[0], grads[0], *inputs)
    return tuple(
        None if of is None or x.dtype.kind != "f" else unbroadcast(np.asarray(of, x.dtype), x.shape)
        for of, x in zip(found, inputs, strict=True)
    ), {}


@gradient(Clip)
def clip_gradient(
    layer: Clip, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient where nothing was limited; on the limit too, as in PyTorch."""
    (x,) = inputs
    inside = np.ones(x.shape, bool)
    if layer.least is not None:
        inside &= x >= layer.least
    if layer.most is not None:
        inside &= x <= layer.most
    return (grads[0] * inside,), {}


@gradient(HardSigmoid)
def hard_sigmoid_gradient(
    layer: HardSigmoid,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """alpha on the line, 0 beside it."""
    line = inputs[0] * layer.alpha + layer.beta
    return ((grads[0] * ((line > 0) & (line < 1)) * layer.alpha).astype(grads[0].dtype),), {}
