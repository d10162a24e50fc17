"""Fractional max pooling: windows at random places, so that the output is any fraction of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import (
    Shape,
    Sizes,
    axis_name,
    exactly_one,
    flag,
    number,
    refused,
    spatial,
    spatial_input,
)
from convcalc.layers.pool import WindowMaxima
from convcalc.records import dataclass
from convcalc.tracing import per_axis


@dataclass(frozen=True, init=False, eq=False, repr=False)
class FractionalMaxPool(WindowMaxima):
    """The largest element of windows at random places. Fields as PyTorch's FractionalMaxPool2d, 3d.

    (N, C, *sizes) -> (N, C, *output_size), or the sizes times output_ratio, rounded down; one of the two must be given.

    >>> FractionalMaxPool2d(2, output_ratio=0.7).infer((1, 8, 10, 10))
    ((1, 8, 7, 7),)
    """

    kind = "fractionalmaxpool"
    kernel_size: tuple[int, ...]
    output_size: tuple[int, ...] | None
    output_ratio: tuple[float, ...] | None
    return_indices: bool

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
    ) -> None:
        rank = self.rank or 0
        exactly_one("output_size", output_size, "output_ratio", output_ratio)
        ratios: Any = output_ratio if isinstance(output_ratio, Sequence) else (output_ratio,) * rank
        if output_ratio is not None and len(ratios) != rank:
            raise refused("output_ratio", output_ratio, f"one number, or {rank}, one for each axis")
        for ratio in () if output_ratio is None else ratios:
            if not 0 < number("output_ratio", ratio) < 1:
                raise refused("output_ratio", ratio, "between 0 and 1")
        self._set(
            kernel_size=spatial(rank, "kernel_size", kernel_size),
            output_size=None if output_size is None else spatial(rank, "output_size", output_size),
            output_ratio=None if output_ratio is None else tuple(ratios),
            return_indices=flag("return_indices", return_indices),
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes), and the same for the indices. Raises `ShapeError` when the windows do not fit."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        output = self.output_size
        if output is None:
            output = per_axis(F.scaled_size, sizes, self.output_ratio or ())
        for axis, (size, wanted, kernel) in enumerate(zip(sizes, output, self.kernel_size, strict=True)):
            # PyTorch's 3-d pooling wants one element more than fits the windows exactly.
            most = size - kernel + (len(sizes) != 3)
            if not 1 <= wanted <= most:
                field = "output_size" if self.output_size is not None else "output_ratio"
                raise ShapeError(
                    f"{field} asks for {wanted} windows of {kernel} in {size} ({axis_name(len(sizes), axis)});"
                    f" {f'1 to {most}' if most > 0 else 'none'} fit",
                    field=field,
                    value=wanted,
                )
        shape = (batch, channels, *output)
        return (shape, shape) if self.return_indices else (shape,)


class FractionalMaxPool1d(FractionalMaxPool):
    """`FractionalMaxPool` over one axis: (N, C, L). PyTorch has none."""

    rank = 1


class FractionalMaxPool2d(FractionalMaxPool):
    """`FractionalMaxPool` over two axes: (N, C, H, W)."""

    rank = 2


class FractionalMaxPool3d(FractionalMaxPool):
    """`FractionalMaxPool` over three axes: (N, C, D, H, W)."""

    rank = 3
