"""Pooling: windows of each channel by itself, reduced to one number each."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from convcalc import formulas as F
from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.places import find_places
from convcalc.executor.sliding import reduce_windows
from convcalc.executor.threads import Calls, perform, thread_count
from convcalc.executor.windows import add_columns, fit, windows
from convcalc.layers.base import Shape
from convcalc.layers.pool import AvgPool, MaxPool
from convcalc.layers.variants import WindowPool
from convcalc.tracing import per_axis, product


@kernel(MaxPool)
def max_pool(layer: MaxPool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The largest element of each window, and with return_indices where it stood in its channel."""
    (x,) = inputs
    best = np.empty(layer.infer(x.shape)[0], x.dtype)
    maxima(layer, x, best)
    return (best, max_indices(layer, x, best)) if layer.return_indices else (best,)


def maxima(layer: MaxPool, x: Array, out: Array) -> None:
    """The largest element of each window, into an array of the output's shape."""
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    before = [pair[0] for pair in layer.padding]
    reduce_windows(np.maximum, x, before, layer.kernel_size, layer.stride, layer.dilation, out, fill=lowest)


def max_indices(layer: MaxPool, x: Array, best: Array) -> Array:
    """Where each window's maximum stands in its channel, counted along the last axis first: the first, of equals.

    `best` are the maxima. A window of padding alone says 0.
    """
    planes, maxima = x.reshape(-1, *x.shape[2:]), best.reshape(-1, *best.shape[2:])
    result = np.empty(maxima.shape, np.int64)
    find_places(layer, planes, maxima, result, 0, lambda own, found: [])
    return result.reshape(best.shape)


@gradient(MaxPool)
def max_pool_gradient(
    layer: MaxPool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient goes to the element that was chosen."""
    (x,), best = inputs, outputs[0]
    planes, maxima = x.reshape(-1, *x.shape[2:]), best.reshape(-1, *best.shape[2:])
    grad = np.ascontiguousarray(grads[0]).reshape(maxima.shape)
    result = np.empty(planes.shape, grad.dtype)
    extents = per_axis(F.kernel_extent, layer.kernel_size, layer.dilation)
    apart = all(extent <= step for extent, step in zip(extents, layer.stride, strict=True))
    # NumPy does not let go of the interpreter while it adds at places: other threads would wait for each block's.
    later = not apart and thread_count() > 1
    places = np.empty(maxima.shape, np.int64) if later else None
    adding: Calls = []

    def add(own: slice, found: Array) -> Calls:
        whole = (result[own].reshape(-1), found.reshape(-1), grad[own].reshape(-1))
        calls: Calls = [(result[own].fill, (0,))]
        (adding if later else calls).append((operator.setitem if apart else np.add.at, whole))
        return calls

    find_places(layer, planes, maxima, places, product(x.shape[2:]), add)
    perform(adding)
    return (result.reshape(x.shape),), {}


def place(values: Array, indices: Array, shape: Shape) -> Array:
    """An array (N, C, *sizes) of zeros with the values added at the indices of their channels."""
    planes, size = product(shape[:2]), product(shape[2:])
    result = np.zeros(planes * size, values.dtype)
    places = indices.reshape(planes, -1) + (np.arange(planes) * size)[:, None]
    np.add.at(result, places.reshape(-1), values.reshape(-1))
    return result.reshape(shape)


@kernel(AvgPool)
def avg_pool(layer: AvgPool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The sum of each window over its divisor."""
    x = floats(inputs[0])
    (shape,) = layer.infer(x.shape)
    before = [pair[0] for pair in layer.padding]
    ones = (1,) * len(before)
    sums = np.empty(shape, x.dtype)
    reduce_windows(np.add, x, before, layer.kernel_size, layer.stride, ones, sums, fill=0)
    return (sums / _divisors(layer, x.shape, shape).astype(x.dtype),)


@gradient(AvgPool)
def avg_pool_gradient(
    layer: AvgPool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient over its divisor goes to every element of its window."""
    (x,), (grad,) = inputs, grads
    shares = grad / _divisors(layer, x.shape, grad.shape).astype(grad.dtype)
    return (
        spread_windows(
            shares, x.shape, [pair[0] for pair in layer.padding], layer.kernel_size, layer.stride, (1,) * (x.ndim - 2)
        ),
    ), {}


def spread_windows(
    shares: Array,
    shape: Shape,
    before: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """An input (N, C, *sizes) to every element of which each window that covers it has added its share."""
    output = shares.shape[2:]
    taps = np.broadcast_to(
        np.expand_dims(shares, tuple(range(2, 2 + len(output)))), (*shares.shape[:2], *kernel_size, *output)
    )
    extents = per_axis(F.kernel_extent, kernel_size, dilation)
    sizes = [
        max((count - 1) * step + extent, front + size)
        for count, step, extent, front, size in zip(output, stride, extents, before, shape[2:], strict=True)
    ]
    full = add_columns(taps, shape[1], sizes, kernel_size, stride, dilation, output)
    inside = (slice(front, front + size) for front, size in zip(before, shape[2:], strict=True))
    return full[(slice(None), slice(None), *inside)]


def _divisors(layer: AvgPool, shape: Shape, output: Shape) -> Array:
    """What each window's sum is divided by, for the spatial axes."""
    if layer.divisor_override is not None:
        return np.full((1,) * (len(shape) - 2), layer.divisor_override)
    ones = (1,) * len(layer.kernel_size)
    return window_counts(layer, ones, shape, output)


def window_counts(layer: AvgPool | WindowPool, dilation: Sequence[int], shape: Shape, output: Shape) -> Array:
    """How many elements each window has, for the spatial axes.

    The padding counts or not, as count_include_pad says; what ceil_mode adds beyond it never does.
    """
    result = np.ones((1,) * (len(shape) - 2), np.int64)
    for axis, ((front, back), size) in enumerate(zip(layer.padding, shape[2:], strict=True)):
        counted = np.zeros((1, 1, front + size + back), np.int64)
        edge = 0 if layer.count_include_pad else front
        counted[..., edge : counted.shape[-1] if layer.count_include_pad else front + size] = 1
        geometry = ((layer.kernel_size[axis],), (layer.stride[axis],), (dilation[axis],), (output[2 + axis],))
        counts = windows(fit(counted, (0,), *geometry), *geometry).sum(axis=-1)[0, 0]
        result = result * counts.reshape(-1, *(1,) * (len(shape) - 3 - axis))
    # A window of padding alone has nothing to divide; its sum is 0.
    return np.maximum(result, 1)
