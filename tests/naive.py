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
        return Counting(self.value / (plain(other) or 1))  # only the count matters

    def __rtruediv__(self, other):
        _tally.other += 1
        return Counting(plain(other) / (self.value or 1))

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
        if layer.padding_mode != "zeros":
            # What stands outside the input is a copy: its gradient is added to where it is from.
            pads = word_pads(layer, x.shape[2:])
            around = [range(-before, size + after) for (before, after), size in zip(pads, x.shape[2:], strict=True)]
            for index in grid(*map(range, x.shape[:2]), *around):
                if index not in x.at:
                    x[index] + sums.at.get(index, Counting(0))

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


def lppool(layer, x):
    powers = Array(x.shape, lambda index: call(x[index]))
    return pooled(layer, powers, lambda window: call(total(window)))


def lppool_backward(layer, x, y):
    """A power and a product for each window, added to its elements, and again for each input element."""

    def of_input():
        shares = [call(y[index]) * y[index] for index in y.indices]
        for share in shares:
            for _ in taps(layer.kernel_size):
                share + Counting(0)
        return [call(x[index]) * x[index] for index in x.indices]

    return {"input": of_input}


def fractional(layer, x):
    """Where the windows are is drawn, and matters to no count: here they follow each other."""
    sizes = [wanted if isinstance(wanted, int) else 0 for wanted in layer.output_size]

    def element(index):
        n, c, *at = index
        return largest([x[n, c, *place(at, tap, (1,) * len(at))] for tap in taps(layer.kernel_size)])

    return Array((*x.shape[:2], *sizes), element)


def adaptive_windows(size, output):
    """The elements of each window: those that share some length with the window's part of the axis."""
    windows = []
    for i in range(output):
        low, high = Fraction(i * size, output), Fraction((i + 1) * size, output)
        windows.append([j for j in range(size) if max(low, j) < min(high, j + 1)])
    return windows


def adaptive(output, x, join):
    windows = [adaptive_windows(size, wanted) for size, wanted in zip(x.shape[2:], output, strict=True)]

    def element(index):
        n, c, *at = index
        return join([x[n, c, *inside] for inside in grid(*(axis[i] for axis, i in zip(windows, at, strict=True)))])

    return Array((*x.shape[:2], *output), element)


def mean(numbers):
    return total(numbers) / len(numbers)


def adaptive_output(layer, x):
    wanted = getattr(layer, "output_size", (1,) * len(x.shape[2:]))
    return [size if out is None else out for out, size in zip(wanted, x.shape[2:], strict=True)]


def adaptive_average(layer, x):
    return adaptive(adaptive_output(layer, x), x, mean)


def adaptive_maximum(layer, x):
    return adaptive(adaptive_output(layer, x), x, largest)


def adaptive_average_backward(layer, x, y):
    """Each gradient is divided once and added to its whole window."""

    def spread(window):
        share = Counting(1) / 2
        for _ in window:
            share + Counting(0)
        return Counting(0)

    return {"input": lambda: adaptive(y.shape[2:], x, spread)}


def area(layer, x, sizes):
    return adaptive(sizes, x, mean)


# --- elements -------------------------------------------------------------------------------------------------------


def larger(a, b):
    _tally.other += 1
    return Counting(max(plain(a), plain(b)))


def smaller(a, b):
    _tally.other += 1
    return Counting(min(plain(a), plain(b)))


def choose(condition, a, b):
    """Both are made; choosing is free."""
    return a if condition else b


def leaky(x):
    return choose(x > 0, x, 0.01 * x)


FUNCTIONS = {
    "relu": lambda x: larger(x, 0),
    "relu6": lambda x: smaller(larger(x, 0), 6),
    "leakyrelu": leaky,
    "rrelu": leaky,
    "prelu": leaky,
    "threshold": lambda x: choose(x > 1, x, Counting(2)),
    "hardtanh": lambda x: smaller(larger(x, -1), 1),
    "hardsigmoid": lambda x: smaller(larger(x + 3, 0), 6) / 6,
    "hardswish": lambda x: x * smaller(larger(x + 3, 0), 6) / 6,
    "hardshrink": lambda x: choose(call(x) > 0.5, x, Counting(0)),
    "softshrink": lambda x: larger(x - 0.5, 0) + smaller(x + 0.5, 0),
    "elu": lambda x: choose(x > 0, x, 1.0 * call(x)),
    "selu": lambda x: 1.05 * choose(x > 0, x, 1.67 * call(x)),
    "celu": lambda x: larger(x, 0) + smaller(1.0 * call(x / 1.0), 0),
    "sigmoid": lambda x: 1 / (1 + call(-x)),
    "logsigmoid": lambda x: smaller(x, 0) - call(call(-call(x))),
    "silu": lambda x: x / (1 + call(-x)),
    "mish": lambda x: x * call(call(call(x))),
    "scale": lambda x: x * 2,
    "shift": lambda x: x + 2,
    "softplus": lambda x: choose(1.0 * x > 20, x, call(call(1.0 * x)) / 1.0),
    "softsign": lambda x: x / (1 + call(x)),
    "tanh": call,
    "tanhshrink": lambda x: x - call(x),
    "gelu": lambda x: 0.5 * x * (1 + call(0.7 * x)),
}
"""One element at a time: exp(x) - 1 and ln(1 + x) are one function each, a sign is free, every branch is taken."""


def gelu_tanh(x):
    return 0.5 * x * (1 + call(0.8 * x * (1 + 0.04 * x * x)))


def function_of(layer):
    return gelu_tanh if getattr(layer, "approximate", "") == "tanh" else FUNCTIONS[layer.kind]


def elementwise(layer, x, weight=None):
    return Array(x.shape, lambda index: function_of(layer)(x[index]))


def elementwise_backward(layer, x, y, weight=None):
    """The slope takes as much as the function, and there is one multiplication by it; ReLU's is chosen, not made."""

    def of_input():
        if layer.kind == "shift":
            return [y[index] for index in x.indices]
        if layer.kind == "scale":
            return [y[index] * 2 for index in x.indices]
        if layer.kind == "relu":
            return [choose(x[index] > 0, y[index], Counting(0)) for index in x.indices]
        return [y[index] * function_of(layer)(x[index]) for index in x.indices]

    def of_weight():
        """PReLU's: the gradient times the elements below 0, for each slope; what is above is 0."""
        sums = Sums()
        for index in x.indices:
            below = choose(x[index] < 0, x[index], Counting(0))
            sums.put(index[1] if weight.shape[0] > 1 else 0, y[index] * below)

    return {"input": of_input, "weight": of_weight}


def glu_shape(layer, shape):
    axis = layer.dim % len(shape)
    return (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])


def glu(layer, x):
    return Array(glu_shape(layer, x.shape), lambda index: x[index] / (1 + call(-x[index])))


def glu_backward(layer, x, y):
    def of_input():
        for index in y.indices:
            share = 1 / (1 + call(-x[index]))
            first = y[index] * share
            first * x[index] * (1 - share)

    return {"input": of_input}


def dropout(layer, x):
    return x


def dropout_backward(layer, x, y):
    """Times the mask, which is in training only."""
    return {"input": lambda: [y[index] * Counting(1) for index in y.indices]}


# --- norms and softmax ----------------------------------------------------------------------------------------------


def norm_groups(layer, x):
    """The indices that are normalised together."""
    groups: dict[Any, list] = {}
    for index in x.indices:
        if layer.kind in ("layernorm", "rmsnorm"):
            key = index[: len(index) - len(layer.normalized_shape)]
        elif layer.kind == "groupnorm":
            key = index[0], index[1] // (x.shape[1] // layer.num_groups)
        elif layer.kind == "instancenorm":
            key = index[:2]
        else:
            key = index[1]
        groups.setdefault(key, []).append(index)
    return groups.values()


def parameter_place(layer, index):
    if layer.kind in ("layernorm", "rmsnorm"):
        return index[len(index) - len(layer.normalized_shape) :]
    return (index[1],)


def norm(layer, x, weight=None, bias=None):
    if getattr(layer, "track_running_stats", False):
        return Array(x.shape, lambda index: x[index] * Counting(2) + Counting(3))
    result = Array(x.shape, lambda index: x[index])
    for group in norm_groups(layer, x):
        if layer.kind == "rmsnorm":
            distances = {index: x[index] for index in group}
        else:
            middle = mean([x[index] for index in group])
            distances = {index: x[index] - middle for index in group}
        variance = mean([distances[index] * distances[index] for index in group])
        inverse = 1 / call(variance + 1e-5)
        for index in group:
            y = distances[index] * inverse
            y = y if weight is None else y * weight[parameter_place(layer, index)]
            result.at[index] = y if bias is None else y + bias[parameter_place(layer, index)]
    return result


def norm_backward(layer, x, y, weight=None):
    def of_input():
        """inv·(g − mean(g) − x̂·mean(g·x̂)), x̂ made once more; without mean(g) for the root mean square."""
        for group in norm_groups(layer, x):
            centred = layer.kind != "rmsnorm"
            inverse = Counting(1)
            hats = {i: (x[i] - Counting(1) if centred else x[i]) * inverse for i in group}
            g = {i: y[i] if weight is None else y[i] * weight[parameter_place(layer, i)] for i in group}
            slope = mean([g[i] * hats[i] for i in group])
            if centred:
                middle = mean(list(g.values()))
                g = {i: g[i] - middle for i in group}
            for i in group:
                inverse * (g[i] - hats[i] * slope)

    def of_weight():
        sums = Sums()
        for index in x.indices:
            sums.put(parameter_place(layer, index), y[index] * x[index])

    def of_bias():
        sums = Sums()
        for index in x.indices:
            sums.put(parameter_place(layer, index), y[index])

    return {"input": of_input, "weight": of_weight, "bias": of_bias}


def response_norm(layer, x):
    squares = Array(x.shape, lambda index: x[index] * x[index])

    def element(index):
        n, c, *at = index
        near = [squares[n, c - layer.size // 2 + i, *at] for i in range(layer.size)]
        return x[index] / call(1 + 1e-4 * mean(near))

    return Array(x.shape, element)


def response_norm_backward(layer, x, y):
    """g/d^beta − x·c·Σ g·y/d over the neighbours, with d and its power kept."""

    def of_input():
        terms = Array(x.shape, lambda index: y[index] * x[index] / Counting(2))
        for index in x.indices:
            n, c, *at = index
            near = [terms[n, c - layer.size // 2 + i, *at] for i in range(layer.size)]
            y[index] / Counting(2) - x[index] * 0.1 * total(near)

    return {"input": of_input}


def slices(layer, x):
    axis = 1 if layer.kind == "softmax2d" else layer.dim
    if axis is None:
        axis = 0 if len(x.shape) in (1, 3) else 1
    axis %= len(x.shape)
    groups: dict[Any, list] = {}
    for index in x.indices:
        groups.setdefault((*index[:axis], *index[axis + 1 :]), []).append(index)
    return groups.values()


def softmax(layer, x):
    result = Array(x.shape, lambda index: x[index])
    for group in slices(layer, x):
        top = largest([x[i] for i in group])
        lowered = {i: x[i] - top for i in group}
        powers = {i: call(lowered[i]) for i in group}
        whole = total(list(powers.values()))
        logarithm = call(whole) if layer.kind == "logsoftmax" else None
        for i in group:
            result.at[i] = powers[i] / whole if logarithm is None else lowered[i] - logarithm
    return result


def softmax_backward(layer, x, y):
    """y·(g − Σ g·y); for the logarithm g − exp(y)·Σ g."""

    def of_input():
        for group in slices(layer, x):
            if layer.kind == "logsoftmax":
                whole = total([x[i] for i in group])
                for i in group:
                    x[i] - call(y[i]) * whole
            else:
                whole = total([x[i] * y[i] for i in group])
                for i in group:
                    y[i] * (x[i] - whole)

    return {"input": of_input}


# --- sequences ------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + call(-x))


def by_steps(layer, x, n, t):
    """The features of a sample at a step."""
    return [x[(n, t, i) if layer.batch_first else (t, n, i)] for i in range(x.shape[2])]


def steps_and_batch(layer, x):
    return (x.shape[1], x.shape[0]) if layer.batch_first else x.shape[:2]


def recurrent(layer, x, **weights):
    """Step by step: a dot product of the input and the state with each gate's row, both biases, and the gates."""
    length, batch = steps_and_batch(layer, x)
    rows = {(n, t): by_steps(layer, x, n, t) for n in range(batch) for t in range(length)}
    for level in range(layer.num_layers):
        given = {place: [] for place in rows}
        for end in ("", "_reverse")[: 1 + layer.bidirectional]:
            own = {
                name.removesuffix(f"_l{level}{end}"): w
                for name, w in weights.items()
                if name.endswith(f"_l{level}{end}")
            }
            for n in range(batch):
                state = [Counting(0)] * own["weight_hh"].shape[1]
                cell = [Counting(0)] * layer.hidden_size
                for t in range(length)[:: -1 if end else 1]:
                    state, cell = STEPS[layer.kind](layer, own, rows[n, t], state, cell)
                    given[n, t] += state
        rows = given

    def element(index):
        one, other, i = index
        return rows[(one, other) if layer.batch_first else (other, one)][i]

    lead = (batch, length) if layer.batch_first else (length, batch)
    return Array((*lead, len(rows[0, 0])), element)


def gate(own, place, x, state, *, apart=False):
    """The number that goes into a gate; with `apart` what the state adds by itself."""
    bias = "bias_ih" in own
    of_x = [(own["weight_ih"][place, i], number) for i, number in enumerate(x)]
    of_state = [(own["weight_hh"][place, i], number) for i, number in enumerate(state)]
    if apart:
        found = dot(of_x), dot(of_state)
        return (
            tuple(each + own[name][place,] for each, name in zip(found, ("bias_ih", "bias_hh"), strict=True))
            if bias
            else found
        )
    found = dot(of_x + of_state)
    return found + own["bias_ih"][place,] + own["bias_hh"][place,] if bias else found


def lstm_step(layer, own, x, state, cell):
    size = layer.hidden_size
    gates = [[gate(own, part * size + j, x, state) for j in range(size)] for part in range(4)]
    i, f, o = ([sigmoid(number) for number in gates[part]] for part in (0, 1, 3))
    g = [call(number) for number in gates[2]]
    cell = [f[j] * cell[j] + i[j] * g[j] for j in range(size)]
    found = [o[j] * call(cell[j]) for j in range(size)]
    if layer.proj_size:
        found = [dot([(own["weight_hr"][p, j], found[j]) for j in range(size)]) for p in range(layer.proj_size)]
    return found, cell


def gru_step(layer, own, x, state, cell):
    size = layer.hidden_size
    r, z = ([sigmoid(gate(own, part * size + j, x, state)) for j in range(size)] for part in (0, 1))
    found = []
    for j in range(size):
        of_x, of_state = gate(own, 2 * size + j, x, state, apart=True)
        new = call(of_x + r[j] * of_state)
        found.append((1 - z[j]) * new + z[j] * state[j])
    return found, cell


def rnn_step(layer, own, x, state, cell):
    return [call(gate(own, j, x, state)) for j in range(layer.hidden_size)], cell


STEPS = {"lstm": lstm_step, "gru": gru_step, "rnn": rnn_step}


def products(count, places):
    """So many products put together in each of some places."""

    def loop():
        sums = Sums()
        for _ in range(count):
            for at in range(places):
                sums.put_product(at, Counting(1), Counting(1))

    return loop


def additions(count, places):
    def loop():
        sums = Sums()
        for _ in range(count):
            for at in range(places):
                sums.put(at, Counting(1))

    return loop


def recurrent_backward(layer, x, y, **weights):
    """Each element of a matrix meets a number at each step of each sample; both biases have the same gradient."""
    length, batch = steps_and_batch(layer, x)
    found = {}
    for name, weight in weights.items():
        places = len(weight.at)
        if name.startswith("weight"):
            found[name] = products(length * batch, places)
        else:
            found[name] = additions(length * batch if name.startswith("bias_ih") else 0, places)
    return found


def multihead(layer, *inputs, **weights):
    """Projections, a scale for each score, a softmax for each row, and the last product."""
    size, each = layer.embed_dim, layer.embed_dim // layer.num_heads
    weight, last = weights["in_proj_weight"], weights["out_proj.weight"]
    length, batch = steps_and_batch(layer, inputs[0])
    three = inputs * 3 if len(inputs) == 1 else inputs

    def projected(matrix, bias, row, start=0):
        found = [dot([(matrix[start + o, i], row[i]) for i in range(size)]) for o in range(size)]
        return [number + bias[start + o,] for o, number in enumerate(found)] if bias else found

    rows = {}
    for n in range(batch):
        query, key, value = (
            [projected(weight, weights.get("in_proj_bias"), by_steps(layer, x, n, t), part * size)
             for t in range(steps_and_batch(layer, x)[0])]
            for part, x in enumerate(three)
        )  # fmt: skip
        for t in range(length):
            mixed = []
            for begin in range(0, size, each):
                head = slice(begin, begin + each)
                mixed += looked_up(query[t][head], [row[head] for row in key], [row[head] for row in value])
            rows[n, t] = projected(last, weights.get("out_proj.bias"), mixed)

    def element(index):
        one, other, i = index
        return rows[(one, other) if layer.batch_first else (other, one)][i]

    return Array(inputs[0].shape, element)


def multihead_backward(layer, *inputs, y, **weights):
    three = inputs * 3 if len(inputs) == 1 else inputs
    size = layer.embed_dim
    counts = [length * batch for length, batch in (steps_and_batch(layer, x) for x in three)]

    def of_projections(what):
        def loop():
            for count in counts:
                what(count, size * (size if what is products else 1))()

        return loop

    return {
        "in_proj_weight": of_projections(products),
        "in_proj_bias": of_projections(additions),
        "out_proj.weight": products(counts[0], size * size),
        "out_proj.bias": additions(counts[0], size),
    }


def looked_up(query, keys, values):
    """The values' mean by the softmax of a query's products with the keys, each times the scale."""
    found = [dot(list(zip(query, key, strict=True))) * Counting(1) for key in keys]
    top = largest(found)
    powers = [call(score - top) for score in found]
    whole = total(powers)
    shares = [power / whole for power in powers]
    return [
        dot([(share, value[i]) for share, value in zip(shares, values, strict=True)]) for i in range(len(values[0]))
    ]


def attention(layer, query, key, value):
    """Head by head; heads beside each other share their keys and values."""
    batch, length, width = query.shape
    size = width // layer.q_heads
    found = {}
    for n in range(batch):
        for head in range(layer.q_heads):
            begin = head * layer.kv_heads // layer.q_heads * size
            keys, values = (
                [[x[n, t, begin + i] for i in range(size)] for t in range(x.shape[1])] for x in (key, value)
            )
            for t in range(length):
                found[n, t, head] = looked_up([query[n, t, head * size + i] for i in range(size)], keys, values)
    return Array(query.shape, lambda index: found[index[0], index[1], index[2] // size][index[2] % size])


def matmul(layer, one, other):
    lead = shared(one.shape[:-2], other.shape[:-2])

    def element(index):
        *at, row, column = index
        terms = range(one.shape[-1])
        return dot([(joined(one, (*at, row, i)), joined(other, (*at, i, column))) for i in terms])

    return Array((*lead, one.shape[-2], other.shape[-1]), element)


def matmul_backward(layer, one, other, y):
    """Each product of the forward pass makes one for each factor, added up where a factor was repeated."""

    def of_input():
        for x, axis in ((one, -1), (other, -2)):
            sums = Sums()
            for *at, row, column in y.indices:
                for i in range(one.shape[-1]):
                    place = (*at, row, i) if axis == -1 else (*at, i, column)
                    own = place[len(place) - len(x.shape) :]
                    kept = tuple(0 if size == 1 else j for j, size in zip(own, x.shape, strict=True))
                    sums.put_product(kept, Counting(1), Counting(1))

    return {"input": of_input}


def embedding(layer, x, weight):
    return Array((*x.shape, weight.shape[1]), lambda index: weight[plain(x[index[:-1]]) % weight.shape[0], index[-1]])


def embedding_backward(layer, x, weight, y):
    """The gradient starts from zeros, and each output's is added to its row."""
    return {"input": lambda: None, "weight": lambda: [Counting(0) + y[index] for index in y.indices]}


# --- sizes, columns, joins ------------------------------------------------------------------------------------------

NEIGHBOURS = {"linear": 2, "bilinear": 4, "bicubic": 16, "trilinear": 8}


def upsampled(layer, x):
    """The sizes: the largest whole numbers that the sizes times the factors reach."""
    given = layer.size or layer.scale_factor
    each = given * len(x.shape[2:]) if len(given) == 1 else given
    if layer.size is not None:
        return list(each)
    return [max(i for i in range(size * 4 + 1) if i <= size * factor)
            for size, factor in zip(x.shape[2:], each, strict=True)]  # fmt: skip


def upsample(layer, x):
    sizes = upsampled(layer, x)
    if layer.mode == "area":
        return adaptive(sizes, x, mean)
    count = NEIGHBOURS.get(layer.mode, 0)
    shape = (*x.shape[:2], *sizes)
    return Array(shape, lambda index: dot([(Counting(1), Counting(2))] * count) if count else Counting(0))


def upsample_backward(layer, x, y):
    """Each gradient, times the weight where it is interpolated, is added to each neighbour."""
    if layer.mode == "area":
        return adaptive_average_backward(layer, x, y)

    def of_input():
        for index in y.indices:
            for _ in range(NEIGHBOURS.get(layer.mode, 0)):
                _tally.macs += 1
                Counting(0) + y[index] * Counting(1)
            if layer.mode not in NEIGHBOURS:
                Counting(0) + y[index]

    return {"input": of_input}


def add_columns(layer, planes, sizes):
    """Every column element is added to its place; the first one there is put."""
    places = window_starts(layer, sizes, layer.padding, dilation=layer.dilation)
    sums = Sums()
    for plane in range(planes):
        for start in grid(*places):
            for tap in taps(layer.kernel_size):
                sums.put((plane, *place(start, tap, layer.dilation)), Counting(1))
    return places


def unfold(layer, x):
    places = window_starts(layer, x.shape[2:], layer.padding, dilation=layer.dilation)
    rows = x.shape[1] * len(taps(layer.kernel_size))
    return Array((x.shape[0], rows, len(list(grid(*places)))), lambda index: Counting(0))


def unfold_backward(layer, x, y):
    return {"input": lambda: add_columns(layer, x.shape[0] * x.shape[1], x.shape[2:])}


def fold(layer, x):
    channels = x.shape[1] // len(taps(layer.kernel_size))
    add_columns(layer, x.shape[0] * channels, layer.output_size)
    return Array((x.shape[0], channels, *layer.output_size), lambda index: Counting(0))


def pad(layer, x):
    sizes = [size + sum(pair) for size, pair in zip(x.shape[2:], layer.padding, strict=True)]
    return Array((*x.shape[:2], *sizes), lambda index: Counting(0))


def pad_backward(layer, x, y):
    """What stands outside the input is a copy, unless it is a constant: its gradient is added to where it is from."""

    def of_input():
        for n, c, *at in y.indices:
            source = [a - pair[0] for a, pair in zip(at, layer.padding, strict=True)]
            inside = all(0 <= s < size for s, size in zip(source, x.shape[2:], strict=True))
            if not inside and layer.mode != "constant":
                y[n, c, *at] + Counting(0)

    return {"input": of_input}


def shared(*shapes):
    """The shape that all grow to."""
    rank = max(map(len, shapes))
    return tuple(map(max, zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True)))


def joined(x, index):
    """The element of a smaller array at an index of the shared shape."""
    own = index[len(index) - len(x.shape) :]
    return x[tuple(0 if size == 1 else i for i, size in zip(own, x.shape, strict=True))]


def join(layer, *arrays):
    result = arrays[0]
    for other in arrays[1:]:
        before = result
        shape = shared(before.shape, other.shape)
        if layer.kind == "add":
            result = Array(shape, lambda i, a=before, b=other: joined(a, i) + joined(b, i))
        else:
            result = Array(shape, lambda i, a=before, b=other: joined(a, i) * joined(b, i))
    return result


def reduced(x, shape):
    """A gradient added up where the factor was repeated."""
    sums = Sums()
    for index in x.indices:
        own = index[len(index) - len(shape) :]
        sums.put(tuple(0 if size == 1 else i for i, size in zip(own, shape, strict=True)), x[index])


def join_backward(layer, *arrays, y):
    """A sum hands its gradient to each input; each step of a product makes one for both of its factors."""

    def of_sum():
        for x in arrays:
            reduced(y, x.shape)

    def of_product():
        before = arrays[0].shape
        for other in arrays[1:]:
            after = shared(before, other.shape)
            for factor in (before, other.shape):
                reduced(Array(after, lambda i: Counting(1) * Counting(1)), factor)
            before = after

    return {"input": of_sum if layer.kind == "add" else of_product}


def nothing(layer, *arrays):
    """Numbers are moved."""


def nothing_backward(layer, *arrays, y):
    return {"input": lambda: None}


def move_gradients(layer, x, y):
    """The gradient starts from zeros, and each output's is added to it."""
    return {"input": lambda: [Counting(0) + y[index] for index in y.indices]}
