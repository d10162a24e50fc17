"""Convolution and transposed convolution, over 1, 2 or 3 axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

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
    choice,
    flag,
    large_kernel,
    pairs,
    refused,
    shape_text,
    spatial,
    spatial_input,
    whole,
)
from convcalc.records import dataclass, replace
from convcalc.tracing import per_axis, product

PADDING_WORDS = ("valid", "same", "same_upper", "same_lower", "causal", "full")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _Convolution(Layer):
    """The fields that convolution and transposed convolution share, and what follows from them alone."""

    in_channels: int | None
    out_channels: int | None
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs | str
    dilation: tuple[int, ...]
    groups: int | str
    bias: bool
    padding_mode: str

    def _channels(self, in_channels: int | None, out_channels: int | None, groups: int | str) -> None:
        if groups != "depthwise":
            whole("groups", groups)
        for field, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value is not None and whole(field, value) and isinstance(groups, int) and value % groups:
                raise refused(field, value, f"divisible by groups ({groups})")
        self._set(in_channels=in_channels, out_channels=out_channels, groups=groups)

    def bind(self, *inputs: Shape) -> Self:
        """Take in_channels, out_channels and depthwise groups from the input where they are left open."""
        _, channels, _ = spatial_input(self, inputs[0])
        if self.in_channels is not None and self.in_channels != channels:
            raise ShapeError(
                f"in_channels is {self.in_channels}, but the input {shape_text(inputs[0][1:])} has {channels} channels",
                field="in_channels",
                value=self.in_channels,
            )
        out_channels = channels if self.out_channels is None else self.out_channels
        groups = channels if self.groups == "depthwise" else self.groups
        if (channels, out_channels, groups) == (self.in_channels, self.out_channels, self.groups):
            return self
        for what, value in (("input", channels), ("output", out_channels)):
            if isinstance(groups, int) and value % groups:
                raise ShapeError(
                    f"groups is {groups}, which does not divide the {value} {what} channels",
                    field="groups",
                    value=groups,
                )
        return replace(self, in_channels=channels, out_channels=out_channels, groups=groups)

    @property
    def bound(self) -> tuple[int, int, int]:
        """in_channels, out_channels and groups of a bound layer."""
        if not isinstance(self.in_channels, int) or not isinstance(self.out_channels, int):
            raise ShapeError("in_channels is open until the layer is bound to an input")
        return self.in_channels, self.out_channels, int(self.groups)

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input and the weight."""
        return ("input0", "weight")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Conv(_Convolution):
    """Convolution: each output element is the dot product of a kernel with a window of the input, plus a bias.

    (N, in_channels, *sizes) -> (N, out_channels, *sizes). Fields as PyTorch's Conv1d, Conv2d, Conv3d; `padding` may
    also be (before, after) pairs or one of `PADDING_WORDS`. in_channels None is taken from the input, out_channels
    None is in_channels, and groups may be the word "depthwise".

    >>> Conv2d(3, 64, 7, stride=2, padding=3).infer((1, 3, 224, 224))
    ((1, 64, 112, 112),)
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: Sizes = 1,
        stride: Sizes = 1,
        padding: Sizes | Pairs | str = 0,
        dilation: Sizes = 1,
        groups: int | str = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        rank = self.rank or 0
        self._channels(in_channels, out_channels, groups)
        self._set(
            kernel_size=spatial(rank, "kernel_size", kernel_size),
            stride=spatial(rank, "stride", stride),
            dilation=spatial(rank, "dilation", dilation),
            bias=flag("bias", bias),
            padding_mode=choice("padding_mode", padding_mode, PADDING_MODES),
        )
        if isinstance(padding, str):
            choice("padding", padding, PADDING_WORDS)
            if padding == "same" and set(self.stride) != {1}:
                raise refused("padding", padding, "a number or same_upper when the stride is not 1")
            self._set(padding=padding)
        else:
            self._set(padding=pairs(rank, "padding", padding))

    def pads(self, sizes: tuple[int, ...]) -> Pairs:
        """(before, after) per axis, with the word that `padding` may be worked out for an input of these sizes."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding in ("same_upper", "same_lower"):
            totals = per_axis(F.same_padding_strided, sizes, self.kernel_size, self.stride, self.dilation)
        elif self.padding == "valid":
            totals = (0,) * len(sizes)
        else:
            totals = per_axis(F.same_padding, self.kernel_size, self.dilation)
        split = _PADDING_SPLITS.get(self.padding, _floor_first)
        return tuple(split(total) for total in totals)

    def _copies(self, sizes: tuple[int, ...]) -> int:
        """The elements of the padding of one channel."""
        before, after = zip(*self.pads(sizes), strict=True)
        return int(product(per_axis(F.padded_size, sizes, before, after)) - product(sizes))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, out_channels, *sizes). Raises `ShapeError` when the kernel spans more than the padded input."""
        batch, _, sizes = spatial_input(self, inputs[0])
        pads = self.pads(sizes)
        refuse_padding(self.padding_mode, pads, sizes)
        refuse_large_kernel(sizes, pads, self.kernel_size, self.dilation)
        before, after = zip(*pads, strict=True)
        output = per_axis(F.window_count, sizes, self.kernel_size, self.stride, before, after, self.dilation)
        return ((batch, self.bound[1], *output),)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (out_channels, in_channels / groups, *kernel_size) and bias (out_channels,)."""
        in_channels, out_channels, groups = self.bound
        weight = {"weight": (out_channels, in_channels // groups, *self.kernel_size)}
        return weight | {"bias": (out_channels,)} if self.bias else weight

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One dot product for each output element, padding zeros included, and the bias."""
        in_channels, _, groups = self.bound
        batch, out_channels, *sizes = outputs[0]
        macs = F.conv_macs(batch, out_channels, tuple(sizes), in_channels, groups, self.kernel_size)
        elements = product(outputs[0])
        additions = F.sum_additions(macs, elements)
        return Cost(macs, macs, F.biased_additions(additions, elements) if self.bias else additions)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The input's gradient is a transposed convolution, the weight's a correlation over all windows.

        With a padding_mode other than zeros each element of the padding is a copy: its gradient is one more addition.
        """
        in_channels, out_channels, groups = self.bound
        macs = self.cost(inputs, outputs).macs
        batch, _, *sizes = outputs[0]
        touched = product(per_axis(F.reached, sizes, self.kernel_size, self.stride, self.dilation))
        weights = F.conv_weights(out_channels, in_channels, groups, self.kernel_size)
        copies = self._copies(inputs[0][2:]) if self.padding_mode != "zeros" else 0
        additions = F.sum_additions(macs, batch * in_channels * touched) + batch * in_channels * copies
        gradients = {
            "input": Cost(macs, macs, additions),
            "weight": Cost(macs, macs, F.sum_additions(macs, weights)),
        }
        if self.bias:
            gradients["bias"] = Cost(additions=F.sum_additions(product(outputs[0]), out_channels))
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The weight and the input, or a copy of it where PyTorch pads first.

        It does so for every padding_mode but zeros, and there keeps the input too if it is mirrored or its edge
        repeated; and for unequal zeros, of which the copy has only what one side has more than the other.
        """
        outer, sizes = inputs[0][:2], inputs[0][2:]
        pads = self.pads(sizes)
        if self.padding_mode != "zeros":
            copy = (*outer, *(size + before + after for size, (before, after) in zip(sizes, pads, strict=True)))
            return (*(("input0",) if self.padding_mode != "circular" else ()), (copy, None), "weight")
        if all(before == after for before, after in pads):
            return ("input0", "weight")
        copy = (*outer, *(size + abs(after - before) for size, (before, after) in zip(sizes, pads, strict=True)))
        return ((copy, None), "weight")

    def saved_at_the_front(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The same without the input of a padding that owes it no gradient."""
        kept = self.saved(inputs, outputs)
        return kept[1:] if self.padding_mode in ("reflect", "replicate") else kept


class Conv1d(Conv):
    """`Conv` over one axis: (N, C, L)."""

    rank = 1


class Conv2d(Conv):
    """`Conv` over two axes: (N, C, H, W)."""

    rank = 2


class Conv3d(Conv):
    """`Conv` over three axes: (N, C, D, H, W)."""

    rank = 3


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ConvTranspose(_Convolution):
    """Transposed convolution: the gradient of a convolution with respect to its input, as a layer.

    (N, in_channels, *sizes) -> (N, out_channels, *sizes). Fields as PyTorch's ConvTranspose1d, 2d, 3d. In place of
    output_padding the `output_size` wanted may be given; the output_padding that reaches it is then found from the
    input.

    >>> ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1).infer((1, 8, 8, 8))
    ((1, 4, 16, 16),)
    """

    kind = "convt"
    output_padding: tuple[int, ...]
    output_size: tuple[int, ...] | None

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: Sizes = 1,
        stride: Sizes = 1,
        padding: Sizes | Pairs = 0,
        output_padding: Sizes = 0,
        groups: int | str = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        output_size: Sizes | None = None,
    ) -> None:
        rank = self.rank or 0
        self._channels(in_channels, out_channels, groups)
        self._set(
            kernel_size=spatial(rank, "kernel_size", kernel_size),
            stride=spatial(rank, "stride", stride),
            padding=pairs(rank, "padding", padding),
            output_padding=spatial(rank, "output_padding", output_padding, 0),
            dilation=spatial(rank, "dilation", dilation),
            bias=flag("bias", bias),
            padding_mode=choice("padding_mode", padding_mode, ("zeros",)),
            output_size=None if output_size is None else spatial(rank, "output_size", output_size),
        )

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, out_channels, *sizes). Raises `ShapeError` when nothing is left, or output_size is out of reach."""
        batch, _, sizes = spatial_input(self, inputs[0])
        extra = self.output_paddings(sizes)
        for axis, (extra_here, stride, dilation) in enumerate(zip(extra, self.stride, self.dilation, strict=True)):
            if extra_here >= max(stride, dilation):
                raise ShapeError(
                    f"output_padding {extra_here} must be smaller than the stride {stride} or the dilation {dilation}"
                    f" ({axis_name(len(sizes), axis)})",
                    field="output_padding",
                    value=extra_here,
                )
        output = self._sizes(sizes, extra)
        for axis, size in enumerate(output):
            if size < 1:
                raise ShapeError(
                    f"padding leaves an output of {size} ({axis_name(len(sizes), axis)}), but it must be at least 1",
                    field="padding",
                    value=self.padding,
                )
        return ((batch, self.bound[1], *output),)

    def warnings(self, *inputs: Shape) -> Sequence[str]:
        """Uneven overlap of the windows, which shows as a checkerboard, and outputs that none reaches."""
        for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True):
            if dilation == 1 and stride > kernel:
                return (
                    f"the stride {stride} is larger than the kernel_size {kernel}, so no window reaches some outputs",
                )
            if dilation == 1 and kernel % stride:
                return (
                    f"the stride {stride} does not divide the kernel_size {kernel}, so windows overlap unevenly,"
                    " which can show as a checkerboard",
                )
        return ()

    def _sizes(self, sizes: tuple[int, ...], extra: tuple[int, ...]) -> tuple[int, ...]:
        before, after = zip(*self.padding, strict=True)
        return per_axis(F.transposed_size, sizes, self.kernel_size, self.stride, before, after, self.dilation, extra)

    def output_paddings(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The output_padding of each axis, with the one found that an `output_size` needs for an input of these sizes.

        Raises `ShapeError` when it is out of reach.
        """
        if self.output_size is None:
            return self.output_padding
        least = self._sizes(sizes, (0,) * len(sizes))
        for axis, (wanted, low, stride) in enumerate(zip(self.output_size, least, self.stride, strict=True)):
            if not low <= wanted < low + stride:
                raise ShapeError(
                    f"output_size {wanted} is out of reach: {low} to {low + stride - 1} can be had"
                    f" ({axis_name(len(sizes), axis)})",
                    field="output_size",
                    value=wanted,
                )
        return tuple(wanted - low for wanted, low in zip(self.output_size, least, strict=True))

    def parameters(self) -> Mapping[str, Shape]:
        """weight (in_channels, out_channels / groups, *kernel_size) and bias (out_channels,)."""
        in_channels, out_channels, groups = self.bound
        weight = {"weight": (in_channels, out_channels // groups, *self.kernel_size)}
        return weight | {"bias": (out_channels,)} if self.bias else weight

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Every input element times every kernel element; the products are added up before the padding crops."""
        _, out_channels, groups = self.bound
        batch, in_channels, *sizes = inputs[0]
        macs = F.transposed_macs(batch, in_channels, tuple(sizes), out_channels, groups, self.kernel_size)
        touched = product(per_axis(F.reached, sizes, self.kernel_size, self.stride, self.dilation))
        additions = F.sum_additions(macs, batch * out_channels * touched)
        return Cost(macs, macs, F.biased_additions(additions, product(outputs[0])) if self.bias else additions)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The input's gradient is a convolution, cropped places included; the weight's a correlation."""
        in_channels, out_channels, groups = self.bound
        macs = self.cost(inputs, outputs).macs
        weights = F.conv_weights(out_channels, in_channels, groups, self.kernel_size)
        gradients = {
            "input": Cost(macs, macs, F.sum_additions(macs, product(inputs[0]))),
            "weight": Cost(macs, macs, F.sum_additions(macs, weights)),
        }
        if self.bias:
            gradients["bias"] = Cost(additions=F.sum_additions(product(outputs[0]), out_channels))
        return gradients


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` over one axis: (N, C, L)."""

    rank = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` over two axes: (N, C, H, W)."""

    rank = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` over three axes: (N, C, D, H, W)."""

    rank = 3


# --- padding --------------------------------------------------------------------------------------------------------


def _floor_first(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _ceil_first(total: int) -> tuple[int, int]:
    return total - total // 2, total // 2


_PADDING_SPLITS: dict[str, Any] = {
    "same_lower": _ceil_first,
    "causal": lambda total: (total, 0),
    "full": lambda total: (total, total),
}


def refuse_padding(padding_mode: str, pads: Pairs, sizes: tuple[int, ...]) -> None:
    """Reflected padding must be smaller than the input, circular padding at most as large."""
    if padding_mode not in ("reflect", "circular"):
        return
    for axis, (pair, size) in enumerate(zip(pads, sizes, strict=True)):
        if max(pair) > size - (padding_mode == "reflect"):
            limit = "smaller than" if padding_mode == "reflect" else "at most"
            raise ShapeError(
                f"{padding_mode} padding of {max(pair)} must be {limit} the input {size}"
                f" ({axis_name(len(sizes), axis)})",
                field="padding",
                value=max(pair),
            )


def refuse_large_kernel(
    sizes: tuple[int, ...], pads: Pairs, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> None:
    """A window must fit into the padded input."""
    for axis, (size, pair, kernel, spread) in enumerate(zip(sizes, pads, kernel_size, dilation, strict=True)):
        extent = F.kernel_extent(kernel, spread)
        if extent > size + sum(pair):
            raise large_kernel(kernel, spread, extent, size + sum(pair), axis_name(len(sizes), axis))
