"""Activations without numbers of their own: functions of each element by itself.

Those that have some stand in `parametric.py`. The cost of each is read off its formula in `formulas.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from convcalc import formulas as F
from convcalc.layers.base import Cost, Layer, Saved, Shape
from convcalc.records import dataclass
from convcalc.tracing import Formula, product


class Elementwise(Layer):
    """One formula on each element; the output has the input's shape.

    `formula` takes the element and then `arguments`. Its gradient multiplies the coming gradient by the slope, and the
    slope counts as much as the function itself.
    """

    formula: ClassVar[Formula[..., Any]]
    keeps: ClassVar[tuple[str | None, ...]] = ("input0",)
    """What training keeps; None is a tensor of the input's shape that exists for this alone."""
    keeps_in_place: ClassVar[tuple[str | None, ...]] = ("output0",)
    """The same for `inplace`, where the input is overwritten."""

    @property
    def arguments(self) -> tuple[float, ...]:
        """What the formula takes after the element."""
        return ()

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The operations of the function for each element, every branch taken. No dot products: 0 MACs."""
        return each(self.formula, product(outputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The function's operations once more for the slope, and a multiplication by it."""
        return {"input": self.cost(inputs, outputs) + Cost(multiplications=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """`keeps`, or `keeps_in_place` with inplace."""
        kept = self.keeps_in_place if getattr(self, "inplace", False) else self.keeps
        return tuple((inputs[0], None) if name is None else name for name in kept)


def each(formula: Formula[..., Any], elements: int) -> Cost:
    """The cost of a formula on so many elements."""
    multiplications, additions, other = formula.operations
    return Cost(0, elements * multiplications, elements * additions, elements * other)


@dataclass(frozen=True, eq=False, repr=False)
class _InPlace(Elementwise):
    """An activation whose one field says whether it overwrites its input."""

    inplace: bool = False


class ReLU(_InPlace):
    """max(0, x), element by element: one comparison. Fields as PyTorch's ReLU.

    >>> ReLU().infer((1, 3, 8, 8))
    ((1, 3, 8, 8),)
    """

    kind = "relu"
    formula = F.relu
    keeps = ("output0",)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """One comparison an element: the slope is 0 or 1."""
        return {"input": self.cost(inputs, outputs)}


class ReLU6(_InPlace):
    """min(max(0, x), 6). Fields as PyTorch's ReLU6."""

    kind = "relu6"
    formula = F.relu6
    keeps_in_place = (None,)


class Hardsigmoid(_InPlace):
    """A sigmoid of three straight pieces. Fields as PyTorch's Hardsigmoid."""

    kind = "hardsigmoid"
    formula = F.hardsigmoid
    keeps_in_place = (None,)


class Hardswish(_InPlace):
    """x times its `Hardsigmoid`. Fields as PyTorch's Hardswish."""

    kind = "hardswish"
    formula = F.hardswish
    keeps_in_place = (None,)


class SELU(_InPlace):
    """The scaled exponential linear unit. Fields as PyTorch's SELU."""

    kind = "selu"
    formula = F.selu


class SiLU(_InPlace):
    """x·sigmoid(x), also called swish. Fields as PyTorch's SiLU."""

    kind = "silu"
    formula = F.silu
    keeps_in_place = (None,)


class Mish(_InPlace):
    """x·tanh(softplus(x)). Fields as PyTorch's Mish."""

    kind = "mish"
    formula = F.mish
    keeps_in_place = (None,)


@dataclass(frozen=True, eq=False, repr=False)
class _Plain(Elementwise):
    """An activation without fields."""


class Sigmoid(_Plain):
    """1 / (1 + exp(−x)), in (0, 1)."""

    kind = "sigmoid"
    formula = F.sigmoid
    keeps = ("output0",)


class Tanh(_Plain):
    """The hyperbolic tangent, in (−1, 1)."""

    kind = "tanh"
    formula = F.hyperbolic_tangent
    keeps = ("output0",)


class LogSigmoid(_Plain):
    """The logarithm of the sigmoid."""

    kind = "logsigmoid"
    formula = F.log_sigmoid
    keeps = ("input0", None)


class Softsign(_Plain):
    """x / (1 + |x|), in (−1, 1)."""

    kind = "softsign"
    formula = F.softsign
    keeps = ("input0", None)


class Tanhshrink(_Plain):
    """x − tanh(x)."""

    kind = "tanhshrink"
    formula = F.tanhshrink
    keeps = (None,)
