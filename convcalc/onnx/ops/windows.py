"""ONNX's ops that move a window: convolutions, pools, and their converses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convcalc import formulas as F
from convcalc.errors import ModelFileError, ShapeError
from convcalc.layers.base import Layer, Pairs, Shape, shape_text
from convcalc.onnx.ops.calls import Call, Op, Plan, as_pairs, class_of, plain


class _Window:
    """The attributes of everything that moves a window."""

    def __init__(self, call: Call, kernel: Sequence[int], sizes: Shape) -> None:
        rank = len(sizes)
        if rank not in (1, 2, 3):
            call.refuse(f"over {rank} spatial axes")
        self.rank = rank
        self.kernel = tuple(kernel)
        self.stride = self._axes(call, "strides")
        self.dilation = self._axes(call, "dilations")
        self.auto = call.text("auto_pad", "NOTSET")
        pads = call.integers("pads") or [0] * (2 * rank)
        if len(self.kernel) != rank or len(pads) != 2 * rank:
            raise ModelFileError(f"{call.where}: kernel_shape and pads must be for {rank} axes")
        if self.auto not in ("NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise ModelFileError(f"{call.where}: auto_pad is {self.auto}, which does not exist")
        self.padding: Pairs = ((0, 0),) * rank if self.auto not in ("NOTSET", "") else as_pairs(pads)
        self.same = self.auto.startswith("SAME")
        if min([*self.kernel, *self.stride, *self.dilation]) < 1:
            raise ModelFileError(f"{call.where}: kernel, strides and dilations must be at least 1")

    def _axes(self, call: Call, name: str) -> tuple[int, ...]:
        found = tuple(call.integers(name) or (1,) * self.rank)
        if len(found) != self.rank:
            raise ModelFileError(f"{call.where}: {name} must be for {self.rank} axes")
        return found

    def split(self, totals: Sequence[int]) -> Pairs:
        """Padding in all as pairs; SAME_LOWER puts the odd one before."""
        odd = self.auto == "SAME_LOWER"
        return tuple((total // 2 + (total % 2 and odd), total // 2 + (total % 2 and not odd)) for total in totals)

    def pads(self, sizes: Shape) -> Pairs:
        """The pairs, with SAME worked out for an input of these sizes."""
        if not self.same:
            return self.padding
        return self.split([
            F.same_padding_strided(*axis) for axis in zip(sizes, self.kernel, self.stride, self.dilation, strict=True)
        ])  # fmt: skip


# --- convolution ----------------------------------------------------------------------------------------------------


def _conv_layer(call: Call, weight: Shape, *, bias: bool) -> Layer:
    window = _Window(call, call.integers("kernel_shape") or weight[2:], call.shape(0)[2:])
    groups = call.integer("group", 1)
    if window.kernel != weight[2:]:
        raise ShapeError(f"kernel_shape is {shape_text(window.kernel)}, but the weight is {shape_text(weight)}")
    layer: Layer = class_of("conv", window.rank)(
        weight[1] * groups, weight[0], window.kernel, window.stride,
        window.auto.lower() if window.same else window.padding, window.dilation, groups, bias,
    )  # fmt: skip
    return layer


def _conv(call: Call) -> Plan:
    layer = _conv_layer(call, call.shape(1), bias=call.has(2))
    return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})


def _conv_integer(call: Call) -> Plan:
    if call.has(3) and not call.has(2):
        call.refuse("with a zero point for the weights alone")
    layer = _conv_layer(call, call.shape(1), bias=False)
    return Plan(layer, call.given_of(0, 2, 3), {"weight": 1}, dtypes=("int32",))


def _qlinear_conv(call: Call) -> Plan:
    weights = {"weight": 3, "bias": 8} if call.has(8) else {"weight": 3}
    layer = _conv_layer(call, call.shape(3), bias=call.has(8))
    return Plan(layer, (0, 1, 2, 4, 5, 6, 7), weights, dtypes=call.dtypes[7:8])


def _conv_transpose(call: Call) -> Plan:
    weight, sizes = call.shape(1), call.shape(0)[2:]
    window = _Window(call, call.integers("kernel_shape") or weight[2:], sizes)
    groups = call.integer("group", 1)
    extra = list(call.integers("output_padding") or (0,) * window.rank)
    wanted = call.integers("output_shape")
    if wanted is None and window.same:
        wanted = [size * stride for size, stride in zip(sizes, window.stride, strict=True)]
    padding = window.padding
    if wanted is not None:
        # What ONNX leaves to output_shape: padding that crops to it, or more output where there is too little.
        full = [F.transposed_size(size, kernel, stride, 0, 0, dilation, more) for size, kernel, stride, dilation, more
                in zip(sizes, window.kernel, window.stride, window.dilation, extra, strict=True)]  # fmt: skip
        totals = [size - want for size, want in zip(full, wanted[-window.rank :], strict=True)]
        extra = [more + max(-total, 0) for more, total in zip(extra, totals, strict=True)]
        padding = window.split([max(total, 0) for total in totals])
        if window.auto != "SAME_UPPER":
            padding = tuple((after, before) if window.auto != "SAME_LOWER" else (before, after)
                            for before, after in padding)  # fmt: skip
    layer = class_of("convt", window.rank)(
        weight[0], weight[1] * groups, window.kernel, window.stride, padding, tuple(extra), groups, call.has(2),
        window.dilation,
    )  # fmt: skip
    return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})


def _deform_conv(call: Call) -> Plan:
    weight = call.shape(1)
    window = _Window(call, call.integers("kernel_shape") or weight[2:], call.shape(0)[2:])
    groups = call.integer("group", 1)
    layer = class_of("deformconv")(
        weight[1] * groups, weight[0], window.kernel, window.stride, window.padding, window.dilation, groups,
        call.integer("offset_group", 1), call.has(3), call.has(4),
    )  # fmt: skip
    return Plan(layer, call.given_of(0, 2, 4), {"weight": 1, "bias": 3} if call.has(3) else {"weight": 1})


# --- pooling --------------------------------------------------------------------------------------------------------


def _widened(layer: Any, padding: Pairs) -> Layer:
    """A pool with padding of any width; PyTorch's classes, and so ours, refuse more than half a window.

    Nor has ONNX PyTorch's limit on averages over three axes.
    """
    layer._set(padding=padding, fits_unpadded=False)
    found: Layer = layer
    return found


def _pool(call: Call) -> tuple[_Window, bool, Pairs]:
    sizes = call.shape(0)[2:]
    window = _Window(call, call.integers("kernel_shape") or (), sizes)
    # With auto_pad rounding up and down give the same.
    ceil = bool(call.integer("ceil_mode")) and window.auto in ("NOTSET", "")
    return window, ceil, window.pads(sizes)


def _max_pool(call: Call) -> Plan:
    window, ceil, padding = _pool(call)
    indices = len(call.outputs) > 1 and call.outputs[1]
    layer = class_of("maxpool", window.rank)(window.kernel, window.stride, 0, window.dilation, indices, ceil)
    return Plan(_widened(layer, padding))


def _average_pool(call: Call) -> Plan:
    window, ceil, padding = _pool(call)
    counted = bool(call.integer("count_include_pad"))
    if set(window.dilation) != {1}:
        geometry = (window.kernel, window.stride, padding, window.dilation)
        return Plan(class_of("windowpool")("mean", *geometry, ceil, count_include_pad=counted))
    return Plan(_widened(class_of("avgpool", window.rank)(window.kernel, window.stride, 0, ceil, counted), padding))


def _lp_pool(call: Call) -> Plan:
    window, ceil, padding = _pool(call)
    power = call.integer("p", 2)
    # PyTorch takes no absolute values, and scales the sum of a window that sticks out.
    same = power % 2 == 0 and not ceil
    if not same or set(window.dilation) != {1} or any(map(any, padding)) or window.rank > 2:
        return Plan(class_of("windowpool")("lp", window.kernel, window.stride, padding, window.dilation, ceil, power))
    return Plan(class_of("lppool", window.rank)(power, window.kernel, window.stride, ceil))


def _max_unpool(call: Call) -> Plan:
    window = _Window(call, call.integers("kernel_shape") or (), call.shape(0)[2:])
    size = tuple(call.whole(2, "output_shape"))[2:] if call.has(2) else None
    layer = class_of("maxunpool", window.rank)(window.kernel, window.stride, window.padding, size)
    return Plan(layer, (0, 1))


def _col2im(call: Call) -> Plan:
    from convcalc.layers.unfold import Fold, FoldAxes

    sizes, kernel = call.whole(1, "image_shape"), call.whole(2, "block_shape")
    rank = len(sizes)
    pads = as_pairs(call.integers("pads") or [0] * 2 * rank)
    fields = (call.integers("dilations") or (1,) * rank, pads, call.integers("strides") or (1,) * rank)
    return Plan((Fold if rank == 2 else FoldAxes)(sizes, kernel, *fields), (0,))


OPS: dict[str, Op] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "ConvInteger": _conv_integer, "QLinearConv": _qlinear_conv,
    "DeformConv": _deform_conv, "Col2Im": _col2im,
    "MaxPool": _max_pool, "AveragePool": _average_pool, "LpPool": _lp_pool, "MaxUnpool": _max_unpool,
    "GlobalAveragePool": plain("globalavgpool"), "GlobalMaxPool": plain("globalmaxpool"),
}  # fmt: skip
