"""Activations with numbers of their own: slopes, limits, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.activation import Elementwise, each
from convcalc.layers.base import (
    Cost,
    Layer,
    Saved,
    Shape,
    axis_of,
    choice,
    flag,
    integer,
    number,
    refused,
    shape_text,
    whole,
)
from convcalc.records import dataclass
from convcalc.tracing import Formula, product


class _Parametric(Elementwise):
    """Checks that inplace is true or false and every other field a number."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "inplace":
                flag(name, value)
            else:
                number(name, value)


@dataclass(frozen=True, eq=False, repr=False)
class LeakyReLU(_Parametric):
    """x above 0, negative_slope·x below. Fields as PyTorch's LeakyReLU."""

    kind = "leakyrelu"
    formula = F.leaky_relu
    negative_slope: float = 0.01
    inplace: bool = False

    @property
    def arguments(self) -> tuple[float, ...]:
        """The slope."""
        return (self.negative_slope,)


@dataclass(frozen=True, eq=False, repr=False)
class RReLU(_Parametric):
    """A leaky ReLU whose slope training draws between lower and upper; at inference it is their middle.

    Fields as PyTorch's RReLU. Training keeps the slopes that were drawn.
    """

    kind = "rrelu"
    formula = F.leaky_relu
    keeps = (None, "input0")
    keeps_in_place = (None, "output0")
    lower: float = 1 / 8
    upper: float = 1 / 3
    inplace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lower", "upper"):
            if not isfinite(getattr(self, name)):
                raise refused(name, getattr(self, name), "finite")
        if self.lower > self.upper:
            raise refused("lower", self.lower, f"at most upper ({self.upper})")

    @property
    def arguments(self) -> tuple[float, ...]:
        """The slope at inference."""
        return ((self.lower + self.upper) / 2,)


@dataclass(frozen=True, eq=False, repr=False)
class ELU(_Parametric):
    """x above 0, alpha·(exp(x) − 1) below. Fields as PyTorch's ELU."""

    kind = "elu"
    formula = F.elu
    alpha: float = 1.0
    inplace: bool = False

    @property
    def arguments(self) -> tuple[float, ...]:
        """alpha."""
        return (self.alpha,)


class CELU(ELU):
    """max(0, x) + min(0, alpha·(exp(x / alpha) − 1)). Fields as PyTorch's CELU."""

    kind = "celu"
    formula = F.celu

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 0:
            raise refused("alpha", self.alpha, "other than 0")


@dataclass(frozen=True, eq=False, repr=False)
class Hardtanh(_Parametric):
    """x limited to min_val ... max_val. Fields as PyTorch's Hardtanh."""

    kind = "hardtanh"
    formula = F.hardtanh
    keeps_in_place = (None,)
    min_val: float = -1.0
    max_val: float = 1.0
    inplace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_val <= self.min_val:
            raise refused("max_val", self.max_val, f"larger than min_val ({self.min_val})")

    @property
    def arguments(self) -> tuple[float, ...]:
        """The limits."""
        return self.min_val, self.max_val


@dataclass(frozen=True, eq=False, repr=False)
class Threshold(_Parametric):
    """x above threshold, value elsewhere. Fields as PyTorch's Threshold."""

    kind = "threshold"
    formula = F.threshold
    keeps_in_place = (None,)
    threshold: float
    value: float
    inplace: bool = False

    @property
    def arguments(self) -> tuple[float, ...]:
        """threshold and value."""
        return self.threshold, self.value


@dataclass(frozen=True, eq=False, repr=False)
class Hardshrink(_Parametric):
    """x outside −lambd ... lambd, 0 inside. Fields as PyTorch's Hardshrink."""

    kind = "hardshrink"
    formula = F.hardshrink
    lambd: float = 0.5

    @property
    def arguments(self) -> tuple[float, ...]:
        """lambd."""
        return (self.lambd,)


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd, 0 where that passes 0. Fields as PyTorch's Softshrink."""

    kind = "softshrink"
    formula = F.softshrink

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambd < 0:
            raise refused("lambd", self.lambd, "at least 0")


@dataclass(frozen=True, eq=False, repr=False)
class Softplus(_Parametric):
    """ln(1 + exp(beta·x)) / beta, and x itself where beta·x passes threshold. Fields as PyTorch's Softplus."""

    kind = "softplus"
    formula = F.softplus
    beta: float = 1.0
    threshold: float = 20.0

    @property
    def arguments(self) -> tuple[float, ...]:
        """beta and threshold."""
        return self.beta, self.threshold


class _Constant(_Parametric):
    """Arithmetic with one number, whose slope is a number: nothing is kept, and the slope is not computed again."""

    keeps = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in vars(self).items():
            if not isfinite(value):
                raise refused(name, value, "finite")


@dataclass(frozen=True, eq=False, repr=False)
class Scale(_Constant):
    """factor·x, a constant scale: `scale:0.5`.

    >>> Scale(0.5).cost([(1, 10)], [(1, 10)]).multiplications
    10
    """

    kind = "scale"
    formula = F.scaled
    factor: float = 1.0

    @property
    def arguments(self) -> tuple[float, ...]:
        """factor."""
        return (self.factor,)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """One multiplication an element, by the factor."""
        return {"input": self.cost(inputs, outputs)}


@dataclass(frozen=True, eq=False, repr=False)
class Shift(_Constant):
    """x + amount, a constant shift: `shift:-0.5`.

    >>> Shift(-0.5).cost([(1, 10)], [(1, 10)]).additions
    10
    """

    kind = "shift"
    formula = F.shifted
    amount: float = 0.0

    @property
    def arguments(self) -> tuple[float, ...]:
        """amount."""
        return (self.amount,)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradient itself."""
        return {"input": Cost()}


@dataclass(frozen=True, eq=False, repr=False)
class GELU(Elementwise):
    """x times the normal distribution's Φ(x), exactly or ("tanh") nearly. Fields as PyTorch's GELU."""

    kind = "gelu"
    approximate: str = "none"

    def __post_init__(self) -> None:
        # In an expression none is no value; here it is a word.
        approximate = "none" if self.approximate is None else self.approximate
        object.__setattr__(self, "approximate", choice("approximate", approximate, ("none", "tanh")))

    @property
    def formula(self) -> Formula[..., Any]:  # type: ignore[override]  # by value here, by class elsewhere
        """The exact formula, or the one with tanh."""
        return F.gelu_tanh if self.approximate == "tanh" else F.gelu


@dataclass(frozen=True, eq=False, repr=False)
class PReLU(Elementwise):
    """A leaky ReLU whose slope is learned: one for all channels, or one for each. Fields as PyTorch's PReLU.

    >>> PReLU(8).parameters()
    {'weight': (8,)}
    """

    kind = "prelu"
    formula = F.leaky_relu
    keeps = ("input0", "weight")
    num_parameters: int = 1
    init: float = 0.25

    def __post_init__(self) -> None:
        whole("num_parameters", self.num_parameters)
        number("init", self.init)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` when there are neither one slope nor as many as channels."""
        channels = inputs[0][1] if len(inputs[0]) > 1 else 1
        if self.num_parameters not in (1, channels):
            raise ShapeError(
                f"num_parameters is {self.num_parameters}, but the input {shape_text(inputs[0][1:])} has"
                f" {channels} channel{'s; 1 or' if channels > 1 else ';'} {channels} fits",
                field="num_parameters",
                value=self.num_parameters,
            )
        return (inputs[0],)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (num_parameters,)."""
        return {"weight": (self.num_parameters,)}

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The input's as any leaky ReLU's; the weight's sums the gradient times the elements below 0."""
        elements = product(outputs[0])
        additions = F.sum_additions(elements, self.num_parameters)
        return {
            **super().backward(inputs, outputs),
            "weight": Cost(multiplications=elements, additions=additions, other=elements),
        }


@dataclass(frozen=True, eq=False, repr=False)
class GLU(Layer):
    """The first half along dim times the sigmoid of the second. Fields as PyTorch's GLU; dim counts the batch.

    >>> GLU(1).infer((1, 8, 5, 5))
    ((1, 4, 5, 5),)
    """

    kind = "glu"
    dim: int = -1

    def __post_init__(self) -> None:
        integer("dim", self.dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with dim halved. Raises `ShapeError` when it is odd."""
        shape = inputs[0]
        axis = axis_of("dim", self.dim, shape)
        if shape[axis] % 2:
            raise ShapeError(
                f"dim {self.dim} has {shape[axis]} elements, but must be even", field="dim", value=self.dim
            )
        return ((*shape[:axis], shape[axis] // 2, *shape[axis + 1 :]),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The operations of the formula for each element of the output."""
        return each(F.glu, product(outputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The sigmoid once more, g·σ for one half, and g·σ·x·(1 − σ) for the other."""
        elements = product(outputs[0])
        return {"input": each(F.sigmoid, elements) + Cost(0, 3 * elements, elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input."""
        return ("input0",)
