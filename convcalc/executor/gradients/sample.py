"""Gradients of images at places between their pixels: of the image, and of where the places are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, matmul
from convcalc.executor.sample import (
    CUBIC,
    Places,
    as_columns,
    box_places,
    by_cells,
    centres,
    channels_last,
    corners,
    grid_places,
    neighbours,
    sampled,
    tap_centres,
    tap_places,
    turned_back,
)
from convcalc.layers.base import Shape
from convcalc.layers.sample import DeformConv, GridSample, RoiAlign


def _add_rows(total: Array, rows: Array, values: Array) -> None:
    """Add each of the values, (*rows, C), to its row of `total`, however many go to one."""
    width = total.shape[1]
    places = np.broadcast_to(rows, values.shape[:-1])[..., None] * width + np.arange(width)
    np.add.at(total.reshape(-1), places.reshape(-1), values.reshape(-1))


def _rows_back(total: Array, shape: Shape) -> Array:
    """Rows as `channels_last` makes them, as the (N, C, *sizes) that they are of."""
    return np.moveaxis(total.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _slopes(middles: Array, mode: str) -> Array:
    """By how much the weight of each neighbour changes with the centre: (taps, *places)."""
    if mode == "nearest":
        return np.zeros((1, *middles.shape), middles.dtype)
    if mode == "linear":  # of the neighbour before it falls, of that after it rises
        return np.broadcast_to(np.array([-1, 1], middles.dtype).reshape(2, *(1,) * middles.ndim), (2, *middles.shape))
    distance = np.stack([np.floor(middles) + step for step in range(-1, 3)]) - middles
    d = np.abs(distance)
    near = (3 * (CUBIC + 2) * d - 2 * (CUBIC + 3)) * d
    far = CUBIC * ((3 * d - 10) * d + 8)
    slopes: Array = -np.sign(distance) * np.where(d <= 1, near, far)
    return slopes


def _zeros_outside(slopes: Array, middles: Array, size: int, mode: str) -> Array:
    """The slopes, 0 of neighbours that are not there."""
    places, _ = neighbours(middles, size, mode)
    return np.where((places >= 0) & (places < size), slopes, 0)


def _sampled_gradient(places: Places, slopes: Sequence[Array], grad: Array) -> tuple[Array, list[Array]]:
    """The gradients of the image and of the centres along each axis, from that of the samples, (N, *places, C)."""
    x, along, which = places
    rows = channels_last(x)
    total = np.zeros_like(rows)
    moved = [np.zeros(grad.shape[:-1], grad.dtype) for _ in along]
    for taps, weight, row in corners(x, along, which):
        _add_rows(total, row, grad * weight[..., None])
        seen = (rows.take(row, axis=0) * grad).sum(axis=-1)
        for axis, slope in enumerate(slopes):
            part = seen
            for other, (tap, (_, shares)) in enumerate(zip(taps, along, strict=True)):
                part = part * (slope if other == axis else shares)[tap]
            moved[axis] += part
    return _rows_back(total, x.shape), moved


@gradient(GridSample)
def grid_sample_gradient(
    layer: GridSample, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """To the neighbours by their weights, and to the grid by the slopes of these; none at the border."""
    x, grid = inputs
    places = grid_places(layer, inputs)
    sizes = x.shape[2:]
    slopes, steps = [], []
    for axis, size in enumerate(sizes):
        middles = centres(layer, grid[..., len(sizes) - 1 - axis], size)
        inside = turned_back(layer, middles, size)
        slope = _slopes(inside, layer.mode)
        slopes.append(_zeros_outside(slope, inside, size, layer.mode) if layer.padding == "zeros" else slope)
        steps.append(_turns(layer, middles, inside, size) * ((size - 1 if layer.align_corners else size) / 2))
    of_x, moved = _sampled_gradient(places, slopes, np.moveaxis(grads[0], 1, -1))
    of_grid = [(of * step).astype(grid.dtype) for of, step in zip(moved, steps, strict=True)]
    return (of_x, np.stack(of_grid[::-1], axis=-1)), {}


def _turns(layer: GridSample, middles: Array, inside: Array, size: int) -> Array:
    """1 where a place inside moves as the one looked for, -1 where against it, 0 where it stays at the border."""
    if layer.mode == "cubic" or layer.padding == "zeros":
        return np.ones_like(middles)
    free = (inside > 0) & (inside < size - 1)
    if layer.padding == "border":
        return free.astype(middles.dtype)
    edge = 0.0 if layer.align_corners else 0.5
    turns = np.floor((middles + edge) / (size - 1 + 2 * edge or 1))
    return np.where(free, np.where(turns % 2 == 0, 1, -1), 0).astype(middles.dtype)


@gradient(DeformConv)
def deform_conv_gradient(
    layer: DeformConv, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The products' gradients, as of a convolution; through the columns to the mask, the image and the offsets."""
    x, offsets = inputs[:2]
    sizes = outputs[0].shape[2:]
    middles = tap_centres(layer, inputs, sizes)
    places = tap_places(layer, inputs, middles)
    samples = sampled(*places)
    mask = inputs[2].reshape(*samples.shape[:-1], 1) if layer.masked else np.ones((), x.dtype)
    grad = grads[0].reshape(len(x), layer.groups, layer.out_channels // layer.groups, -1)
    weight = weights["weight"].reshape(layer.groups, layer.out_channels // layer.groups, -1)
    columns = as_columns(layer, samples * mask, len(x))
    learned = {"weight": matmul(grad, columns.swapaxes(-1, -2)).sum(axis=0).reshape(weights["weight"].shape)}
    if layer.bias:
        learned["bias"] = grads[0].sum(axis=(0, *range(2, x.ndim)))
    back = matmul(weight.swapaxes(-1, -2), grad).reshape(samples.shape[0], samples.shape[-1], *samples.shape[1:-1])
    of_columns = np.moveaxis(back, 1, -1)
    slopes = [
        _zeros_outside(_slopes(centre, "linear"), centre, size, "linear")
        for centre, size in zip(middles, x.shape[2:], strict=True)
    ]
    of_x, moved = _sampled_gradient(places, slopes, of_columns * mask)
    found: list[Array] = [of_x.reshape(x.shape), np.stack(moved, axis=2).reshape(offsets.shape)]
    if layer.masked:
        found.append((of_columns * samples).sum(axis=-1).reshape(inputs[2].shape))
    return tuple(found), learned


@gradient(RoiAlign)
def roi_align_gradient(
    layer: RoiAlign, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """To the neighbours of each cell's samples by their weights, or of its largest in equal parts; boxes have none."""
    x, boxes, images = inputs
    rows = channels_last(x)
    total = np.zeros_like(rows)
    for grad, best, box, image in zip(grads[0], outputs[0], boxes, images, strict=True):
        along, counts = box_places(layer, x, box)
        if 0 in counts:
            continue
        # (height, 1, width, 1, C), beside the samples of each cell.
        of_cell, largest = (np.moveaxis(each, 0, -1)[:, None, :, None] for each in (grad, best))
        found = list(corners(x, along, np.array(image)))
        shape = (layer.output_size[0], counts[0], layer.output_size[1], counts[1], x.shape[1])
        if layer.mode == "avg":
            chosen = [np.float64(1 / (counts[0] * counts[1]))] * len(found)
        else:
            parts = (rows.take(row, axis=0) * weight[..., None] for _, weight, row in found)
            equal = [by_cells(layer, part, counts) == largest for part in parts]
            many = sum(each.sum(axis=(1, 3), keepdims=True) for each in equal)
            chosen = [each / many for each in equal]
        for (_, weight, row), share in zip(found, chosen, strict=True):
            values = np.broadcast_to(of_cell * share, shape).reshape(*weight.shape, -1) * weight[..., None]
            _add_rows(total, row, values.astype(x.dtype))
    return (_rows_back(total, x.shape), None, None), {}
