"""What stands in an ONNX file: types, nodes, graphs, functions, and the model that holds them.

Attributes and types are decoded when they are read: a model has many, and most are never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from convcalc.errors import ModelFileError
from convcalc.foreign import LONGEST_START, refuse_foreign
from convcalc.onnx.tensors import DATA_TYPES, Entry, SparseTensor, Tensor
from convcalc.onnx.wire import (
    BYTES,
    EXTENT,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    MESSAGE,
    STRING,
    Field,
    Fields,
    FileName,
    Message,
    WireFile,
    many,
    one,
    open_file,
)

# --- types ----------------------------------------------------------------------------------------------------------


class Dimension(Message):
    """One axis: `value` is an int, a name, or None for not known."""

    __slots__ = ("dim_param", "dim_value", "known")
    FIELDS: ClassVar[Fields] = {1: one("dim_value", INT), 2: one("dim_param", STRING)}
    dim_value: int
    dim_param: str

    def _take(self, field: Field, wire: int, first: int, second: int, place: int) -> None:
        # A size of 0 is known; no size at all is not.
        self.known = field[0]
        super()._take(field, wire, first, second, place)

    @property
    def value(self) -> int | str | None:
        """The size, the name that stands for it, or None."""
        known = getattr(self, "known", "")
        return self.dim_value if known == "dim_value" else (self.dim_param or None)


class TensorShape(Message):
    """The axes of a tensor."""

    __slots__ = ("dim",)
    FIELDS: ClassVar[Fields] = {1: many("dim", MESSAGE, Dimension)}
    dim: list[Dimension]


class TensorType(Message):
    """Type and shape of a tensor; a shape of None is not known."""

    __slots__ = ("elem_type", "shape")
    FIELDS: ClassVar[Fields] = {1: one("elem_type", INT), 2: one("shape", MESSAGE, TensorShape)}
    elem_type: int
    shape: TensorShape | None


class Type(Message):
    """A type: of a tensor, or of something else that holds tensors, of which only the place is kept."""

    __slots__ = ("map_type", "optional_type", "sequence_type", "sparse_tensor_type", "tensor_type")
    FIELDS: ClassVar[Fields] = {
        1: one("tensor_type", MESSAGE, TensorType),
        4: one("sequence_type", EXTENT),
        5: one("map_type", EXTENT),
        8: one("sparse_tensor_type", MESSAGE, TensorType),
        9: one("optional_type", EXTENT),
    }
    tensor_type: TensorType | None
    sequence_type: tuple[int, int] | None
    map_type: tuple[int, int] | None
    sparse_tensor_type: TensorType | None
    optional_type: tuple[int, int] | None


class ValueInfo(Message):
    """The name of a tensor, and what the file says of its type."""

    __slots__ = ("name", "type_extent")
    FIELDS: ClassVar[Fields] = {1: one("name", STRING), 2: one("type_extent", EXTENT)}
    name: str
    type_extent: tuple[int, int] | None

    @property
    def type(self) -> Type | None:
        """The type, decoded now."""
        return None if self.type_extent is None else Type(self.file, *self.type_extent, self.depth + 1)

    @property
    def shape(self) -> tuple[int | str | None, ...] | None:
        """Sizes, names of sizes, and None for unknown ones; None when not even their number is known."""
        kind = self.type
        tensor = None if kind is None else kind.tensor_type or kind.sparse_tensor_type
        if tensor is None or tensor.shape is None:
            return None
        return tuple(dimension.value for dimension in tensor.shape.dim)

    @property
    def dtype(self) -> str | None:
        """Our name of the elements' type, or None when it is not a tensor's."""
        kind = self.type
        tensor = None if kind is None else kind.tensor_type or kind.sparse_tensor_type
        return None if tensor is None else DATA_TYPES.get(tensor.elem_type, ("undefined", 0))[0]


# --- graphs ---------------------------------------------------------------------------------------------------------

_ATTRIBUTE_VALUES: dict[int, tuple[str, Any]] = {
    1: ("f", 0.0), 2: ("i", 0), 3: ("s", b""), 4: ("t", None), 5: ("g", None), 6: ("floats", None), 7: ("ints", None),
    8: ("strings", None), 9: ("tensors", None), 10: ("graphs", None), 11: ("sparse_tensor", None),
    12: ("sparse_tensors", None), 13: ("tp", None), 14: ("type_protos", None),
}  # fmt: skip
"""By the number of an attribute's type: the field that holds it, and what that is when it is absent."""


class Attribute(Message):
    """A named value of a node. `value` is a float, int, bytes, `Tensor`, `Graph`, ... or a list of them."""

    __slots__ = ("f", "floats", "g", "graphs", "i", "ints", "name", "ref_attr_name", "s", "sparse_tensor",
                 "sparse_tensors", "strings", "t", "tensors", "tp", "type", "type_protos")  # fmt: skip
    FIELDS: ClassVar[dict[int, Field]] = {}  # given below: it holds Graphs
    ABSENT = (("name", ""), ("type", 0), ("ref_attr_name", ""))
    name: str
    type: int
    ref_attr_name: str

    @property
    def value(self) -> Any:
        """What the attribute holds, by its `type`; old files leave the type out, and hold one thing alone."""
        found = _ATTRIBUTE_VALUES.get(self.type)
        if found is not None:
            name, default = found
            value = getattr(self, name, default)
            return [] if value is None and name.endswith("s") and name != "s" else value
        if self.type:
            raise self.file.wrong(self.start, f"attribute {self.name} is of type {self.type}, which does not exist")
        given = [getattr(self, name) for name, _ in _ATTRIBUTE_VALUES.values() if getattr(self, name, None)]
        return given[0] if given else None


class Node(Message):
    """One op: what it is called, what comes in and goes out by name, and its attributes, decoded when asked for."""

    __slots__ = ("_attributes", "attribute_extents", "domain", "inputs", "metadata_extents", "name", "op_type",
                 "outputs", "overload")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: many("inputs", STRING),
        2: many("outputs", STRING),
        3: one("name", STRING),
        4: one("op_type", STRING),
        5: many("attribute_extents", EXTENT),
        7: one("domain", STRING),
        8: one("overload", STRING),
        9: many("metadata_extents", EXTENT),
    }
    inputs: list[str]
    outputs: list[str]
    name: str
    op_type: str
    attribute_extents: list[tuple[int, int]]
    metadata_extents: list[tuple[int, int]]
    domain: str
    overload: str

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes by name."""
        try:
            return self._attributes
        except AttributeError:
            self._attributes: dict[str, Attribute] = {}
        for start, end in self.attribute_extents:
            attribute = Attribute(self.file, start, end, self.depth + 1)
            if attribute.name in self._attributes:
                raise self.file.wrong(start, f"{self.op_type} {self.name} has a second attribute {attribute.name}")
            self._attributes[attribute.name] = attribute
        return self._attributes

    def metadata(self, key: str) -> str:
        """What the file notes of the node under a key, or nothing. Only that is read: exporters note much."""
        wanted = key.encode()
        for start, end in self.metadata_extents:
            fields = {number: (first, second) for number, wire, first, second, _ in self.file.fields(start, end)
                      if wire == 2}  # fmt: skip
            if 1 in fields and self.file.bytes_of(*fields[1]) == wanted:
                return self.file.text(*fields[2]) if 2 in fields else ""
        return ""


class Graph(Message):
    """Nodes in order, the tensors that come in and go out, and the weights."""

    __slots__ = ("initializers", "inputs", "name", "nodes", "outputs", "sparse_initializers", "value_infos")
    FIELDS: ClassVar[Fields] = {
        1: many("nodes", MESSAGE, Node),
        2: one("name", STRING),
        5: many("initializers", MESSAGE, Tensor),
        11: many("inputs", MESSAGE, ValueInfo),
        12: many("outputs", MESSAGE, ValueInfo),
        13: many("value_infos", MESSAGE, ValueInfo),
        15: many("sparse_initializers", MESSAGE, SparseTensor),
    }
    nodes: list[Node]
    name: str
    initializers: list[Tensor]
    inputs: list[ValueInfo]
    outputs: list[ValueInfo]
    value_infos: list[ValueInfo]
    sparse_initializers: list[SparseTensor]


Attribute.FIELDS.update({
    1: one("name", STRING), 2: one("f", FLOAT), 3: one("i", INT),
    4: one("s", BYTES), 5: one("t", MESSAGE, Tensor), 6: one("g", MESSAGE, Graph),
    7: many("floats", FLOATS), 8: many("ints", INTS), 9: many("strings", BYTES),
    10: many("tensors", MESSAGE, Tensor), 11: many("graphs", MESSAGE, Graph), 14: one("tp", MESSAGE, Type),
    15: many("type_protos", MESSAGE, Type), 20: one("type", INT),
    21: one("ref_attr_name", STRING), 22: one("sparse_tensor", MESSAGE, SparseTensor),
    23: many("sparse_tensors", MESSAGE, SparseTensor),
})  # fmt: skip


class OpsetImport(Message):
    """The version of a domain's ops that the file speaks."""

    __slots__ = ("domain", "version")
    FIELDS: ClassVar[Fields] = {1: one("domain", STRING), 2: one("version", INT)}
    domain: str
    version: int


class Function(Message):
    """An op that the file defines: its body is nodes."""

    __slots__ = ("attribute_defaults", "attributes", "domain", "inputs", "name", "nodes", "opset_imports", "outputs",
                 "overload", "value_infos")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: one("name", STRING),
        4: many("inputs", STRING),
        5: many("outputs", STRING),
        6: many("attributes", STRING),
        7: many("nodes", MESSAGE, Node),
        9: many("opset_imports", MESSAGE, OpsetImport),
        10: one("domain", STRING),
        11: many("attribute_defaults", MESSAGE, Attribute),
        12: many("value_infos", MESSAGE, ValueInfo),
        13: one("overload", STRING),
    }
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: list[str]
    nodes: list[Node]
    opset_imports: list[OpsetImport]
    domain: str
    attribute_defaults: list[Attribute]
    value_infos: list[ValueInfo]
    overload: str


class Model(Message):
    """A whole file."""

    __slots__ = ("domain", "functions", "graph", "ir_version", "metadata", "model_version", "opset_imports",
                 "producer_name", "producer_version")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: one("ir_version", INT),
        2: one("producer_name", STRING),
        3: one("producer_version", STRING),
        4: one("domain", STRING),
        5: one("model_version", INT),
        7: one("graph", MESSAGE, Graph),
        8: many("opset_imports", MESSAGE, OpsetImport),
        14: many("metadata", MESSAGE, Entry),
        25: many("functions", MESSAGE, Function),
    }
    ir_version: int
    producer_name: str
    producer_version: str
    domain: str
    model_version: int
    graph: Graph | None
    opset_imports: list[OpsetImport]
    metadata: list[Entry]
    functions: list[Function]

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each domain's ops; ONNX's own domain is ""."""
        return versions(self.opset_imports)


def versions(imports: Sequence[OpsetImport]) -> dict[str, int]:
    """The version by domain; ONNX's own domain, which has two names, is ""."""
    return {"" if item.domain == "ai.onnx" else item.domain: item.version for item in imports}


def read_model(source: FileName | bytes, name: str = "", path: FileName | None = None) -> Model:
    """The model in a file, or in bytes that were read. Raises `ModelFileError` for what is no ONNX file.

    `path` is where bytes belong: beside it are weights that are in files of their own.
    """
    file = WireFile(source, name, path) if isinstance(source, bytes) else open_file(source, name or str(source))
    if not file.size:
        raise ModelFileError(f"{file.name} is empty")
    refuse_foreign(file.window(0)[0][:LONGEST_START], file.name)
    model = Model(file, 0, file.size)
    if model.graph is None:
        raise ModelFileError(f"{file.name} is no ONNX file: it holds no graph")
    return model
