"""ONNX files -> `Network`.

The nodes are walked in order. Each becomes a layer (`ops.OPS`) on tensors whose shapes are known by then;
what computes shapes is evaluated on the way (`folding`). Functions of the file, and the branch that a
constant condition chooses, take their node's place. An op that is not known becomes an `Opaque` layer, if the file
says what shapes come out of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from convcalc.errors import (
    ConvcalcError,
    ExpressionError,
    LayerError,
    ModelFileError,
    ResourceError,
    ShapeError,
    UnsupportedOpError,
    did_you_mean,
)
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.layers.opaque import Opaque
from convcalc.layers.reshape import Moved
from convcalc.network import Constant, Input, Network, Node
from convcalc.onnx.folding import FOLDERS, MOST_ELEMENTS, UNFORESEEN, Small, fold
from convcalc.onnx.messages import Attribute, Function, Graph, Model, Node as WireNode, ValueInfo, versions
from convcalc.onnx.ops import OPS, RECURRENT, Call, Plan
from convcalc.onnx.tensors import FLOATING, Tensor
from convcalc.onnx.wire import DEEPEST
from convcalc.records import replace
from convcalc.tracing import product

OLDEST, NEWEST = 7, 28
"""The versions of ONNX's ops that are known."""
MOST_NODES = 1 << 17
"""How many nodes functions may grow to: those that call one another twice each would never end."""
MOST_TURNS = 1 << 10
"""How many turns of a loop are written down."""
MOST_FOLDED = 1 << 20
"""How many elements are evaluated in all: shapes are small, and a file must not keep us busy for ever."""

GivenShapes = Mapping[str, Shape]
"""Shapes of inputs by name; "" is the one input of a network that has one."""


class Scope:
    """The names of a graph or function: what its tensors are called in the network, and its attributes' values.

    The main graph's names are the network's; others' stand after a prefix, but for those that go out, which are
    `called` what the graph around calls them.
    """

    __slots__ = ("attributes", "called", "infos", "names", "opset", "outer", "prefix")

    def __init__(self, prefix: str, opset: int, outer: Scope | None = None) -> None:
        self.prefix = prefix
        self.opset = opset
        self.outer = outer
        self.names: dict[str, str] = {}
        self.called: dict[str, str] = {}
        self.attributes: Mapping[str, Attribute] = {}
        self.infos: dict[str, ValueInfo] = {}

    def find(self, name: str) -> str | None:
        """What a tensor is called in the network, or None when nothing has made it."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            scope = scope.outer
        return None


class _Turns:
    """A loop: its name, its body and the scope around that, and how many turns were taken."""

    __slots__ = ("around", "body", "count", "name", "where")

    def __init__(self, name: str, body: Graph, around: Scope, where: str) -> None:
        self.name = name
        self.body = body
        self.around = around
        self.where = where
        self.count = 0


class Reader:
    """The state of the walk: every tensor's shape and type, and the values of those that are known."""

    def __init__(self, model: Model, given: GivenShapes, batch: int | None) -> None:
        assert model.graph is not None
        self.file = model.file.name
        self.graph: Graph = model.graph
        self.functions = self._functions(model)
        self.given = given
        self.batch = batch
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.smalls: dict[str, Small | None] = {}
        self.sizes: dict[str, int] = {}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.read = 0
        self.folded = 0
        self.calls: list[tuple[str, str, str]] = []
        self.depth = 0
        self.left_out: list[tuple[str, str, bool]] = []
        self.sequences: dict[str, list[str]] = {}
        self.written: dict[int, str] = {}
        self.taken: set[str] | None = None
        self.inside = False
        self.renamed: Mapping[str, str] = {}
        self.opset = self._opset(model)

    def wrong(self, what: str) -> ModelFileError:
        """The error for what is wrong with the file."""
        return ModelFileError(f"{self.file}: {what}")

    def _opset(self, model: Model) -> int:
        opset = model.opsets.get("")
        if opset is None:
            if any(node.domain in ("", "ai.onnx") for node in self.graph.nodes):
                raise self.wrong("it does not say which version of ONNX's ops it uses")
            return NEWEST
        if opset < OLDEST:
            raise UnsupportedOpError(f"{self.file} uses version {opset} of ONNX's ops; {OLDEST} is the oldest known")
        if opset > NEWEST:
            self.notes.append(f"{self.file} uses version {opset} of ONNX's ops; {NEWEST} is the newest known")
        return opset

    def _functions(self, model: Model) -> dict[tuple[str, str, str], Function]:
        functions: dict[tuple[str, str, str], Function] = {}
        for function in model.functions:
            key = (_domain(function.domain), function.name, function.overload)
            if key in functions:
                raise self.wrong(f"function {function.name} is defined twice")
            functions[key] = function
        return functions

    # --- the whole ---

    def network(self) -> Network:
        """The network of the main graph."""
        if not (self.graph.nodes or self.graph.outputs):
            raise self.wrong("its graph has no nodes and no outputs")
        scope = Scope("", self.opset)
        scope.infos = {info.name: info for info in (*self.graph.value_infos, *self.graph.outputs)}
        self._initializers(scope, self.graph)
        inputs = self._inputs(scope)
        for node in self.graph.nodes:
            self._node(node, scope)
        outputs = []
        for info in self.graph.outputs:
            found = scope.find(info.name)
            if found is None:
                raise self.wrong(f"nothing makes the output {info.name}")
            # A sequence goes out as the tensors that it holds.
            for tensor in self.sequences.get(found, [found]):
                if tensor in self.tensors or tensor in self.smalls:
                    self._constant(tensor, scale=False)
                outputs.append(tensor)
        self._forget_unlearned()
        named = self._by_their_names(outputs)
        dtypes = {name: dtype for name, dtype in self.dtypes.items() if dtype != "float32"}
        return Network(
            inputs,
            tuple(self.nodes),
            tuple(named),
            tuple(self.notes),
            tuple(self.warnings),
            constants=self.constants,
            dtypes=dtypes,
        )

    def _by_their_names(self, outputs: list[str]) -> Sequence[str]:
        """The outputs under the file's names, where a node inside a loop or branch has made them under its own."""
        if len(outputs) != len(self.graph.outputs):  # sequences are several
            return outputs
        wanted = [info.name for info in self.graph.outputs]
        if list(outputs) == wanted:
            return outputs
        made = {tensor for node in self.nodes for tensor in node.outputs}
        held = {tensor for node in self.nodes for tensor in node.attributes.get("inputs", ()) if node.op == "If"}
        names = {
            tensor: name
            for tensor, name in zip(outputs, wanted, strict=True)
            if tensor in made - held and outputs.count(tensor) == 1 and name not in self.shapes
        }
        self.renamed = names
        if names:
            self.nodes = [_renamed(node, names) for node in self.nodes]
            self.shapes |= {name: self.shapes[tensor] for tensor, name in names.items() if tensor in self.shapes}
            self.dtypes |= {name: self.dtypes[tensor] for tensor, name in names.items() if tensor in self.dtypes}
        return [names.get(tensor, tensor) for tensor in outputs]

    def _initializers(self, scope: Scope, graph: Graph) -> None:
        for tensor in graph.initializers:
            self._tensor(self._define(scope, tensor.name, "initializer"), tensor)
        for sparse in graph.sparse_initializers:
            if sparse.values is None:
                raise self.wrong("a sparse initializer has no values")
            name = self._define(scope, sparse.values.name, "initializer")
            self.shapes[name] = tuple(sparse.dims)
            self.dtypes[name] = sparse.values.dtype
            # Only what is stored is a parameter.
            self.constants[name] = Constant(tuple(sparse.dims), sparse.values.dtype, sparse, parameter=False)

    def _tensor(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = tensor
        self.shapes[name] = tuple(tensor.dims)
        self.dtypes[name] = tensor.dtype

    def _define(self, scope: Scope, name: str, what: str) -> str:
        """The network's name for a tensor that is made here. Raises `ModelFileError` when there is one already."""
        if not name:
            raise self.wrong(f"an {what} has no name")
        if name in scope.names:
            raise self.wrong(f"{what} {name} is made twice")
        whole = scope.names[name] = scope.called.get(name) or scope.prefix + name
        return whole

    # --- inputs ---

    def _inputs(self, scope: Scope) -> dict[str, Input]:
        infos = [info for info in self.graph.inputs if info.name not in scope.names]
        known = [info.name for info in infos]
        for name in self.given if known else ():
            if name and name not in known:
                raise ExpressionError(
                    f"{self.file} has no input {name}{did_you_mean(name, known)}; it has {', '.join(known)}",
                    field="input",
                )
        if not known and (self.given or self.batch is not None):
            raise ExpressionError(f"{self.file} has no inputs; leave out the shape and the batch", field="input")
        if "" in self.given and len(known) != 1:
            raise ExpressionError(
                f"{self.file} has {len(known)} inputs, {', '.join(known)}; name the one that is meant, such as"
                f" --input {known[0]}={shape_text(self.given[''])}",
                field="input",
            )
        return {info.name: self._input(self._define(scope, info.name, "input"), info) for info in infos}

    def _input(self, name: str, info: ValueInfo) -> Input:
        dtype, told = info.dtype, info.shape
        if dtype is None:
            raise UnsupportedOpError(f"{self.file}: input {name} is no tensor, which cannot be reckoned with")
        given = self.given.get(name, self.given.get(""))
        batch_given = True
        if given is not None:
            if told is not None and len(given) == len(told) - 1:
                given = (1 if self.batch is None else self.batch, *given)
                batch_given = self.batch is not None
            elif told is not None and len(given) != len(told):
                raise ShapeError(
                    f"input {name} is {_told_text(told)}, with {len(told)} axes, but"
                    f" {shape_text(given) or 'one number'} is given",
                    field="input",
                )
            sizes: list[int | str | None] = list(given)
        elif told is None:
            raise ShapeError(
                f"{self.file} does not say what shape input {name} has; give it: --input {name}=1x3x224x224",
                field="input",
            )
        else:
            sizes = [self.sizes.get(size, size) if isinstance(size, str) else size for size in told]
            if self.batch is not None and sizes:
                sizes[0] = self.batch
        for axis, size in enumerate(sizes):
            if not isinstance(size, int):
                raise self._open(name, told or (), axis)
            if size < 0:
                raise self.wrong(f"input {name} has a size of {size}")
            symbol = told[axis] if told is not None else None
            if isinstance(symbol, str) and self.sizes.setdefault(symbol, size) != size:
                before = self.sizes[symbol]
                raise ShapeError(
                    f"dimension {symbol} is {size} in input {name}, but {before} before it", field="input", value=size
                )
        shape = tuple(size for size in sizes if isinstance(size, int))
        self.shapes[name] = shape
        self.dtypes[name] = dtype
        return Input(shape, batch_given=batch_given)

    def _open(self, name: str, told: Sequence[int | str | None], axis: int) -> ShapeError:
        symbol = told[axis]
        what = f"dimension {symbol}" if symbol else f"axis {axis}"
        example = "x".join(str(size) if isinstance(size, int) else "1" if place == 0 else "224"
                           for place, size in enumerate(told))  # fmt: skip
        return ShapeError(
            f"{what} of input {name} ({_told_text(told)}) is open; give it: --input {name}={example}",
            field="input",
            value=symbol,
        )

    # --- nodes ---

    def _node(self, node: WireNode, scope: Scope) -> None:
        self.read += 1
        if self.read > MOST_NODES:
            raise ResourceError(f"{self.file} grows to more than {MOST_NODES} nodes")
        domain = _domain(node.domain)
        function = self.functions.get((domain, node.op_type, node.overload)) if self.functions else None
        if function is not None:
            self._call(node, function, scope)
            return
        name = self._name(node, scope)
        where = f"{self.file}: node {name} ({node.op_type})"
        inputs = [self._input_name(given, where, scope) for given in node.inputs]
        attributes = self._attributes(node, scope)
        try:
            if domain == "" and (
                self._evaluated(node, scope, inputs, attributes)
                or self._branch(node, scope, inputs, attributes, where)
                or self._repeated(node, scope, name, inputs, attributes, where)
                or self._listed(node, scope, name, inputs, attributes)
            ):
                return
            if any(tensor and tensor not in self.shapes for tensor in inputs):
                self._opaque(node, scope, name, inputs, "")
                return
            call = self._seen(node, scope, inputs, attributes, where)
            try:
                plan = self._plan(domain, call)
            except UnsupportedOpError:
                if domain == "" and self._put_together(node, scope, name, call):
                    return
                raise
            self._emit(node, scope, name, plan, inputs, attributes)
        except UnsupportedOpError as error:
            self._opaque(node, scope, name, inputs, error.message)
        except LayerError as error:
            raise ModelFileError(f"{where}: {error.message}") from None
        except (ShapeError, ModelFileError) as error:
            if not error.message.startswith(self.file) and error.layer is None:
                error.layer = f"{name} ({node.op_type})"
            raise
        except UNFORESEEN as error:
            if isinstance(error, ConvcalcError):
                raise
            # What no rule of an op foresees: a number of axes, a size of 0, a value of another type.
            raise ModelFileError(f"{where}: its attributes and inputs do not fit together ({error})") from None

    def _name(self, node: WireNode, scope: Scope) -> str:
        """The node's name, made if it has none, and told from others of the same name.

        PyTorch's newer exporter notes the modules apart from the name; then they become a part of it, as its older
        exporter writes them.
        """
        scopes = node.metadata(_SCOPES) if node.metadata_extents else ""
        name = f"{_modules(scopes)}/{node.op_type}" if scopes else node.name or f"{node.op_type}_{self.read - 1}"
        wanted = name = scope.prefix + name
        mark = "_" if scopes else "."
        while name in self.names:
            count = self.names[wanted] = self.names[wanted] + 1
            name = f"{wanted}{mark}{count}"
        self.names[name] = 0
        return name

    def _input_name(self, given: str, where: str, scope: Scope) -> str:
        if not given:
            return ""
        found = scope.find(given)
        if found is None:
            raise ModelFileError(f"{where}: it takes {given}, which nothing before it makes")
        return found

    def _attributes(self, node: WireNode, scope: Scope) -> dict[str, Any]:
        values = {}
        for name, attribute in node.attributes.items():
            meant: Attribute | None = attribute
            if attribute.ref_attr_name:
                meant = scope.attributes.get(attribute.ref_attr_name)
            if meant is not None:
                values[name] = meant.value
        return values

    def _evaluated(self, node: WireNode, scope: Scope, inputs: Sequence[str], attributes: dict[str, Any]) -> bool:
        """Whether the outputs are known without the model running; then they are noted."""
        op = node.op_type
        found: list[Small] | None
        if op == "Constant":
            return self._constant_node(node, scope, attributes)
        if op in ("Shape", "Size") and inputs and inputs[0] in self.shapes:
            shape = self.shapes[inputs[0]]
            if op == "Size":
                found = [Small((), [product(shape)], "int64")]
            else:
                cut = shape[attributes.get("start", 0) : attributes.get("end")]
                found = [Small((len(cut),), cut, "int64")]
        elif op == "Identity" and inputs[:1] and inputs[0] in self.tensors:
            scope.names[self._output(node, scope, 0)] = inputs[0]
            return True
        elif op in FOLDERS and (inputs or op == "Range"):
            found = self._folded(node, inputs, attributes)
        else:
            return False
        if found is None or len(found) < len(node.outputs):
            return False
        self.folded += sum(len(small.items) for small in found)
        for place, small in enumerate(found[: len(node.outputs)]):
            if node.outputs[place]:
                self._note(self._define(scope, node.outputs[place], "tensor"), small)
        return True

    def _folded(self, node: WireNode, inputs: Sequence[str], attributes: dict[str, Any]) -> list[Small] | None:
        """The outputs of an op whose inputs are all known, if it can be evaluated."""
        known = [self._small(name) if name else None for name in inputs]
        if any(small is None for small, name in zip(known, inputs, strict=True) if name):
            return None
        self.folded += sum(len(small.items) for small in known if small is not None)
        if self.folded > MOST_FOLDED:
            return None
        return fold(node.op_type, known, attributes | {"outputs": len(node.outputs)})

    def _output(self, node: WireNode, scope: Scope, place: int) -> str:
        """The name of an output, which must be there and new."""
        if place >= len(node.outputs) or not node.outputs[place]:
            raise self.wrong(f"{node.op_type} {node.name} has no output")
        self._define(scope, node.outputs[place], "tensor")
        return node.outputs[place]

    def _note(self, name: str, small: Small) -> None:
        self.smalls[name] = small
        self.shapes[name] = small.shape
        self.dtypes[name] = small.dtype

    def _constant_node(self, node: WireNode, scope: Scope, attributes: dict[str, Any]) -> bool:
        name = self._define(scope, self._peek(node), "tensor")
        value = attributes.get("value")
        if isinstance(value, Tensor):
            # The Constant of a function or loop's body is one, however often that stands in the network.
            whole = self.written.setdefault(id(value), name)
            if whole == name:
                self._tensor(name, value)
            scope.names[self._peek(node)] = whole
            return True
        for key, dtype in (("value_int", "int64"), ("value_float", "float32")):
            if key in attributes:
                self._note(name, Small((), [attributes[key]], dtype))
                return True
            if f"{key}s" in attributes:
                items = attributes[f"{key}s"]
                self._note(name, Small((len(items),), items, dtype))
                return True
        for key in ("value_string", "value_strings"):
            if key in attributes:
                shape = () if key == "value_string" else (len(attributes[key]),)
                self.shapes[name], self.dtypes[name] = shape, "string"
                self.constants[name] = Constant(shape, "string", attributes[key], parameter=False)
                return True
        raise self.wrong(f"Constant {node.name} has no value that is known")

    def _peek(self, node: WireNode) -> str:
        return node.outputs[0] if node.outputs else ""

    def _small(self, name: str) -> Small | None:
        """The values of a tensor if they are known and few: whole numbers, and floats that are no weights."""
        if name in self.smalls:
            return self.smalls[name]
        tensor = self.tensors.get(name)
        if tensor is None or (tensor.dtype in FLOATING and tensor.dims):
            return None
        self.smalls[name] = small = self._decoded(tensor)
        return small

    def _decoded(self, tensor: Tensor) -> Small | None:
        if tensor.elements > MOST_ELEMENTS:
            return None
        if tensor.absent:
            raise UnsupportedOpError(f"it needs the values of {tensor.name}, whose file is not there")
        numbers = tensor.numbers()
        return None if numbers is None else Small(tensor.dims, numbers, tensor.dtype)

    def _values(self, name: str) -> Small | None:
        """The values of a tensor that an op's shape hangs on: floats of the file too, such as scales."""
        small = self._small(name)
        tensor = self.tensors.get(name)
        return self._decoded(tensor) if small is None and tensor is not None else small

    def _needed(self, name: str) -> Small | None:
        """The values of a tensor without which nothing is known of a node's shapes, or None."""
        return self._values(name)

    # --- functions and branches ---

    def _call(self, node: WireNode, function: Function, scope: Scope) -> None:
        """Put a function's nodes in the place of the node that calls it."""
        key = (_domain(function.domain), function.name, function.overload)
        name = self._name(node, scope)
        where = f"{self.file}: node {name} ({node.op_type})"
        if key in self.calls:
            raise ModelFileError(f"{where}: function {function.name} calls itself")
        imports = versions(function.opset_imports)
        inner = Scope(f"{name}/", imports.get("", scope.opset))
        inner.infos = {info.name: info for info in function.value_infos}
        inner.attributes = {attribute.name: attribute for attribute in function.attribute_defaults} | {
            key: scope.attributes.get(attribute.ref_attr_name, attribute) if attribute.ref_attr_name else attribute
            for key, attribute in node.attributes.items()
        }
        for formal, actual in zip(function.inputs, node.inputs, strict=False):
            if actual:
                inner.names[formal] = self._input_name(actual, where, scope)
        self.calls.append(key)
        self._inline(function.nodes, inner, function.outputs, node, scope, where)
        self.calls.pop()

    def _branch(
        self, node: WireNode, scope: Scope, inputs: Sequence[str], attributes: dict[str, Any], where: str
    ) -> bool:
        """Whether this is an If whose condition is known; then its branch takes its place."""
        if node.op_type != "If":
            return False
        if not (inputs and inputs[0]):
            raise ModelFileError(f"{where}: input 1 is missing")
        condition = self._needed(inputs[0])
        if condition is None or len(condition.items) != 1:
            self._undecided(node, scope, inputs, attributes, where)
            return True
        chosen = attributes.get("then_branch" if condition.items[0] else "else_branch")
        if not isinstance(chosen, Graph):
            raise ModelFileError(f"{where}: the branch that is chosen is missing")
        inner = self._inside(f"{scope.prefix}{node.name or node.op_type}/", scope, chosen)
        self._inline(chosen.nodes, inner, [info.name for info in chosen.outputs], node, scope, where)
        return True

    def _inside(self, prefix: str, scope: Scope, graph: Graph) -> Scope:
        inner = Scope(prefix, scope.opset, scope)
        inner.attributes = scope.attributes
        inner.infos = {info.name: info for info in (*graph.value_infos, *graph.outputs)}
        self._initializers(inner, graph)
        return inner

    # --- loops and sequences ---

    def _repeated(
        self,
        node: WireNode,
        scope: Scope,
        name: str,
        inputs: Sequence[str],
        attributes: dict[str, Any],
        where: str,
    ) -> bool:
        """Whether this is a Loop or Scan; then its body takes its place, once for each turn.

        Raises `UnsupportedOpError` where how often it runs is known only when the model does, or is too often.
        """
        if node.op_type not in ("Loop", "Scan", "SequenceMap"):
            return False
        body = attributes.get("body")
        if not isinstance(body, Graph):
            raise ModelFileError(f"{where}: its body is missing")
        start, said = len(self.nodes), len(self.warnings)
        turns = _Turns(name, body, self._inside(f"{name}/", scope, body), where)
        try:
            if node.op_type == "Loop":
                results = self._loop(turns, inputs)
            elif node.op_type == "Scan":
                results = self._scan(turns, inputs, attributes)
            else:
                results = self._mapped(turns, inputs)
        except UnsupportedOpError:
            del self.nodes[start:], self.warnings[said:]
            raise
        for result, output in zip(results, node.outputs, strict=False):
            if output:
                self._define(scope, output, "tensor")
                scope.names[output] = result
        return True

    def _turn(self, turns: _Turns, given: Sequence[str]) -> list[str]:
        """Take the body's nodes once, on these tensors; what comes out."""
        if turns.count == MOST_TURNS:
            raise UnsupportedOpError(f"it takes more than {MOST_TURNS} turns")
        inner = Scope(f"{turns.name}/{turns.count}/", turns.around.opset, turns.around)
        inner.attributes = turns.around.attributes
        inner.names = {info.name: tensor for info, tensor in zip(turns.body.inputs, given, strict=False) if tensor}
        self._walk(turns.body.nodes, inner, turns.where)
        turns.count += 1
        found = [inner.find(info.name) for info in turns.body.outputs]
        missing = next((info.name for info, name in zip(turns.body.outputs, found, strict=True) if name is None), None)
        if missing is not None:
            raise ModelFileError(f"{turns.where}: nothing makes its output {missing}")
        return [name for name in found if name is not None]

    def _loop(self, turns: _Turns, inputs: Sequence[str]) -> list[str]:
        """The last states of a Loop, and what its turns gave, stacked."""
        most = self._number(inputs[0], "how often it runs") if inputs and inputs[0] else None
        goes_on = bool(self._number(inputs[1], "whether it runs")) if inputs[1:2] != [""] and inputs[1:] else True
        states = list(inputs[2:])
        given: list[list[str]] = []
        while goes_on and (most is None or turns.count < most):
            begun = f"{turns.name}/{turns.count}"
            self._note(f"{begun}.turn", Small((), [turns.count], "int64"))
            self._note(f"{begun}.on", Small((), [True], "bool"))
            found = self._turn(turns, [f"{begun}.turn", f"{begun}.on", *states])
            goes_on = bool(self._number(found[0], "whether it runs on"))
            states = found[1 : 1 + len(states)]
            given.append(found[1 + len(states) :])
        return states + self._stacked(turns, given, [0] * len(turns.body.outputs))

    def _scan(self, turns: _Turns, inputs: Sequence[str], attributes: Mapping[str, Any]) -> list[str]:
        """The last states of a Scan, and what its turns gave, stacked."""
        count = attributes.get("num_scan_inputs", 0)
        if turns.around.opset < 9 or not isinstance(count, int) or not 0 < count <= len(inputs):
            raise UnsupportedOpError("Scan of this form is not known")
        states, rows = list(inputs[:-count]), inputs[-count:]
        axes = attributes.get("scan_input_axes") or [0] * count
        backwards = attributes.get("scan_input_directions") or [0] * count
        length = self._shape_of(rows[0])[axes[0]]
        given: list[list[str]] = []
        for turn in range(length):
            parts = [
                self._made(turns, "Gather", [row, self._place(turns, length - 1 - turn if back else turn)], axis=axis)
                for row, axis, back in zip(rows, axes, backwards, strict=True)
            ]
            found = self._turn(turns, [*states, *parts])
            states = found[: len(states)]
            given.append(found[len(states) :])
        outputs = len(turns.body.outputs) - len(states)
        turned = attributes.get("scan_output_directions") or [0] * outputs
        for place in range(outputs) if given else ():
            if turned[place]:
                column = [found[place] for found in reversed(given)]
                for found, tensor in zip(given, column, strict=True):
                    found[place] = tensor
        return states + self._stacked(turns, given, attributes.get("scan_output_axes") or [0] * outputs)

    def _mapped(self, turns: _Turns, inputs: Sequence[str]) -> list[str]:
        """The sequences that a SequenceMap gives: its body on each tensor of the first, and of others beside it."""
        rows = self._elements(inputs[0])
        given = [
            self._turn(turns, [self.sequences[name][turn] if name in self.sequences else name for name in inputs])
            for turn in range(len(rows))
        ]
        return [
            self._sequence(f"{turns.name}.{place}", [found[place] for found in given])
            for place in range(len(turns.body.outputs))
        ]

    def _listed(
        self, node: WireNode, scope: Scope, name: str, inputs: Sequence[str], attributes: Mapping[str, Any]
    ) -> bool:
        """Whether this is an op on sequences of tensors; they are names only, and no layers."""
        op = node.op_type
        if op in ("Optional", "OptionalGetElement") and inputs[:1] and inputs[0]:
            result = inputs[0]
        elif op == "OptionalHasElement":
            result = f"{name}.has"
            self._note(result, Small((), [bool(inputs and inputs[0])], "bool"))
        elif op == "Identity" and inputs[:1] and inputs[0] in self.sequences:
            result = inputs[0]
        elif op in ("SequenceEmpty", "SequenceConstruct"):
            result = self._sequence(name, list(inputs))
        elif op in ("SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "ConcatFromSequence"):
            result = self._from_sequence(op, name, inputs, attributes)
        elif op == "SplitToSequence":
            result = self._sequence(name, self._split_parts(name, inputs, attributes))
        else:
            return False
        scope.names[self._output(node, scope, 0)] = result
        return True

    def _from_sequence(self, op: str, name: str, inputs: Sequence[str], attributes: Mapping[str, Any]) -> str:
        elements = list(self._elements(inputs[0]))
        if op == "SequenceLength":
            self._note(f"{name}.length", Small((), [len(elements)], "int64"))
            return f"{name}.length"
        if op == "ConcatFromSequence":
            axis = attributes.get("axis", 0)
            if attributes.get("new_axis"):
                return self._stack(name, elements, axis)
            return self._made(name, "Concat", elements, axis=axis)
        at = 2 if op == "SequenceInsert" else 1
        last = len(elements) if op == "SequenceInsert" else -1
        place = self._number(inputs[at], "its place in the sequence") if inputs[at:] and inputs[at] else last
        if op == "SequenceInsert":
            elements.insert(place, inputs[1])
        elif op == "SequenceAt":
            return elements[place]
        else:
            del elements[place]
        return self._sequence(name, elements)

    def _split_parts(self, name: str, inputs: Sequence[str], attributes: Mapping[str, Any]) -> list[str]:
        """The parts of a SplitToSequence: of given sizes, of one size but for the last, or of 1 each."""
        shape = self._shape_of(inputs[0])
        axis = attributes.get("axis", 0)
        given = self._needed(inputs[1]) if inputs[1:] and inputs[1] else Small((), [1], "int64")
        if given is None:
            raise UnsupportedOpError("its sizes are known only when the model runs")
        size = shape[axis]
        sizes = given.items
        if not given.shape:
            sizes = [min(given.items[0], size - start) for start in range(0, size, given.items[0])]
        self._note(f"{name}.sizes", Small((len(sizes),), sizes, "int64"))
        parts = self._made_several(name, "Split", [inputs[0], f"{name}.sizes"], len(sizes), axis=axis)
        if len(inputs) > 1 or attributes.get("keepdims", 1):
            return parts
        return [self._made(name, "Squeeze", [part, self._place(name, axis, rank=1)]) for part in parts]

    def _sequence(self, name: str, elements: list[str]) -> str:
        """Note a sequence under a name of its own."""
        whole = f"{name}.sequence"
        self.sequences[whole] = elements
        return whole

    def _elements(self, name: str) -> list[str]:
        if name not in self.sequences:
            raise UnsupportedOpError("which sequence comes into it is not known")
        return self.sequences[name]

    def _shape_of(self, name: str) -> Shape:
        if name not in self.shapes:
            raise UnsupportedOpError("what comes into it is not known")
        return self.shapes[name]

    def _number(self, name: str, what: str) -> int:
        small = self._needed(name)
        if small is None or len(small.items) != 1:
            raise UnsupportedOpError(f"{what} is known only when the model runs")
        return int(small.items[0])

    def _place(self, turns: _Turns | str, number: int, *, rank: int = 0) -> str:
        """A whole number as a tensor."""
        name = f"{turns if isinstance(turns, str) else turns.name}.{number}.{rank}"
        self._note(name, Small((1,) * rank, [number], "int64"))
        return name

    def _stacked(self, turns: _Turns, given: Sequence[Sequence[str]], axes: Sequence[int]) -> list[str]:
        """What each turn gave, along a new axis."""
        if not given and len(turns.body.outputs) > len(turns.body.inputs) - 1:
            raise UnsupportedOpError("it takes no turn, so what its turns give is not known")
        return [self._stack(turns.name, list(column), axis) for column, axis in zip(zip(*given), axes)]  # noqa: B905

    def _stack(self, name: str, tensors: Sequence[str], axis: int) -> str:
        place = self._place(name, axis, rank=1)
        return self._made(name, "Concat", [self._made(name, "Unsqueeze", [each, place]) for each in tensors], axis=axis)

    def _made(self, place: _Turns | str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The output of a node that is in no file, but what one in it stands for."""
        return self._made_several(place, op, inputs, 1, **attributes)[0]

    def _made_several(
        self, place: _Turns | str, op: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        from convcalc.onnx.functions import MadeNode

        inner = Scope(f"{place if isinstance(place, str) else place.name}/", NEWEST)
        names = [f"in{number}" for number in range(len(inputs))]
        inner.names = dict(zip(names, inputs, strict=True))
        outputs = [f"{op}_{self.read}.{number}" for number in range(count)]
        self._node(MadeNode(op, names, outputs, attributes), inner)
        return [inner.names[output] for output in outputs]

    def _undecided(
        self, node: WireNode, scope: Scope, inputs: Sequence[str], attributes: dict[str, Any], where: str
    ) -> None:
        """Add an If whose condition the model computes: it owns what both branches do, and costs what nobody knows.

        Its shapes are known where both branches give the same. What runs are the branches, networks of their own that
        take what the graph around them has made.
        """
        name = next(reversed(self.names))
        start, said = len(self.nodes), len(self.warnings)
        told: list[list[tuple[Shape | None, str]]] = []
        branches: dict[str, Network] = {}
        for key in ("then_branch", "else_branch"):
            graph = attributes.get(key)
            if not isinstance(graph, Graph):
                raise ModelFileError(f"{where}: its {key} is missing")
            inner = self._inside(f"{name}/{key.removesuffix('_branch')}/", scope, graph)
            self._walk(graph.nodes, inner, where)
            results = [inner.find(info.name) or "" for info in graph.outputs]
            told.append([(self.shapes.get(result), self.dtypes.get(result, "float32")) for result in results])
            begun = start + sum(len(branch.nodes) for branch in branches.values())
            branches[key] = self._part(self.nodes[begun:], results)
        inside = self.nodes[start:]
        del self.nodes[start:], self.warnings[said:]
        taken = [tensor for each in inside for tensor in (*each.inputs, *each.weights.values())]
        owned = {tensor: self.constants[tensor].shape for tensor in taken
                 if tensor in self.constants and self.constants[tensor].parameter}  # fmt: skip
        outputs = told[0][: len(node.outputs)]
        shapes = tuple(shape for shape, _ in outputs if shape is not None)
        if told[0] != told[1] or len(shapes) < len(node.outputs):
            shapes = ()
        dtypes = tuple(dtype for _, dtype in outputs)
        names = self._output_names(node, scope, name, len(outputs))
        self.dtypes.update(zip(names, dtypes, strict=False))
        self.shapes.update(zip(names, shapes, strict=False))
        why = "which branch is taken is known only when the model runs"
        self.warnings.append(f"{name} (If): {why}; what it costs is left out of the totals")
        layer = Opaque("If", "If", False, shapes, dtypes, owned, why)
        weights = {tensor: tensor for tensor in owned}
        every = (inputs[0], *(tensor for branch in branches.values() for tensor in branch.inputs))
        came = tuple(dict.fromkeys(every))
        facts = {**branches, "inputs": came}
        self.nodes.append(Node(name, layer, came, tuple(names), weights=weights, op="If", attributes=facts))

    def _part(self, nodes: Sequence[Node], results: Sequence[str]) -> Network:
        """Some nodes as a network, whose inputs are the tensors that come from elsewhere."""
        made = {tensor for node in nodes for tensor in node.outputs}
        for result in results:
            if result in self.tensors or result in self.smalls:
                self._constant(result, scale=False)
        taken = dict.fromkeys([*(tensor for node in nodes for tensor in node.inputs), *results])
        inputs = {
            tensor: Input(self.shapes[tensor])
            for tensor in taken
            if tensor not in made and tensor not in self.constants and tensor in self.shapes
        }
        dtypes = {tensor: self.dtypes[tensor] for tensor in (*inputs, *made) if tensor in self.dtypes}
        return Network(inputs, tuple(nodes), tuple(results), constants=self.constants, dtypes=dtypes)

    def _walk(self, nodes: Sequence[WireNode], scope: Scope, where: str) -> None:
        """Take the nodes of a function or branch in order."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise ModelFileError(f"{where}: functions and branches stand more than {DEEPEST} deep inside one another")
        for node in nodes:
            self._node(node, scope)
        self.depth -= 1

    def _inline(
        self,
        nodes: Sequence[WireNode],
        inner: Scope,
        results: Sequence[str],
        node: WireNode,
        scope: Scope,
        where: str,
    ) -> None:
        for result, output in zip(results, node.outputs, strict=False):
            if output and result not in inner.names:
                inner.called.setdefault(result, scope.called.get(output) or scope.prefix + output)
        self._walk(nodes, inner, where)
        for result, output in zip(results, node.outputs, strict=False):
            found = inner.find(result)
            if found is None:
                raise ModelFileError(f"{where}: nothing makes its output {result}")
            if output:
                self._define(scope, output, "tensor")
                scope.names[output] = found

    # --- layers ---

    def _seen(
        self, node: WireNode, scope: Scope, inputs: Sequence[str], attributes: dict[str, Any], where: str
    ) -> Call:
        """A node as the functions of its op see it."""
        return Call(
            node.op_type,
            scope.opset,
            where,
            attributes,
            inputs,
            [self.shapes[name] if name else None for name in inputs],
            [self.dtypes[name] if name else "" for name in inputs],
            [self._is_used(name, scope) for name in node.outputs] if len(node.outputs) > 1 else (True,),
            self._values,
            self._needed,
            self._is_constant,
        )

    def _plan(self, domain: str, call: Call) -> Plan:
        op = OPS.get(call.op) if domain == "" else None
        if op is None:
            raise UnsupportedOpError(f"{call.op} is not known")
        found = op(call)
        return Plan(found) if isinstance(found, Layer) else found

    def _put_together(self, node: WireNode, scope: Scope, name: str, call: Call) -> bool:
        """Whether this is an op that is made of others; then these take its place."""
        from convcalc.onnx.functions import FUNCTIONS

        make = FUNCTIONS.get(call.op)
        if make is None:
            return False
        body = make(call)
        inner = Scope(f"{name}/", NEWEST)
        inner.names = {f"in{place}": tensor for place, tensor in enumerate(call.inputs) if tensor}
        self._inline(body.nodes, inner, body.results, node, scope, call.where)
        return True

    def _is_constant(self, name: str) -> bool:
        return name in self.tensors or name in self.constants

    def _is_used(self, name: str, scope: Scope) -> bool:
        """Whether anything takes a tensor: what nothing takes need not be made."""
        if scope.outer is not None or scope.prefix:
            return bool(name)
        if self.taken is None:
            self.taken = {info.name for info in self.graph.outputs}
            for node in self.graph.nodes:
                self.taken.update(node.inputs)
                # Branches and loops may take any tensor of the graph around them.
                self.inside |= node.op_type in ("If", "Loop", "Scan")
        return bool(name) and (self.inside or name in self.taken)

    def _emit(
        self, node: WireNode, scope: Scope, name: str, plan: Plan, inputs: Sequence[str], attributes: dict[str, Any]
    ) -> None:
        """Add the layer, or the layers in a row, that a node is."""
        places = [place for place, tensor in enumerate(inputs) if tensor] if plan.data is None else plan.data
        least = plan.layer.inputs[0]
        if len(places) < least:
            raise ModelFileError(
                f"{self.file}: node {name} ({node.op_type}): it takes {least} inputs, but {len(places)} are given"
            )
        data = [inputs[place] for place in places]
        # A weight that is computed comes in like any other tensor.
        weights = {key: inputs[place] for key, place in plan.weights.items() if place < len(inputs) and inputs[place]}
        for key, tensor in weights.items():
            if self._is_constant(tensor):
                learned = not key.startswith("running_") and not self._is_made_up(node.op_type, key, tensor)
                self._constant(tensor, scale=learned, least=0)
            else:
                data.append(tensor)
        unlearned = _unlearned(node.op_type, [self._is_constant(tensor) for tensor in inputs])
        for place in places:
            self._constant(inputs[place], scale=place not in unlearned)
        state = node.op_type in RECURRENT
        self.left_out += [
            (tensor, name, state)
            for place, tensor in enumerate(inputs)
            if (place not in places or (state and place))
            and tensor not in weights.values()
            and tensor not in self.smalls
            and self.dtypes.get(tensor) in FLOATING
        ]
        if node.op_type == "Dropout" and len(inputs) > 2 and inputs[2]:
            known = self._values(inputs[2])
            attributes = {**attributes, "training_mode": known is None or any(known.items)}
        if plan.lacking:
            attributes = {**attributes, "lacking": plan.lacking}
        layers = (plan.layer, *plan.then)
        for step, layer in enumerate(layers):
            last = step == len(layers) - 1
            shapes = [self.shapes[tensor] for tensor in data]
            bound = layer.bind(*shapes)
            outputs = bound.infer(*shapes)
            self._check_weights(bound, weights)
            dtype = self.dtypes[data[0]] if data else "float32"
            dtypes = plan.dtypes or bound.output_dtypes(dtype)
            names = self._output_names(node, scope, name, len(outputs)) if last else [f"{name}/{step}"]
            for tensor, shape, kind in zip(names, outputs, dtypes, strict=False):
                self.shapes[tensor] = shape
                self.dtypes[tensor] = kind
            whole = name if last else f"{name}/{layer.kind}"
            made = Node(
                whole, bound, tuple(data), tuple(names), weights=weights, op=node.op_type, attributes=attributes
            )
            self.nodes.append(made)
            data, weights = names[:1], {}

    def _output_names(self, node: WireNode, scope: Scope, name: str, count: int) -> list[str]:
        """The network's names of the outputs; those that the file does not name have the node's."""
        names = []
        if any(self._is_used(output, scope) for output in node.outputs[count:]):
            raise UnsupportedOpError(f"{node.op_type} with {len(node.outputs)} outputs is not known")
        for place, output in enumerate(node.outputs[:count]):
            names.append(self._define(scope, output, "tensor") if output else f"{name}.{place}")
        return names + [f"{name}.{place}" for place in range(len(names), count)]

    def _check_weights(self, layer: Layer, weights: Mapping[str, str]) -> None:
        wanted = {**layer.parameters(), **layer.buffers()}
        for key, tensor in weights.items():
            if key in wanted and product(self.shapes[tensor]) != product(wanted[key]):
                found = shape_text(self.shapes[tensor]) or "one number"
                raise ShapeError(
                    f"{key} is {found}, but must be {shape_text(wanted[key])}", field=key, value=self.shapes[tensor]
                )

    def _constant(self, name: str, *, scale: bool, least: int = 2) -> None:
        """Note a tensor of the file that a node takes. Floats serve as weight, scale or bias; a single one is a number.

        `least` is how many elements a parameter has.
        """
        tensor = self.tensors.get(name)
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

    def _forget_unlearned(self) -> None:
        """Take constants from the parameters that serve only what layers leave out: sizes, and states of zeros.

        An initial state is a parameter only where it is learned; PyTorch writes the zeros of one that is not.
        """
        if not self.left_out:
            return
        makers = {tensor: node for node in self.nodes for tensor in node.outputs}
        takers: dict[str, set[str]] = {}
        for node in self.nodes:
            for tensor in (*node.inputs, *node.weights.values()):
                takers.setdefault(tensor, set()).add(node.name)
        idle: dict[str, bool] = {}
        passed = {taker for _, taker, state in self.left_out if state}
        for tensor, _, state in self.left_out:
            stack = [tensor]
            while stack:
                name = stack.pop()
                maker = makers.get(name)
                if name in self.constants:
                    idle[name] = state or idle.get(name, False)
                elif maker is not None and maker.name not in passed and isinstance(maker.layer, Moved):
                    passed.add(maker.name)
                    stack += maker.inputs
        for name, state in idle.items():
            if takers.get(name, passed) <= passed and not (state and self._holds_more_than_zeros(name)):
                self.constants[name].parameter = False

    def _is_made_up(self, op: str, key: str, name: str) -> bool:
        """Whether a norm's scale is ones or its bias zeros, and it bears no module's name.

        Exporters write those for a norm that has neither, and for one of groups, which they put together of others.
        """
        if op != "InstanceNormalization" or "." in name.rpartition("/")[2]:
            return False
        tensor = self.tensors.get(name)
        numbers = None if tensor is None or tensor.absent else tensor.numbers()
        return numbers is not None and set(numbers) == {1.0 if key == "weight" else 0.0}

    def _holds_more_than_zeros(self, name: str) -> bool:
        tensor = self.tensors.get(name)
        numbers = None if tensor is None or tensor.absent else tensor.numbers()
        return numbers is None or any(numbers)

    def _opaque(self, node: WireNode, scope: Scope, name: str, inputs: Sequence[str], why: str) -> None:
        """Add a layer whose cost is unknown, with the shapes that the file tells.

        `why` is empty when the op may be known, but not what comes into it.
        """
        shapes, dtypes = [], []
        for output in node.outputs:
            info = scope.infos.get(output)
            told = None if info is None else info.shape
            sizes = [self.sizes.get(size) if isinstance(size, str) else size for size in told or ()]
            if told is not None and None not in sizes:
                shapes.append(tuple(size for size in sizes if size is not None))
            dtypes.append((info and info.dtype) or "float32")
        if len(shapes) < len(node.outputs):
            shapes = []
        unlearned = _unlearned(node.op_type, [self._is_constant(tensor) for tensor in inputs])
        for place, tensor in enumerate(inputs):
            self._constant(tensor, scale=place not in unlearned)
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        names = self._output_names(node, scope, name, len(node.outputs))
        for tensor, dtype in zip(names, dtypes, strict=True):
            self.dtypes[tensor] = dtype
        self.shapes.update(zip(names, shapes, strict=False))
        # A graph inside, such as a loop's, may have weights of its own.
        owns = any(isinstance(attribute.value, Graph) for attribute in node.attributes.values())
        reason = "" if why else "what comes into it is not known"
        layer = Opaque(op, op, owns, tuple(shapes), tuple(dtypes), reason=reason)
        if why:
            self.warnings.append(f"{name}: {why}; what it costs is left out of the totals")
        self.nodes.append(Node(name, layer, tuple(filter(None, inputs)), tuple(names), op=op))


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node with tensors under other names."""
    if names.keys().isdisjoint((*node.inputs, *node.outputs, *node.weights.values())):
        return node
    return replace(
        node,
        inputs=tuple(names.get(tensor, tensor) for tensor in node.inputs),
        outputs=tuple(names.get(tensor, tensor) for tensor in node.outputs),
        weights={key: names.get(tensor, tensor) for key, tensor in node.weights.items()},
    )


_SCOPES = "pkg.torch.onnx.name_scopes"
"""The key under which PyTorch's exporter notes the modules that a node is in, as Python prints a list."""


@lru_cache(maxsize=1)
def _modules(scopes: str) -> str:
    """The modules as a path: each by its attribute's name, and what has a number after its container.

    The last one is the node's own name and is left out.

    >>> _modules("['', 'features', 'features.1', 'features.1.0', 'features.1.0.conv', 'conv2d_3']")
    '/features/features.1/features.1.0/conv'
    """
    path, before, called = "", "", ""
    for module in re.findall(r"'([^']*)'", scopes)[1:-1]:
        own = module.removeprefix(f"{before}.") if before else module
        called = f"{called}.{own}" if called and own[:1].isdigit() else own
        path += f"/{called}"
        before = module
    return path


_UNLEARNED: Mapping[str, Sequence[int]] = {
    "BatchNormalization": (3, 4), "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pow": (1,), "Mod": (1,),
    "Scatter": (2,), "ScatterElements": (2,), "ScatterND": (2,),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),
}  # fmt: skip
"""Places of inputs whose floats are no weight, scale or bias, in whatever they hold."""


def _unlearned(op: str, constant: Sequence[bool]) -> Sequence[int]:
    """The places of such inputs of a node. Where a product has two constant factors, the second is the weight."""
    return (0,) if op in ("MatMul", "Gemm") and all(constant[:2]) else _UNLEARNED.get(op, ())


def _domain(domain: str) -> str:
    """A domain; ONNX's own has two names."""
    return "" if domain == "ai.onnx" else domain


def _told_text(told: Sequence[int | str | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in told) or "a scalar"
