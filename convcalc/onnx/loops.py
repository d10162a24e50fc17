"""ONNX's loops: the body takes their place, once for each turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from convcalc.errors import ModelFileError, UnsupportedOpError
from convcalc.onnx.messages import Graph
from convcalc.onnx.names import Visit
from convcalc.onnx.sequences import elements_of, hold_sequence
from convcalc.onnx.writing import Writer

if TYPE_CHECKING:
    from convcalc.onnx.reader import Reader

MOST_TURNS = 1 << 10
"""How many turns of a loop are written down."""


def take(reader: Reader, visit: Visit) -> bool:
    """Take a loop: its body's nodes, once for each turn.

    Raises `UnsupportedOpError` where how often it runs is known only when the model does, or is too often.
    """
    body = visit.attributes.get("body")
    if not isinstance(body, Graph):
        raise ModelFileError(f"{visit.where}: its body is missing")
    builder = reader.builder
    start, said = len(builder.nodes), len(builder.warnings)
    try:
        results = _LOOPS[visit.node.op_type](_Turns(reader, visit, body))
    except UnsupportedOpError:
        del builder.nodes[start:], builder.warnings[said:]
        raise
    visit.gives(results)
    return True


class _Turns(Writer):
    """A loop: its body and the scope around that, and how many turns were taken."""

    def __init__(self, reader: Reader, visit: Visit, body: Graph) -> None:
        super().__init__(reader, visit.name)
        self.visit = visit
        self.body = body
        self.around = reader.inside(body, visit.scope, f"{visit.name}/")
        self.count = 0

    def take(self, given: Sequence[str]) -> list[str]:
        """Take the body's nodes once, on these tensors; what comes out."""
        if self.count == MOST_TURNS:
            raise UnsupportedOpError(f"it takes more than {MOST_TURNS} turns")
        inner = self.around.inside(f"{self.name}/{self.count}/")
        inner.names = {info.name: tensor for info, tensor in zip(self.body.inputs, given, strict=False) if tensor}
        self.reader.walk(self.body.nodes, inner, self.visit.where)
        self.count += 1
        found = [inner.find(info.name) for info in self.body.outputs]
        missing = next((info.name for info, name in zip(self.body.outputs, found, strict=True) if name is None), None)
        if missing is not None:
            raise ModelFileError(f"{self.visit.where}: nothing makes its output {missing}")
        return [name for name in found if name is not None]

    def stacked(self, given: Sequence[Sequence[str]], axes: Sequence[int]) -> list[str]:
        """What each turn gave, along a new axis."""
        if not given and len(self.body.outputs) > len(self.body.inputs) - 1:
            raise UnsupportedOpError("it takes no turn, so what its turns give is not known")
        return [self.stack(column, axis) for column, axis in zip(zip(*given), axes)]  # noqa: B905


def _loop(turns: _Turns) -> list[str]:
    """The last states of a Loop, and what its turns gave, stacked."""
    reader, known, inputs = turns.reader, turns.known, turns.visit.inputs
    most = reader.number(inputs[0], "how often it runs") if inputs and inputs[0] else None
    goes_on = bool(reader.number(inputs[1], "whether it runs")) if inputs[1:2] != [""] and inputs[1:] else True
    states = list(inputs[2:])
    given: list[list[str]] = []
    while goes_on and (most is None or turns.count < most):
        begun = f"{turns.name}/{turns.count}"
        turn = known.note_number(f"{begun}.turn", turns.count, "int64")
        found = turns.take([turn, known.note_number(f"{begun}.on", True, "bool"), *states])
        goes_on = bool(reader.number(found[0], "whether it runs on"))
        states = found[1 : 1 + len(states)]
        given.append(found[1 + len(states) :])
    return states + turns.stacked(given, [0] * len(turns.body.outputs))


def _scan(turns: _Turns) -> list[str]:
    """The last states of a Scan, and what its turns gave, stacked."""
    inputs, attributes = turns.visit.inputs, turns.visit.attributes
    count = attributes.get("num_scan_inputs", 0)
    if turns.around.opset < 9 or not isinstance(count, int) or not 0 < count <= len(inputs):
        raise UnsupportedOpError("Scan of this form is not known")
    states, rows = list(inputs[:-count]), inputs[-count:]
    axes = attributes.get("scan_input_axes") or [0] * count
    backwards = attributes.get("scan_input_directions") or [0] * count
    length = turns.reader.shape_of(rows[0])[axes[0]]
    given: list[list[str]] = []
    for turn in range(length):
        parts = [
            turns.node("Gather", [row, turns.number(length - 1 - turn if back else turn)], axis=axis)
            for row, axis, back in zip(rows, axes, backwards, strict=True)
        ]
        found = turns.take([*states, *parts])
        states = found[: len(states)]
        given.append(found[len(states) :])
    outputs = len(turns.body.outputs) - len(states)
    turned = attributes.get("scan_output_directions") or [0] * outputs
    for place in range(outputs) if given else ():
        if turned[place]:
            column = [found[place] for found in reversed(given)]
            for found, tensor in zip(given, column, strict=True):
                found[place] = tensor
    return states + turns.stacked(given, attributes.get("scan_output_axes") or [0] * outputs)


def _sequence_map(turns: _Turns) -> list[str]:
    """The sequences that a SequenceMap gives: its body on each tensor of the first, and of others beside it."""
    inputs, sequences = turns.visit.inputs, turns.known.sequences
    rows = elements_of(inputs[0], turns.known)
    given = [
        turns.take([sequences[name][turn] if name in sequences else name for name in inputs])
        for turn in range(len(rows))
    ]
    return [
        hold_sequence(f"{turns.name}.{place}", [found[place] for found in given], turns.known)
        for place in range(len(turns.body.outputs))
    ]


_LOOPS: Mapping[str, Callable[[_Turns], list[str]]] = {"Loop": _loop, "Scan": _scan, "SequenceMap": _sequence_map}
