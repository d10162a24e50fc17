"""Normalisation: (x − mean) / √(variance + eps) over some axes, scaled and moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.kernels import Array, Gradients, Weights, floats, gradient, kernel
from convcalc.executor.pieces import able, together
from convcalc.executor.sums import by_rows, on_rows, repeated, row_dots, row_sums
from convcalc.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, RMSNorm
from convcalc.tracing import product

_Standard = BatchNorm | InstanceNorm | GroupNorm | LayerNorm


def _grouped(layer: _Standard, x: Array) -> tuple[Array, tuple[int, ...]]:
    """The array with the axes that are normalised over told apart, and those axes."""
    if isinstance(layer, LayerNorm):
        return x, tuple(range(x.ndim - len(layer.bound), x.ndim))
    if isinstance(layer, GroupNorm):
        return x.reshape(x.shape[0], layer.num_groups, -1), (2,)
    spatial = tuple(range(2, x.ndim))
    return x, (0, *spatial) if isinstance(layer, BatchNorm) else spatial


def _statistics(layer: _Standard, grouped: Array, axes: tuple[int, ...], weights: Weights) -> tuple[Array, Array]:
    """Mean and 1 / √(variance + eps), in shapes that fit the grouped array. Running ones where they are kept."""
    column = (-1, *(1,) * (grouped.ndim - 2))
    if "running_mean" in weights:
        mean, variance = (weights[name].reshape(column) for name in ("running_mean", "running_var"))
    elif isinstance(layer, BatchNorm):
        mean, variance = (found.reshape(column) for found in channel_statistics(grouped))
    else:
        mean, variance = grouped.mean(axis=axes, keepdims=True), grouped.var(axis=axes, keepdims=True)
    return mean, 1 / np.sqrt(variance + layer.eps)


_PLANE = 64
"""Numbers of a plane from which on sums of planes take less time than NumPy's over several axes."""


class _Planes:
    """An array (N, C, *sizes) of floats as rows, one for each plane, and what is added up of each channel."""

    def __init__(self, x: Array) -> None:
        self.batch, self.channels = x.shape[:2]
        self.rows = np.ascontiguousarray(x).reshape(self.batch * self.channels, -1)
        self.count = x.dtype.type(self.batch * self.rows.shape[1])

    def summed(self, of_rows: Array) -> Array:
        """The sum of each channel of a number for each row."""
        found: Array = of_rows.reshape(self.batch, self.channels).sum(axis=0)
        return found

    def spread(self, of_channels: Array) -> Array:
        """A number of each channel for each row."""
        return np.tile(of_channels, self.batch)[:, None]

    def centred(self, mean: Array) -> Array:
        """The rows less the mean of their channel."""
        return together(np.subtract, self.rows, self.spread(mean))


def _has_planes(*arrays: Array) -> bool:
    """Whether all are floats of one type, and the first has planes that are long enough."""
    return able(*arrays) and arrays[0].size > 0 and product(arrays[0].shape[2:]) >= _PLANE


def channel_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel of (N, C, *sizes)."""
    axes = (0, *range(2, x.ndim))
    if not _has_planes(x):
        return x.mean(axis=axes), x.var(axis=axes)
    planes = _Planes(x)
    mean = planes.summed(row_sums(planes.rows)) / planes.count
    centred = planes.centred(mean)
    return mean, planes.summed(row_dots(centred, centred)) / planes.count


def _scale(x: Array, parameter: Array, *, last: bool) -> Array:
    """A weight or bias in a shape that fits x: of the last axes, or of the channels."""
    return parameter if last else parameter.reshape(-1, *(1,) * (x.ndim - 2))


def _affine(x: Array, weights: Weights, *, last: bool) -> Array:
    if "weight" in weights:
        x = x * _scale(x, weights["weight"], last=last)
    if "bias" in weights:
        x = x + _scale(x, weights["bias"], last=last)
    return x


def _affine_gradients(grad: Array, normal: Array, weights: Weights, *, last: bool) -> dict[str, Array]:
    """The gradients of weight and bias, added up over all axes that they do not have."""
    parts = {"weight": grad * normal, "bias": grad}
    result = {}
    for name in parts.keys() & weights.keys():
        rank = weights[name].ndim
        axes = tuple(range(grad.ndim - rank)) if last else (0, *range(2, grad.ndim))
        result[name] = parts[name].sum(axis=axes)
    return result


@kernel(BatchNorm, InstanceNorm, GroupNorm, LayerNorm)
def norm(layer: _Standard, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """(x − mean) / √(variance + eps)·weight + bias."""
    x = floats(inputs[0])
    last = isinstance(layer, LayerNorm)
    affine = {name: weights[name] for name in ("weight", "bias") if name in weights}
    if not able(x, *affine.values()):
        grouped, axes = _grouped(layer, x)
        mean, scale = _statistics(layer, grouped, axes, weights)
        return (_affine(((grouped - mean) * scale).reshape(x.shape), weights, last=last),)
    if isinstance(layer, BatchNorm) or "running_mean" in weights:
        mean, scale = (each.astype(x.dtype, copy=False) for each in _statistics(layer, *_grouped(layer, x), weights))
        scale = scale * _scale(x, affine["weight"], last=last) if "weight" in affine else scale
        bias = _scale(x, affine["bias"], last=last) if "bias" in affine else np.zeros((), x.dtype)
        if "running_mean" in weights:
            return (together(_line, x, scale, bias - mean * scale),)
        return (together(_moved, x, mean, scale, bias),)
    if isinstance(layer, LayerNorm):
        return (_by_rows(layer, x, product(layer.bound), 1, affine),)
    groups = layer.num_groups if isinstance(layer, GroupNorm) else x.shape[1]
    return (_by_rows(layer, x, product(x.shape[1:]) // groups, product(x.shape[2:]), affine),)


def _line(x: Any, scale: Any, move: Any) -> Any:
    return x * scale + move


def _moved(x: Any, mean: Any, scale: Any, bias: Any) -> Any:
    # What is left of few numbers, or of numbers far from 0, is as exact as they are.
    return (x - mean) * scale + bias


def _by_rows(layer: _Standard, x: Array, columns: int, plane: int, affine: Weights) -> Array:
    """Each row of so many numbers by its own statistics, a few rows at a time.

    Weights are for planes of so many numbers, or for every number of a row.
    """
    rows = np.ascontiguousarray(x).reshape(-1, columns)
    result = np.empty_like(rows)
    # For each row what its planes, or its numbers, are multiplied by and moved by; it is the same every few rows.
    each = {name: array.reshape(-1, columns // plane) for name, array in affine.items()}
    # Of groups of planes of one number each row has its own.
    alike = plane == 1 and all(len(array) == 1 for array in each.values())
    rows_of = {name: repeated(array[0]) for name, array in each.items()} if alike else {}

    def work(part: slice) -> None:
        out = result[part]
        np.subtract(rows[part], row_sums(rows[part])[:, None] / x.dtype.type(columns), out=out)
        scale = 1 / np.sqrt(row_dots(out, out) / x.dtype.type(columns) + x.dtype.type(layer.eps))
        if alike:
            out *= scale[:, None]
            for function, name in ((np.multiply, "weight"), (np.add, "bias")):
                if name in rows_of:
                    on_rows(function, out, rows_of[name])
            return
        turns = np.arange(part.start, part.start + len(out))
        factors = {name: array[turns % len(array)].reshape(-1, 1) for name, array in each.items()}
        out = out.reshape(-1, plane)
        out *= np.repeat(scale, columns // plane)[:, None] * factors.get("weight", 1)
        if "bias" in factors:
            out += factors["bias"]

    by_rows(work, *rows.shape, x.dtype)
    return result.reshape(x.shape)


@gradient(BatchNorm, InstanceNorm, GroupNorm, LayerNorm)
def norm_gradient(
    layer: _Standard, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """scale·(g − mean(g) − x̂·mean(g·x̂)) through the input's statistics; with running ones they are constants."""
    (x,), (grad,) = inputs, grads
    last = isinstance(layer, LayerNorm)
    grouped, axes = _grouped(layer, x)
    mean, scale = _statistics(layer, grouped, axes, weights)
    if isinstance(layer, BatchNorm) and _has_planes(
        x, grad, *(array for name, array in weights.items() if name != "num_batches_tracked")
    ):
        return _by_planes(x, grad, mean.reshape(-1), scale.reshape(-1), weights)
    normal = (grouped - mean) * scale
    learned = _affine_gradients(grad, normal.reshape(x.shape), weights, last=last)
    scaled = grad * _scale(x, weights["weight"], last=last) if "weight" in weights else grad
    moved = scaled.reshape(grouped.shape)
    if "running_mean" not in weights:
        moved = moved - moved.mean(axis=axes, keepdims=True) - normal * (moved * normal).mean(axis=axes, keepdims=True)
    return ((moved * scale).reshape(x.shape),), learned


def _by_planes(x: Array, grad: Array, mean: Array, scale: Array, weights: Weights) -> Gradients:
    """The same of a batch norm's channels, with what is the same for all numbers of a plane worked out first."""
    planes, given = _Planes(x), _Planes(grad)
    centred = planes.centred(mean)
    sums, dots = given.summed(row_sums(given.rows)), given.summed(row_dots(given.rows, centred)) * scale
    learned = {name: found for name, found in (("weight", dots), ("bias", sums)) if name in weights}
    factor = scale * weights["weight"] if "weight" in weights else scale
    if "running_mean" in weights:
        result = together(np.multiply, given.rows, planes.spread(factor))
    else:
        shares = (factor, factor * scale * dots / planes.count, factor * sums / planes.count)
        result = together(_less_shares, given.rows, centred, *map(planes.spread, shares))
    return (result.reshape(x.shape),), learned


def _less_shares(grad: Any, centred: Any, factor: Any, slope: Any, mean: Any) -> Any:
    return grad * factor - centred * slope - mean


def _rms_scale(layer: RMSNorm, x: Array) -> tuple[Array, tuple[int, ...]]:
    axes = tuple(range(x.ndim - len(layer.bound), x.ndim))
    eps = np.finfo(x.dtype).eps if layer.eps is None else layer.eps
    return 1 / np.sqrt((x * x).mean(axis=axes, keepdims=True) + eps), axes


@kernel(RMSNorm)
def rms_norm(layer: RMSNorm, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x / √(mean(x²) + eps)·weight."""
    x = floats(inputs[0])
    if not able(x, *weights.values()):
        return (_affine(x * _rms_scale(layer, x)[0], weights, last=True),)
    columns = product(layer.bound)
    rows = np.ascontiguousarray(x).reshape(-1, columns)
    result = np.empty_like(rows)
    factors = repeated(weights["weight"].reshape(-1)) if "weight" in weights else None
    eps = x.dtype.type(np.finfo(x.dtype).eps if layer.eps is None else layer.eps)

    def work(part: slice) -> None:
        scale = 1 / np.sqrt(row_dots(rows[part], rows[part]) / x.dtype.type(columns) + eps)
        np.multiply(rows[part], scale[:, None], out=result[part])
        if factors is not None:
            on_rows(np.multiply, result[part], factors)

    by_rows(work, *rows.shape, x.dtype)
    return (result.reshape(x.shape),)


@gradient(RMSNorm)
def rms_norm_gradient(
    layer: RMSNorm, inputs: tuple[Array, ...], outputs: tuple[Array, ...], weights: Weights, grads: tuple[Array, ...]
) -> Gradients:
    """scale·(g − x̂·mean(g·x̂))."""
    (x,), (grad,) = inputs, grads
    scale, axes = _rms_scale(layer, x)
    normal = x * scale
    scaled = grad * weights["weight"] if "weight" in weights else grad
    moved = scale * (scaled - normal * (scaled * normal).mean(axis=axes, keepdims=True))
    return (moved,), _affine_gradients(grad, normal, weights, last=True)


def _neighbours(x: Array, before: int, after: int) -> Array:
    """The sum over each channel and so many channels before and after it."""
    padded = np.pad(x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    view = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1)
    result: Array = view.sum(axis=-1)
    return result


@kernel(LocalResponseNorm)
def local_response_norm(layer: LocalResponseNorm, inputs: tuple[Array, ...], weights: Weights) -> tuple[Array, ...]:
    """x / (k + alpha·mean of x² over neighbouring channels)^beta; beyond the first and last channel there are zeros."""
    x = floats(inputs[0])
    return (x * _denominator(layer, x) ** -layer.beta,)


def _denominator(layer: LocalResponseNorm, x: Array) -> Array:
    before, after = layer.size // 2, (layer.size - 1) // 2
    result: Array = layer.k + layer.alpha / layer.size * _neighbours(x * x, before, after)
    return result


@gradient(LocalResponseNorm)
def local_response_norm_gradient(
    layer: LocalResponseNorm,
    inputs: tuple[Array, ...],
    outputs: tuple[Array, ...],
    weights: Weights,
    grads: tuple[Array, ...],
) -> Gradients:
    """g/d^beta − x·(2·alpha·beta/size)·Σ g·y/d over the channels that this one is a neighbour of."""
    (x,), (y,), (grad,) = inputs, outputs, grads
    denominator = _denominator(layer, x)
    shared = _neighbours(grad * y / denominator, (layer.size - 1) // 2, layer.size // 2)
    factor = 2 * layer.alpha * layer.beta / layer.size
    return (grad * denominator**-layer.beta - x * factor * shared,), {}
