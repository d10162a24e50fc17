"""How long `convcalc` takes to answer, against a minimal typer app of nine options that prints the same.

    python benchmarks/startup.py                             builds the wheel, installs it alone, measures
    python benchmarks/startup.py --environment .venv         measures what is installed there
    python benchmarks/startup.py --rounds 100 --check        exit status 1 when a limit is passed

Every round starts each program once, in an order that is turned round from one round to the next, so that what the
machine does besides falls on all of them alike. The minimal apps are modules with compiled bytecode and start through
the same kind of script as pip makes, from the same environment. Figures that travel from machine to machine are the
ratios of medians; the limits are on wall time, and CPU time is printed beside it.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
QUESTION = ["shape", "3x224x224", "conv:64,k7,s2,p3"]

APP = '''
from typing import Annotated, Optional
import typer

app = typer.Typer()


@app.command()
def shape(
    words: list[str],
    kernel_size: Annotated[Optional[str], typer.Option("-k", "--kernel-size", help="Kernel.")] = None,
    stride: Annotated[Optional[str], typer.Option("-s", "--stride", help="Stride.")] = None,
    padding: Annotated[Optional[str], typer.Option("-p", "--padding", help="Padding.")] = None,
    dilation: Annotated[Optional[str], typer.Option("-d", "--dilation", help="Dilation.")] = None,
    groups: Annotated[Optional[str], typer.Option("-g", "--groups", help="Groups.")] = None,
    channels: Annotated[Optional[str], typer.Option("-c", "--channels", help="Channels.")] = None,
    bias: Annotated[bool, typer.Option("--bias/--no-bias", help="Bias.")] = True,
    format_name: Annotated[str, typer.Option("--format", help="Format.")] = "table",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Quiet.")] = False,
):
    """The output shape."""
'''
PLAIN = """
    print("Layer                      Input      Output")
    print("0      conv2d:64,k7,s2,p3  3x224x224  64x112x112")
"""
TABLE = """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    table.add_column("Layer", style="dim", no_wrap=True, overflow="fold")
    table.add_column("", style="cyan", overflow="fold")
    table.add_column("Input", no_wrap=True, overflow="fold")
    table.add_column("Output", style="green", no_wrap=True, overflow="fold")
    table.add_row("0", "conv2d:64,k7,s2,p3", "3x224x224", "64x112x112")
    Console().print(table)
"""
SCRIPT = """\
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.exit({name}())
"""
LIMITS = {"convcalc, table": ("minimal app, table", 1.1), "convcalc, plain": ("minimal app, plain", 1.15)}


def environment_with_wheel(folder: Path) -> Path:
    """A new virtual environment that has convcalc's wheel and what it needs, and nothing else."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    venv.create(folder / "environment", with_pip=True)
    wheel = next(folder.glob("convcalc-*.whl"))
    subprocess.run([folder / "environment/bin/python", "-m", "pip", "install", "-q", wheel], check=True)
    return folder / "environment"


def programs(environment: Path, folder: Path) -> dict[str, list[str]]:
    """The command lines to start, by name; the minimal apps are written into the folder."""
    python = str(environment / "bin/python")
    commands = {}
    for name, body in (("table", TABLE), ("plain", PLAIN)):
        (folder / f"minimal_{name}.py").write_text(f"{APP}{body}", encoding="utf-8")
        start = folder / f"start_{name}.py"
        start.write_text(SCRIPT.format(module=f"minimal_{name}", name="app"), encoding="utf-8")
        commands[f"minimal app, {name}"] = [python, str(start), *QUESTION[1:]]
        commands[f"convcalc, {name}"] = [python, str(environment / "bin/convcalc"), *QUESTION, "--format", name]
    compileall.compile_dir(str(folder), quiet=1)
    return {"python -c pass": [python, "-c", "pass"], **commands}


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds of wall time and of CPU time that a command takes."""
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)])
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, print the table, and give the exit status."""
    parser = argparse.ArgumentParser(description="Start-up time of convcalc against a minimal typer app.")
    parser.add_argument("--environment", type=Path, help="a virtual environment that has convcalc installed")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--check", action="store_true", help="exit status 1 when a limit is passed")
    options = parser.parse_args()
    os.environ["COLUMNS"] = "100"
    with tempfile.TemporaryDirectory() as folder:
        environment = options.environment or environment_with_wheel(Path(folder))
        commands = programs(environment.absolute(), Path(folder))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(-2, options.rounds):
            for name in sorted(commands, reverse=number % 2 == 0):
                taken = measure(commands[name])
                if number >= 0:  # the rounds before warm the disk's cache
                    times[name].append(taken)
    medians = {name: tuple(median(column) for column in zip(*taken, strict=True)) for name, taken in times.items()}
    print(f"{options.rounds} rounds; wall | CPU")
    print(f"{'':20}  {'ms':>11}  {'/ python -c pass':>17}  {'/ minimal app':>15}  limit")
    passed = True
    for name, (wall, cpu) in medians.items():
        base = medians["python -c pass"]
        line = f"{name:20}  {wall * 1e3:5.1f}|{cpu * 1e3:5.1f}  {wall / base[0]:8.2f}|{cpu / base[1]:8.2f}"
        if name in LIMITS:
            other, limit = LIMITS[name]
            ratios = wall / medians[other][0], cpu / medians[other][1]
            line += f"  {ratios[0]:7.3f}|{ratios[1]:7.3f}  {limit} {'kept' if ratios[0] <= limit else 'PASSED'}"
            passed = passed and ratios[0] <= limit
        print(line)
    return 1 if options.check and not passed else 0


if __name__ == "__main__":
    sys.exit(main())
