"""Dropout: zeros at random places while training, nothing at inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, number, refused, shape_text, spatial_input
from convcalc.records import dataclass
from convcalc.tracing import product


@dataclass(frozen=True, eq=False, repr=False)
class _Dropout(Layer):
    """The output has the input's shape; what training does is not counted in the cost, which is inference's."""

    idle_at_inference = True
    p: float = 0.5
    inplace: bool = False

    def __post_init__(self) -> None:
        if not 0 <= number("p", self.p) <= 1:
            raise refused("p", self.p, "between 0 and 1")
        flag("inplace", self.inplace)

    def drawn(self, shape: Shape) -> Shape:
        """The shape of what is drawn: a number for each element."""
        return shape

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: inference hands its input on."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each gradient is multiplied by its place of the mask."""
        return {"input": Cost(multiplications=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The mask, in the input's type; for p = 1 a single 0, for p = 0 nothing."""
        return () if self.p == 0 else (((() if self.p == 1 else self.drawn(inputs[0])), None),)


class Dropout(_Dropout):
    """Zeros each element with probability p while training, and scales the others. Fields as PyTorch's Dropout.

    >>> Dropout(0.2).infer((1, 84))
    ((1, 84),)
    """

    kind = "dropout"


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance after SELU. Fields as PyTorch's AlphaDropout."""

    kind = "alphadropout"


class _ChannelDropout(_Dropout):
    """Whole channels are dropped: one number is drawn for each."""

    def drawn(self, shape: Shape) -> Shape:
        return (*shape[:2], *(1,) * len(shape[2:]))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` when there are no channels."""
        if len(inputs[0]) < 2:
            raise ShapeError(f"needs channels, but {shape_text(inputs[0][1:]) or 'a scalar'} came in", value=inputs[0])
        return (inputs[0],)


class FeatureAlphaDropout(_ChannelDropout):
    """`AlphaDropout` of whole channels. Fields as PyTorch's FeatureAlphaDropout."""

    kind = "featurealphadropout"


class Dropout1d(_ChannelDropout):
    """Dropout of whole channels of (N, C, L). Fields as PyTorch's Dropout1d."""

    kind = "dropout"
    rank = 1

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` for anything but (N, C, L)."""
        spatial_input(self, inputs[0])
        return (inputs[0],)


class Dropout2d(_ChannelDropout):
    """Dropout of whole channels of (N, C, H, W); like PyTorch's, it takes other axes after the channels too."""

    kind = "dropout"
    rank = 2


class Dropout3d(_ChannelDropout):
    """Dropout of whole channels of (N, C, D, H, W); other axes are one sample with its channels first."""

    kind = "dropout"
    rank = 3

    def drawn(self, shape: Shape) -> Shape:
        return super().drawn(shape) if len(shape) == 5 else (shape[0], *(1,) * len(shape[1:]))
