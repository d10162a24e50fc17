"""convcalc: shapes, FLOPs, memory, merging and execution of convolutional layers and models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convcalc._version import __version__

if TYPE_CHECKING:
    from convcalc.executor.fit import fit as fit
    from convcalc.executor.matrix import as_matrix as as_matrix
    from convcalc.executor.run import prepare as prepare
    from convcalc.executor.run import run as run

_WHERE = {
    "as_matrix": "convcalc.executor.matrix",
    "fit": "convcalc.executor.fit",
    "prepare": "convcalc.executor.run",
    "run": "convcalc.executor.run",
}
"""Where each public name is. It is imported when it is asked for, so that what needs no NumPy does not load it."""

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604  the names of the table


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'convcalc' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
