"""Random nodes of the ops that have many forms, against onnxruntime."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from convcalc.executor.run import compute, prepare
from convcalc.onnx.file import read_onnx


class Case(NamedTuple):
    """A node: `fixed` are the inputs that the file holds, `inputs` those that come in; None is one left out."""

    op: str
    attributes: dict[str, Any]
    inputs: list[np.ndarray | None]
    fixed: Mapping[int, np.ndarray] = MappingProxyType({})
    outputs: tuple[str, ...] = ("float32",)
    opset: int = 21
    tolerance: float = 1e-5


def model_of(case: Case) -> bytes:
    names = [f"x{place}" for place in range(max([len(case.inputs) - 1, *case.fixed]) + 1)]
    given = {name: x for name, x in zip(names, case.inputs, strict=False) if x is not None}
    fixed = {names[place]: array for place, array in case.fixed.items()}
    used = [name if name in given or name in fixed else "" for name in names]
    node = helper.make_node(case.op, used, [f"y{place}" for place in range(len(case.outputs))], **case.attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
         for name, x in given.items()],
        [helper.make_tensor_value_info(f"y{place}", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
         for place, dtype in enumerate(case.outputs)],
        [numpy_helper.from_array(array, name) for name, array in fixed.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    return model.SerializeToString()


def given_of(case: Case) -> dict[str, np.ndarray]:
    return {f"x{place}": x for place, x in enumerate(case.inputs) if x is not None}


def ours(case: Case) -> list[np.ndarray]:
    network = read_onnx(model_of(case), "m")
    found = compute(prepare(network, given_of(case)), threads=1).outputs
    return [found[f"y{place}"] for place in range(len(case.outputs))]


def theirs(case: Case) -> list[np.ndarray] | None:
    """What onnxruntime gives, or None for what it refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model_of(case), options, providers=["CPUExecutionProvider"])
        return session.run(None, given_of(case))
    except Exception:  # it has many classes for what it refuses
        return None


def normal(stream: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return stream.normal(size=shape).astype(dtype)


def check(make: Callable[[random.Random, np.random.Generator], Case], seeds: range) -> int:
    """How many random nodes were compared."""
    compared = 0
    for seed in seeds:
        case = make(random.Random(seed), np.random.default_rng(seed))
        wanted = theirs(case)
        if wanted is None:
            continue
        what = f"seed {seed}: {case.op} {case.attributes} {[None if x is None else x.shape for x in case.inputs]}"
        for one, other in zip(ours(case), wanted, strict=True):
            assert one.dtype == other.dtype, what
            np.testing.assert_allclose(one, other, rtol=case.tolerance, atol=case.tolerance, err_msg=what)
        compared += 1
    return compared


def resize(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.choice([1, 2, 2, 3])
    shape = (draw.randint(1, 2), draw.randint(1, 3), *(draw.randint(1, 8) for _ in range(rank)))
    mode = draw.choice(["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"])
    places = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
    if mode != "nearest":
        # onnxruntime rounds these to float32, which decides which of two neighbours is next to the middle of both.
        places.append("half_pixel_symmetric")
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": draw.choice(places)}
    if mode == "nearest":
        attributes["nearest_mode"] = draw.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attributes["cubic_coeff_a"] = draw.choice([-0.75, -0.5])
        attributes["exclude_outside"] = draw.randint(0, 1)
    # Sizes, and scales that give whole sizes: of others onnxruntime takes another length than ONNX says.
    wanted = [*shape[:2], *(size * draw.choice([1, 2, 3]) for size in shape[2:])]
    if draw.random() < 0.5:
        wanted = [*shape[:2], *(draw.randint(1, 12) for _ in range(rank))]
    return Case("Resize", attributes, [normal(stream, *shape)], {3: np.array(wanted, np.int64)}, opset=19)


def scatter(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.randint(1, 3)
    shape = tuple(draw.randint(1, 5) for _ in range(rank))
    reduction = draw.choice(["none", "add", "mul", "max", "min"])
    dtype = draw.choice(["float32", "float64", "int32"])
    x = (10 * normal(stream, *shape)).astype(dtype)
    if draw.random() < 0.5:
        axis = draw.randint(-rank, rank - 1)
        places_shape = list(shape)
        # Of several for one place the last one stands nowhere: without a reduction each comes once.
        places_shape[axis] = draw.randint(1, shape[axis])
        order = np.argsort(stream.random((*places_shape[: axis % rank], shape[axis], *places_shape[axis % rank + 1 :])),
                           axis=axis).take(range(places_shape[axis]), axis=axis)  # fmt: skip
        places = order - shape[axis] * (stream.random(order.shape) < 0.3)
        updates = (10 * normal(stream, *places_shape)).astype(dtype)
        attributes = {"axis": axis, "reduction": reduction}
        return Case("ScatterElements", attributes, [x, places, updates], outputs=(dtype,), opset=18)
    depth = draw.randint(1, rank)
    every = np.stack(np.unravel_index(stream.permutation(int(np.prod(shape[:depth]))), shape[:depth]), axis=-1)
    places = every[: draw.randint(1, len(every))]
    updates = (10 * normal(stream, len(places), *shape[depth:])).astype(dtype)
    return Case("ScatterND", {"reduction": reduction}, [x, places, updates], outputs=(dtype,), opset=18)


def gather(draw: random.Random, stream: np.random.Generator) -> Case:
    shape = tuple(draw.randint(1, 4) for _ in range(draw.randint(2, 4)))
    shared = draw.randint(0, len(shape) - 1)
    depth = draw.randint(1, len(shape) - shared)
    lead = (*shape[:shared], *(draw.randint(1, 3) for _ in range(draw.randint(0, 2))))
    sizes = np.array(shape[shared : shared + depth])
    places = (stream.random((*lead, depth)) * sizes).astype(np.int64) - sizes * (stream.random((*lead, depth)) < 0.3)
    return Case("GatherND", {"batch_dims": shared}, [normal(stream, *shape), places])


def trilu(draw: random.Random, stream: np.random.Generator) -> Case:
    shape = tuple(draw.randint(1, 5) for _ in range(draw.randint(2, 4)))
    place = [np.array(draw.randint(-6, 6))] if draw.random() < 0.7 else []
    return Case("Trilu", {"upper": draw.randint(0, 1)}, [normal(stream, *shape), *place])


def lp_pool(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.randint(1, 3)
    kernel = [draw.randint(1, 3) for _ in range(rank)]
    spread = [draw.randint(1, 2) for _ in range(rank)]
    attributes = {
        "p": draw.randint(1, 3), "kernel_shape": kernel, "strides": [draw.randint(1, 3) for _ in range(rank)],
        "pads": [draw.randint(0, size // 2) for size in kernel] * 2, "dilations": spread,
    }  # fmt: skip
    shape = (draw.randint(1, 2), draw.randint(1, 3), *(draw.randint(5, 9) for _ in range(rank)))
    return Case("LpPool", attributes, [normal(stream, *shape)], opset=18)


def average_pool(draw: random.Random, stream: np.random.Generator) -> Case:
    case = lp_pool(draw, stream)
    attributes = {**case.attributes, "count_include_pad": draw.randint(0, 1)}
    del attributes["p"]
    return case._replace(op="AveragePool", attributes=attributes, opset=19)


def max_unpool(draw: random.Random, stream: np.random.Generator) -> Case:
    """What MaxPool gives, places in the whole tensor, back to where it was."""
    rank = draw.randint(1, 3)
    kernel = [draw.randint(1, 3) for _ in range(rank)]
    pooled = (draw.randint(1, 2), draw.randint(1, 3), *(draw.randint(1, 4) for _ in range(rank)))
    whole = (*pooled[:2], *(size * k for size, k in zip(pooled[2:], kernel, strict=True)))
    x = normal(stream, *whole)
    pool = Case("MaxPool", {"kernel_shape": kernel, "strides": kernel}, [x], outputs=("float32", "int64"))
    return Case("MaxUnpool", dict(pool.attributes), list(ours(pool)), opset=11)


def max_pool(draw: random.Random, stream: np.random.Generator) -> Case:
    case = lp_pool(draw, stream)
    del case.attributes["p"]
    case.attributes["storage_order"] = draw.randint(0, 1)
    return case._replace(op="MaxPool", outputs=("float32", "int64"), opset=12)


def whole(stream: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return stream.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def scales(stream: np.random.Generator, *shape: int) -> np.ndarray:
    return stream.uniform(0.01, 0.2, shape).astype(np.float32)


def quantize(draw: random.Random, stream: np.random.Generator) -> Case:
    shape = tuple(draw.randint(1, 6) for _ in range(draw.randint(1, 4)))
    dtype = draw.choice(["int8", "uint8", "int16", "uint16"])
    axis = draw.randint(-len(shape), len(shape) - 1)
    per_axis = draw.random() < 0.6
    many = (shape[axis],) if per_axis else ()
    attributes = {"axis": axis} if per_axis else {}
    block = draw.choice([0, 0, 2, 3])
    if block and len(shape) > 1:
        many = tuple(-(-size // block) if place == axis % len(shape) else size for place, size in enumerate(shape))
        attributes = {"axis": axis, "block_size": block}
    given = [scales(stream, *many), whole(stream, dtype, *many)]
    given = given if draw.random() < 0.8 or dtype != "uint8" else given[:1]
    if draw.random() < 0.5:
        return Case("QuantizeLinear", attributes, [10 * normal(stream, *shape), *given], outputs=(dtype,))
    return Case("DequantizeLinear", attributes, [whole(stream, dtype, *shape), *given])


def quantized_conv(draw: random.Random, stream: np.random.Generator) -> Case:
    dtype = draw.choice(["uint8", "int8"])
    rank = draw.randint(1, 3)
    channels, outs = draw.randint(1, 4), draw.randint(1, 4)
    shape = (draw.randint(1, 2), channels, *(draw.randint(3, 7) for _ in range(rank)))
    x, w = (
        whole(stream, dtype, *shape),
        whole(stream, "int8", outs, channels, *(draw.randint(1, 3) for _ in range(rank))),
    )
    attributes = {"pads": [draw.randint(0, 2) for _ in range(2 * rank)],
                  "strides": [draw.randint(1, 2) for _ in range(rank)]}  # fmt: skip
    per_channel = (outs,) if draw.random() < 0.5 else ()
    if draw.random() < 0.4:
        given: list[np.ndarray | None] = [x.view(np.uint8), w.view(np.uint8)]
        return Case("ConvInteger", attributes, [*given, whole(stream, "uint8")], outputs=("int32",))
    fixed = {3: w, 4: scales(stream, *per_channel), 5: np.zeros(per_channel, np.int8)}
    if draw.random() < 0.5:
        fixed[8] = whole(stream, "int16", outs).astype(np.int32)
    given = [x, scales(stream), whole(stream, dtype), None, None, None, 50 * scales(stream), whole(stream, dtype)]
    return Case("QLinearConv", attributes, given, fixed, outputs=(dtype,))


def quantized_matmul(draw: random.Random, stream: np.random.Generator) -> Case:
    dtype = draw.choice(["uint8", "int8"])
    lead = tuple(draw.randint(1, 3) for _ in range(draw.randint(0, 2)))
    rows, terms, columns = (draw.randint(1, 6) for _ in range(3))
    a, b = whole(stream, dtype, *lead, rows, terms), whole(stream, dtype, terms, columns)
    if draw.random() < 0.4:
        zeros = [whole(stream, dtype), whole(stream, dtype)][: draw.randint(0, 2)]
        return Case("MatMulInteger", {}, [a, b, *zeros], outputs=("int32",))
    one, other = (scales(stream), whole(stream, dtype)), (scales(stream), whole(stream, dtype))
    given = [a, *one, b, *other, 50 * scales(stream), whole(stream, dtype)]
    return Case("QLinearMatMul", {}, given, outputs=(dtype,))


CURVES = {
    "Relu": 0, "Tanh": 0, "Sigmoid": 0, "Softsign": 0, "Softplus": 0, "LeakyRelu": 1, "Elu": 1, "ThresholdedRelu": 1,
    "HardSigmoid": 2, "Affine": 2, "ScaledTanh": 2,
}  # fmt: skip
"""How many of alpha and beta each has."""


def recurrent(draw: random.Random, stream: np.random.Generator) -> Case:
    op, gates, functions = draw.choice([("RNN", 1, 1), ("GRU", 3, 2), ("LSTM", 4, 3)])
    direction = draw.choice(["forward", "reverse", "bidirectional"])
    directions = 1 + (direction == "bidirectional")
    length, batch, size, hidden = (draw.randint(1, 5) for _ in range(4))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if draw.random() < 0.5:
        names = [draw.choice(list(CURVES)) for _ in range(functions * directions)]
        attributes["activations"] = names
        for least, key in ((1, "activation_alpha"), (2, "activation_beta")):
            attributes[key] = [draw.uniform(0.1, 0.9) for name in names if CURVES[name] >= least]
    if draw.random() < 0.3:
        attributes["clip"] = draw.choice([0.5, 2.0])
    if op == "GRU":
        attributes["linear_before_reset"] = draw.randint(0, 1)
    inputs: list[np.ndarray | None] = [normal(stream, length, batch, size), None, None, None, None]
    # Small, so that activations without a bound do not grow to infinity.
    fixed = {place: 0.3 * normal(stream, directions, gates * hidden, sizes)
             for place, sizes in ((1, size), (2, hidden))}  # fmt: skip
    if draw.random() < 0.7:
        fixed[3] = normal(stream, directions, 2 * gates * hidden)
    if draw.random() < 0.4:
        inputs[4] = stream.integers(1, length, batch, np.int32, endpoint=True)
    if draw.random() < 0.5:
        inputs.append(normal(stream, directions, batch, hidden))
    outputs = ("float32",) * 2
    if op == "LSTM":
        outputs = ("float32",) * 3
        if len(inputs) == 6 and draw.random() < 0.7:
            inputs.append(normal(stream, directions, batch, hidden))
        if draw.random() < 0.3:
            fixed[7] = normal(stream, directions, 3 * hidden)
        attributes["input_forget"] = draw.choice([0, 0, 1])
    return Case(op, attributes, inputs, fixed, outputs, tolerance=1e-4)


def attention(draw: random.Random, stream: np.random.Generator) -> Case:
    batch, heads, length, keys, size = (draw.randint(1, 4) for _ in range(5))
    shared, value_size = draw.randint(1, 3), draw.randint(1, 4)
    attributes: dict[str, Any] = {}
    if draw.random() < 0.3:
        attributes["scale"] = draw.uniform(0.1, 2.0)
    if draw.random() < 0.3:
        attributes["softcap"] = draw.uniform(0.5, 3.0)
    flat = draw.random() < 0.5
    inputs: list[np.ndarray | None] = []
    for count, places, each in ((heads * shared, length, size), (heads, keys, size), (heads, keys, value_size)):
        inputs.append(normal(stream, *((batch, places, count * each) if flat else (batch, count, places, each))))
    if flat:
        attributes |= {"q_num_heads": heads * shared, "kv_num_heads": heads}
    past = draw.choice([0, 0, draw.randint(1, 4)])
    kind = draw.choice(["", "", "float", "bool"])
    mask = None
    if kind:
        shape = draw.choice([(length, keys + past), (batch, heads * shared, length, keys + past)])
        mask = normal(stream, *shape) if kind == "float" else stream.random(shape) < 0.7
        if kind == "bool":
            mask[..., 0] = True
    elif length <= keys and not past:
        attributes["is_causal"] = draw.randint(0, 1)
    inputs.append(mask)
    outputs = ("float32",)
    if past:
        inputs += [normal(stream, batch, heads, past, size), normal(stream, batch, heads, past, value_size)]
        outputs = ("float32",) * 3
    return Case("Attention", attributes, inputs, outputs=outputs, opset=23)


def composed(draw: random.Random, stream: np.random.Generator) -> Case:
    """Ops that are written down as others."""
    rows, columns = draw.randint(1, 5), draw.randint(1, 5)
    x = normal(stream, rows, columns, draw.randint(1, 4))
    op = draw.choice(["OneHot", "ReverseSequence", "LpNormalization", "DynamicQuantizeLinear", "EyeLike", "Compress",
                      "RotaryEmbedding", "CenterCropPad", "AffineGrid"])  # fmt: skip
    if op == "OneHot":
        named = stream.integers(-7, 7, (rows, columns))
        values = normal(stream, 2)
        return Case(op, {"axis": draw.randint(-3, 2)}, [named, None, values], {1: np.array(5)}, opset=11)
    if op == "ReverseSequence":
        batch = draw.randint(0, 1)
        lengths = stream.integers(1, x.shape[1 - batch], x.shape[batch], endpoint=True)
        return Case(op, {"batch_axis": batch, "time_axis": 1 - batch}, [x, lengths], opset=10)
    if op == "DynamicQuantizeLinear":
        return Case(op, {}, [x + np.float32(draw.choice([0, 3, -3]))], outputs=("uint8", "float32", "uint8"))
    if op == "LpNormalization":
        return Case(op, {"axis": draw.randint(-3, 2), "p": draw.randint(1, 2)}, [x])
    if op == "EyeLike":
        return Case(op, {"k": draw.randint(-3, 3)}, [x[..., 0]])
    if op == "Compress":
        return Case(op, {"axis": draw.randint(-3, 2)}, [x], {1: np.array([True])})
    if op == "CenterCropPad":
        sizes = stream.integers(1, 8, 2)
        return Case(op, {"axes": [0, -1]}, [x], {1: sizes}, opset=18)
    if op == "AffineGrid":
        sizes = np.array([rows, 1, *stream.integers(2, 6, draw.randint(2, 3))])
        theta = normal(stream, rows, len(sizes) - 2, len(sizes) - 1)
        return Case(op, {"align_corners": draw.randint(0, 1)}, [theta], {1: sizes}, opset=20)
    size = 2 * draw.randint(1, 4)
    turned = draw.choice([0, 2 * draw.randint(1, size // 2)])
    table = normal(stream, 2, 9, (turned or size) // 2)
    inputs = [normal(stream, rows, 3, columns, size), table[0], table[1], stream.integers(0, 9, (rows, columns))]
    return Case(op, {"interleaved": draw.randint(0, 1), "rotary_embedding_dim": turned}, inputs, opset=23)


def grid_sample(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.choice([2, 2, 3])
    sizes, places = ([draw.randint(1, 5) for _ in range(rank)] for _ in range(2))
    batch = draw.randint(1, 2)
    grid = stream.uniform(-1.8, 1.8, (batch, *places, rank)).astype(np.float32)
    attributes = {
        "mode": draw.choice(["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"]),
        "padding_mode": draw.choice(["zeros", "border", "reflection"]), "align_corners": draw.randint(0, 1),
    }  # fmt: skip
    return Case("GridSample", attributes, [normal(stream, batch, 3, *sizes), grid], opset=20, tolerance=1e-4)


def roi_align(draw: random.Random, stream: np.random.Generator) -> Case:
    count, batch = draw.randint(1, 4), draw.randint(1, 2)
    corners = stream.uniform(-2, 12, (count, 4)).astype(np.float32)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    attributes = {
        "output_height": draw.randint(1, 4), "output_width": draw.randint(1, 4), "sampling_ratio": draw.randint(0, 3),
        "spatial_scale": draw.choice([1.0, 0.5]), "mode": draw.choice(["avg", "max"]),
        "coordinate_transformation_mode": draw.choice(["half_pixel", "output_half_pixel"]),
    }  # fmt: skip
    inputs = [normal(stream, batch, 2, 7, 9), boxes, stream.integers(0, batch, count)]
    return Case("RoiAlign", attributes, inputs, opset=16, tolerance=1e-4)


def deform_conv(draw: random.Random, stream: np.random.Generator) -> Case:
    groups, parts = draw.randint(1, 2), draw.randint(1, 2)
    channels, outs = 2 * draw.randint(1, 2), groups * draw.randint(1, 2)
    kernel, stride, spread = ([draw.randint(1, most) for _ in range(2)] for most in (3, 2, 2))
    pads = [draw.randint(0, 1) for _ in range(4)]
    sizes = [draw.randint(5, 8) for _ in range(2)]
    outputs = [(size + pads[axis] + pads[2 + axis] - spread[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
               for axis, size in enumerate(sizes)]  # fmt: skip
    taps = parts * kernel[0] * kernel[1]
    inputs = [normal(stream, 2, channels, *sizes), None, normal(stream, 2, 2 * taps, *outputs), None]
    inputs += [normal(stream, 2, taps, *outputs)] if draw.random() < 0.5 else []
    fixed = {1: normal(stream, outs, channels // groups, *kernel)}
    fixed |= {3: normal(stream, outs)} if draw.random() < 0.5 else {}
    attributes = {"group": groups, "offset_group": parts, "strides": stride, "dilations": spread, "pads": pads}
    return Case("DeformConv", attributes, inputs, fixed, opset=19, tolerance=1e-4)


def fourier(draw: random.Random, stream: np.random.Generator) -> Case:
    rank = draw.randint(1, 3)
    shape = [draw.randint(1, 9) for _ in range(rank)]
    parts, axis = draw.randint(1, 2), draw.randint(-rank - 1, rank - 1)
    inverse, onesided = draw.randint(0, 1), draw.randint(0, 1)
    if inverse:  # onnxruntime has no way back from one side
        onesided = 0
    axis = axis if axis >= 0 else min(axis, -2)
    fixed = {1: np.array(draw.randint(1, 12))} if draw.random() < 0.5 else {}
    fixed |= {2: np.array(axis)} if draw.random() < 0.7 else {}
    return Case("DFT", {"inverse": inverse, "onesided": onesided},
                [normal(stream, *shape, 1 if onesided else parts)], fixed, opset=20)  # fmt: skip


def frames(draw: random.Random, stream: np.random.Generator) -> Case:
    length, size = draw.randint(1, 12), draw.randint(12, 40)
    fixed = {1: np.array(draw.randint(1, 8))}
    window = draw.random() < 0.5
    fixed |= {2: normal(stream, length)} if window else {}
    fixed |= {3: np.array(length)} if not window or draw.random() < 0.5 else {}
    x = normal(stream, draw.randint(1, 2), size, *draw.choice([(), (1,)]))
    # onnxruntime's angles are in single precision, and its errors a few times ours.
    return Case("STFT", {"onesided": draw.randint(0, 1)}, [x], fixed, opset=17, tolerance=1e-4)


def columns(draw: random.Random, stream: np.random.Generator, rank: int = 2) -> Case:
    sizes, kernel, strides, dilations = (
        [draw.randint(low, high) for _ in range(rank)] for low, high in ((3, 7), (1, 3), (1, 2), (1, 2))
    )
    pads = [draw.randint(0, 1) for _ in range(2 * rank)]
    windows = [(size + pads[axis] + pads[rank + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
               for axis, size in enumerate(sizes)]  # fmt: skip
    x = normal(stream, draw.randint(1, 2), 2 * int(np.prod(kernel)), int(np.prod([max(count, 0) for count in windows])))
    attributes = {"strides": strides, "dilations": dilations, "pads": pads}
    return Case("Col2Im", attributes, [x], {1: np.array(sizes), 2: np.array(kernel)}, opset=18)


def determinant(draw: random.Random, stream: np.random.Generator) -> Case:
    size = draw.randint(1, 5)
    return Case(
        "Det", {}, [normal(stream, *(draw.randint(1, 3) for _ in range(draw.randint(0, 2))), size, size)], opset=22
    )


FAMILIES: dict[str, Callable[[random.Random, np.random.Generator], Case]] = {
    "resize": resize, "scatter": scatter, "gather": gather, "trilu": trilu, "lppool": lp_pool,
    "avgpool": average_pool, "maxpool": max_pool, "maxunpool": max_unpool, "quantize": quantize,
    "qconv": quantized_conv, "qmatmul": quantized_matmul, "recurrent": recurrent, "attention": attention,
    "composed": composed, "gridsample": grid_sample, "roialign": roi_align, "deformconv": deform_conv,
    "fourier": fourier, "frames": frames, "columns": columns, "determinant": determinant,
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_random_nodes(family):
    assert check(FAMILIES[family], range(12)) >= 4


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_columns_are_added_up_along_any_axes(rank):
    """By the definition: onnxruntime 1.31 errs for other than two axes, where ONNX's reference gives this too."""
    for seed in range(4):
        case = columns(random.Random(seed), np.random.default_rng(seed), rank)
        (x,), attributes = case.inputs, case.attributes
        sizes, kernel = case.fixed[1], case.fixed[2]
        assert x is not None
        if x.shape[2] == 0:
            continue
        pads, reach = attributes["pads"], attributes["dilations"]
        counts = [(size + pads[axis] + pads[rank + axis] - reach[axis] * (kernel[axis] - 1) - 1)
                  // attributes["strides"][axis] + 1 for axis, size in enumerate(sizes)]  # fmt: skip
        taps = x.reshape(len(x), -1, *kernel, *counts)
        wanted = np.zeros((len(x), taps.shape[1], *sizes))
        for tap in np.ndindex(*kernel):
            for window in np.ndindex(*counts):
                place = tuple(
                    window[axis] * attributes["strides"][axis] + tap[axis] * reach[axis] - pads[axis]
                    for axis in range(rank)
                )
                if all(0 <= at < size for at, size in zip(place, sizes, strict=True)):
                    wanted[(..., *place)] += taps[(slice(None), slice(None), *tap, *window)]
        np.testing.assert_allclose(ours(case)[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_many_random_nodes(family):
    assert check(FAMILIES[family], range(100, 700)) >= 100
