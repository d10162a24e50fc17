"""The error function, which NumPy does not have, and the functions that are made of it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from convcalc import formulas as F
from convcalc.executor.kernels import Array
from convcalc.executor.pieces import Symbol, each

_Ratio = tuple[tuple[float, ...], tuple[float, ...]]
"""Two polynomials, the highest power first; that of the second has no number."""
_OF_ERF: _Ratio = (
    (5.57336475100719, 48.92604848480231, 315.925078169811),
    (72.86340394361089, 482.3123548744872, 3074.022124626914),
)
_OF_GELU: _Ratio = (
    (0.018138004056283945, 1.5772425447672582, 28.719308056360877, 250.1498180731124),
    (21.718350183479057, 313.5160398173945),
)
_FIRST = 2 / math.sqrt(math.pi) - 1
_FAR = 50.0
"""From here on the square of a number changes nothing, and larger ones would overflow."""


def _ratio(x: Any, of: _Ratio) -> Any:
    """One polynomial of x over the other. They are fitted by least squares, with weights that level the error."""
    above, below = of
    first = above[0] * x + above[1]
    for number in above[2:]:
        first = first * x + number
    second = x + below[0]
    for number in below[1:]:
        second = second * x + number
    return first / second


def gelu(x: Any) -> Any:
    """`formulas.gelu`; of float32 x/2 + x/2·tanh(x·a / b), within 3·2^-24 of x: half of what PyTorch is off by at most.

    Larger numbers than the fit is for give a larger angle, and a tangent of 1.
    """
    if x.dtype != np.float32:
        return F.gelu(x)
    half = 0.5 * x
    return half + half * np.tanh(x * _ratio(np.minimum(x * x, _FAR), _OF_GELU))


def erf(x: Any) -> Any:
    """The error function of an array or a `Symbol`, within three roundings of float32 and float64."""
    if isinstance(x, Symbol):
        return _erf(x)
    wide = np.result_type(x.dtype, np.float32) if x.dtype.kind == "f" else np.dtype(np.float64)
    return each(_erf, x.astype(wide, copy=False)).astype(x.dtype if x.dtype.kind == "f" else wide, copy=False)


def _erf(x: Any) -> Any:
    if x.dtype == np.float32:
        # To a tenth of a rounding x + x·(first + x²·a / b) is the angle whose hyperbolic tangent is wanted.
        square = np.minimum(x * x, _FAR)
        return np.tanh(x + x * (square * _ratio(square, _OF_ERF) + _FIRST))
    if isinstance(x, Symbol):
        return x.noted(_erf_of_doubles, x)
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    _erf_of_doubles(flat, result)
    return result.reshape(x.shape)


_STEP = 1 / 32
_LAST = 6
"""From here on the error function is 1 in double precision."""
_BLOCK = 1 << 13
WORKING = 5 * _BLOCK
"""The numbers that a thread holds in `_erf_of_doubles`: signs, sizes, places, steps and the next term of it."""
_TERMS = 8
"""How many terms of a Taylor series: at most half a step from its place, the next is below rounding."""


def _erf_of_doubles(x: Array, out: Array) -> None:
    """Taylor series from the places of a table, of arrays of one axis.

    Half a step h away the series' terms fall as h^n; its coefficients are Hermite polynomials times 2/√π·exp(-x²).
    """
    table = _table()
    for start in range(0, len(x), _BLOCK):
        # The input may stand where the output is written.
        signs, total = x[start : start + _BLOCK].copy(), out[start : start + _BLOCK]
        away = np.abs(signs)
        places = np.rint(np.fmin(away, _LAST) * (1 / _STEP)).astype(np.int32)
        np.minimum(away, _LAST, out=away)
        away -= places * _STEP
        table[-1].take(places, out=total, mode="clip")
        for row in table[-2::-1]:
            total *= away
            total += row.take(places)
        np.copysign(total, signs, out=total)


@cache
def _table() -> Array:
    """For each term of the series its coefficients at all places."""
    places = np.arange(_LAST / _STEP + 1) * _STEP
    slopes = 2 / math.sqrt(math.pi) * np.exp(-places * places)
    rows = [np.array([math.erf(place) for place in places])]
    before, hermite = np.zeros_like(places), np.ones_like(places)
    for term in range(1, _TERMS):
        rows.append(slopes * hermite / math.factorial(term))
        # The derivatives of exp(-x²) are Hermite polynomials times it: H' = -2x·H - 2(n - 1)·H of the one before.
        before, hermite = hermite, -2 * places * hermite - 2 * (term - 1) * before
    return np.stack(rows)
