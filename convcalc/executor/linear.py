"""The fully connected layer: one matrix product."""

from __future__ import annotations

import numpy as np

from convcalc.executor.blocks import multiply, shares
from convcalc.executor.kernels import (
    Array,
    Gradients,
    Weights,
    aligned,
    derived,
    gradient,
    kernel,
    matmul,
    weight_gradient,
)
from convcalc.executor.threads import Calls, share_calls
from convcalc.layers.linear import Linear

READ_ONCE = 2
"""What a weight costs that is read for one row, beside its multiply-add, in the same unit."""


@kernel(Linear)
def linear(layer: Linear, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x @ weight.T, and the bias."""
    (x,), weight = inputs, weights["weight"]
    if x.dtype.kind != "f" or weight.dtype.kind != "f":
        y = matmul(x, weight.T)
        return (y + weights["bias"] if "bias" in weights else y,)
    result = np.empty((*x.shape[:-1], len(weight)), np.result_type(x, *weights.values()))
    linear_into(x, weights, result)
    return (result,)


def linear_into(x: Array, weights: Weights, out: Array) -> None:
    """The same of floats, into an array; threads share what comes out, and so the weights."""
    weight = derived(weights, "aligned", lambda: aligned(weights["weight"]))
    bias, (features, terms) = weights.get("bias"), weight.shape
    rows, result = x.reshape(-1, terms), out.reshape(-1, features)

    def work(own: slice) -> Calls:
        calls: Calls = []
        added = () if bias is None else (bias[own],)
        multiply(rows, weight[own].T, result[:, own], terms, calls, added)
        return calls

    share_calls(work, shares(features, weight.size * (len(rows) + READ_ONCE)))


@gradient(Linear)
def linear_gradient(
    layer: Linear, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """grad @ weight, and grad.T @ x over all rows."""
    _, gradients = linear_weight_gradient(layer, inputs, outputs, weights, grads)
    return (matmul(grads[0], weights["weight"]),), gradients


@weight_gradient(Linear)
def linear_weight_gradient(
    layer: Linear, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Those of weight and bias alone."""
    (x,), (grad,) = inputs, grads
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    gradients = {"weight": matmul(grad_rows.T, rows)}
    if "bias" in weights:
        gradients["bias"] = grad_rows.sum(axis=0)
    return (None,), gradients
