"""Gradients of what moves elements: where each went is what the kernel itself makes of their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel_of
from convcalc.layers import tensor as L
from convcalc.layers.base import Layer
from convcalc.layers.reduce import TopK
from convcalc.records import replace


def moved_back(
    layer: Layer, inputs: tuple[Array, ...], grads: tuple[Array, ...], which: Sequence[int] = (0,)
) -> tuple[Array | None, ...]:
    """The gradients of inputs whose elements a layer only moves or repeats: those at `which` places.

    The kernel gets whole numbers in their place, another for each element, from 1; what it fills in itself is 0.
    """
    marked, ends = list(inputs), [1]
    for index in which:
        marked[index] = np.arange(ends[-1], ends[-1] + inputs[index].size).reshape(inputs[index].shape)
        ends.append(ends[-1] + inputs[index].size)
    total = np.zeros(ends[-1], grads[0].dtype)
    for places, grad in zip(kernel_of(layer)(layer, tuple(marked), {}), grads, strict=True):
        np.add.at(total, places.ravel(), grad.ravel())
    found: list[Array | None] = [None] * len(inputs)
    for place, index in enumerate(which):
        found[index] = total[ends[place] : ends[place + 1]].reshape(inputs[index].shape)
    return tuple(found)


@gradient(L.Shaped, L.Slice, L.Split, L.Gather, L.GatherElements, L.GatherND, L.Expand, L.Tile, L.DepthToSpace,
          L.SpaceToDepth)  # fmt: skip
def move_gradient(
    layer: Layer, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient goes back to the element that it is a copy of."""
    return moved_back(layer, inputs, grads), {}


@gradient(L.PadAxes)
def pad_axes_gradient(
    layer: L.PadAxes, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Copies at the edges give theirs back; a constant has none."""
    return moved_back(replace(layer, value=0), inputs, grads), {}


@gradient(L.Scatter)
def scatter_gradient(
    layer: L.Scatter, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """What was replaced has none; what was added to goes on, and the updates have what stands in their places.

    Of products each has that of all others in its place; of equal maxima or minima each has its part.
    """
    x, places, updates = inputs
    if layer.reduction == "none":
        return moved_back(layer, inputs, grads, (0, 2)), {}
    reader = L.GatherND() if layer.dim is None else L.GatherElements(layer.dim)

    def read(array: Array) -> Array:
        return kernel_of(reader)(reader, (array, places), {})[0]

    def joined(reduction: str, start: Array, values: Array) -> Array:
        return kernel_of(layer)(replace(layer, reduction=reduction), (start, places, values), {})[0]

    (y,), (grad,) = outputs, grads
    if layer.reduction == "add":
        return (grad, None, read(grad)), {}
    if layer.reduction == "mul":
        zeros = joined("add", (x == 0).astype(np.int64), (updates == 0).astype(np.int64))
        product = joined("mul", np.where(x == 0, 1, x), np.where(updates == 0, 1, updates))

        def others(values: Array, zeros: Array, product: Array) -> Array:
            return np.where(zeros == (values == 0), product / np.where(values == 0, 1, values), 0)

        return (grad * others(x, zeros, product), None, read(grad) * others(updates, read(zeros), read(product))), {}
    of_x, of_updates = (x == y).astype(grad.dtype), (updates == read(y)).astype(grad.dtype)
    share = grad / joined("add", of_x, of_updates)
    return (share * of_x, None, read(share) * of_updates), {}


@gradient(L.Cast)
def cast_gradient(
    layer: L.Cast, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The gradient in the input's type, where that and the output are floats."""
    if inputs[0].dtype.kind != "f" or outputs[0].dtype.kind != "f":
        return (None,), {}
    return (grads[0].astype(inputs[0].dtype),), {}


@gradient(L.Fill)
def fill_gradient(
    layer: L.Fill, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """What comes in says nothing about what goes out."""
    return (None,) * len(inputs), {}


@gradient(L.Resize)
def resize_gradient(
    layer: L.Resize, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The product with the transpose of each axis's matrix: what the kernel makes of its unit vectors."""
    from convcalc.executor.resample import resized

    (grad,) = grads
    for axis, size in reversed(list(enumerate(inputs[0].shape))):
        if layer.changes(axis, size):
            # The unit vectors lie beside each other along an axis that is not the one that is resized.
            beside = 0 if axis else 1
            units = np.eye(size, dtype=grad.dtype)
            shape = [1] * max(grad.ndim, 2)
            shape[axis], shape[beside] = size, size
            matrix = resized(layer, units.reshape(shape), axis) - resized(layer, units.reshape(shape) * 0, axis)
            square = matrix.reshape((size, -1) if beside < axis else (-1, size))
            rows = square if beside < axis else square.T  # (input elements, output elements)
            grad = np.moveaxis(np.tensordot(rows, grad, (1, axis)), 0, axis)
    return (grad,), {}


@gradient(TopK)
def top_k_gradient(
    layer: TopK, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each gradient goes to the element that was chosen."""
    result = np.zeros(inputs[0].shape, grads[0].dtype)
    np.put_along_axis(result, outputs[1], grads[0], layer.dim)
    return (result,), {}
