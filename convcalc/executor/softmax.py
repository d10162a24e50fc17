"""Softmax and its kin, a few rows at a time; of x − max(x), where an exponential might overflow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.pieces import hands_for, piece_of
from convcalc.executor.sums import FUNCTIONS, by_rows, row_extremes, row_sums
from convcalc.executor.threads import share
from convcalc.layers.softmax import LogSoftmax, Softmax, Softmax2d, Softmin
from convcalc.tracing import ceil_div, product


@kernel(Softmax, Softmax2d)
def softmax(layer: Softmax | Softmax2d, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """exp(x) / Σ exp(x)."""
    return (_along(share_out, floats(inputs[0]), layer.axis(inputs[0].shape)),)


@kernel(Softmin)
def softmin(layer: Softmin, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """Softmax of −x."""
    return (_along(share_out, -floats(inputs[0]), layer.axis(inputs[0].shape)),)


@kernel(LogSoftmax)
def log_softmax(layer: LogSoftmax, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x − max − ln Σ exp(x − max)."""
    return (_along(_log_shares, floats(inputs[0]), layer.axis(inputs[0].shape)),)


def _along(compute: Callable[[Array, Array], None], x: Array, axis: int) -> Array:
    """What is computed of rows into rows, along an axis."""
    axis %= x.ndim
    size = x.shape[axis]
    inner = product(x.shape[axis + 1 :])
    x = np.ascontiguousarray(x)
    result = np.empty_like(x)
    if not x.size:
        return result
    if inner == 1:
        rows, outs = x.reshape(-1, size), result.reshape(-1, size)
        by_rows(lambda part: compute(rows[part], outs[part]), len(rows), size, x.dtype)
        return result
    planes, made = x.reshape(-1, size, inner), result.reshape(-1, size, inner)
    # Rows that stand upright, a few next to each other at a time.
    hands = hands_for(x.size * FUNCTIONS)
    across = min(inner, ceil_div(piece_of(x.size, hands, x.dtype), max(size, 1)))
    parts = [(plane, slice(left, left + across)) for plane in range(len(planes)) for left in range(0, inner, across)]

    def work(part: tuple[int, slice]) -> None:
        plane, columns = part
        compute(planes[plane, :, columns].T, made[plane, :, columns].T)

    if hands > 1:
        share(work, parts)
    else:
        for part in parts:
            work(part)
    return result


def _sums(x: Array) -> Array:
    return row_sums(x) if x.flags.c_contiguous else x.sum(axis=1)


_LARGE = {np.dtype(np.float32): 60.0, np.dtype(np.float64): 600.0}
"""Numbers up to which sums of exponentials are far from overflowing."""
_LEAST = 2.0**-8
"""Sums of exponentials from here on leave room for shares that are much smaller."""


def share_out(x: Array, out: Array) -> None:
    """exp(x) / Σ exp(x) of each row; of the rows less their largest where exponentials would not do as they are."""
    if x.max(initial=-np.inf) <= _LARGE.get(x.dtype, 0.0):
        np.exp(x, out=out)
        total = _sums(out)
        if total.min(initial=np.inf) >= _LEAST:
            out /= total[:, None]
            return
    np.subtract(x, _largest(x)[:, None], out=out)
    np.exp(out, out=out)
    out /= _sums(out)[:, None]


_FEW = -30.0
"""From here on exponentials are far from vanishing."""


def shared_out(x: Array) -> bool:
    """The same written over the rows; or nothing, and False, where they have to be looked at row by row."""
    if not x.size or not (x.max() <= _LARGE.get(x.dtype, 0.0) and x.min() >= _FEW):
        return False
    np.exp(x, out=x)
    x /= row_sums(x)[:, None]
    return True


def _largest(x: Array) -> Array:
    return row_extremes(np.maximum, x) if x.flags.c_contiguous else x.max(axis=1)


def _log_shares(x: Array, out: Array) -> None:
    np.subtract(x, _largest(x)[:, None], out=out)
    out -= np.log(_sums(np.exp(out)))[:, None]


@gradient(Softmax, Softmin, Softmax2d)
def softmax_gradient(
    layer: Softmax | Softmin | Softmax2d,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """y·(g − Σ g·y), and the sign of what softmin is taken of."""
    (y,), (grad,) = outputs, grads
    result = y * (grad - (grad * y).sum(axis=layer.axis(y.shape), keepdims=True))
    return (-result if isinstance(layer, Softmin) else result,), {}


@gradient(LogSoftmax)
def log_softmax_gradient(
    layer: LogSoftmax,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """g − exp(y)·Σ g."""
    (y,), (grad,) = outputs, grads
    return (grad - np.exp(y) * grad.sum(axis=layer.axis(y.shape), keepdims=True),), {}
