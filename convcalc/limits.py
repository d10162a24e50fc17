"""What a machine can hold: asked before arrays are made, because a system promises memory that it does not have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from convcalc.errors import ResourceError

_BYTES = 8
_GROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""What a system calls no limit is a number beyond this."""


def need_memory(elements: int, what: str) -> None:
    """Raise `ResourceError` when so many numbers of eight bytes are more than the machine's memory holds.

    >>> need_memory(10**30, "the input")
    Traceback (most recent call last):
    convcalc.errors.ResourceError: the input has 1.000e30 numbers, more than this machine's memory holds
    """
    if elements * _BYTES > available_memory():
        from convcalc.render.units import count_text

        raise ResourceError(f"{what} has {count_text(elements)} numbers, more than this machine's memory holds")


def need_bytes(count: int, what: str, instead: str = "") -> None:
    """Raise `ResourceError` when so many bytes are more than there is memory; it ends with what to do `instead`."""
    free = available_memory()
    if count > free:
        from convcalc.render.units import bytes_text

        raise ResourceError(
            f"{what}: {bytes_text(count)} of memory are needed, and {bytes_text(free)} are free{instead}", value=count
        )


def available_memory() -> int:
    """The bytes that this process can still take: what the machine has free, its control group, and its own limit."""
    return max(min((_machine(), *_control_groups(), *_own_limit())), 0)


def _machine() -> int:
    """The memory that is free or can be freed at once; all of it on a system that does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system without these
        return 1 << 36


def _control_groups(membership: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> Iterator[int]:
    """What is left in each control group of Linux that this process is in, and in those around it; none elsewhere.

    Source: the Linux kernel's documentation, Control Group v2, and Memory Resource Controller for version 1.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = groups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        # In a container the path may be the one outside of it: what is there of it is looked at, and the top always.
        for place in (group, *group.parents):
            with suppress(OSError, ValueError, KeyError):
                most = int((place / limit).read_text())
                if most < _NO_LIMIT:
                    fields = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
                    cached = int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
                    yield most - int((place / used).read_text()) + cached
            if place == top:
                break


def _own_limit() -> Iterator[int]:
    """What is left of the address space that `ulimit -v` allows."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield most - used * os.sysconf("SC_PAGE_SIZE")
