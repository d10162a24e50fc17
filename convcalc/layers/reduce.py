"""Reductions: many elements along axes into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.layers.base import Cost, Layer, Saved, Shape, axis_of, choice, flag, integer, whole
from convcalc.layers.reshape import Moved
from convcalc.records import dataclass
from convcalc.tracing import product

REDUCTIONS = (
    "argmax", "argmin", "l1", "l2", "logsum", "logsumexp", "max", "mean", "min", "prod", "sum", "sumsquare",
)  # fmt: skip
"""What is done with the elements."""


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Layer):
    """The elements along `dims` (None: all axes) as one, with `function`, one of `REDUCTIONS`; dims count the batch.

    >>> Reduce("mean", (2, 3), False).infer((1, 8, 5, 5))
    ((1, 8),)
    """

    kind = "reduce"
    function: str
    dims: tuple[int, ...] | None = None
    keepdim: bool = True

    def __post_init__(self) -> None:
        choice("function", self.function, REDUCTIONS)
        flag("keepdim", self.keepdim)
        if self.dims is not None:
            dims = self.dims if isinstance(self.dims, Sequence) else (self.dims,)
            self._set(dims=tuple(integer("dims", dim) for dim in dims))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape without these axes, or with 1 for each. Raises `ShapeError` when there is no such axis."""
        shape = inputs[0]
        gone = self.axes(shape)
        return (tuple(1 if axis in gone else size for axis, size in enumerate(shape)
                      if self.keepdim or axis not in gone),)  # fmt: skip

    def axes(self, shape: Shape) -> set[int]:
        """The axes that are reduced, from the front."""
        dims = range(len(shape)) if self.dims is None else self.dims
        return {axis_of("dims", dim, shape) for dim in dims}

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """int64 for places, else the input's type."""
        return ("int64" if self.function.startswith("arg") else dtype,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """n - 1 additions, multiplications or comparisons for n elements, and what is done before and after.

        A mean divides once, l1 takes n signs (free), l2 and sumsquare n products, l2 a root, logsum a logarithm, and
        logsumexp n exponentials besides.
        """
        elements, results = product(inputs[0]), product(outputs[0])
        joins = max(elements - results, 0)
        if self.function in ("max", "min", "argmax", "argmin"):
            return Cost(other=joins)
        if self.function == "prod":
            return Cost(multiplications=joins)
        squares = elements if self.function in ("l2", "sumsquare") else 0
        after = results if self.function in ("mean", "l2", "logsum", "logsumexp") else 0
        before = elements if self.function == "logsumexp" else 0
        return Cost(0, squares, joins, before + after)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient goes to all its elements: as it is, divided (mean), or times a slope for each."""
        elements, results = product(inputs[0]), product(outputs[0])
        if self.function == "mean":
            return {"input": Cost(other=results)}
        if self.function in ("sum", "max", "min", "argmax", "argmin"):
            return {"input": Cost()}
        return {"input": Cost(multiplications=elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing of a sum, a mean and places; else the input and the output."""
        return () if self.function in ("sum", "mean", "argmax", "argmin") else ("input0", "output0")


@dataclass(frozen=True, eq=False, repr=False)
class Cumulate(Layer):
    """Sums (or with `function` prod, products) of all elements up to each along dim, which counts the batch."""

    kind = "cumulate"
    dim: int = -1
    function: str = "sum"

    def __post_init__(self) -> None:
        integer("dim", self.dim)
        choice("function", self.function, ("sum", "prod"))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` when there is no such axis."""
        axis_of("dim", self.dim, inputs[0])
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """n - 1 operations for n elements along dim."""
        elements = product(inputs[0])
        joins = elements - elements // max(inputs[0][axis_of("dim", self.dim, inputs[0])], 1)
        return Cost(additions=joins) if self.function == "sum" else Cost(multiplications=joins)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The same the other way round; of products a multiplication and a division besides."""
        more = product(inputs[0]) if self.function == "prod" else 0
        return {"input": Cost(0, more, self.cost(inputs, outputs).flops, more)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing of sums; of products the input and the output."""
        return () if self.function == "sum" else ("input0", "output0")


@dataclass(frozen=True, eq=False, repr=False)
class TopK(Moved):
    """The k largest (or smallest) elements along dim, and where they stood. Fields as torch.topk.

    >>> TopK(3).infer((1, 10))
    ((1, 3), (1, 3))
    """

    kind = "topk"
    k: int
    dim: int = -1
    largest: bool = True

    def __post_init__(self) -> None:
        whole("k", self.k, 0)
        integer("dim", self.dim)
        flag("largest", self.largest)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with k for dim, twice. Raises `ShapeError` when there are fewer elements."""
        shape = inputs[0]
        axis = axis_of("dim", self.dim, shape)
        output = (*shape[:axis], min(self.k, shape[axis]), *shape[axis + 1 :])
        return (output, output)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type, and int64 for the places."""
        return (dtype, "int64")

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One comparison an element: the least that any selection takes."""
        return Cost(other=product(inputs[0]))

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The places."""
        return ("output1",)
