"""Matrix products of tensors."""

from __future__ import annotations

import numpy as np

from convcalc.executor import kernels
from convcalc.executor.attention import attend
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.products import rows_times
from convcalc.layers.matmul import Attention, Det, Einsum, Gemm, MatMul
from convcalc.tracing import product


@kernel(MatMul)
def matmul(layer: MatMul, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's matrix product, exact for whole numbers."""
    return (rows_times(inputs[0], inputs[1]),)


@kernel(Gemm)
def gemm(layer: Gemm, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """alpha·A·B + beta·C."""
    a = inputs[0].T if layer.transa else inputs[0]
    b = inputs[1].T if layer.transb else inputs[1]
    found = rows_times(a, b)
    if layer.alpha != 1:
        found = found * found.dtype.type(layer.alpha)
    if len(inputs) > 2:
        found = found + (inputs[2] if layer.beta == 1 else inputs[2] * inputs[2].dtype.type(layer.beta))
    return (found,)


@kernel(Det)
def det(layer: Det, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's, by elimination in double precision."""
    return (np.asarray(np.linalg.det(inputs[0].astype(np.float64)), inputs[0].dtype),)


@kernel(Einsum)
def einsum(layer: Einsum, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """A matrix product where the equation is one, else NumPy's."""
    found = _as_product(layer.equation.replace(" ", ""), inputs)
    return (np.asarray(np.einsum(layer.equation, *inputs)) if found is None else found,)


def _as_product(equation: str, inputs: tuple[Array, ...]) -> Array | None:
    """The sum of products as a matrix product: axes that both and the output have, of each its own, those summed.

    None: an axis is summed or repeated in one input alone, or there are not two inputs of floats.
    """
    terms, arrow, result = equation.partition("->")
    if len(inputs) != 2 or not arrow or "." in equation or any(x.dtype.kind != "f" for x in inputs):
        return None
    first, second = terms.split(",")
    both = set(first) & set(second)
    shared, summed = [axis for axis in result if axis in both], [axis for axis in first if axis in both - set(result)]
    own = [[axis for axis in term if axis not in both] for term in (first, second)]
    if any(len(set(term)) != len(term) for term in (first, second, result)) or {*own[0], *own[1]} - set(result):
        return None
    sizes = {axis: size for term, x in zip((first, second), inputs, strict=True)
             for axis, size in zip(term, x.shape, strict=True) if axis not in both or size > 1}  # fmt: skip
    sizes = {**dict.fromkeys(both, 1), **sizes}
    if any(x.shape != tuple(sizes[axis] for axis in term) for x, term in zip(inputs, (first, second), strict=True)):
        return None  # an axis of 1 is stretched

    def laid_out(term: str, x: Array, *parts: list[str]) -> Array:
        order = [term.index(axis) for part in parts for axis in part]
        shape = [product([sizes[axis] for axis in part]) for part in parts]
        return x.transpose(order).reshape(shape)

    a = laid_out(first, inputs[0], shared, own[0], summed)
    b = laid_out(second, inputs[1], shared, summed, own[1])
    made = [*shared, *own[0], *own[1]]
    found = kernels.matmul(a, b).reshape([sizes[axis] for axis in made])
    return found.transpose([made.index(axis) for axis in result])


@kernel(Attention)
def attention(layer: Attention, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """By `attend`, which computes with float32 at least."""
    return attend(layer, inputs)
