"""Gradients of layers as ONNX has them and PyTorch has not."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, gradient, gradient_of
from convcalc.executor.pool import spread_windows, window_counts
from convcalc.executor.variants import MOMENTUM
from convcalc.layers.norm import BatchNorm, LayerNorm
from convcalc.layers.variants import BatchNormTraining, DropoutMask, LayerNormStatistics, WindowPool


@gradient(LayerNormStatistics)
def layer_norm_statistics_gradient(
    layer: Any, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """`LayerNorm`'s; and that of the mean, and of the inverse deviation s, -s³·(x - mean) for each of n elements."""
    (of_x,), learned = gradient_of(LayerNorm)(layer, inputs, outputs[:1], weights, grads[:1])
    (x,), (_, mean, inverse) = inputs, outputs
    count = x.size // mean.size
    of_x = of_x + (grads[1] - grads[2] * inverse**3 * (x - mean)) / count
    return (of_x.astype(x.dtype),), learned


@gradient(DropoutMask)
def dropout_mask_gradient(
    layer: DropoutMask,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """The gradient itself."""
    return (grads[0],), {}


@gradient(BatchNormTraining)
def batch_norm_training_gradient(
    layer: BatchNormTraining,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """`BatchNorm`'s through the statistics of the batch; the running ones take their share of those."""
    learned = {name: weights[name] for name in ("weight", "bias")}
    (of_x,), found = gradient_of(BatchNorm)(layer, inputs, outputs[:1], learned, grads[:1])
    (x,) = inputs
    axes, column = (0, *range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))
    share = MOMENTUM if layer.momentum is None else layer.momentum
    of_mean, of_variance = (grad.reshape(column) * (share * x.shape[1] / x.size) for grad in grads[1:])
    of_x = of_x + of_mean + 2 * of_variance * (x - x.mean(axis=axes, keepdims=True))
    return (of_x.astype(x.dtype),), found


@gradient(WindowPool)
def window_pool_gradient(
    layer: WindowPool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each output's gradient over its window's elements; of a norm y^(1 - p)·|x|^(p - 1) with the sign of x."""
    (x,), (y,), (grad,) = inputs, outputs, grads
    before = [pair[0] for pair in layer.padding]
    geometry = (x.shape, before, layer.kernel_size, layer.stride, layer.dilation)
    if layer.function == "mean":
        counts = window_counts(layer, layer.dilation, x.shape, y.shape)
        return (spread_windows((grad / counts).astype(grad.dtype), *geometry),), {}
    power = layer.power
    roots = np.where(y == 0, 0, grad * np.where(y == 0, 1, y) ** (1 - power)).astype(grad.dtype)
    return (spread_windows(roots, *geometry) * np.sign(x) * abs(x) ** (power - 1),), {}
