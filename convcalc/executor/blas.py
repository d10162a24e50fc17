"""Matrix products that are added to what is there, by the library that NumPy multiplies with.

NumPy's own product overwrites: to add one to another takes an array for it and a pass over both, a fifth of the time of
a small product. The library does it in registers. Where it is another than NumPy's wheels bring, all is done by NumPy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.executor.threads import Calls, libraries

_NAMES = ("scipy_cblas_{}gemm64_", "cblas_{}gemm64_")
"""What the function is called whose whole numbers have 64 bits; other names do not say how many they have."""
_LETTERS = {np.dtype(np.float32): ("s", ctypes.c_float), np.dtype(np.float64): ("d", ctypes.c_double)}
_ROWS, _AS_IT_LIES, _TURNED = 101, 111, 112

Gemm = Callable[..., None]


@cache
def _gemm(dtype: np.dtype[Any]) -> Gemm | None:
    """The library's function for this type, or None where there is none that does what it should."""
    if dtype not in _LETTERS:
        return None
    letter, number = _LETTERS[dtype]
    for library in libraries().lib_controllers:
        for name in _NAMES:
            function = getattr(library.dynlib, name.format(letter), None) if library.user_api == "blas" else None
            if function is not None:
                size, place = ctypes.c_int64, ctypes.c_void_p
                function.restype = None
                function.argtypes = (
                    *(ctypes.c_int,) * 3, *(size,) * 3, number, place, size, place, size, number, place, size
                )  # fmt: skip
                return function if _is_right(function, dtype) else None
    return None


def _is_right(function: Gemm, dtype: np.dtype[Any]) -> bool:
    a, b = np.arange(6, dtype=dtype).reshape(2, 3), np.arange(15, dtype=dtype).reshape(3, 5)
    out, wanted = np.ones((2, 6), dtype), np.ones((2, 6), dtype)
    for first in (a, a.T.copy().T):
        for second in (b, b.T.copy().T):
            calls: Calls = []
            _add(function, first, second[:, 1:], out[:, 1:5], range(0, 3, 2), calls)
            for call, arguments in calls:
                call(*arguments)
            wanted[:, 1:5] += first @ second[:, 1:]
    return np.array_equal(out, wanted)


class _Call(partial[None]):
    """A call that also holds arrays, so that their memory is there as long as the call may be made."""

    arrays: tuple[Array, ...]


SMALL_PRODUCT = 1_000_000
"""Multiply-adds up to which OpenBLAS multiplies matrices as they lie, where it has kernels for that."""


@cache
def has_small_products() -> bool:
    """Whether NumPy's library has kernels for small products: OpenBLAS, on processors with 512-bit units."""
    return any(
        library.internal_api == "openblas" and library.architecture in ("SkylakeX", "Cooperlake", "SapphireRapids")
        for library in libraries().lib_controllers
    )


def can_add(dtype: np.dtype[Any]) -> bool:
    """Whether `add_products` may be asked for products of this type."""
    return _gemm(dtype) is not None


def can_add_to(a: Array, b: Array, out: Array) -> bool:
    """Whether `add_products` takes these: floats of one type, in rows that lie together, one after the other.

    What is multiplied may lie in columns. A product of one row or column is not worth it.
    """
    if not a.ndim == b.ndim == out.ndim == 2 or not a.dtype == b.dtype == out.dtype or not can_add(out.dtype):
        return False
    if min(out.shape) < 2 or not a.shape[1] or not (a.flags.aligned and b.flags.aligned and out.flags.aligned):
        return False
    item = out.itemsize
    in_rows = _in_rows(a.shape[1], a.strides, item) or _in_rows(a.shape[0], a.strides[::-1], item)
    in_rows = in_rows and (_in_rows(b.shape[1], b.strides, item) or _in_rows(b.shape[0], b.strides[::-1], item))
    return in_rows and _in_rows(out.shape[1], out.strides, item)


def _in_rows(length: int, strides: tuple[int, ...], item: int) -> bool:
    apart, step = strides
    return step == item and apart >= length * item and apart % item == 0


def add_products(a: Array, b: Array, out: Array, starts: range, calls: Calls) -> None:
    """Call out += a @ b, of (M, K), (K, N) and (M, N) that `can_add_to` takes, a part of K from each start."""
    gemm = _gemm(out.dtype)
    assert gemm is not None
    _add(gemm, a, b, out, starts, calls)


def _add(gemm: Gemm, a: Array, b: Array, out: Array, starts: range, calls: Calls) -> None:
    (rows, terms), columns, item = a.shape, b.shape[1], out.itemsize
    # Of a matrix in rows it is the second axis that lies together; of one of a single row or column either may be.
    turn_a, turn_b = (_AS_IT_LIES if _in_rows(array.shape[1], array.strides, item) else _TURNED for array in (a, b))
    (at_a, far_a), (at_b, far_b), (at_out, far_out) = (
        (array.__array_interface__["data"][0], max(array.strides) // item) for array in (a, b, out)
    )
    step_a, step_b, arrays = a.strides[1], b.strides[0], (a, b, out)
    for start in starts:
        part = min(starts.step, terms - start)
        arguments = (
            _ROWS, turn_a, turn_b, rows, columns, part, 1.0, at_a + start * step_a, far_a,
            at_b + start * step_b, far_b, 1.0, at_out, far_out,
        )  # fmt: skip
        call = _Call(gemm, *arguments)
        call.arrays = arrays
        calls.append((call, ()))
