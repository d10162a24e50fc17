"""The network that grows while a file is read: layers on tensors whose shapes are known by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convcalc.errors import ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers.base import Layer, shape_text
from convcalc.layers.opaque import Opaque
from convcalc.network import Input, Network, Node
from convcalc.onnx.known import Known
from convcalc.onnx.messages import Graph
from convcalc.onnx.names import Visit
from convcalc.onnx.ops.calls import Plan
from convcalc.onnx.parameters import LeftOut, is_learned, unlearned
from convcalc.records import replace
from convcalc.tracing import product


class Builder:
    """The nodes so far, and what is to be said about them.

    `renamed` are the tensors that a network's outputs were before they got the file's names, with those names.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.renamed: Mapping[str, str] = {}
        self._left_out = LeftOut(known)

    # --- layers ---

    def add(self, visit: Visit, plan: Plan) -> None:
        """Add the layer, or the layers in a row, that a node is. Raises `ShapeError` for what does not fit it."""
        known, op = self.known, visit.node.op_type
        inputs, attributes = visit.inputs, visit.attributes
        places = [place for place, tensor in enumerate(inputs) if tensor] if plan.data is None else plan.data
        least = plan.layer.inputs[0]
        if len(places) < least:
            raise ModelFileError(f"{visit.where}: it takes {least} inputs, but {len(places)} are given")
        data = [inputs[place] for place in places]
        # A weight that is computed comes in like any other tensor.
        weights = {key: inputs[place] for key, place in plan.weights.items() if place < len(inputs) and inputs[place]}
        for key, tensor in weights.items():
            if known.is_constant(tensor):
                known.take(tensor, scale=is_learned(op, key, tensor, known), least=0)
            else:
                data.append(tensor)
        self._take(op, inputs, places)
        self._left_out.note(visit.name, op, inputs, places, [*weights.values()])
        if op == "Dropout" and len(inputs) > 2 and inputs[2]:
            training = known.values(inputs[2])
            attributes = {**attributes, "training_mode": training is None or any(training.items)}
        if plan.lacking:
            attributes = {**attributes, "lacking": plan.lacking}
        layers = (plan.layer, *plan.then)
        for step, layer in enumerate(layers):
            last = step == len(layers) - 1
            shapes = [known.shapes[tensor] for tensor in data]
            bound = layer.bind(*shapes)
            outputs = bound.infer(*shapes)
            if weights:
                self._check_weights(bound, weights)
            dtype = known.dtypes[data[0]] if data else "float32"
            dtypes = plan.dtypes or bound.output_dtypes(dtype)
            names = output_names(visit, len(outputs)) if last else [f"{visit.name}/{step}"]
            for tensor, shape, kind in zip(names, outputs, dtypes, strict=False):
                known.shapes[tensor] = shape
                known.dtypes[tensor] = kind
            whole = visit.name if last else f"{visit.name}/{layer.kind}"
            made = Node(whole, bound, tuple(data), tuple(names), weights=weights, op=op, attributes=attributes)
            self.nodes.append(made)
            data, weights = names[:1], {}

    def _take(self, op: str, inputs: Sequence[str], places: Sequence[int]) -> None:
        """Note the constants at these places of a node's inputs."""
        others = unlearned(op, inputs, self.known)
        for place in places:
            self.known.take(inputs[place], scale=place not in others)

    def _check_weights(self, layer: Layer, weights: Mapping[str, str]) -> None:
        wanted = {**layer.parameters(), **layer.buffers()}
        for key, tensor in weights.items():
            shape = self.known.shapes[tensor]
            if key in wanted and product(shape) != product(wanted[key]):
                found = shape_text(shape) or "one number"
                raise ShapeError(f"{key} is {found}, but must be {shape_text(wanted[key])}", field=key, value=shape)

    def add_unknown(self, visit: Visit, why: str) -> None:
        """Add a layer whose cost is unknown, with the shapes that the file tells.

        `why` is empty when the op may be known, but not what comes into it.
        """
        known, node = self.known, visit.node
        shapes, dtypes = [], []
        for output in node.outputs:
            info = visit.scope.infos.get(output)
            told = None if info is None else info.shape
            sizes = [known.sizes.get(size) if isinstance(size, str) else size for size in told or ()]
            if told is not None and None not in sizes:
                shapes.append(tuple(size for size in sizes if size is not None))
            dtypes.append((info and info.dtype) or "float32")
        if len(shapes) < len(node.outputs):
            shapes = []
        self._take(node.op_type, visit.inputs, range(len(visit.inputs)))
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        # A graph inside, such as a loop's, may have weights of its own.
        owns = any(isinstance(attribute.value, Graph) for attribute in node.attributes.values())
        reason = "" if why else "what comes into it is not known"
        layer = Opaque(op, op, owns, tuple(shapes), tuple(dtypes), reason=reason)
        self.add_opaque(visit, layer, [*filter(None, visit.inputs)], op=op)
        if why:
            self.warn(visit.name, why)

    def add_opaque(
        self,
        visit: Visit,
        layer: Opaque,
        inputs: Sequence[str],
        *,
        op: str,
        weights: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a layer of which no more than its outputs' types is known, and perhaps their shapes."""
        names = output_names(visit, len(layer.dtypes))
        self.known.dtypes.update(zip(names, layer.dtypes, strict=False))
        self.known.shapes.update(zip(names, layer.shapes, strict=False))
        facts, own = attributes or {}, weights or {}
        self.nodes.append(Node(visit.name, layer, tuple(inputs), tuple(names), weights=own, op=op, attributes=facts))

    def warn(self, name: str, why: str) -> None:
        """Say that what a node costs is not known."""
        self.warnings.append(f"{name}: {why}; what it costs is left out of the totals")

    # --- networks ---

    def part(self, nodes: Sequence[Node], results: Sequence[str]) -> Network:
        """Some nodes as a network, whose inputs are the tensors that come from elsewhere."""
        known = self.known
        made = {tensor for node in nodes for tensor in node.outputs}
        self._take_results(results)
        taken = dict.fromkeys([*(tensor for node in nodes for tensor in node.inputs), *results])
        inputs = {
            tensor: Input(known.shapes[tensor])
            for tensor in taken
            if tensor not in made and tensor not in known.constants and tensor in known.shapes
        }
        dtypes = {tensor: known.dtypes[tensor] for tensor in (*inputs, *made) if tensor in known.dtypes}
        return Network(inputs, tuple(nodes), tuple(results), constants=known.constants, dtypes=dtypes)

    def network(self, inputs: Mapping[str, Input], outputs: Sequence[str], wanted: Sequence[str]) -> Network:
        """The whole, whose outputs get the names that are `wanted` where nodes have made them under others."""
        known = self.known
        self._take_results(outputs)
        self._left_out.forget(self.nodes)
        named = self._renamed(outputs, wanted)
        return Network(
            inputs,
            tuple(self.nodes),
            tuple(named),
            tuple(self.notes),
            tuple(self.warnings),
            constants=known.constants,
            dtypes={name: dtype for name, dtype in known.dtypes.items() if dtype != "float32"},
        )

    def _take_results(self, results: Sequence[str]) -> None:
        """Note the constants among what goes out."""
        for result in results:
            if result in self.known.stored or result in self.known.smalls:
                self.known.take(result, scale=False)

    def _renamed(self, outputs: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
        """The outputs under the file's names, where a node inside a loop or branch has made them under its own."""
        if len(outputs) != len(wanted) or list(outputs) == list(wanted):  # those of sequences are several
            return outputs
        known = self.known
        made = {tensor for node in self.nodes for tensor in node.outputs}
        held = {tensor for node in self.nodes for tensor in node.attributes.get("inputs", ()) if node.op == "If"}
        names = {
            tensor: name
            for tensor, name in zip(outputs, wanted, strict=True)
            if tensor in made - held and outputs.count(tensor) == 1 and name not in known.shapes
        }
        self.renamed = names
        if names:
            self.nodes = [_with_names(node, names) for node in self.nodes]
            known.shapes |= {name: known.shapes[tensor] for tensor, name in names.items() if tensor in known.shapes}
            known.dtypes |= {name: known.dtypes[tensor] for tensor, name in names.items() if tensor in known.dtypes}
        return [names.get(tensor, tensor) for tensor in outputs]


def output_names(visit: Visit, count: int) -> list[str]:
    """The network's names of a node's outputs; those that the file does not name have the node's."""
    node = visit.node
    if any(visit.scope.is_used(output) for output in node.outputs[count:]):
        raise UnsupportedOpError(f"{node.op_type} with {len(node.outputs)} outputs is not known")
    names = [
        visit.scope.define(output) if output else f"{visit.name}.{place}"
        for place, output in enumerate(node.outputs[:count])
    ]
    return names + [f"{visit.name}.{place}" for place in range(len(names), count)]


def _with_names(node: Node, names: Mapping[str, str]) -> Node:
    """The node with tensors under other names."""
    if names.keys().isdisjoint((*node.inputs, *node.outputs, *node.weights.values())):
        return node
    return replace(
        node,
        inputs=tuple(names.get(tensor, tensor) for tensor in node.inputs),
        outputs=tuple(names.get(tensor, tensor) for tensor in node.outputs),
        weights={key: names.get(tensor, tensor) for key, tensor in node.weights.items()},
    )
