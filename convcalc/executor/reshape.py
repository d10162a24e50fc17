"""Layers that give the same numbers another shape."""

from __future__ import annotations

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.reshape import Flatten


@kernel(Flatten)
def reshape(layer: Flatten, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The same numbers in the shape that comes out."""
    return (inputs[0].reshape(layer.infer(inputs[0].shape)[0]),)


@gradient(Flatten)
def reshape_gradient(
    layer: Flatten, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient in the input's shape."""
    return (grads[0].reshape(inputs[0].shape),), {}
