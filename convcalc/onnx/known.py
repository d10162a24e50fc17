"""What is known of a network's tensors while a file is read: shapes and types of all, the values of some."""

from __future__ import annotations

from typing import Any

from convcalc.errors import ModelFileError, UnsupportedOpError
from convcalc.layers.base import Shape
from convcalc.network import Constant
from convcalc.onnx.folding import MOST_ELEMENTS, Small
from convcalc.onnx.messages import Graph
from convcalc.onnx.names import Scope
from convcalc.onnx.tensors import FLOATING, Tensor


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

    def small(self, name: str) -> Small | None:
        """The values of a tensor if they are known and few: whole numbers, and floats that are no weights."""
        if name in self.smalls:
            return self.smalls[name]
        tensor = self.stored.get(name)
        if tensor is None or (tensor.dtype in FLOATING and tensor.dims):
            return None
        self.smalls[name] = small = _decoded(tensor)
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
