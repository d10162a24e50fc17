"""Dropout: nothing, at inference."""

from __future__ import annotations

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.base import Layer
from convcalc.layers.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout

_ALL = (Dropout, AlphaDropout, FeatureAlphaDropout, Dropout1d, Dropout2d, Dropout3d)


@kernel(*_ALL)
def dropout(layer: Layer, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The input."""
    return inputs


@gradient(*_ALL)
def dropout_gradient(
    layer: Layer, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient."""
    return grads, {}
