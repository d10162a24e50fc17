"""Layers that look at an image between its pixels: a grid of places, windows whose taps wander, regions of interest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Pairs, Saved, Shape, choice, flag, number, refused, shape_text, whole
from convcalc.records import dataclass
from convcalc.tracing import per_axis, product

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
"""How many neighbours along each axis a sample is made of."""


@dataclass(frozen=True, eq=False, repr=False)
class GridSample(Layer):
    """(N, C, *sizes) at the places that a grid (N, *outputs, axes) names, from -1 to 1, the last axis first.

    As torch.nn.functional.grid_sample. `padding` is what stands outside: zeros, the border, or the image reflected;
    with align_corners -1 and 1 are the middles of the first and last pixels, not their edges.

    >>> GridSample().infer((1, 8, 5, 5), (1, 3, 4, 2))
    ((1, 8, 3, 4),)
    """

    kind = "gridsample"
    inputs = (2, 2)
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def __post_init__(self) -> None:
        choice("mode", self.mode, tuple(TAPS))
        choice("padding", self.padding, ("zeros", "border", "reflection"))
        flag("align_corners", self.align_corners)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, C, *outputs). Raises `ShapeError` when the grid is not for such an image."""
        x, grid = inputs
        if len(x) < 3 or len(grid) != len(x) or grid[-1] != len(x) - 2 or grid[0] != x[0]:
            raise ShapeError(f"a grid {shape_text(grid)} does not fit an image {shape_text(x)}", value=grid)
        return ((*x[:2], *grid[1:-1]),)

    def _macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        taps = TAPS[self.mode] ** (len(inputs[0]) - 2)
        return F.linear_macs(product(outputs[0]), taps, 1) if taps > 1 else 0

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A dot product of each output element's neighbours with their weights; a product and a sum a coordinate."""
        macs, places = self._macs(inputs, outputs), product(inputs[1])
        return Cost(macs, macs + places, (macs and macs - product(outputs[0])) + places)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each output's gradient goes to its neighbours, and by their differences to the grid."""
        macs = self._macs(inputs, outputs)
        axes = len(inputs[0]) - 2
        return {"input": Cost(macs * (1 + axes), macs * (1 + axes), macs * (1 + axes) or product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The image and the grid."""
        return ("input0", "input1")


@dataclass(frozen=True, eq=False, repr=False)
class RoiAlign(Layer):
    """Boxes of (N, C, H, W), each cut into output_size cells, each cell the mean or maximum of samples between pixels.

    The second input are boxes (count, 4), x1, y1, x2, y2 in the unit of `scale`; the third which image each is of.
    `ratio` are the samples along each axis of a cell, 0 for as many as there are pixels.

    >>> RoiAlign((7, 7)).infer((1, 8, 50, 50), (20, 4), (20,))
    ((20, 8, 7, 7),)
    """

    kind = "roialign"
    inputs = (3, 3)
    output_size: tuple[int, int] = (1, 1)
    scale: float = 1.0
    ratio: int = 0
    half_pixel: bool = True
    mode: str = "avg"

    def __post_init__(self) -> None:
        for size in self.output_size:
            whole("output_size", size)
        number("scale", self.scale)
        whole("ratio", self.ratio, 0)
        flag("half_pixel", self.half_pixel)
        choice("mode", self.mode, ("avg", "max"))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(count, C, *output_size). Raises `ShapeError` for boxes of another form."""
        x, boxes, images = inputs
        if len(x) != 4 or len(boxes) != 2 or boxes[1] != 4 or images != boxes[:1]:
            raise ShapeError(f"boxes {shape_text(boxes)} do not fit an image {shape_text(x)}", value=boxes)
        return ((boxes[0], x[1], *self.output_size),)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Four neighbours for each sample, and the samples of a cell joined; with ratio 0 one a cell is counted."""
        samples = product(outputs[0]) * (self.ratio or 1) ** 2
        macs = F.linear_macs(samples, 4, 1)
        return Cost(macs, macs, macs - samples + samples - product(outputs[0]), product(outputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each cell's gradient goes to the neighbours of its samples."""
        macs = F.linear_macs(product(outputs[0]) * (self.ratio or 1) ** 2, 4, 1)
        return {"input": Cost(macs, macs, macs)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The boxes."""
        return ("input1", "input2")


@dataclass(frozen=True, eq=False, repr=False)
class DeformConv(Layer):
    """A convolution whose taps are moved, each at each place by an offset of its own, and weighted by a mask.

    Inputs: (N, C, *sizes), offsets (N, offset_groups·∏kernel_size·axes, *outputs), and with `masked` a mask (N,
    offset_groups·∏kernel_size, *outputs). As torchvision's deform_conv2d. What lies outside is zero.

    >>> DeformConv(8, 16, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)).infer((1, 8, 5, 5), (1, 18, 5, 5))
    ((1, 16, 5, 5),)
    """

    kind = "deformconv"
    inputs = (2, 3)
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1
    offset_groups: int = 1
    bias: bool = True
    masked: bool = False

    def __post_init__(self) -> None:
        for field in ("in_channels", "out_channels", "groups", "offset_groups"):
            whole(field, getattr(self, field))
        for field in ("groups", "offset_groups"):
            if self.in_channels % getattr(self, field):
                raise refused(field, getattr(self, field), f"a divisor of the {self.in_channels} channels")
        flag("bias", self.bias)
        flag("masked", self.masked)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, out_channels, *outputs). Raises `ShapeError` for offsets or a mask of another shape."""
        x = inputs[0]
        rank = len(self.kernel_size)
        if len(x) != rank + 2 or x[1] != self.in_channels:
            raise ShapeError(
                f"needs {self.in_channels} channels and {rank} axes, but {shape_text(x[1:])} came in", value=x
            )
        before, after = zip(*self.padding, strict=True)
        sizes = per_axis(F.window_count, x[2:], self.kernel_size, self.stride, before, after, self.dilation)
        taps = self.offset_groups * product(self.kernel_size)
        # What comes after these is a weight that is computed.
        own = inputs[1 : 2 + self.masked]
        for name, given, channels in zip(("offsets", "mask"), own, (taps * rank, taps), strict=False):
            if given != (x[0], channels, *sizes):
                raise ShapeError(f"{name} are {shape_text(given)}, but must be {shape_text((x[0], channels, *sizes))}",
                                 value=given)  # fmt: skip
        return ((x[0], self.out_channels, *sizes),)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (out, in / groups, *kernel_size), and bias."""
        found: dict[str, Shape] = {"weight": (self.out_channels, self.in_channels // self.groups, *self.kernel_size)}
        return {**found, "bias": (self.out_channels,)} if self.bias else found

    def _samples(self, outputs: Sequence[Shape]) -> int:
        batch, _, *sizes = outputs[0]
        return int(batch * self.in_channels * product(self.kernel_size) * product(sizes))

    def _products(self, outputs: Sequence[Shape]) -> int:
        return F.linear_macs(product(outputs[0]), self.in_channels // self.groups * product(self.kernel_size), 1)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The convolution's products; before them 2^axes neighbours of each tap, a sum a coordinate, and the mask."""
        samples, macs, elements = self._samples(outputs), self._products(outputs), product(outputs[0])
        looked = F.linear_macs(samples, 2 ** len(self.kernel_size), 1)
        masks = samples * self.masked
        sums = F.sum_additions(macs, elements) + elements * self.bias + looked - samples + product(inputs[1])
        return Cost(macs + looked, macs + looked + masks, sums)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Products of the convolution's size for input and weight; for image and offsets what samples are made of."""
        macs, samples = self._products(outputs), self._samples(outputs)
        looked = F.linear_macs(samples, 2 ** len(self.kernel_size), 1) * (1 + len(self.kernel_size))
        weight = product(self.parameters()["weight"])
        gradients = {
            "input": Cost(macs + looked, macs + looked, F.sum_additions(macs, samples) + looked),
            "weight": Cost(macs, macs, F.sum_additions(macs, weight)),
        }
        if self.bias:
            gradients["bias"] = Cost(additions=product(outputs[0]) - self.out_channels)
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The inputs and the weight."""
        return (*(f"input{place}" for place in range(2 + self.masked)), "weight")
