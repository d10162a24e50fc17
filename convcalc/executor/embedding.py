"""Rows of a table."""

from __future__ import annotations

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Gradients, Weights, gradient, kernel
from convcalc.layers.embedding import Embedding


def _places(layer: Embedding, x: Array) -> Array:
    """The numbers of the rows. Raises `ShapeError` for what is no whole number, or names no row."""
    places = x.astype(np.int64)
    wrong = (places != x) | (places < 0) | (places >= layer.num_embeddings)
    if wrong.any():
        raise ShapeError(
            f"{x[wrong][0]} came in, but rows are whole numbers from 0 to {layer.num_embeddings - 1}",
            field="num_embeddings",
        )
    return places


@kernel(Embedding)
def embedding(layer: Embedding, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The row of each number, no longer than max_norm."""
    rows = weights["weight"][_places(layer, inputs[0])]
    if layer.max_norm is not None:
        norms = np.linalg.norm(rows.reshape(-1, layer.embedding_dim), layer.norm_type, axis=1).reshape(
            *rows.shape[:-1], 1
        )
        # PyTorch's 1e-7 keeps what is divided by from 0.
        rows = np.where(norms > layer.max_norm, rows * (layer.max_norm / (norms + 1e-7)), rows).astype(rows.dtype)
    return (rows,)


@gradient(Embedding)
def embedding_gradient(
    layer: Embedding, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """Each gradient to its row; the row of padding_idx does not learn."""
    places = _places(layer, inputs[0])
    learned = np.zeros_like(weights["weight"], dtype=grads[0].dtype)
    np.add.at(learned, places.reshape(-1), grads[0].reshape(-1, layer.embedding_dim))
    if layer.padding_idx is not None:
        learned[layer.padding_idx] = 0
    return (None,), {"weight": learned}
