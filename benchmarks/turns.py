"""Programs in processes of their own that take turns: what benchmarks/executor.py and benchmarks/operators.py share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

LEAST_SECONDS = 0.03
"""How long a process computes before it says its time."""
STAY = ExitStack()
"""Settings of a program, which last as long as its process."""


def serve(make: Callable[..., Callable[[], object]], clock: Callable[[], float]) -> None:
    """Answer each line of standard input, the arguments of `make`, with the seconds of a run of what that makes.

    A time is the shortest of several runs.
    """
    made: dict[str, Callable[[], object]] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        if line not in made:
            made[line] = make(*json.loads(line))
            made[line]()
        run = made[line]
        run()
        times: list[float] = []
        start = time.perf_counter()
        while time.perf_counter() - start < LEAST_SECONDS or len(times) < 3:
            begin = clock()
            run()
            times.append(clock() - begin)
        print(min(times), flush=True)
    STAY.close()


class Server:
    """A program in a process of its own: a script that `serve`s when it is called with --serve NAME."""

    def __init__(self, script: str, name: str, threads: int, *, cpu: bool = False) -> None:
        # Every program chooses its own kernels for the processor.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS_", "DNNL_"))}
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, script, "--serve", name, "--threads", str(threads), *["--cpu"] * cpu],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._answer()

    def ask(self, *arguments: Any) -> float:
        """The seconds of what the program makes of these arguments."""
        assert self.process.stdin is not None
        print(json.dumps(arguments), file=self.process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended: {self.process.args}")
        return line.strip()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
