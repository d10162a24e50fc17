"""Fractional max pooling."""

from __future__ import annotations

from itertools import product as grid

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.executor.pool import place
from convcalc.layers.fractional import FractionalMaxPool
from convcalc.tracing import product

DRAWN = 0.5
"""What PyTorch draws at random between 0 and 1 for every channel, to place the windows. Here it is always the middle,
so that a network gives the same numbers each time."""


def starts(size: int, kernel_size: int, output: int) -> list[int]:
    """Where the windows begin: PyTorch's sequence for one draw, the last at the end of the axis."""
    step = (size - kernel_size) / (output - 1) if output > 1 else 0.0
    return [int((i + DRAWN) * step) - int(DRAWN * step) for i in range(output - 1)] + [size - kernel_size]


def _choices(layer: FractionalMaxPool, x: Array) -> tuple[Array, Array]:
    """The maxima, and where in its channel each stands."""
    shape = layer.infer(x.shape)[0]
    axes = [starts(*axis) for axis in zip(x.shape[2:], layer.kernel_size, shape[2:], strict=True)]
    places = np.arange(product(x.shape[2:])).reshape(x.shape[2:])
    values, indices = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    for cell, begin in zip(np.ndindex(*shape[2:]), grid(*axes), strict=True):
        window = tuple(slice(at, at + size) for at, size in zip(begin, layer.kernel_size, strict=True))
        elements = x[(slice(None), slice(None), *window)].reshape(*shape[:2], -1)
        chosen = elements.argmax(axis=-1)
        at = (slice(None), slice(None), *cell)
        values[at] = np.take_along_axis(elements, chosen[..., None], axis=-1)[..., 0]
        indices[at] = places[window].ravel()[chosen]
    return values, indices


@kernel(FractionalMaxPool)
def fractional_max_pool(layer: FractionalMaxPool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The largest element of each window, and with return_indices where it stands."""
    chosen = _choices(layer, inputs[0])
    return chosen if layer.return_indices else chosen[:1]


@gradient(FractionalMaxPool)
def fractional_max_pool_gradient(
    layer: FractionalMaxPool,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Each output's gradient goes to the element that was chosen."""
    return (place(grads[0], _choices(layer, inputs[0])[1], inputs[0].shape),), {}
