"""Power-average pooling."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.pool import avg_pool, avg_pool_gradient
from convcalc.layers.lppool import LPPool
from convcalc.layers.pool import AvgPool, AvgPool1d, AvgPool2d, AvgPool3d
from convcalc.tracing import product


def _average(layer: LPPool) -> AvgPool:
    cls = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}[len(layer.kernel_size)]
    return cls(layer.kernel_size, layer.stride, ceil_mode=layer.ceil_mode)


@kernel(LPPool)
def lp_pool(layer: LPPool, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The root of the mean power times the kernel's elements, as PyTorch computes it.

    A window that ceil_mode lets stick out counts as if what is missing were as its mean.
    """
    (mean,) = avg_pool(_average(layer), (floats(inputs[0]) ** layer.norm_type,), weights)
    return ((mean * product(layer.kernel_size)) ** (1 / layer.norm_type),)


@gradient(LPPool)
def lp_pool_gradient(
    layer: LPPool, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """y^(1 − p)·x^(p − 1)·g, through the mean; 0 where a window is all zeros."""
    (x,), (y,), (grad,) = inputs, outputs, grads
    power = layer.norm_type
    roots = np.where(y == 0, 0, grad * np.where(y == 0, 1, y) ** (1 - power)) * product(layer.kernel_size)
    (spread,), _ = avg_pool_gradient(_average(layer), (x,), (y,), weights, (roots,))
    return (np.asarray(spread) * x ** (power - 1),), {}
