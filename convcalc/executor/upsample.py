"""Upsampling: each axis by itself, every output element a weighted sum of a few input elements."""

from __future__ import annotations

from functools import partial

import numpy as np

from convcalc.executor.adaptive import averages, averages_gradient
from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.resample import Taps, cubic_curve, linear_curve, taps, weighted
from convcalc.layers.upsample import Upsample


def _ratio(layer: Upsample, axis: int, size: int, output: int) -> float:
    """Input elements for each output element: by the factor where one is to be used, else by the sizes."""
    factors = layer.scale_factor
    if factors is None or layer.recompute_scale_factor:
        return size / output
    return 1 / factors[axis if len(factors) > 1 else 0]


def _taps(layer: Upsample, axis: int, size: int, output: int) -> Taps:
    """The input elements that each output element is made of, and their weights: (output, taps) both."""
    places = np.arange(output)
    ratio = _ratio(layer, axis, size, output)
    if layer.mode in ("nearest", "nearest-exact"):
        middle = 0.5 if layer.mode == "nearest-exact" else 0.0
        # PyTorch computes this in float32, which decides where the product is next to a whole number.
        sources = np.floor((places + np.float32(middle)).astype(np.float32) * np.float32(ratio)).astype(np.int64)
        return np.minimum(sources, size - 1)[:, None], np.ones((output, 1))
    if layer.align_corners:
        centres = places * ((size - 1) / (output - 1)) if output > 1 else places * 0.0
    else:
        centres = (places + 0.5) * ratio - 0.5
    if layer.mode == "bicubic":
        return taps(centres, size, partial(cubic_curve, -0.75), 2)
    return taps(np.maximum(centres, 0.0), size, linear_curve, 1)


@kernel(Upsample)
def upsample(layer: Upsample, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Axis after axis."""
    (x,) = inputs
    (shape,) = layer.infer(x.shape)
    if layer.mode == "area":
        return (averages(floats(x), shape),)
    for axis, output in enumerate(shape[2:]):
        sources, shares = _taps(layer, axis, x.shape[2 + axis], output)
        if sources.shape[1] == 1:
            x = x.take(sources[:, 0], axis=2 + axis)
            continue
        x = weighted(floats(x), 2 + axis, sources, shares)
    return (x,)


@gradient(Upsample)
def upsample_gradient(
    layer: Upsample, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Every output's gradient, times the weight of each input element, added up there."""
    shape, grad = inputs[0].shape, grads[0]
    if layer.mode == "area":
        return (averages_gradient(grad, shape),), {}
    for axis, size in enumerate(shape[2:]):
        sources, shares = _taps(layer, axis, size, grad.shape[2 + axis])
        moved = np.moveaxis(grad, 2 + axis, 0)
        result = np.zeros((size, *moved.shape[1:]), grad.dtype)
        for source, share in zip(sources.T, shares.T, strict=True):
            np.add.at(result, source, moved * share.reshape(-1, *(1,) * (moved.ndim - 1)).astype(grad.dtype))
        grad = np.moveaxis(result, 0, 2 + axis)
    return (grad,), {}
