"""Windows as columns (im2col), and columns added up again (col2im)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Pairs, Saved, Shape, Sizes, pairs, shape_text, spatial, spatial_input
from convcalc.layers.conv import refuse_large_kernel
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product


class _Columns(Layer):
    """The windows' fields, and what it takes to add columns up."""

    rank: ClassVar[int | None] = 2
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    stride: tuple[int, ...]

    def _window(
        self, kernel_size: Sizes, dilation: Sizes, padding: Sizes | Pairs, stride: Sizes, axes: int = 2
    ) -> None:
        self._set(
            kernel_size=spatial(axes, "kernel_size", kernel_size),
            dilation=spatial(axes, "dilation", dilation),
            padding=pairs(axes, "padding", padding),
            stride=spatial(axes, "stride", stride),
        )

    def _blocks(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        refuse_large_kernel(sizes, self.padding, self.kernel_size, self.dilation)
        before, after = zip(*self.padding, strict=True)
        return per_axis(F.window_count, sizes, self.kernel_size, self.stride, before, after, self.dilation)

    def _adding(self, planes: int, blocks: tuple[int, ...]) -> Cost:
        """Every column element is added to its place, padding included; the first at each place needs no addition."""
        touched = product(per_axis(F.reached, blocks, self.kernel_size, self.stride, self.dilation))
        return Cost(additions=F.sum_additions(planes * product(self.kernel_size) * product(blocks), planes * touched))

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing."""
        return ()


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Unfold(_Columns):
    """Every window as a column: (N, C, H, W) -> (N, C·∏kernel_size, windows). Fields as PyTorch's Unfold.

    >>> Unfold(3).infer((1, 2, 5, 6))
    ((1, 18, 12),)
    """

    kind = "unfold"
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    stride: tuple[int, ...]

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes | Pairs = 0, stride: Sizes = 1) -> None:
        self._window(kernel_size, dilation, padding, stride)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C·∏kernel_size, windows). Raises `ShapeError` when no window fits."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        return ((batch, channels * product(self.kernel_size), product(self._blocks(sizes))),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: numbers are copied."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The columns' gradients are added up, as `Fold` does."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        return {"input": self._adding(batch * channels, self._blocks(sizes))}


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Fold(_Columns):
    """Columns added up to an image: (N, C·∏kernel_size, windows) -> (N, C, *output_size). Fields as PyTorch's Fold.

    >>> Fold((5, 6), 3).infer((1, 18, 12))
    ((1, 2, 5, 6),)
    """

    kind = "fold"
    output_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    stride: tuple[int, ...]

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes | Pairs = 0,
        stride: Sizes = 1,
    ) -> None:
        self._set(output_size=spatial(2, "output_size", output_size))
        self._window(kernel_size, dilation, padding, stride)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *output_size). Raises `ShapeError` when the columns are not those of such an image."""
        if len(inputs[0]) != 3:
            raise ShapeError(
                f"needs columns, (C·∏kernel_size, windows), but {shape_text(inputs[0][1:]) or 'a scalar'} came in",
                value=inputs[0],
            )
        batch, height, columns = inputs[0]
        elements = product(self.kernel_size)
        if height % elements:
            raise ShapeError(
                f"kernel_size has {elements} elements, which do not divide the columns of {height}",
                field="kernel_size",
                value=self.kernel_size,
            )
        windows = self._blocks(self.output_size)
        if product(windows) != columns:
            raise ShapeError(
                f"output_size {shape_text(self.output_size)} has {shape_text(windows)} = {product(windows)} windows,"
                f" but {columns} columns came in",
                field="output_size",
                value=self.output_size,
            )
        return ((batch, height // elements, *self.output_size),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One addition for each column element but the first at its place, places in the padding included."""
        return self._adding(outputs[0][0] * outputs[0][1], self._blocks(self.output_size))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Nothing: gradients are copied, as `Unfold` does."""
        return {"input": Cost()}


class FoldAxes(Fold):
    """`Fold` over any number of axes, as many as `output_size` has: ONNX's Col2Im.

    >>> FoldAxes((3, 4, 5), (1, 1, 5)).infer((1, 10, 12))
    ((1, 2, 3, 4, 5),)
    """

    rank = None

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes | Pairs = 0,
        stride: Sizes = 1,
    ) -> None:
        sizes = spatial(None, "output_size", output_size)
        self._set(output_size=sizes)
        self._window(kernel_size, dilation, padding, stride, len(sizes))
