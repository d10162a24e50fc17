"""Every op that is no convolution: convcalc's time over PyTorch's, for 1 and 2 threads, at sizes that networks have.

    python benchmarks/operators.py [--rounds 5] [--threads 1,2] [--ops gelu,norm,...] [--cpu]

As `benchmarks/executor.py`: each program in a process of its own with a fixed number of threads, taking turns; the
table has the median of each op's ratios. What PyTorch does not have by itself is measured against onnxruntime, where it
and onnx are. Exit status 0 once all is measured.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

from turns import STAY, Server, serve

Shape = tuple[int, ...]
Tensor = tuple[Shape, str, int]


class Case(NamedTuple):
    """An op: convcalc's layer and PyTorch's function as text, and the shapes that come in, of float32.

    `layer` may name every class of convcalc, `torch` may name `torch`, `nn` and `F`; none means that `layer`
    is one of `nn`'s modules. The inputs whose places are in `below` are whole numbers from 0 on.
    """

    layer: str
    shapes: tuple[Shape, ...]
    torch: str = ""
    below: Mapping[int, int] = MappingProxyType({})


class NodeCase(NamedTuple):
    """A node of an ONNX model: what comes in, and what is in the model, as (shape, type, limit of whole numbers)."""

    op: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...] = ()
    fields: Mapping[str, Any] = MappingProxyType({})


MAP = ((1, 64, 112, 112),)
"""What ResNet's first convolution gives: 0.8 million numbers."""
TOKENS = ((8, 197, 768),)
"""What a layer of ViT-B/16 gives for eight images."""
SCORES = ((8, 12, 197, 197),)
"""Its scores."""
SAME = {
    "relu": ("ReLU()", MAP), "relu6": ("ReLU6()", MAP), "leakyrelu": ("LeakyReLU()", MAP), "prelu": ("PReLU(64)", MAP),
    "elu": ("ELU()", MAP), "selu": ("SELU()", MAP), "celu": ("CELU()", MAP), "gelu": ("GELU()", MAP),
    "gelu of tokens": ("GELU()", ((8, 197, 3072),)), "gelu tanh": ("GELU('tanh')", MAP), "silu": ("SiLU()", MAP),
    "mish": ("Mish()", MAP), "sigmoid": ("Sigmoid()", MAP), "tanh": ("Tanh()", MAP),
    "hardsigmoid": ("Hardsigmoid()", MAP), "hardswish": ("Hardswish()", MAP), "hardtanh": ("Hardtanh()", MAP),
    "hardshrink": ("Hardshrink()", MAP), "softshrink": ("Softshrink()", MAP), "softplus": ("Softplus()", MAP),
    "softsign": ("Softsign()", MAP), "logsigmoid": ("LogSigmoid()", MAP), "tanhshrink": ("Tanhshrink()", MAP),
    "threshold": ("Threshold(0.1, 20.0)", MAP), "glu": ("GLU(1)", MAP), "silu, small": ("SiLU()", ((1, 256, 14, 14),)),
    "softmax of scores": ("Softmax(-1)", SCORES), "softmax of classes": ("Softmax(-1)", ((64, 1000),)),
    "softmax of pixels": ("Softmax2d()", ((1, 21, 256, 256),)), "log softmax": ("LogSoftmax(-1)", ((64, 1000),)),
    "log softmax, words": ("LogSoftmax(-1)", ((16, 32000),)),
    "batch norm": ("BatchNorm2d(64)", MAP), "layer norm": ("LayerNorm(768)", TOKENS),
    "group norm": ("GroupNorm(32, 256)", ((1, 256, 56, 56),)), "instance norm": ("InstanceNorm2d(64)", MAP),
    "rms norm": ("RMSNorm(2048)", ((1, 512, 2048),)),
    "local response norm": ("LocalResponseNorm(5)", ((1, 96, 55, 55),)),
    "lstm, batch 1": ("LSTM(256, 256)", ((50, 1, 256),)),
    "lstm, batch 16": ("LSTM(256, 256)", ((50, 16, 256),)),
    "lstm, 2 both ways": ("LSTM(128, 128, 2, bidirectional=True)", ((50, 16, 128),)),
    "gru, batch 1": ("GRU(256, 256)", ((50, 1, 256),)),
    "gru, batch 16": ("GRU(256, 256)", ((50, 16, 256),)),
    "rnn, batch 16": ("RNN(256, 256)", ((50, 16, 256),)),
    "upsample nearest": ("Upsample(scale_factor=2)", ((1, 256, 26, 26),)),
    "upsample linear": ("Upsample(scale_factor=2, mode='linear')", ((8, 64, 512),)),
    "upsample bilinear": ("Upsample(scale_factor=2, mode='bilinear', align_corners=False)", ((1, 64, 56, 56),)),
    "bilinear of an image": ("Upsample((224, 224), mode='bilinear', align_corners=False)", ((1, 3, 480, 640),)),
    "bilinear of classes": ("Upsample((520, 520), mode='bilinear', align_corners=False)", ((1, 21, 65, 65),)),
    "upsample bicubic": ("Upsample(scale_factor=2, mode='bicubic', align_corners=False)", ((1, 64, 56, 56),)),
    "upsample trilinear": ("Upsample(scale_factor=2, mode='trilinear', align_corners=False)", ((1, 32, 16, 32, 32),)),
    "adaptive average 1": ("AdaptiveAvgPool2d(1)", ((8, 2048, 7, 7),)),
    "adaptive average 6": ("AdaptiveAvgPool2d(6)", ((8, 256, 13, 13),)),
    "adaptive average 7": ("AdaptiveAvgPool2d(7)", ((1, 512, 14, 14),)),
    "adaptive max 6": ("AdaptiveMaxPool2d(6)", ((8, 256, 13, 13),)),
    "adaptive max 1": ("AdaptiveMaxPool2d(1)", ((8, 2048, 7, 7),)),
    "average 2": ("AvgPool2d(2)", ((1, 128, 56, 56),)), "average 3 s1": ("AvgPool2d(3, 1, 1)", ((1, 192, 35, 35),)),
    "max 2 with indices": ("MaxPool2d(2, return_indices=True)", MAP),
    "max 3 s1": ("MaxPool2d(3, 1, 1)", ((1, 192, 35, 35),)),
    "lp pool 2": ("LPPool2d(2, 2)", ((1, 64, 56, 56),)),
    "zero padding": ("ZeroPad2d(1)", MAP), "reflection padding": ("ReflectionPad2d(3)", ((1, 64, 128, 128),)),
    "replication padding": ("ReplicationPad2d(1)", MAP),
    "pixel shuffle": ("PixelShuffle(2)", ((1, 256, 56, 56),)), "pixel unshuffle": ("PixelUnshuffle(2)", MAP),
    "channel shuffle": ("ChannelShuffle(2)", ((8, 116, 28, 28),)),
    "unfold": ("Unfold(3, padding=1)", ((1, 64, 56, 56),)), "fold": ("Fold((56, 56), 3, padding=1)", ((1, 576, 3136),)),
    "linear, 1 row": ("Linear(4096, 4096)", ((1, 4096),)), "linear of tokens": ("Linear(768, 3072)", ((1, 197, 768),)),
}  # fmt: skip
"""What PyTorch has as modules of the same fields."""
OTHERS = {
    "multihead attention": Case("MultiheadAttention(768, 12, batch_first=True)", ((1, 197, 768),) * 3,
                                "nn.MultiheadAttention(768, 12, batch_first=True)"),
    "attention": Case("Attention()", ((8, 12, 197, 64),) * 3, "F.scaled_dot_product_attention"),
    "attention, causal": Case("Attention(causal=True)", ((1, 12, 512, 64),) * 3,
                              "lambda *x: F.scaled_dot_product_attention(*x, is_causal=True)"),
    "matmul of heads": Case("MatMul()", ((12, 197, 64), (12, 64, 197)), "torch.matmul"),
    "matmul": Case("MatMul()", ((512, 512), (512, 512)), "torch.matmul"),
    "einsum": Case("Einsum('bhid,bhjd->bhij')", ((1, 12, 197, 64),) * 2,
                   "lambda *x: torch.einsum('bhid,bhjd->bhij', *x)"),
    "add": Case("Add()", MAP * 2, "torch.add"),
    "add of a row": Case("Add()", (TOKENS[0], (768,)), "torch.add"),
    "mul by channels": Case("Mul()", (MAP[0], (1, 64, 1, 1)), "torch.mul"),
    "concat": Case("Concat(1)", ((1, 128, 56, 56),) * 2, "lambda *x: torch.cat(x, 1)"),
    "mean of maps": Case("Reduce('mean', (2, 3))", ((1, 256, 56, 56),), "lambda x: x.mean((2, 3), True)"),
    "mean of channels": Case("Reduce('mean', (1,))", ((1, 256, 56, 56),), "lambda x: x.mean(1, True)"),
    "sum of rows": Case("Reduce('sum', (2,))", TOKENS, "lambda x: x.sum(2, True)"),
    "sum of all": Case("Reduce('sum')", MAP, "lambda x: x.sum()"),
    "max of rows": Case("Reduce('max', (3,))", SCORES, "lambda x: x.amax(3, True)"),
    "l2 of rows": Case("Reduce('l2', (2,))", TOKENS, "lambda x: torch.linalg.vector_norm(x, 2, 2, True)"),
    "logsumexp": Case("Reduce('logsumexp', (1,))", ((64, 1000),), "lambda x: x.logsumexp(1, True)"),
    "argmax of classes": Case("Reduce('argmax', (1,))", ((1, 21, 256, 256),), "lambda x: x.argmax(1, True)"),
    "argmax of rows": Case("Reduce('argmax', (1,))", ((64, 1000),), "lambda x: x.argmax(1, True)"),
    "cumulative sum": Case("Cumulate(1)", ((64, 10000),), "lambda x: x.cumsum(1)"),
    "top 5": Case("TopK(5)", ((64, 1000),), "lambda x: x.topk(5)"),
    "erf": Case("Function('erf')", MAP, "torch.erf"),
    "exp": Case("Function('exp')", MAP, "torch.exp"),
    "sin": Case("Function('sin')", MAP, "torch.sin"),
    "square by pow": Case("Combine('pow')", (MAP[0], ()), "lambda x, two: x ** 2.0"),
    "div": Case("Combine('div')", MAP * 2, "torch.div"),
    "where": Case("Combine('where')", MAP * 3, "lambda c, a, b: torch.where(c != 0, a, b)", {0: 2}),
    "greater": Case("Combine('greater')", MAP * 2, "torch.gt"),
    "clip": Case("Clip(-1.0, 1.0)", MAP, "lambda x: x.clamp(-1.0, 1.0)"),
    "embedding": Case("Gather(0)", ((30000, 768), (8, 197)),
                      "lambda table, places: F.embedding(places, table)", {1: 30000}),
    "gather elements": Case("GatherElements(1)", ((64, 10000), (64, 1000)), "lambda x, i: x.gather(1, i)", {1: 10000}),
    "scatter": Case("Scatter(1)", ((64, 10000), (64, 1000), (64, 1000)),
                    "lambda x, i, u: x.scatter(1, i, u)", {1: 10000}),
    "tile": Case("Tile((1, 1, 2, 2))", ((1, 64, 56, 56),), "lambda x: x.tile(1, 1, 2, 2)"),
    "max unpool": Case("MaxUnpool2d(2)", ((1, 64, 56, 56),) * 2, "nn.MaxUnpool2d(2)", {1: 12544}),
    "grid sample": Case("GridSample()", ((1, 64, 56, 56), (1, 56, 56, 2)),
                        "lambda x, g: F.grid_sample(x, g, align_corners=False)"),
    "grid sample, cubic": Case("GridSample('cubic')", ((1, 64, 56, 56), (1, 56, 56, 2)),
                               "lambda x, g: F.grid_sample(x, g, 'bicubic', align_corners=False)"),
    "batch norm, training": Case("BatchNormTraining(64)", MAP, "nn.BatchNorm2d(64).train()"),
}  # fmt: skip
"""What it has as functions, or with other fields."""
_SCALE, _ZERO = ((), "float32", 0), ((), "uint8", 255)
NODES = {
    "roi align": NodeCase("RoiAlign",
                          (((1, 256, 50, 50), "float32", 0), ((100, 4), "float32", 0), ((100,), "int64", 1)),
                          fields={"output_height": 7, "output_width": 7, "sampling_ratio": 2, "spatial_scale": 9.0}),
    "quantized conv": NodeCase("QLinearConv", (((1, 64, 56, 56), "uint8", 255),),
                               (_SCALE, _ZERO, ((64, 64, 3, 3), "uint8", 255), _SCALE, _ZERO, _SCALE, _ZERO),
                               {"pads": [1, 1, 1, 1]}),
    "quantized matmul": NodeCase("MatMulInteger", (((197, 768), "uint8", 255),),
                                 (((768, 768), "uint8", 255), _ZERO, _ZERO)),
    "quantize": NodeCase("QuantizeLinear", ((MAP[0], "float32", 0),), (_SCALE, _ZERO)),
    "dequantize": NodeCase("DequantizeLinear", ((MAP[0], "uint8", 255),), (_SCALE, _ZERO)),
    "resize cubic": NodeCase("Resize", (((1, 64, 56, 56), "float32", 0),), (((0,), "float32", 0), ((4,), "scales", 0)),
                             {"mode": "cubic"}),
}  # fmt: skip
"""What PyTorch does not have by itself, measured against onnxruntime."""
CASES: dict[str, Case | NodeCase] = {**{name: Case(*case) for name, case in SAME.items()}, **OTHERS, **NODES}

# --- the programs ---------------------------------------------------------------------------------------------------


def array_of(tensor: Tensor, stream: Any) -> Any:
    """The numbers of a tensor: normal ones, 2 if it is one, whole ones below a limit, or factors of a resize."""
    import numpy as np

    shape, kind, limit = tensor
    if kind == "scales":
        return np.array([1, 1, 2, 2], np.float32)
    if kind == "float32":
        return stream.standard_normal(shape, np.float32) if shape else np.array(2, np.float32)
    return stream.integers(0, limit, shape).astype(kind)


def arrays_of(case: Case) -> list[Any]:
    """What comes in."""
    import numpy as np

    stream = np.random.default_rng(0)
    return [
        array_of((shape, "int64" if place in case.below else "float32", case.below.get(place, 0)), stream)
        for place, shape in enumerate(case.shapes)
    ]


def node_model(case: NodeCase) -> tuple[bytes, dict[str, Any]]:
    """The model of one node, and what comes in."""
    import numpy as np
    from onnx import helper, numpy_helper

    stream = np.random.default_rng(0)
    names = [f"t{place}" for place in range(len(case.inputs) + len(case.constants))]
    inputs = {name: array_of(tensor, stream) for name, tensor in zip(names, case.inputs, strict=False)}
    held = zip(names[len(inputs) :], case.constants, strict=True)
    constants = [numpy_helper.from_array(np.asarray(array_of(tensor, stream)), name) for name, tensor in held]
    graph = helper.make_graph(
        [helper.make_node(case.op, names, ["y"], **case.fields)],
        "case",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [helper.make_empty_tensor_value_info("y")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString()), inputs


def convcalc_program(threads: int) -> Any:
    """convcalc's layer as a network of one, prepared once."""
    # convcalc comes first, because it says which kernels NumPy is to load.
    from convcalc.analysis.shapes import resolve
    from convcalc.executor.run import Prepared, compute, prepare
    from convcalc.executor.threads import threads as using
    from convcalc.layers import FILE_LAYERS, LAYERS
    from convcalc.network import Input, Network, Node, tensor_names
    from convcalc.nouns import read_program

    import numpy as np  # isort: skip

    STAY.enter_context(using(threads))
    names = {}
    for kind in (*LAYERS.values(), *FILE_LAYERS.values()):
        for rank in (1, 2, 3) if isinstance(kind.classes, tuple) else (None,):
            found = kind.layer_class(rank)
            names[found.__name__] = found

    def make(name: str) -> Any:
        case = CASES[name]
        if isinstance(case, NodeCase):
            model, inputs = node_model(case)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "node.onnx"
                path.write_bytes(model)
                prepared = prepare(read_program([str(path)]), inputs)
                compute(prepared)
            return lambda: compute(prepared)
        arrays = {f"input{place}": array for place, array in enumerate(arrays_of(case))}
        layer = eval(case.layer, names)
        outputs = tensor_names("op", layer)
        given = {key: Input(array.shape) for key, array in arrays.items()}
        network = Network(given, (Node("op", layer, tuple(given), outputs),), outputs[:1])
        resolved = resolve(network)
        weights = {**resolved[0].layer.parameters(), **resolved[0].layer.buffers()}
        stream = np.random.default_rng(0)
        drawn = {f"op.{key}": stream.random(shape, np.float32) / 10 for key, shape in weights.items()}
        ready = Prepared(network, resolved, arrays, drawn)
        return lambda: compute(ready)

    return make


def torch_program(threads: int) -> Any:
    """PyTorch's modules and functions, in inference mode."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    STAY.enter_context(torch.inference_mode())

    def make(name: str) -> Any:
        case = CASES[name]
        assert isinstance(case, Case)
        text = case.torch or f"nn.{case.layer}"
        call = eval(text, {"torch": torch, "nn": nn, "F": nn.functional})
        if isinstance(call, nn.Module) and not case.torch.endswith("train()"):
            call.eval()
        inputs = [torch.from_numpy(array) for array in arrays_of(case)]
        return lambda: call(*inputs)

    return make


def onnxruntime_program(threads: int) -> Any:
    """onnxruntime on models of one node."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1

    def make(name: str) -> Any:
        case = CASES[name]
        assert isinstance(case, NodeCase)
        model, inputs = node_model(case)
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        return lambda: session.run(None, inputs)

    return make


PROGRAMS = {"convcalc": convcalc_program, "torch": torch_program, "onnxruntime": onnxruntime_program}

# --- the measuring process ------------------------------------------------------------------------------------------


def measure(threads: int, cases: list[str], rounds: int, *, cpu: bool) -> None:
    """Print the table of one setting, the slowest first."""
    other_of = {case: "onnxruntime" if case in NODES else "torch" for case in cases}
    servers = {name: Server(__file__, name, threads, cpu=cpu) for name in ("convcalc", *set(other_of.values()))}
    times: dict[str, dict[str, list[float]]] = {case: {"convcalc": [], other_of[case]: []} for case in cases}
    for _ in range(rounds):
        for case, found in times.items():
            for name, seconds in found.items():
                seconds.append(servers[name].ask(case))
    for server in servers.values():
        server.close()
    rows = []
    for case, found in times.items():
        ours, others = found.values()
        rows.append((median(a / b for a, b in zip(ours, others, strict=True)), case, median(ours), median(others)))
    print(f"\n{threads} {'thread' if threads == 1 else 'threads'}")
    print(f"{'':24}{'convcalc':>12}{'other':>12}{'ratio':>8}")
    for ratio, case, ours, other in sorted(rows, reverse=True):
        mark = "" if other_of[case] == "torch" else "  onnxruntime"
        print(f"{case:24}{ours * 1e3:9.3f} ms{other * 1e3:9.3f} ms{ratio:8.2f}{mark}")
    mean = math.exp(sum(math.log(row[0]) for row in rows) / len(rows))
    above = sum(row[0] > 2 for row in rows)
    print(f"{'geometric mean':48}{mean:8.2f}; {above} of {len(rows)} above 2", flush=True)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--ops", default="", help="names or parts of names; all of them if none is said")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        clock = time.process_time if options.cpu else time.perf_counter
        serve(PROGRAMS[options.serve](int(options.threads)), clock)
        return
    parts = options.ops.split(",")
    cases = [case for case in CASES if any(part in case for part in parts)]
    if not all(map(find_spec, ("onnxruntime", "onnx"))):
        cases = [case for case in cases if case not in NODES]
    for threads in map(int, options.threads.split(",")):
        measure(threads, cases, options.rounds, cpu=options.cpu)


if __name__ == "__main__":
    main()
