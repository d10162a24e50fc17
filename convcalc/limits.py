"""What a machine can hold: asked before arrays are made, because a system promises memory that it does not have."""

from __future__ import annotations

import os

from convcalc.errors import ResourceError

_BYTES = 8


def need_memory(elements: int, what: str) -> None:
    """Raise `ResourceError` when so many numbers of eight bytes are more than the machine's memory holds.

    >>> need_memory(10**30, "the input")
    Traceback (most recent call last):
    convcalc.errors.ResourceError: the input has 1.000e30 numbers, more than this machine's memory holds
    """
    if elements * _BYTES > _memory():
        from convcalc.render.units import count_text

        raise ResourceError(f"{what} has {count_text(elements)} numbers, more than this machine's memory holds")


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system without these
        return 1 << 36
