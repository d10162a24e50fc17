"""Nodes whose outputs are known without the model running: constants, shapes, and what is computed from them."""

from __future__ import annotations

from convcalc.errors import ModelFileError
from convcalc.network import Constant
from convcalc.onnx.known import Known, Small
from convcalc.onnx.names import Visit
from convcalc.onnx.tensors import Tensor
from convcalc.tracing import product

MOST_FOLDED = 1 << 20
"""How many elements are evaluated in all: shapes are small, and a file must not keep us busy for ever."""

OWN = ("Constant", "Identity", "Shape", "Size")
"""Ops that are evaluated here; `folding.FOLDERS` has all others."""


class Evaluation:
    """What evaluates nodes, on what is known of tensors."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._folded = 0
        self._written: dict[int, str] = {}

    def evaluates(self, visit: Visit) -> bool:
        """Whether the outputs of a node are known; then they are noted."""
        node, inputs, known = visit.node, visit.inputs, self.known
        op = node.op_type
        if op == "Constant":
            self._note_constant(visit)
            return True
        found: list[Small] | None
        if op in ("Shape", "Size") and inputs and inputs[0] in known.shapes:
            shape = known.shapes[inputs[0]]
            if op == "Size":
                found = [Small((), [product(shape)], "int64")]
            else:
                cut = shape[visit.attributes.get("start", 0) : visit.attributes.get("end")]
                found = [Small((len(cut),), cut, "int64")]
        elif op == "Identity" and inputs[:1] and inputs[0] in known.stored:
            visit.gives_one(inputs[0])
            return True
        elif inputs and inputs[0] and not known.may_be_small(inputs[0]):
            return False  # as with most nodes
        else:
            found = self._fold(visit)
        if found is None or len(found) < len(node.outputs):
            return False
        self._folded += sum(len(small.items) for small in found)
        for output, small in zip(node.outputs, found, strict=False):
            if output:
                known.note(visit.scope.define(output), small)
        return True

    def _fold(self, visit: Visit) -> list[Small] | None:
        """The outputs of an op whose inputs are all known, if it can be evaluated."""
        if not visit.inputs and visit.node.op_type != "Range":
            return None
        if not all(self.known.may_be_small(name) for name in visit.inputs if name):
            return None
        # Many a model computes no shapes.
        from convcalc.onnx.folding import FOLDERS, fold

        if visit.node.op_type not in FOLDERS:
            return None
        inputs = [self.known.small(name) if name else None for name in visit.inputs]
        if any(small is None for small, name in zip(inputs, visit.inputs, strict=True) if name):
            return None
        self._folded += sum(len(small.items) for small in inputs if small is not None)
        if self._folded > MOST_FOLDED:
            return None
        return fold(visit.node.op_type, inputs, visit.attributes | {"outputs": len(visit.node.outputs)})

    def _note_constant(self, visit: Visit) -> None:
        """Note what a Constant gives. Raises `ModelFileError` for one that holds nothing that is known."""
        output = visit.node.outputs[0] if visit.node.outputs else ""
        name = visit.scope.define(output)
        attributes, known = visit.attributes, self.known
        value = attributes.get("value")
        if isinstance(value, Tensor):
            # The Constant of a function or loop's body is one, however often that stands in the network.
            whole = self._written.setdefault(id(value), name)
            if whole == name:
                known.store(name, value)
            visit.scope.names[output] = whole
            return
        for key, dtype in (("value_int", "int64"), ("value_float", "float32")):
            if key in attributes:
                known.note_number(name, attributes[key], dtype)
                return
            if f"{key}s" in attributes:
                items = attributes[f"{key}s"]
                known.note(name, Small((len(items),), items, dtype))
                return
        for key in ("value_string", "value_strings"):
            if key in attributes:
                shape = () if key == "value_string" else (len(attributes[key]),)
                known.hold(name, Constant(shape, "string", attributes[key], parameter=False))
                return
        raise ModelFileError(f"{visit.scope.file}: Constant {visit.node.name} has no value that is known")
