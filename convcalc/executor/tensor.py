"""Layers that pick, repeat, join and spread the elements of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.resample import resized
from convcalc.layers.tensor import (
    Cast,
    DepthToSpace,
    Expand,
    Fill,
    Gather,
    GatherElements,
    GatherND,
    PadAxes,
    Resize,
    Scatter,
    Shaped,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
)
from convcalc.narrow import converted, holder

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@kernel(Shaped)
def shaped(layer: Shaped, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The same elements."""
    return (inputs[0].reshape(layer.shape),)


@kernel(Slice)
def sliced(layer: Slice, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A view with steps."""
    key: list[Any] = [slice(None)] * inputs[0].ndim
    for start, end, dim, step in zip(layer.starts, layer.ends, layer.dims, layer.steps, strict=True):
        key[dim] = slice(start, end, step)
    return (inputs[0][tuple(key)],)


@kernel(Split)
def split(layer: Split, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Views of the parts."""
    return tuple(np.split(inputs[0], np.cumsum(layer.sizes)[:-1], layer.dim))


@kernel(Gather)
def gather(layer: Gather, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The slices that are named."""
    x, places = inputs
    return (np.take(x, _places(places, x.shape[layer.dim]), axis=layer.dim),)


@kernel(GatherElements)
def gather_elements(layer: GatherElements, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The elements that are named along one axis, in the places of the names."""
    x, places = inputs
    flat = _along_rows(places, layer.dim, x)
    return (x[_along(places, layer.dim, x.shape[layer.dim])] if flat is None else x.reshape(-1).take(flat),)


def _along_rows(places: Array, dim: int, x: Array) -> Array | None:
    """The places as those of the whole array, where they are along rows that lie without gaps; else None."""
    last = dim in (-1, x.ndim - 1) and places.shape[:-1] == x.shape[:-1] and places.ndim == x.ndim
    if not last or not x.flags.c_contiguous or not places.size:
        return None
    size = x.shape[-1]
    places = _places(places, size).astype(np.int64, copy=False)
    if places.min() < 0:
        places = places % size
    starts = np.arange(0, x.size, size).reshape(*x.shape[:-1], 1)
    return places + starts


def _along(places: Array, dim: int, size: int) -> tuple[Any, ...]:
    """What picks for each of these places the element that it names along one axis of this size."""
    key: list[Any] = list(np.indices(places.shape, sparse=True))
    key[dim] = _places(places, size)
    return tuple(key)


def _places(places: Array, size: int) -> Array:
    """Places along an axis; negative ones count from the end. Raises `ShapeError` for one that is outside."""
    if places.size and not -size <= places.min() <= places.max() < size:
        wrong = int(places.min()) if places.min() < -size else int(places.max())
        raise ShapeError(f"a place is {wrong}, but must be from {-size} to {size - 1}", field="input1", value=wrong)
    return places


@kernel(GatherND)
def gather_nd(layer: GatherND, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The parts whose first places the last axis names, after the axes that both have."""
    x, places = inputs
    return (x[_tuples(places, x.shape, layer.batch_dims)],)


def _tuples(places: Array, shape: tuple[int, ...], shared: int = 0) -> tuple[Any, ...]:
    """What picks the parts of an array of this shape that tuples along the last axis name, after shared axes."""
    lead = [
        np.arange(size).reshape(-1, *(1,) * (places.ndim - 2 - axis)) for axis, size in enumerate(places.shape[:shared])
    ]
    named = [_places(places[..., axis], shape[shared + axis]) for axis in range(places.shape[-1])]
    return (*lead, *named)


_REDUCTIONS: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@kernel(Scatter)
def scatter(layer: Scatter, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A copy with the updates in their places, or joined with what stands there; of several for one, all are."""
    x, places, updates = inputs
    result = x.copy()
    flat = None if layer.dim is None or layer.reduction != "none" else _along_rows(places, layer.dim, result)
    if flat is not None:
        result.reshape(-1)[flat] = updates
        return (result,)
    key = _tuples(places, x.shape) if layer.dim is None else _along(places, layer.dim, x.shape[layer.dim])
    if layer.reduction == "none":
        result[key] = updates
    else:
        _REDUCTIONS[layer.reduction].at(result, key, updates)
    return (result,)


@kernel(Expand)
def expand(layer: Expand, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A view that repeats."""
    return (np.broadcast_to(inputs[0], layer.infer(inputs[0].shape)[0]),)


@kernel(Tile)
def tile(layer: Tile, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Copies side by side."""
    return (np.tile(inputs[0], layer.repeats),)


@kernel(Cast)
def cast(layer: Cast, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The numbers in another type; those that NumPy does not have are held in one that it has."""
    return (converted(inputs[0], layer.dtype, saturate=layer.saturate, mode=layer.rounding),)


@kernel(Fill)
def fill(layer: Fill, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The value everywhere."""
    return (np.full(layer.shape, layer.value, holder(layer.dtype)),)


@kernel(PadAxes)
def pad_axes(layer: PadAxes, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Cropped where the padding is negative, then padded."""
    x = inputs[0]
    pairs = zip(x.shape, layer.padding, strict=True)
    x = x[tuple(slice(max(-before, 0), size - max(-after, 0)) for size, (before, after) in pairs)]
    width = [(max(before, 0), max(after, 0)) for before, after in layer.padding]
    more = {"constant_values": layer.value} if layer.mode == "constant" else {}
    return (np.pad(x, width, _PAD_MODES[layer.mode], **more),)  # type: ignore[call-overload]  # the mode by name


@kernel(DepthToSpace)
def depth_to_space(layer: DepthToSpace, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The channels cut into blocks, the blocks laid out as pixels."""
    batch, channels, height, width = inputs[0].shape
    size = layer.blocksize
    if layer.mode == "DCR":
        x = inputs[0].reshape(batch, size, size, channels // size**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = inputs[0].reshape(batch, channels // size**2, size, size, height, width).transpose(0, 1, 4, 2, 5, 3)
    return (x.reshape(batch, channels // size**2, height * size, width * size),)


@kernel(SpaceToDepth)
def space_to_depth(layer: SpaceToDepth, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The pixels cut into blocks, the blocks laid out as channels."""
    batch, channels, height, width = inputs[0].shape
    size = layer.blocksize
    x = inputs[0].reshape(batch, channels, height // size, size, width // size, size)
    x = x.transpose((0, 3, 5, 1, 2, 4) if layer.mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return (x.reshape(batch, channels * size**2, height // size, width // size),)


@kernel(Resize)
def resize(layer: Resize, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Axis after axis, in the input's type: whole numbers are rounded, and held to what the type can be."""
    (x,) = inputs
    wide = x.astype(np.result_type(x.dtype, np.float32), copy=False) if layer.mode != "nearest" else x
    for axis, size in enumerate(x.shape):
        if layer.changes(axis, size):
            wide = resized(layer, wide, axis)
    if x.dtype.kind in "iu" and wide.dtype != x.dtype:
        limits = np.iinfo(x.dtype)
        wide = np.clip(np.rint(wide), limits.min, limits.max)
    return (wide.astype(x.dtype, copy=False),)
