"""What is known of a network's tensors while a file is read: shapes and types of all, the values of some."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from convcalc.errors import ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers.base import Shape
from convcalc.network import Constant
from convcalc.onnx.messages import Graph
from convcalc.onnx.names import Scope
from convcalc.onnx.tensors import FLOATING, Tensor
from convcalc.tracing import product

MOST_ELEMENTS = 1 << 16
"""How many elements a tensor may have whose values are worked out: more are nobody's shape."""
UNFORESEEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""What Python raises when the attributes and inputs of an op do not fit together."""


class Small:
    """A tensor whose values are known: its sizes, its elements in row-major order, and its type."""

    __slots__ = ("dtype", "items", "shape")

    def __init__(self, shape: Iterable[int], items: Iterable[Any], dtype: str) -> None:
        self.shape: Shape = tuple(shape)
        self.items: list[Any] = list(items)
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Small({self.shape}, {self.items}, {self.dtype})"

    def strides(self) -> list[int]:
        """How far apart neighbours along each axis are."""
        return [product(self.shape[axis + 1 :]) for axis in range(len(self.shape))]

    def axis(self, axis: int) -> int:
        """An axis counted from the front. Raises `ShapeError` when there is none."""
        if not -len(self.shape) <= axis < len(self.shape):
            raise ShapeError(f"axis is {axis}, but there are {len(self.shape)} axes", field="axis", value=axis)
        return axis % len(self.shape)


class Known:
    """Tensors by the network's names.

    `stored` are those in the file, `smalls` the values of those that are known and few; None stands for values that
    cannot be had. `constants` are those that nodes of the network take. `sequences` are tensors that ONNX holds
    together under one name, and `sizes` what the names of sizes stand for.
    """

    __slots__ = ("constants", "dtypes", "sequences", "shapes", "sizes", "smalls", "stored")

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        self.stored: dict[str, Tensor] = {}
        self.smalls: dict[str, Small | None] = {}
        self.constants: dict[str, Constant] = {}
        self.sequences: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}

    # --- what becomes known ---

    def store(self, name: str, tensor: Tensor) -> None:
        """Note a tensor of the file."""
        self.stored[name] = tensor
        self.shapes[name] = tuple(tensor.dims)
        self.dtypes[name] = tensor.dtype

    def store_initializers(self, graph: Graph, scope: Scope) -> None:
        """Note the tensors that a graph begins with. Raises `ModelFileError`."""
        for tensor in graph.initializers:
            self.store(scope.define(tensor.name, "initializer"), tensor)
        for sparse in graph.sparse_initializers:
            if sparse.values is None:
                raise ModelFileError(f"{scope.file}: a sparse initializer has no values")
            name = scope.define(sparse.values.name, "initializer")
            # Only what is stored is a parameter.
            self.hold(name, Constant(tuple(sparse.dims), sparse.values.dtype, sparse, parameter=False))

    def hold(self, name: str, constant: Constant) -> None:
        """Note a tensor whose values are neither in the file as they are, nor few numbers."""
        self.shapes[name] = constant.shape
        self.dtypes[name] = constant.dtype
        self.constants[name] = constant

    def note(self, name: str, small: Small) -> None:
        """Note the values of a tensor."""
        self.smalls[name] = small
        self.shapes[name] = small.shape
        self.dtypes[name] = small.dtype

    def note_number(self, name: str, number: Any, dtype: str) -> str:
        """Note one number as a tensor; its name."""
        self.note(name, Small((), [number], dtype))
        return name

    def take(self, name: str, *, scale: bool, least: int = 2) -> None:
        """Note that a node takes a tensor, if it is a constant.

        Floats serve as weight, scale or bias where `scale` says so; a single one is a number. `least` is how many
        elements a parameter has.
        """
        tensor = self.stored.get(name)
        parameter = scale and tensor is not None and tensor.dtype in FLOATING and tensor.elements >= least
        known = self.constants.get(name)
        if known is not None:
            known.parameter |= parameter
        elif tensor is not None:
            self.constants[name] = Constant(tuple(tensor.dims), tensor.dtype, tensor, parameter=parameter)
        elif name in self.smalls:
            small = self.smalls[name]
            assert small is not None
            self.constants[name] = Constant(small.shape, small.dtype, small.items, parameter=False)

    # --- what is known ---

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is in the file."""
        return name in self.stored or name in self.constants

    def may_be_small(self, name: str) -> bool:
        """Whether `small` may have the values, without looking at them."""
        tensor = self.stored.get(name)
        return name in self.smalls or (tensor is not None and not (tensor.dtype in FLOATING and tensor.dims))

    def small(self, name: str) -> Small | None:
        """The values of a tensor if they are known and few: whole numbers, and floats that are no weights."""
        if name in self.smalls:
            return self.smalls[name]
        if not self.may_be_small(name):
            return None
        self.smalls[name] = small = _decoded(self.stored[name])
        return small

    def values(self, name: str) -> Small | None:
        """The values of a tensor that an op's shape hangs on: floats of the file too, such as scales."""
        small = self.small(name)
        tensor = self.stored.get(name)
        return _decoded(tensor) if small is None and tensor is not None else small

    def numbers(self, name: str) -> list[Any] | None:
        """The numbers of a tensor of the file, where they are there and few."""
        tensor = self.stored.get(name)
        return None if tensor is None or tensor.absent else tensor.numbers()


def _decoded(tensor: Tensor) -> Small | None:
    if tensor.elements > MOST_ELEMENTS:
        return None
    if tensor.absent:
        raise UnsupportedOpError(f"it needs the values of {tensor.name}, whose file is not there")
    numbers = tensor.numbers()
    return None if numbers is None else Small(tensor.dims, numbers, tensor.dtype)
