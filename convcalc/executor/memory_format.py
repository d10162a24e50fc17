"""Orders of arrays (N, C, *sizes) in memory: as they are seen, or with their channels last, as (N, *sizes, C)."""

from __future__ import annotations

from typing import Any

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.layers.base import Shape
from convcalc.tracing import product


def lying(array: Array) -> Array:
    """An array (N, C, *sizes) seen as (N, *sizes, C)."""
    return np.moveaxis(array, 1, -1)


def is_channels_last(array: Array) -> bool:
    """Whether an array lies without gaps with its channels last. Not where that is the order in which it is seen."""
    return array.ndim > 2 and not array.flags.c_contiguous and lying(array).flags.c_contiguous


def seen(memory: Array, shape: Shape) -> Array:
    """An array without gaps as one of this shape (N, C, *sizes) whose channels lie last."""
    return np.moveaxis(memory.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array of this shape (N, C, *sizes) with its channels last."""
    return seen(np.empty(int(product(shape)), dtype), shape)


def as_they_lie(*arrays: Array) -> tuple[Array, ...]:
    """Arrays that all lie with their channels last so that they are seen as they lie; others as they are."""
    return tuple(map(lying, arrays)) if all(map(is_channels_last, arrays)) else arrays
