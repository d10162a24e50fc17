"""What the processor and the system can do, asked before NumPy is loaded: this module must not load it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

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


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The numbers of two settings in malloc.h of the GNU C library."""
_KEPT = 1 << 29
_LARGE = 32 << 20
"""The most that the second can be."""


def keep_freed_memory() -> None:
    """Let the C library keep what arrays leave for the next ones, up to 512 MiB and of arrays up to 32 MiB.

    Otherwise it gives memory back to the system whenever the arrays of a layer are gone, and for the next layer's the
    system clears it again, page by page. Settings that somebody has made are left alone; other libraries have none.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    with suppress(OSError, TypeError):  # Windows has no library of all that is loaded
        change = getattr(ctypes.CDLL(None), "mallopt", None)
        if change is not None:
            change(_TRIM_THRESHOLD, _KEPT)
            change(_MMAP_THRESHOLD, _LARGE)


def available_threads() -> int:
    """How many threads to use if nobody says: OMP_NUM_THREADS, or the cores that this process may run on."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return core_count()


def core_count() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> frozenset[int]:
    """The cores that this thread may run on; none where that cannot be said and set."""
    if not hasattr(os, "sched_setaffinity") or _current_core() is None:
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def on_another_core(thread: Thread, allowed: frozenset[int]) -> None:
    """Let a thread that waits begin on another of these cores than the one that this thread runs on.

    A system may wake a thread on the core that it is woken from, even where others have nothing to do, and there it
    waits until this thread is done: a second thread that begins so late gains nothing in work of a millisecond.
    """
    if len(allowed) > 1 and thread.native_id is not None:
        _move(thread.native_id, allowed - {_current_core()()})


def on_any_core(allowed: frozenset[int]) -> None:
    """Let this thread move to any of these cores again, after `on_another_core`."""
    if len(allowed) > 1:
        _move(0, allowed)


def _move(thread: int, allowed: frozenset[int]) -> None:
    # Nothing is lost but time when the system refuses.
    with suppress(OSError):
        os.sched_setaffinity(thread, allowed)


@cache
def _current_core() -> Any:
    """The C library's function that says which core this thread runs on, or None."""
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)
