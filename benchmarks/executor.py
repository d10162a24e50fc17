"""Eleven layers: convcalc's time over PyTorch's and onnxruntime's, at 1 and 2 threads, for batches of 1 and 8.

    python benchmarks/executor.py [--rounds 7] [--threads 1,2] [--batches 1,8] [--layers 64@56,...] [--cpu]

Each program runs in a process of its own with a fixed number of threads, and they take turns: a ratio is of two times
taken one after the other, and the table has the median of each layer's ratios. A time is the shortest of the runs of
one turn; with --cpu it is processor time, which other work on the machine disturbs less (for 1 thread only). PyTorch
must be there; onnxruntime is measured too where it and onnx are. Exit status 0 once all is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple


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
LEAST_SECONDS = 0.03
"""How long a process computes before it says its time."""


STAY = ExitStack()
"""Settings of a program, which last as long as its process."""

# --- the programs: each makes a function that computes a case -------------------------------------------------------


def convcalc_program(threads: int) -> Any:
    """convcalc's layers, prepared once."""
    # convcalc comes first, because it says which kernels NumPy is to load.
    from convcalc import Conv2d, ConvTranspose2d, MaxPool2d
    from convcalc.executor.run import compute, prepare
    from convcalc.executor.threads import threads as using

    import numpy as np  # isort: skip

    STAY.enter_context(using(threads))

    def make(case: Case, batch: int) -> Any:
        if case.kind == "pool":
            layer: Any = MaxPool2d(case.kernel, case.stride, case.padding)
        elif case.kind == "convt":
            layer = ConvTranspose2d(case.channels, case.out, case.kernel, case.stride, case.padding)
        else:
            layer = Conv2d(case.channels, case.out, case.kernel, case.stride, case.padding, groups=case.groups)
        x = np.random.default_rng(0).standard_normal((batch, case.channels, case.size, case.size), dtype=np.float32)
        prepared = prepare(layer, x)
        return lambda: compute(prepared)

    return make


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

    def make(case: Case, batch: int) -> Any:
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

    def make(case: Case, batch: int) -> Any:
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


PROGRAMS = {"convcalc": convcalc_program, "torch": torch_program, "onnxruntime": onnxruntime_program}


def serve(name: str, threads: int, clock: Callable[[], float]) -> None:
    """Answer each line of standard input, [case, batch], with the seconds that one run takes."""
    make = PROGRAMS[name](threads)
    made: dict[str, Any] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        case, batch = json.loads(line)
        if line not in made:
            made[line] = make(CASES[case], batch)
            made[line]()
        run = made[line]
        run()
        times = []
        start = time.perf_counter()
        while time.perf_counter() - start < LEAST_SECONDS or len(times) < 3:
            begin = clock()
            run()
            times.append(clock() - begin)
        print(min(times), flush=True)


# --- the measuring process ------------------------------------------------------------------------------------------


class Server:
    """A program in a process of its own."""

    def __init__(self, name: str, threads: int, *, cpu: bool) -> None:
        # Every program chooses its own kernels for the processor.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS_", "DNNL_"))}
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--threads", str(threads), *["--cpu"] * cpu],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._answer()

    def ask(self, case: str, batch: int) -> float:
        assert self.process.stdin is not None
        print(json.dumps([case, batch]), file=self.process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended: {self.process.args}")
        return line.strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(threads: int, batch: int, cases: list[str], rounds: int, others: list[str], *, cpu: bool) -> None:
    """Print the table of one setting."""
    servers = {name: Server(name, threads, cpu=cpu) for name in ("convcalc", *others)}
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
        line = f"{case:20}{median(measured['convcalc']) * 1e3:7.2f} ms"
        for name in others:
            ratio = median(a / b for a, b in zip(measured["convcalc"], measured[name], strict=True))
            ratios[name].append(ratio)
            line += f"{median(measured[name]) * 1e3:11.2f} ms{ratio:7.2f}"
        goal = 5.0 if case in GOALS and (threads, batch) == (2, 1) else GOALS.get(case, 2.0)
        first = ratios[others[0]][-1]
        print(f"{line}{goal:10.1f}{'' if first <= goal else '  above'}")
    line = f"{'geometric mean':30}"
    for name in others:
        line += f"{'':14}{math.exp(sum(map(math.log, ratios[name])) / len(cases)):7.2f}"
    print(f"{line}{1.0:10.1f}", flush=True)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--layers", default=",".join(CASES), help="names or parts of names")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, int(options.threads), time.process_time if options.cpu else time.perf_counter)
        return
    others = ["torch"]
    if all(map(find_spec, ("onnxruntime", "onnx"))):
        others.append("onnxruntime")
    parts = options.layers.split(",")
    cases = [case for case in CASES if any(part in case for part in parts)]
    for threads in map(int, options.threads.split(",")):
        for batch in map(int, options.batches.split(",")):
            measure(threads, batch, cases, options.rounds, others, cpu=options.cpu)


if __name__ == "__main__":
    main()
