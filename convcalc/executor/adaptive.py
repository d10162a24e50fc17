"""Adaptive and global pooling: windows that follow from the sizes of input and output."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.pool import place
from convcalc.layers.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalMaxPool
from convcalc.layers.base import Shape
from convcalc.tracing import ceil_div, product


def spans(size: int, output: int) -> list[slice]:
    """Window i of m over n elements: ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉."""
    return [slice(i * size // output, ceil_div((i + 1) * size, output)) for i in range(output)]


def averages(x: Array, output: Shape) -> Array:
    """The mean of each adaptive window, axis after axis."""
    for axis, count in enumerate(output[2:], 2):
        x = np.stack(
            [x.take(range(*span.indices(x.shape[axis])), axis).mean(axis) for span in spans(x.shape[axis], count)], axis
        )
    return x


def averages_gradient(grad: Array, shape: Shape) -> Array:
    """What `averages` owes an input of this shape."""
    for axis, size in enumerate(shape[2:], 2):
        moved = np.moveaxis(grad, axis, 0)
        result = np.zeros((size, *moved.shape[1:]), grad.dtype)
        for part, span in zip(moved, spans(size, grad.shape[axis]), strict=True):
            result[span] += part / (span.stop - span.start)
        grad = np.moveaxis(result, 0, axis)
    return grad


@kernel(AdaptiveAvgPool, GlobalAvgPool)
def adaptive_average(
    layer: AdaptiveAvgPool | GlobalAvgPool, inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The mean of each window."""
    return (averages(floats(inputs[0]), layer.infer(inputs[0].shape)[0]),)


@gradient(AdaptiveAvgPool, GlobalAvgPool)
def adaptive_average_gradient(
    layer: AdaptiveAvgPool | GlobalAvgPool,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Each output's gradient, shared out over its window."""
    return (averages_gradient(grads[0], inputs[0].shape),), {}


def _choices(layer: AdaptiveMaxPool | GlobalMaxPool, x: Array) -> tuple[Array, Array]:
    """The maxima, and where in its channel each stands."""
    shape = layer.infer(x.shape)[0]
    places = np.arange(product(x.shape[2:])).reshape(x.shape[2:])
    windows = [spans(size, count) for size, count in zip(x.shape[2:], shape[2:], strict=True)]
    values, indices = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    for cell in np.ndindex(*shape[2:]):
        window = tuple(axis[index] for axis, index in zip(windows, cell, strict=True))
        elements = x[(slice(None), slice(None), *window)].reshape(*shape[:2], -1)
        chosen = elements.argmax(axis=-1)
        at = (slice(None), slice(None), *cell)
        values[at] = np.take_along_axis(elements, chosen[..., None], axis=-1)[..., 0]
        indices[at] = places[window].ravel()[chosen]
    return values, indices


@kernel(AdaptiveMaxPool, GlobalMaxPool)
def adaptive_maximum(
    layer: AdaptiveMaxPool | GlobalMaxPool, inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """The largest element of each window, and with return_indices where it stands."""
    chosen = _choices(layer, inputs[0])
    return chosen if getattr(layer, "return_indices", False) else chosen[:1]


@gradient(AdaptiveMaxPool, GlobalMaxPool)
def adaptive_maximum_gradient(
    layer: AdaptiveMaxPool | GlobalMaxPool,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """Each output's gradient goes to the element that was chosen."""
    return (place(grads[0], _choices(layer, inputs[0])[1], inputs[0].shape),), {}
