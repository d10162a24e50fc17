"""Images at places between their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product as each_of

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.resample import cubic_curve, linear_curve
from convcalc.layers.sample import DeformConv, GridSample, RoiAlign

Taps = tuple[Array, Array]
"""Neighbours along one axis and their weights, (taps, *places) both."""
_FAR = 2.0**30
"""Beyond any axis."""


def sampled(x: Array, along: Sequence[Taps], which: Array, join: np.ufunc = np.add) -> Array:
    """x, (N, C, *sizes), at places between its elements: (N, *places, C). `which` is the first axis's place of each.

    `join` is what is done with the weighted neighbours of a place.
    """
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    rows = last.reshape(-1, last.shape[-1])
    total: Array | None = None
    for taps in each_of(*(range(len(places)) for places, _ in along)):
        weight, row = np.ones((), x.dtype), which
        for (places, shares), tap, size in zip(along, taps, x.shape[2:], strict=True):
            weight = weight * shares[tap].astype(x.dtype)
            row = row * size + places[tap]
        part = rows.take(row, axis=0)
        part *= weight[..., None]
        total = part if total is None else join(total, part, out=total)
    assert total is not None
    return total


def _neighbours(centres: Array, size: int, mode: str) -> Taps:
    """The neighbours of each centre along an axis, as they are, and their weights."""
    centres = np.clip(np.nan_to_num(centres, nan=-1.0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)
    if mode == "nearest":
        return np.rint(centres).astype(np.int64)[None], np.ones((1, *centres.shape), centres.dtype)
    curve, reach = (linear_curve, 1) if mode == "linear" else (partial(cubic_curve, -0.75), 2)
    first = np.floor(centres).astype(np.int64)
    places = np.stack([first + step for step in range(1 - reach, 1 + reach)])
    return places, curve(places - centres)


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


def _grid_taps(layer: GridSample, grid: Array, size: int) -> Taps:
    """Along one axis, for coordinates from -1 to 1."""
    centres = (grid + 1) / 2 * (size - 1) if layer.align_corners else ((grid + 1) * size - 1) / 2
    smooth = layer.mode == "cubic"
    # What is nearest is looked for before the place is turned back, and a cubic's neighbours are turned back each.
    if layer.padding == "border" and not smooth:
        centres = np.clip(centres, 0, size - 1)
    elif layer.padding == "reflection" and not smooth:
        centres = _reflected(centres, size, corners=layer.align_corners)
    taps = _neighbours(centres, size, layer.mode)
    if layer.padding == "zeros":
        return _zeros_outside(taps, size)
    places, shares = taps
    if layer.padding == "reflection" and smooth:
        places = _reflected(places.astype(np.float64), size, corners=layer.align_corners).astype(np.int64)
    return np.clip(places, 0, size - 1), shares


@kernel(GridSample)
def grid_sample(layer: GridSample, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A weighted sum of the neighbours of each place."""
    x, grid = inputs
    sizes = x.shape[2:]
    along = [_grid_taps(layer, grid[..., len(sizes) - 1 - axis], size) for axis, size in enumerate(sizes)]
    which = np.arange(len(x)).reshape(-1, *(1,) * len(sizes))
    return (np.ascontiguousarray(np.moveaxis(sampled(x, along, which), -1, 1)),)


@kernel(DeformConv)
def deform_conv(layer: DeformConv, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Columns of samples, and a product for each group."""
    x, offsets, *masks = inputs
    (batch, channels, *outputs), *_ = layer.infer(*(array.shape for array in inputs))
    rank, groups, taps = len(outputs), layer.offset_groups, int(np.prod(layer.kernel_size))
    offsets = offsets.reshape(batch * groups, taps, rank, *outputs)
    steps = np.indices(layer.kernel_size).reshape(rank, taps)
    along = []
    for axis, size in enumerate(x.shape[2:]):
        start = np.arange(outputs[axis]) * layer.stride[axis] - layer.padding[axis][0]
        wide = start.reshape(-1, *(1,) * (rank - 1 - axis))
        tap = (steps[axis] * layer.dilation[axis]).reshape(taps, *(1,) * rank)
        centres = offsets[:, :, axis] + (wide + tap).astype(offsets.dtype)
        along.append(_zeros_outside(_neighbours(centres, size, "linear"), size))
    parts = x.reshape(batch * groups, -1, *x.shape[2:])
    which = np.arange(batch * groups).reshape(-1, *(1,) * (rank + 1))
    columns = sampled(parts, along, which)
    if masks:
        columns = columns * masks[0].reshape(batch * groups, taps, *outputs, 1)
    # (N·groups, taps, *outputs, C) -> (N, C, taps, outputs), cut into the convolution's groups.
    columns = np.moveaxis(columns, -1, 1).reshape(batch, layer.groups, -1, int(np.prod(outputs)))
    weight = weights["weight"].reshape(layer.groups, layer.out_channels // layer.groups, -1)
    found = np.matmul(weight, columns).reshape(batch, channels, *outputs)
    return (found + weights["bias"].reshape(-1, *(1,) * rank) if layer.bias else found,)


@kernel(RoiAlign)
def roi_align(layer: RoiAlign, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Box by box: the samples of all cells, and the mean or the largest of each cell's."""
    x, boxes, images = inputs
    if images.size and not 0 <= images.min() <= images.max() < len(x):
        raise ShapeError(f"a box is of image {images.max()}, but there are {len(x)}", field="input2")
    shift = 0.5 if layer.half_pixel else 0.0
    results = np.empty((len(boxes), x.shape[1], *layer.output_size), x.dtype)
    for place, (box, image) in enumerate(zip(boxes, images, strict=True)):
        along, counts = [], []
        for axis, size in enumerate(x.shape[2:]):
            cells = layer.output_size[axis]
            start, end = (box[1 - axis + 2 * far] * layer.scale - shift for far in (0, 1))
            # Boxes without the shift have a pixel at least.
            length = end - start if layer.half_pixel else max(end - start, 1.0)
            count = layer.ratio or max(int(np.ceil(length / cells)), 0)
            counts.append(count)
            centres = start + (np.arange(cells * count) + 0.5) * (length / cells / max(count, 1))
            along.append(_clamped(centres.astype(x.dtype), size))
        rows, columns = (
            (places[:, :, None], shares[:, :, None]) if axis == 0 else (places[:, None], shares[:, None])
            for axis, (places, shares) in enumerate(along)
        )
        # The largest is that of all weighted neighbours, as ONNX and onnxruntime compute it, not of the samples.
        join = np.maximum if layer.mode == "max" else np.add
        found = _cells(layer, sampled(x, [rows, columns], np.array(image), join), counts)
        results[place] = np.moveaxis(found, -1, 0)
    return (results,)


def _clamped(centres: Array, size: int) -> Taps:
    """Up to a pixel outside is as the edge, farther is zero."""
    outside = (centres < -1) | (centres > size)
    places, shares = _neighbours(np.clip(centres, 0, size - 1), size, "linear")
    return np.clip(places, 0, size - 1), np.where(outside, 0, shares)


def _cells(layer: RoiAlign, samples: Array, counts: Sequence[int]) -> Array:
    """(rows, columns, C) of samples as (*output_size, C)."""
    if 0 in counts:
        return np.zeros((*layer.output_size, samples.shape[-1]), samples.dtype)
    (height, width), (down, across) = layer.output_size, counts
    cells = samples.reshape(height, down, width, across, -1)
    found: Array = cells.max(axis=(1, 3)) if layer.mode == "max" else cells.mean(axis=(1, 3))
    return found
