"""ONNX's ops as layers: for each op a function from a node's attributes and input shapes to the layer that it is.

Each module of a family has a table `OPS` of its own. A function gets a `Call` and gives a layer, which takes all inputs
of the node, or a `Plan`, which says which inputs are data and which are the layer's weights. What cannot be mapped
raises `UnsupportedOpError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convcalc.onnx.ops.calls import Op

FAMILIES = ("windows", "elementwise", "weighted", "moving", "recurrent", "sampling", "spectral")
"""The modules, what most models ask for first: one is loaded when those before it do not have an op."""


@cache
def function_of(op: str) -> Op | None:
    """The function of an op of ONNX's own domain; None for one that is no layer here."""
    return next((table[op] for table in tables() if op in table), None)


def tables() -> Iterator[Mapping[str, Op]]:
    """The tables, each loaded when it is its turn."""
    for family in FAMILIES:
        yield import_module(f"convcalc.onnx.ops.{family}").OPS
