"""Products of places, each a row of channels, with weights: what 1x1 convolutions and laid out windows come to.

A large product first lays out what it multiplies. Of few places, or of long sums, OpenBLAS's kernels for small products
take two thirds of the time, with weights that lie as they take them. They cannot add to what is there (a call for each
would cost more than they save), so the parts of sums are made side by side, and added up while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np

from convcalc.executor.blas import SMALL_PRODUCT, add_products, can_add_to, has_small_products
from convcalc.executor.blocks import BLOCK_ELEMENTS, Activation, copy, even_slices, finish, shares
from convcalc.executor.kernels import Array, parts_of
from convcalc.executor.pieces import ROW
from convcalc.executor.threads import Calls, scratch, share_calls, thread_count
from convcalc.executor.winograd import channels_at_once
from convcalc.tracing import ceil_div

LONG_SUM = 512
"""Terms from which on small products are faster, though their parts must be added up."""
FEW_PLACES_SUM = 256
"""The same where there are fewer places than `FEW_PLACES`."""
FEW_PLACES = 512
LEAST_PLACES = 8
"""Places below which no product is worth its call."""
PART_ELEMENTS = BLOCK_ELEMENTS * 2
"""Numbers of the parts of sums that are made before they are added up."""
SHARED_PLACES = 128
"""Places for a thread, below which threads share the output channels, and so the weights."""
PLACES_ELEMENTS = BLOCK_ELEMENTS * 4
"""Numbers that come in and go out of a block of places."""


class Places(NamedTuple):
    """What is multiplied, where it goes, and what is added: (places, terms), (places, O), and of the same shape."""

    values: Array
    result: Array
    added: Sequence[Array] = ()

    def part(self, places: slice, channels: slice) -> Places:
        """Some places and some of the output channels."""
        added = [array[places, channels] for array in self.added]
        return Places(self.values[places], self.result[places, channels], added)


class Weight(NamedTuple):
    """Weights as products take them: the matrix (O, terms), or what lies for small products, by parts of the sums.

    The latter as (parts, parts of O, terms of a part, O of a part).
    """

    array: Array

    @property
    def by_parts(self) -> bool:
        return self.array.ndim == 4

    @property
    def step(self) -> int:
        """How many output channels cannot be divided."""
        return self.array.shape[3] if self.by_parts else 1

    @property
    def channels_out(self) -> int:
        return self.array.shape[1] * self.step if self.by_parts else len(self.array)

    def part(self, channels: slice) -> Array:
        """The array for some of the output channels."""
        if not self.by_parts:
            return self.array[channels]
        return self.array[:, channels.start // self.step : channels.stop // self.step]


@lru_cache(maxsize=1024)
def parts_at_once(places: int, terms: int, channels_out: int) -> int:
    """In how many parts to make sums by small products; 0 where large ones are as fast."""
    enough = terms >= (FEW_PLACES_SUM if places < FEW_PLACES else LONG_SUM) and places >= LEAST_PLACES
    together = channels_at_once(channels_out)
    if not has_small_products() or not enough or together == channels_out > 64:
        return 0
    # Exact enough, and of few places all in one product, so that weights are read once.
    least = max(parts_of(terms), ceil_div(terms * together * min(places, 64), SMALL_PRODUCT))
    return next((parts for parts in range(least, 2 * least + 1) if terms % parts == 0), 0)


def laid_by_parts(matrix: Array, parts: int) -> Weight:
    """The matrix (O, terms) as small products take it; as it is for 0 parts."""
    if not parts:
        return Weight(matrix)
    channels_out, terms = matrix.shape
    together = channels_at_once(channels_out)
    split = matrix.reshape(channels_out // together, together, parts, terms // parts)
    return Weight(np.ascontiguousarray(split.transpose(2, 0, 3, 1)))


def share_products(
    images: Sequence[Places], weight: Weight, bias: Array | None, activation: Activation | None, macs: int
) -> None:
    """Multiply images that are alike, which takes so many multiply-adds, and add the bias, and activate.

    Threads share places, where there are many and their channels lie together, or else output channels.
    """
    count, channels_out = thread_count(), weight.channels_out
    places, terms = images[0].values.shape
    macs //= len(images)

    def work(task: tuple[Places, slice, slice]) -> Calls:
        image, some, own = task
        calls: Calls = []
        own_bias = None if bias is None else bias[own]
        multiply_places(image.part(some, own), weight.part(own), own_bias, activation, calls)
        return calls

    if places >= SHARED_PLACES * count and _lies_by_channels(images[0].result):
        parts = _cut(shares(places, macs), PLACES_ELEMENTS // (terms + channels_out))
        tasks = [(image, part, slice(0, channels_out)) for image in images for part in parts]
    else:
        owns = _own_channels(weight, macs, alone=len(images) == 1)
        tasks = [(image, slice(0, places), own) for image in images for own in owns]
    share_calls(work, tasks)


def _own_channels(weight: Weight, macs: int, *, alone: bool) -> list[slice]:
    """The output channels, which take so many multiply-adds, in a slice for each thread."""
    fair = shares(weight.channels_out, macs)
    if alone and not weight.by_parts:
        return fair
    step, hands = weight.step, len(fair) if alone else thread_count()
    return [slice(own.start * step, own.stop * step) for own in even_slices(weight.channels_out // step, hands)]


def _cut(parts: Sequence[slice], most: int) -> list[slice]:
    """Each thread's part in as many of at most so many, those of the first thread, the second, ... in turn."""
    sizes = [part.stop - part.start for part in parts]
    count = min(ceil_div(max(sizes), max(most, 1)), *sizes)
    cut = [
        [slice(part.start + own.start, part.start + own.stop) for own in even_slices(part.stop - part.start, count)]
        for part in parts
    ]
    return [part for turn in zip(*cut, strict=True) for part in turn]


def multiply_places(
    image: Places, weight: Array, bias: Array | None, activation: Activation | None, calls: Calls
) -> None:
    """Call values @ weight, with what is added and the activation, into the result; the weight is a `Weight.part`."""
    if weight.ndim == 4:
        _by_small_products(image, weight, bias, activation, calls)
        return
    values, result, added = image
    begun = _begin(result, added, bias, calls)
    # Where the channels do not lie together the places do.
    left, right, out = (values, weight.T, result) if _lies_by_channels(result) else (weight, values.T, result.T)
    terms = left.shape[1]
    step = ceil_div(terms, parts_of(terms))
    if can_add_to(left, right, out):
        if not begun:
            calls.append((np.matmul, (left[:, :step], right[:step], out)))
        add_products(left, right, out, range(0 if begun else step, terms, step), calls)
    else:
        room = scratch("part", out.shape, out.dtype)
        for start in range(0, terms, step):
            part, there = slice(start, start + step), begun or start
            calls.append((np.matmul, (left[:, part], right[part], room if there else out)))
            if there:
                calls.append((np.add, (out, room, out)))
    finish(out, None, activation, calls)


def _lies_by_channels(result: Array) -> bool:
    return result.strides[1] == result.itemsize


def _begin(result: Array, added: Sequence[Array], bias: Array | None, calls: Calls) -> bool:
    """Write what is added to products to where these go; whether there is anything."""
    if bias is None:
        for index, array in enumerate(added):
            calls.append((np.add, (result, array, result)) if index else (np.copyto, (result, array)))
        return bool(added)
    row = repeated(bias, result, *added)
    wide, *others = (array.reshape(-1, len(row)) if len(row) > len(bias) else array for array in (result, *added))
    calls.append((np.add, (others[0], row, wide)) if others else (np.copyto, (wide, row)))
    calls += [(np.add, (wide, array, wide)) for array in others[1:]]
    return True


def repeated(row: Array, *arrays: Array) -> Array:
    """A row of channels for several places at once, as many as divide the places of the arrays evenly.

    NumPy calls its loop for each row, which takes as long as some hundred numbers.
    """
    if not all(array.flags.c_contiguous for array in arrays):
        return row
    places = len(arrays[0])
    most = min(max(1, ROW // len(row)), places)
    return np.tile(row, next((count for count in range(most, 0, -1) if places % count == 0), 1))


def add_row(result: Array, row: Array, calls: Calls) -> None:
    """Call what adds a number for each channel to (places, O), which lies without gaps or in rows."""
    wide = repeated(row, result)
    lying = result.reshape(-1, len(wide)) if len(wide) > len(row) else result
    calls.append((np.add, (lying, wide, lying)))


def _by_small_products(
    image: Places, weight: Array, bias: Array | None, activation: Activation | None, calls: Calls
) -> None:
    """The same with weights that lie by parts: block by block, all parts of its sums, and these added up."""
    parts, chunks, terms, together = weight.shape
    places = len(image.values)
    # Nearly square blocks read least; of few places all.
    elements = PART_ELEMENTS // parts
    wide = max(1, max(isqrt(elements), elements // places) // together)
    for own in even_slices(chunks, ceil_div(chunks, wide)):
        channels = slice(own.start * together, own.stop * together)
        count = channels.stop - channels.start
        for some in even_slices(places, ceil_div(places * count, elements)):
            height = some.stop - some.start
            values = image.values[some].reshape(height, parts, terms).swapaxes(0, 1)
            room = scratch("part", (parts, height, count), values.dtype)
            step = _rows_at_once(height, terms * together)
            whole = height // step * step
            for start, stop in ((0, whole), (whole, height)):
                if start < stop:
                    rows = min(step, stop - start)
                    left = values[:, start:stop].reshape(parts, -1, 1, rows, terms)
                    made = room[:, start:stop].reshape(parts, -1, rows, own.stop - own.start, together).swapaxes(2, 3)
                    calls.append((np.matmul, (left, weight[:, None, own], made)))
            result = image.result[some, channels]
            total = result if result.flags.c_contiguous else scratch("total", result.shape, result.dtype)
            calls.append((np.add.reduce, (room, 0, None, total)))
            if bias is not None:
                add_row(total, bias[channels], calls)
            calls += [(np.add, (total, array[some, channels], total)) for array in image.added]
            finish(total, None, activation, calls)
            if total is not result:
                copy(result, total, calls)


def _rows_at_once(rows: int, work: int) -> int:
    """How many rows to multiply at once, a row taking so much work, so that products are small: alike, if possible."""
    least = ceil_div(rows * work, SMALL_PRODUCT)
    count = next((count for count in range(least, 2 * least + 1) if rows % count == 0), least)
    return int(ceil_div(rows, count))


def part_elements(places: int, terms: int, channels_out: int) -> int:
    """The numbers that all threads together work in to multiply so many places: the parts of sums, and the sums."""
    parts = parts_at_once(places, terms, channels_out)
    whole = (parts + 1) * places * channels_out
    return min(whole, thread_count() * (PART_ELEMENTS + PART_ELEMENTS // parts)) if parts else 0
