"""Kernels: the arithmetic that makes one kernel of several.

A kernel has the channels that come out first, those of a transposed convolution too. NumPy is imported only when there
are weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.fields import Window
from convcalc.composition.geometry import Composed
from convcalc.layers.base import Shape
from convcalc.tracing import per_axis, product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convcalc.composition.maps import Map
    from convcalc.composition.pieces import Piece

    Array = NDArray[Any]
    Kernel = tuple[Array, Array | None]
    """A weight with the channels that come out first, and a bias."""
    Given = Mapping[str, Array]
    """Weights by "name.parameter"."""


def state(weight: Array, bias: Array | None) -> dict[str, Array]:
    import numpy as np

    state = {"weight": np.ascontiguousarray(weight)}
    return state if bias is None else state | {"bias": bias}


def filled(shape: Shape, value: float, given: Given) -> Kernel:
    import numpy as np

    return np.full(shape, value), None


def swapped(weight: Array, groups: int) -> Array:
    """The channels that come in and go out, exchanged within each group: how a transposed convolution has them."""
    first, second = weight.shape[0] // groups, weight.shape[1]
    parts = weight.reshape(groups, first, second, *weight.shape[2:]).swapaxes(1, 2)
    return parts.reshape(groups * second, first, *weight.shape[2:])


def flipped(arrays: Callable[[Given], Kernel], given: Given) -> Kernel:
    """The kernel turned round along every axis."""
    import numpy as np

    weight, bias = arrays(given)
    return np.flip(weight, axis=tuple(range(2, weight.ndim))), bias


def flipped_some(arrays: Callable[[Given], Kernel], turns: Sequence[bool], given: Given) -> Kernel:
    import numpy as np

    weight, bias = arrays(given)
    return np.flip(weight, axis=tuple(2 + axis for axis, turn in enumerate(turns) if turn)), bias


def in_groups(weight: Array, groups: int, wanted: int) -> Array:
    """The same convolution in fewer groups, which divide `groups`: zeros stand where groups did not meet."""
    import numpy as np

    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    together = groups // wanted
    if together == 1:
        return weight
    result = np.zeros((weight.shape[0], inputs * together, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        first = group % together * inputs
        result[rows, first : first + inputs] = weight[rows]
    return result


def in_a_row(
    first: Map,
    windows: Sequence[Window],
    then: Piece,
    weights: Callable[[Given], Kernel],
    groups: int,
    given: Given,
) -> Kernel:
    """One kernel from two.

    Of convolutions, the second one's taps stand the first one's stride apart; of transposed ones the first one's taps
    stand the second one's stride apart.
    """
    import numpy as np

    inner, first_bias = first.arrays(given)
    outer, bias = weights(given)
    strides = [axis.stride for axis in first.axes]
    if any(window.transposed for window in windows):
        inner = with_holes(inner, [window.stride for window in windows])
        strides = [1] * len(windows)
    dilations = [window.dilation for window in windows]
    steps = [dilation * stride for dilation, stride in zip(dilations, strides, strict=True)]
    sizes, kernel = inner.shape[2:], outer.shape[2:]
    outputs = outer.shape[0]
    extents = per_axis(F.composed_extent, sizes, kernel, strides, dilations)
    rows = then.groups == then.channels[0] == outputs  # each channel is scaled by itself
    columns = first.groups == first.channels[0] == len(inner)
    inner = in_groups(inner, first.groups, groups) if rows or not columns else inner
    outer = in_groups(outer, then.groups, groups) if not rows else outer
    middle = first.channels[1] // groups
    parts = outer.reshape(groups, outputs // groups, -1, *kernel)
    result = np.zeros((outputs, first.channels[0] // groups, *extents))
    for taps in np.ndindex(*kernel):
        places = tuple(slice(tap * step, tap * step + size) for tap, step, size in zip(taps, steps, sizes, strict=True))
        tap = parts[:, :, :, *taps]
        if rows:
            more = outer[:, 0, *taps].reshape(-1, 1, *(1,) * len(sizes)) * inner
        elif columns:
            more = tap[..., *(None,) * len(sizes)] * inner.reshape(groups, 1, middle, *sizes)
        else:
            more = tap @ inner.reshape(groups, middle, -1)
        result[:, :, *places] += more.reshape(outputs, -1, *sizes)
    shift = bias
    if first_bias is not None:
        sums = parts.reshape(*parts.shape[:3], -1).sum(-1)
        if then.even:
            sums = sums / product([window.stride for window in windows])
        passed = sums.reshape(-1) * first_bias if rows else (sums @ first_bias.reshape(groups, middle, 1)).reshape(-1)
        shift = passed if bias is None else passed + bias
    return result, shift


def with_holes(weight: Array, steps: Sequence[int]) -> Array:
    """A kernel with its elements so many steps apart, zeros between."""
    import numpy as np

    extents = per_axis(F.kernel_extent, weight.shape[2:], tuple(steps))
    result = np.zeros((*weight.shape[:2], *extents))
    result[(slice(None), slice(None), *(slice(None, None, step) for step in steps))] = weight
    return result


def side_by_side(branches: Sequence[Map], axes: Sequence[Composed], groups: int, concat: bool, given: Given) -> Kernel:
    """The kernels of branches at their places in one, added or one below the other."""
    import numpy as np

    weights, biases = [], []
    for branch in branches:
        weight, bias = branch.arrays(given)
        weight = in_groups(weight, branch.groups, groups)
        result = np.zeros((*weight.shape[:2], *(axis.extent for axis in axes)))
        places = tuple(
            slice(axis.before - own.before, axis.before - own.before + own.extent)
            for axis, own in zip(axes, branch.axes, strict=True)
        )
        result[:, :, *places] = weight
        weights.append(result)
        biases.append(np.zeros(len(weight)) if bias is None else bias)
    biased = any(branch.bias for branch in branches)
    if concat:
        return np.concatenate(weights), np.concatenate(biases) if biased else None
    return sum(weights[1:], weights[0]), sum(biases[1:], biases[0]) if biased else None


def matrices_in_a_row(before: Array, shift: Array | None, weight: Array, bias: Array | None) -> Kernel:
    """Two matrices as one. Of a diagonal there are only the numbers on it."""
    if weight.ndim == before.ndim == 1:
        result = weight * before
    elif weight.ndim == 1:
        result = weight[:, None] * before
    else:
        result = weight * before if before.ndim == 1 else weight @ before
    if shift is None:
        return result, bias
    passed = weight * shift if weight.ndim == 1 else weight @ shift
    return result, passed if bias is None else passed + bias


def rows_together(products: Sequence[Callable[[Given], Kernel]], concat: bool, given: Given) -> Kernel:
    """Matrices of branches, added or one below the other."""
    import numpy as np

    found = [product(given) for product in products]
    weights = [np.diag(weight) if weight.ndim == 1 else weight for weight, _ in found]
    biases = [np.zeros(len(weight)) if bias is None else bias for weight, (_, bias) in zip(weights, found, strict=True)]
    biased = any(bias is not None for _, bias in found)
    if concat:
        return np.concatenate(weights), np.concatenate(biases) if biased else None
    return sum(weights[1:], weights[0]), sum(biases[1:], biases[0]) if biased else None
