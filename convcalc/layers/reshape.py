"""The same numbers under another shape, and what layers that only move numbers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, axis_of, integer
from convcalc.records import dataclass
from convcalc.tracing import product


class Moved(Layer):
    """No arithmetic: the numbers go to other places."""

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: numbers are moved."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Nothing: the gradient is moved back."""
        return {"input": Cost()}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing."""
        return ()


class View(Moved):
    """The numbers stay where they are: no memory of its own."""

    view = True


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(View):
    """The axes start_dim to end_dim as one; the batch is axis 0. Fields as PyTorch's Flatten.

    >>> Flatten().infer((1, 16, 5, 5))
    ((1, 400),)
    """

    kind = "flatten"
    start_dim: int = 1
    end_dim: int = -1

    def __post_init__(self) -> None:
        integer("start_dim", self.start_dim)
        integer("end_dim", self.end_dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with these axes multiplied."""
        shape = inputs[0]
        start = axis_of("start_dim", self.start_dim, shape)
        end = axis_of("end_dim", self.end_dim, shape)
        if start > end:
            raise ShapeError(f"start_dim {start} comes after end_dim {end}", field="start_dim", value=start)
        return ((*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :]),)
