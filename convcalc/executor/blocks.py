"""What the fast convolutions share: the problem in numbers, its division into blocks, and padding block by block.

A block is as much work as stays in a core's cache; blocks are what threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import pairwise, product as combinations
from math import gcd
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from convcalc import formulas as F
from convcalc.executor.blas import add_products, can_add_to
from convcalc.executor.kernels import Array, parts_of
from convcalc.executor.memory_format import as_they_lie, lying, seen
from convcalc.executor.threads import Calls, is_in_a_row, scratch, share_calls, thread_count
from convcalc.layers.base import Pairs, Shape
from convcalc.tracing import ceil_div, per_axis, product

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK_ELEMENTS = 1 << 17
"""Numbers that a block works on: half a megabyte of float32, half of the second level of many a core's cache."""
WAKING = 1 << 22
"""Multiply-adds that a thread makes while another is woken."""
WATCHING = 1 << 20
"""The same while another sees that it may go on."""
COPY = 50
"""What a number laid out costs, in multiply-adds of a matrix product."""

Activation = Callable[[Array], Calls]
"""What to call to change an array where it stands."""


class Problem(NamedTuple):
    """A convolution in numbers: `pads` are zeros (before, after) for each axis, `output` the shape (N, O, *sizes)."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pairs
    groups: int
    input: Shape
    output: Shape

    @property
    def rank(self) -> int:
        return len(self.kernel_size)

    @property
    def taps(self) -> int:
        """The elements of the kernel, for one channel."""
        return int(product(self.kernel_size))

    @property
    def depth(self) -> int:
        """The terms of each output element."""
        return self.input[1] // self.groups * self.taps

    @property
    def widths(self) -> tuple[int, ...]:
        """The padded sizes of all axes but the first."""
        return tuple(size + sum(pair) for size, pair in zip(self.input[3:], self.pads[1:], strict=True))

    @property
    def macs(self) -> int:
        """Multiply-adds, done directly."""
        return int(product(self.output)) * self.depth


class Block(NamedTuple):
    """Images first to last, and rows (of the first spatial axis of the output) start to stop."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def many(self) -> int:
        return self.last - self.first

    @property
    def height(self) -> int:
        return self.stop - self.start


def least_work() -> int:
    """Multiply-adds below which a block is not worth a thread's while."""
    return WATCHING if is_in_a_row() else WAKING


def for_threads(function: Function) -> Function:
    """Keep what a function gives for its arguments and the threads there are: making blocks takes as long as a call."""

    @lru_cache(maxsize=1024)
    def kept(threads: tuple[int, int], *arguments: Any) -> Any:
        return function(*arguments)

    @wraps(function)
    def found(*arguments: Any) -> Any:
        return kept((thread_count(), least_work()), *arguments)

    return cast("Function", found)


def blocks(
    images: int, rows: int, row_elements: int, row_work: float, limit: int = BLOCK_ELEMENTS, parts: int = 1
) -> list[Block]:
    """Blocks of at most `limit` elements: parts of an image, or several whole images when they are small.

    There is a block for every thread, unless blocks would fall below `least_work`. `parts` says how many more blocks
    the caller makes of each.
    """
    fair = ceil_div(images * rows * parts, thread_count())
    least = max(1, int(least_work() / max(row_work, 1)))
    height = max(1, min(limit // max(row_elements, 1), max(fair, least)))
    if height >= rows:
        count = _even(ceil_div(images, height // rows), images, parts)
        return [Block(part.start, part.stop, 0, rows) for part in even_slices(images, count)]
    count = _even(ceil_div(rows, height), rows, images * parts)
    found = combinations(range(images), even_slices(rows, count))
    cut = [Block(image, image + 1, part.start, part.stop) for image, part in found]
    # Larger ones first: what a thread has laid out for the first is enough for the others.
    return sorted(cut, key=lambda block: -block.height)


def _even(count: int, most: int, times: int) -> int:
    """So many parts or a few more, up to `most`, that threads get equally many when there are `times` as many."""
    if count * times <= 1:
        return count
    step = thread_count() // gcd(thread_count(), times)
    return min(-(-count // step) * step, most)


def even_slices(size: int, count: int) -> list[slice]:
    """0 to `size` in `count` slices, or as many as there are elements; larger ones, by one at most, come first."""
    count = max(1, min(count, size))
    least, more = divmod(size, count)
    starts = [part * least + min(part, more) for part in range(count + 1)]
    return [slice(*pair) for pair in pairwise(starts)]


def shares(size: int, work: float) -> list[slice]:
    """0 to `size`, which takes so many multiply-adds, in a slice for each thread; one if there is little to do.

    The first is the calling thread's, which begins before it has woken the others.
    """
    count = thread_count()
    if count == 1 or work < least_work() * count:
        return [slice(0, size)]
    waking = 0 if is_in_a_row() else WAKING
    other = int(size * (work - waking) / work / count)
    even = (other + 4) // 8 * 8
    if size >= 64 and even * (count - 1) < size:  # products are made of whole vectors
        other = even
    rest = even_slices(other * (count - 1), count - 1)
    first = size - other * (count - 1)
    return [slice(0, first), *(slice(first + part.start, first + part.stop) for part in rest if part.stop)]


def slab(
    x: Array, pads: Pairs, first: int, last: int, top: int, bottom: int, calls: Calls, *, channels_last: bool = False
) -> Array:
    """Images first to last and rows top to bottom of `x` padded with zeros, rows counted in what is padded.

    A view where nothing is padded, else a copy that the calls make, and that stands until this thread asks for the
    next; in memory its channels may be last. Rows beyond the padding are zeros too.
    """
    if not any(before or after for before, after in pads) and bottom <= x.shape[2]:
        return x[first:last, :, top:bottom]
    front, height = pads[0][0], x.shape[2]
    low, high = min(max(top - front, 0), height), max(min(bottom - front, height), 0)
    high = max(low, high)
    inner = [(max(low + front - top, 0), high - low)] + [
        (before, size) for (before, _), size in zip(pads[1:], x.shape[3:], strict=True)
    ]
    sizes = [bottom - top] + [
        before + size + after for size, (before, after) in zip(x.shape[3:], pads[1:], strict=True)
    ]
    # Zeros everywhere are faster than zeros around: one call, of which the cache keeps what the next needs.
    shape = (last - first, x.shape[1], *sizes)
    target = scratch("slab", shape, x.dtype)
    calls.append((target.fill, (0,)))
    if channels_last:
        target = seen(target, shape)
    core = (slice(None), slice(None), *(slice(start, start + size) for start, size in inner))
    inside, source = target[core], x[first:last, :, low:high]
    if channels_last:
        inside, source = lying(inside), lying(source)
    copy(inside, source, calls)
    return target


def copy(target: Array, source: Array, calls: Calls) -> None:
    """Call np.copyto, with what lies together of the last axes on both sides as one number: that is faster."""
    width, axis = target.itemsize, target.ndim
    while axis and target.strides[axis - 1] == source.strides[axis - 1] == width:
        axis -= 1
        width *= target.shape[axis]
    if target.size and width > target.itemsize:
        target, source = (_as_numbers(array, axis, width) for array in (target, source))
    calls.append((np.copyto, (target, source)))


def _as_numbers(array: Array, axis: int, width: int) -> Array:
    """The axes from this one on, which lie together, as one number of so many bytes."""
    if axis < array.ndim - 1:
        shape = (*array.shape[:axis], width // array.itemsize)
        array = np.lib.stride_tricks.as_strided(array, shape, (*array.strides[:axis], array.itemsize))
    return array.view(np.dtype((np.void, width)))[..., 0]


def rows_read(problem: Problem, start: int, stop: int) -> tuple[int, int]:
    """The rows of the padded input that output rows start to stop read."""
    extent = F.kernel_extent(problem.kernel_size[0], problem.dilation[0])
    return start * problem.stride[0], (stop - 1) * problem.stride[0] + extent


def view_of(array: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The array's memory in another shape, to be read: as NumPy's as_strided, which takes seven times as long."""
    if array.flags.c_contiguous:
        return np.ndarray(shape, array.dtype, array, 0, strides)
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def taps_view(padded: Array, problem: Problem, sizes: Sequence[int]) -> Array:
    """(N, C, *kernel_size, *sizes): what each tap of the kernel sees, for so many outputs, as a view."""
    steps = padded.strides[2:]
    return view_of(
        padded,
        (*padded.shape[:2], *problem.kernel_size, *sizes),
        (
            *padded.strides[:2],
            *per_axis(lambda step, dilation: step * dilation, steps, problem.dilation),
            *per_axis(lambda step, stride: step * stride, steps, problem.stride),
        ),
    )


def span(shift: int, step: int, count: int, size: int) -> tuple[int, int, int]:
    """Which of `count` outputs see a place inside, first to last, and what the first of them sees.

    Output number n sees place n·step + shift of an axis of this size.

    >>> span(-1, 2, 4, 7)
    (1, 4, 1)
    """
    first = min(max(-(shift // step), 0), count)
    last = max(min((size - 1 - shift) // step + 1, count), first)
    return first, last, first * step + shift


def multiply(weight: Array, columns: Array, out: Array, terms: int, calls: Calls, added: Sequence[Array] = ()) -> None:
    """Call weight @ columns, and what is added, into `out`.

    Sums of so many terms are made in parts; `sums_of_products` says why.
    """
    length = weight.shape[-1]
    step = ceil_div(length, parts_of(terms))
    if (added or step < length) and can_add_to(weight, columns, out):
        first, *others = added or (None,)
        if first is None:
            calls.append((np.matmul, (weight[:, :step], columns[:step], out)))
        elif others:
            calls.append((np.add, (first, others.pop(0), out)))
        else:
            calls.append((np.copyto, (out, first)))
        calls += [(np.add, (out, other, out)) for other in others]
        add_products(weight, columns, out, range(step if first is None else 0, length, step), calls)
        return
    calls.append((np.matmul, (weight[..., :step], columns[..., :step, :], out)))
    room = out
    if step < length:
        # As `out` lies in memory, so that both are added in long steps.
        order = sorted(range(out.ndim), key=lambda axis: -out.strides[axis])
        lying = scratch("part", tuple(out.shape[axis] for axis in order), out.dtype)
        room = lying.transpose(sorted(range(out.ndim), key=order.__getitem__))
    for start in range(step, length, step):
        part = slice(start, start + step)
        calls.append((np.matmul, (weight[..., part], columns[..., part, :], room)))
        calls.append((np.add, (out, room, out)))
    calls += [(np.add, (out, other, out)) for other in added]


def add_up(arrays: Sequence[Array], out: Array, activation: Activation | None) -> None:
    """The sum of several arrays of one shape, activated, block by block; `out` may be the first of them."""
    *arrays, out = as_they_lie(*arrays, out)
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    result = out.reshape(-1)

    def work(start: int) -> Calls:
        first, second, *others = (array[start : start + BLOCK_ELEMENTS] for array in flat)
        part = result[start : start + BLOCK_ELEMENTS]
        calls: Calls = [(np.add, (first, second, part))]
        calls += [(np.add, (part, other, part)) for other in others]
        if activation is not None:
            calls += activation(part)
        return calls

    share_calls(work, range(0, out.size, BLOCK_ELEMENTS))


def finish(part: Array, bias: Array | None, activation: Activation | None, calls: Calls) -> None:
    """Add the bias, shaped to fit, and apply the activation, while the block is in the cache."""
    if bias is not None:
        calls.append((np.add, (part, bias, part)))
    if activation is not None:
        calls += activation(part)
