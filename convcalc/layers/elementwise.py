"""Functions of one or several tensors, element by element, that PyTorch has as functions and not as modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.layers.base import Cost, Layer, Saved, Shape, choice, flag, integer, number, refused, whole
from convcalc.layers.join import broadcast
from convcalc.records import dataclass
from convcalc.tracing import product

FREE = ("neg", "isnan", "isinf", "trilu")
"""Functions that no arithmetic is counted for: signs, looking at bits, and zeros above or below a diagonal."""
FUNCTIONS = (
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "bit_not", "ceil", "cos", "cosh", "erf", "exp", "floor",
    "hardmax", "isinf", "isnan", "log", "neg", "not", "reciprocal", "round", "shrink", "sign", "sin", "sinh", "sqrt",
    "tan", "trilu",
)  # fmt: skip
"""The functions of one element, by their names in ONNX in lower case."""

ADDITIONS = ("sub",)
COMPARISONS = ("equal", "greater", "greater_equal", "less", "less_equal")
LOGICAL = ("and", "or", "xor")
BITS = ("bit_and", "bit_or", "bit_shift", "bit_xor")
PICKS = ("where",)
COMBINATIONS = (
    *ADDITIONS, *COMPARISONS, *LOGICAL, *BITS, *PICKS, "clip", "div", "max", "mean", "min", "mod", "pow", "prelu",
)  # fmt: skip
"""The functions of several tensors."""


@dataclass(frozen=True, eq=False, repr=False)
class Function(Layer):
    """A function of each element, such as a root. `function` is one of `FUNCTIONS`.

    >>> Function("sqrt").infer((1, 8, 5, 5))
    ((1, 8, 5, 5),)
    """

    kind = "function"
    function: str

    def __post_init__(self) -> None:
        choice("function", self.function, FUNCTIONS)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type; bool for questions."""
        return ("bool" if self.function in ("isnan", "isinf", "not") else dtype,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One function call an element; a sign and a look at the bits are free."""
        return Cost(other=0 if self.function in FREE else product(outputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The slope, which counts as the function does, and a multiplication by it."""
        elements = product(outputs[0])
        return {"input": self.cost(inputs, outputs) + Cost(multiplications=elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The output of exp, sqrt and reciprocal, nothing for what has no slope, else the input."""
        if self.function in ("exp", "sqrt", "reciprocal"):
            return ("output0",)
        return () if self.function in ("neg", "not", "ceil", "floor", "round", "sign", *FREE) else ("input0",)


@dataclass(frozen=True, eq=False, repr=False)
class Combine(Layer):
    """A function of several tensors element by element, broadcast as NumPy does: `combine:sub,@a`.

    `function` is one of `COMBINATIONS`; where takes the condition first.

    >>> Combine("sub").infer((1, 8, 5, 5), (8, 1, 1))
    ((1, 8, 5, 5),)
    """

    kind = "combine"
    inputs = (1, None)
    function: str

    def __post_init__(self) -> None:
        choice("function", self.function, COMBINATIONS)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape that all grow to. Raises `ShapeError` when they do not match."""
        shape = inputs[0]
        for other in inputs[1:]:
            shape = broadcast(shape, other)
        return (shape,)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """bool for comparisons, else the input's type."""
        return ("bool" if self.function in (*COMPARISONS, *LOGICAL) else dtype,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One operation an element for each input after the first; a mean divides once more, choosing is free."""
        elements = product(outputs[0])
        steps = elements * (len(inputs) - 1)
        if self.function in PICKS:
            return Cost()
        if self.function == "prelu":
            return Cost(0, elements, 0, elements)
        if self.function == "mean":
            return Cost(additions=steps, other=elements)
        return Cost(additions=steps) if self.function in ADDITIONS else Cost(other=steps)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradient times the slope for each input, added up where the input was repeated; none of comparisons."""
        if self.function in (*COMPARISONS, *LOGICAL, *BITS):
            return {"input": Cost()}
        elements = product(outputs[0])
        repeats = sum(elements - product(shape) for shape in inputs)
        slopes = 0 if self.function in (*ADDITIONS, *PICKS) else elements * len(inputs)
        return {"input": Cost(0, slopes, repeats)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Every input; the condition of where; nothing of a difference or a comparison."""
        if self.function in (*ADDITIONS, *COMPARISONS, *LOGICAL, *BITS):
            return ()
        return ("input0",) if self.function in PICKS else tuple(f"input{index}" for index in range(len(inputs)))


@dataclass(frozen=True, eq=False, repr=False)
class Clip(Layer):
    """x limited to least ... most, either of which may be left out (None), as torch.clamp.

    >>> Clip(0.0, None).cost([(1, 10)], [(1, 10)]).other
    10
    """

    kind = "clip"
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        for field in ("least", "most"):
            if getattr(self, field) is not None:
                number(field, getattr(self, field))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A comparison an element for each limit."""
        return Cost(other=product(outputs[0]) * ((self.least is not None) + (self.most is not None)))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The same comparisons: the slope is 0 or 1."""
        return {"input": self.cost(inputs, outputs)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input."""
        return ("input0",)


@dataclass(frozen=True, eq=False, repr=False)
class HardSigmoid(Layer):
    """max(0, min(1, alpha·x + beta)), which ONNX leaves alpha and beta of open; swish multiplies by x once more.

    PyTorch's `Hardsigmoid` and `Hardswish` are those with alpha 1/6 and beta 1/2.
    """

    kind = "onnxhardsigmoid"
    alpha: float = 0.2
    beta: float = 0.5

    def __post_init__(self) -> None:
        for field in ("alpha", "beta"):
            number(field, getattr(self, field))
            if getattr(self, field) != getattr(self, field):
                raise refused(field, getattr(self, field), "a number")

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A multiplication, an addition and two comparisons an element."""
        elements = product(outputs[0])
        return Cost(0, elements, elements, 2 * elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Two comparisons and a multiplication an element."""
        elements = product(outputs[0])
        return {"input": Cost(0, elements, 0, 2 * elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input."""
        return ("input0",)


@dataclass(frozen=True, eq=False, repr=False)
class Quantize(Layer):
    """Floats as whole numbers of a scale and a zero point, or (`back`) the other way; scale and zero come in too.

    A scale of one axis is for the places along `axis`; with `block` each of its numbers is for so many places of it.
    """

    kind = "quantize"
    inputs = (2, 3)
    dtype: str = "uint8"
    back: bool = False
    axis: int = 1
    block: int = 0

    def __post_init__(self) -> None:
        flag("back", self.back)
        integer("axis", self.axis)
        whole("block", self.block, 0)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The first input's shape."""
        return (inputs[0],)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The type of the result."""
        return (self.dtype,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A division, a rounding, an addition and two comparisons an element; back, a difference and a product."""
        elements = product(outputs[0])
        return Cost(0, elements, elements) if self.back else Cost(0, 0, elements, 4 * elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradient is handed on (straight through), times the scale."""
        return {"input": Cost(multiplications=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The scale."""
        return ("input1",)
