"""Max unpooling: maxima back to where they stood, over 1, 2 or 3 axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import (
    Cost,
    Layer,
    Pairs,
    Saved,
    Shape,
    Sizes,
    axis_name,
    pairs,
    shape_text,
    spatial,
    spatial_input,
)
from convcalc.records import dataclass
from convcalc.tracing import per_axis


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MaxUnpool(Layer):
    """Each value at the place that its index names, zeros elsewhere: what undoes `MaxPool` with return_indices.

    Two inputs of one shape, values and indices: (N, C, *sizes) -> (N, C, *sizes). Fields as PyTorch's MaxUnpool1d, 2d,
    3d; `output_size` is what PyTorch takes in forward(), the sizes wanted where several go to one pooled size.

    >>> MaxUnpool2d(2).infer((1, 8, 4, 4), (1, 8, 4, 4))
    ((1, 8, 8, 8),)
    """

    kind = "maxunpool"
    inputs = (2, 2)
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    output_size: tuple[int, ...] | None

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes | Pairs = 0,
        output_size: Sizes | None = None,
    ) -> None:
        rank = self.rank or 0
        kernel = spatial(rank, "kernel_size", kernel_size)
        self._set(
            kernel_size=kernel,
            stride=kernel if stride is None else spatial(rank, "stride", stride),
            padding=pairs(rank, "padding", padding),
            output_size=None if output_size is None else spatial(rank, "output_size", output_size),
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes). Raises `ShapeError` when the indices have another shape, or output_size is out of reach."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        if inputs[1] != inputs[0]:
            raise ShapeError(
                f"the indices are {shape_text(inputs[1][1:])}, but must have the shape of the values,"
                f" {shape_text(inputs[0][1:])}",
                value=inputs[1],
            )
        before, after = zip(*self.padding, strict=True)
        output = per_axis(F.unpooled_size, sizes, self.kernel_size, self.stride, before, after)
        for axis, (size, stride) in enumerate(zip(output, self.stride, strict=True)):
            if self.output_size is not None:
                wanted = self.output_size[axis]
                if not size - stride < wanted < size + stride:
                    raise ShapeError(
                        f"output_size {wanted} is out of reach: {max(size - stride + 1, 1)} to {size + stride - 1}"
                        f" can be had ({axis_name(len(sizes), axis)})",
                        field="output_size",
                        value=wanted,
                    )
            elif size < 1:
                raise ShapeError(
                    f"padding leaves an output of {size} ({axis_name(len(sizes), axis)}), but it must be at least 1",
                    field="padding",
                    value=self.padding,
                )
        return ((batch, channels, *(self.output_size or output)),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: values are moved."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Nothing: gradients are picked."""
        return {"input": Cost()}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The indices."""
        return ("input1",)


class MaxUnpool1d(MaxUnpool):
    """`MaxUnpool` over one axis: (N, C, L)."""

    rank = 1


class MaxUnpool2d(MaxUnpool):
    """`MaxUnpool` over two axes: (N, C, H, W)."""

    rank = 2


class MaxUnpool3d(MaxUnpool):
    """`MaxUnpool` over three axes: (N, C, D, H, W)."""

    rank = 3
