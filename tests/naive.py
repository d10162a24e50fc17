"""Layers as naive loops over numbers that count what is done to them.

Nothing here comes from convcalc: windows are found by walking, and costs by doing the work. Where a convention leaves
freedom, the docstring of the layer's `cost` states the algorithm, and the loop here follows that docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import product as grid
from typing import Any


class Tally:
    """What was done: products of dot products, all multiplications, additions, and everything else."""

    def __init__(self):
        self.macs = self.multiplications = self.additions = self.other = 0


_tally = Tally()


@contextmanager
def counting() -> Iterator[Tally]:
    """A fresh tally for the operations inside the `with` block."""
    global _tally  # noqa: PLW0603  numbers must find it without being told
    before, _tally = _tally, Tally()
    try:
        yield _tally
    finally:
        _tally = before


class Counting:
    """A number that notes each operation in the tally. A subtraction is an addition, a sign change is nothing."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        _tally.additions += 1
        return Counting(self.value + plain(other))

    __radd__ = __add__

    def __sub__(self, other):
        _tally.additions += 1
        return Counting(self.value - plain(other))

    def __rsub__(self, other):
        _tally.additions += 1
        return Counting(plain(other) - self.value)

    def __mul__(self, other):
        _tally.multiplications += 1
        return Counting(self.value * plain(other))

    __rmul__ = __mul__

    def __truediv__(self, other):
        _tally.other += 1
        # A value of 0 only stands for itself where nothing is divided by it.
        return Counting(Fraction(self.value) / (plain(other) or 1))

    def __rtruediv__(self, other):
        _tally.other += 1
        return Counting(Fraction(plain(other)) / (self.value or 1))

    def __gt__(self, other):
        _tally.other += 1
        return self.value > plain(other)

    def __lt__(self, other):
        _tally.other += 1
        return self.value < plain(other)

    def __ge__(self, other):
        _tally.other += 1
        return self.value >= plain(other)

    def __neg__(self):
        return Counting(-self.value)


def plain(number):
    return number.value if isinstance(number, Counting) else number


def call(number: Counting) -> Counting:
    """A function such as exp: one operation. Its value matters to no count."""
    _tally.other += 1
    return Counting(number.value)


def largest(numbers: Sequence[Counting]) -> Counting:
    best = numbers[0]
    for number in numbers[1:]:
        best = number if number > best else best
    return best


def total(numbers: Sequence[Counting]) -> Counting:
    result = numbers[0]
    for number in numbers[1:]:
        result = result + number
    return result


def dot(pairs: Sequence[tuple[Counting, Counting]]) -> Counting:
    """A dot product: its products are MACs."""
    _tally.macs += len(pairs)
    return total([a * b for a, b in pairs])


class Sums:
    """Places where numbers come together: the first one is put there, each further one is added."""

    def __init__(self):
        self.at: dict[Any, Counting] = {}

    def put(self, place, number: Counting) -> None:
        self.at[place] = self.at[place] + number if place in self.at else number

    def put_product(self, place, a: Counting, b: Counting) -> None:
        _tally.macs += 1
        self.put(place, a * b)


class Array:
    """Counting numbers by index. What lies outside is a zero, an operand like any other."""

    def __init__(self, shape: Sequence[int], values: Callable[[tuple[int, ...]], Counting]):
        self.shape = tuple(shape)
        self.at = {index: values(index) for index in grid(*map(range, shape))}

    def __getitem__(self, index):
        return self.at[index] if index in self.at else Counting(0)

    @property
    def indices(self):
        return list(self.at)


def array(shape: Sequence[int], seed: int = 0) -> Array:
    """Small whole numbers, none of them 0."""
    state = seed + 1

    def value(index):
        nonlocal state
        state = (state * 1103515245 + 12345) % 2**31
        return Counting(state // 65536 % 9 + 1)

    return Array(shape, value)


# --- windows --------------------------------------------------------------------------------------------------------


def starts(size, kernel, stride, before, after, dilation, ceil=False) -> list[int]:
    """Where the windows begin, found by walking. Input elements are 0 to size - 1, the left padding is negative.

    A window must end inside the padded input. With `ceil` it may stick out, by less than one stride, if it starts in
    the input or in the left padding.
    """
    result = []
    start = -before
    while True:
        past = start + dilation * (kernel - 1) - (size + after - 1)
        if past > 0 and not (ceil and past < stride):
            return result
        if not ceil or start < size:
            result.append(start)
        start += stride


def window_starts(layer, sizes, pads, ceil=False, dilation=None):
    dilation = dilation or (1,) * len(sizes)
    return [
        starts(size, kernel, stride, *pad, spread, ceil)
        for size, kernel, stride, pad, spread in zip(
            sizes, layer.kernel_size, layer.stride, pads, dilation, strict=True
        )
    ]


def taps(kernel_size):
    return list(grid(*map(range, kernel_size)))


def place(start, tap, dilation):
    return tuple(s + t * d for s, t, d in zip(start, tap, dilation, strict=True))


def word_pads(layer, sizes):
    """(before, after) per axis as the padding words say, by moving one element at a time."""
    if not isinstance(layer.padding, str):
        return layer.padding
    pads = []
    for size, kernel, stride, spread in zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        span = spread * (kernel - 1)
        before = after = 0
        if layer.padding == "causal":
            before = span
        elif layer.padding == "full":
            before = after = span
        elif layer.padding in ("same", "same_upper", "same_lower"):
            # `same` keeps the size; the others reach as many windows as there are multiples of the stride in it.
            wanted = len(range(0, size, stride))
            while len(starts(size, kernel, stride, before, after, spread)) < wanted:
                first_before = layer.padding == "same_lower"
                if (before + after) % 2 == (0 if first_before else 1):
                    before += 1
                else:
                    after += 1
        pads.append((before, after))
    return tuple(pads)


# --- convolution and linear -----------------------------------------------------------------------------------------


def conv(layer, x, weight, bias=None):
    pads = word_pads(layer, x.shape[2:])
    places = window_starts(layer, x.shape[2:], pads, dilation=layer.dilation)
    per_group, out_per_group = x.shape[1] // layer.groups, layer.out_channels // layer.groups

    def element(index):
        n, o, *at = index
        first = o // out_per_group * per_group
        start = [axis[i] for axis, i in zip(places, at, strict=True)]
        result = dot([
            (x[n, first + c, *place(start, tap, layer.dilation)], weight[o, c, *tap])
            for c in range(per_group) for tap in taps(layer.kernel_size)
        ])  # fmt: skip
        return result if bias is None else result + bias[(o,)]

    return Array((x.shape[0], layer.out_channels, *map(len, places)), element)


def conv_pairs(layer, x_shape, y):
    """Every (output index, input index, weight index) that meet in a convolution."""
    sizes = x_shape[2:]
    places = window_starts(layer, sizes, word_pads(layer, sizes), dilation=layer.dilation)
    per_group, out_per_group = x_shape[1] // layer.groups, layer.out_channels // layer.groups
    for index in y.indices:
        n, o, *at = index
        start = [axis[i] for axis, i in zip(places, at, strict=True)]
        for c in range(per_group):
            for tap in taps(layer.kernel_size):
                channel = o // out_per_group * per_group + c
                yield index, (n, channel, *place(start, tap, layer.dilation)), (o, c, *tap)


def conv_backward(layer, x, weight, y):
    def of_input():
        sums = Sums()
        for out, into, tap in conv_pairs(layer, x.shape, y):
            sums.put_product(into, y[out], weight[tap])

    def of_weight():
        sums = Sums()
        for out, into, tap in conv_pairs(layer, x.shape, y):
            sums.put_product(tap, y[out], x[into])

    return {"input": of_input, "weight": of_weight, "bias": bias_gradient(y, 1)}


def bias_gradient(y, axis):
    def of_bias():
        sums = Sums()
        for index in y.indices:
            sums.put(index[axis], y[index])

    return of_bias


def convt_pairs(layer, x):
    """Every (input index, place before cropping, weight index) that meet in a transposed convolution."""
    per_group, out_per_group = x.shape[1] // layer.groups, layer.out_channels // layer.groups
    for index in x.indices:
        n, i, *at = index
        start = [a * s for a, s in zip(at, layer.stride, strict=True)]
        for o in range(out_per_group):
            for tap in taps(layer.kernel_size):
                channel = i // per_group * out_per_group + o
                yield index, (n, channel, *place(start, tap, layer.dilation)), (i, o, *tap)


def convt(layer, x, weight, bias=None):
    sums = Sums()
    for index, to, tap in convt_pairs(layer, x):
        sums.put_product(to, x[index], weight[tap])
    extra = layer.output_padding
    sizes = [
        max(range((size - 1) * stride + spread * (kernel - 1) + 1)) + 1 + more - sum(pad)
        for size, kernel, stride, spread, pad, more in zip(
            x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, layer.padding, extra, strict=True
        )
    ]

    def element(index):
        n, o, *at = index
        result = sums.at.get((n, o, *(a + pad[0] for a, pad in zip(at, layer.padding, strict=True))), Counting(0))
        return result if bias is None else result + bias[(o,)]

    return Array((x.shape[0], layer.out_channels, *sizes), element)


def convt_backward(layer, x, weight, y):
    def gradient(to):
        n, o, *at = to
        return y[n, o, *(a - pad[0] for a, pad in zip(at, layer.padding, strict=True))]

    def of_input():
        sums = Sums()
        for index, to, tap in convt_pairs(layer, x):
            sums.put_product(index, gradient(to), weight[tap])

    def of_weight():
        sums = Sums()
        for index, to, tap in convt_pairs(layer, x):
            sums.put_product(tap, gradient(to), x[index])

    return {"input": of_input, "weight": of_weight, "bias": bias_gradient(y, 1)}


def linear(layer, x, weight, bias=None):
    def element(index):
        *row, o = index
        result = dot([(x[*row, i], weight[o, i]) for i in range(x.shape[-1])])
        return result if bias is None else result + bias[(o,)]

    return Array((*x.shape[:-1], weight.shape[0]), element)


def linear_backward(layer, x, weight, y):
    def of_input():
        sums = Sums()
        for *row, o in y.indices:
            for i in range(x.shape[-1]):
                sums.put_product((*row, i), y[*row, o], weight[o, i])

    def of_weight():
        sums = Sums()
        for *row, o in y.indices:
            for i in range(x.shape[-1]):
                sums.put_product((o, i), y[*row, o], x[*row, i])

    return {"input": of_input, "weight": of_weight, "bias": bias_gradient(y, -1)}


# --- pooling --------------------------------------------------------------------------------------------------------


def pooled(layer, x, join):
    """The windows of every channel, joined one by one; what sticks out is an operand like any other."""
    dilation = getattr(layer, "dilation", (1,) * len(layer.kernel_size))
    places = window_starts(layer, x.shape[2:], layer.padding, layer.ceil_mode, dilation)

    def element(index):
        n, c, *at = index
        start = [axis[i] for axis, i in zip(places, at, strict=True)]
        return join([x[n, c, *place(start, tap, dilation)] for tap in taps(layer.kernel_size)])

    return Array((*x.shape[:2], *map(len, places)), element)


def maxpool(layer, x):
    return pooled(layer, x, largest)


def maxpool_backward(layer, x, y):
    """The gradient starts from zeros, and each output's is added to it."""

    def of_input():
        return [Counting(0) + y[index] for index in y.indices]

    return {"input": of_input}


def avgpool(layer, x):
    return pooled(layer, x, lambda window: total(window) / len(window))


def avgpool_backward(layer, x, y):
    def of_input():
        shares = [y[index] / len(taps(layer.kernel_size)) for index in y.indices]
        return [Counting(0) + share for share in shares for _ in taps(layer.kernel_size)]

    return {"input": of_input}


# --- elements -------------------------------------------------------------------------------------------------------


def relu(layer, x):
    return Array(x.shape, lambda index: largest([Counting(0), x[index]]))


def relu_backward(layer, x, y):
    def of_input():
        return [y[index] > 0 for index in y.indices]

    return {"input": of_input}
