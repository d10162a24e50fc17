"""Matrix products of tensors."""

from __future__ import annotations

import numpy as np

from convcalc.executor import kernels
from convcalc.executor.attention import attend
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.layers.matmul import Attention, Einsum, Gemm, MatMul


@kernel(MatMul)
def matmul(layer: MatMul, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's matrix product, exact for whole numbers."""
    return (kernels.matmul(inputs[0], inputs[1]),)


@kernel(Gemm)
def gemm(layer: Gemm, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """alpha·A·B + beta·C."""
    a = inputs[0].T if layer.transa else inputs[0]
    b = inputs[1].T if layer.transb else inputs[1]
    found = kernels.matmul(a, b)
    if layer.alpha != 1:
        found = found * found.dtype.type(layer.alpha)
    if len(inputs) > 2:
        found = found + (inputs[2] if layer.beta == 1 else inputs[2] * inputs[2].dtype.type(layer.beta))
    return (found,)


@kernel(Einsum)
def einsum(layer: Einsum, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's."""
    return (np.asarray(np.einsum(layer.equation, *inputs)),)


@kernel(Attention)
def attention(layer: Attention, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """By `attend`, which computes with float32 at least."""
    return attend(layer, inputs)
