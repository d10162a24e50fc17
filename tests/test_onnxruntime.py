"""Kernels against onnxruntime, on random layers as ONNX models of one node."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from convcalc.errors import LayerError, ShapeError
from convcalc.executor.kernels import kernel_of
from convcalc.layers import LAYERS

OPSET = 20
IR_VERSION = 10


class Case(NamedTuple):
    """A layer of ours, and the ONNX op that is the same. The op's further inputs are our `weights`, in its order."""

    kind: str
    fields: dict[str, Any]
    op: str
    attributes: dict[str, Any]
    shape: tuple[int, ...]
    weights: tuple[str, ...] = ()


def theirs(case: Case, arrays: list[np.ndarray]) -> list[np.ndarray]:
    names = [f"x{index}" for index in range(len(arrays))]
    outputs = ["y", "indices"] if case.fields.get("return_indices") else ["y"]
    node = helper.make_node(case.op, names, outputs, **case.attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    types = [TensorProto.FLOAT, TensorProto.INT64]
    results = [helper.make_tensor_value_info(name, of, None) for name, of in zip(outputs, types, strict=False)]
    graph = helper.make_graph([node], "one", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, arrays, strict=True)))


def sizes(draw: random.Random, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.randint(low, high) for _ in range(rank))


def onnx_pads(pairs: tuple[tuple[int, int], ...]) -> list[int]:
    return [before for before, _ in pairs] + [after for _, after in pairs]


def random_input(draw: random.Random, rank: int) -> tuple[int, ...]:
    return (draw.randint(1, 2), draw.choice([2, 4]), *sizes(draw, rank, 1, 8))


def convolution(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    shape = random_input(draw, rank)
    groups = draw.choice([1, shape[1]])
    fields = {
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": sizes(draw, rank, 1, 3),
        "dilation": sizes(draw, rank, 1, 2),
        "groups": groups,
    }
    attributes = {"kernel_shape": fields["kernel_size"], "strides": fields["stride"], "group": groups,
                  "dilations": fields["dilation"]}  # fmt: skip
    if draw.random() < 0.3:
        fields["padding"] = draw.choice(["same_upper", "same_lower"])
        # onnxruntime refuses SAME with dilation.
        fields["dilation"] = attributes["dilations"] = (1,) * rank
        attributes["auto_pad"] = fields["padding"].upper()
    else:
        fields["padding"] = tuple((draw.randint(0, 2), draw.randint(0, 2)) for _ in range(rank))
        attributes["pads"] = onnx_pads(fields["padding"])
    return Case(f"conv{rank}", fields, "Conv", attributes, shape, ("weight", "bias"))


def transposed_convolution(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    shape = random_input(draw, rank)
    groups = draw.choice([1, shape[1]])
    stride = sizes(draw, rank, 1, 3)
    fields = {
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": stride,
        "dilation": sizes(draw, rank, 1, 2),
        "groups": groups,
        "padding": tuple((draw.randint(0, 2), draw.randint(0, 2)) for _ in range(rank)),
        "output_padding": tuple(draw.randint(0, step - 1) for step in stride),
    }
    attributes = {
        "kernel_shape": fields["kernel_size"],
        "strides": stride,
        "group": groups,
        "dilations": fields["dilation"],
        "pads": onnx_pads(fields["padding"]),
        "output_padding": fields["output_padding"],
    }
    return Case(f"convt{rank}", fields, "ConvTranspose", attributes, shape, ("weight", "bias"))


def max_pool(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    kernel = sizes(draw, rank, 1, 3)
    fields = {
        "kernel_size": kernel,
        "stride": sizes(draw, rank, 1, 3),
        "padding": tuple((draw.randint(0, size // 2), draw.randint(0, size // 2)) for size in kernel),
        "dilation": sizes(draw, rank, 1, 2),
        "ceil_mode": draw.random() < 0.5,
    }
    attributes = {
        "kernel_shape": kernel,
        "strides": fields["stride"],
        "pads": onnx_pads(fields["padding"]),
        "dilations": fields["dilation"],
        "ceil_mode": int(fields["ceil_mode"]),
    }
    return Case(f"maxpool{rank}", fields, "MaxPool", attributes, random_input(draw, rank))


def average_pool(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    kernel = sizes(draw, rank, 1, 3)
    fields = {
        "kernel_size": kernel,
        "stride": sizes(draw, rank, 1, 3),
        "padding": tuple((draw.randint(0, size // 2), draw.randint(0, size // 2)) for size in kernel),
        "ceil_mode": draw.random() < 0.5,
        "count_include_pad": draw.random() < 0.5,
    }
    attributes = {
        "kernel_shape": kernel,
        "strides": fields["stride"],
        "pads": onnx_pads(fields["padding"]),
        "ceil_mode": int(fields["ceil_mode"]),
        "count_include_pad": int(fields["count_include_pad"]),
    }
    return Case(f"avgpool{rank}", fields, "AveragePool", attributes, random_input(draw, rank))


def elementwise(draw: random.Random) -> Case:
    kind, fields, op, attributes = draw.choice([
        ("relu", {}, "Relu", {}),
        ("sigmoid", {}, "Sigmoid", {}),
        ("tanh", {}, "Tanh", {}),
        ("softsign", {}, "Softsign", {}),
        ("softplus", {}, "Softplus", {}),
        ("hardswish", {}, "HardSwish", {}),
        ("hardsigmoid", {}, "HardSigmoid", {"alpha": 1 / 6}),
        ("mish", {}, "Mish", {}),
        ("selu", {}, "Selu", {}),
        ("elu", {"alpha": 0.7}, "Elu", {"alpha": 0.7}),
        ("celu", {"alpha": 0.7}, "Celu", {"alpha": 0.7}),
        ("leakyrelu", {"negative_slope": 0.3}, "LeakyRelu", {"alpha": 0.3}),
        ("gelu", {}, "Gelu", {}),
        ("gelu", {"approximate": "tanh"}, "Gelu", {"approximate": "tanh"}),
        ("softmax", {"dim": 1}, "Softmax", {"axis": 1}),
        ("logsoftmax", {"dim": 2}, "LogSoftmax", {"axis": 2}),
        ("hardshrink", {"lambd": 0.4}, "Shrink", {"lambd": 0.4}),
        ("softshrink", {"lambd": 0.4}, "Shrink", {"lambd": 0.4, "bias": 0.4}),
        ("globalavgpool", {}, "GlobalAveragePool", {}),
        ("globalmaxpool", {}, "GlobalMaxPool", {}),
        ("flatten", {}, "Flatten", {}),
        ("localresponsenorm", {"size": 3}, "LRN", {"size": 3}),
    ])  # fmt: skip
    return Case(kind, fields, op, attributes, random_input(draw, 2))


def normalisation(draw: random.Random) -> Case:
    shape = random_input(draw, draw.randint(1, 3))
    rank = len(shape) - 2
    return draw.choice([
        Case(f"batchnorm{rank}", {}, "BatchNormalization", {"epsilon": 1e-5}, shape,
             ("weight", "bias", "running_mean", "running_var")),
        Case(f"instancenorm{rank}", {"affine": True}, "InstanceNormalization", {"epsilon": 1e-5}, shape,
             ("weight", "bias")),
        Case("layernorm", {}, "LayerNormalization", {"epsilon": 1e-5, "axis": -1}, shape, ("weight", "bias")),
    ])  # fmt: skip


def shuffle(draw: random.Random) -> Case:
    small = (1, 8, draw.randint(1, 4), draw.randint(1, 4))
    large = (1, 2, 2 * draw.randint(1, 4), 2 * draw.randint(1, 4))
    return draw.choice([
        Case("pixelshuffle", {"upscale_factor": 2}, "DepthToSpace", {"blocksize": 2, "mode": "CRD"}, small),
        Case("permute", {"dims": (0, 2, 3, 1)}, "Transpose", {"perm": (0, 2, 3, 1)}, large),
    ])  # fmt: skip


MAKERS: dict[str, Callable[[random.Random], Case]] = {
    "conv": convolution,
    "convt": transposed_convolution,
    "maxpool": max_pool,
    "avgpool": average_pool,
    "elementwise": elementwise,
    "normalisation": normalisation,
    "shuffle": shuffle,
}


def compare(case: Case, seed: int) -> bool:
    """Whether the layer could be run at all. Raises `AssertionError` for a difference."""
    rank = int(case.kind[-1]) if case.kind[-1].isdigit() else None
    try:
        layer = LAYERS[case.kind.rstrip("123")].layer_class(rank)(**case.fields).bind(case.shape)
        layer.infer(case.shape)
    except (LayerError, ShapeError):
        return False
    stream = np.random.default_rng(seed)
    x = stream.normal(size=case.shape).astype(np.float32)
    shapes = {**layer.parameters(), **layer.buffers()}
    weights = {name: stream.uniform(0.5, 1.5, shapes[name]).astype(np.float32) for name in case.weights}
    outputs = kernel_of(layer)(layer, (x,), weights)
    for mine, wanted in zip(outputs, theirs(case, [x, *weights.values()]), strict=True):
        assert mine.shape == wanted.shape
        assert mine.dtype == wanted.dtype
        # Of a window of padding alone the maximum is the lowest float there, and -inf here and in PyTorch.
        lowest = np.finfo(np.float32).min
        np.testing.assert_allclose(np.maximum(mine, lowest), wanted, rtol=2e-4, atol=2e-5)
    return True


def run_many(name: str, seeds: range) -> int:
    ran = 0
    for seed in seeds:
        case = MAKERS[name](random.Random(seed))
        try:
            ran += compare(case, seed)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error
    return ran


@pytest.mark.parametrize("name", MAKERS)
def test_random_layers(name: str) -> None:
    assert run_many(name, range(60)) > 25


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_many_random_layers(name: str) -> None:
    assert run_many(name, range(1000, 2000)) > 400
