"""The text that PyTorch prints of a model, to a `Network`. Nothing is evaluated.

    module   = ["(" name "):"] [count "x"] Class "(" attributes ")"
             | ["(" name "):"] [count "x"] Class "(" newline {attributes newline | module newline} ")"
    name     = a word, a number, or "first-last" for `count` equal modules of a list

What the text says is exact: the modules, their parameters, and how `Sequential` and its like call them. What it does
not say is said: a container of somebody's own may own parameters, and calls its modules in an order that is not
printed, so shapes and costs stop there, unless the printed order is assumed. Two names of one module are printed as two
modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, ResourceError, Source, Span
from convcalc.expressions import LayerText, Program, field_names, python_value, split_outside
from convcalc.layers import find_kind
from convcalc.layers.base import Layer, Shape, shape_text, text_of
from convcalc.layers.linear import Linear
from convcalc.layers.matmul import Attention
from convcalc.layers.opaque import Opaque
from convcalc.layers.reshape import Flatten
from convcalc.layers.tensor import Split
from convcalc.network import Input, Network, Node, tensor_names
from convcalc.records import dataclass
from convcalc.tracing import product

CHAINS = ("Sequential", "DataParallel", "DistributedDataParallel", "OptimizedModule")
"""Containers without parameters of their own that call their modules in printed order."""

LISTS = (
    "ModuleList",
    "ModuleDict",
    "Transformer",
    "TransformerEncoder",
    "TransformerDecoder",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
)
"""Containers without parameters of their own whose order of calls is not that of the text."""

_NOT_PYTORCH = ("add", "mul", "concat", "crop", "reshape", "permute", "pad", "globalavgpool", "globalmaxpool")
"""Kinds of this project whose class names mean nothing in PyTorch's text."""

_LEARNING = ("conv", "linear", "norm", "parametric")
"""Families with layers that learn."""

_OTHER_NAMES = {"NonDynamicallyQuantizableLinear": "Linear"}
_ATTENTION = "MultiheadAttention"
_PRINTED_ONLY = ("device", "dtype", "mode")
"""Attributes that are printed but given to no constructor; `mode` where the class has none."""

_UNPRINTED: dict[str, dict[str, object]] = {
    "avgpool": {"ceil_mode": True, "count_include_pad": False},
    "upsample": {"align_corners": True},
}
"""Fields that PyTorch does not print, with a value other than the default."""

_MOST_MODULES = 100_000
_HEAD = re.compile(r"(?:\((?P<name>.*?)\): )?(?:(?P<count>[0-9]{1,9}) x )?(?P<cls>[A-Za-z_][\w.]*)\((?P<rest>.*)")
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_UNKNOWN = "?"
"""A tensor that nothing makes."""


class Module:
    """A module as it was printed. `names` are more than one when a list printed equal modules as one."""

    __slots__ = ("attributes", "children", "cls", "names", "span")

    def __init__(self, names: Sequence[str], cls: str, attributes: str, span: Span) -> None:
        self.names = names
        self.cls = cls
        self.attributes = attributes
        self.children: list[Module] = []
        self.span = span

    @property
    def text(self) -> str:
        """The module on one line, without what is in it."""
        return f"{self.cls}({self.attributes})"


def looks_printed(text: str) -> bool:
    """Whether a text is what PyTorch prints of a model: its first line opens a module that a later one closes.

    >>> looks_printed("Sequential(\\n  (0): ReLU()\\n)"), looks_printed("conv:64,k3\\nrelu")
    (True, False)
    """
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    head = _HEAD.fullmatch(first)
    return head is not None and head["name"] is None and not _closes(head["rest"])


def _closes(rest: str) -> bool:
    """Whether what follows an opening bracket holds its closing one."""
    depth = 1
    for start, end in split_outside(rest, ""):
        for character in rest[start:end]:
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return True
    return False


def read_module(text: str, name: str) -> Module:
    """The tree of a printed model. Raises `ModelFileError` at the line that does not belong."""
    root: Module | None = None
    opened: list[Module] = []
    for number, line in enumerate(text.splitlines(), 1):
        source = Source(line, name, on_command_line=False, line_number=number)
        stripped = line.strip()
        start = len(line) - len(line.lstrip())
        span = Span(source, start, start + len(stripped))
        if not stripped:
            continue
        if root is not None and not opened:
            raise ModelFileError("the model has ended before this line; one model is read at a time", span=span)
        if stripped == ")" and opened:
            opened.pop()
            continue
        head = _HEAD.fullmatch(stripped)
        if head is None or (opened and head["name"] is None):
            if not opened:
                raise ModelFileError("this line is no module, such as Sequential(", span=span)
            opened[-1].attributes = f"{opened[-1].attributes} {stripped}".strip()
            continue
        closed = _closes(head["rest"])
        attributes = head["rest"].removesuffix(")") if closed else head["rest"]
        module = Module(_names(head, span), head["cls"], attributes.strip(), span)
        if opened:
            opened[-1].children.append(module)
        else:
            root = module
        if not closed:
            opened.append(module)
    if root is None or opened:
        where = opened[-1] if opened else None
        raise ModelFileError(
            f"{where.cls}( is not closed; the text ends too early" if where else f"{name} is empty",
            span=where.span if where else None,
        )
    return root


def _names(head: re.Match[str], span: Span) -> Sequence[str]:
    """The names of a module, or of all that one line stands for."""
    if head["count"] is None:
        return (head["name"] or "",)
    count = int(head["count"])
    between = _RANGE.fullmatch(head["name"] or "")
    if between is None or int(between[2]) - int(between[1]) + 1 != count:
        raise ModelFileError(f"{count} modules need a name such as (0-{count - 1})", span=span, value=head["name"])
    if count > _MOST_MODULES:
        raise ResourceError(f"{count:,} modules are more than the {_MOST_MODULES:,} that are read", span=span)
    return range_names(int(between[1]), count)


def range_names(first: int, count: int) -> Sequence[str]:
    """The names of so many modules of a list."""
    return [str(first + index) for index in range(count)]


# --- layers -----------------------------------------------------------------------------------------------------------


def layer_text(module: Module) -> LayerText | None:
    """The layer that a printed module is, or None for a class that is not PyTorch's or not known here.

    None too when the attributes are not those of PyTorch's class: somebody's own may have its name.
    """
    name = _OTHER_NAMES.get(module.cls, module.cls).removeprefix("Parametrized")
    found = find_kind(name)
    if found is None:
        return None
    kind, rank = found
    if kind.name in _NOT_PYTORCH or name.removeprefix("Lazy") not in _class_names(kind.classes, kind.free):
        return None
    layer = LayerText(kind, rank, module.span)
    fields = field_names(kind.layer_class(rank))
    position = 0
    for start, end in split_outside(module.attributes, ","):
        piece = module.attributes[start:end].strip()
        field, equals, value = piece.partition("=")
        if equals and re.fullmatch(r"\w+", field):
            if field not in fields and field in _PRINTED_ONLY:
                continue
        elif piece:
            field = fields[position] if position < len(fields) else ""
            value = piece
            position += 1
        else:
            continue
        if field not in fields:
            return None
        try:
            layer.give(field, python_value(value, module.span), module.span)
        except ExpressionError:
            return None
    if name.startswith("Lazy"):
        # A lazy module prints 0 for what its first input will decide.
        for field in ("in_channels", "in_features", "num_features"):
            if layer.fields.get(field) == 0:
                layer.fields[field] = None
    return layer


def _class_names(classes: str | tuple[str, str, str], free: str | None) -> tuple[str, ...]:
    names = (classes,) if isinstance(classes, str) else classes
    return names if free is None else (*names, free)


def _layer(module: Module, text: LayerText | None, rank: int) -> Layer:
    """The layer of a module, unknown where its class or a size of it is."""
    if text is None:
        return _owner(module) or Opaque(module.cls, module.text)
    try:
        return text.layer(rank)
    except ExpressionError:
        # A size that PyTorch does not print, such as the kernel of FractionalMaxPool2d.
        return Opaque(module.cls, module.text, owns=text.kind.module in _LEARNING)


# --- modules of which the parameters alone are known ------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Owner(Opaque):
    """A module of PyTorch that is no layer of this project, but whose parameters its text tells."""

    owns: bool = False
    weights: tuple[tuple[str, Shape], ...] = ()

    def parameters(self) -> Mapping[str, Shape]:
        """The shapes of what is learned, by PyTorch's name."""
        return dict(self.weights)


Weights = Iterator[tuple[str, Shape]]


def _recurrent(gates: int, numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    size, hidden = numbers
    projected = named.get("proj_size", 0)
    directions = ("", "_reverse") if named.get("bidirectional", False) else ("",)
    for level in range(named.get("num_layers", 1)):
        came = (projected or hidden) * len(directions) if level else size
        for direction in directions:
            end = f"_l{level}{direction}"
            yield f"weight_ih{end}", (gates * hidden, came)
            yield f"weight_hh{end}", (gates * hidden, projected or hidden)
            if named.get("bias", True):
                yield f"bias_ih{end}", (gates * hidden,)
                yield f"bias_hh{end}", (gates * hidden,)
            if projected:
                yield f"weight_hr{end}", (projected, hidden)


def _embedding(numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    entries, size = numbers
    yield "weight", (entries, size)


def _bilinear(numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    out = named["out_features"]
    yield "weight", (out, named["in1_features"], named["in2_features"])
    if named.get("bias", True):
        yield "bias", (out,)


OWNERS: dict[str, Callable[[Sequence[int], Mapping[str, Any]], Weights]] = {
    **{f"{name}{end}": partial(_recurrent, gates) for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
       for end in ("", "Cell")},
    "Embedding": _embedding,
    "EmbeddingBag": _embedding,
    "Bilinear": _bilinear,
}  # fmt: skip
"""PyTorch's classes, and what they own by the numbers and the named attributes that they print."""


def _owner(module: Module) -> Owner | None:
    """The parameters of a module that is no layer; None for a class that is not known or prints something else."""
    rule = OWNERS.get(module.cls)
    if rule is None:
        return None
    numbers: list[Any] = []
    named: dict[str, Any] = {}
    try:
        for start, end in split_outside(module.attributes, ","):
            field, equals, text = module.attributes[start:end].strip().partition("=")
            if equals:
                named[field] = python_value(text, module.span)
            else:
                numbers.append(python_value(field, module.span))
        weights = tuple(rule(numbers, named))
    except (ExpressionError, ValueError, TypeError, KeyError):
        return None
    sizes = [size for _, shape in weights for size in shape]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    return Owner(module.cls, module.text, weights=weights)


# --- the network ------------------------------------------------------------------------------------------------------


class PrintedModel(Program):
    """A printed model as a program: it has an input when one is given, and becomes a `Network`."""

    def __init__(
        self, text: str, name: str, given: tuple[int, ...] | None = None, input_span: Span | None = None
    ) -> None:
        self.root = read_module(text, name)
        self.texts = dict(_leaf_texts(self.root))
        self.sequential = False
        super().__init__([layer for layer in self.texts.values() if layer is not None], given, input_span)

    def assume_sequential(self) -> None:
        """Take the modules of every container as called in printed order."""
        self.sequential = True

    def wired(self, rank: int, inputs: Mapping[str, Input], notes: tuple[str, ...]) -> Network:
        """The network of the modules, as far as the text tells how they are wired."""
        shape = next((given.shape for given in inputs.values()), None)
        walk = _Walk(self.texts, rank, shape, sequential=self.sequential)
        walk.through(self.root)
        return Network(
            inputs,
            tuple(walk.nodes),
            (walk.current,),
            (*notes, *walk.all_notes()),
            tuple(walk.warnings()),
            walk.hidden_names(),
        )


def parse_printed(
    text: str, *, input: Sequence[int], batch: int | None = None, assume_sequential: bool = False
) -> Network:
    """The network of a model that PyTorch printed, on an input of sizes, (channels, *sizes) or with a batch before.

    What the text does not tell is in the network's `notes` and `warnings`; with `assume_sequential` all containers call
    their modules in printed order. Raises `ModelFileError` for a text that is no printed model.

    >>> network = parse_printed("Sequential(\\n  (0): Linear(in_features=8, out_features=2)\\n)", input=(8,))
    >>> [(node.name, node.layer.kind) for node in network.nodes]
    [('0', 'linear')]
    """
    model = PrintedModel(text, "the text")
    if assume_sequential:
        model.assume_sequential()
    network = model.network(tuple(input))
    return network if batch is None else network.with_batch(batch)


def _leaf_texts(root: Module) -> Iterator[tuple[Module, LayerText | None]]:
    """Every module that is a layer or unknown, in printed order."""
    stack = [root]
    while stack:
        module = stack.pop()
        if _is_container(module):
            stack += reversed(module.children)
        elif module.cls == _ATTENTION and module.children:
            yield from ((child, layer_text(child)) for child in module.children)
        else:
            yield module, layer_text(module)


def _is_container(module: Module) -> bool:
    if module.cls in (*CHAINS, *LISTS):
        return True
    return bool(module.children) and module.cls != _ATTENTION and not module.cls.startswith("Parametrized")


class _Walk:
    """Goes through the modules in printed order and wires what the text tells how to wire."""

    def __init__(
        self, texts: Mapping[Module, LayerText | None], rank: int, shape: Shape | None, *, sequential: bool
    ) -> None:
        self.texts = texts
        self.rank = rank
        self.sequential = sequential
        self.shape = shape
        self.current = "input"
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.names: set[str] = {"input"}
        self.hidden: dict[str, list[str]] = {}
        self.unordered: dict[str, list[str]] = {}
        self.unknown: dict[str, list[str]] = {}
        self.owners: dict[str, list[str]] = {}
        self.attentions: list[str] = []

    def through(self, root: Module) -> None:
        """All modules below one. Without recursion: a text may nest deeper than Python does."""
        # A module and its path, or None where the wiring is lost.
        stack: list[tuple[Module, str] | None] = [(root, root.names[0])]
        while stack:
            item = stack.pop()
            if item is None:
                self.current, self.shape = _UNKNOWN, None
            elif _is_container(item[0]):
                stack += reversed(self._inside(*item))
            elif item[0].cls == _ATTENTION and item[0].children:
                self._attention(*item)
            else:
                self._leaf(*item)

    def _inside(self, module: Module, path: str) -> list[tuple[Module, str] | None]:
        """What is in a container, with breaks where its order of calls is not known."""
        chain = module.cls in CHAINS
        if not chain:
            (self.hidden if module.cls not in LISTS else {}).setdefault(module.cls, []).append(path)
            self.unordered.setdefault(module.cls, []).append(path)
        inside: list[tuple[Module, str] | None] = []
        for child in module.children:
            for name in child.names:
                if not (chain or self.sequential):
                    inside.append(None)
                inside.append((child, f"{path}.{name}" if path else name))
        if len(inside) + len(self.nodes) > 2 * _MOST_MODULES:
            raise ResourceError(
                f"the model has more than the {_MOST_MODULES:,} modules that are read", span=module.span
            )
        return inside if chain or self.sequential else [*inside, None]

    def _leaf(self, module: Module, path: str) -> None:
        text = self.texts[module]
        layer = _layer(module, text, self.rank)
        if module.cls.startswith("Parametrized"):
            self.hidden.setdefault(module.cls, []).append(path)
        if isinstance(layer, Owner):
            self.owners.setdefault(module.cls, []).append(path)
        elif isinstance(layer, Opaque):
            self.unknown.setdefault(module.cls, []).append(path)
        elif self.sequential:
            self._flatten_before(layer, path, module)
        self._add(layer, path or module.cls, module)

    def _flatten_before(self, layer: Layer, path: str, module: Module) -> None:
        """A linear layer that needs all of what comes: models flatten in their own code, which is not printed."""
        features = getattr(layer, "in_features", None)
        if layer.kind != "linear" or self.shape is None or features is None or len(self.shape) < 3:
            return
        if self.shape[-1] != features and product(self.shape[1:]) == features:
            self.notes.append(f"a flatten is assumed before {path}, which needs the {features:,} numbers that come")
            self._add(Flatten(), f"{path}.flatten", module)

    def _attention(self, module: Module, path: str) -> None:
        """The projections of an attention: of the first only the output's is printed."""
        for child in module.children:
            inner = f"{path}." if path else ""
            text = self.texts.get(child)
            linear = None if text is None else _layer(child, text, self.rank)
            if not isinstance(linear, Linear) or linear.in_features is None:
                self._leaf(child, inner + child.names[0])
                continue
            features = linear.in_features
            self._add(replace(linear, out_features=3 * features), f"{inner}in_proj", module)
            self._add(Split((features,) * 3, -1), f"{inner}split", module)
            parts = self.nodes[-1].outputs
            # How many heads there are is not printed; the parameters and MACs are the same for any number.
            self._add(Attention(q_heads=1, kv_heads=1), f"{inner}attention", module, parts)
            self._add(linear, f"{inner}{child.names[0]}", child)
            self.attentions.append(path)

    def _add(self, layer: Layer, name: str, module: Module, inputs: tuple[str, ...] = ()) -> None:
        """A node after the current tensor, or after these."""
        outputs = tensor_names(name, layer)
        if not self.names.isdisjoint(outputs):
            raise ModelFileError(f"two modules are named {name}", span=module.span, value=name)
        self.names.update(outputs)
        text = self.texts.get(module)
        # Where more than one tensor comes in, as into max unpooling, no text says which.
        came = inputs
        inputs = inputs or (self.current, *(_UNKNOWN,) * (layer.inputs[0] - 1))
        self.nodes.append(Node(name, layer, inputs, outputs, module.span, text.spans if text else {}))
        self.current = outputs[0]
        if len(inputs) > 1 and not came:
            self.shape = None
        elif self.shape is not None:
            try:
                before, self.shape = self.shape, layer.bind(self.shape).infer(*(self.shape,) * len(inputs))[0]
            except ConvcalcError:
                # Resolving the network says what is wrong, at the right place.
                self.shape = None
            else:
                self._note_unprinted(layer, name, before)

    def _note_unprinted(self, layer: Layer, name: str, before: Shape) -> None:
        """Say which attribute would change the answer if it were not the default that it is taken as."""
        for field, value in _UNPRINTED.get(layer.kind, {}).items():
            plain: Any = layer  # a dataclass with this field
            try:
                other: Layer = replace(plain, **{field: value})
                shapes = [each.infer(before) for each in (layer, other)]
                costs = [each.cost((before,), shape).flops for each, shape in zip((layer, other), shapes, strict=True)]
            except ConvcalcError:
                continue
            if shapes[0] != shapes[1]:
                would = shape_text(shapes[1][0][1:])
            elif costs[0] != costs[1]:
                would = f"{costs[1]:,} FLOPs"
            else:
                continue
            self.notes.append(
                f"{name} ({layer.kind}): {field} is not printed and taken as {text_of(getattr(layer, field))};"
                f" {text_of(value)} gives {would}"
            )

    def all_notes(self) -> Iterator[str]:
        """What was taken for granted."""
        yield from self.notes
        if self.attentions:
            yield (
                f"in_proj of {_list({_ATTENTION: self.attentions})} is not printed, and counted as PyTorch has it"
                " without kdim, vdim and add_bias_kv; nor is num_heads, taken as 1: more of them leave parameters and"
                " MACs as they are, and take more FLOPs"
            )

    def hidden_names(self) -> tuple[str, ...]:
        """Containers that may own parameters which they do not print."""
        return tuple(path for paths in self.hidden.values() for path in paths)

    def warnings(self) -> Iterator[str]:
        """What the text does not tell."""
        if self.hidden:
            yield (
                f"parameters are at least what is counted: {_list(self.hidden)} may own some of their own, which"
                " PyTorch does not print"
            )
        if self.unordered and self.sequential:
            yield f"the modules are assumed to be called in printed order, those of {_list(self.unordered)} too"
        elif self.unordered:
            yield (
                f"shapes and costs are partial: in which order the modules of {_list(self.unordered)} are called is not"
                " printed; --assume-sequential takes the printed order"
            )
        if self.owners:
            yield f"the parameters alone are counted of {_list(self.owners)}"
        if self.unknown:
            yield f"not known, and counted nowhere: {_list(self.unknown)}"


def _list(found: Mapping[str, Sequence[str]]) -> str:
    """Classes with where they stand: ResNet, Bottleneck (layer1.0 and 15 more)."""
    texts = []
    for cls, paths in found.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        texts.append(f"{cls} ({paths[0]}{more})" if paths[0] else cls)
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]
