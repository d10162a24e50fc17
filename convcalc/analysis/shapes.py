"""Shapes: every layer bound to what comes in, and what goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from convcalc import formulas
from convcalc.analysis.report import Diagnostic, Report, Row, Value
from convcalc.analysis.unsaid import Effect, other_shape, unsaid
from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers import kind_of
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.layers.opaque import Opaque
from convcalc.network import Network, Node, no_input
from convcalc.records import dataclass, field, replace
from convcalc.tracing import Step, recording


@dataclass(frozen=True, eq=False)
class Resolved:
    """A node with its layer bound: the shapes that come in and go out, batch first, and the formulas that gave them.

    `unknown` says why there are no shapes, where there are none; then the layer is as it was written. An op that is not
    known may have shapes that a file tells. `constants` are the shapes of parameters among what comes in, `shared` the
    names of parameters that a node before it has already.
    """

    node: Node
    layer: Layer
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    steps: tuple[Step, ...] = ()
    unknown: str = ""
    constants: Mapping[str, Shape] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()

    @property
    def parameters(self) -> Mapping[str, Shape] | None:
        """The shapes of what is learned and not counted before; None where they are not known."""
        own = self._own
        if own is None or not (self.constants or self.shared):
            return own
        return {**{name: shape for name, shape in own.items() if name not in self.shared}, **self.constants}

    @property
    def buffers(self) -> Mapping[str, Shape]:
        """The shapes of what is kept, not learned and not counted before; of a file's layer what the file holds."""
        if self.node.shares or (self.unknown and any(getattr(self.layer, name, 0) is None for name in _SIZES)):
            return {}
        own = self.layer.buffers()
        return {name: own[name] for name in own if name in self.node.weights} if self.node.op else own

    @property
    def _own(self) -> Mapping[str, Shape] | None:
        if self.unknown and any(getattr(self.layer, name, 0) is None for name in _SIZES):
            return None
        try:
            return self.layer.parameters()
        except UnsupportedOpError:
            return None


_SIZES = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels")
"""Fields that decide parameters and may be left open until the layer is bound."""


def resolve(network: Network, *, explain: bool = False, partial: bool = False) -> list[Resolved]:
    """Bind every layer and infer every shape. Raises the layer's error with the layer named and its place marked.

    With `partial`, layers of unknown shapes are resolved as such; without it they are an `UnsupportedOpError`.
    """
    fed = network.inputs or network.constants or any(not node.inputs for node in network.nodes)
    if not (fed or (partial and network.reads_nothing)):
        raise no_input()
    shapes = {name: given.shape for name, given in network.inputs.items()}
    shapes |= {name: constant.shape for name, constant in network.constants.items()}
    counted: set[str] = set()
    makers: dict[str, Node] = {}
    resolved = []
    for node in network.nodes:
        reason = _unknown(node, shapes, makers)
        if reason:
            if not partial:
                why = f": {network.unwired}" if network.unwired and reason == _NOT_WIRED else ""
                raise located(UnsupportedOpError(reason + why), node)
            told = getattr(node.layer, "shapes", ())
            came = tuple(shapes[name] for name in node.inputs) if told and not makers.keys() & node.inputs else ()
            resolved.append(Resolved(node, node.layer, came, told, (), reason, *_constants(network, node, counted)))
            if told:
                shapes.update(zip(node.outputs, told, strict=True))
            else:
                makers.update(dict.fromkeys(node.outputs, node))
            continue
        inputs = tuple(shapes[name] for name in node.inputs)
        steps: list[Step] = []
        try:
            layer = node.layer.bind(*inputs)
            if explain:
                with recording() as steps:
                    outputs = layer.infer(*inputs)
                steps = _with_remainders(steps)
            else:
                outputs = layer.infer(*inputs)
        except ConvcalcError as error:
            raise located(_with_branches(error, network, node, inputs), node) from None
        shapes.update(zip(node.outputs, outputs, strict=True))
        more = _constants(network, node, counted)
        resolved.append(Resolved(node, layer, inputs, outputs, tuple(steps), "", *more))
    return resolved


def _constants(network: Network, node: Node, counted: set[str]) -> tuple[Mapping[str, Shape], frozenset[str]]:
    """The parameters among what comes into a node, and the names of its own that are counted before or computed.

    `counted` collects the tensors of a file that serve as parameters: one that several nodes share counts once.
    """
    if node.shares:
        return {}, frozenset(node.layer.parameters())
    if not network.constants:
        return {}, frozenset()
    found: dict[str, Shape] = {}
    for name in node.inputs:
        constant = network.constants.get(name)
        if constant is not None and constant.parameter and name not in counted:
            counted.add(name)
            found[name] = constant.shape
    shared = set()
    for name, tensor in node.weights.items():
        constant = network.constants.get(tensor)
        if constant is None or not constant.parameter or tensor in counted:
            shared.add(name)
        counted.add(tensor)
    return found, frozenset(shared)


_NOT_WIRED = "what comes into it is not known"


def _unknown(node: Node, shapes: Mapping[str, Shape], makers: Mapping[str, Node]) -> str:
    """Why the shapes of a node are not known, or nothing. `makers` are the nodes of unknown output."""
    if isinstance(node.layer, Opaque):
        return node.layer.unknown
    for name in node.inputs:
        if name in makers:
            return f"the shape that {label(makers[name])} gives is not known"
        if name not in shapes:
            return _NOT_WIRED
    return ""


def _with_remainders(steps: list[Step]) -> list[Step]:
    """The steps that explain a shape: without the checks, and with what each floor drops."""
    kept = []
    for step in steps:
        if step.formula is formulas.kernel_extent:
            continue
        kept.append(step)
        if step.formula is formulas.window_count:
            kept.append(Step(formulas.unread, step.arguments, step.axis, formulas.unread(*step.arguments)))
    return kept


def label(node: Node) -> str:
    """What messages call a node."""
    return f"{node.name} ({node.layer.kind})"


def located(error: ConvcalcError, node: Node) -> ConvcalcError:
    """The error with the layer named, and the caret under the field that it is about."""
    error.layer = label(node)
    error.span = error.span or node.spans.get(error.field or "", node.span)
    return error


def _with_branches(error: ConvcalcError, network: Network, node: Node, inputs: tuple[Shape, ...]) -> ConvcalcError:
    """The error of a join with the layers named that its inputs come from, and the caret under the one that differs."""
    if len(inputs) < 2 or not isinstance(error, ShapeError):
        return error
    makers = {tensor: label(maker) for maker in network.nodes for tensor in maker.outputs}
    branches = [
        f"{shape_text(shape[1:])} from {makers.get(name, 'the input')}"
        for name, shape in zip(node.inputs, inputs, strict=True)
    ]
    error.message += "; here come " + ", ".join(branches[:-1]) + " and " + branches[-1]
    differs = next((index for index, shape in enumerate(inputs) if index and shape == error.value), None)
    error.span = error.span or node.spans.get(f"input{differs}")
    return error


class View:
    """Which axes people see: the batch only when one was given, no channels when none were spoken of."""

    def __init__(self, network: Network, resolved: list[Resolved]) -> None:
        given = next(iter(network.inputs.values()), None)
        self.batch = given is None or given.batch_given
        spatial = len(given.shape) if given is not None else 0
        self.channels = (
            given is None
            or given.channels_given
            or any(len(shape) != spatial or shape[1] != 1 for item in resolved for shape in item.outputs)
        )
        self.axes = {
            name: axis
            for item in resolved
            for name, axis in zip(item.node.outputs, item.layer.batch_axes, strict=False)
        }

    def __call__(self, shape: Shape, name: str = "") -> Shape:
        """The shape as it is shown, of the tensor of this name: the batch of some is not their first axis."""
        axis = self.axes.get(name, 0)
        if axis:
            return shape if self.batch else shape[:axis] + shape[axis + 1 :]
        # What has no 1 in front is no tensor with the batch there that nobody wrote, such as what came of a state.
        whole = self.batch or shape[:1] != (1,)
        return (shape[:1] if whole else ()) + shape[1 if self.channels else 2 :]


def base_row(
    item: Resolved,
    view: View,
    values: Mapping[str, Value] = MappingProxyType({}),
    reasons: Mapping[str, str] = MappingProxyType({}),
    steps: tuple[Step, ...] = (),
) -> Row:
    """The row that every verb's row starts from, with the values, further reasons and steps that it has."""
    layer = item.layer
    kind: str
    source: Layer | str
    kind, source = (layer.name, layer.text) if isinstance(layer, Opaque) else (kind_of(layer).name, item.node.layer)
    return Row(
        item.node.name,
        kind,
        source,
        tuple(map(view, item.inputs, item.node.inputs)),
        tuple(map(view, item.outputs, item.node.outputs)),
        values,
        {"output": item.unknown, **reasons} if item.unknown else reasons,
        steps or item.steps,
    )


def rule(method: Callable[..., object]) -> str:
    """What a layer's `infer` or `cost` does, in the words of its docstring, for where it needs no formula.

    >>> from convcalc.layers.linear import Linear
    >>> rule(Linear.infer)
    "the input's shape with out_features for the last axis"
    """
    words = (method.__doc__ or "a rule of its own").partition("\n\n")[0].partition(" Raises ")[0].rstrip(".")
    return " ".join((words[:1].lower() + words[1:] if words[1:2].islower() or words[1:2] == " " else words).split())


def diagnose(network: Network, resolved: list[Resolved], effect: Effect = other_shape) -> tuple[Diagnostic, ...]:
    """What to know about the network: how the input was read, each layer's warnings, and what was left out of its text
    where that has this effect on what was asked.
    """
    found = [Diagnostic("note", note) for note in network.notes]
    found += unsaid(resolved, effect)
    found += [Diagnostic("warning", text) for text in network.warnings]
    spatial = False
    for item in resolved:
        if item.unknown:
            continue
        words = list(item.layer.warnings(*item.inputs))
        if spatial and item.layer.kind == "linear" and len(item.inputs[0]) > 3:
            shape = shape_text(item.inputs[0][1:])
            words.append(f"works on the last axis of {shape} alone; a flatten before it would take all of it")
        found += [Diagnostic("warning", text, label(item.node)) for text in words]
        # Who permutes or reshapes puts on the last axis what is meant to be there.
        spatial = (spatial or kind_of(item.layer).ranked) and item.layer.kind not in ("permute", "reshape")
    return tuple(found)


def need_layers(network: Network) -> None:
    """Raise `ExpressionError` for a network of an input alone, `ModelFileError` for a file of constants alone."""
    if not network.nodes:
        if network.outputs and all(name in network.constants for name in network.outputs):
            raise ModelFileError("the model computes nothing: what it gives stands in its file")
        raise ExpressionError("there is no layer after the input; write one, such as conv:64,k3")


def shapes(network: Network, *, explain: bool = False) -> Report:
    """The output shape of every layer."""
    need_layers(network)
    resolved = resolve(network, explain=explain, partial=True)
    view = View(network, resolved)
    rows = tuple(base_row(item, view) for item in resolved)
    if explain:
        rows = tuple(
            row if row.steps or row.reasons else replace(row, reasons={"output": rule(item.layer.infer)})
            for row, item in zip(rows, resolved, strict=True)
        )
    known = {name: given.shape for name, given in network.inputs.items()}
    known |= {name: constant.shape for name, constant in network.constants.items()}
    for item in resolved:
        known.update(zip(item.node.outputs, item.outputs, strict=bool(item.outputs)))
    name = next(iter(network.outputs), "")
    result = known.get(name)
    partial = frozenset({"output"} if any(item.unknown and not item.outputs for item in resolved) else ())
    answer = None if result is None else view(result, name)
    return Report("shape", (), rows, {}, answer, diagnose(network, resolved), partial=partial)
