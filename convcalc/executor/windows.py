"""What everything that slides a window shares: padding, cutting windows out, and adding them back.

Arrays are (N, C, *sizes). Lists of sizes, strides and so on have one entry for each spatial axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convcalc import formulas as F
from convcalc.executor.kernels import Array
from convcalc.layers.base import Pairs
from convcalc.tracing import per_axis

_NUMPY_MODES = {
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "constant": "constant",
    "zeros": "constant",
}


def pad(x: Array, pads: Pairs, mode: str = "zeros", fill: float = 0) -> Array:
    """The array with so many elements (before, after) more on the last axes; a negative number cuts off.

    `mode` is PyTorch's: zeros or constant (with `fill`), reflect, replicate, circular.
    """
    lead = x.ndim - len(pads)
    cut = tuple(slice(max(-before, 0), size - max(-after, 0)) for (before, after), size in _with_sizes(x, pads))
    x = x[(slice(None),) * lead + cut]
    width = [(max(before, 0), max(after, 0)) for before, after in pads]
    if not any(before or after for before, after in width):
        return x
    known = _NUMPY_MODES[mode]
    if any(max(pair) > most for pair, most in zip(width, _most_at_once(known, x.shape[lead:]), strict=True)):
        turned: Array = np.pad(x, [(0, 0)] * lead + width, mode=known)  # type: ignore[call-overload]  # a mode from a table
        return turned
    sizes = [size + before + after for size, (before, after) in zip(x.shape[lead:], width, strict=True)]
    result = np.empty((*x.shape[:lead], *sizes), x.dtype)
    inside = [slice(None)] * lead + [
        slice(pair[0], pair[0] + size) for pair, size in zip(width, x.shape[lead:], strict=True)
    ]
    result[tuple(inside)] = x
    # Axis by axis from the last, so that whole rows are copied; along axes before it there is nothing outside yet.
    for axis in range(x.ndim - 1, lead - 1, -1):
        source = x if axis == x.ndim - 1 else result[tuple(inside)]  # NumPy copies what may overlap once more
        inside[axis] = slice(None)
        _fill_ends(
            np.moveaxis(result[tuple(inside)], axis, 0), np.moveaxis(source, axis, 0), width[axis - lead], known, fill
        )
    return result


def _most_at_once(mode: str, sizes: Sequence[int]) -> list[float]:
    """How much of each axis can be outside on a side without going through it twice."""
    return [
        {"constant": np.inf, "edge": np.inf if size else 0, "wrap": size, "reflect": size - 1}[mode] for size in sizes
    ]


def _fill_ends(whole: Array, inside: Array, width: tuple[int, int], mode: str, fill: float) -> None:
    """Write what is outside along the first axis."""
    before, after = width
    size = len(inside)
    front, back = whole[:before], whole[before + size :]
    if mode == "constant":
        front[...] = back[...] = fill
    elif mode == "edge":
        front[...], back[...] = inside[:1], inside[size - 1 :]
    elif mode == "wrap":
        front[...], back[...] = inside[size - before :], inside[:after]
    else:
        front[...] = inside[1 : before + 1][::-1]
        back[...] = inside[size - 1 - after : size - 1][::-1]


def unpad(gradient: Array, pads: Pairs, sizes: Sequence[int], mode: str = "zeros") -> Array:
    """The gradient of `pad` for an input of these sizes: what went to copies of an element comes back to it."""
    if _NUMPY_MODES[mode] == "constant":
        # What was cut off had no part in the output: its gradient is 0.
        return pad(gradient, tuple((-before, -after) for before, after in pads))
    lead = gradient.ndim - len(pads)
    for axis, (pair, size) in enumerate(zip(pads, sizes, strict=True)):
        source = pad(np.arange(size), (pair,), mode)
        moved = np.moveaxis(gradient, lead + axis, 0)
        back = np.zeros((size, *moved.shape[1:]), gradient.dtype)
        np.add.at(back, source, moved)
        gradient = np.moveaxis(back, 0, lead + axis)
    return gradient


def _with_sizes(x: Array, pads: Pairs) -> list[tuple[tuple[int, int], int]]:
    return list(zip(pads, x.shape[x.ndim - len(pads) :], strict=True))


def fit(
    x: Array,
    before: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
    fill: float = 0,
) -> Array:
    """The array padded with `fill` in front, and at the end padded or cut, so that exactly `output` windows fit."""
    extents = per_axis(F.kernel_extent, kernel_size, dilation)
    sizes = x.shape[2:]
    pads = tuple(
        (front, (count - 1) * step + extent - size - front)
        for front, count, step, extent, size in zip(before, output, stride, extents, sizes, strict=True)
    )
    return pad(x, pads, fill=fill)


def windows(
    x: Array, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> Array:
    """The first `output` windows of a padded array, as a view: (N, C, *output, *kernel_size)."""
    rank = len(kernel_size)
    extents = per_axis(F.kernel_extent, kernel_size, dilation)
    view = np.lib.stride_tricks.sliding_window_view(x, extents, axis=tuple(range(2, 2 + rank)))
    starts = tuple(slice(0, (count - 1) * step + 1, step) for count, step in zip(output, stride, strict=True))
    taps = tuple(slice(None, None, step) for step in dilation)
    return view[(slice(None), slice(None), *starts, *taps)]


def columns(
    x: Array,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
) -> Array:
    """The windows of a padded array as columns: (N, groups, C / groups · ∏kernel_size, ∏output)."""
    rank = len(kernel_size)
    view = windows(x, kernel_size, stride, dilation, output)
    taps_first = np.moveaxis(view, range(2 + rank, 2 + 2 * rank), range(2, 2 + rank))
    rows = x.shape[1] // groups * int(np.prod(kernel_size))
    return taps_first.reshape(x.shape[0], groups, rows, int(np.prod(output)))


def add_columns(
    cols: Array,
    channels: int,
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
) -> Array:
    """The transpose of `columns`: an array (N, channels, *sizes) where every window's elements are added up."""
    parts = cols.reshape(cols.shape[0], channels, *kernel_size, *output)
    result = np.zeros((cols.shape[0], channels, *sizes), cols.dtype)
    for taps in np.ndindex(*kernel_size):
        places = tuple(
            slice(tap * spread, tap * spread + (count - 1) * step + 1, step)
            for tap, spread, count, step in zip(taps, dilation, output, stride, strict=True)
        )
        result[(slice(None), slice(None), *places)] += parts[(slice(None), slice(None), *taps)]
    return result


def window_grid(
    sizes: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """How many windows fit along each axis of a padded array."""
    none = (0,) * len(sizes)
    return per_axis(F.window_count, sizes, kernel_size, stride, none, none, dilation)
