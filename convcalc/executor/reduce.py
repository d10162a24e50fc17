"""Reductions: many elements along axes into one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array, Weights, kernel
from convcalc.executor.pieces import SMALL, able
from convcalc.executor.sums import by_rows, row_dots, row_extremes, row_sums, running_sums
from convcalc.layers.reduce import Cumulate, Reduce, TopK
from convcalc.narrow import limits
from convcalc.tracing import product


def _log_sum_exp(x: Array, **where: Any) -> Array:
    largest = np.max(x, axis=where["axis"], keepdims=True)
    summed = np.log(np.sum(np.exp(x - largest), axis=where["axis"], keepdims=True)) + largest
    return summed if where["keepdims"] else np.asarray(np.squeeze(summed, where["axis"]))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "l1": lambda x, **where: np.sum(np.abs(x), **where), "l2": lambda x, **where: np.sqrt(np.sum(x * x, **where)),
    "logsum": lambda x, **where: np.log(np.sum(x, **where)), "logsumexp": _log_sum_exp, "max": np.max,
    "mean": np.mean, "min": np.min, "prod": np.prod, "sum": np.sum,
    "sumsquare": lambda x, **where: np.sum(x * x, **where),
}  # fmt: skip


def _logs_of_sums(x: Array) -> Array:
    largest = row_extremes(np.maximum, x)
    result: Array = np.log(row_sums(np.exp(x - largest[:, None]))) + largest
    return result


ROWS: dict[str, Callable[[Array], Array]] = {
    "l1": lambda x: row_sums(np.abs(x)), "l2": lambda x: np.sqrt(row_dots(x, x)),
    "logsum": lambda x: np.log(row_sums(x)), "logsumexp": _logs_of_sums, "max": partial(row_extremes, np.maximum),
    "mean": lambda x: row_sums(x) / x.dtype.type(x.shape[1]), "min": partial(row_extremes, np.minimum),
    "sum": row_sums, "sumsquare": lambda x: row_dots(x, x),
}  # fmt: skip
"""The same of rows of float32 or float64, a few at a time."""

_OF_NOTHING = ("max", "min", "logsumexp")
"""What ONNX defines of no elements by limits."""


def _of_nothing(layer: Reduce, x: Array, axes: tuple[int, ...]) -> Array:
    """The least that the type has, or of min the largest: what changes nothing when more elements come."""
    low, high = (-np.inf, np.inf) if x.dtype.kind == "f" else (0, 1) if x.dtype == bool else limits(str(x.dtype))
    shape = np.sum(x, axis=axes, keepdims=layer.keepdim).shape
    return np.full(shape, high if layer.function == "min" else low, x.dtype)


@kernel(Reduce)
def reduction(layer: Reduce, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's reduction, in the input's type; places are int64."""
    x = inputs[0]
    if not x.size and layer.function not in ("sum", "prod", "l1", "l2", "sumsquare", "logsum", *_OF_NOTHING):
        raise ShapeError(f"{layer.function} of no elements is not defined")
    axes = tuple(sorted(layer.axes(x.shape)))
    if layer.function.startswith("arg"):
        find = np.argmax if layer.function == "argmax" else np.argmin
        return (np.asarray(find(x, axis=axes[0], keepdims=layer.keepdim)).astype(np.int64),)
    if not x.size and layer.function in _OF_NOTHING:
        return (_of_nothing(layer, x, axes),)
    if (
        layer.function in ROWS
        and able(x)
        and x.flags.c_contiguous
        and axes
        and axes[0] + len(axes) == x.ndim
        and x.size
    ):
        rows = x.reshape(-1, product([x.shape[axis] for axis in axes]))
        out = np.empty(len(rows), x.dtype)

        def work(part: slice) -> None:
            out[part] = ROWS[layer.function](rows[part])

        by_rows(work, *rows.shape, x.dtype, functions=1)
        return (out.reshape(layer.infer(x.shape)[0]),)
    found = FUNCTIONS[layer.function](x, axis=axes, keepdims=layer.keepdim)
    return (np.asarray(found).astype(x.dtype, copy=False),)


@kernel(Cumulate)
def cumulate(layer: Cumulate, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """NumPy's cumulative sum or product, in the input's type; sums of floats along the last axis faster."""
    (x,) = inputs
    if layer.function == "sum" and able(x) and layer.dim % x.ndim == x.ndim - 1 and x.size >= SMALL:
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        sums = np.empty_like(rows)
        by_rows(lambda part: running_sums(rows[part], sums[part]), *rows.shape, x.dtype, functions=1)
        return (sums.reshape(x.shape),)
    function = np.cumsum if layer.function == "sum" else np.cumprod
    return (function(x, axis=layer.dim, dtype=x.dtype),)


@kernel(TopK)
def top_k(layer: TopK, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """The k largest or smallest in order; of equal ones the first."""
    x = inputs[0]
    size = x.shape[layer.dim]
    quickly = _few(layer, x)
    if quickly is not None:
        return quickly
    if layer.largest:
        # From the back, so that of equal ones the first comes first.
        order = size - 1 - np.flip(np.argsort(np.flip(x, layer.dim), axis=layer.dim, kind="stable"), layer.dim)
    else:
        order = np.argsort(x, axis=layer.dim, kind="stable")
    kept = np.take(order, range(min(layer.k, size)), axis=layer.dim)
    return np.take_along_axis(x, kept, layer.dim), kept.astype(np.int64)


_FEW = 16
"""How many elements are found one after the other in less time than all are put in order."""


def _few(layer: TopK, x: Array) -> tuple[Array, ...] | None:
    """A few of many floats, one after the other: the first of the largest, which is then made the smallest.

    None where there are not many, or where one that is found is the smallest there can be already.
    """
    size = x.shape[layer.dim]
    if x.dtype.kind != "f" or not x.size or not 0 < layer.k <= min(_FEW, size // 8):
        return None
    moved = np.moveaxis(x, layer.dim, -1)
    rows = moved.reshape(-1, size) if layer.largest else -moved.reshape(-1, size)
    if not layer.largest and np.isnan(rows.max()):
        return None
    rest = rows.copy() if layer.largest else rows
    lines = np.arange(len(rest))
    places = np.empty((len(rest), layer.k), np.int64)
    for column in range(layer.k):
        found = rest.argmax(axis=1)
        if np.isneginf(rest[lines, found]).any():
            return None
        places[:, column] = found
        rest[lines, found] = -np.inf
    values = np.take_along_axis(moved.reshape(-1, size), places, 1)
    shape = (*moved.shape[:-1], layer.k)
    return tuple(np.moveaxis(each.reshape(shape), -1, layer.dim) for each in (values, places))
