"""Layers that pick, repeat, join and spread the elements of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.resample import resized
from convcalc.layers.tensor import (
    Cast,
    DepthToSpace,
    Expand,
    Fill,
    Gather,
    GatherElements,
    PadAxes,
    Resize,
    Shaped,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
)

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
    """The slices that are named; negative places count from the end."""
    return (np.take(inputs[0], inputs[1], axis=layer.dim),)


@kernel(GatherElements)
def gather_elements(layer: GatherElements, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The elements that are named along one axis, in the places of the names."""
    key: list[Any] = list(np.indices(inputs[1].shape, sparse=True))
    key[layer.dim] = inputs[1]
    return (inputs[0][tuple(key)],)


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
    """The numbers in another type; bfloat16 is kept as float32."""
    return (inputs[0].astype("float32" if layer.dtype == "bfloat16" else layer.dtype),)


@kernel(Fill)
def fill(layer: Fill, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The value everywhere."""
    return (np.full(layer.shape, layer.value, layer.dtype),)


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
