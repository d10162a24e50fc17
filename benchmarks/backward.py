"""The gradients of eleven layers: convcalc's time over PyTorch's, for 1 and 2 threads at batch 8.

    python benchmarks/backward.py [--rounds 7] [--threads 1,2] [--batches 8] [--layers 64@56,...]

What is measured are the gradients of the input and of every weight from one of the output, after a forward pass that
is not measured. Each program runs in a process of its own, and they take turns, as in benchmarks/executor.py.
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import median
from typing import Any

from executor import CASES, convcalc_layer, torch_module
from turns import STAY, Server, serve


def convcalc_program(threads: int) -> Any:
    """convcalc's gradients."""
    # convcalc comes first, because it says which kernels NumPy is to load.
    from convcalc.executor.kernels import LayerWeights, gradient_of, kernel_of
    from convcalc.executor.threads import threads as using

    import numpy as np  # isort: skip

    STAY.enter_context(using(threads))

    def make(name: str, batch: int) -> Any:
        case = CASES[name]
        stream = np.random.default_rng(0)
        x = stream.standard_normal((batch, case.channels, case.size, case.size), dtype=np.float32)
        layer = convcalc_layer(case).bind(x.shape)
        sizes = layer.parameters()
        weights = LayerWeights({key: stream.standard_normal(size, dtype=np.float32) for key, size in sizes.items()})
        outputs = kernel_of(layer)(layer, (x,), weights)
        grads = tuple(stream.standard_normal(y.shape, dtype=np.float32) for y in outputs)
        gradient = gradient_of(layer)
        return lambda: gradient(layer, (x,), outputs, LayerWeights(weights), grads)

    return make


def torch_program(threads: int) -> Any:
    """PyTorch's, of the graph of one forward pass."""
    import torch

    torch.set_num_threads(threads)

    def make(name: str, batch: int) -> Any:
        case = CASES[name]
        module = torch_module(case)
        x = torch.randn(batch, case.channels, case.size, case.size, requires_grad=True)
        y = module(x)
        wanted, grad = [x, *module.parameters()], torch.randn_like(y)
        return lambda: torch.autograd.grad(y, wanted, grad, retain_graph=True)

    return make


PROGRAMS = {"convcalc": convcalc_program, "torch": torch_program}
GOAL = 3.0
"""The most that a layer's ratio may be."""


def measure(threads: int, batch: int, cases: list[str], rounds: int) -> None:
    """Print the table of one setting."""
    servers = {name: Server(__file__, name, threads) for name in PROGRAMS}
    times: dict[str, list[list[float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            times[case].append([server.ask(case, batch) for server in servers.values()])
    for server in servers.values():
        server.close()
    print(f"\n{threads} {'thread' if threads == 1 else 'threads'}, batch {batch}")
    print(f"{'':20}{'convcalc':>10}{'torch':>14}{'ratio':>7}{'at most':>10}")
    ratios = []
    for case, pairs in times.items():
        ours, theirs = (median(column) * 1e3 for column in zip(*pairs, strict=True))
        ratios.append(median(own / other for own, other in pairs))
        above = "  above" if ratios[-1] > GOAL else ""
        print(f"{case:20}{ours:7.2f} ms{theirs:11.2f} ms{ratios[-1]:7.2f}{GOAL:10.1f}{above}")
    print(f"{'geometric mean':44}{math.exp(sum(map(math.log, ratios)) / len(ratios)):7.2f}", flush=True)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="8")
    parser.add_argument("--layers", default=",".join(CASES), help="names or parts of names")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(PROGRAMS[options.serve](int(options.threads)), time.perf_counter)
        return
    parts = options.layers.split(",")
    cases = [case for case in CASES if any(part in case for part in parts)]
    for threads in map(int, options.threads.split(",")):
        for batch in map(int, options.batches.split(",")):
            measure(threads, batch, cases, options.rounds)


if __name__ == "__main__":
    main()
