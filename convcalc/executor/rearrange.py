"""Layers that give the same numbers other axes."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.executor.reshape import reshape, reshape_gradient
from convcalc.layers.base import Layer
from convcalc.layers.rearrange import (
    ChannelShuffle,
    Identity,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Unflatten,
)

kernel(Identity, Reshape, Unflatten)(reshape)
gradient(Identity, Reshape, Unflatten)(reshape_gradient)


@kernel(Permute)
def permute(layer: Permute, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The axes in their new order."""
    return (inputs[0].transpose(layer.dims),)


@kernel(ChannelShuffle)
def channel_shuffle(layer: ChannelShuffle, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Groups by channels of a group, turned."""
    (x,) = inputs
    return (x.reshape(x.shape[0], layer.groups, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape),)


@kernel(PixelShuffle)
def pixel_shuffle(layer: PixelShuffle, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """(..., C, r, r, H, W) as (..., C, H, r, W, r)."""
    (x,) = inputs
    factor = layer.upscale_factor
    parts = x.reshape(*x.shape[:-3], -1, factor, factor, *x.shape[-2:])
    result = np.empty(layer.infer(x.shape)[0], x.dtype)
    spread = result.reshape(*result.shape[:-2], x.shape[-2], factor, x.shape[-1], factor)
    # In one go NumPy would copy a factor's numbers at a time.
    for row, column in np.ndindex(factor, factor):
        spread[..., row, :, column] = parts[..., row, column, :, :]
    return (result,)


@kernel(PixelUnshuffle)
def pixel_unshuffle(layer: PixelUnshuffle, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """(..., C, H, r, W, r) as (..., C, r, r, H, W)."""
    (x,) = inputs
    factor = layer.downscale_factor
    height, width = x.shape[-2] // factor, x.shape[-1] // factor
    parts = x.reshape(*x.shape[:-2], height, factor, width, factor)
    return (np.moveaxis(parts, (-3, -1), (-4, -3)).reshape(layer.infer(x.shape)[0]),)


@gradient(Permute, ChannelShuffle, PixelShuffle, PixelUnshuffle)
def moved_gradient(
    layer: Layer, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Back to where each number came from, which the layer itself tells of numbered places."""
    (x,) = inputs
    kernel_function = {
        "permute": permute,
        "channelshuffle": channel_shuffle,
        "pixelshuffle": pixel_shuffle,
        "pixelunshuffle": pixel_unshuffle,
    }[layer.kind]
    (sources,) = kernel_function(layer, (np.arange(x.size).reshape(x.shape),), weights)  # type: ignore[operator]  # one of four
    result = np.empty(x.size, grads[0].dtype)
    result[sources.ravel()] = grads[0].ravel()
    return (result.reshape(x.shape),), {}
