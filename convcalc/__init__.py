"""convcalc: shapes, FLOPs, memory, merging and execution of convolutional layers and models."""

from __future__ import annotations

from convcalc._version import __version__

__all__ = ["__version__"]
