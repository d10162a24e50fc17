"""Layers as ONNX has them and PyTorch has not: normalisation with its statistics, dropout with its mask."""

from __future__ import annotations

import numpy as np

from convcalc.errors import UnsupportedOpError
from convcalc.executor.kernels import Array, Weights, kernel, kernel_of
from convcalc.layers.norm import LayerNorm
from convcalc.layers.variants import BatchNormTraining, DropoutMask, LayerNormStatistics, WindowPool


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


@kernel(BatchNormTraining, WindowPool)
def not_computed(
    layer: BatchNormTraining | WindowPool, inputs: tuple[Array, ...], weights: Weights
) -> tuple[Array, ...]:
    """Raises `UnsupportedOpError`: its base's kernel would give other numbers."""
    raise UnsupportedOpError(f"{layer.kind} cannot be run: there is no kernel for it")
