"""Axes at other sizes: every output element a weighted sum of a few input elements along one axis after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from convcalc.executor.blocks import BLOCK_ELEMENTS
from convcalc.executor.kernels import Array
from convcalc.executor.pieces import hands_for
from convcalc.executor.threads import scratch, share
from convcalc.layers.tensor import Resize
from convcalc.tracing import ceil_div, product

Curve = Callable[[Array], Array]
"""The weight of a neighbour by how far it is away."""
Taps = tuple[Array, Array]
"""The input elements that each output element is made of, and their weights: (output, taps) both."""


def linear_curve(distance: Array) -> Array:
    """1 at 0, down to 0 at 1 on both sides."""
    weights: Array = np.maximum(1 - np.abs(distance), 0)
    return weights


def cubic_curve(a: float, distance: Array) -> Array:
    """Keys's cubic weights (Cubic convolution interpolation for digital image processing, 1981, equation 4)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def taps(
    centres: Array, size: int, curve: Curve, reach: int, *, shrink: float = 1.0, exclude_outside: bool = False
) -> Taps:
    """The neighbours of each centre and their weights, out of an axis of this size.

    `reach` is how far the curve goes on each side; with `shrink` below 1 it is wider by 1 / shrink, against aliasing.
    Neighbours outside are as the edge, or weigh nothing.
    """
    first = int(np.floor(-reach / shrink)) + 1
    places = (np.ceil(centres).astype(np.int64) - 1)[:, None] + np.arange(first, 2 - first)
    shares = curve((places - centres[:, None]) * shrink)
    if exclude_outside:
        shares = np.where((places >= 0) & (places < size), shares, 0)
    if exclude_outside or shrink < 1:
        total = shares.sum(axis=1, keepdims=True)
        shares = shares / np.where(total == 0, 1, total)
    return np.clip(places, 0, size - 1), shares


_TOGETHER = 64
"""How many output elements of an axis are computed by one matrix at most, and at least."""
_LEAST = 16
_WINDOW = 40
"""How many input elements a matrix should have: of many most are zeros."""
_APART = 18
"""From so many for each neighbour on, picking is faster."""


def weighted(x: Array, axis: int, sources: Array, shares: Array) -> Array:
    """The sum of each output element's neighbours along an axis, times their weights.

    By matrix products, for some output elements at a time with the input elements from the first to the last that they
    read: the zeros cost less than picking elements one by one, unless there are too many. Zeros times what is not
    finite would spread, so that such an input is summed by picking.
    """
    together = min(_TOGETHER, max(_LEAST, _WINDOW * len(sources) // x.shape[axis]))
    apart = together * x.shape[axis] >= _APART * sources.size
    if apart or x.dtype not in (np.float32, np.float64) or not np.isfinite(x).all():
        return _picked(x, axis, sources, shares)
    last = axis == x.ndim - 1
    lead, rest = x.shape[:axis], x.shape[axis + 1 :]
    wide = x.reshape(-1, x.shape[axis], *([] if last else [product(rest)]))
    result = np.empty((len(wide), len(sources), *wide.shape[2:]), x.dtype)
    matrices = []
    for start in range(0, len(sources), together):
        stop = min(start + together, len(sources))
        places = sources[start:stop]
        low, high = int(places.min()), int(places.max()) + 1
        matrix = np.zeros((stop - start, high - low))
        np.add.at(matrix, (np.arange(stop - start)[:, None], places - low), shares[start:stop])
        matrices.append((slice(start, stop), slice(low, high), matrix.astype(x.dtype)))

    def work(part: slice) -> None:
        for outs, ins, matrix in matrices:
            if last:
                np.matmul(wide[part, ins], matrix.T, out=result[part, outs])
            else:
                np.matmul(matrix, wide[part, ins], out=result[part, outs])

    hands = hands_for(result.size * FUNCTIONS)
    many = max(1, ceil_div(len(wide), hands))
    parts = [slice(start, start + many) for start in range(0, len(wide), many)]
    if hands > 1:
        share(work, parts)
    else:
        for part in parts:
            work(part)
    return result.reshape(*lead, len(sources), *rest)


FUNCTIONS = 4
"""What a product costs here for each number, as functions, for what threads are worth."""


def _picked(x: Array, axis: int, sources: Array, shares: Array) -> Array:
    """The same neighbour by neighbour. One that weighs nothing is read too, and may make a nan of infinity."""
    rest = x.shape[axis + 1 :]
    wide = np.ascontiguousarray(x).reshape(-1, x.shape[axis], product(rest))
    result = np.empty((len(wide), len(sources), wide.shape[2]), x.dtype)
    together = max(1, BLOCK_ELEMENTS // max(product(result.shape[1:]), 1))
    for first in range(0, len(wide), together):
        part, total = wide[first : first + together], result[first : first + together]
        for index, (source, weight) in enumerate(zip(sources.T, shares.T, strict=True)):
            room = scratch("picked", total.shape, x.dtype) if index else total
            part.take(source, axis=1, out=room, mode="clip")
            np.multiply(room, weight[:, None].astype(x.dtype), out=room)
            if index:
                np.add(total, room, out=total)
    return result.reshape(*x.shape[:axis], len(sources), *rest)


def centres_of(layer: Resize, axis: int, size: int) -> Array:
    """Which place of the input each output element of an axis is at, by the formulas of ONNX's Resize."""
    output = layer.shape[axis]
    scale = layer.scale(axis, size)
    # The length that the factor gives, before it is rounded down to whole elements.
    length = scale * size
    places = np.arange(output, dtype=np.float64)
    if layer.coordinates == "asymmetric":
        return places / scale
    if layer.coordinates == "align_corners":
        return places * ((size - 1) / (length - 1)) if length != 1 else places * 0
    if layer.coordinates == "tf_crop_and_resize":
        start, end = layer.region[axis] if layer.region is not None else (0.0, 1.0)
        if output > 1:
            return start * (size - 1) + places * ((end - start) * (size - 1) / (output - 1))
        return places + 0.5 * (start + end) * (size - 1)
    if layer.coordinates == "pytorch_half_pixel" and output == 1:
        return places
    centres = (places + 0.5) / scale - 0.5
    if layer.coordinates == "half_pixel_symmetric":
        centres += size / 2 * (1 - output / length)
    return centres


NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda centres: np.ceil(centres - 0.5),
    "round_prefer_ceil": lambda centres: np.floor(centres + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resized(layer: Resize, x: Array, axis: int) -> Array:
    """An array with one axis at its new size."""
    size = x.shape[axis]
    centres = centres_of(layer, axis, size)
    if layer.mode == "nearest":
        places = NEAREST[layer.nearest](centres).astype(np.int64)
        x = x.take(np.clip(places, 0, size - 1), axis=axis)
    else:
        curve, reach = (linear_curve, 1) if layer.mode == "linear" else (partial(cubic_curve, layer.cubic), 2)
        shrink = min(layer.scale(axis, size), 1.0) if layer.antialias else 1.0
        found = taps(centres, size, curve, reach, shrink=shrink, exclude_outside=layer.exclude_outside)
        x = weighted(x, axis, *found)
    if layer.coordinates == "tf_crop_and_resize":
        outside = ((centres < 0) | (centres > size - 1)).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        x = np.where(outside, np.asarray(layer.value, x.dtype), x)
    return x
