"""ONNX's ops as layers: for each op a function from a node's attributes and input shapes to the layer that it is.

`OPS` is the table. A function gets a `Call` and gives a layer, which takes all inputs of the node, or a `Plan`, which
says which inputs are data and which are the layer's weights. What cannot be mapped raises `UnsupportedOpError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from convcalc import formulas as F
from convcalc.errors import ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers import FILE_LAYERS, LAYERS
from convcalc.layers.base import Layer, Pairs, Shape, shape_text
from convcalc.onnx.folding import Small, reshaped, squeezed, unsqueezed
from convcalc.onnx.tensors import DATA_TYPES, Tensor
from convcalc.tracing import ceil_div, floor, product


class Plan:
    """What a node becomes: its layer, the places of its inputs that are data, and those that are weights by name.

    `then` are layers that follow in a row; `dtypes` are the outputs' types where the layer's own rule does not hold.
    `lacking` says what its numbers hang on, where that is not known and its shapes do not.
    """

    __slots__ = ("data", "dtypes", "lacking", "layer", "then", "weights")

    def __init__(
        self,
        layer: Layer,
        data: Sequence[int] | None = None,
        weights: Mapping[str, int] | None = None,
        *,
        then: Sequence[Layer] = (),
        dtypes: Sequence[str] | None = None,
        lacking: str = "",
    ) -> None:
        self.layer = layer
        self.data = data
        self.weights = weights or {}
        self.then = then
        self.dtypes = dtypes
        self.lacking = lacking


class Call:
    """A node as its function sees it: attributes with their defaults, and the inputs' shapes and known values."""

    __slots__ = (
        "attributes", "constant", "dtypes", "inputs", "needed", "op", "opset", "outputs", "shapes", "small", "where",
    )  # fmt: skip

    def __init__(
        self,
        op: str,
        opset: int,
        where: str,
        attributes: Mapping[str, Any],
        inputs: Sequence[str],
        shapes: Sequence[Shape | None],
        dtypes: Sequence[str],
        outputs: Sequence[bool],
        small: Callable[[str], Small | None],
        needed: Callable[[str], Small | None],
        constant: Callable[[str], bool],
    ) -> None:
        self.op = op
        self.opset = opset
        self.where = where
        self.attributes = attributes
        self.inputs = inputs
        self.shapes = shapes
        self.dtypes = dtypes
        self.outputs = outputs
        self.small = small
        self.needed = needed
        self.constant = constant

    # --- attributes ---

    def _attribute(self, name: str, kind: type, what: str) -> Any:
        value = self.attributes.get(name)
        if value is not None and not isinstance(value, kind):
            raise ModelFileError(f"{self.where}: attribute {name} is no {what}")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is a whole number."""
        value = self._attribute(name, int, "whole number")
        return default if value is None else int(value)

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        value = self._attribute(name, float, "number")
        return default if value is None else shortest(value)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        value = self._attribute(name, bytes, "text")
        return default if value is None else value.decode("utf-8", "replace")

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is whole numbers, or None."""
        return self._listed(name, int)

    def numbers(self, name: str) -> list[float] | None:
        """An attribute that is numbers, or None."""
        found = self._listed(name, float)
        return None if found is None else [shortest(value) for value in found]

    def _listed(self, name: str, kind: type) -> list[Any] | None:
        value = self._attribute(name, list, "list")
        if value and set(map(type, value)) != {kind}:
            raise ModelFileError(f"{self.where}: attribute {name} is no list of {kind.__name__}s")
        return None if value is None else list(value)

    # --- inputs ---

    def has(self, place: int) -> bool:
        """Whether this input is given."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def shape(self, place: int = 0) -> Shape:
        """The shape of an input that must be there."""
        shape = self.shapes[place] if self.has(place) else None
        if shape is None:
            raise ModelFileError(f"{self.where}: input {place + 1} is missing")
        return shape

    def values(self, place: int, what: str) -> list[Any]:
        """The values of an input that must be known before the model runs."""
        self.shape(place)
        small = self.needed(self.inputs[place])
        if small is None:
            raise UnsupportedOpError(f"its {what} are computed while the model runs")
        return small.items

    def whole(self, place: int, what: str) -> list[int]:
        """The values of such an input that must be whole numbers."""
        found = self.values(place, what)
        if not all(isinstance(item, int) for item in found):
            raise ModelFileError(f"{self.where}: its {what} are no whole numbers")
        return found

    def either(self, name: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in old opsets and an input in new ones."""
        return self.whole(place, name) if self.has(place) else self.integers(name)

    def given(self) -> list[int]:
        """The places of all inputs that are given."""
        return self.given_of(*range(len(self.inputs)))

    def given_of(self, *places: int) -> list[int]:
        """Those of these places whose inputs are given."""
        return [place for place in places if self.has(place)]

    def refuse(self, what: str) -> NoReturn:
        """Say that this form of the op has no layer."""
        raise UnsupportedOpError(f"{self.op} {what}, which convcalc does not know")


def shortest(value: float) -> float:
    """The number of the fewest digits that is the same in float32, where that is what a file holds.

    >>> shortest(9.999999747378752e-06), shortest(1 / 3), shortest(6.0)
    (1e-05, 0.3333333333333333, 6.0)
    """
    stored = struct.pack("<f", value) if abs(value) < _LARGEST else b""
    if not stored or struct.unpack("<f", stored)[0] != value:
        return float(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == stored:
            return short
    return float(value)


_LARGEST = 3e38
"""Larger numbers stay as they are: of fewer digits they might not be in float32's range."""

Op = Callable[[Call], "Layer | Plan"]


def _class(kind: str, rank: int | None = None) -> Any:
    """The class of a kind, whose family is loaded now."""
    return (LAYERS.get(kind) or FILE_LAYERS[kind]).layer_class(rank)


def _as_pairs(numbers: Sequence[int]) -> Pairs:
    """ONNX's pads, all befores and then all afters, as pairs.

    >>> _as_pairs([1, 2, 3, 4])
    ((1, 3), (2, 4))
    """
    half = len(numbers) // 2
    return tuple(zip(numbers[:half], numbers[half:], strict=True))


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
        self.padding: Pairs = ((0, 0),) * rank if self.auto not in ("NOTSET", "") else _as_pairs(pads)
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
    layer: Layer = _class("conv", window.rank)(
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
    layer = _class("convt", window.rank)(
        weight[0], weight[1] * groups, window.kernel, window.stride, padding, tuple(extra), groups, call.has(2),
        window.dilation,
    )  # fmt: skip
    return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})


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
    layer = _class("maxpool", window.rank)(window.kernel, window.stride, 0, window.dilation, indices, ceil)
    return Plan(_widened(layer, padding))


def _average_pool(call: Call) -> Plan:
    window, ceil, padding = _pool(call)
    counted = bool(call.integer("count_include_pad"))
    if set(window.dilation) != {1}:
        geometry = (window.kernel, window.stride, padding, window.dilation)
        return Plan(_class("windowpool")("mean", *geometry, ceil, count_include_pad=counted))
    return Plan(_widened(_class("avgpool", window.rank)(window.kernel, window.stride, 0, ceil, counted), padding))


def _lp_pool(call: Call) -> Plan:
    window, ceil, padding = _pool(call)
    power = call.integer("p", 2)
    # PyTorch takes no absolute values, and scales the sum of a window that sticks out.
    same = power % 2 == 0 and not ceil
    if not same or set(window.dilation) != {1} or any(map(any, padding)) or window.rank > 2:
        return Plan(_class("windowpool")("lp", window.kernel, window.stride, padding, window.dilation, ceil, power))
    return Plan(_class("lppool", window.rank)(power, window.kernel, window.stride, ceil))


def _max_unpool(call: Call) -> Plan:
    window = _Window(call, call.integers("kernel_shape") or (), call.shape(0)[2:])
    size = tuple(call.whole(2, "output_shape"))[2:] if call.has(2) else None
    layer = _class("maxunpool", window.rank)(window.kernel, window.stride, window.padding, size)
    return Plan(layer, (0, 1))


# --- matrix products ------------------------------------------------------------------------------------------------


def _gemm(call: Call) -> Plan:
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    transa, transb = bool(call.integer("transA")), bool(call.integer("transB"))
    weight = call.shape(1)
    plain = alpha == beta == 1 and transb and not transa and call.constant(call.inputs[1]) and len(weight) == 2
    if plain and len(call.shape(0)) == 2 and (not call.has(2) or call.shape(2) == weight[:1]):
        layer = _class("linear")(weight[1], weight[0], call.has(2))
        return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})
    return Plan(_class("gemm")(alpha, beta, transa, transb))


def _matmul_integer(call: Call) -> Plan:
    if call.has(3) and not call.has(2):
        call.refuse("with a zero point for the second factor alone")
    return Plan(_class("matmul")(), call.given_of(0, 1, 2, 3), dtypes=("int32",))


def _qlinear_matmul(call: Call) -> Plan:
    return Plan(_class("matmul")(), (0, 3, 1, 2, 4, 5, 6, 7), dtypes=call.dtypes[7:8])


def _attention(call: Call) -> Plan:
    past = call.shape(4)[2] if call.has(4) else 0
    extra = ("key", "value", "scores")[: len(call.outputs) - 1]
    named = {3: "mask", 4: "past_key", 5: "past_value", 6: "lengths"}
    places = call.given_of(*named)
    causal = bool(call.integer("is_causal"))
    layer = _class("attention")(
        call.integer("q_num_heads") or None,
        call.integer("kv_num_heads") or None,
        past,
        call.has(3) or causal,
        extra,
        tuple(named[place] for place in places),
        causal,
        (call.integer("left_window_size", -1), call.integer("right_window_size", -1)),
        call.number("scale", 0.0) or None,
        call.number("softcap", 0.0),
        call.integer("qk_matmul_output_mode"),
    )
    return Plan(layer, (0, 1, 2, *places))


# --- norms ----------------------------------------------------------------------------------------------------------


def _batch_norm(call: Call) -> Plan:
    training = call.integer("training_mode") or any(call.outputs[1:])
    layer = (_class("batchnormtraining") if training else _batch_norm_class())(
        call.shape(1)[0], call.number("epsilon", 1e-5), round(1 - call.number("momentum", 0.9), 9)
    )
    return Plan(layer, (0,), {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})


def _batch_norm_class() -> Any:
    from convcalc.layers.norm import BatchNorm

    return BatchNorm


def _instance_norm(call: Call) -> Plan:
    from convcalc.layers.norm import InstanceNorm, InstanceNormOfOne

    cls = InstanceNormOfOne if product(call.shape(0)[2:]) == 1 else InstanceNorm
    layer = cls(call.shape(1)[0], call.number("epsilon", 1e-5), affine=True)
    return Plan(layer, (0,), {"weight": 1, "bias": 2})


def _layer_norm(call: Call) -> Plan:
    shape = call.shape(0)
    axis = _axis(call.integer("axis", -1), shape)
    kind = "layernormstatistics" if any(call.outputs[1:]) else "layernorm"
    layer = _class(kind)(shape[axis:], call.number("epsilon", 1e-5), True, call.has(2))
    return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})


def _rms_norm(call: Call) -> Plan:
    shape = call.shape(0)
    axis = _axis(call.integer("axis", -1), shape)
    return Plan(_class("rmsnorm")(shape[axis:], call.number("epsilon", 1e-5)), (0,), {"weight": 1})


def _group_norm(call: Call) -> Plan:
    from convcalc.layers.norm import GroupNorm, GroupNormOfOne

    groups = call.integer("num_groups", 1)
    cls = GroupNormOfOne if product(call.shape(0)) == groups else GroupNorm
    if call.opset < 21:
        # Before opset 21 there is a scale for each group, not for each channel.
        return Plan(cls(groups, None, call.number("epsilon", 1e-5), False))
    layer = cls(groups, call.shape(0)[1], call.number("epsilon", 1e-5))
    return Plan(layer, (0,), {"weight": 1, "bias": 2})


def _lrn(call: Call) -> Layer:
    layer: Layer = _class("localresponsenorm")(
        call.integer("size", 1), call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    )
    return layer


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < max(len(shape), 1):
        raise ShapeError(f"axis is {axis}, but the input {shape_text(shape)} has {len(shape)} axes", field="axis")
    return axis % max(len(shape), 1)


# --- activations ----------------------------------------------------------------------------------------------------


def _plain(kind: str, *fields: Any) -> Op:
    """An op that is a layer without attributes."""
    return lambda _: _class(kind)(*fields)


def _elu(call: Call) -> Layer:
    layer: Layer = _class("elu")(call.number("alpha", 1.0))
    return layer


def _celu(call: Call) -> Layer:
    layer: Layer = _class("celu")(call.number("alpha", 1.0))
    return layer


def _leaky_relu(call: Call) -> Layer:
    layer: Layer = _class("leakyrelu")(call.number("alpha", 0.01))
    return layer


def _thresholded_relu(call: Call) -> Layer:
    layer: Layer = _class("threshold")(call.number("alpha", 1.0), 0.0)
    return layer


def _selu(call: Call) -> Layer:
    if (
        abs(call.number("alpha", 1.67326319) - 1.6732632) > 1e-4
        or abs(call.number("gamma", 1.0507010) - 1.050701) > 1e-4
    ):
        call.refuse("with numbers of its own")
    layer: Layer = _class("selu")()
    return layer


def _hard_sigmoid(call: Call) -> Layer:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    exact = abs(alpha - 1 / 6) < 1e-4 and beta == 0.5
    layer: Layer = _class("hardsigmoid")() if exact else _class("onnxhardsigmoid")(alpha, beta)
    return layer


def _gelu(call: Call) -> Layer:
    layer: Layer = _class("gelu")(call.text("approximate", "none"))
    return layer


def _swish(call: Call) -> Layer:
    if call.number("alpha", 1.0) != 1:
        call.refuse("with alpha")
    layer: Layer = _class("silu")()
    return layer


def _prelu(call: Call) -> Plan:
    shape, slope = call.shape(0), call.shape(1)
    whole = (1,) * (len(shape) - len(slope)) + slope
    if call.constant(call.inputs[1]) and len(shape) > 1 and product(whole) in (1, whole[1]):
        return Plan(_class("prelu")(product(whole)), (0,), {"weight": 1})
    return Plan(_class("combine")("prelu"), (0, 1))


def _clip(call: Call) -> Plan:
    if any(call.has(place) and call.small(call.inputs[place]) is None for place in (1, 2)):
        given = call.given()
        return Plan(_class("combine")("clip" if len(given) > 2 else "max" if 1 in given else "min"))
    limits: list[Any] = []
    for place, name in ((1, "min"), (2, "max")):
        if call.has(place):
            limit = call.values(place, "limits")[0]
            limits.append(shortest(limit) if isinstance(limit, float) else limit)
        else:
            limits.append(call.number(name, 0.0) if name in call.attributes else None)
    low, high = limits
    if (low, high) == (0.0, 6.0):
        return Plan(_class("relu6")(), (0,))
    return Plan(_class("clip")(low, high), (0,))


def _softmax(call: Call) -> Layer | Plan:
    kind = {"Softmax": "softmax", "LogSoftmax": "logsoftmax"}[call.op]
    shape = call.shape(0)
    axis = _axis(call.integer("axis", -1 if call.opset >= 13 else 1), shape)
    if call.opset >= 13 or axis == len(shape) - 1:
        return Plan(_class(kind)(axis))
    # Before opset 13 all axes from this one on are taken together.
    flat = (int(product(shape[:axis])), int(product(shape[axis:])))
    return Plan(_class("shaped")(flat), then=(_class(kind)(1), _class("shaped")(shape)))


def _dropout(call: Call) -> Plan:
    ratio = call.values(1, "ratio")[0] if call.has(1) and call.small(call.inputs[1]) else call.number("ratio", 0.5)
    return Plan(_class("dropoutmask" if any(call.outputs[1:]) else "dropout")(shortest(ratio)), (0,))


# --- element by element ---------------------------------------------------------------------------------------------


def _function(name: str) -> Op:
    return lambda _: Plan(_class("function")(name))


def _combine(name: str) -> Op:
    return lambda _: Plan(_class("combine")(name))


def _where(call: Call) -> Plan:
    return Plan(_class("combine")("where"), dtypes=call.dtypes[1:2])


def _trilu(call: Call) -> Plan:
    return Plan(_class("function")("trilu"))


def _cast(call: Call) -> Plan:
    name = DATA_TYPES.get(call.integer("to"), ("undefined", 0))[0] if call.op == "Cast" else call.dtypes[1]
    saturate, rounding = bool(call.integer("saturate", 1)), call.text("round_mode", "up")
    return Plan(_class("cast")(name, saturate, rounding), (0,))


def _bit_cast(call: Call) -> Plan:
    name, bits = DATA_TYPES.get(call.integer("to"), ("undefined", 0))
    if bits != dict(DATA_TYPES.values()).get(call.dtypes[0]):
        call.refuse(f"of {call.dtypes[0]} to {name}")
    return Plan(_class("cast")(name))


def _quantize(call: Call) -> Plan:
    dtype = call.dtypes[2] if call.has(2) else DATA_TYPES.get(call.integer("output_dtype", 2), ("uint8", 8))[0]
    return _quantized(call, dtype, back=False)


def _dequantize(call: Call) -> Plan:
    kind = call.integer("output_dtype")
    return _quantized(call, DATA_TYPES[kind][0] if kind in DATA_TYPES else call.dtypes[1], back=True)


def _quantized(call: Call, dtype: str, *, back: bool) -> Plan:
    return Plan(_class("quantize")(dtype, back, call.integer("axis", 1), call.integer("block_size")))


def _join(kind: str) -> Op:
    """Sum, and joins that ONNX allows of a single tensor."""

    def op(call: Call) -> Layer:
        layer: Layer = _class(kind)() if len(call.given()) > 1 else _class("identity")()
        return layer

    return op


# --- shapes ---------------------------------------------------------------------------------------------------------


def _shaped(shape: Shape) -> Plan:
    return Plan(_class("shaped")(shape), (0,))


def _flatten(call: Call) -> Plan:
    shape, axis = call.shape(0), call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ShapeError(f"axis is {axis}, but the input {shape_text(shape)} has {len(shape)} axes", field="axis")
    axis = axis + len(shape) if axis < 0 else axis
    if axis == 1 and len(shape) > 1:
        return Plan(_class("flatten")())
    return _shaped((int(product(shape[:axis])), int(product(shape[axis:]))))


def _reshape(call: Call) -> Plan:
    wanted = call.whole(1, "new sizes")
    return _shaped(reshaped(call.shape(0), wanted, allow_zero=bool(call.integer("allowzero"))))


def _squeeze(call: Call) -> Plan:
    return _shaped(squeezed(call.shape(0), call.either("axes", 1)))


def _unsqueeze(call: Call) -> Plan:
    return _shaped(unsqueezed(call.shape(0), call.either("axes", 1) or []))


def _transpose(call: Call) -> Layer:
    rank = len(call.shape(0))
    layer: Layer = _class("permute")(tuple(call.integers("perm") or range(rank)[::-1]))
    return layer


def _concat(call: Call) -> Plan:
    if len(call.given()) == 1:
        return Plan(_class("identity")())
    return Plan(_class("concat")(call.integer("axis")))


def _split(call: Call) -> Plan:
    shape = call.shape(0)
    axis = _axis(call.integer("axis"), shape)
    sizes = call.either("split", 1)
    if sizes is None:
        count = len(call.outputs)
        each = ceil_div(shape[axis], count)
        sizes = [max(min(each, shape[axis] - part * each), 0) for part in range(count)]
    return Plan(_class("split")(tuple(sizes), axis), (0,))


def _slice(call: Call) -> Plan:
    shape = call.shape(0)
    if call.opset < 10:
        starts, ends, axes, steps = call.integers("starts"), call.integers("ends"), call.integers("axes"), None
    else:
        starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
        axes = call.whole(3, "axes") if call.has(3) else None
        steps = call.whole(4, "steps") if call.has(4) else None
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    # Exporters write the largest number there is for "to the end".
    ends = [min(end, shape[_axis(axis, shape)]) for end, axis in zip(ends, axes, strict=False)]
    return Plan(_class("slice")(tuple(starts), tuple(ends), tuple(_axis(axis, shape) for axis in axes),
                                tuple(steps or [1] * len(starts))), (0,))  # fmt: skip


def _gather(kind: str) -> Op:
    return lambda call: _class(kind)(call.integer("axis"))


def _gather_nd(call: Call) -> Layer:
    layer: Layer = _class("gathernd")(call.integer("batch_dims"))
    return layer


def _scatter(call: Call) -> Layer:
    dim = None if call.op == "ScatterND" else call.integer("axis")
    layer: Layer = _class("scatter")(dim, call.text("reduction", "none"))
    return layer


def _col2im(call: Call) -> Plan:
    sizes, kernel = call.values(1, "image_shape"), call.values(2, "block_shape")
    if len(sizes) != 2:
        call.refuse(f"over {len(sizes)} axes")
    pads = _as_pairs(call.integers("pads") or [0] * 4)
    fields = (call.integers("dilations") or (1, 1), pads, call.integers("strides") or (1, 1))
    return Plan(_class("fold")(tuple(sizes), tuple(kernel), *fields), (0,))


def _expand(call: Call) -> Plan:
    return Plan(_class("expand")(tuple(call.whole(1, "sizes"))), (0,))


def _tile(call: Call) -> Plan:
    return Plan(_class("tile")(tuple(call.whole(1, "repeats"))), (0,))


def _constant_of_shape(call: Call) -> Plan:
    value = call.attributes.get("value")
    dtype = value.dtype if isinstance(value, Tensor) else "float32"
    numbers = value.numbers() if isinstance(value, Tensor) else None
    return Plan(_class("fill")(tuple(call.whole(0, "sizes")), dtype, numbers[0] if numbers else 0.0), ())


def _pad(call: Call) -> Plan:
    shape, mode = call.shape(0), call.text("mode", "constant")
    pads = call.either("pads", 1) or []
    rank = len(shape)
    axes = [_axis(axis, shape) for axis in call.whole(3, "axes")] if call.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise ModelFileError(f"{call.where}: {len(pads)} numbers of padding for {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for axis, pair in zip(axes, _as_pairs(pads), strict=True):
        pairs[axis] = pair
    value = call.number("value", 0.0)
    known = call.needed(call.inputs[2]) if call.has(2) else None
    lacking = "its value is computed while the model runs" if call.has(2) and known is None else ""
    if known is not None:
        value = shortest(float(known.items[0]))
    name = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    if rank in (3, 4, 5) and pairs[:2] == [(0, 0), (0, 0)]:
        return Plan(_class("pad", rank - 2)(tuple(pairs[2:]), name, value), (0,), lacking=lacking)
    return Plan(_class("padaxes")(tuple(pairs), name, value), (0,), lacking=lacking)


def _resize(call: Call) -> Plan:
    shape = call.shape(0)
    mode = call.text("mode", "nearest")
    scales, sizes = _scales(call)
    axes = [_axis(axis, shape) for axis in call.integers("axes") or range(len(shape))]
    output = list(shape)
    part: dict[int, tuple[float, float]] = {}
    if call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        region = call.values(1, "region")
        part = dict(zip(axes, zip(region[: len(axes)], region[len(axes) :], strict=True), strict=True))
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if sizes is not None:
        if policy != "stretch":
            pick = min if policy == "not_larger" else max
            scale = pick(size / shape[axis] for axis, size in zip(axes, sizes, strict=True))
            scales = [scale] * len(axes)
            sizes = [floor(scale * shape[axis] + 0.5) for axis in axes]
        for axis, size in zip(axes, sizes, strict=True):
            output[axis] = size
    elif scales is not None:
        for axis, scale in zip(axes, scales, strict=True):
            start, end = part.get(axis, (0.0, 1.0))
            output[axis] = floor(shape[axis] * (end - start) * scale)
    else:
        raise ModelFileError(f"{call.where}: neither sizes nor scales are given")
    upsampled = _upsampled(call, mode, output, scales if sizes is None else None)
    if upsampled is not None:
        return Plan(upsampled, (0,))
    factors = None
    if sizes is None or policy != "stretch":
        factors = [1.0] * len(shape)
        for axis, scale in zip(axes, scales or (), strict=True):
            factors[axis] = scale
    old = call.op == "Upsample" or call.opset < 11
    layer = _class("resize")(
        tuple(output),
        {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel"),
        "floor" if old else call.text("nearest_mode", "round_prefer_floor"),
        None if factors is None else tuple(factors),
        bool(call.integer("antialias")),
        bool(call.integer("exclude_outside")),
        call.number("cubic_coeff_a", -0.75),
        tuple(part.get(axis, (0.0, 1.0)) for axis in range(len(shape))) if part else None,
        call.number("extrapolation_value", 0.0),
    )
    return Plan(layer, (0,))


def _upsampled(call: Call, mode: str, output: Sequence[int], scales: Sequence[float] | None) -> Layer | None:
    """PyTorch's layer for a resize of spatial axes that finds its places as PyTorch does."""
    shape = call.shape(0)
    rank = len(shape) - 2
    if rank not in (1, 2, 3) or tuple(output[:2]) != shape[:2] or call.integers("axes"):
        return None
    old = call.op == "Upsample" or call.opset < 11
    where = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    names = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}
    if mode == "nearest" and where == "asymmetric" and (old or call.text("nearest_mode", "") == "floor"):
        name, corners = "nearest", None
    elif mode in names and names[mode][rank - 1] and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name, corners = names[mode][rank - 1], where == "align_corners"
        own = call.integer("exclude_outside") or call.number("cubic_coeff_a", -0.75) != -0.75
        if call.integer("antialias") or (mode == "cubic" and own):
            return None
        # PyTorch has no rule of its own for a single output element, nor for corners at a given scale.
        if (where == "pytorch_half_pixel" and 1 in output[2:]) or (corners and scales is not None):
            return None
    else:
        return None
    size = None if scales is not None else tuple(output[2:])
    layer: Layer = _class("upsample")(size, None if scales is None else tuple(scales[2:]), name, corners)
    return layer


def _scales(call: Call) -> tuple[list[float] | None, list[int] | None]:
    """What Upsample and Resize take their sizes from, wherever their opset has it."""
    if call.op == "Upsample" or call.opset < 11:
        place = 1
        return (_factors(call, place) if call.has(place) else call.numbers("scales")), None
    if call.has(3):
        return None, call.whole(3, "sizes")
    return (_factors(call, 2) if call.has(2) else None), None


def _factors(call: Call, place: int) -> list[float]:
    """Scales as they were meant: 5 elements by 2.6 are 13, by the float32 next to 2.6 they would be 12."""
    return [shortest(scale) for scale in call.values(place, "scales")]


def _depth_to_space(call: Call) -> Layer:
    layer: Layer = _class("depthtospace")(call.integer("blocksize"), call.text("mode", "DCR"))
    return layer


def _space_to_depth(call: Call) -> Layer:
    layer: Layer = _class("spacetodepth")(call.integer("blocksize"), call.text("mode", "DCR"))
    return layer


# --- between pixels ---------------------------------------------------------------------------------------------------


def _grid_sample(call: Call) -> Layer:
    mode = call.text("mode", "linear")
    layer: Layer = _class("gridsample")(
        {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        call.text("padding_mode", "zeros"),
        bool(call.integer("align_corners")),
    )
    return layer


def _roi_align(call: Call) -> Layer:
    usual = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    layer: Layer = _class("roialign")(
        (call.integer("output_height", 1), call.integer("output_width", 1)),
        call.number("spatial_scale", 1.0),
        call.integer("sampling_ratio"),
        call.text("coordinate_transformation_mode", usual) == "half_pixel",
        call.text("mode", "avg"),
    )
    return layer


def _deform_conv(call: Call) -> Plan:
    weight = call.shape(1)
    window = _Window(call, call.integers("kernel_shape") or weight[2:], call.shape(0)[2:])
    groups = call.integer("group", 1)
    layer = _class("deformconv")(
        weight[1] * groups, weight[0], window.kernel, window.stride, window.padding, window.dilation, groups,
        call.integer("offset_group", 1), call.has(3), call.has(4),
    )  # fmt: skip
    return Plan(layer, call.given_of(0, 2, 4), {"weight": 1, "bias": 3} if call.has(3) else {"weight": 1})


# --- reductions and the rest ----------------------------------------------------------------------------------------


def _reduce(name: str) -> Op:
    def op(call: Call) -> Plan:
        axes = call.either("axes", 1)
        if not axes and call.integer("noop_with_empty_axes"):
            return Plan(_class("identity")(), (0,))
        dims = tuple(axes) if axes else None
        return Plan(_class("reduce")(name, dims, bool(call.integer("keepdims", 1))), (0,))

    return op


def _arg(name: str) -> Op:
    return lambda call: _class("reduce")(name, (call.integer("axis"),), bool(call.integer("keepdims", 1)))


def _top_k(call: Call) -> Plan:
    k = call.whole(1, "k")[0] if call.has(1) else call.integer("k")
    return Plan(_class("topk")(k, call.integer("axis", -1), bool(call.integer("largest", 1))), (0,))


def _cumulate(name: str) -> Op:
    return lambda call: Plan(_class("cumulate")(call.whole(1, "axis")[0], name), (0,))


def _einsum(call: Call) -> Layer:
    layer: Layer = _class("einsum")(call.text("equation", ""))
    return layer


RECURRENT = {"LSTM": "onnxlstm", "GRU": "onnxgru", "RNN": "onnxrnn"}


def _recurrent(kind: str) -> Op:
    def op(call: Call) -> Plan:
        weight = call.shape(1)
        direction = call.text("direction", "forward")
        fields: dict[str, Any] = {}
        if kind == "onnxlstm":
            fields = {"peepholes": call.has(7), "input_forget": bool(call.integer("input_forget"))}
        elif kind == "onnxgru":
            fields = {"linear_before_reset": bool(call.integer("linear_before_reset"))}
        places = call.given_of(4, 5, 6)
        layer = _class(kind)(
            weight[-1],
            call.integer("hidden_size") or call.shape(2)[-1],
            2 if direction == "bidirectional" else 1,
            call.has(3),
            bool(call.integer("layout")),
            direction == "reverse",
            _activations(call),
            call.number("clip", 0.0) or None,
            tuple(("sequence_lens", "initial_h", "initial_c")[place - 4] for place in places),
            **fields,
        )
        names = {"weight_ih": 1, "weight_hh": 2, "bias": 3, "peephole": 7}
        return Plan(layer, (0, *places), {name: place for name, place in names.items() if call.has(place)})

    return op


_ALPHA_BETA: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0), "elu": (1.0, None), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0), "thresholdedrelu": (1.0, None),
}  # fmt: skip
"""The defaults of the activations that have an alpha, or both; the others have neither."""


def _activations(call: Call) -> tuple[tuple[str, float, float], ...]:
    """A recurrent layer's activations; those that have an alpha or a beta take theirs from the lists in turn."""
    names = call.attributes.get("activations") or ()
    alphas, betas = (iter(call.numbers(name) or ()) for name in ("activation_alpha", "activation_beta"))
    found = []
    for name in names:
        word = name.decode("utf-8", "replace").lower() if isinstance(name, bytes) else ""
        alpha, beta = _ALPHA_BETA.get(word, (None, None))
        found.append((word, 0.0 if alpha is None else next(alphas, alpha), 0.0 if beta is None else next(betas, beta)))
    return tuple(found)


_FUNCTIONS = {name: name.lower() for name in (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Hardmax",
    "IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Round", "Shrink", "Sign", "Sin", "Sinh", "Sqrt", "Tan",
)} | {"BitwiseNot": "bit_not"}  # fmt: skip
_COMBINATIONS = {
    "Sub": "sub", "Div": "div", "Pow": "pow", "Mod": "mod", "Max": "max", "Min": "min", "Mean": "mean",
    "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less",
    "LessOrEqual": "less_equal", "And": "and", "Or": "or", "Xor": "xor", "BitwiseAnd": "bit_and",
    "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor", "BitShift": "bit_shift",
}  # fmt: skip
_REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceLogSum": "logsum", "ReduceLogSumExp": "logsumexp",
    "ReduceSumSquare": "sumsquare",
}  # fmt: skip

OPS: dict[str, Op] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "ConvInteger": _conv_integer, "QLinearConv": _qlinear_conv,
    "MaxPool": _max_pool, "AveragePool": _average_pool, "LpPool": _lp_pool, "MaxUnpool": _max_unpool,
    "GlobalAveragePool": _plain("globalavgpool"), "GlobalMaxPool": _plain("globalmaxpool"),
    "Gemm": _gemm, "MatMul": _plain("matmul"), "MatMulInteger": _matmul_integer, "QLinearMatMul": _qlinear_matmul,
    "Einsum": _einsum, "Attention": _attention,
    **{op: _recurrent(kind) for op, kind in RECURRENT.items()},
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm, "RMSNormalization": _rms_norm, "LRN": _lrn,
    "Relu": _plain("relu"), "Sigmoid": _plain("sigmoid"), "Tanh": _plain("tanh"), "Softplus": _plain("softplus"),
    "Softsign": _plain("softsign"), "Mish": _plain("mish"), "HardSwish": _plain("hardswish"), "Elu": _elu,
    "Celu": _celu, "Selu": _selu, "LeakyRelu": _leaky_relu, "ThresholdedRelu": _thresholded_relu, "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid, "Swish": _swish, "PRelu": _prelu, "Clip": _clip, "Softmax": _softmax,
    "LogSoftmax": _softmax, "Dropout": _dropout,
    "Add": _plain("add"), "Mul": _plain("mul"), "Sum": _join("add"), "Concat": _concat, "Where": _where,
    "Trilu": _trilu,
    "Cast": _cast, "CastLike": _cast, "BitCast": _bit_cast, "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Identity": _plain("identity"), "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Split": _split, "Slice": _slice, "Gather": _gather("gather"),
    "GatherElements": _gather("gatherelements"), "GatherND": _gather_nd, "Scatter": _scatter,
    "ScatterElements": _scatter, "ScatterND": _scatter, "Expand": _expand, "Tile": _tile,
    "ConstantOfShape": _constant_of_shape, "Col2Im": _col2im, "Pad": _pad, "Resize": _resize, "Upsample": _resize,
    "GridSample": _grid_sample, "RoiAlign": _roi_align, "DeformConv": _deform_conv,
    "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth,
    "ArgMax": _arg("argmax"), "ArgMin": _arg("argmin"), "TopK": _top_k, "CumSum": _cumulate("sum"),
    "CumProd": _cumulate("prod"),
    **{op: _function(name) for op, name in _FUNCTIONS.items()},
    **{op: _combine(name) for op, name in _COMBINATIONS.items()},
    **{op: _reduce(name) for op, name in _REDUCTIONS.items()},
}  # fmt: skip
"""Every op of ONNX's own domain that is a layer here."""
