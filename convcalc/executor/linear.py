"""The fully connected layer: one matrix product."""

from __future__ import annotations

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
from convcalc.layers.linear import Linear


@kernel(Linear)
def linear(layer: Linear, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x @ weight.T, and the bias."""
    weight = derived(weights, "aligned", lambda: aligned(weights["weight"]))
    y = matmul(inputs[0], weight.T)
    return (y + weights["bias"] if "bias" in weights else y,)


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
