"""Padding, and cropping to another tensor's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import (
    Cost,
    Layer,
    Pairs,
    Saved,
    Shape,
    Sizes,
    axis_name,
    choice,
    number,
    pairs,
    refused,
    shape_text,
    spatial_input,
)
from convcalc.layers.conv import refuse_padding
from convcalc.layers.reshape import View
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product

PAD_MODES = ("constant", "reflect", "replicate", "circular")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Pad(Layer):
    """More elements around the input: (N, C, *sizes) -> (N, C, *sizes). Negative padding crops, and does so first.

    `padding` is a number, one for each axis, or a (before, after) pair for each. `mode` says what is put there: the
    constant `value`, the input mirrored at its edge (reflect), its edge (replicate), or its other end (circular).

    >>> Pad2d(((0, 1), (2, 2))).infer((1, 8, 5, 5))
    ((1, 8, 6, 9),)
    """

    kind = "pad"
    padding: Pairs
    mode: str
    value: float

    def __init__(self, padding: Sizes | Pairs, mode: str = "constant", value: float = 0.0) -> None:
        self._set(
            padding=pairs(self.rank or 0, "padding", padding, least=None),
            mode=choice("mode", mode, PAD_MODES),
            value=number("value", value),
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes). Raises `ShapeError` when nothing is left, or the input is too small to be mirrored."""
        sizes = self._sizes(inputs[0])
        refuse_padding(self.mode, self.padding, sizes)
        before, after = zip(*self.padding, strict=True)
        output = per_axis(F.padded_size, sizes, before, after)
        for axis, (size, wanted) in enumerate(zip(sizes, output, strict=True)):
            # A constant is put around what cropping left; the other modes look at the whole input.
            left = size + min(before[axis], 0) + min(after[axis], 0)
            if wanted < 1 or (left < 0 and self.mode == "constant"):
                raise ShapeError(
                    f"padding {before[axis]}+{after[axis]} leaves nothing of {size} ({axis_name(len(sizes), axis)})",
                    field="padding",
                    value=self.padding[axis],
                )
        return ((*inputs[0][: -len(sizes)], *output),)

    def _sizes(self, shape: Shape) -> tuple[int, ...]:
        """The axes that are padded, the last ones. Around a constant there may be any number of others."""
        rank = len(self.padding)
        if self.mode != "constant" or len(shape) < rank + 1:
            return spatial_input(self, shape)[2]
        return shape[-rank:]

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: numbers are copied."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """One addition for each element of the padding that is a copy; nothing for a constant."""
        if self.mode == "constant":
            return {"input": Cost()}
        kept = [
            max(size + min(before, 0) + min(after, 0), 0)
            for size, (before, after) in zip(inputs[0][2:], self.padding, strict=True)
        ]
        return {"input": Cost(additions=product(outputs[0]) - product((*inputs[0][:2], *kept)))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing; the input when it is mirrored or its edge repeated."""
        return ("input0",) if self.mode in ("reflect", "replicate") else ()


class Pad1d(Pad):
    """`Pad` over one axis: (N, C, L)."""

    rank = 1


class Pad2d(Pad):
    """`Pad` over two axes: (N, C, H, W)."""

    rank = 2


class Pad3d(Pad):
    """`Pad` over three axes: (N, C, D, H, W)."""

    rank = 3


# --- PyTorch's classes ----------------------------------------------------------------------------------------------


def _pytorch_order(rank: int | None, padding: Any) -> Any:
    """Pairs per axis from PyTorch's order, which begins with the last axis: (left, right, top, bottom, front, back).

    A number, and pairs per axis, stay as they are.
    """
    if not isinstance(padding, tuple | list) or not all(isinstance(number, int) for number in padding):
        return padding
    if len(padding) != 2 * (rank or 0):
        names = ("left", "right", "top", "bottom", "front", "back")[: 2 * (rank or 0)]
        raise refused("padding", padding, f"one number, {len(names)} ({', '.join(names)}), or a pair for each axis")
    return tuple(zip(padding[::2], padding[1::2], strict=True))[::-1]


class ConstantPad(Pad):
    """A constant around the input. Fields as PyTorch's ConstantPad1d, 2d, 3d: padding in PyTorch's order.

    >>> ConstantPad2d((1, 2, 0, 0), 0.5).infer((1, 8, 5, 5))
    ((1, 8, 5, 8),)
    """

    kind = "constantpad"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(_pytorch_order(self.rank, padding), "constant", value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(padding={self.padding}, value={self.value})"


class _Padding(Pad):
    """PyTorch's classes with no field but the padding."""

    filled = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__(_pytorch_order(self.rank, padding), self.filled)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(padding={self.padding})"


class ZeroPad(_Padding):
    """Zeros around the input. Fields as PyTorch's ZeroPad1d, 2d, 3d: padding in PyTorch's order."""

    kind = "zeropad"


class ReflectionPad(_Padding):
    """The input mirrored at its edges. Fields as PyTorch's ReflectionPad1d, 2d, 3d: padding in PyTorch's order."""

    kind = "reflectionpad"
    filled = "reflect"


class ReplicationPad(_Padding):
    """The input's edges repeated. Fields as PyTorch's ReplicationPad1d, 2d, 3d: padding in PyTorch's order."""

    kind = "replicationpad"
    filled = "replicate"


class CircularPad(_Padding):
    """The input continued from its other end. Fields as PyTorch's CircularPad1d, 2d, 3d: padding in PyTorch's order."""

    kind = "circularpad"
    filled = "circular"


class ConstantPad1d(ConstantPad):
    """`ConstantPad` over one axis: (N, C, L)."""

    rank = 1


class ConstantPad2d(ConstantPad):
    """`ConstantPad` over two axes: (N, C, H, W)."""

    rank = 2


class ConstantPad3d(ConstantPad):
    """`ConstantPad` over three axes: (N, C, D, H, W)."""

    rank = 3


class ZeroPad1d(ZeroPad):
    """`ZeroPad` over one axis: (N, C, L)."""

    rank = 1


class ZeroPad2d(ZeroPad):
    """`ZeroPad` over two axes: (N, C, H, W)."""

    rank = 2


class ZeroPad3d(ZeroPad):
    """`ZeroPad` over three axes: (N, C, D, H, W)."""

    rank = 3


class ReflectionPad1d(ReflectionPad):
    """`ReflectionPad` over one axis: (N, C, L)."""

    rank = 1


class ReflectionPad2d(ReflectionPad):
    """`ReflectionPad` over two axes: (N, C, H, W)."""

    rank = 2


class ReflectionPad3d(ReflectionPad):
    """`ReflectionPad` over three axes: (N, C, D, H, W)."""

    rank = 3


class ReplicationPad1d(ReplicationPad):
    """`ReplicationPad` over one axis: (N, C, L)."""

    rank = 1


class ReplicationPad2d(ReplicationPad):
    """`ReplicationPad` over two axes: (N, C, H, W)."""

    rank = 2


class ReplicationPad3d(ReplicationPad):
    """`ReplicationPad` over three axes: (N, C, D, H, W)."""

    rank = 3


class CircularPad1d(CircularPad):
    """`CircularPad` over one axis: (N, C, L)."""

    rank = 1


class CircularPad2d(CircularPad):
    """`CircularPad` over two axes: (N, C, H, W)."""

    rank = 2


class CircularPad3d(CircularPad):
    """`CircularPad` over three axes: (N, C, D, H, W)."""

    rank = 3


# --- cropping -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Crop(View):
    """The middle of the first input, at the second one's sizes, as U-Nets crop what they concatenate.

    (N, C, *sizes), (N, C2, *smaller) -> (N, C, *smaller). Of an odd rest one more is cut off after than before.

    >>> Crop().infer((1, 64, 9, 9), (1, 32, 4, 9))
    ((1, 64, 4, 9),)
    """

    kind = "crop"
    inputs = (2, 2)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *smaller). Raises `ShapeError` when the second input is larger or has other axes."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        wanted = inputs[1][2:]
        if len(wanted) != len(sizes) or any(small > size for small, size in zip(wanted, sizes, strict=True)):
            raise ShapeError(
                f"{shape_text(inputs[0][1:])} cannot be cropped to the sizes of {shape_text(inputs[1][1:])}",
                value=inputs[1],
            )
        return ((batch, channels, *wanted),)

    def offsets(self, inputs: Sequence[Shape]) -> tuple[int, ...]:
        """How many elements are cut off before, for each axis."""
        return tuple((size - wanted) // 2 for size, wanted in zip(inputs[0][2:], inputs[1][2:], strict=True))
