"""Eleven layers and ResNet-50: convcalc's time over PyTorch's and onnxruntime's, for 1 and 2 threads, batches 1 and 8.

    python benchmarks/executor.py [--rounds 7] [--threads 1,2] [--batches 1,8] [--layers 64@56,...] [--cpu]

Each program runs in a process of its own with a fixed number of threads, and they take turns: a ratio is of two times
taken one after the other, and the table has the median of each layer's ratios. A time is the shortest of the runs of
one turn; with --cpu it is processor time, which other work on the machine disturbs less (for 1 thread only). PyTorch
must be there; onnxruntime is measured too where it and onnx are. Exit status 0 once all is measured.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from turns import STAY, Server, serve


class Case(NamedTuple):
    """A layer: its kind, channels in, size, channels out, kernel, stride, padding and groups."""

    kind: str
    channels: int
    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


CASES = {
    "3@224 7x7 s2": Case("conv", 3, 224, 64, 7, 2, 3),
    "64@56 3x3": Case("conv", 64, 56, 64, 3, 1, 1),
    "128@28 3x3": Case("conv", 128, 28, 128, 3, 1, 1),
    "256@14 3x3": Case("conv", 256, 14, 256, 3, 1, 1),
    "512@7 3x3": Case("conv", 512, 7, 512, 3, 1, 1),
    "256@56 1x1": Case("conv", 256, 56, 64, 1),
    "1024@14 1x1": Case("conv", 1024, 14, 256, 1),
    "144@56 depthwise": Case("conv", 144, 56, 144, 3, 1, 1, 144),
    "100@64 5x5": Case("conv", 100, 64, 100, 5, 1, 2),
    "64@112 max pool": Case("pool", 64, 112, 64, 3, 2, 1),
    "256@28 transposed": Case("convt", 256, 28, 128, 4, 2, 1),
}
GOALS = {"144@56 depthwise": 3.0}
"""The most that a layer's ratio may be, where it is not 2. Depthwise may take 5 at two threads and batch 1."""
NETWORK = "ResNet-50"
"""The case that is examples/resnet50.txt; it is no part of the geometric mean."""

# --- the programs: each makes a function that computes a case -------------------------------------------------------


def convcalc_program(threads: int) -> Any:
    """convcalc's layers, prepared once."""
    # convcalc comes first, because it says which kernels NumPy is to load.
    from convcalc.executor.run import compute, prepare
    from convcalc.executor.threads import threads as using
    from convcalc.nouns import read_program

    import numpy as np  # isort: skip

    STAY.enter_context(using(threads))

    def make(case: Case | None, batch: int) -> Any:
        if case is None:
            image = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "resnet50.onnx"
                path.write_bytes(network_model(batch))
                network = prepare(read_program([str(path)]), image)
                compute(network)  # which reads the weights
            return lambda: compute(network)
        layer = convcalc_layer(case)
        x = np.random.default_rng(0).standard_normal((batch, case.channels, case.size, case.size), dtype=np.float32)
        prepared = prepare(layer, x)
        return lambda: compute(prepared)

    return make


def convcalc_layer(case: Case) -> Any:
    from convcalc import Conv2d, ConvTranspose2d, MaxPool2d

    if case.kind == "pool":
        return MaxPool2d(case.kernel, case.stride, case.padding)
    if case.kind == "convt":
        return ConvTranspose2d(case.channels, case.out, case.kernel, case.stride, case.padding)
    return Conv2d(case.channels, case.out, case.kernel, case.stride, case.padding, groups=case.groups)


def torch_module(case: Case) -> Any:
    from torch import nn

    if case.kind == "pool":
        return nn.MaxPool2d(case.kernel, case.stride, case.padding)
    if case.kind == "convt":
        return nn.ConvTranspose2d(case.channels, case.out, case.kernel, case.stride, case.padding)
    return nn.Conv2d(case.channels, case.out, case.kernel, case.stride, case.padding, groups=case.groups)


def torch_program(threads: int) -> Any:
    """PyTorch's modules, in inference mode."""
    import torch

    torch.set_num_threads(threads)
    STAY.enter_context(torch.inference_mode())

    def make(case: Case | None, batch: int) -> Any:
        if case is None:
            return torch_network(batch)
        module = torch_module(case).eval()
        x = torch.randn(batch, case.channels, case.size, case.size)
        return lambda: module(x)

    return make


def onnxruntime_program(threads: int) -> Any:
    """onnxruntime on a model of one node."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    stream = np.random.default_rng(0)

    def make(case: Case | None, batch: int) -> Any:
        if case is None:
            session = onnxruntime.InferenceSession(network_model(batch), options, ["CPUExecutionProvider"])
            image = stream.standard_normal((batch, 3, 224, 224), dtype=np.float32)
            return lambda: session.run(None, {"input": image})
        fields: dict[str, Any] = {"strides": [case.stride] * 2, "pads": [case.padding] * 4}
        shape = [case.kernel] * 2
        first = (case.channels, case.out) if case.kind == "convt" else (case.out, case.channels // case.groups)
        arrays = {} if case.kind == "pool" else {"w": (*first, *shape), "b": (case.out,)}
        op = {"pool": "MaxPool", "convt": "ConvTranspose", "conv": "Conv"}[case.kind]
        if case.kind == "conv":
            fields["group"] = case.groups
        node = helper.make_node(op, ["x", *arrays], ["y"], kernel_shape=shape, **fields)
        graph = helper.make_graph(
            [node],
            "case",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, case.channels, case.size, case.size))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(stream.standard_normal(s, dtype=np.float32), name) for name, s in arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        x = stream.standard_normal((batch, case.channels, case.size, case.size), dtype=np.float32)
        return lambda: session.run(None, {"x": x})

    return make


def reference_program(threads: int) -> Any:
    """ONNX's reference evaluator, which is written in Python with NumPy, on the network alone."""
    import numpy as np
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    def make(case: Case | None, batch: int) -> Any:
        assert case is None
        session = ReferenceEvaluator(load_from_string(network_model(batch)))
        image = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
        return lambda: session.run(None, {"input": image})

    return make


# --- the network, which all are given by convcalc -------------------------------------------------------------


def network_text() -> str:
    """The lines of the example without comments and input."""
    text = (Path(__file__).parent.parent / "examples" / "resnet50.txt").read_text(encoding="utf-8")
    return " ".join(line for line in text.splitlines() if not line.startswith(("#", "input")))


def network_nodes(batch: int) -> Any:
    """The layers with the names of their tensors, in order."""
    from convcalc import parse_network
    from convcalc.analysis.shapes import resolve

    return resolve(parse_network(f"{batch}x3x224x224 {network_text()}"))


def torch_network(batch: int) -> Any:
    """The same layers of torch.nn, called in the same order."""
    import torch
    from torch import nn

    modules: list[Any] = []
    nodes = network_nodes(batch)
    for item in nodes:
        layer = item.layer
        if layer.kind == "conv":
            pads = [before for before, _ in layer.padding]
            modules.append(
                nn.Conv2d(
                    *layer.bound[:2], layer.kernel_size, layer.stride, pads, layer.dilation, layer.bound[2], layer.bias
                )
            )
        elif layer.kind == "maxpool":
            pads = [before for before, _ in layer.padding]
            modules.append(nn.MaxPool2d(layer.kernel_size, layer.stride, pads))
        elif layer.kind == "linear":
            modules.append(nn.Linear(item.inputs[0][1], item.outputs[0][1]))
        else:
            plain = {"relu": nn.ReLU, "flatten": nn.Flatten, "adaptiveavgpool": partial(nn.AdaptiveAvgPool2d, 1)}
            made = {**plain, "batchnorm": partial(nn.BatchNorm2d, item.inputs[0][1]), "add": lambda: torch.add}
            modules.append(made[layer.kind]())
    for module in modules:
        if isinstance(module, nn.Module):
            module.eval()
    image = torch.randn(batch, 3, 224, 224)

    def run() -> None:
        tensors = {"input": image}
        for item, module in zip(nodes, modules, strict=True):
            tensors[item.node.outputs[0]] = module(*(tensors[name] for name in item.node.inputs))

    return run


def network_model(batch: int) -> bytes:
    """The same as an ONNX model, weights drawn at random."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    stream = np.random.default_rng(0)
    nodes, arrays = [], []
    ops = {"conv": "Conv", "batchnorm": "BatchNormalization", "relu": "Relu", "maxpool": "MaxPool", "add": "Add",
           "adaptiveavgpool": "GlobalAveragePool", "flatten": "Flatten", "linear": "Gemm"}  # fmt: skip
    for item in network_nodes(batch):
        layer, name = item.layer, item.node.name
        fields: dict[str, Any] = {"transB": 1} if layer.kind == "linear" else {}
        if layer.kind in ("conv", "maxpool"):
            pads = [pair[side] for side in (0, 1) for pair in layer.padding]
            fields = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": pads}
        weights = {**layer.parameters(), **layer.buffers()}
        weights.pop("num_batches_tracked", None)
        for key, shape in weights.items():
            drawn = stream.random(shape, np.float32) / max(np.prod(shape[1:]), 1) ** 0.5 + (key == "running_var")
            arrays.append(numpy_helper.from_array(drawn.astype(np.float32), f"{name}.{key}"))
        inputs = [*item.node.inputs, *(f"{name}.{key}" for key in weights)]
        nodes.append(helper.make_node(ops[layer.kind], inputs, [item.node.outputs[0]], **fields))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (batch, 3, 224, 224))],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


PROGRAMS = {
    "convcalc": convcalc_program,
    "torch": torch_program,
    "onnxruntime": onnxruntime_program,
    "reference": reference_program,
}


# --- the measuring process ------------------------------------------------------------------------------------------


def measure(threads: int, batch: int, cases: list[str], rounds: int, others: list[str], *, cpu: bool) -> None:
    """Print the table of one setting."""
    servers = {name: Server(__file__, name, threads, cpu=cpu) for name in ("convcalc", *others)}
    times: dict[str, dict[str, list[float]]] = {case: {name: [] for name in servers} for case in cases}
    for _ in range(rounds):
        for case in cases:
            for name, server in servers.items():
                times[case][name].append(server.ask(case, batch))
    for server in servers.values():
        server.close()
    print(f"\n{threads} {'thread' if threads == 1 else 'threads'}, batch {batch}")
    print(f"{'':20}{'convcalc':>10}" + "".join(f"{name:>14}{'ratio':>7}" for name in others) + "   at most")
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for case, measured in times.items():
        if case == NETWORK:
            print("-" * 20)
        line = f"{case:20}{median(measured['convcalc']) * 1e3:7.2f} ms"
        for name in others:
            ratio = median(a / b for a, b in zip(measured["convcalc"], measured[name], strict=True))
            if case != NETWORK:
                ratios[name].append(ratio)
            line += f"{median(measured[name]) * 1e3:11.2f} ms{ratio:7.2f}"
        goal = 5.0 if case in GOALS and (threads, batch) == (2, 1) else GOALS.get(case, 2.0)
        if case == NETWORK:
            print(line)
        else:
            print(f"{line}{goal:10.1f}{'' if ratios[others[0]][-1] <= goal else '  above'}")
    if ratios[others[0]]:
        means = (math.exp(sum(map(math.log, ratios[name])) / len(ratios[name])) for name in others)
        print(f"{'geometric mean':30}" + "".join(f"{'':14}{mean:7.2f}" for mean in means) + f"{1.0:10.1f}", flush=True)


def measure_reference(threads: int, rounds: int) -> None:
    """Print how many times as fast as ONNX's reference evaluator the network is, at batch 1."""
    servers = {name: Server(__file__, name, threads) for name in ("convcalc", "reference")}
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            times[name].append(server.ask(NETWORK, 1))
    for server in servers.values():
        server.close()
    ratio = median(b / a for a, b in zip(times["convcalc"], times["reference"], strict=True))
    print(f"\n{NETWORK} by ONNX's reference evaluator, {threads} thread{'s' * (threads > 1)}: "
          f"{median(times['reference']) * 1e3:.0f} ms, {ratio:.1f} times convcalc's (at least 10)")  # fmt: skip


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--layers", default=",".join((*CASES, NETWORK)), help="names or parts of names")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        program = PROGRAMS[options.serve](int(options.threads))
        serve(
            lambda case, batch: program(CASES.get(case), batch), time.process_time if options.cpu else time.perf_counter
        )
        return
    others = ["torch"]
    if all(map(find_spec, ("onnxruntime", "onnx"))):
        others.append("onnxruntime")
    parts = options.layers.split(",")
    cases = [case for case in (*CASES, NETWORK) if any(part in case for part in parts)]
    for threads in map(int, options.threads.split(",")):
        for batch in map(int, options.batches.split(",")):
            measure(threads, batch, cases, options.rounds, others, cpu=options.cpu)
        if NETWORK in cases and len(others) > 1:
            measure_reference(threads, min(options.rounds, 3))


if __name__ == "__main__":
    main()
