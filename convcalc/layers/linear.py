"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, shape_text, whole
from convcalc.records import dataclass, replace
from convcalc.tracing import product


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Layer):
    """A matrix product with the last axis: (N, *, in_features) -> (N, *, out_features). Fields as PyTorch's Linear.

    in_features None is taken from the input, out_features None is in_features.

    >>> Linear(784, 10).infer((1, 784))
    ((1, 10),)
    """

    kind = "linear"
    in_features: int | None = None
    out_features: int | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        for field in ("in_features", "out_features"):
            if getattr(self, field) is not None:
                whole(field, getattr(self, field), 0)
        flag("bias", self.bias)

    def bind(self, *inputs: Shape) -> Self:
        """Take the features that are left open from the last axis."""
        if len(inputs[0]) < 2:
            raise ShapeError("needs a last axis of features, but a scalar came in")
        features = inputs[0][-1]
        if self.in_features is not None and self.in_features != features:
            came = shape_text(inputs[0][1:])
            elements = product(inputs[0][1:])
            hint = "; a flatten before it would fit" if elements == self.in_features else ""
            raise ShapeError(
                f"in_features is {self.in_features}, but the last axis of the input {came} has {features}{hint}",
                field="in_features",
                value=self.in_features,
            )
        if self.in_features is not None and self.out_features is not None:
            return self
        return replace(
            self, in_features=features, out_features=features if self.out_features is None else self.out_features
        )

    @property
    def bound(self) -> tuple[int, int]:
        """in_features and out_features of a bound layer."""
        if self.in_features is None or self.out_features is None:
            raise ShapeError("in_features is open until the layer is bound to an input")
        return self.in_features, self.out_features

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape with out_features for the last axis."""
        return ((*inputs[0][:-1], self.bound[1]),)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (out_features, in_features) and bias (out_features,)."""
        in_features, out_features = self.bound
        weight = {"weight": (out_features, in_features)}
        return weight | {"bias": (out_features,)} if self.bias else weight

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One dot product for each output element, and the bias."""
        macs = F.linear_macs(product(inputs[0][:-1]), *self.bound)
        elements = product(outputs[0])
        additions = F.sum_additions(macs, elements)
        return Cost(macs, macs, F.biased_additions(additions, elements) if self.bias else additions)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Two matrix products of the forward's size."""
        in_features, out_features = self.bound
        macs = F.linear_macs(product(inputs[0][:-1]), in_features, out_features)
        gradients = {
            "input": Cost(macs, macs, F.sum_additions(macs, product(inputs[0]))),
            "weight": Cost(macs, macs, F.sum_additions(macs, in_features * out_features)),
        }
        if self.bias:
            gradients["bias"] = Cost(additions=F.sum_additions(product(outputs[0]), out_features))
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input and the weight."""
        return ("input0", "weight")

    def saved_at_the_front(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input; the weight is for the input's gradient alone."""
        return ("input0",)
