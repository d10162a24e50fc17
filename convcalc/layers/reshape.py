"""Layers that give the same numbers another shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, shape_text
from convcalc.tracing import product


class _View(Layer):
    """No arithmetic and no memory of its own."""

    view = True

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: the numbers stay where they are."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Nothing: the gradient is reshaped."""
        return {"input": Cost()}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Flatten(_View):
    """The axes start_dim to end_dim as one; the batch is axis 0. Fields as PyTorch's Flatten.

    >>> Flatten().infer((1, 16, 5, 5))
    ((1, 400),)
    """

    kind = "flatten"
    start_dim: int = 1
    end_dim: int = -1

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape with these axes multiplied."""
        shape = inputs[0]
        axes = []
        for field in ("start_dim", "end_dim"):
            value = getattr(self, field)
            if not -len(shape) <= value < len(shape):
                raise ShapeError(
                    f"{field} is {value}, but the input {shape_text(shape[1:])} has axes"
                    f" {-len(shape)} to {len(shape) - 1}, the batch counted",
                    field=field,
                    value=value,
                )
            axes.append(value % len(shape))
        start, end = axes
        if start > end:
            raise ShapeError(f"start_dim {start} comes after end_dim {end}", field="start_dim", value=start)
        return ((*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :]),)
