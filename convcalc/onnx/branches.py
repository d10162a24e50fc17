"""ONNX's If: the branch that is chosen takes its place, or both are kept where only a run can choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convcalc.errors import ModelFileError
from convcalc.layers.base import Shape
from convcalc.layers.opaque import Opaque
from convcalc.network import Network
from convcalc.onnx.messages import Graph
from convcalc.onnx.names import Visit

if TYPE_CHECKING:
    from convcalc.onnx.reader import Reader


def take(reader: Reader, visit: Visit) -> bool:
    """Take an If: the nodes of the branch that its condition chooses, where that is known."""
    if not any(visit.inputs[:1]):
        raise ModelFileError(f"{visit.where}: input 1 is missing")
    condition = reader.needed(visit.inputs[0])
    if condition is None or len(condition.items) != 1:
        _keep_both(reader, visit)
        return True
    chosen = visit.attributes.get("then_branch" if condition.items[0] else "else_branch")
    if not isinstance(chosen, Graph):
        raise ModelFileError(f"{visit.where}: the branch that is chosen is missing")
    inner = reader.inside(chosen, visit.scope, f"{visit.scope.prefix}{visit.node.name or visit.node.op_type}/")
    reader.inline(visit, chosen.nodes, inner, [info.name for info in chosen.outputs])
    return True


def _keep_both(reader: Reader, visit: Visit) -> None:
    """Add an If whose condition the model computes: it owns what both branches do, and costs what nobody knows.

    Its shapes are known where both branches give the same. What runs are the branches, networks of their own that
    take what the graph around them has made.
    """
    known, builder = reader.known, reader.builder
    start, said = len(builder.nodes), len(builder.warnings)
    told: list[list[tuple[Shape | None, str]]] = []
    branches: dict[str, Network] = {}
    for key in ("then_branch", "else_branch"):
        graph = visit.attributes.get(key)
        if not isinstance(graph, Graph):
            raise ModelFileError(f"{visit.where}: its {key} is missing")
        inner = reader.inside(graph, visit.scope, f"{visit.name}/{key.removesuffix('_branch')}/")
        begun = len(builder.nodes)
        reader.walk(graph.nodes, inner, visit.where)
        results = [inner.find(info.name) or "" for info in graph.outputs]
        told.append([(known.shapes.get(result), known.dtypes.get(result, "float32")) for result in results])
        branches[key] = builder.part(builder.nodes[begun:], results)
    inside = builder.nodes[start:]
    del builder.nodes[start:], builder.warnings[said:]
    taken = [tensor for each in inside for tensor in (*each.inputs, *each.weights.values())]
    owned = {tensor: known.constants[tensor].shape for tensor in taken
             if tensor in known.constants and known.constants[tensor].parameter}  # fmt: skip
    outputs = told[0][: len(visit.node.outputs)]
    shapes = _shapes_of(outputs) if told[0] == told[1] and len(outputs) == len(visit.node.outputs) else ()
    why = "which branch is taken is known only when the model runs"
    layer = Opaque("If", "If", False, shapes, tuple(dtype for _, dtype in outputs), owned, why)
    every = (visit.inputs[0], *(tensor for branch in branches.values() for tensor in branch.inputs))
    came = tuple(dict.fromkeys(every))
    builder.add_opaque(
        visit, layer, came, op="If", weights={tensor: tensor for tensor in owned},
        attributes={**branches, "inputs": came},
    )  # fmt: skip
    builder.warn(f"{visit.name} (If)", why)


def _shapes_of(outputs: Sequence[tuple[Shape | None, str]]) -> tuple[Shape, ...]:
    """The shapes where all are known, or none."""
    shapes = tuple(shape for shape, _ in outputs if shape is not None)
    return shapes if len(shapes) == len(outputs) else ()
