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
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from convcalc.errors import ConvcalcError, LayerError, ModelFileError, Span
from convcalc.layers import find_kind
from convcalc.layers.base import Layer, Shape, whole
from convcalc.layers.elementwise import Clip, Combine, Function
from convcalc.layers.join import Add, Concat, Mul
from convcalc.layers.matmul import Attention, Einsum, MatMul
from convcalc.layers.norm import BatchNorm, GroupNorm, LayerNorm
from convcalc.layers.opaque import Opaque
from convcalc.layers.rearrange import Permute, Reshape
from convcalc.layers.reduce import Reduce
from convcalc.layers.reshape import Flatten
from convcalc.layers.tensor import PadAxes, Slice, Split
from convcalc.network import Constant, Node, tensor_names
from convcalc.torch_classes import ATTENTION, RECURRENT, Module
from convcalc.torch_wiring import UNKNOWN, Walk

_RANKS = (1, 2, 3)
_IN_PLACE = ("inplace",)
_POOL = ("kernel_size", "stride", "padding")
_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name.lower(): (name, _IN_PLACE) for name in
       ("ReLU", "ReLU6", "Hardswish", "Hardsigmoid", "SELU", "SiLU", "Mish")},
    **{name.lower(): (name, ()) for name in
       ("Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Tanhshrink", "GELU", "Identity")},
    "leaky_relu": ("LeakyReLU", ("negative_slope", *_IN_PLACE)),
    "elu": ("ELU", ("alpha", *_IN_PLACE)),
    "celu": ("CELU", ("alpha", *_IN_PLACE)),
    "hardtanh": ("Hardtanh", ("min_val", "max_val", *_IN_PLACE)),
    "softplus": ("Softplus", ("beta", "threshold")),
    "softmax": ("Softmax", ("dim",)),
    "log_softmax": ("LogSoftmax", ("dim",)),
    "glu": ("GLU", ("dim",)),
    "interpolate": ("Upsample", ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")),
    "pixel_shuffle": ("PixelShuffle", ("upscale_factor",)),
    "pixel_unshuffle": ("PixelUnshuffle", ("downscale_factor",)),
    "channel_shuffle": ("ChannelShuffle", ("groups",)),
    **{f"dropout{end}": (f"Dropout{end}", ("p", "training", *_IN_PLACE)) for end in ("", "1d", "2d", "3d")},
    **{f"max_pool{rank}d": (f"MaxPool{rank}d", (*_POOL, "dilation", "ceil_mode", "return_indices")) for rank in _RANKS},
    **{f"avg_pool{rank}d": (f"AvgPool{rank}d", (*_POOL, "ceil_mode", "count_include_pad", "divisor_override"))
       for rank in _RANKS},
    **{f"adaptive_{what.lower()}_pool{rank}d": (f"Adaptive{what}Pool{rank}d", ("output_size",))
       for what in ("Avg", "Max") for rank in _RANKS},
}  # fmt: skip
"""Functions of torch.nn.functional and methods that are a layer: its class, and what follows the tensor in a call."""

_NO_FIELDS = ("training", "antialias", "dtype", "memory_format", "_stacklevel", "copy", "non_blocking")
"""Arguments that change neither shape nor cost."""

_SAME = ("contiguous", "clone", "detach", "to", "float", "half", "cuda", "cpu", "type", "type_as", "requires_grad_")
"""Methods that give the tensor itself, or a copy."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "eq", "ne", "lt", "gt")
}
_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.MatMult: "matmul", ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.Gt: "gt",
}  # fmt: skip
_JOINS: dict[str, Callable[[], Layer]] = {
    "add": Add,
    "mul": Mul,
    "sub": lambda: Combine("sub"),
    "truediv": lambda: Combine("div"),
    "div": lambda: Combine("div"),
    "matmul": MatMul,
    "bmm": MatMul,
}
"""Functions of two tensors."""

_MOST_PARTS = 10_000
_LARGEST = 2**63
"""Whole numbers of the code beyond this are not computed."""


class Tensor:
    """A tensor of the code: the name that nodes know it by, and its shape where that is known."""

    __slots__ = ("name", "shape")

    def __init__(self, name: str, shape: Shape | None) -> None:
        self.name = name
        self.shape = shape


class Loose(Tensor):
    """A tensor of the model that is in no module: a parameter of unknown size."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__(UNKNOWN, None)
        self.path = path


class _Unknown:
    """A value that is no tensor and not known."""


_NOTHING = _Unknown()
_LOST = Tensor(UNKNOWN, None)


class Owned:
    """What `self.a.b` means: a path into the model."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class GraphWalk(Walk):
    """Wires the modules as the code says. `code` are its lines, the `def` first."""

    code: Sequence[Span] = ()

    def through(self, root: Module) -> None:
        """All lines of the code, and then the modules that it does not call."""
        self.modules = _by_path(root)
        self.calls: dict[str, int] = {}
        self.loose: dict[str, None] = {}
        self.broadcast: list[str] = []
        self.values: dict[str, Any] = {}
        result: Any = _NOTHING
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
        tensor = _first_tensor(result)
        self.current, self.shape = tensor.name, tensor.shape
        self.notes.append("the modules are wired as the code says that is printed below them")

    def _is_inside_called(self, path: str) -> bool:
        return any(path[:end] in self.calls for end, letter in enumerate(path) if letter == ".")

    def _arguments(self, function: ast.FunctionDef) -> None:
        """The first argument is the input; what the others are is not known."""
        for number, argument in enumerate(function.args.args[1:]):
            self.values[argument.arg] = _LOST if number else Tensor(self.current, self.shape)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            what = _OPERATORS.get(type(statement.op), "")
            self.values[name] = self._call(what, [self.values.get(name, _NOTHING), self._value(statement.value, name)],
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
            return Owned("") if node.id == "self" else self.values.get(node.id, _NOTHING)
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
            return -value if isinstance(value, int | float) else _NOTHING
        operation: type
        if isinstance(node, ast.BinOp):
            operation, sides = type(node.op), [node.left, node.right]
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            operation, sides = type(node.ops[0]), [node.left, node.comparators[0]]
        else:
            return _NOTHING
        return self._call(_OPERATORS.get(operation, ""), [self._value(side, name) for side in sides], {}, name)

    def _attribute(self, owner: Any, attribute: str) -> Any:
        if isinstance(owner, Tensor) and attribute == "shape":
            return owner.shape if owner.shape is not None else _NOTHING
        if isinstance(owner, Owned):
            path = f"{owner.path}.{attribute}" if owner.path else attribute
            return Owned(path) if path in self.modules else Loose(path)
        return _NOTHING

    def _item(self, owner: Any, index: Any, name: str) -> Any:
        if isinstance(owner, tuple) and isinstance(index, int) and -len(owner) <= index < len(owner):
            return owner[index]
        if isinstance(owner, tuple) and isinstance(index, slice) and index.step != 0:
            return owner[index]
        if not isinstance(owner, Tensor):
            return _NOTHING
        try:
            for layer in _cuts(_known(owner.shape), index if isinstance(index, tuple) else (index,)):
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
                self._attribute(self._value(node.args[0], name), attribute) if isinstance(attribute, str) else _NOTHING
            )
        arguments = [self._value(argument, name) for argument in node.args]
        named = {word.arg: self._value(word.value, name) for word in node.keywords if word.arg}
        if isinstance(function, ast.Name) and function.id == "slice":
            return slice(*arguments) if all(isinstance(at, int | None) for at in arguments) else _NOTHING
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
        return value if isinstance(value, Tensor) else _NOTHING

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _module_call(self, path: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        module = self.modules.get(path)
        values = (*arguments, *named.values())
        if module is not None and module.cls in RECURRENT:  # an LSTM's first states come as a pair
            values = tuple(item for value in values for item in (value if isinstance(value, tuple) else (value,)))
        given = [value for value in values if isinstance(value, Tensor)]
        if module is None or not given:
            return _LOST
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
        return (result, _LOST) if module.cls in (ATTENTION, *RECURRENT) else result

    def _call(self, what: str, arguments: list[Any], named: dict[str, Any], name: str) -> Any:
        """A function or a method; the tensor that it is a method of comes first."""
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        if not tensors and not any(isinstance(value, tuple) for value in arguments[:1]):
            return _computed(what, arguments)
        if what in _SAME or "stochastic_depth" in what or "drop_path" in what:
            return arguments[0]
        try:
            if what in ("size", "dim"):
                return _measured(what, arguments[0], arguments[1:])
            return self._function(what, arguments, named, name)
        except (ConvcalcError, TypeError, ValueError, IndexError):
            return self._unknown(what, arguments, name)

    def _function(self, what: str, arguments: list[Any], named: dict[str, Any], name: str) -> Any:
        """A node for a function. Raises one of several errors for what is not known or called in no known way."""
        first = arguments[0]
        if what in ("cat", "concat", "concatenate"):
            return self._op(Concat(_argument(arguments, named, 1, "dim", 0)), list(first), name)
        loose = [value for value in (*arguments, *named.values()) if isinstance(value, Loose)]
        if loose:
            return self._with_loose(what, arguments, loose, name)
        if what.rstrip("_") in _JOINS and len(arguments) == 2 and not named:
            pair = [self._constant(value, name) for value in arguments]
            return self._op(_JOINS[what.rstrip("_")](), pair, name)
        if what == "scaled_dot_product_attention":
            return self._attended(arguments, named, name)
        if what == "einsum" and isinstance(first, str):
            return self._op(Einsum(first), arguments[1:], name)
        lacking = "antialias is not computed" if named.get("antialias") else ""
        return self._op(_layer_of(what, first, arguments[1:], named), [first], name, lacking)

    def _attended(self, arguments: list[Any], named: Mapping[str, Any], name: str) -> Any:
        """scaled_dot_product_attention. Of a mask that is not known the numbers hang, not the shape and the cost."""
        mask, causal, scale = (
            _argument(arguments, named, place, word, plain)
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
        norm = _norm_of(what, arguments, len(loose))
        if norm is not None:
            return self._op(norm, arguments[:1], name)
        if arguments == [*loose, *arguments[1:]] and what in ("view", "reshape", "unsqueeze", "squeeze"):
            return loose[0]
        self.loose.update(dict.fromkeys(tensor.path for tensor in loose))
        others = [value for value in arguments if isinstance(value, Tensor) and value.shape is not None]
        if what not in ("add", "sub", "mul", "truediv") or len(others) != 1:
            return self._unknown(what, arguments, name)
        self.broadcast.append(name)
        shape = _known(others[0].shape)
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
        self._op(Opaque(what or "function", what or "function", owns=False), tensors or [_LOST], name)
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


def _parsed(span: Span) -> Sequence[ast.stmt]:
    """The statements of a line. Raises `ModelFileError` for one that is no Python."""
    line = span.source.text[span.start : span.end]
    if line.startswith("#"):
        return ()
    try:
        return ast.parse(f"{line} pass" if line.startswith("def ") else line).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ModelFileError("this line of the code below the model cannot be read", span=span) from None


def _norm_of(what: str, arguments: Sequence[Any], loose: int) -> Layer | None:
    """The norm that is called with so many tensors of the model's own, all of which it tells the sizes of."""
    first = arguments[0]
    channels = first.shape[1] if isinstance(first, Tensor) and first.shape and len(first.shape) > 1 else None
    if what == "layer_norm" and loose == 2:  # weight and bias
        return LayerNorm(_whole(arguments[1]))
    if what == "group_norm" and loose == 2 and channels:
        return GroupNorm(arguments[1], channels)
    if what == "batch_norm" and loose in (2, 4) and channels:  # mean and variance before them
        return BatchNorm(channels, affine=loose == 4)
    return None


def _first_tensor(value: Any) -> Tensor:
    while isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else _LOST


def _computed(what: str, arguments: Sequence[Any]) -> Any:
    """Arithmetic on whole numbers; nothing for what is not known."""
    rule = _ARITHMETIC.get(what)
    if rule is None or len(arguments) != 2 or not all(isinstance(value, int) for value in arguments):
        return _NOTHING
    try:
        value = rule(*arguments)
    except ArithmeticError:
        return _NOTHING
    return value if abs(value) < _LARGEST else _NOTHING


def _measured(what: str, tensor: Any, arguments: Sequence[Any]) -> Any:
    """What x.size(), x.size(0) and x.dim() give."""
    if not isinstance(tensor, Tensor) or tensor.shape is None:
        return _NOTHING
    if what == "dim":
        return len(tensor.shape)
    return tensor.shape[arguments[0]] if arguments else tensor.shape


def _argument(arguments: Sequence[Any], named: Mapping[str, Any], place: int, name: str, plain: Any) -> Any:
    return arguments[place] if len(arguments) > place else named.get(name, plain)


def _layer_of(what: str, tensor: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """The layer that a function of one tensor is. Raises `LayerError` for one that is not known."""
    if not isinstance(tensor, Tensor):
        raise LayerError("what comes in is no tensor")
    made = _SHAPED.get(what)
    if made is not None:
        return made(tensor.shape, arguments, named)
    cls, order_of = _CLASSES.get(what.rstrip("_"), ("", ()))
    found = find_kind(cls)
    fields = dict(zip(order_of, arguments, strict=False)) | dict(named)
    fields = {name: value for name, value in fields.items() if value is not None and name not in _NO_FIELDS}
    if what.endswith("_"):
        fields["inplace"] = True
    if found is None or any(isinstance(value, _Unknown | Tensor) for value in fields.values()):
        raise LayerError(f"{what} is not known")
    kind, rank = found
    made_of: Any = kind.layer_class(rank)
    layer: Layer = made_of(**fields)
    return layer


def _sizes(arguments: Sequence[Any]) -> tuple[int, ...]:
    """Sizes that are given as one tuple, or as arguments of their own."""
    return _whole(arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments)


def _whole(sizes: Sequence[Any]) -> tuple[int, ...]:
    """Sizes that are all known."""
    if not all(isinstance(size, int) for size in sizes):
        raise LayerError("a size is not known")
    return tuple(sizes)


def _flat(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Flatten(_argument(arguments, named, 0, "start_dim", 0), _argument(arguments, named, 1, "end_dim", -1))


def _reduced(what: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dims = _argument(arguments, named, 0, "dim", None)
    return Reduce(what, dims, _argument(arguments, named, 1, "keepdim", False))


def _turned(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """Two axes changed for each other."""
    order = list(range(len(_known(shape))))
    one, other = _whole(arguments[:2])
    order[one], order[other] = order[other], order[one]
    return Permute(tuple(order))


def _with_axis(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dim = _argument(arguments, named, 0, "dim", None)
    sizes = list(_known(shape))
    sizes.insert(dim if dim >= 0 else dim + len(sizes) + 1, 1)
    return Reshape(tuple(sizes), batch=True)


def _without_axis(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    dim = _argument(arguments, named, 0, "dim", None)
    sizes = list(_known(shape))
    if dim is None:
        sizes = [size for size in sizes if size != 1]
    elif sizes[dim] == 1:
        del sizes[dim]
    return Reshape(tuple(sizes), batch=True)


def _cut(each_of: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """The sizes that chunk and split give."""
    count = _argument(arguments, named, 0, each_of, None)
    dim = _argument(arguments, named, 1, "dim", 0)
    size = _known(shape)[dim]
    if isinstance(count, tuple):
        return Split(_whole(count), dim)
    each = -(-size // whole(each_of, count)) if each_of == "chunks" else whole(each_of, count)
    if size // each > _MOST_PARTS:
        raise LayerError("there are too many parts", field=each_of, value=count)
    return Split(tuple(min(each, size - start) for start in range(0, size, each)), dim)


def _cuts(shape: Shape, index: Sequence[Any]) -> Iterator[Layer]:
    """What x[:, 0, 2:9] is: slices of axes, and then the axes gone of which one place is taken."""
    if len(index) > len(shape) or not all(isinstance(at, int | slice) for at in index):
        raise LayerError("the places are not known")
    places = [slice(at, at + 1 or None) if isinstance(at, int) else at for at in index]
    cuts = [(axis, *at.indices(shape[axis])) for axis, at in enumerate(places)]
    kept = [cut for cut in cuts if cut[1:] != (0, shape[cut[0]], 1)]
    if kept:
        dims, starts, ends, steps = zip(*kept, strict=True)
        yield Slice(starts, ends, dims, steps)
    if any(isinstance(at, int) for at in index):
        sizes = [len(range(*cut[1:])) for cut in cuts if not isinstance(index[cut[0]], int)]
        yield Reshape((*sizes, *shape[len(index) :]), batch=True)


def _padded(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    """Pairs for the last axes, the last one first, as in torch.nn.functional.pad."""
    numbers = _whole(_argument(arguments, named, 0, "pad", ()))
    pairs = [*zip(numbers[::2], numbers[1::2], strict=True)][::-1]
    mode = _argument(arguments, named, 1, "mode", "constant")
    value = _argument(arguments, named, 2, "value", None)
    whole_shape = ((0, 0),) * (len(_known(shape)) - len(pairs))
    return PadAxes((*whole_shape, *pairs), mode, 0.0 if value is None else value)


def _clamped(shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Clip(_argument(arguments, named, 0, "min", None), _argument(arguments, named, 1, "max", None))


def _function_of(what: str, shape: Shape | None, arguments: Sequence[Any], named: Mapping[str, Any]) -> Layer:
    return Function(what)


def _known(shape: Shape | None) -> Shape:
    if shape is None:
        raise LayerError("the shape is not known")
    return shape


_SHAPED: dict[str, Callable[[Shape | None, Sequence[Any], Mapping[str, Any]], Layer]] = {
    **dict.fromkeys(("view", "reshape"), lambda shape, arguments, named: Reshape(_sizes(arguments), batch=True)),
    "permute": lambda shape, arguments, named: Permute(_sizes(arguments)),
    "flatten": _flat,
    "mean": partial(_reduced, "mean"),
    "sum": partial(_reduced, "sum"),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _turned),
    "pad": _padded,
    **dict.fromkeys(("clamp", "clip"), _clamped),
    **{
        what: partial(_function_of, what)
        for what in (
            "abs",
            "ceil",
            "cos",
            "erf",
            "exp",
            "floor",
            "log",
            "neg",
            "reciprocal",
            "round",
            "sign",
            "sin",
            "sqrt",
            "tan",
        )
    },
    "unsqueeze": _with_axis,
    "squeeze": _without_axis,
    "chunk": partial(_cut, "chunks"),
    "split": partial(_cut, "split_size_or_sections"),
}
"""Functions of a tensor that need its shape, or give it another."""
