"""ONNX's sequences of tensors, and optional tensors: names that are held together, and no layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convcalc.errors import UnsupportedOpError
from convcalc.onnx.known import Known, Small
from convcalc.onnx.names import Visit
from convcalc.onnx.writing import Writer

if TYPE_CHECKING:
    from convcalc.onnx.reader import Reader


def take(reader: Reader, visit: Visit) -> bool:
    """Whether a node of `reader.STRUCTURES` is on sequences or optional tensors; then what it gives is noted."""
    op, name, inputs, known = visit.node.op_type, visit.name, visit.inputs, reader.known
    if op == "Identity":
        if not (inputs and inputs[0] in known.sequences):
            return False
        result = inputs[0]
    elif op in ("Optional", "OptionalGetElement"):
        if not any(inputs[:1]):
            return False
        result = inputs[0]
    elif op == "OptionalHasElement":
        result = known.note_number(f"{name}.has", any(inputs[:1]), "bool")
    elif op in ("SequenceEmpty", "SequenceConstruct"):
        result = hold_sequence(name, list(inputs), known)
    elif op == "SplitToSequence":
        result = hold_sequence(name, _split(reader, visit), known)
    else:
        result = _from_sequence(reader, visit)
    visit.gives_one(result)
    return True


def hold_sequence(name: str, tensors: list[str], known: Known) -> str:
    """Note a sequence under a name of its own, made of this one."""
    whole = f"{name}.sequence"
    known.sequences[whole] = tensors
    return whole


def elements_of(name: str, known: Known) -> list[str]:
    """The tensors of a sequence. Raises `UnsupportedOpError` where they are not known."""
    if name not in known.sequences:
        raise UnsupportedOpError("which sequence comes into it is not known")
    return known.sequences[name]


def _from_sequence(reader: Reader, visit: Visit) -> str:
    op, name, inputs = visit.node.op_type, visit.name, visit.inputs
    elements = list(elements_of(inputs[0], reader.known))
    if op == "SequenceLength":
        return reader.known.note_number(f"{name}.length", len(elements), "int64")
    if op == "ConcatFromSequence":
        axis, writer = visit.attributes.get("axis", 0), Writer(reader, name)
        if visit.attributes.get("new_axis"):
            return writer.stack(elements, axis)
        return writer.node("Concat", elements, axis=axis)
    at = 2 if op == "SequenceInsert" else 1
    last = len(elements) if op == "SequenceInsert" else -1
    place = reader.number(inputs[at], "its place in the sequence") if inputs[at:] and inputs[at] else last
    if op == "SequenceInsert":
        elements.insert(place, inputs[1])
    elif op == "SequenceAt":
        return elements[place]
    else:
        del elements[place]
    return hold_sequence(name, elements, reader.known)


def _split(reader: Reader, visit: Visit) -> list[str]:
    """The parts of a SplitToSequence: of given sizes, of one size but for the last, or of 1 each."""
    name, inputs, attributes = visit.name, visit.inputs, visit.attributes
    shape = reader.shape_of(inputs[0])
    axis = attributes.get("axis", 0)
    given = reader.needed(inputs[1]) if inputs[1:] and inputs[1] else Small((), [1], "int64")
    if given is None:
        raise UnsupportedOpError("its sizes are known only when the model runs")
    size = shape[axis]
    sizes = given.items
    if not given.shape:
        sizes = [min(given.items[0], size - start) for start in range(0, size, given.items[0])]
    reader.known.note(f"{name}.sizes", Small((len(sizes),), sizes, "int64"))
    writer = Writer(reader, name)
    parts = writer.parts("Split", [inputs[0], f"{name}.sizes"], len(sizes), axis=axis)
    if len(inputs) > 1 or attributes.get("keepdims", 1):
        return parts
    return [writer.node("Squeeze", [part, writer.number(axis, rank=1)]) for part in parts]
