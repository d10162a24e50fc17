"""Upsampling: an image at other sizes, by copying neighbours or by interpolating between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import (
    Cost,
    Layer,
    Saved,
    Shape,
    Sizes,
    axis_name,
    choice,
    exactly_one,
    flag,
    number,
    refused,
    shape_text,
    spatial,
    spatial_input,
)
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product

MODES: dict[str, tuple[int, ...]] = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
    "area": (1, 2, 3),
}
"""Each mode, and how many spatial axes it takes."""
_NEIGHBOURS = {"linear": 2, "bilinear": 4, "bicubic": 16, "trilinear": 8}
"""How many input elements an interpolated one is a weighted sum of."""

Factors = float | Sequence[float]
"""A factor for every spatial axis, or one for all of them."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Upsample(Layer):
    """(N, C, *sizes) at `size`, or at the sizes times `scale_factor`, rounded down. Fields as PyTorch's Upsample.

    `size` and `scale_factor` are kept as they are given where that is one number for every axis.

    >>> Upsample(scale_factor=2).infer((1, 8, 5, 5))
    ((1, 8, 10, 10),)
    """

    kind = "upsample"
    size: tuple[int, ...] | None
    scale_factor: tuple[float, ...] | None
    mode: str
    align_corners: bool | None
    recompute_scale_factor: bool | None

    def __init__(
        self,
        size: Sizes | None = None,
        scale_factor: Factors | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        exactly_one("size", size, "scale_factor", scale_factor)
        factors: Any = scale_factor
        if factors is not None:
            factors = tuple(factors) if isinstance(factors, Sequence) and not isinstance(factors, str) else (factors,)
            for factor in factors:
                if number("scale_factor", factor) <= 0:
                    raise refused("scale_factor", factor, "more than 0")
        for field, value in (("align_corners", align_corners), ("recompute_scale_factor", recompute_scale_factor)):
            if value is not None:
                flag(field, value)
        if align_corners is not None and mode in MODES and mode not in _NEIGHBOURS:
            raise refused("align_corners", align_corners, f"left out with mode {mode}, which has no corners to align")
        if recompute_scale_factor and size is not None:
            raise refused("recompute_scale_factor", True, "left out with size, which needs no factor")
        self._set(
            size=None if size is None else spatial(None, "size", size),
            scale_factor=factors,
            mode=choice("mode", mode, tuple(MODES)),
            align_corners=align_corners,
            recompute_scale_factor=recompute_scale_factor,
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *sizes). Raises `ShapeError` for a number of axes that the mode does not take, and for a size of 0."""
        batch, channels, sizes = spatial_input(self, inputs[0])
        rank = len(sizes)
        if rank not in MODES[self.mode]:
            fits = ", ".join(mode for mode, ranks in MODES.items() if rank in ranks) or "none"
            raise ShapeError(
                f"mode {self.mode} is not for {rank} spatial axes ({shape_text(inputs[0][1:])}); {fits} fit",
                field="mode",
                value=self.mode,
            )
        field = "scale_factor" if self.size is None else "size"
        given: tuple[Any, ...] = getattr(self, field)
        if len(given) not in (1, rank):
            raise ShapeError(
                f"{field} has {len(given)} numbers, but the input {shape_text(inputs[0][1:])} has {rank} spatial axes",
                field=field,
                value=given,
            )
        each = given * rank if len(given) == 1 else given
        output = each if self.size is not None else per_axis(F.scaled_size, sizes, each)
        for axis, size in enumerate(output):
            if size < 1:
                raise ShapeError(
                    f"scale_factor {each[axis]} leaves an output of {size} ({axis_name(rank, axis)}), but it must be"
                    " at least 1",
                    field=field,
                    value=each[axis],
                )
        return ((batch, channels, *output),)

    def _area(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """The elements of all windows of mode area, which is adaptive average pooling."""
        axes = per_axis(F.adaptive_elements, inputs[0][2:], outputs[0][2:])
        return outputs[0][0] * outputs[0][1] * int(product(axes))

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Interpolation is a dot product of an output element's neighbours (2, 4, 8; bicubic 16) with their weights.

        Nearest neighbours are copied; area is adaptive average pooling. Making the weights is not counted.
        """
        elements = product(outputs[0])
        if self.mode == "area":
            return Cost(additions=F.sum_additions(self._area(inputs, outputs), elements), other=elements)
        macs = elements * _NEIGHBOURS.get(self.mode, 0)
        return Cost(macs, macs, F.sum_additions(macs, elements)) if macs else Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient is added to all of its neighbours, times their weights where it is interpolated."""
        elements = product(outputs[0])
        if self.mode == "area":
            return {"input": Cost(additions=self._area(inputs, outputs), other=elements)}
        macs = elements * _NEIGHBOURS.get(self.mode, 0)
        return {"input": Cost(macs, macs, macs or elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing; the input with mode area, unless that is one mean over everything."""
        return ("input0",) if self.mode == "area" and set(outputs[0][2:]) != {1} else ()


class _Upsampling2d(Upsample):
    """PyTorch's classes with no field but size and scale_factor."""

    printed = ("mode",)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, scale_factor={self.scale_factor})"


class UpsamplingNearest2d(_Upsampling2d):
    """`Upsample` with mode nearest. Fields as PyTorch's UpsamplingNearest2d, which takes 1 and 3 spatial axes too."""

    kind = "upsamplingnearest"

    def __init__(self, size: Sizes | None = None, scale_factor: Factors | None = None) -> None:
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(_Upsampling2d):
    """`Upsample` of (N, C, H, W) with mode bilinear and align_corners. Fields as PyTorch's UpsamplingBilinear2d."""

    kind = "upsamplingbilinear"

    def __init__(self, size: Sizes | None = None, scale_factor: Factors | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)
