"""The code that torch.fx prints below a model, `print(torch.fx.symbolic_trace(model))`, read as wiring.

    def forward(self, x):
        conv1 = self.conv1(x);  x = None
        add = conv1 + getattr(self.layer1, "0")(conv1)
        return add

It is parsed and never evaluated: modules, functions and methods of PyTorch become nodes, and whole numbers such as
x.size(0) // 2 are computed where the shape is known. What is not known is named, and what comes of it is unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convcalc.errors import ConvcalcError, LayerError, ModelFileError, Span
from convcalc.layers.base import Layer, Shape
from convcalc.layers.join import Concat
from convcalc.layers.matmul import Attention, Einsum
from convcalc.layers.opaque import Opaque
from convcalc.layers.tensor import Split
from convcalc.network import Constant, Node, tensor_names
from convcalc.records import replace
from convcalc.torch_classes import ATTENTION, RECURRENT, Module
from convcalc.torch_functions import (
    JOINS,
    LOST,
    NOTHING,
    SAME,
    Loose,
    Tensor,
    argument_of,
    computed,
    cuts,
    known_shape,
    layer_of,
    measured,
    norm_of,
)
from convcalc.torch_wiring import UNKNOWN, Walk

_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.MatMult: "matmul", ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.Gt: "gt",
}  # fmt: skip


class Owned:
    """What `self.a.b` means: a path into the model."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class GraphWalk(Walk):
    """Wires the modules as the code says. `code` are its lines, the `def` first."""

    code: Sequence[Span] = ()
    inputs: Mapping[str, Shape] = {}

    def through(self, root: Module) -> None:
        """All lines of the code, and then the modules that it does not call."""
        self.modules = _by_path(root)
        self.calls: dict[str, int] = {}
        self.loose: dict[str, None] = {}
        self.broadcast: list[str] = []
        self.values: dict[str, Any] = {}
        self.missing: list[str] = []
        result: Any = NOTHING
        for span in self.code:
            self.span = span
            for statement in _parsed(span):
                if isinstance(statement, ast.FunctionDef):
                    self._arguments(statement)
                elif isinstance(statement, ast.Return):
                    result = self._value(statement.value, "output")
                else:
                    self._statement(statement)
        for path, module in self.modules.items():
            # A traced module without modules is left for its parameters, which the code names.
            holder = module.is_container or module.cls == "Module" or self._is_inside_called(path)
            if path not in self.calls and not holder:
                self._lose()
                self._module(module, path, None)
        tensors = _tensors(result)
        self.current, self.shape = tensors[0].name, tensors[0].shape
        self.outputs = tuple(dict.fromkeys(tensor.name for tensor in tensors if tensor.name != UNKNOWN))
        self.notes.append("the modules are wired as the code says that is printed below them")

    def _is_inside_called(self, path: str) -> bool:
        return any(path[:end] in self.calls for end, letter in enumerate(path) if letter == ".")

    def _arguments(self, function: ast.FunctionDef) -> None:
        """Arguments are the inputs of their names, or the first of them is the only one.

        Of others it is not known what they are, but where the code says what they are without being given.
        """
        arguments = [argument.arg for argument in function.args.args[1:]]
        defaults = dict(zip(reversed(arguments), reversed(function.args.defaults), strict=False))
        for number, name in enumerate(arguments):
            if name in self.inputs:
                self.values[name] = Tensor(name, self.inputs[name])
            elif not number and not self.inputs:
                self.values[name] = Tensor(self.current, self.shape)
            elif name in defaults:
                self.values[name] = self._value(defaults[name], name)
            else:
                self.values[name] = LOST
                self.missing.append(name)

    def unwired(self) -> str:
        """That there are inputs which were not given."""
        if not (self.missing and any(UNKNOWN in node.inputs for node in self.nodes)):
            return ""
        missing = " and ".join(self.missing)
        return (
            f"the code takes {missing} besides, of no shape that is given; --input NAME=SHAPE, with the batch, gives"
            " each by its name"
        )

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            what = _OPERATORS.get(type(statement.op), "")
            self.values[name] = self._call(what, [self.values.get(name, NOTHING), self._value(statement.value, name)],
                                           {}, f"i{name}")  # fmt: skip
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if names:
                value = self._value(statement.value, names[0])
                self.values.update(dict.fromkeys(names, value))

    # --- values -------------------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr | None, name: str) -> Any:
        """The value of an expression; `name` is what a node made for it is called."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return Owned("") if node.id == "self" else self.values.get(node.id, NOTHING)
        if isinstance(node, ast.Tuple | ast.List | ast.Dict):
            items = node.values if isinstance(node, ast.Dict) else node.elts
            return tuple(self._value(item, name) for item in items)
        if isinstance(node, ast.Attribute):
            return self._attribute(self._value(node.value, name), node.attr)
        if isinstance(node, ast.Subscript):
            return self._item(self._value(node.value, name), self._value(node.slice, name), name)
        return self._called(node, name) if isinstance(node, ast.Call) else self._operation(node, name)

    def _operation(self, node: ast.expr | None, name: str) -> Any:
        """What an operator gives."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand, name)
            return -value if isinstance(value, int | float) else NOTHING
        operation: type
        if isinstance(node, ast.BinOp):
            operation, sides = type(node.op), [node.left, node.right]
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            operation, sides = type(node.ops[0]), [node.left, node.comparators[0]]
        else:
            return NOTHING
        return self._call(_OPERATORS.get(operation, ""), [self._value(side, name) for side in sides], {}, name)

    def _attribute(self, owner: Any, attribute: str) -> Any:
        if isinstance(owner, Tensor) and attribute == "shape":
            return owner.shape if owner.shape is not None else NOTHING
        if isinstance(owner, Owned):
            path = f"{owner.path}.{attribute}" if owner.path else attribute
            return Owned(path) if path in self.modules else Loose(path)
        return NOTHING

    def _item(self, owner: Any, index: Any, name: str) -> Any:
        if isinstance(owner, tuple) and isinstance(index, int) and -len(owner) <= index < len(owner):
            return owner[index]
        if isinstance(owner, tuple) and isinstance(index, slice) and index.step != 0:
            return owner[index]
        if not isinstance(owner, Tensor):
            return NOTHING
        try:
            for layer in cuts(known_shape(owner.shape), index if isinstance(index, tuple) else (index,)):
                owner = self._op(layer, [owner], name)
        except LayerError:
            return self._unknown("getitem", [owner], name)
        return owner

    def _called(self, node: ast.Call, name: str) -> Any:
        """A call: of a module, of a tensor's method, or of a function by the last part of its name."""
        function = node.func
        if isinstance(function, ast.Name) and function.id == "getattr" and len(node.args) == 2:
            attribute = self._value(node.args[1], name)
            return (
                self._attribute(self._value(node.args[0], name), attribute) if isinstance(attribute, str) else NOTHING
            )
        arguments = [self._value(argument, name) for argument in node.args]
        named = {word.arg: self._value(word.value, name) for word in node.keywords if word.arg}
        if isinstance(function, ast.Name) and function.id == "slice":
            return slice(*arguments) if all(isinstance(at, int | None) for at in arguments) else NOTHING
        if isinstance(function, ast.Attribute | ast.Call):
            owner = self._value(function, name) if isinstance(function, ast.Call) else self._owner(function, name)
            if isinstance(owner, Owned):
                return self._module_call(owner.path, arguments, named)
            if isinstance(owner, Tensor) and isinstance(function, ast.Attribute):
                return self._call(function.attr, [owner, *arguments], named, name)
        last = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return self._call(last, arguments, named, name)

    def _owner(self, function: ast.Attribute, name: str) -> Any:
        """The module that self.a.b is, or the tensor that a method is called on; nothing for torch.nn and the like."""
        value = self._value(function.value, name)
        if isinstance(value, Owned):
            return self._attribute(value, function.attr)
        return value if isinstance(value, Tensor) else NOTHING

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _module_call(self, path: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        module = self.modules.get(path)
        values = (*arguments, *named.values())
        if module is not None and module.cls in RECURRENT:  # an LSTM's first states come as a pair
            values = tuple(item for value in values for item in (value if isinstance(value, tuple) else (value,)))
        given = [value for value in values if isinstance(value, Tensor)]
        if module is None or not given:
            return LOST
        count = self.calls.get(path, 0) + 1
        while count > 1 and f"{path}.{count}" in self.names:  # such as the last states of the first call
            count += 1
        self.calls[path] = count
        self.current, self.shape = given[0].name, given[0].shape
        if any(tensor.name != given[0].name for tensor in given) and module.cls == ATTENTION:
            self._lose()  # one that looks at something else than itself is wired in no way that is known here
        before = len(self.nodes)
        steps = self._module(module, path if count == 1 else f"{path}.{count}", None)
        for step in steps or ():
            step()
        if len(given) > 1 and module.cls != ATTENTION and len(self.nodes) == before + 1:
            node = self.nodes[-1]
            self.nodes[-1] = replace(node, inputs=tuple(tensor.name for tensor in given))
        if count > 1:
            # Its parameters are those of the first call.
            again = f"{path}.{count}"
            for place, node in enumerate(self.nodes[before:], before):
                self.nodes[place] = replace(node, shares=f"{path}{node.name.removeprefix(again)}")
        result = Tensor(self.current, self.shape)
        if module.cls in RECURRENT and len(self.nodes[-1].outputs) > 1:
            return result, _states(self.nodes[-1], given[0].shape)
        return (result, LOST) if module.cls in (ATTENTION, *RECURRENT) else result

    def _call(self, what: str, arguments: list[Any], named: dict[str, Any], name: str) -> Any:
        """A function or a method; the tensor that it is a method of comes first."""
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        if not tensors and not any(isinstance(value, tuple) for value in arguments[:1]):
            return computed(what, arguments)
        if what in SAME or "stochastic_depth" in what or "drop_path" in what:
            return arguments[0]
        try:
            if what in ("size", "dim"):
                return measured(what, arguments[0], arguments[1:])
            return self._function(what, arguments, named, name)
        except (ConvcalcError, TypeError, ValueError, IndexError):
            return self._unknown(what, arguments, name)

    def _function(self, what: str, arguments: list[Any], named: dict[str, Any], name: str) -> Any:
        """A node for a function. Raises one of several errors for what is not known or called in no known way."""
        first = arguments[0]
        if what in ("cat", "concat", "concatenate"):
            return self._op(Concat(argument_of(arguments, named, 1, "dim", 0)), list(first), name)
        loose = [value for value in (*arguments, *named.values()) if isinstance(value, Loose)]
        if loose:
            return self._with_loose(what, arguments, loose, name)
        if what.rstrip("_") in JOINS and len(arguments) == 2 and not named:
            pair = [self._constant(value, name) for value in arguments]
            return self._op(JOINS[what.rstrip("_")](), pair, name)
        if what == "scaled_dot_product_attention":
            return self._attended(arguments, named, name)
        if what == "einsum" and isinstance(first, str):
            return self._op(Einsum(first), arguments[1:], name)
        lacking = "antialias is not computed" if named.get("antialias") else ""
        return self._op(layer_of(what, first, arguments[1:], named), [first], name, lacking)

    def _attended(self, arguments: list[Any], named: Mapping[str, Any], name: str) -> Any:
        """scaled_dot_product_attention. Of a mask that is not known the numbers hang, not the shape and the cost."""
        mask, causal, scale = (
            argument_of(arguments, named, place, word, plain)
            for place, word, plain in ((3, "attn_mask", None), (5, "is_causal", False), (6, "scale", None))
        )
        known = mask is None or (isinstance(mask, Tensor) and mask.shape is not None)
        lacking = "" if known and isinstance(causal, bool) else "what its mask hides is not known"
        masks = [mask] if known and mask is not None else []
        layer = Attention(
            masked=bool(causal) or mask is not None,
            given=("mask",) * len(masks),
            causal=causal is True,
            scale=scale if isinstance(scale, float) else None,
        )
        return self._op(layer, [*arguments[:3], *masks], name, lacking)

    def _with_loose(self, what: str, arguments: list[Any], loose: Sequence[Loose], name: str) -> Any:
        """A function of tensors that are the model's own: only a norm tells their sizes.

        What is added or multiplied to a tensor is taken to be broadcast to it.
        """
        norm = norm_of(what, arguments, len(loose))
        if norm is not None:
            return self._op(norm, arguments[:1], name)
        if arguments == [*loose, *arguments[1:]] and what in ("view", "reshape", "unsqueeze", "squeeze"):
            return loose[0]
        self.loose.update(dict.fromkeys(tensor.path for tensor in loose))
        others = [value for value in arguments if isinstance(value, Tensor) and value.shape is not None]
        if what not in ("add", "sub", "mul", "truediv") or len(others) != 1:
            return self._unknown(what, arguments, name)
        self.broadcast.append(name)
        shape = known_shape(others[0].shape)
        self._op(Opaque(what, what, owns=False, shapes=(shape,)), others, name)
        return Tensor(self.nodes[-1].outputs[0], shape)

    def _constant(self, value: Any, name: str) -> Any:
        """A number of the code as a tensor; what is none as it is."""
        if not isinstance(value, int | float):
            return value
        constant = f"{name}.number"
        self.constants[constant] = Constant((), "float32", value, parameter=False)
        return Tensor(constant, ())

    def _unknown(self, what: str, arguments: Sequence[Any], name: str) -> Tensor:
        """A node for a function that is not known here."""
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        self.unknown.setdefault(what or "a function", []).append(name)
        self._op(Opaque(what or "function", what or "function", owns=False), tensors or [LOST], name)
        return Tensor(self.nodes[-1].outputs[0], None)

    def _op(self, layer: Layer, tensors: Sequence[Any], name: str, lacking: str = "") -> Any:
        """A node on these tensors; what it gives. `lacking` says why it cannot be run."""
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise LayerError("what comes in is no tensor")
        least, most = layer.inputs
        if not least <= len(tensors) <= (most or len(tensors)):
            raise LayerError(f"{len(tensors)} tensors come in")
        unique = name
        while unique in self.names:
            self.calls[name] = self.calls.get(name, 1) + 1
            unique = f"{name}.{self.calls[name]}"
        outputs = tensor_names(unique, layer)
        self.names.update(outputs)
        facts = {"lacking": lacking} if lacking else {}
        came_in = tuple(tensor.name for tensor in tensors)
        self.nodes.append(Node(unique, layer, came_in, outputs, self.span, attributes=facts))
        shapes: Sequence[Shape | None] = (None,) * len(outputs)
        came = [tensor.shape for tensor in tensors]
        if not isinstance(layer, Opaque) and all(shape is not None for shape in came):
            try:
                shapes = layer.bind(*came).infer(*came)
            except ConvcalcError:
                shapes = (None,) * len(outputs)  # resolving the network says what is wrong
        found = tuple(Tensor(output, shape) for output, shape in zip(outputs, shapes, strict=True))
        return found if isinstance(layer, Split) else found[0]

    def hidden_names(self) -> tuple[str, ...]:
        """Tensors that the code reads from the model: they are parameters, of sizes that are not printed."""
        return (*super().hidden_names(), *self.loose)

    def warnings(self) -> Iterator[str]:
        """What neither modules nor code tell."""
        if self.loose:
            names = list(self.loose)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"parameters are at least what is counted: the size of {names[0]}{more} is not printed"
        if self.broadcast:
            more = f" and {len(self.broadcast) - 1} more" if len(self.broadcast) > 1 else ""
            yield (
                f"{self.broadcast[0]}{more} takes one of these, and is taken to give the shape of the other tensor;"
                " its cost is not counted"
            )
        if self.unwired() and not self.no_input:
            yield f"shapes and costs are partial: {self.unwired()}"
        yield from super().warnings()


def _states(node: Node, came: Shape | None) -> Any:
    """The last states that a recurrent module gives: one, or of an LSTM two."""
    shapes: Sequence[Shape | None] = (None,) * len(node.outputs)
    if came is not None:
        try:
            shapes = node.layer.bind(came).infer(came)
        except ConvcalcError:
            shapes = (None,) * len(node.outputs)  # resolving the network says what is wrong
    states = tuple(Tensor(name, shape) for name, shape in zip(node.outputs[1:], shapes[1:], strict=True))
    return states if len(states) > 1 else states[0]


def _by_path(root: Module) -> dict[str, Module]:
    """All modules below a root by their paths."""
    found: dict[str, Module] = {}
    stack = [(child, "") for child in reversed(root.children)]
    while stack:
        module, above = stack.pop()
        for name in module.names:
            path = f"{above}{name}"
            found[path] = module
            stack += [(child, f"{path}.") for child in reversed(module.children)]
    return found


def argument_names(line: Span) -> tuple[str, ...]:
    """The arguments of the `def` that the code begins with, but for the model itself."""
    names = (a.arg for item in _parsed(line) if isinstance(item, ast.FunctionDef) for a in item.args.args[1:])
    return tuple(names)


def _parsed(span: Span) -> Sequence[ast.stmt]:
    """The statements of a line. Raises `ModelFileError` for one that is no Python."""
    line = span.source.text[span.start : span.end]
    if line.startswith("#"):
        return ()
    try:
        return ast.parse(f"{line} pass" if line.startswith("def ") else line).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ModelFileError("this line of the code below the model cannot be read", span=span) from None


def _tensors(value: Any) -> list[Tensor]:
    """The tensors among what the code returns, which may be tuples of tuples; one that is not known where none is."""
    todo, found = [value], []
    while todo:
        one = todo.pop()
        todo += reversed(one) if isinstance(one, tuple) else ()
        found += [one] if isinstance(one, Tensor) else []
    return found or [LOST]
