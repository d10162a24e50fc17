"""Receptive fields: which elements of the input each element of the output reads, exactly, one axis at a time.

A `Window` is what a layer does along an axis; a `Reach` is the set of positions that it, or a whole chain, reads. Sets
are kept as bits of an int, so that a chain is composed with shifts and ors, holes and upsampling included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from convcalc.errors import ExpressionError, ResourceError, ShapeError, UnsupportedOpError
from convcalc.layers import FILE_LAYERS, LAYERS, kind_of
from convcalc.layers.base import Layer, Shape

Positions = tuple[int, int]
"""A set of positions: the first one, and bits of which bit i says whether first + i belongs to it. Bits 0: none."""


def positions(numbers: Sequence[int]) -> Positions:
    """The set of these numbers.

    >>> positions([-1, 0, 3])
    (-1, 19)
    """
    if not numbers:
        return 0, 0
    first = min(numbers)
    span = max(numbers) - first + 1
    refuse_wide(span)
    # Digits are turned into bits at once; one shift a number would take time with the square of the span.
    digits = bytearray(b"0" * span)
    for number in numbers:
        digits[first - number - 1] = ord("1")
    return first, int(digits, 2)


WIDEST = 2_000_000
"""The elements of a receptive field that is worked out."""
_MOST_WORK = 1 << 38
"""Bits that are moved to compose two reaches."""


def refuse_wide(span: int) -> None:
    """Raise `ResourceError` for a set of positions that is too wide to be held."""
    if span > WIDEST:
        raise ResourceError(f"it spans {span} elements along an axis; fields of up to {WIDEST} are worked out")


def members(found: Positions) -> tuple[int, ...]:
    """The numbers of a set, in order.

    >>> members((-1, 19))
    (-1, 0, 3)
    """
    first, bits = found
    return tuple(first + index for index, digit in enumerate(reversed(f"{bits:b}")) if digit == "1")


def union_of(sets: Sequence[Positions]) -> Positions:
    """What is in any of the sets.

    >>> union_of([(0, 0b11), (4, 0b1)])
    (0, 19)
    """
    sets = [found for found in sets if found[1]]
    if not sets:
        return 0, 0
    least = min(first for first, _ in sets)
    bits = 0
    for first, more in sets:
        bits |= more << (first - least)
    return least, bits


@dataclass(frozen=True)
class Window:
    """One axis of one layer: a kernel over the input, or, `transposed`, over the input with stride - 1 zeros between.

    The fields mean what they mean for a convolution or a transposed one.
    """

    kernel_size: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    transposed: bool = False

    @property
    def plain(self) -> bool:
        """Whether it moves nothing and reads one element."""
        return self == Window()

    def reach(self) -> Reach:
        """Which positions each output position reads, on an axis without ends."""
        refuse_wide(self.dilation * (self.kernel_size - 1) + 1)
        refuse_wide(self.stride)
        taps = range(0, self.dilation * self.kernel_size, self.dilation)
        if not self.transposed:
            return Reach((positions([tap - self.before for tap in taps]),), self.stride)
        # i·stride + tap - before = o, for each remainder of o
        return Reach(
            tuple(
                positions(
                    [
                        (output + self.before - tap) // self.stride
                        for tap in taps
                        if (output + self.before - tap) % self.stride == 0
                    ]
                )
                for output in range(self.stride)
            ),
            1,
        )


@dataclass(frozen=True)
class Reach:
    """Which input positions each output position reads, along one axis.

    Output q·len(sets) + r reads the positions of sets[r] moved by q·shift. With `shift` None, `sets` are all the
    outputs there are, and no other is read.
    """

    sets: tuple[Positions, ...] = ((0, 1),)
    shift: int | None = 1

    def of(self, output: int) -> Positions:
        """The positions that one output position reads."""
        count = len(self.sets)
        if self.shift is None:
            return self.sets[output] if 0 <= output < count else (0, 0)
        first, bits = self.sets[output % count]
        return first + output // count * self.shift, bits

    def then(self, following: Reach, size: int | None = None) -> Reach:
        """This one's outputs read by a following layer. `size` is that layer's output size, needed where the
        windows are not regular.
        """
        if self == Reach():
            return following
        if self.shift is None or following.shift is None:
            if size is None:
                raise ValueError("windows of unequal distance need the output size")
            outputs, shift = size, None
        else:
            repeats = len(self.sets) // gcd(len(self.sets), following.shift)
            outputs = len(following.sets) * repeats
            refuse_wide(outputs)
            shift = following.shift * repeats // len(self.sets) * self.shift
        moves = sum(bits.bit_count() for _, bits in following.sets) * -(-outputs // len(following.sets))
        if (
            moves * (self.field + max(bits.bit_length() for _, bits in following.sets) * abs(self.shift or 0))
            > _MOST_WORK
        ):
            raise ResourceError("its windows are too large to be composed with those before it")
        sets = tuple(
            union_of([self.of(middle) for middle in members(following.of(output))]) for output in range(outputs)
        )
        return Reach(sets, shift)

    def beside(self, other: Reach, size: int | None) -> Reach:
        """What an output reads through this or the other, output by output where they do not step alike.

        Then the output size is needed: raises `UnsupportedOpError` without it.
        """
        if self == other:
            return self
        if self.jump is None or self.jump != other.jump or self.shift is None:
            if size is None:
                raise UnsupportedOpError("its branches do not move by the same steps; write the input's shape first")
            return Reach(tuple(union_of([self.of(output), other.of(output)]) for output in range(size)), None)
        count = lcm(len(self.sets), len(other.sets))
        refuse_wide(count)
        sets = tuple(union_of([self.of(output), other.of(output)]) for output in range(count))
        return Reach(sets, self.shift * (count // len(self.sets)))

    @property
    def field(self) -> int:
        """The elements from the first to the last that one output reads: the most of any output."""
        return max(bits.bit_length() for _, bits in self.sets)

    @property
    def least_field(self) -> int:
        """The same, the least of any output that reads anything."""
        return min((bits.bit_length() for _, bits in self.sets if bits), default=0)

    @property
    def jump(self) -> Fraction | None:
        """The distance at the input between the windows of neighbours, on average; None where it is not regular."""
        return None if self.shift is None else Fraction(self.shift, len(self.sets))


# --- what each kind of layer does along the axes ----------------------------------------------------------------------

Axes = list[Window | Reach]
WindowRule = Callable[[Any, int, Shape | None, Shape | None], Axes]


def axes_of(layer: Layer, rank: int, before: Shape | None, after: Shape | None) -> Axes | None:
    """What a bound layer does along each spatial axis; None for a layer that leaves the axes, such as flatten.

    `before` and `after` are the shapes (batch first) that come in and go out, None where the input is left open. Raises
    `ExpressionError` where they are needed, `UnsupportedOpError` where the positions are not known.
    """
    if layer.kind not in LAYERS and layer.kind not in FILE_LAYERS:
        raise UnsupportedOpError("it is not known, so nothing can be composed across it")
    kind = kind_of(layer)
    if kind.name in ENDS:
        return None
    if kind.name in WINDOWS:
        axes = WINDOWS[kind.name](layer, rank, before, after)
        if len(axes) != rank:
            raise ShapeError(f"has {len(axes)} spatial axes, but the chain has {rank}")
        return axes
    if kind.module in ELEMENTWISE or kind.name in PASSES:
        return [Window()] * rank
    raise UnsupportedOpError(f"which elements {kind.name} reads is not known, so nothing can be composed across it")


def _needs_input(what: str, field: str | None = None) -> ExpressionError:
    return ExpressionError(
        f"{what} depends on the size of the input; write its shape first, such as 3x224x224", field=field
    )


def _convolution(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    if layer.padding in ("same_upper", "same_lower") and before is None and set(layer.stride) != {1}:
        raise _needs_input(f"padding {layer.padding} with a stride", "padding")
    # At stride 1, and for the other words, the padding is the same for every size.
    pads = layer.pads((1,) * layer.rank if before is None else before[2:])
    return _windows(layer.kernel_size, layer.stride, pads, layer.dilation)


def _transposed(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    return [
        Window(kernel, stride, first, last, dilation, transposed=True)
        for kernel, stride, (first, last), dilation in zip(
            layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True
        )
    ]


def _pool(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    from convcalc import formulas as F

    dilation = getattr(layer, "dilation", None) or (1,) * len(layer.kernel_size)
    pads = layer.padding
    if getattr(layer, "ceil_mode", False) and before is not None and after is not None:
        pads = tuple(
            (pair[0], max(pair[1], F.needed_padding(out, size, kernel, stride, pair[0], spread)))
            for pair, out, size, kernel, stride, spread in zip(
                pads, after[2:], before[2:], layer.kernel_size, layer.stride, dilation, strict=True
            )
        )
    return _windows(layer.kernel_size, layer.stride, pads, dilation)


def _windows(kernel_size: Any, stride: Any, pads: Any, dilation: Any) -> Axes:
    return [
        Window(kernel, step, before, after, spread)
        for kernel, step, (before, after), spread in zip(kernel_size, stride, pads, dilation, strict=True)
    ]


def _adaptive(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    if before is None or after is None:
        raise _needs_input(f"the window of {layer.kind}")
    return [_spread(size, out) for size, out in zip(before[2:], after[2:], strict=True)]


def _spread(size: int, out: int) -> Window | Reach:
    """Windows of adaptive pooling: equal ones when `out` divides `size`, else all of them one by one."""
    if size % out == 0:
        return Window(size // out, size // out)
    refuse_wide(out)
    return Reach(
        tuple(positions(range(index * size // out, -(-(index + 1) * size // out))) for index in range(out)), None
    )


def _pad(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    return [Window(before=first, after=last) for first, last in layer.padding]


def _shuffled(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    return [Window(layer.upscale_factor, layer.upscale_factor, transposed=True)] * 2


def _unshuffled(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    return [Window(layer.downscale_factor, layer.downscale_factor)] * 2


def _upsampled(layer: Any, rank: int, before: Shape | None, after: Shape | None) -> Axes:
    factors = layer.scale_factor
    if before is None or after is None:
        if factors is None or layer.align_corners or any(factor != int(factor) for factor in factors):
            raise _needs_input(f"what {layer.kind} reads")
        sizes = [(1, int(factor)) for factor in (factors * rank if len(factors) == 1 else factors)]
    else:
        sizes = list(zip(before[2:], after[2:], strict=True))
    each = (factors * len(sizes) if len(factors) == 1 else factors) if factors else (None,) * len(sizes)
    return [_scaled(layer, size, out, factor) for (size, out), factor in zip(sizes, each, strict=True)]


def _scaled(layer: Any, size: int, out: int, factor: float | None) -> Window | Reach:
    """Upsampling along one axis: copies by a whole factor are a transposed window, interpolation is a `Reach`."""
    ratio = Fraction(size, out) if factor is None or layer.recompute_scale_factor else 1 / Fraction(factor)
    interpolates = layer.mode in _INTERPOLATED
    if ratio.numerator == 1 and out * ratio == size and not layer.align_corners:
        if not interpolates:
            return Window(ratio.denominator, ratio.denominator, transposed=True)
        refuse_wide(ratio.denominator)
        phases = (ratio * (output + Fraction(1, 2)) - Fraction(1, 2) for output in range(ratio.denominator))
        return Reach(tuple(positions(_neighbours(layer.mode, place)) for place in phases), 1)
    if layer.mode == "area":
        return _spread(size, out)
    refuse_wide(out)
    if layer.align_corners:
        places = [Fraction(output * (size - 1), max(out - 1, 1)) for output in range(out)]
    elif interpolates:
        places = [max(ratio * (output + Fraction(1, 2)) - Fraction(1, 2), Fraction(0)) for output in range(out)]
    else:
        half = Fraction(1, 2) if layer.mode == "nearest-exact" else 0
        places = [Fraction((output + half) * ratio // 1) for output in range(out)]
    kept = ([min(max(place, 0), size - 1) for place in _neighbours(layer.mode, at)] for at in places)
    return Reach(tuple(map(positions, kept)), None)


_INTERPOLATED = {"linear": 1, "bilinear": 1, "trilinear": 1, "bicubic": 2}
"""Modes that weigh neighbours, and how many on each side."""


def _neighbours(mode: str, place: Fraction) -> list[int]:
    """The elements that an output at this place of the input is made of. On an element, all others weigh nothing."""
    first = place.numerator // place.denominator
    reach = _INTERPOLATED.get(mode, 0)
    return [first] if place == first or not reach else list(range(first - reach + 1, first + reach + 1))


WINDOWS: dict[str, WindowRule] = {
    "conv": _convolution,
    "convt": _transposed,
    "maxpool": _pool,
    "avgpool": _pool,
    "lppool": _pool,
    "windowpool": _pool,
    **dict.fromkeys(("adaptivemaxpool", "adaptiveavgpool", "globalavgpool", "globalmaxpool"), _adaptive),
    **dict.fromkeys(("pad", "constantpad", "zeropad", "reflectionpad", "replicationpad", "circularpad"), _pad),
    "pixelshuffle": _shuffled,
    "pixelunshuffle": _unshuffled,
    **dict.fromkeys(("upsample", "upsamplingnearest", "upsamplingbilinear"), _upsampled),
}
"""What the kinds do along the axes that read windows."""

ELEMENTWISE = ("activation", "parametric", "softmax", "norm", "dropout")
"""The families whose layers read each position by itself; the statistics of norms are not counted."""

PASSES = (
    "identity", "channelshuffle", "function", "combine", "clip", "onnxhardsigmoid", "quantize", "cast", "dropoutmask",
    "layernormstatistics", "batchnormtraining",
)  # fmt: skip
"""Further kinds that read each position by itself."""

ENDS = ("flatten", "linear", "unflatten", "reshape", "permute", "unfold", "fold", "shaped", "matmul", "gemm")
"""The kinds after which there are no spatial axes, or others."""
