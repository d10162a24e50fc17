"""Adaptive and global pooling: windows that follow from the sizes of input and output."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel, sums_of_products
from convcalc.executor.memory_format import is_channels_last, lying
from convcalc.executor.pieces import able
from convcalc.executor.pool import place
from convcalc.executor.sums import by_rows, row_extremes, row_sums
from convcalc.layers.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalMaxPool
from convcalc.layers.base import Shape
from convcalc.tracing import ceil_div, product


def spans(size: int, output: int) -> list[slice]:
    """Window i of m over n elements: ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉."""
    return [slice(i * size // output, ceil_div((i + 1) * size, output)) for i in range(output)]


def averages(x: Array, output: Shape) -> Array:
    """The mean of each adaptive window.

    By sums of rows where a window is all there is; else by products with matrices of ones, of all axes at once or of
    one after the other. Zeros times what is not finite would spread: such an input is done window by window.
    """
    if not able(x) or not x.size:
        return _by_windows(x, output)
    sizes, counts = x.shape[2:], output[2:]
    with np.errstate(all="ignore"):
        if is_channels_last(x) and product(counts) == 1:
            sums = _sums_of_places(lying(x).reshape(len(x), -1, x.shape[1]))
            sums /= x.dtype.type(product(sizes))
            return sums.reshape(output)
        planes = np.ascontiguousarray(x).reshape(-1, product(sizes))
        if product(counts) == 1:
            found = np.empty(len(planes), x.dtype)

            def work(part: slice) -> None:
                found[part] = row_sums(planes[part]) / x.dtype.type(planes.shape[1])

            by_rows(work, *planes.shape, x.dtype, functions=1)
            return found.reshape(output)
        if product(sizes) * product(counts) <= _AT_ONCE:
            matrix = reduce(np.kron, [_ones(size, count, x.dtype) for size, count in zip(sizes, counts, strict=True)])
            result = sums_of_products(planes, matrix)
        else:
            result = planes.reshape(-1, *sizes)
            for axis in range(len(sizes), 0, -1):
                matrix = _ones(sizes[axis - 1], counts[axis - 1], x.dtype)
                rows = result.reshape(product(result.shape[:axis]), sizes[axis - 1], -1)
                made = rows[:, :, 0] @ matrix if axis == len(sizes) else np.matmul(matrix.T, rows)
                result = made.reshape(*result.shape[:axis], counts[axis - 1], *result.shape[axis + 1 :])
        parts = [
            np.array([span.stop - span.start for span in spans(*pair)]) for pair in zip(sizes, counts, strict=True)
        ]
        result = result.reshape(output) / reduce(np.multiply.outer, parts).astype(x.dtype)
    return result if np.isfinite(result).all() else _by_windows(x, output)


_PLACES = 64
"""Places that are added up at once."""


def _sums_of_places(x: Array) -> Array:
    """The sums of (N, places, C) along the places: of so many each, and then of those sums, which rounds less."""
    while x.shape[1] > 1:
        whole = x.shape[1] // _PLACES * _PLACES
        parts = [x[:, :whole].reshape(len(x), -1, _PLACES, x.shape[2]).sum(axis=2)] if whole else []
        if whole < x.shape[1]:
            parts.append(x[:, whole:].sum(axis=1, keepdims=True))
        x = np.concatenate(parts, axis=1)
    return x


_AT_ONCE = 1 << 14
"""Multiply-adds for each plane up to which one product of whole planes takes less time than products of rows."""


def _ones(size: int, count: int, dtype: np.dtype[Any]) -> Array:
    """(size, count): 1 where a window has an element."""
    matrix = np.zeros((size, count), dtype)
    for column, span in enumerate(spans(size, count)):
        matrix[span, column] = 1
    return matrix


def _by_windows(x: Array, output: Shape) -> Array:
    """The same axis after axis, window after window."""
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
    if getattr(layer, "return_indices", False):
        return _choices(layer, inputs[0])
    return (_maxima(inputs[0], layer.infer(inputs[0].shape)[0]),)


def _maxima(x: Array, output: Shape) -> Array:
    """The largest element of each window, axis after axis."""
    if product(output[2:]) == 1 and x.size:
        return row_extremes(np.maximum, np.ascontiguousarray(x).reshape(len(x) * x.shape[1], -1)).reshape(output)
    for axis, count in enumerate(output[2:], 2):
        result = np.empty((*x.shape[:axis], count, *x.shape[axis + 1 :]), x.dtype)
        source, target = np.moveaxis(x, axis, 0), np.moveaxis(result, axis, 0)
        for best, window in zip(target, spans(x.shape[axis], count), strict=True):
            np.copyto(best, source[window.start])
            for other in source[window.start + 1 : window.stop]:
                np.maximum(best, other, out=best)
        x = result
    return x


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
