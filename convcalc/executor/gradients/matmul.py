"""Gradients of matrix products of tensors."""

from __future__ import annotations

import numpy as np

from convcalc.errors import UnsupportedOpError
from convcalc.executor import kernels
from convcalc.executor.attention import by_heads, scored
from convcalc.executor.gradients.reduce import others
from convcalc.executor.join import unbroadcast
from convcalc.executor.kernels import Array, Gradients, Weights, gradient
from convcalc.layers.matmul import Attention, Det, Einsum, Gemm, MatMul


@gradient(MatMul)
def matmul_gradient(
    layer: MatMul, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """grad·Bᵀ and Aᵀ·grad, added up over what was repeated; a vector is a row before and a column behind."""
    a, b = inputs
    rows = a[None] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b
    grad = grads[0]
    if b.ndim == 1:
        grad = grad[..., None]
    if a.ndim == 1:
        grad = grad[..., None, :]
    of_rows = unbroadcast(kernels.matmul(grad, columns.swapaxes(-1, -2)), rows.shape)
    of_columns = unbroadcast(kernels.matmul(rows.swapaxes(-1, -2), grad), columns.shape)
    return (of_rows.reshape(a.shape), of_columns.reshape(b.shape)), {}


@gradient(Det)
def det_gradient(
    layer: Det, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """The cofactors, times the gradient; from singular values, so that a matrix without an inverse has them too."""
    x = inputs[0]
    left, values, right = np.linalg.svd(x.astype(np.float64))
    sign = np.linalg.det(left) * np.linalg.det(right)
    cofactors = sign[..., None, None] * (left * others(values, -1)[..., None, :]) @ right
    return ((grads[0][..., None, None] * cofactors).astype(x.dtype),), {}


@gradient(Gemm)
def gemm_gradient(
    layer: Gemm, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """alpha·grad·Bᵀ, alpha·Aᵀ·grad, both turned where their matrix was; beta·grad."""
    grad = grads[0] * grads[0].dtype.type(layer.alpha)
    a = inputs[0].T if layer.transa else inputs[0]
    b = inputs[1].T if layer.transb else inputs[1]
    of_a, of_b = kernels.matmul(grad, b.T), kernels.matmul(a.T, grad)
    found = [of_a.T if layer.transa else of_a, of_b.T if layer.transb else of_b]
    for added in inputs[2:]:
        found.append(unbroadcast(grads[0] * grads[0].dtype.type(layer.beta), added.shape))
    return tuple(found), {}


@gradient(Einsum)
def einsum_gradient(
    layer: Einsum, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Of each factor the sum of products of the gradient and the other factors; a letter that only it has is spread."""
    equation = layer.equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = ("..." if "..." in left else "") + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    found = []
    for index, (term, x) in enumerate(zip(terms, inputs, strict=True)):
        others = [(other, y) for place, (other, y) in enumerate(zip(terms, inputs, strict=True)) if place != index]
        letters = term.replace("...", "")
        if len(set(letters)) < len(letters):
            raise UnsupportedOpError(f"einsum {equation} takes a diagonal, which has no gradient here")
        # A factor of ones has every letter of this one, so that none is missing on the left.
        factors = [(right, grads[0]), *others, (term, np.ones_like(x))]
        written = ",".join(factor for factor, _ in factors)
        # NumPy wants ... on the right where it is on the left; what it is there is added up afterwards.
        wanted = term if "..." in term or "..." not in written else f"...{term}"
        of_x = np.einsum(f"{written}->{wanted}", *(y for _, y in factors))
        found.append(unbroadcast(np.asarray(of_x), x.shape))
    return tuple(found), {}


@gradient(Attention)
def attention_gradient(
    layer: Attention, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Through the shares, the softcap and the scores, and what else goes out; a mask of numbers has a gradient too."""
    found = scored(layer, inputs)
    scores, bent, _, shares = found.stages
    groups = found.grouped.shape[:-1]
    further = dict(zip(layer.extra, (grad.astype(shares.dtype, copy=False) for grad in grads[1:]), strict=True))

    def at_stage(stage: int) -> Array | float:
        """The gradient of the scores as they are after so many steps, if they go out so."""
        return further.get("scores", 0.0) if layer.stage == stage else 0.0

    grad = by_heads(grads[0].astype(shares.dtype, copy=False), layer.q_heads).reshape(*groups, -1)
    of_value = np.matmul(shares.reshape(*groups, -1).swapaxes(-1, -2), grad) + further.get("value", 0.0)
    of_shares = np.matmul(grad, found.value.swapaxes(-1, -2)).reshape(shares.shape) + at_stage(3)
    of_masked = shares * (of_shares - (of_shares * shares).sum(axis=-1, keepdims=True)) + at_stage(2)
    of_scores = of_masked + at_stage(1)
    if layer.softcap:
        of_scores = of_scores * (1 - (bent / layer.softcap) ** 2)
    rows = (of_scores + at_stage(0)).reshape(*groups, -1)
    of_query = (np.matmul(rows, found.key) * found.scale).reshape(*scores.shape[:3], -1)
    of_key = np.matmul(rows.swapaxes(-1, -2), found.grouped) + further.get("key", 0.0)
    results: dict[str, Array] = {}
    for name, of in (("past_key", of_key), ("past_value", of_value)):
        if name in layer.given:
            results[name] = of[:, :, : inputs[3 + layer.given.index(name)].shape[2]]
    if "mask" in layer.given:
        mask = inputs[3 + layer.given.index("mask")]
        if mask.dtype.kind == "f":
            results["mask"] = unbroadcast(of_masked[..., : mask.shape[-1]], mask.shape)
    of_inputs = (of_query, *(of[:, :, -_length(x) :] for x, of in zip(inputs[1:], (of_key, of_value), strict=False)))
    together = tuple(
        of if x.ndim == 4 else of.swapaxes(1, 2).reshape(x.shape) for x, of in zip(inputs, of_inputs, strict=False)
    )
    everything = (*together, *(results.get(name) for name in layer.given))
    return tuple(None if of is None else of.astype(x.dtype) for x, of in zip(inputs, everything, strict=True)), {}


def _length(x: Array) -> int:
    """How many places came in, of those that there are with the past ones."""
    return int(x.shape[-2])
