"""ONNX files -> `Network`.

The nodes are walked in order. Each becomes a layer (`ops`) on tensors whose shapes are known by then; what computes
shapes is evaluated on the way (`evaluation`). Functions of the file, ops that are others put together (`functions`),
and graphs inside of nodes (`branches`, `loops`) take their node's place. An op that is not known becomes an `Opaque`
layer, if the file says what shapes come out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convcalc.errors import (
    ConvcalcError,
    LayerError,
    ModelFileError,
    ResourceError,
    ShapeError,
    UnsupportedOpError,
)
from convcalc.layers.base import Layer, Shape
from convcalc.onnx.building import Builder
from convcalc.onnx.evaluation import Evaluation
from convcalc.onnx.inputs import GivenShapes, read_inputs
from convcalc.onnx.known import UNFORESEEN, Known, Small
from convcalc.onnx.messages import Function, Graph, Model, Node, versions
from convcalc.onnx.names import MainScope, NodeNames, Scope, Visit, domain_of, infos_of
from convcalc.onnx.ops import function_of
from convcalc.onnx.ops.calls import Call, Plan
from convcalc.onnx.wire import DEEPEST

if TYPE_CHECKING:
    from convcalc.network import Input, Network

OLDEST, NEWEST = 7, 28
"""The versions of ONNX's ops that are known."""
MOST_NODES = 1 << 17
"""How many nodes functions may grow to: those that call one another twice each would never end."""

STRUCTURES: Mapping[str, str] = {
    "If": "branches",
    **dict.fromkeys(("Loop", "Scan", "SequenceMap"), "loops"),
    **dict.fromkeys(
        (
            "Optional", "OptionalGetElement", "OptionalHasElement", "Identity",
            "SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength",
            "ConcatFromSequence", "SplitToSequence",
        ),
        "sequences",
    ),
}  # fmt: skip
"""Ops that decide what is read, by the module that takes them. It is loaded when the first of them is met."""


class Reader:
    """The walk: what has been read so far, and where it is.

    `known` is what is known of tensors, `builder` has the network's nodes; `read` is how many nodes were taken.
    """

    def __init__(self, model: Model, given: GivenShapes, batch: int | None) -> None:
        assert model.graph is not None
        self.file = model.file.name
        self.graph: Graph = model.graph
        self.given = given
        self.batch = batch
        self.known = Known()
        self.builder = Builder(self.known)
        self.read = 0
        self._evaluation = Evaluation(self.known)
        self._names = NodeNames()
        self._functions = self._functions_of(model)
        self._calls: list[tuple[str, str, str]] = []
        self._depth = 0
        self._opset = self._opset_of(model)

    def _opset_of(self, model: Model) -> int:
        opset = model.opsets.get("")
        if opset is None:
            if any(domain_of(node.domain) == "" for node in self.graph.nodes):
                raise ModelFileError(f"{self.file}: it does not say which version of ONNX's ops it uses")
            return NEWEST
        if opset < OLDEST:
            raise UnsupportedOpError(f"{self.file} uses version {opset} of ONNX's ops; {OLDEST} is the oldest known")
        if opset > NEWEST:
            self.builder.notes.append(f"{self.file} uses version {opset} of ONNX's ops; {NEWEST} is the newest known")
        return opset

    def _functions_of(self, model: Model) -> dict[tuple[str, str, str], Function]:
        functions: dict[tuple[str, str, str], Function] = {}
        for function in model.functions:
            key = (domain_of(function.domain), function.name, function.overload)
            if key in functions:
                raise ModelFileError(f"{self.file}: function {function.name} is defined twice")
            functions[key] = function
        return functions

    # --- the whole ---

    def network(self) -> Network:
        """The network of the main graph."""
        if not (self.graph.nodes or self.graph.outputs):
            raise ModelFileError(f"{self.file}: its graph has no nodes and no outputs")
        scope = MainScope(self.file, self.graph, self._opset)
        self.known.store_initializers(self.graph, scope)
        inputs = self.inputs(scope)
        for node in self.graph.nodes:
            self.take(node, scope)
        outputs = []
        for info in self.graph.outputs:
            found = scope.find(info.name)
            if found is None:
                raise ModelFileError(f"{self.file}: nothing makes the output {info.name}")
            # A sequence goes out as the tensors that it holds.
            outputs += self.known.sequences.get(found, [found])
        return self.builder.network(inputs, outputs, [info.name for info in self.graph.outputs])

    def inputs(self, scope: Scope) -> dict[str, Input]:
        """The inputs of the main graph."""
        return read_inputs(self.graph.inputs, scope, self.known, self.given, self.batch)

    # --- nodes ---

    def take(self, node: Node, scope: Scope) -> None:
        """Take one node: add what it is to the network, or note what it gives."""
        self.read += 1
        if self.read > MOST_NODES:
            raise ResourceError(f"{self.file} grows to more than {MOST_NODES} nodes")
        visit = Visit(node, scope, self._names.of(node, scope, self.read - 1))
        function = self.function_of(node)
        if function is not None:
            self._call(visit, function)
            return
        visit.look_up()
        try:
            self._take(visit)
        except UnsupportedOpError as error:
            self.take_unknown(visit, error.message)
        except LayerError as error:
            raise ModelFileError(f"{visit.where}: {error.message}") from None
        except (ShapeError, ModelFileError) as error:
            if not error.message.startswith(self.file) and error.layer is None:
                error.layer = f"{visit.name} ({node.op_type})"
            raise
        except UNFORESEEN as error:
            if isinstance(error, ConvcalcError):
                raise
            # What no rule of an op foresees: a number of axes, a size of 0, a value of another type.
            raise ModelFileError(f"{visit.where}: its attributes and inputs do not fit together ({error})") from None

    def _take(self, visit: Visit) -> None:
        own = domain_of(visit.node.domain) == ""
        if own and (self._evaluation.evaluates(visit) or self._is_structure(visit)):
            return
        if any(tensor and tensor not in self.known.shapes for tensor in visit.inputs):
            self.take_unknown(visit, "")
            return
        call = self._seen(visit)
        try:
            plan = _plan(call, own=own)
        except UnsupportedOpError:
            if own and self._is_put_together(visit, call):
                return
            raise
        self.builder.add(visit, plan)

    def take_unknown(self, visit: Visit, why: str) -> None:
        """Take a node whose op is not known, or only what comes into it is not; then `why` is empty."""
        self.builder.add_unknown(visit, why)

    def _is_structure(self, visit: Visit) -> bool:
        """Whether this op decides what is read; then that is done."""
        module = STRUCTURES.get(visit.node.op_type)
        if module is None:
            return False
        from importlib import import_module

        return bool(import_module(f"convcalc.onnx.{module}").take(self, visit))

    def _seen(self, visit: Visit) -> Call:
        """A node as the functions of its op see it."""
        known, node, inputs = self.known, visit.node, visit.inputs
        return Call(
            node.op_type,
            visit.scope.opset,
            visit.where,
            visit.attributes,
            inputs,
            [known.shapes[name] if name else None for name in inputs],
            [known.dtypes[name] if name else "" for name in inputs],
            [visit.scope.is_used(name) for name in node.outputs] if len(node.outputs) > 1 else (True,),
            known.values,
            self.needed,
            known.is_constant,
        )

    # --- values ---

    def needed(self, name: str) -> Small | None:
        """The values of a tensor without which nothing is known of a node's shapes, or None."""
        return self.known.values(name)

    def number(self, name: str, what: str) -> int:
        """The one number of a tensor. Raises `UnsupportedOpError` where it is not known."""
        small = self.needed(name)
        if small is None or len(small.items) != 1:
            raise UnsupportedOpError(f"{what} is known only when the model runs")
        return int(small.items[0])

    def shape_of(self, name: str) -> Shape:
        """The shape of a tensor. Raises `UnsupportedOpError` where it is not known."""
        if name not in self.known.shapes:
            raise UnsupportedOpError("what comes into it is not known")
        return self.known.shapes[name]

    # --- nodes in a node's place ---

    def function_of(self, node: Node) -> Function | None:
        """The function of the file that a node calls."""
        return self._functions.get((domain_of(node.domain), node.op_type, node.overload)) if self._functions else None

    def _call(self, visit: Visit, function: Function) -> None:
        """Put a function's nodes in the place of the node that calls it."""
        key = (domain_of(function.domain), function.name, function.overload)
        if key in self._calls:
            raise ModelFileError(f"{visit.where}: function {function.name} calls itself")
        node, scope = visit.node, visit.scope
        imports = versions(function.opset_imports)
        inner = Scope(self.file, f"{visit.name}/", imports.get("", scope.opset))
        inner.infos = {info.name: info for info in function.value_infos}
        inner.attributes = {attribute.name: attribute for attribute in function.attribute_defaults} | {
            key: scope.attributes.get(attribute.ref_attr_name, attribute) if attribute.ref_attr_name else attribute
            for key, attribute in node.attributes.items()
        }
        for formal, actual in zip(function.inputs, node.inputs, strict=False):
            if actual:
                inner.names[formal] = visit.input_called(actual)
        self._calls.append(key)
        self.inline(visit, function.nodes, inner, function.outputs)
        self._calls.pop()

    def _is_put_together(self, visit: Visit, call: Call) -> bool:
        """Whether this is an op that is made of others; then these take its place."""
        from convcalc.onnx.functions import FUNCTIONS

        make = FUNCTIONS.get(call.op)
        if make is None:
            return False
        body = make(call)
        inner = self.own_scope(visit.name)
        inner.names = {f"in{place}": tensor for place, tensor in enumerate(call.inputs) if tensor}
        self.inline(visit, body.nodes, inner, body.results)
        return True

    def own_scope(self, name: str) -> Scope:
        """A scope for nodes that no file holds, under a node's name."""
        return Scope(self.file, f"{name}/", NEWEST)

    def inside(self, graph: Graph, scope: Scope, prefix: str) -> Scope:
        """The scope of a graph that stands in another one, with what it begins with."""
        inner = scope.inside(prefix)
        inner.infos = infos_of(graph)
        self.known.store_initializers(graph, inner)
        return inner

    def inline(self, visit: Visit, nodes: Sequence[Node], inner: Scope, results: Sequence[str]) -> None:
        """Put nodes in a node's place, whose outputs are what they call `results`."""
        scope = visit.scope
        for result, output in zip(results, visit.node.outputs, strict=False):
            if output and result not in inner.names:
                inner.called.setdefault(result, scope.calls(output))
        self.walk(nodes, inner, visit.where)
        for result, output in zip(results, visit.node.outputs, strict=False):
            found = inner.find(result)
            if found is None:
                raise ModelFileError(f"{visit.where}: nothing makes its output {result}")
            if output:
                scope.define(output)
                scope.names[output] = found

    def walk(self, nodes: Sequence[Node], scope: Scope, where: str) -> None:
        """Take the nodes of a function or branch in order."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ModelFileError(f"{where}: functions and branches stand more than {DEEPEST} deep inside one another")
        for node in nodes:
            self.take(node, scope)
        self._depth -= 1


def _plan(call: Call, *, own: bool) -> Plan:
    op = function_of(call.op) if own else None
    if op is None:
        raise UnsupportedOpError(f"{call.op} is not known")
    found = op(call)
    return Plan(found) if isinstance(found, Layer) else found
