"""Pooling: windows of each channel by itself, reduced to one number each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from convcalc import formulas as F
from convcalc.executor.blocks import BLOCK_ELEMENTS, span
from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.sliding import reduce_windows
from convcalc.executor.threads import Calls, scratch, share_calls
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
    find = _finding(layer, planes, maxima)
    together = _together(planes)
    share_calls(lambda first: find(first, result[first : first + together]), range(0, len(planes), together))
    return result.reshape(best.shape)


def _together(planes: Array) -> int:
    """How many planes are worked on at once: few calls are worth more than what stays in the cache."""
    return max(1, 4 * BLOCK_ELEMENTS // max(int(product(planes.shape[1:])), 1))


def _finding(layer: MaxPool, planes: Array, maxima: Array) -> Callable[[int, Array], Calls]:
    """What calls for the places of the maxima of some planes, from a first one on, as many as there is room for."""
    sizes, output = planes.shape[1:], maxima.shape[1:]
    steps = [product(sizes[axis + 1 :]) for axis in range(len(sizes))]
    taps = np.indices(layer.kernel_size).reshape(len(sizes), -1)
    # What each tap adds to the place where its window begins; after all taps there is none: below 0.
    ways = np.array([step * wide for step, wide in zip(steps, layer.dilation, strict=True)]) @ taps
    ways = np.append(ways, np.iinfo(np.int64).min // 2)
    starts = np.zeros(output, np.int64)
    for axis, (size, pair, stride, step) in enumerate(zip(output, layer.padding, layer.stride, steps, strict=True)):
        start = (np.arange(size) * stride - pair[0]) * step
        starts += start.reshape(-1, *(1,) * (len(output) - axis - 1))
    seen_by = [_inside(layer, tap, sizes, output) for tap in taps.T]
    odd = bool(maxima.dtype.kind == "f" and np.isnan(maxima).any())

    def find(first: int, found: Array) -> Calls:
        calls: Calls = []
        part, wanted = planes[first : first + len(found)], maxima[first : first + len(found)]
        # So many taps are passed over before the first that has the maximum.
        passed = scratch("passed", wanted.shape, np.min_scalar_type(len(ways)))
        going = scratch("going", wanted.shape, np.dtype(bool))
        other, number = (scratch(name, wanted.shape, np.dtype(bool)) for name in ("other", "number"))
        calls += [(passed.fill, (0,)), (going.fill, (True,))]
        apart = [part[..., phase :: layer.stride[-1]] for phase in range(layer.stride[-1])]
        if len(apart) > 1:
            # What every second window sees lies together then, and is compared in a third of the time.
            for phase, strided in enumerate(apart):
                apart[phase] = scratch(f"phase {phase}", strided.shape, part.dtype)
                calls.append((np.copyto, (apart[phase], strided)))
        for own, seen, phase in seen_by:
            if going[own].size:
                elements = apart[phase][seen]
                calls.append((np.not_equal, (elements, wanted[own], other[own])))
                if odd:  # one that is no number is the largest
                    calls.append((np.equal, (elements, elements, number[own])))
                    calls.append((np.logical_and, (other[own], number[own], other[own])))
                calls.append((np.logical_and, (going[own], other[own], going[own])))
            calls.append((np.add, (passed, going.view(np.uint8), passed)))
        calls.append((partial(ways.take, out=found, mode="clip"), (passed,)))
        calls.append((np.add, (found, starts, found)))
        calls.append((partial(np.maximum, out=found), (found, 0)))
        return calls

    return find


def _inside(
    layer: MaxPool, tap: Array, sizes: Shape, output: Shape
) -> tuple[tuple[slice, ...], tuple[slice, ...], int]:
    """Which windows see an element with this tap, and the elements: of every so many-th from the last one on."""
    own, seen, phase = [slice(None)], [slice(None)], 0
    geometry = zip(tap.tolist(), layer.dilation, layer.padding, layer.stride, output, sizes, strict=True)
    for axis, (place, wide, pair, stride, count, size) in enumerate(geometry, 1):
        low, high, start = span(place * wide - pair[0], stride, count, size)
        own.append(slice(low, high))
        if axis == len(sizes):
            first, phase = divmod(start, stride)
            seen.append(slice(first, first + high - low))
        else:
            seen.append(slice(start, start + (high - low - 1) * stride + 1 if high > low else start, stride))
    return tuple(own), tuple(seen), phase


@gradient(MaxPool)
def max_pool_gradient(
    layer: MaxPool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient goes to the element that was chosen."""
    (x,), best = inputs, outputs[0]
    planes, maxima = x.reshape(-1, *x.shape[2:]), best.reshape(-1, *best.shape[2:])
    grad = np.ascontiguousarray(grads[0]).reshape(maxima.shape)
    result = np.zeros(planes.shape, grad.dtype)
    find = _finding(layer, planes, maxima)
    together = _together(planes)
    size = product(planes.shape[1:])
    starts = (np.arange(together) * size).reshape(-1, *(1,) * (maxima.ndim - 1))

    def work(first: int) -> Calls:
        own = slice(first, first + together)
        found = scratch("places", maxima[own].shape, starts.dtype)
        return [
            *find(first, found),
            (np.add, (found, starts[: len(found)], found)),
            (np.add.at, (result[own].reshape(-1), found.reshape(-1), grad[own].reshape(-1))),
        ]

    share_calls(work, range(0, len(planes), together))
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
