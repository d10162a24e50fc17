"""Pooling over windows: maxima and averages, over 1, 2 or 3 axes."""

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
    flag,
    large_kernel,
    pairs,
    refused,
    spatial,
    spatial_input,
    whole,
)
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product


class WindowPool(Layer):
    """What pooling over windows of a fixed size has in common."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    ceil_mode: bool
    fits_unpadded = False
    """Whether the kernel must fit into the input without its padding, as PyTorch's averages over three axes demand."""

    def _window(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes | Pairs, ceil_mode: bool) -> None:
        rank = self.rank or 0
        kernel = spatial(rank, "kernel_size", kernel_size)
        self._set(
            kernel_size=kernel,
            stride=kernel if stride is None else spatial(rank, "stride", stride),
            padding=pairs(rank, "padding", padding),
            ceil_mode=flag("ceil_mode", ceil_mode),
        )
        for size, pair in zip(kernel, self.padding, strict=True):
            if max(pair) > size // 2:
                raise refused("padding", max(pair), f"at most half of the kernel_size {size}")

    @property
    def _dilation(self) -> tuple[int, ...]:
        return (1,) * len(self.kernel_size)

    def _output(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        before, after = zip(*self.padding, strict=True)
        for axis, (kernel, size) in enumerate(zip(self.kernel_size, sizes, strict=True)):
            if self.fits_unpadded and kernel > size:
                raise ShapeError(
                    f"kernel {kernel} is larger than the input {size} ({axis_name(len(sizes), axis)}), which is too"
                    " much over three axes even where padding would make up for it;"
                    f" a kernel_size of at most {size} fits",
                    field="kernel_size",
                    value=kernel,
                )
        count = F.window_count_ceil if self.ceil_mode else F.window_count
        output = per_axis(count, sizes, self.kernel_size, self.stride, before, after, self._dilation)
        for axis, size in enumerate(output):
            if size < 1:
                kernel, spread = self.kernel_size[axis], self._dilation[axis]
                padded = sizes[axis] + before[axis] + after[axis]
                extent = F.kernel_extent(kernel, spread)
                raise large_kernel(kernel, spread, extent, padded, axis_name(len(sizes), axis))
        return output


class WindowMaxima(Layer):
    """What layers that choose the largest element of each window have in common."""

    kernel_size: tuple[int, ...]
    return_indices: bool

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type, and int64 for the indices."""
        return (dtype, "int64") if self.return_indices else (dtype,)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A window of K elements takes K - 1 comparisons; placing windows is not counted."""
        return Cost(other=F.window_comparisons(product(outputs[0]), self.kernel_size))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is added to the place its maximum came from."""
        return {"input": Cost(additions=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, and the index of each maximum."""
        return ("input0", (outputs[0], "int64"))


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MaxPool(WindowPool, WindowMaxima):
    """The largest element of each window. Fields as PyTorch's MaxPool1d, 2d, 3d; stride None is the kernel_size.

    (N, C, *sizes) -> (N, C, *sizes), twice with return_indices: the second output says where in its channel each
    maximum stood.

    >>> MaxPool2d(1, stride=2, ceil_mode=True).infer((1, 8, 10, 10))
    ((1, 8, 5, 5),)
    """

    kind = "maxpool"
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    return_indices: bool
    ceil_mode: bool

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes | Pairs = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self._window(kernel_size, stride, padding, ceil_mode)
        self._set(
            dilation=spatial(self.rank, "dilation", dilation), return_indices=flag("return_indices", return_indices)
        )

    @property
    def _dilation(self) -> tuple[int, ...]:
        return self.dilation

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes), and the same for the indices."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        output = (batch, channels, *self._output(sizes))
        return (output, output) if self.return_indices else (output,)


class MaxPool1d(MaxPool):
    """`MaxPool` over one axis: (N, C, L)."""

    rank = 1


class MaxPool2d(MaxPool):
    """`MaxPool` over two axes: (N, C, H, W)."""

    rank = 2


class MaxPool3d(MaxPool):
    """`MaxPool` over three axes: (N, C, D, H, W)."""

    rank = 3


@dataclass(frozen=True, init=False, eq=False, repr=False)
class AvgPool(WindowPool):
    """The mean of each window. Fields as PyTorch's AvgPool1d, 2d, 3d; stride None is the kernel_size.

    (N, C, *sizes) -> (N, C, *sizes).

    >>> AvgPool2d(4, stride=4, padding=2, ceil_mode=True).infer((1, 8, 9, 9))
    ((1, 8, 3, 3),)
    """

    kind = "avgpool"
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes | Pairs = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._window(kernel_size, stride, padding, ceil_mode)
        if divisor_override is not None:
            whole("divisor_override", divisor_override)
        self._set(count_include_pad=flag("count_include_pad", count_include_pad), divisor_override=divisor_override)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes)."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        return ((batch, channels, *self._output(sizes)),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A window of K elements takes K - 1 additions and one division."""
        elements = product(outputs[0])
        return Cost(additions=F.window_comparisons(elements, self.kernel_size), other=elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is divided once and added to its whole window."""
        elements = product(outputs[0])
        return {"input": Cost(additions=elements * product(self.kernel_size), other=elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input."""
        return ("input0",)


class AvgPool1d(AvgPool):
    """`AvgPool` over one axis: (N, C, L)."""

    rank = 1


class AvgPool2d(AvgPool):
    """`AvgPool` over two axes: (N, C, H, W)."""

    rank = 2


class AvgPool3d(AvgPool):
    """`AvgPool` over three axes: (N, C, D, H, W). Refuses a kernel larger than the input without its padding."""

    rank = 3
    fits_unpadded = True
