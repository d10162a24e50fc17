"""Padding, and cropping to another array's size."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.windows import pad, unpad
from convcalc.layers.pad import Crop, Pad


@kernel(Pad)
def padding(layer: Pad, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The input with more around it, or less."""
    (x,) = inputs
    if layer.mode == "constant" and not float(layer.value).is_integer():
        x = floats(x)
    return (pad(x, layer.padding, layer.mode, layer.value),)


@gradient(Pad)
def padding_gradient(
    layer: Pad, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Added up over the copies of each element."""
    return (unpad(grads[0], layer.padding, inputs[0].shape[2:], layer.mode),), {}


@kernel(Crop)
def crop(layer: Crop, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The middle."""
    return (inputs[0][_middle(layer, inputs)],)


@gradient(Crop)
def crop_gradient(
    layer: Crop, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Zeros around the gradient; the second input has none."""
    result = np.zeros(inputs[0].shape, grads[0].dtype)
    result[_middle(layer, inputs)] = grads[0]
    return (result, None), {}


def _middle(layer: Crop, inputs: tuple[Array, ...]) -> tuple[slice, ...]:
    offsets = layer.offsets([x.shape for x in inputs])
    cut = [slice(offset, offset + size) for offset, size in zip(offsets, inputs[1].shape[2:], strict=True)]
    return (slice(None), slice(None), *cut)
