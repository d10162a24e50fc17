"""Products of many rows with one matrix, the rows shared by threads."""

from __future__ import annotations

import numpy as np

from convcalc.executor.kernels import Array, matmul, sums_of_products
from convcalc.executor.threads import share, thread_count
from convcalc.tracing import ceil_div, product

LEAST_WORK = 1 << 23
"""Multiply-adds below which it is not worth waking a thread."""
LEAST_ROWS = 64
"""How many rows a thread takes at least: of fewer a product takes nearly as long."""


def rows_times(x: Array, matrix: Array) -> Array:
    """x @ matrix for a matrix of two axes, whole numbers exactly; of floats by all threads, where that is worth it.

    Raises `ResourceError` when sums of whole numbers may pass 2^63.
    """
    rows = product(x.shape[:-1])
    hands = min(thread_count(), rows // LEAST_ROWS)
    shared = hands > 1 and rows * matrix.size >= LEAST_WORK and x.dtype == matrix.dtype and x.dtype.kind == "f"
    if not shared or matrix.ndim != 2 or x.ndim < 2:
        return matmul(x, matrix)
    flat = x.reshape(rows, -1)
    result = np.empty((rows, matrix.shape[1]), x.dtype)
    many = ceil_div(rows, hands)

    def work(part: slice) -> None:
        sums_of_products(flat[part], matrix, out=result[part])

    share(work, [slice(start, start + many) for start in range(0, rows, many)])
    return result.reshape(*x.shape[:-1], -1)
