"""Layers as ONNX has them and PyTorch has not: norms with their statistics, dropout with its mask, wide pools."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Weights, floats, kernel, kernel_of
from convcalc.executor.pool import window_counts
from convcalc.executor.sliding import reduce_windows
from convcalc.layers.norm import LayerNorm
from convcalc.layers.variants import BatchNormTraining, DropoutMask, LayerNormStatistics, WindowPool

MOMENTUM = 0.1
"""What running statistics take of the batch's where a layer does not say."""


@kernel(LayerNormStatistics)
def layer_norm_statistics(layer: LayerNormStatistics, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """What `LayerNorm` gives, the mean, and 1 / √(variance + eps)."""
    (x,) = inputs
    (y,) = kernel_of(LayerNorm)(layer, inputs, weights)
    axes = tuple(range(x.ndim - len(layer.bound), x.ndim))
    mean = x.mean(axis=axes, keepdims=True, dtype=np.float32)
    inverse = 1 / np.sqrt(x.var(axis=axes, keepdims=True, dtype=np.float32) + np.float32(layer.eps))
    return y, mean, inverse.astype(np.float32)


@kernel(DropoutMask)
def dropout_mask(layer: DropoutMask, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The input, and true for all of it, because nothing is dropped at inference."""
    return inputs[0], np.ones(inputs[0].shape, bool)


@kernel(BatchNormTraining)
def batch_norm_training(layer: BatchNormTraining, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Normalised by the statistics of the batch, and the running ones moved towards those by the momentum."""
    (x,) = inputs
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.result_type(x.dtype, np.float32), copy=False)
    mean, variance = wide.mean(axis=axes), wide.var(axis=axes)
    column = (-1, *(1,) * (x.ndim - 2))
    scale = weights["weight"] / np.sqrt(variance + layer.eps)
    y = (wide - mean.reshape(column)) * scale.reshape(column) + weights["bias"].reshape(column)
    share = MOMENTUM if layer.momentum is None else layer.momentum
    running = (
        (weights[name] * (1 - share) + now * share).astype(weights[name].dtype)
        for name, now in (("running_mean", mean), ("running_var", variance))
    )
    return (y.astype(x.dtype), *running)


@kernel(WindowPool)
def window_pool(layer: WindowPool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The sum of each window over its elements, or the root of the sum of its powers."""
    x = floats(inputs[0])
    (shape,) = layer.infer(x.shape)
    before = [pair[0] for pair in layer.padding]
    terms = abs(x) ** layer.power if layer.function == "lp" else x
    sums = np.empty(shape, terms.dtype)
    reduce_windows(np.add, terms, before, layer.kernel_size, layer.stride, layer.dilation, sums, fill=0)
    if layer.function == "lp":
        return ((sums ** (1 / layer.power)).astype(x.dtype, copy=False),)
    return ((sums / window_counts(layer, layer.dilation, x.shape, shape)).astype(x.dtype, copy=False),)
