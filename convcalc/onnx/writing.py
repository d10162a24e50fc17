"""Nodes that no file holds: what ops that are others put together are made of, and what loops need between turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convcalc.onnx.known import Small
from convcalc.onnx.messages import Attribute, Node

if TYPE_CHECKING:
    from convcalc.onnx.reader import Reader

_ATTRIBUTE_TYPES: dict[type, tuple[int, str]] = {float: (1, "f"), int: (2, "i"), bytes: (3, "s")}


class MadeAttribute(Attribute):
    """An attribute that no file holds."""

    __slots__ = ()

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.ref_attr_name = ""
        if isinstance(value, list):
            self.type, field = (6, "floats") if any(isinstance(item, float) for item in value) else (7, "ints")
        else:
            self.type, field = _ATTRIBUTE_TYPES[type(value)]
        setattr(self, field, value)


class MadeNode(Node):
    """A node that no file holds."""

    __slots__ = ()

    def __init__(self, op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any]) -> None:
        self.op_type = op
        self.name = self.domain = self.overload = ""
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.attribute_extents = []
        self.metadata_extents = []
        self._attributes = {name: MadeAttribute(name, value) for name, value in attributes.items()}


class Writer:
    """What has nodes taken that no file holds, under the name of one that stands in it.

    Their inputs and outputs are tensors by the network's names.
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self.reader = reader
        self.known = reader.known
        self.name = name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The output of one more node."""
        return self.parts(op, inputs, 1, **attributes)[0]

    def parts(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """The outputs of one more node that has so many."""
        inner = self.reader.own_scope(self.name)
        names = [f"in{number}" for number in range(len(inputs))]
        inner.names = dict(zip(names, inputs, strict=True))
        outputs = [f"{op}_{self.reader.read}.{number}" for number in range(count)]
        self.reader.take(MadeNode(op, names, outputs, attributes), inner)
        return [inner.names[output] for output in outputs]

    def number(self, number: int, *, rank: int = 0) -> str:
        """A whole number as a tensor of so many axes."""
        name = f"{self.name}.{number}.{rank}"
        self.known.note(name, Small((1,) * rank, [number], "int64"))
        return name

    def stack(self, tensors: Sequence[str], axis: int) -> str:
        """Tensors along a new axis."""
        place = self.number(axis, rank=1)
        return self.node("Concat", [self.node("Unsqueeze", [each, place]) for each in tensors], axis=axis)
