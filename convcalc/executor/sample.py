"""Images at places between their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product as each_of
from typing import NamedTuple

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.resample import cubic_curve, linear_curve
from convcalc.layers.sample import DeformConv, GridSample, RoiAlign

Taps = tuple[Array, Array]
"""Neighbours along one axis and their weights, (taps, *places) both."""
_FAR = 2.0**30
"""Beyond any axis."""
CUBIC = -0.75
"""PyTorch's and ONNX's parameter of cubic weights."""


def sampled(x: Array, along: Sequence[Taps], which: Array, join: np.ufunc = np.add) -> Array:
    """x, (N, C, *sizes), at places between its elements: (N, *places, C). `which` is the first axis's place of each.

    `join` is what is done with the weighted neighbours of a place.
    """
    rows = channels_last(x)
    total: Array | None = None
    for _, weight, row in corners(x, along, which):
        part = rows.take(row, axis=0)
        part *= weight[..., None]
        total = part if total is None else join(total, part, out=total)
    assert total is not None
    return total


def channels_last(x: Array) -> Array:
    """(N, C, *sizes) as rows of the channels of one place each."""
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return last.reshape(-1, last.shape[-1])


def corners(x: Array, along: Sequence[Taps], which: Array) -> Iterator[tuple[tuple[int, ...], Array, Array]]:
    """Neighbour by neighbour: its place among the taps of each axis, its weights, and its rows of `channels_last`."""
    for taps in each_of(*(range(len(places)) for places, _ in along)):
        weight, row = np.ones((), x.dtype), which
        for (places, shares), tap, size in zip(along, taps, x.shape[2:], strict=True):
            weight = weight * shares[tap].astype(x.dtype)
            row = row * size + places[tap]
        yield taps, weight, row


def neighbours(middles: Array, size: int, mode: str) -> Taps:
    """The neighbours of each centre along an axis, as they are, and their weights."""
    middles = np.clip(np.nan_to_num(middles, nan=-1.0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)
    if mode == "nearest":
        return np.rint(middles).astype(np.int64)[None], np.ones((1, *middles.shape), middles.dtype)
    curve, reach = (linear_curve, 1) if mode == "linear" else (partial(cubic_curve, CUBIC), 2)
    first = np.floor(middles).astype(np.int64)
    places = np.stack([first + step for step in range(1 - reach, 1 + reach)])
    return places, curve(places - middles)


def _zeros_outside(taps: Taps, size: int) -> Taps:
    places, shares = taps
    inside = (places >= 0) & (places < size)
    return np.where(inside, places, 0), np.where(inside, shares, 0)


def _reflected(x: Array, size: int, *, corners: bool) -> Array:
    """Places outside turned back at the ends: at the middles of the outermost pixels, or at their edges."""
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if high == low:
        return np.zeros_like(x)
    away = np.abs(x - low)
    turns = np.floor(away / (high - low))
    rest = away - turns * (high - low)
    return np.clip(np.where(turns % 2 == 0, low + rest, high - rest), 0, size - 1)


def centres(layer: GridSample, grid: Array, size: int) -> Array:
    """Where in the pixels of an axis coordinates from -1 to 1 are, some maybe outside."""
    found: Array = (grid + 1) / 2 * (size - 1) if layer.align_corners else ((grid + 1) * size - 1) / 2
    return found


def turned_back(layer: GridSample, places: Array, size: int) -> Array:
    """What is looked for in their stead inside; of a cubic the neighbours are turned back, each by itself."""
    if layer.mode == "cubic" or layer.padding == "zeros":
        return places
    if layer.padding == "border":
        return np.clip(places, 0, size - 1)
    return _reflected(places, size, corners=layer.align_corners)


def _grid_taps(layer: GridSample, grid: Array, size: int) -> Taps:
    """Along one axis, for coordinates from -1 to 1."""
    taps = neighbours(turned_back(layer, centres(layer, grid, size), size), size, layer.mode)
    if layer.padding == "zeros":
        return _zeros_outside(taps, size)
    places, shares = taps
    if layer.padding == "reflection" and layer.mode == "cubic":
        places = _reflected(places.astype(np.float64), size, corners=layer.align_corners).astype(np.int64)
    return np.clip(places, 0, size - 1), shares


class Places(NamedTuple):
    """What is looked at: (N, C, *sizes), the neighbours along each axis, and the first axis's place of each sample."""

    x: Array
    along: list[Taps]
    which: Array


def grid_places(layer: GridSample, inputs: tuple[Array, ...]) -> Places:
    """The places of a grid."""
    x, grid = inputs
    sizes = x.shape[2:]
    along = [_grid_taps(layer, grid[..., len(sizes) - 1 - axis], size) for axis, size in enumerate(sizes)]
    return Places(x, along, np.arange(len(x)).reshape(-1, *(1,) * len(sizes)))


@kernel(GridSample)
def grid_sample(layer: GridSample, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A weighted sum of the neighbours of each place."""
    return (np.ascontiguousarray(np.moveaxis(sampled(*grid_places(layer, inputs)), -1, 1)),)


def tap_centres(layer: DeformConv, inputs: tuple[Array, ...], outputs: Sequence[int]) -> list[Array]:
    """Where along each axis every tap looks: (N·offset_groups, taps, *outputs)."""
    x, offsets = inputs[:2]
    rank, taps = len(outputs), int(np.prod(layer.kernel_size))
    offsets = offsets.reshape(len(x) * layer.offset_groups, taps, rank, *outputs)
    steps = np.indices(layer.kernel_size).reshape(rank, taps)
    found = []
    for axis in range(rank):
        start = np.arange(outputs[axis]) * layer.stride[axis] - layer.padding[axis][0]
        wide = start.reshape(-1, *(1,) * (rank - 1 - axis))
        tap = (steps[axis] * layer.dilation[axis]).reshape(taps, *(1,) * rank)
        found.append(offsets[:, :, axis] + (wide + tap).astype(offsets.dtype))
    return found


def tap_places(layer: DeformConv, inputs: tuple[Array, ...], found: Sequence[Array]) -> Places:
    """The places of all taps, whose centres are these; each group of channels is an image of its own."""
    x = inputs[0]
    sizes = zip(found, x.shape[2:], strict=True)
    along = [_zeros_outside(neighbours(each, size, "linear"), size) for each, size in sizes]
    parts = x.reshape(len(x) * layer.offset_groups, -1, *x.shape[2:])
    return Places(parts, along, np.arange(len(parts)).reshape(-1, *(1,) * (len(found) + 1)))


def as_columns(layer: DeformConv, samples: Array, batch: int) -> Array:
    """(N·offset_groups, taps, *outputs, C) as (N, groups, C·taps, outputs) for the products of each group."""
    return np.moveaxis(samples, -1, 1).reshape(batch, layer.groups, -1, int(np.prod(samples.shape[2:-1])))


@kernel(DeformConv)
def deform_conv(layer: DeformConv, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Columns of samples, and a product for each group."""
    (batch, channels, *outputs), *_ = layer.infer(*(array.shape for array in inputs))
    samples = sampled(*tap_places(layer, inputs, tap_centres(layer, inputs, outputs)))
    if layer.masked:
        samples = samples * inputs[2].reshape(*samples.shape[:-1], 1)
    weight = weights["weight"].reshape(layer.groups, layer.out_channels // layer.groups, -1)
    found = np.matmul(weight, as_columns(layer, samples, batch)).reshape(batch, channels, *outputs)
    return (found + weights["bias"].reshape(-1, *(1,) * len(outputs)) if layer.bias else found,)


class Box(NamedTuple):
    """The rows and columns of samples of a box: their places and weights, and how many a cell has along each axis."""

    along: list[Taps]
    counts: list[int]


def box_places(layer: RoiAlign, x: Array, box: Array) -> Box:
    """The samples of all cells of a box."""
    along, counts = [], []
    for axis, size in enumerate(x.shape[2:]):
        ((_, count, (places, shares)),) = _samples(layer, axis, size, box[None], x.dtype)
        spread = (slice(None), 0, slice(None), None) if axis == 0 else (slice(None), 0, None)
        along.append((places[spread], shares[spread]))
        counts.append(count)
    return Box(along, counts)


def _samples(
    layer: RoiAlign, axis: int, size: int, boxes: Array, dtype: np.dtype[np.floating]
) -> Iterator[tuple[Array, int, Taps]]:
    """The samples along an axis, (taps, boxes, samples), of boxes whose cells have equally many: which, how many."""
    shift = 0.5 if layer.half_pixel else 0.0
    cells = layer.output_size[axis]
    starts, ends = (boxes[:, 1 - axis + 2 * far] * layer.scale - shift for far in (0, 1))
    # Boxes without the shift have a pixel at least.
    lengths = ends - starts if layer.half_pixel else np.maximum(ends - starts, 1.0)
    counts = np.maximum(np.ceil(lengths / cells), 0).astype(np.int64)
    if layer.ratio:
        counts = np.full(len(boxes), layer.ratio)
    for count in np.unique(counts).tolist():
        which = np.flatnonzero(counts == count)
        steps = lengths[which] / cells / max(count, 1)
        found = starts[which, None] + (np.arange(cells * count) + 0.5) * steps[:, None]
        yield which, count, _clamped(found.astype(dtype), size)


@kernel(RoiAlign)
def roi_align(layer: RoiAlign, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Box by box: the samples of all cells, and the mean or the largest of each cell's."""
    x, boxes, images = inputs
    if images.size and not 0 <= images.min() <= images.max() < len(x):
        raise ShapeError(f"a box is of image {images.max()}, but there are {len(x)}", field="input2")
    results = np.empty((len(boxes), x.shape[1], *layer.output_size), x.dtype)
    if layer.mode == "avg" and np.isfinite(x).all():
        _means_of_boxes(layer, x, boxes, images, results)
        return (results,)
    # The largest is that of all weighted neighbours, as ONNX and onnxruntime compute it, not of the samples.
    join = np.maximum if layer.mode == "max" else np.add
    for place, (box, image) in enumerate(zip(boxes, images, strict=True)):
        along, counts = box_places(layer, x, box)
        if 0 in counts:
            results[place] = 0
            continue
        cells = by_cells(layer, sampled(x, along, np.array(image), join), counts)
        found = cells.max(axis=(1, 3)) if layer.mode == "max" else cells.mean(axis=(1, 3))
        results[place] = np.moveaxis(found, -1, 0)
    return (results,)


def _means_of_boxes(layer: RoiAlign, x: Array, boxes: Array, images: Array, results: Array) -> None:
    """Box by box: the means of cells are weighted sums along one axis and then the other, and so matrix products.

    Of numbers that are all finite: zeros times others would spread.
    """
    channels, *sizes = x.shape[1:]
    (down, rows), (across, columns) = (_averaging(layer, axis, size, boxes, x.dtype) for axis, size in enumerate(sizes))
    for image in np.unique(images):
        channels_of = channels_last(x[image : image + 1]).reshape(sizes[0], -1)
        for place in np.flatnonzero(images == image):
            (top, bottom), (left, right) = rows[place].tolist(), columns[place].tolist()
            part = down[place, :, top:bottom] @ channels_of[top:bottom, left * channels : right * channels]
            found = across[place, :, left:right] @ part.reshape(len(part), right - left, channels)
            results[place] = np.moveaxis(found, -1, 0)


def _averaging(
    layer: RoiAlign, axis: int, size: int, boxes: Array, dtype: np.dtype[np.floating]
) -> tuple[Array, Array]:
    """What each element weighs in the mean of a cell's samples, (boxes, cells, size), and from where to where it does.

    A box without samples has zeros.
    """
    cells = layer.output_size[axis]
    matrices, spans = np.zeros((len(boxes), cells, size), dtype), np.zeros((len(boxes), 2), np.int64)
    for which, count, (places, shares) in _samples(layer, axis, size, boxes, dtype):
        if count:
            found = np.zeros((len(which), cells, size))
            np.add.at(found, (np.arange(len(which))[:, None], np.arange(cells * count) // count, places), shares)
            matrices[which] = found / count
            spans[which] = np.stack([places.min(axis=(0, 2)), places.max(axis=(0, 2)) + 1], axis=1)
    return matrices, spans


def _clamped(found: Array, size: int) -> Taps:
    """Up to a pixel outside is as the edge, farther is zero."""
    outside = (found < -1) | (found > size)
    places, shares = neighbours(np.clip(found, 0, size - 1), size, "linear")
    return np.clip(places, 0, size - 1), np.where(outside, 0, shares)


def by_cells(layer: RoiAlign, samples: Array, counts: Sequence[int]) -> Array:
    """(rows, columns, C) of samples as (height, rows of a cell, width, columns of a cell, C)."""
    (height, width), (down, across) = layer.output_size, counts
    return samples.reshape(height, down, width, across, -1)
