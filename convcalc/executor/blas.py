"""Matrix products that are added to what is there, by the library that NumPy multiplies with.

NumPy's own product overwrites: to add one to another takes an array for it and a pass over both, a fifth of the time of
a small product. The library does it in registers. Where it is another than NumPy's wheels bring, all is done by NumPy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
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
            _call(function, _arguments(first, second[:, 1:], out[:, 1:5]), (first, second, out))
            wanted[:, 1:5] += first @ second[:, 1:]
    return np.array_equal(out, wanted)


def _arguments(a: Array, b: Array, out: Array) -> tuple[Any, ...]:
    rows, terms = a.shape
    turns = (_AS_IT_LIES if _lies_in_rows(array) else _TURNED for array in (a, b))
    places = (x for array in (a, b, out) for x in (array.ctypes.data, max(array.strides) // array.itemsize))
    first, second, target = zip(*[iter(places)] * 2, strict=True)
    return (_ROWS, *turns, rows, b.shape[1], terms, 1.0, *first, *second, 1.0, *target)


def _call(function: Gemm, arguments: tuple[Any, ...], arrays: tuple[Array, ...]) -> None:
    # The arrays are named so that their memory is there as long as the call may be made.
    function(*arguments)


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
    """Whether `add_product` may be asked for products of this type."""
    return _gemm(dtype) is not None


def can_add_to(a: Array, b: Array, out: Array) -> bool:
    """Whether `add_product` takes these: floats of one type, in rows that lie together, one after the other.

    What is multiplied may lie in columns. A product of one row or column is not worth it.
    """
    return (
        can_add(out.dtype)
        and all(array.ndim == 2 and array.dtype == out.dtype and min(array.shape) > 0 for array in (a, b, out))
        and min(out.shape) > 1
        and all(_lies_in_rows(array) or _lies_in_rows(array.T) for array in (a, b))
        and _lies_in_rows(out)
    )


def _lies_in_rows(array: Array) -> bool:
    step, item = array.strides
    apart = step >= array.shape[1] * array.itemsize and step % array.itemsize == 0
    return item == array.itemsize and apart and array.flags.aligned


def add_product(a: Array, b: Array, out: Array, calls: Calls) -> None:
    """Call out += a @ b, of (M, K), (K, N) and (M, N) that `can_add_to` takes."""
    calls.append((_call, (_gemm(out.dtype), _arguments(a, b, out), (a, b, out))))
