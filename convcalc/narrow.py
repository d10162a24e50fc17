"""Types that NumPy does not have: short floats, held as float32; whole numbers of 4 and 2 bits, held as those of 8."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Format(NamedTuple):
    """A short float: its bits, what its exponent is less by, and its largest number; whether it has infinity.

    `one_zero`: what would be -0 is its only nan. `nan` says whether it has any.
    """

    exponent: int
    fraction: int
    bias: int
    largest: float
    infinite: bool = False
    one_zero: bool = False
    nan: bool = True


FORMATS = {
    "bfloat16": Format(8, 7, 127, 3.3895313892515355e38, infinite=True),
    "float8e4m3fn": Format(4, 3, 7, 448.0),
    "float8e4m3fnuz": Format(4, 3, 8, 240.0, one_zero=True),
    "float8e5m2": Format(5, 2, 15, 57344.0, infinite=True),
    "float8e5m2fnuz": Format(5, 2, 16, 57344.0, one_zero=True),
    "float4e2m1": Format(2, 1, 1, 6.0, nan=False),
}
"""The short floats by ONNX's names. Of the Open Compute Project's 8-bit floats and those that ONNX's Cast describes."""
POWERS = "float8e8m0"
"""Powers of two from 2^-127 to 2^127, and nan."""
INTEGERS = {"int4": (4, True), "uint4": (4, False), "int2": (2, True), "uint2": (2, False)}
"""The bits of short whole numbers, and whether they have a sign."""


def holder(kind: str) -> str:
    """NumPy's type that holds numbers of a type.

    >>> holder("bfloat16"), holder("uint4"), holder("int64")
    ('float32', 'uint8', 'int64')
    """
    if kind in FORMATS or kind == POWERS:
        return "float32"
    return ("int8" if INTEGERS[kind][1] else "uint8") if kind in INTEGERS else kind


def limits(kind: str) -> tuple[int, int]:
    """The least and the largest of a type of whole numbers.

    >>> limits("int4"), limits("uint8")
    ((-8, 7), (0, 255))
    """
    if kind in INTEGERS:
        bits, signed = INTEGERS[kind]
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    found = np.iinfo(kind)
    return int(found.min), int(found.max)


def converted(x: Array, kind: str, *, saturate: bool = True, mode: str = "up") -> Array:
    """Numbers in another type, by the rules of ONNX's Cast: floats to the nearest, halves to even.

    What is too large for a float of 8 or 4 bits becomes its largest, or without `saturate` infinite or nan; bits of
    whole numbers that do not fit are dropped. `mode` is for powers of two.

    >>> converted(np.array([0.3, 500.0]), "float8e4m3fn").tolist(), converted(np.array([9]), "int4").tolist()
    ([0.3125, 448.0], [-7])
    """
    if kind == POWERS:
        return _powers(x, saturate=saturate, mode=mode)
    if kind in FORMATS:
        return _rounded(x, FORMATS[kind], saturate=saturate and kind != "bfloat16")
    if kind in INTEGERS:
        bits, signed = INTEGERS[kind]
        low = x.astype(np.int64) & ((1 << bits) - 1)
        return (low - (low >> (bits - 1) << bits) if signed else low).astype(holder(kind))
    return x.astype(kind)


def _rounded(x: Array, form: Format, *, saturate: bool) -> Array:
    wide = x.astype(np.float64)
    finite = np.isfinite(wide)
    # Below the least normal number the steps are all alike.
    exponents = np.maximum(np.frexp(np.where(finite, wide, 1))[1] - 1, 1 - form.bias)
    steps = np.ldexp(1.0, exponents - form.fraction)
    found = np.where(finite, np.rint(wide / steps) * steps, wide)
    over = np.abs(found) > form.largest
    beyond = form.largest if saturate or not form.nan else np.inf if form.infinite else np.nan
    found = np.where(over, np.copysign(beyond, wide), found)
    found = found if form.nan else np.nan_to_num(found, nan=0.0)
    return (found + 0.0 if form.one_zero else found).astype(np.float32)


def _powers(x: Array, *, saturate: bool, mode: str) -> Array:
    wide = x.astype(np.float64)
    share, exponents = np.frexp(np.where(np.isfinite(wide), wide, 1))
    up = {"up": share > 0.5, "down": share > 1, "nearest": share >= 0.75}[mode]
    powers = exponents - 1 + up
    found = np.ldexp(1.0, np.clip(powers, -127, 127))
    least = 2.0**-127 if saturate else np.nan
    found = np.where((wide == 0) | (powers < -127), least, found)
    over = (powers > 127) | np.isposinf(wide)
    found = np.where(over, 2.0**127 if saturate else np.nan, found)
    return np.where(np.isnan(wide), np.nan, found).astype(np.float32)


def decoded(codes: Array, kind: str) -> Array:
    """The numbers that codes of 8 or 4 bits mean.

    >>> decoded(np.array([0x38, 0x7E, 0x7F], np.uint8), "float8e4m3fn").tolist()
    [1.0, 448.0, nan]
    """
    codes = codes.astype(np.int64)
    if kind == POWERS:
        return np.where(codes == 255, np.nan, np.ldexp(1.0, codes - 127)).astype(np.float32)
    form = FORMATS[kind]
    fraction = codes & ((1 << form.fraction) - 1)
    exponent = (codes >> form.fraction) & ((1 << form.exponent) - 1)
    negative = codes >> (form.fraction + form.exponent) & 1
    whole = fraction + (exponent > 0) * (1 << form.fraction)
    size = np.ldexp(whole, np.maximum(exponent, 1) - form.bias - form.fraction)
    # What the rule would make larger than the largest are infinity and nan.
    size = np.where(size > form.largest, np.inf if form.infinite else np.nan, size)
    if form.infinite:
        size = np.where((exponent == (1 << form.exponent) - 1) & (fraction > 0), np.nan, size)
    found = np.where(negative, -size, size)
    if form.one_zero:
        found = np.where((negative > 0) & (size == 0), np.nan, found)
    return found.astype(np.float32)
