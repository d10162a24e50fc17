"""Functions that NumPy does not have."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from convcalc.executor.kernels import Array
from convcalc.executor.threads import share

_STEP = 1 / 32
_LAST = 6
"""From here on the error function is 1 in double precision."""
_BLOCK = 1 << 14
WORKING = 5 * _BLOCK
"""The numbers that a thread holds in `erf`: a block, its size, the places, the sum and the next term of it."""
_TERMS = {np.dtype(np.float32): 5, np.dtype(np.float64): 8}
"""How many terms of a Taylor series a type takes: at most half a step from its place, the next is below rounding."""


def erf(x: Array) -> Array:
    """The error function, within three roundings of float32 and float64: Taylor series from the places of a table.

    Half a step h away the series' terms fall as h^n; its coefficients are Hermite polynomials times 2/√π·exp(-x²).
    """
    wide = np.result_type(x.dtype, np.float32) if x.dtype.kind == "f" else np.dtype(np.float64)
    source = np.ascontiguousarray(x).reshape(-1)
    result = np.empty(source.shape, wide)
    table = _table(wide)

    def work(start: int) -> None:
        part = source[start : start + _BLOCK].astype(wide)
        size = abs(part)
        places = np.rint(np.fmin(size, _LAST) * (1 / _STEP)).astype(np.int32)
        away = np.minimum(size, _LAST, out=size)
        away -= places * wide.type(_STEP)
        total = table[-1].take(places)
        for row in table[-2::-1]:
            total *= away
            total += row.take(places)
        np.copysign(total, part, out=result[start : start + _BLOCK])

    share(work, range(0, source.size, _BLOCK))
    return result.reshape(x.shape).astype(x.dtype if x.dtype.kind == "f" else wide, copy=False)


@cache
def _table(dtype: np.dtype[np.floating]) -> Array:
    """For each term of the series its coefficients at all places."""
    places = np.arange(_LAST / _STEP + 1) * _STEP
    slopes = 2 / math.sqrt(math.pi) * np.exp(-places * places)
    rows = [np.array([math.erf(place) for place in places])]
    before, hermite = np.zeros_like(places), np.ones_like(places)
    for term in range(1, _TERMS[dtype]):
        rows.append(slopes * hermite / math.factorial(term))
        # The derivatives of exp(-x²) are Hermite polynomials times it: H' = -2x·H - 2(n - 1)·H of the one before.
        before, hermite = hermite, -2 * places * hermite - 2 * (term - 1) * before
    return np.stack(rows).astype(dtype)
