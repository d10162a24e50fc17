"""Activations: functions of each element by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convcalc.layers.base import Cost, Layer, Saved, Shape
from convcalc.tracing import product


class _Elementwise(Layer):
    """The output has the input's shape."""

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)


@dataclass(frozen=True)
class ReLU(_Elementwise):
    """max(0, x), element by element. Fields as PyTorch's ReLU.

    >>> ReLU().infer((1, 3, 8, 8))
    ((1, 3, 8, 8),)
    """

    kind = "relu"
    inplace: bool = False

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One comparison an element."""
        return Cost(other=product(outputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """One comparison an element."""
        return {"input": self.cost(inputs, outputs)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The output."""
        return ("output0",)
