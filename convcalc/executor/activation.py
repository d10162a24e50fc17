"""Activations: functions of each element by itself."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.activation import ReLU


@kernel(ReLU)
def relu(layer: ReLU, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """max(0, x)."""
    return (np.maximum(inputs[0], 0),)


@gradient(ReLU)
def relu_gradient(
    layer: ReLU, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient where x is positive; at 0 it is 0."""
    return (grads[0] * (inputs[0] > 0),), {}
