"""Shapes and types of random nodes, in every form that opsets 7 to 22 have of them, against onnxruntime.

What onnxruntime refuses is left out: it has no kernel for some forms that are right. Where it is known to be wrong
the generators keep away, and say so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from convcalc.analysis.shapes import resolve
from convcalc.errors import ConvcalcError
from convcalc.layers.opaque import Opaque
from convcalc.onnx.file import read_onnx

onnxruntime.set_default_logger_severity(4)
IR_VERSION = 8


class Case(NamedTuple):
    """A node: its attributes, the arrays that come in, and those that the file holds, by the place of the input."""

    op: str
    attributes: dict[str, Any]
    inputs: Sequence[Any]
    fixed: Mapping[int, Any] = MappingProxyType({})
    outputs: int = 1


Draw = random.Random


def sizes(draw: Draw, count: int, low: int = 1, high: int = 5) -> tuple[int, ...]:
    return tuple(draw.randint(low, high) for _ in range(count))


def floats(shape: Sequence[int]) -> Any:
    return np.full(shape, 0.5, np.float32)


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def some_axes(draw: Draw, rank: int, least: int = 0) -> list[int]:
    axes = draw.sample(range(rank), draw.randint(least, rank))
    return [axis - rank if draw.random() < 0.4 else axis for axis in axes]


# --- windows --------------------------------------------------------------------------------------------------------


def window(draw: Draw, rank: int, *, dilation: bool = True, auto: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"kernel_shape": sizes(draw, rank, 1, 3)}
    if draw.random() < 0.7:
        found["strides"] = sizes(draw, rank, 1, 3)
    if dilation and draw.random() < 0.4:
        found["dilations"] = sizes(draw, rank, 1, 3)
    if auto and draw.random() < 0.4:
        found["auto_pad"] = draw.choice(["VALID", "SAME_UPPER", "SAME_LOWER"])
        if found["auto_pad"] != "VALID":
            found.pop("dilations", None)  # onnxruntime takes no notice of it
    elif draw.random() < 0.7:
        found["pads"] = [draw.randint(0, kernel - 1) for kernel in found["kernel_shape"] * 2]
    return found


def spatial(draw: Draw, rank: int) -> tuple[int, ...]:
    return (draw.randint(1, 2), draw.choice([2, 4]), *sizes(draw, rank, 1, 11))


def conv(draw: Draw, opset: int) -> Case:
    rank = draw.randint(1, 3)
    shape = spatial(draw, rank)
    groups = draw.choice([1, 2, shape[1]])
    attributes = window(draw, rank) | {"group": groups}
    weight = floats((groups * draw.randint(1, 2), shape[1] // groups, *attributes["kernel_shape"]))
    if draw.random() < 0.3:
        del attributes["kernel_shape"]
    return Case("Conv", attributes, [floats(shape), weight], {1: weight} if draw.random() < 0.8 else {})


def transposed(draw: Draw, opset: int) -> Case:
    rank = draw.randint(1, 3)
    shape = spatial(draw, rank)
    groups = draw.choice([1, 2])
    attributes = window(draw, rank, auto=False) | {"group": groups}
    strides = attributes.get("strides", (1,) * rank)
    if draw.random() < 0.3:
        attributes["output_padding"] = [draw.randint(0, stride - 1) for stride in strides]
    if draw.random() < 0.3:
        attributes.pop("pads", None)
        attributes["output_shape"] = [
            size * stride + draw.randint(0, stride - 1) for size, stride in zip(shape[2:], strides, strict=True)
        ]
    weight = floats((shape[1], draw.randint(1, 2), *attributes["kernel_shape"]))
    return Case("ConvTranspose", attributes, [floats(shape), weight], {1: weight})


def pool(draw: Draw, opset: int) -> Case:
    op = draw.choice(["MaxPool", "AveragePool", "LpPool"])
    rank = draw.randint(1, 3)
    dilated = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]
    attributes = window(draw, rank, dilation=opset >= dilated)
    # With auto_pad onnxruntime rounds VALID up too, where the standard's formula does not.
    if opset >= {"LpPool": 18}.get(op, 10) and "auto_pad" not in attributes and draw.random() < 0.5:
        attributes["ceil_mode"] = 1
    if op == "AveragePool" and draw.random() < 0.5:
        attributes["count_include_pad"] = 1
    return Case(op, attributes, [floats(spatial(draw, rank))])


# --- axes -----------------------------------------------------------------------------------------------------------


def axes_of(draw: Draw, op: str, x: Any, axes: list[int], since: int, opset: int, **more: Any) -> Case:
    """Axes as an attribute before an opset, as an input of the file from it on."""
    if opset < since:
        return Case(op, more | {"axes": axes}, [x])
    return Case(op, more, [x, whole(*axes)], {1: whole(*axes)})


def reduction(draw: Draw, opset: int) -> Case:
    ops = ["Mean", "Max", "Min", "L1", "L2", "Prod", "LogSum", "LogSumExp", "SumSquare", "Sum"]
    op = "Reduce" + draw.choice(ops)
    x = floats(sizes(draw, draw.randint(1, 4)))
    more: dict[str, Any] = {"keepdims": draw.randint(0, 1)} if draw.random() < 0.7 else {}
    if draw.random() < 0.2:
        return Case(op, more, [x])
    return axes_of(draw, op, x, some_axes(draw, x.ndim, 1), 13 if op == "ReduceSum" else 18, opset, **more)


def squeeze(draw: Draw, opset: int) -> Case:
    shape = tuple(draw.choice([1, 1, 3]) for _ in range(draw.randint(1, 4)))
    axes = [axis for axis, size in enumerate(shape) if size == 1 and draw.random() < 0.7]
    if opset >= 11:
        axes = [axis - len(shape) if draw.random() < 0.4 else axis for axis in axes]
    if not axes:
        return Case("Squeeze", {}, [floats(shape)])
    return axes_of(draw, "Squeeze", floats(shape), axes, 13, opset)


def unsqueeze(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(0, 3))
    count = draw.randint(1, 2)
    axes = draw.sample(range(len(shape) + count), count)
    if opset >= 11 and draw.random() < 0.4:
        axes = [axis - len(shape) - count for axis in axes]
    return axes_of(draw, "Unsqueeze", floats(shape), axes, 13, opset)


def slicing(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4), 1, 7))
    axes = sorted(draw.sample(range(x.ndim), draw.randint(1, x.ndim)))
    starts = [draw.choice([0, 1, -2, -9, 9]) for _ in axes]
    ends = [draw.choice([1, 3, -1, 9, (1 << 31) - 1]) for _ in axes]
    if opset < 10:
        return Case("Slice", {"starts": starts, "ends": ends, "axes": axes}, [x])
    # The largest number there is is no end for onnxruntime when it goes backwards, against the standard.
    steps = [draw.choice([1, 2] if end > 9 else [1, 2, -1, -2]) for end in ends]
    arrays = [whole(*starts), whole(*ends), whole(*axes), whole(*steps)][: draw.choice([3, 4])]
    return Case("Slice", {}, [x, *arrays], dict(enumerate(arrays, 1)))


def split(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 3), 1, 7))
    axis = draw.randrange(x.ndim)
    first = draw.randint(0, x.shape[axis])
    parts = whole(first, x.shape[axis] - first)
    signed = axis - x.ndim if draw.random() < 0.3 and opset >= 11 else axis
    if draw.random() < 0.6 and parts.min() > 0:
        if opset < 13:
            return Case("Split", {"axis": signed, "split": parts.tolist()}, [x], outputs=2)
        return Case("Split", {"axis": signed}, [x, parts], {1: parts}, outputs=2)
    count = draw.randint(1, 3)
    return Case("Split", {"axis": signed} | ({"num_outputs": count} if opset >= 18 else {}), [x], outputs=count)


def concat(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(1, 4))
    axis = draw.randrange(len(shape))
    parts = [floats((*shape[:axis], draw.randint(0, 3), *shape[axis + 1 :])) for _ in range(draw.randint(1, 3))]
    return Case("Concat", {"axis": axis - len(shape) if opset >= 11 and draw.random() < 0.4 else axis}, parts)


def transpose(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 5)))
    return Case("Transpose", {} if draw.random() < 0.2 else {"perm": draw.sample(range(x.ndim), x.ndim)}, [x])


def reshape(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(1, 4))
    wanted = draw.choice([[-1], [0, -1], [prod(shape)], [shape[0], -1, 1], [1, *shape], [*shape[::-1]]])
    return Case("Reshape", {}, [floats(shape), whole(*wanted)], {1: whole(*wanted)})


def flatten(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    return Case("Flatten", {"axis": draw.randint(-x.ndim if opset >= 11 else 0, x.ndim)}, [x])


def expand(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(1, 3))
    wanted = [draw.choice([size, 1]) for size in shape]
    x = floats([draw.choice([size, 1]) for size in shape][draw.randint(0, len(shape)) :])
    return Case("Expand", {}, [x, whole(*wanted)], {1: whole(*wanted)})


def tile(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 3)))
    return Case("Tile", {}, [x, whole(*sizes(draw, x.ndim, 0, 3))], {1: whole(*sizes(draw, x.ndim, 0, 3))})


def pad(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4), 3, 5))
    pads = [draw.randint(-1, 2) for _ in range(2 * x.ndim)]
    mode = draw.choice(["constant", "edge", "reflect"])
    if mode != "constant":
        pads = [max(number, 0) for number in pads]
    if opset < 11:
        return Case("Pad", {"pads": pads, "mode": mode}, [x])
    if opset < 18 or draw.random() < 0.5:
        return Case("Pad", {"mode": mode}, [x, whole(*pads)], {1: whole(*pads)})
    axes = some_axes(draw, x.ndim, 1)
    pads = [draw.randint(0, 2) for _ in range(2 * len(axes))]
    fixed = {1: whole(*pads), 3: whole(*axes)}
    return Case("Pad", {"mode": mode}, [x, fixed[1], floats(()), fixed[3]], {**fixed, 2: floats(())})


# --- joining, picking -----------------------------------------------------------------------------------------------


def broadcast(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(0, 4))
    op = draw.choice(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Equal", "Greater", "Less"])
    several = op in ("Max", "Min", "Sum", "Mean")
    if op == "Equal" and opset < 11:
        op = "Greater"
    parts = [floats([draw.choice([size, size, 1]) for size in shape][draw.randint(0, len(shape)) :])
             for _ in range(draw.randint(1, 3) if several else 2)]  # fmt: skip
    return Case(op, {}, parts, {1: parts[1]} if len(parts) > 1 and draw.random() < 0.3 else {})


def where(draw: Draw, opset: int) -> Case:
    shape = sizes(draw, draw.randint(1, 3))
    parts = [floats([draw.choice([size, 1]) for size in shape]) for _ in range(3)]
    return Case("Where", {}, [parts[0] > 0, *parts[1:]])


def product_of(draw: Draw, opset: int) -> Case:
    batch = sizes(draw, draw.randint(0, 2), 1, 3)
    rows, terms, columns = sizes(draw, 3)
    left = (*[draw.choice([size, 1]) for size in batch][draw.randint(0, len(batch)) :], rows, terms)
    right = (*[draw.choice([size, 1]) for size in batch][draw.randint(0, len(batch)) :], terms, columns)
    x, y = floats(left if draw.random() < 0.85 else (terms,)), floats(right if draw.random() < 0.85 else (terms,))
    return Case("MatMul", {}, [x, y], {1: y} if draw.random() < 0.5 else {})


def gemm(draw: Draw, opset: int) -> Case:
    rows, terms, columns = sizes(draw, 3)
    turned, other = draw.randint(0, 1), draw.randint(0, 1)
    x = floats((terms, rows) if turned else (rows, terms))
    y = floats((columns, terms) if other else (terms, columns))
    bias = floats(draw.choice([(columns,), (1, columns), (rows, 1), (), (rows, columns)]))
    attributes = {"transA": turned, "transB": other, "alpha": draw.choice([1.0, 0.5])}
    return Case("Gemm", attributes, [x, y, bias], {1: y, 2: bias} if draw.random() < 0.7 else {})


def gather(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    axis = draw.randrange(x.ndim)
    if draw.random() < 0.7 or opset < 11:
        places = np.zeros(sizes(draw, draw.randint(0, 2)), np.int64)
        return Case("Gather", {"axis": axis - x.ndim if opset >= 11 else axis}, [x, places])
    places = np.zeros([draw.randint(1, size) for size in x.shape], np.int64)
    return Case("GatherElements", {"axis": axis}, [x, places])


def gather_nd(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    batch = draw.randint(0, x.ndim - 1) if opset >= 12 else 0
    places = np.zeros((*x.shape[:batch], *sizes(draw, draw.randint(0, 2)), draw.randint(1, x.ndim - batch)), np.int64)
    if places.ndim <= batch:
        batch = 0
    return Case("GatherND", {"batch_dims": batch} if batch else {}, [x, places])


def scatter_nd(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    count = draw.randint(1, x.ndim)
    places = np.zeros((*sizes(draw, draw.randint(0, 2)), count), np.int64)
    return Case("ScatterND", {}, [x, places, floats((*places.shape[:-1], *x.shape[count:]))])


def chosen(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    axis = draw.randrange(x.ndim)
    if draw.random() < 0.5:
        attributes = {"axis": axis - x.ndim if opset >= 11 else axis, "keepdims": draw.randint(0, 1)}
        return Case(draw.choice(["ArgMax", "ArgMin"]), attributes, [x])
    k = draw.randint(1, x.shape[axis])
    if opset < 10:
        return Case("TopK", {"axis": axis, "k": k}, [x], outputs=2)
    return Case("TopK", {"axis": axis}, [x, whole(k)], {1: whole(k)}, outputs=2)


def one_hot(draw: Draw, opset: int) -> Case:
    places = np.zeros(sizes(draw, draw.randint(1, 3)), np.int64)
    values = [whole(draw.randint(1, 5)), floats((2,))]
    axis = draw.randint(-places.ndim - 1, places.ndim)
    return Case("OneHot", {"axis": axis}, [places, *values], dict(enumerate(values, 1)))


def einsum(draw: Draw, opset: int) -> Case:
    letters = dict(zip("abcde", sizes(draw, 5), strict=True))
    terms = ["".join(draw.sample("abcde", draw.randint(1, 3))) for _ in range(draw.randint(1, 2))]
    known = sorted(set("".join(terms)))
    output = "->" + "".join(draw.sample(known, draw.randint(0, len(known)))) if draw.random() < 0.7 else ""
    if draw.random() < 0.3:
        terms, output = ["..." + term for term in terms], output.replace("->", "->...") if output else ""
        extra: tuple[int, ...] = (2,)
    else:
        extra = ()
    parts = [floats((*extra, *(letters[letter] for letter in term.replace(".", "")))) for term in terms]
    return Case("Einsum", {"equation": ",".join(terms) + output}, parts)


# --- sizes ----------------------------------------------------------------------------------------------------------


def resize(draw: Draw, opset: int) -> Case:
    x = floats((1, draw.randint(1, 3), *sizes(draw, 2, 1, 9)))
    scales = np.array([1, 1, *(draw.choice([0.5, 0.3, 0.7, 1.0, 1.5, 2.0, 2.6]) for _ in range(2))], np.float32)
    scales[2:] = np.maximum(scales[2:], 1.01 / np.array(x.shape[2:], np.float32))
    mode = draw.choice(["nearest", "linear"])
    if opset < 9:
        return Case("Upsample", {"mode": mode, "scales": np.maximum(scales, 1).tolist()}, [x])
    if opset < 10:
        return Case("Upsample", {"mode": mode}, [x, np.maximum(scales, 1)], {1: np.maximum(scales, 1)})
    if opset < 11:
        return Case("Resize", {"mode": mode}, [x, scales], {1: scales})
    none = np.zeros(0, np.float32)
    if draw.random() < 0.5:
        wanted = whole(*x.shape[:2], *sizes(draw, 2, 1, 9))
        if opset >= 18 and draw.random() < 0.5:
            policy = draw.choice(["not_larger", "not_smaller"])
            fixed = {3: wanted[2:]}
            attributes = {"mode": mode, "axes": [2, 3], "keep_aspect_ratio_policy": policy}
            return Case("Resize", attributes, [x, None, None, wanted[2:]], fixed)
        return Case("Resize", {"mode": mode}, [x, none, none, wanted], {1: none, 2: none, 3: wanted})
    return Case("Resize", {"mode": mode}, [x, none, scales], {1: none, 2: scales})


def blocks(draw: Draw, opset: int) -> Case:
    size = draw.randint(1, 3)
    if draw.random() < 0.5:
        x = floats((1, size**2 * draw.randint(1, 2), *sizes(draw, 2)))
        return Case("DepthToSpace", {"blocksize": size} | ({"mode": "CRD"} if opset >= 11 else {}), [x])
    return Case("SpaceToDepth", {"blocksize": size}, [floats((1, 2, size * 2, size * draw.randint(1, 3)))])


# --- layers ---------------------------------------------------------------------------------------------------------


def recurrent(draw: Draw, opset: int) -> Case:
    op, gates = draw.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden, features, length, batch = sizes(draw, 4)
    direction = draw.choice(["forward", "reverse", "bidirectional"])
    two = 2 if direction == "bidirectional" else 1
    arrays = [floats((length, batch, features)), floats((two, gates * hidden, features)),
              floats((two, gates * hidden, hidden)), floats((two, 2 * gates * hidden))]  # fmt: skip
    arrays = arrays[: draw.choice([3, 4])]
    fixed = {place: array for place, array in enumerate(arrays) if place}
    outputs = draw.randint(1, 3 if op == "LSTM" else 2)
    return Case(op, {"hidden_size": hidden, "direction": direction}, arrays, fixed, outputs)


def normalised(draw: Draw, opset: int) -> Case:
    shape = spatial(draw, draw.randint(1, 3))
    per_channel = {place: floats((shape[1],)) for place in range(1, 5)}
    ops = ["BatchNormalization", "InstanceNormalization", "LRN"]
    op = draw.choice(ops + (["LayerNormalization"] if opset >= 17 else []))
    if op == "InstanceNormalization":
        shape = (*shape[:-1], shape[-1] + 1)  # one element alone has no variance: refused, as in PyTorch
    if op == "LRN":
        return Case(op, {"size": draw.choice([1, 3, 5])}, [floats(shape)])
    if op == "LayerNormalization":
        axis = draw.randint(-len(shape), len(shape) - 1)
        weights = {place: floats(shape[axis:]) for place in (1, 2)}
        return Case(op, {"axis": axis}, [floats(shape), *weights.values()], weights)
    fixed = per_channel if op == "BatchNormalization" else {place: per_channel[place] for place in (1, 2)}
    return Case(op, {}, [floats(shape), *fixed.values()], fixed)


def activation(draw: Draw, opset: int) -> Case:
    x = floats(sizes(draw, draw.randint(1, 4)))
    op = draw.choice(["Softmax", "LogSoftmax", "Relu", "Clip", "Dropout", "PRelu", "HardSigmoid", "Elu", "Erf", "Cast"])
    if op == "Clip":
        limits = {1: floats(()), 2: floats(())}
        return Case(op, {}, [x, *limits.values()], limits) if opset >= 11 else Case(op, {"min": 0.0, "max": 6.0}, [x])
    if op == "PRelu":
        slope = floats((x.shape[-1],))
        return Case(op, {}, [x, slope], {1: slope})
    if op == "Erf" and opset < 9:
        op = "Relu"
    if op == "Cast":
        return Case(op, {"to": draw.choice([1, 6, 7, 9, 10, 11])}, [x])
    return Case(op, {}, [x])


def quantised(draw: Draw, opset: int) -> Case:
    scale, zero = np.float32(0.1).reshape(()), np.array(3, np.uint8)
    kind = draw.choice(["quantize", "dequantize", "conv", "integer", "matmul"])
    if opset < 10 or kind == "quantize":
        x = floats(sizes(draw, draw.randint(1, 4)))
        return Case("QuantizeLinear", {}, [x, scale, zero], {1: scale, 2: zero})
    if kind == "dequantize":
        return Case("DequantizeLinear", {}, [np.ones(sizes(draw, 3), np.uint8), scale, zero], {1: scale, 2: zero})
    if kind == "matmul":
        rows, terms, columns = sizes(draw, 3)
        x, y = np.ones((rows, terms), np.uint8), np.ones((terms, columns), np.uint8)
        return Case("MatMulInteger", {}, [x, y], {1: y})
    case = conv(draw, opset)
    x, weight = (array.astype(np.uint8) for array in case.inputs)
    if kind == "integer":
        return Case("ConvInteger", case.attributes, [x, weight], {1: weight})
    fixed = {1: scale, 2: zero, 3: weight, 4: scale, 5: zero, 6: scale, 7: zero}
    return Case("QLinearConv", case.attributes, [x, *fixed.values()], fixed)


MAKERS: list[Callable[[Draw, int], Case]] = [
    conv, transposed, pool, pool, reduction, squeeze, unsqueeze, slicing, split, concat, transpose, reshape, flatten,
    expand, tile, pad, broadcast, where, product_of, gemm, gather, gather_nd, scatter_nd, chosen, one_hot, einsum,
    resize, resize, blocks, recurrent, normalised, activation, quantised,
]  # fmt: skip


def fits(case: Case) -> bool:
    """Whether a node's windows fit into its input; if not, it is an error here as in PyTorch, and onnxruntime gives
    nothing, or an element too many."""
    if case.op not in ("Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"):
        return True
    given, shape = case.attributes, case.inputs[0].shape[2:]
    kernel = given.get("kernel_shape") or case.inputs[3 if case.op == "QLinearConv" else 1].shape[2:]
    pads, dilations = given.get("pads", [0] * 2 * len(shape)), given.get("dilations", [1] * len(shape))
    padded = [size + before + after for size, before, after in zip(shape, pads, pads[len(shape) :], strict=False)]
    same = given.get("auto_pad", "").startswith("SAME")
    return same or all(
        dilation * (size - 1) < room for dilation, size, room in zip(dilations, kernel, padded, strict=True)
    )


def model_of(case: Case, opset: int) -> tuple[bytes, dict[str, Any]]:
    """The file, and what comes in by name."""
    names = [f"x{place}" if array is not None else "" for place, array in enumerate(case.inputs)]
    outputs = [f"y{place}" for place in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, **case.attributes)
    came = {name: array for place, (name, array) in enumerate(zip(names, case.inputs, strict=True))
            if name and place not in case.fixed}  # fmt: skip
    infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
             for name, array in came.items()]  # fmt: skip
    weights = [numpy_helper.from_array(np.asarray(array), f"x{place}") for place, array in case.fixed.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", infos, results, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    return made.SerializeToString(), came


def theirs(content: bytes, came: dict[str, Any]) -> list[tuple[tuple[int, ...], str]] | None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return [(found.shape, str(found.dtype)) for found in session.run(None, came)]
    except Exception:
        return None


def ours(content: bytes) -> list[tuple[tuple[int, ...], str]] | str:
    try:
        network = read_onnx(content, "m")
        resolved = resolve(network)
    except ConvcalcError as error:
        return str(error)
    shapes = {name: given.shape for name, given in network.inputs.items()}
    shapes |= {name: constant.shape for name, constant in network.constants.items()}
    for item in resolved:
        if isinstance(item.layer, Opaque):
            return f"{item.layer.name} is not known"
        shapes |= dict(zip(item.node.outputs, item.outputs, strict=True))
    return [(shapes[name], network.dtypes.get(name, "float32")) for name in network.outputs]


def compare(seed: int, count: int) -> tuple[int, list[str]]:
    """How many nodes both know, and those that differ."""
    draw = random.Random(seed)
    both, wrong = 0, []
    for _ in range(count):
        opset = draw.randint(7, 22)
        case = draw.choice(MAKERS)(draw, opset)
        content, came = model_of(case, opset)
        found = theirs(content, came)
        if found is None or not fits(case):
            continue
        both += 1
        answer = ours(content)
        if answer != found:
            shapes = [None if array is None else array.shape for array in case.inputs]
            wrong.append(f"{case.op}-{opset} {case.attributes} {shapes} {case.fixed}: {answer}, but {found}")
    return both, wrong


def test_random_nodes_have_onnxruntimes_shapes():
    both, wrong = compare(0, 400)
    assert wrong == []
    assert both > 250


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_random_nodes_have_onnxruntimes_shapes(seed):
    both, wrong = compare(seed, 5000)
    assert wrong == []
    assert both > 3500
