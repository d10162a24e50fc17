"""ONNX's ops that are other ops put together: for each a function that writes them down as nodes.

`FUNCTIONS` is the table. What a node of such an op is in the network, and so what it costs and computes, are the layers
of its parts; they stand under the node's name. The table is asked for what `ops` has no layer for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from convcalc.errors import ModelFileError
from convcalc.layers.base import Shape, shape_text
from convcalc.onnx.known import MOST_ELEMENTS
from convcalc.onnx.ops.calls import Call
from convcalc.onnx.tensors import DATA_TYPES
from convcalc.onnx.writing import MadeNode

_NUMBERS = {name: number for number, (name, _) in DATA_TYPES.items()}


class Body:
    """The nodes that an op is made of. Its inputs are called in0, in1, ...; `results` are its outputs."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.nodes: list[MadeNode] = []
        self.results: list[str] = []

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The output of one more node."""
        output = f"t{len(self.nodes)}"
        self.nodes.append(MadeNode(op, inputs, [output], attributes))
        return output

    def parts(self, count: int, op: str, *inputs: str, **attributes: Any) -> list[str]:
        """The outputs of one more node that has several."""
        outputs = [f"t{len(self.nodes)}.{place}" for place in range(count)]
        self.nodes.append(MadeNode(op, inputs, outputs, attributes))
        return outputs

    def ints(self, *values: int) -> str:
        """Whole numbers along one axis."""
        return self("Constant", value_ints=list(values))

    def number(self, value: float, dtype: str) -> str:
        """One number of a type."""
        if dtype.startswith(("float", "bfloat")):
            made = self("Constant", value_float=float(value))
            return made if dtype == "float32" else self.cast(made, dtype)
        made = self("Constant", value_int=int(value))
        return made if dtype == "int64" else self.cast(made, dtype)

    def cast(self, name: str, dtype: str) -> str:
        """A tensor in another type."""
        return self("Cast", name, to=_NUMBERS[dtype])

    def counted(self, count: int, rank: int = 1, axis: int = 0) -> str:
        """0, 1, ... along one axis of so many."""
        numbers = self("Range", self.number(0, "int64"), self.number(count, "int64"), self.number(1, "int64"))
        return numbers if rank == 1 else self.along(numbers, rank, axis)

    def along(self, name: str, rank: int, axis: int) -> str:
        """A tensor of one axis, put along one of so many."""
        others = [place for place in range(rank) if place != axis % rank]
        return self("Unsqueeze", name, self.ints(*others)) if others else name

    def slice(self, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Part of an axis."""
        return self("Slice", name, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def gives(self, *results: str) -> Body:
        """This body, with its outputs."""
        self.results = list(results)
        return self


Made = Callable[[Call], Body]


# --- norms and activations ------------------------------------------------------------------------------------------


def _mean_variance_normalization(call: Call) -> Body:
    """(x - mean) / (deviation + 1e-9)."""
    body = Body(call)
    axes = body.ints(*(call.integers("axes") or [0, 2, 3]))
    centred = body("Sub", "in0", body("ReduceMean", "in0", axes))
    # ONNX writes the mean of squares less the square of the mean, which loses what is small beside the mean.
    deviation = body("Sqrt", body("ReduceMean", body("Mul", centred, centred), axes))
    return body.gives(body("Div", centred, body("Add", deviation, body.number(1e-9, call.dtypes[0]))))


def _lp_normalization(call: Call) -> Body:
    """x / (Σ |x|^p)^(1/p), and 0 where that is 0."""
    body = Body(call)
    power = call.integer("p", 2)
    if power not in (1, 2):
        raise ModelFileError(f"{call.where}: p is {power}, but must be 1 or 2")
    norm = body(f"ReduceL{power}", "in0", body.ints(call.integer("axis", -1)))
    nothing = body.number(0, call.dtypes[0])
    return body.gives(body("Where", body("Equal", norm, nothing), nothing, body("Div", "in0", norm)))


def _swish(call: Call) -> Body:
    body = Body(call)
    return body.gives(_swished(body, "in0", call.number("alpha", 1.0)))


def _swished(body: Body, name: str, alpha: float) -> str:
    """x·sigmoid(alpha·x)."""
    inner = name if alpha == 1 else body("Mul", name, body.number(alpha, body.call.dtypes[0]))
    return body("Mul", name, body("Sigmoid", inner))


def _swiglu(call: Call) -> Body:
    body = Body(call)
    return body.gives(body("Mul", _swished(body, "in0", call.number("alpha", 1.0)), "in1"))


def _selu(call: Call) -> Body:
    """gamma·elu(x), for numbers that are not PyTorch's."""
    alpha, gamma = call.number("alpha", 1.67326319217681884765625), call.number("gamma", 1.05070102214813232421875)
    body = Body(call)
    return body.gives(body("Mul", body("Elu", "in0", alpha=alpha), body.number(gamma, call.dtypes[0])))


def _causal_conv(call: Call) -> Body:
    """A depthwise convolution of what came before and x, and the last of that."""
    body = Body(call)
    shape, taps = call.shape(0), call.shape(1)[2]
    if call.has(3):
        padded = body("Concat", "in3", "in0", axis=2)
    else:
        padded = body("Pad", "in0", body.ints(0, 0, taps - 1, 0, 0, 0))
    bias = ["in2"] if call.has(2) else []
    found = body("Conv", padded, "in1", *bias, group=shape[1])
    if call.text("activation", "none") in ("silu", "swish"):
        found = _swished(body, found, 1.0)
    length = shape[2] + taps - 1
    return body.gives(found, body.slice(padded, 2, length - taps + 1, length))


def _rotary_embedding(call: Call) -> Body:
    """Pairs of features turned by the angle of their place: (cos·a - sin·b, sin·a + cos·b)."""
    body = Body(call)
    shape, x = call.shape(0), "in0"
    if len(shape) == 3:
        heads = call.integer("num_heads")
        x = body("Reshape", x, body.ints(0, 0, heads, shape[2] // max(heads, 1)))
        size = shape[2] // max(heads, 1)
    else:
        x = body("Transpose", x, perm=[0, 2, 1, 3])
        size = shape[3]
    turned = call.integer("rotary_embedding_dim") or size
    # Of a table the rows of the places, with one for all heads: (N, length, 1, turned / 2).
    cos, sin = (
        body("Unsqueeze", body("Gather", name, "in3") if call.has(3) else name, body.ints(2)) for name in ("in1", "in2")
    )
    rest = body.slice(x, 3, turned, size) if turned < size else ""
    x = body.slice(x, 3, 0, turned) if turned < size else x
    if call.integer("interleaved"):
        one, other = body.slice(x, 3, 0, turned, 2), body.slice(x, 3, 1, turned, 2)
    else:
        one, other = body.parts(2, "Split", x, axis=3, num_outputs=2)
    real = body("Sub", body("Mul", cos, one), body("Mul", sin, other))
    imaginary = body("Add", body("Mul", sin, one), body("Mul", cos, other))
    if call.integer("interleaved"):
        pairs = [body("Unsqueeze", part, body.ints(4)) for part in (real, imaginary)]
        found = body("Reshape", body("Concat", *pairs, axis=4), body.ints(0, 0, 0, turned))
    else:
        found = body("Concat", real, imaginary, axis=3)
    found = body("Concat", found, rest, axis=3) if rest else found
    if len(shape) == 3:
        return body.gives(body("Reshape", found, body.ints(*shape)))
    return body.gives(body("Transpose", found, perm=[0, 2, 1, 3]))


# --- losses ---------------------------------------------------------------------------------------------------------


def _negative_log_likelihood(call: Call) -> Body:
    body = Body(call)
    return body.gives(_loss(body, "in0"))


def _softmax_cross_entropy(call: Call) -> Body:
    body = Body(call)
    logarithms = body("LogSoftmax", "in0", axis=1)
    return body.gives(_loss(body, logarithms), logarithms)


def _loss(body: Body, logarithms: str) -> str:
    """-log p of each target's class, weighted; targets that are ignored weigh nothing."""
    call = body.call
    dtype, target = call.dtypes[0], "in1"
    ignored = ""
    if "ignore_index" in call.attributes:
        index = body.number(call.integer("ignore_index"), call.dtypes[1])
        ignored = body("Equal", target, index)
        target = body("Where", ignored, body.number(0, call.dtypes[1]), target)
    one = body.ints(1)
    picked = body("GatherElements", logarithms, body("Unsqueeze", target, one), axis=1)
    loss = body("Neg", body("Squeeze", picked, one))
    weight = body("Gather", "in2", target) if call.has(2) else ""
    loss = body("Mul", loss, weight) if weight else loss
    if ignored:
        nothing = body.number(0, dtype)
        loss = body("Where", ignored, nothing, loss)
        weight = body("Where", ignored, nothing, weight or body.number(1, dtype))
    reduction = call.text("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "mean" and not weight:
        return body("ReduceMean", loss, keepdims=0)
    total = body("ReduceSum", loss, keepdims=0)
    return body("Div", total, body("ReduceSum", weight, keepdims=0)) if reduction == "mean" else total


# --- whole numbers --------------------------------------------------------------------------------------------------


def _dynamic_quantize(call: Call) -> Body:
    """As uint8, by a scale that reaches from the least to the largest and has 0 among its steps."""
    body = Body(call)
    nothing, most = body.number(0, "float32"), body.number(255, "float32")
    low = body("Min", body("ReduceMin", "in0", keepdims=0), nothing)
    reach = body("Sub", body("Max", body("ReduceMax", "in0", keepdims=0), nothing), low)
    # Zeros alone have no reach; any scale will do.
    scale = body("Where", body("Equal", reach, nothing), body.number(1, "float32"), body("Div", reach, most))
    steps = body("Round", body("Div", body("Sub", nothing, low), scale))
    zero = body.cast(body("Clip", steps, nothing, most), "uint8")
    return body.gives(body("QuantizeLinear", "in0", scale, zero), scale, zero)


# --- places ---------------------------------------------------------------------------------------------------------


def _one_hot(call: Call) -> Body:
    """On where the class is the one that is named, off elsewhere; negative classes count from the end."""
    body = Body(call)
    (depth,) = call.values(1, "depth")
    depth, rank = int(depth), len(call.shape(0)) + 1
    axis = call.integer("axis", -1) % rank
    named = "in0" if call.dtypes[0] == "int64" else body.cast("in0", "int64")
    negative = body("Less", named, body.number(0, "int64"))
    named = body("Where", negative, body("Add", named, body.number(depth, "int64")), named)
    chosen = body("Equal", body("Unsqueeze", named, body.ints(axis)), body.counted(depth, rank, axis))
    off, on = (body("Gather", "in2", body.number(place, "int64")) for place in (0, 1))
    return body.gives(body("Where", chosen, on, off))


def _eye_like(call: Call) -> Body:
    """1 on a diagonal."""
    body = Body(call)
    rows, columns = call.shape(0)
    kind = call.integer("dtype")
    place = body("Add", body.counted(rows, 2, 0), body.number(call.integer("k"), "int64"))
    ones = body("Equal", place, body.counted(columns, 2, 1))
    return body.gives(body.cast(ones, DATA_TYPES[kind][0] if kind in DATA_TYPES else call.dtypes[0]))


def _reverse_sequence(call: Call) -> Body:
    """Each sequence back to front, and what is past its end as it is."""
    body = Body(call)
    shape = call.shape(0)
    batch, time = call.integer("batch_axis", 1), call.integer("time_axis", 0)
    lengths = body.along("in1", len(shape), batch)
    places = body.counted(shape[time], len(shape), time)
    back = body("Sub", body("Sub", lengths, body.number(1, "int64")), places)
    order = body("Where", body("Less", places, lengths), back, places)
    return body.gives(body("GatherElements", "in0", body("Expand", order, body.ints(*shape)), axis=time))


def _tensor_scatter(call: Call) -> Body:
    """The update in the place of what stands from write_indices on, going round in circular mode."""
    body = Body(call)
    shape, update = call.shape(0), call.shape(1)
    rank, axis = len(shape), call.integer("axis", -2) % len(shape)
    places = body.counted(update[axis], rank, axis)
    if call.has(2):
        start = body.along("in2", rank, 0)
        places = body("Add", start, places)
    if call.text("mode", "linear") == "circular":
        places = body("Mod", places, body.number(shape[axis], "int64"))
    places = body("Expand", places, body.ints(*update))
    return body.gives(body("ScatterElements", "in0", places, "in1", axis=axis))


def _compress(call: Call) -> Body:
    """The slices of an axis, or of all elements in a row, that a known condition picks."""
    body = Body(call)
    kept = [place for place, on in enumerate(call.values(1, "condition")) if on]
    x, axis = "in0", call.integer("axis")
    if "axis" not in call.attributes:
        x = body("Reshape", x, body.ints(-1))
    return body.gives(body("Gather", x, body.ints(*kept), axis=axis))


def _center_crop_pad(call: Call) -> Body:
    """Cut or padded with zeros to sizes, around the middle."""
    body = Body(call)
    shape, sizes = call.shape(0), call.values(1, "sizes")
    axes = [axis % len(shape) for axis in call.integers("axes") or range(len(shape))]
    x = "in0"
    for axis, size in zip(axes, sizes, strict=True):
        start = max(shape[axis] - size, 0) // 2
        x = body.slice(x, axis, start, start + min(size, shape[axis]))
    pads = [0] * (2 * len(shape))
    for axis, size in zip(axes, sizes, strict=True):
        more = max(size - shape[axis], 0)
        pads[axis], pads[len(shape) + axis] = more // 2, more - more // 2
    return body.gives(body("Pad", x, body.ints(*pads)))


def _fits(sizes: Shape) -> bool:
    """Whether the places along each axis are few enough to be written down."""
    return all(0 < size <= MOST_ELEMENTS for size in sizes)


def _affine_grid(call: Call) -> Body:
    """For each output place, from -1 to 1 along each axis, the place that the matrix sends it to."""
    body = Body(call)
    sizes: Shape = tuple(call.whole(1, "size")[2:])
    if not _fits(sizes):
        call.refuse(f"of {shape_text(sizes)} places")
    rank = len(sizes)
    corners = bool(call.integer("align_corners"))
    # The matrix has a row and a column for x first, which is the last axis.
    columns = body.parts(rank + 1, "Split", "in0", axis=2, num_outputs=rank + 1)
    terms = [
        body("Reshape", column, body.ints(0, rank, *(1,) * rank))
        for column in columns
    ]  # fmt: skip
    found = terms[rank]
    for place, term in enumerate(terms[:rank]):
        axis = rank - 1 - place
        numbers = body("Constant", value_floats=_places(sizes[axis], corners=corners))
        numbers = numbers if call.dtypes[0] == "float32" else body.cast(numbers, call.dtypes[0])
        found = body("Add", found, body("Mul", term, body.along(numbers, rank + 2, axis + 2)))
    return body.gives(body("Transpose", found, perm=[0, *range(2, rank + 2), 1]))


def _places(count: int, *, corners: bool) -> list[float]:
    """So many places from -1 to 1: from the first element's middle to the last's, or from edge to edge."""
    if corners:
        return [2.0 * place / (count - 1) - 1 if count > 1 else -1.0 for place in range(count)]
    return [(2 * place + 1) / count - 1 for place in range(count)]


def _window(*factors: float) -> Made:
    """A signal's window: for each of N places n the sum of factor j times cos(2π·j·n / N); N - 1 if not periodic."""

    def made(call: Call) -> Body:
        body = Body(call)
        sizes = call.whole(0, "size")
        if len(sizes) != 1 or not _fits((sizes[0],)):
            call.refuse(f"of {shape_text(tuple(sizes)) or 'no'} places")
        length = max(sizes[0] - (not call.integer("periodic", 1)), 1)
        places = body.cast(body.counted(sizes[0]), "float64")
        found = body.number(factors[0], "float64")
        for turn, factor in enumerate(factors[1:], 1):
            angle = body("Mul", places, body.number(2 * math.pi * turn / length, "float64"))
            found = body("Add", found, body("Mul", body("Cos", angle), body.number(factor, "float64")))
        return body.gives(body("Cast", found, to=call.integer("output_datatype", 1)))

    return made


FUNCTIONS: dict[str, Made] = {
    "AffineGrid": _affine_grid, "BlackmanWindow": _window(0.42, -0.5, 0.08), "CausalConvWithState": _causal_conv,
    "CenterCropPad": _center_crop_pad, "Compress": _compress, "DynamicQuantizeLinear": _dynamic_quantize,
    "EyeLike": _eye_like, "HammingWindow": _window(25 / 46, -21 / 46), "HannWindow": _window(0.5, -0.5),
    "LpNormalization": _lp_normalization, "MeanVarianceNormalization": _mean_variance_normalization,
    "NegativeLogLikelihoodLoss": _negative_log_likelihood, "OneHot": _one_hot, "ReverseSequence": _reverse_sequence,
    "RotaryEmbedding": _rotary_embedding, "Selu": _selu, "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
    "SwiGLU": _swiglu, "Swish": _swish, "TensorScatter": _tensor_scatter,
}  # fmt: skip
"""Every op of ONNX's own domain that is written down as others."""
