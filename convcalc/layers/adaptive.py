"""Adaptive and global pooling: the output size is given, and the windows follow from the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convcalc import formulas as F
from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, refused, spatial_input, whole
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product

AdaptiveSizes = int | None | Sequence[int | None]
"""The output size for every axis, or for each; None keeps the input's."""


class _Adaptive(Layer):
    """Window i along an axis of n elements and m outputs is ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉."""

    output_size: tuple[int | None, ...]

    def sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The output sizes for an input of these sizes."""
        return tuple(size if wanted is None else wanted for size, wanted in zip(sizes, self.output_size, strict=True))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *output_size)."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        return ((batch, channels, *self.sizes(sizes)),)


def _output_size(rank: int | None, output_size: AdaptiveSizes) -> tuple[int | None, ...]:
    """One size or None for each axis."""
    given: tuple[Any, ...] = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
    if rank is not None and len(given) == 1:
        given *= rank
    if rank is not None and len(given) != rank:
        raise refused("output_size", output_size, f"one number or none, or {rank}, one for each axis")
    return tuple(None if size is None else whole("output_size", size) for size in given)


def _window_elements(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """The elements of all windows together, each counted as often as it is in one."""
    _, _, *sizes = inputs[0]
    batch, channels, *output = outputs[0]
    return batch * channels * int(product(per_axis(F.adaptive_elements, sizes, output)))


class _Average(_Adaptive):
    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A window of K elements takes K - 1 additions and one division; the windows' real sizes are added up."""
        elements = product(outputs[0])
        return Cost(additions=F.sum_additions(_window_elements(inputs, outputs), elements), other=elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is divided once and added to its whole window."""
        return {"input": Cost(additions=_window_elements(inputs, outputs), other=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input; nothing for one window over everything, which PyTorch computes as a mean."""
        return () if set(outputs[0][2:]) == {1} else ("input0",)


class _Maximum(_Adaptive):
    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A window of K elements takes K - 1 comparisons; the windows' real sizes are added up."""
        return Cost(other=F.sum_additions(_window_elements(inputs, outputs), product(outputs[0])))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is added to the place its maximum came from."""
        return {"input": Cost(additions=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, and the index of each maximum."""
        return ("input0", (outputs[0], "int64"))


@dataclass(frozen=True, init=False, eq=False, repr=False)
class AdaptiveAvgPool(_Average):
    """The mean of each window, whose sizes follow from output_size. Fields as PyTorch's AdaptiveAvgPool1d, 2d, 3d.

    (N, C, *sizes) -> (N, C, *output_size); None in output_size keeps the input's size.

    >>> AdaptiveAvgPool2d((7, None)).infer((1, 8, 10, 12))
    ((1, 8, 7, 12),)
    """

    kind = "adaptiveavgpool"
    output_size: tuple[int | None, ...]

    def __init__(self, output_size: AdaptiveSizes) -> None:
        self._set(output_size=_output_size(self.rank, output_size))


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over one axis: (N, C, L)."""

    rank = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over two axes: (N, C, H, W)."""

    rank = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    """`AdaptiveAvgPool` over three axes: (N, C, D, H, W)."""

    rank = 3


@dataclass(frozen=True, init=False, eq=False, repr=False)
class AdaptiveMaxPool(_Maximum):
    """The largest element of each window, whose sizes follow from output_size. Fields as PyTorch's AdaptiveMaxPool.

    (N, C, *sizes) -> (N, C, *output_size), twice with return_indices; None in output_size keeps the input's size.

    >>> AdaptiveMaxPool2d(7).infer((1, 8, 10, 12))
    ((1, 8, 7, 7),)
    """

    kind = "adaptivemaxpool"
    output_size: tuple[int | None, ...]
    return_indices: bool

    def __init__(self, output_size: AdaptiveSizes, return_indices: bool = False) -> None:
        self._set(
            output_size=_output_size(self.rank, output_size), return_indices=flag("return_indices", return_indices)
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *output_size), and the same for the indices."""
        return super().infer(*inputs) * (2 if self.return_indices else 1)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type, and int64 for the indices."""
        return (dtype, "int64") if self.return_indices else (dtype,)


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over one axis: (N, C, L)."""

    rank = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over two axes: (N, C, H, W)."""

    rank = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """`AdaptiveMaxPool` over three axes: (N, C, D, H, W)."""

    rank = 3


@dataclass(frozen=True, eq=False, repr=False)
class _Global(_Adaptive):
    """One window over everything, whatever the number of spatial axes."""

    def sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """1 for each axis."""
        return (1,) * len(sizes)


class GlobalAvgPool(_Global, _Average):
    """The mean of each channel: (N, C, *sizes) -> (N, C, 1, ...). ONNX's GlobalAveragePool; `AdaptiveAvgPool` to 1.

    >>> GlobalAvgPool().infer((1, 8, 10, 12))
    ((1, 8, 1, 1),)
    """

    kind = "globalavgpool"


class GlobalMaxPool(_Global, _Maximum):
    """The largest element of each channel: (N, C, *sizes) -> (N, C, 1, ...). ONNX's GlobalMaxPool."""

    kind = "globalmaxpool"
