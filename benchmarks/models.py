"""How long whole models take: a ResNet-50 ONNX file of 102 MB, against onnx-tool and torchinfo.

    python benchmarks/models.py                       builds the wheel, installs everything, measures
    python benchmarks/models.py --environment .venv --tools .tools --rounds 20 --check

The file is written with the onnx package (which the `test` extra has); torchinfo gets the same network in PyTorch. The
other tools have an environment of their own; what cannot be installed is left out, and said so. Every round starts each
program once, in an order that is turned round from one round to the next; ratios are medians of each round's ratio, so
that what the machine does besides falls on both alike. The limits are on wall time, and CPU time is printed beside it.
`analysis` is reading and costing, often, in one process, in CPU time.
The minimal apps are those of startup.py: they read nothing, and show what is left when typer and rich have started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

from startup import ROOT, environment_with_wheel, programs

sys.path.insert(0, str(ROOT / "tests"))

ONNX_TOOL = "import sys, onnx_tool; onnx_tool.model_profile(sys.argv[1])"
TORCHINFO = """
import torch, torchinfo
from torch import nn

def conv(a, b, k, s=1):
    return nn.Sequential(nn.Conv2d(a, b, k, s, k // 2, bias=False), nn.BatchNorm2d(b))

class Block(nn.Module):
    def __init__(self, a, w, s):
        super().__init__()
        self.body = nn.Sequential(conv(a, w, 1), nn.ReLU(), conv(w, w, 3, s), nn.ReLU(), conv(w, 4 * w, 1))
        self.down = conv(a, 4 * w, 1, s) if a != 4 * w else nn.Identity()
    def forward(self, x):
        return torch.relu(self.body(x) + self.down(x))

layers, before = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
    for block in range(blocks):
        layers.append(Block(before, width, 2 if stage and not block else 1))
        before = 4 * width
layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000)]
torchinfo.summary(nn.Sequential(*layers), (1, 3, 224, 224))
"""
ANALYSIS = """
import sys, time
from pathlib import Path
from convcalc.analysis.costs import costs
from convcalc.onnx.file import read_onnx
times = []
for _ in range(15):
    start = time.process_time()
    costs(read_onnx(Path(sys.argv[1])))
    times.append(time.process_time() - start)
print(sorted(times)[len(times) // 2])
"""
WRITE = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from onnx_models import resnet50
Path(sys.argv[2]).write_bytes(resnet50().SerializeToString())
"""
RATIOS = {("convcalc, tsv", "onnx-tool"): 7, ("convcalc, tsv", "torchinfo"): 40, ("convcalc, table", "onnx-tool"): 5}
"""How many times as fast as the other tool convcalc is to be."""
MOST_MEMORY, MOST_ANALYSIS = 40e6, 15e-3


def tools_environment(folder: Path) -> Path:
    """A new virtual environment with the other tools, as far as they can be had."""
    venv.create(folder / "tools", with_pip=True)
    for package in (["onnx-tool", "onnx"], ["torchinfo", "torch"]):
        command = [folder / "tools/bin/python", "-m", "pip", "install", "-q", *package]
        if subprocess.run(command, check=False).returncode:
            print(f"{package[0]} could not be installed, and is left out")
    return folder / "tools"


def has(python: Path, module: str) -> bool:
    """Whether an environment has a module."""
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode


def chain_file(path: Path, nodes: int) -> None:
    """Convolutions and activations in a row, so many nodes."""
    from onnx import helper
    from onnx_models import initializer, model

    made = [
        helper.make_node("Conv", [f"t{i}", "w"], [f"t{i + 1}"], name=f"/conv{i}", pads=[1] * 4)
        if i % 2 == 0
        else helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=f"/relu{i}")
        for i in range(nodes)
    ]
    weights = [initializer("w", 8, 8, 3, 3)]
    path.write_bytes(model(made, {"t0": [1, 8, 32, 32]}, {f"t{nodes}": None}, weights).SerializeToString())


Taken = tuple[float, float, float]
"""Seconds of wall time and of CPU time that a command took, and the bytes that it held at most."""


def measure(command: list[str]) -> Taken:
    """What a command takes."""
    start = time.perf_counter()
    actions = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, 1, 0) for stream in (1, 2)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)[:200]} ended with status {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Measure, print the table, and give the exit status."""
    parser = argparse.ArgumentParser(description="Whole models: convcalc against onnx-tool and torchinfo.")
    parser.add_argument("--environment", type=Path, help="a virtual environment that has convcalc installed")
    parser.add_argument("--tools", type=Path, help="a virtual environment that has the other tools")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--check", action="store_true", help="exit status 1 when a limit is passed")
    options = parser.parse_args()
    os.environ["COLUMNS"] = "120"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "resnet50.onnx"
        # In a process of its own: a child's memory is counted from its parent's on.
        subprocess.run([sys.executable, "-c", WRITE, ROOT / "tests", model], check=True)
        environment = (options.environment or environment_with_wheel(folder)).absolute()
        tools = (options.tools or tools_environment(folder)).absolute() / "bin/python"
        python = str(environment / "bin/python")
        convcalc = [python, str(environment / "bin/convcalc"), "flops", str(model), "--format"]
        commands = {
            "python -c pass": [python, "-c", "pass"],
            "convcalc, tsv": [*convcalc, "tsv"],
            "convcalc, table": [*convcalc, "table"],
        }
        floors = programs(environment, folder)
        commands |= {name: command for name, command in floors.items() if name.startswith("minimal app")}
        if has(tools, "onnx_tool"):
            commands["onnx-tool"] = [str(tools), "-c", ONNX_TOOL, str(model)]
        if has(tools, "torchinfo"):
            commands["torchinfo"] = [str(tools), "-c", TORCHINFO]
        runs = rounds(commands, options.rounds)
        passed = report(runs)
        passed &= analyses(python, folder, model)
    return 1 if options.check and not passed else 0


def rounds(commands: dict[str, list[str]], count: int) -> dict[str, list[Taken]]:
    """What each command took in each round."""
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for number in range(-1, count):
        for name in sorted(commands, reverse=number % 2 == 0):
            found = measure(commands[name])
            if number >= 0:  # the round before warms the disk's cache
                taken[name].append(found)
    return taken


def report(runs: dict[str, list[Taken]]) -> bool:
    """Print what was measured, and whether the limits are kept."""
    print(f"{len(runs['python -c pass'])} rounds, whole processes; wall | CPU")
    for name, taken in runs.items():
        wall, cpu, _ = map(median, zip(*taken, strict=True))
        held = max(held for _, _, held in taken)
        print(f"{name:18} {wall * 1e3:8.1f}|{cpu * 1e3:8.1f} ms {held / 1e6:8.1f} MB")
    passed = True
    for (ours, other), least in RATIOS.items():
        if other in runs:
            wall, cpu = ratios(runs[ours], runs[other])
            passed &= wall >= least
            verdict = "kept" if wall >= least else "PASSED"
            print(f"{ours:18} {wall:6.1f}|{cpu:6.1f} times as fast as {other}; at least {least}: {verdict}")
    for floor in [name for name in runs if name.startswith("minimal app")]:
        for other in [name for name in ("onnx-tool", "torchinfo") if name in runs]:
            wall, cpu = ratios(runs[floor], runs[other])
            print(f"{floor:18} {wall:6.1f}|{cpu:6.1f} times as fast as {other}, reading nothing")
    held = max(held for _, _, held in runs["convcalc, tsv"])
    print(f"memory of convcalc, tsv: {held / 1e6:.1f} MB; at most {MOST_MEMORY / 1e6:.0f}: "
          f"{'kept' if held <= MOST_MEMORY else 'PASSED'}")  # fmt: skip
    return passed and held <= MOST_MEMORY


def ratios(ours: list[Taken], others: list[Taken]) -> tuple[float, float]:
    """How many times as long the other program took in wall time and in CPU time: the median of each round's ratio."""
    pairs = list(zip(ours, others, strict=True))
    return median(slow[0] / fast[0] for fast, slow in pairs), median(slow[1] / fast[1] for fast, slow in pairs)


def analyses(python: str, folder: Path, model: Path) -> bool:
    """Print what the analysis alone takes, and how it grows."""

    def seconds(path: Path) -> float:
        done = subprocess.run([python, "-c", ANALYSIS, path], capture_output=True, text=True, check=True)
        return float(done.stdout)

    taken = seconds(model)
    print(f"analysis of ResNet-50: {taken * 1e3:.1f} ms; at most {MOST_ANALYSIS * 1e3:.0f}: "
          f"{'kept' if taken <= MOST_ANALYSIS else 'PASSED'}")  # fmt: skip
    for nodes in (500, 2000, 8000):
        chain_file(folder / "chain.onnx", nodes)
        print(f"analysis of {nodes} nodes: {seconds(folder / 'chain.onnx') / nodes * 1e6:.1f} µs a node")
    return taken <= MOST_ANALYSIS


if __name__ == "__main__":
    sys.exit(main())
