"""Softmax and its kin: numbers along an axis turned into shares of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.layers.base import Cost, Layer, Saved, Shape, axis_of, integer, spatial_input
from convcalc.records import dataclass
from convcalc.tracing import product


class _Shares(Layer):
    """The output has the input's shape; each slice along an axis is worked on by itself."""

    def axis(self, shape: Shape) -> int:
        """The axis along which the shares are taken, the batch counted."""
        raise NotImplementedError

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` when it has no such axis."""
        self.axis(inputs[0])
        return (inputs[0],)

    def _elements(self, shape: Shape) -> tuple[int, int]:
        """The elements, and the slices that they stand in: none where there are no elements."""
        return product(shape), product(shape) // (shape[self.axis(shape)] or 1)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """For n elements n - 1 comparisons, n subtractions, n exponentials, n - 1 additions, n divisions."""
        elements, slices = self._elements(inputs[0])
        return Cost(additions=F.softmax_additions(elements, slices), other=F.softmax_others(elements, slices))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """y·(g − Σ g·y): for n elements 2n products and 2n - 1 additions."""
        elements, slices = self._elements(inputs[0])
        return {"input": Cost(0, 2 * elements, F.softmax_additions(elements, slices))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The output."""
        return ("output0",)


@dataclass(frozen=True, eq=False, repr=False)
class _WithDim(_Shares):
    """`dim` counts the batch; None is PyTorch's old rule: axis 0 of 1 and 3 axes, axis 1 of others."""

    dim: int | None = None

    def __post_init__(self) -> None:
        if self.dim is not None:
            integer("dim", self.dim)

    def axis(self, shape: Shape) -> int:
        """dim, from the front."""
        if self.dim is None:
            return 0 if len(shape) in (1, 3) else 1
        return axis_of("dim", self.dim, shape)

    def warnings(self, *inputs: Shape) -> Sequence[str]:
        """That without dim PyTorch's rule takes the batch, or that there is one element to share among."""
        axis = self.axis(inputs[0])
        if self.dim is None and axis == 0:
            return (f"dim is not given, and of {len(inputs[0])} axes PyTorch then takes 0, the batch; write dim=-1",)
        if inputs[0][axis] == 1:
            chosen = "dim is not given, and PyTorch then takes axis" if self.dim is None else "dim is"
            return (f"{chosen} {axis}, along which there is one element alone; dim=-1 takes the last axis",)
        return ()


class Softmax(_WithDim):
    """exp(x) / Σ exp(x) along dim, computed on x − max(x). Fields as PyTorch's Softmax; dim counts the batch.

    >>> Softmax(1).infer((1, 10))
    ((1, 10),)
    """

    kind = "softmax"


class Softmin(_WithDim):
    """`Softmax` of −x. Fields as PyTorch's Softmin."""

    kind = "softmin"


class LogSoftmax(_WithDim):
    """x − max − ln Σ exp(x − max) along dim. Fields as PyTorch's LogSoftmax; dim counts the batch."""

    kind = "logsoftmax"

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """As softmax, with a second subtraction in place of each division, and one logarithm a slice."""
        elements, slices = self._elements(inputs[0])
        return Cost(
            additions=F.softmax_additions(elements, slices) + elements,
            other=F.softmax_others(elements, slices) - elements + slices,
        )

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """g − exp(y)·Σ g: for n elements n exponentials, n products and 2n - 1 additions."""
        elements, slices = self._elements(inputs[0])
        return {"input": Cost(0, elements, F.softmax_additions(elements, slices), elements)}


@dataclass(frozen=True, eq=False, repr=False)
class Softmax2d(_Shares):
    """`Softmax` over the channels of each pixel: (N, C, H, W). PyTorch's Softmax2d has no fields."""

    kind = "softmax2d"
    rank = 2

    def axis(self, shape: Shape) -> int:
        """The channels."""
        spatial_input(self, shape)
        return 1
