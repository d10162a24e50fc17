"""How far two arrays are from each other, in words."""

from __future__ import annotations

import numpy as np

from convcalc.errors import ShapeError
from convcalc.executor.kernels import Array
from convcalc.layers.base import shape_text


def difference(output: Array, expected: Array) -> str:
    """Say whether two arrays are equal bit for bit, or by how much they differ at most. Whole numbers are exact.

    Raises `ShapeError` for arrays of other shapes.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    'differs by at most 0.5; 1 of 2 elements are equal bit for bit'
    """
    if output.shape != expected.shape:
        raise ShapeError(
            f"--compare has an array of {shape_text(expected.shape)}, but the output is {shape_text(output.shape)}",
            field="compare",
        )
    equal = int(((output == expected) | (np.isnan(output) & np.isnan(expected))).sum())
    if equal == output.size:
        return f"is equal, bit for bit, in all {output.size} elements"
    gap = np.abs(output.astype(np.longdouble) - expected.astype(np.longdouble))
    return f"differs by at most {float(gap.max()):.6g}; {equal} of {output.size} elements are equal bit for bit"
