"""What the processor can do, asked before NumPy is loaded: this module must not load it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_WIDE = frozenset(("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"))
"""What OpenBLAS's kernels for Skylake-X need."""


def use_wide_matmul(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Let OpenBLAS use the processor's 512-bit units. Once NumPy is loaded this does nothing.

    OpenBLAS picks its kernels by the processor's name, and may not know that a newer AMD processor has such units: it
    takes those for Haswell, which reach half of the speed. A core type that somebody has set is left alone.
    """
    if "OPENBLAS_CORETYPE" in os.environ or "numpy" in sys.modules:
        return
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:  # not Linux
        return
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    if fields.get("vendor_id") == "AuthenticAMD" and _WIDE.issubset(fields.get("flags", "").split()):
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"


def available_threads() -> int:
    """How many threads to use if nobody says: OMP_NUM_THREADS, or the cores that this process may run on."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
