"""`Network`: nodes in topological order over named tensors. A chain is the simplest network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convcalc.errors import ExpressionError, Span, did_you_mean
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.records import dataclass, field, replace


@dataclass(frozen=True, eq=False)
class Input:
    """A tensor that comes in: its shape with the batch first, and how much of that was said.

    `batch_given` and `channels_given` decide what people are shown; the shape always has both.
    """

    shape: Shape
    batch_given: bool = True
    channels_given: bool = True


class Constant:
    """A tensor that is in the model and not computed: a weight, a table, a number.

    `parameter` says whether it serves as weight, scale or bias. `value` is what `array()` takes the values from: a
    tensor in a file, which is not read before, or plain numbers.
    """

    __slots__ = ("dtype", "parameter", "shape", "value")

    def __init__(self, shape: Shape, dtype: str, value: Any, *, parameter: bool) -> None:
        self.shape = shape
        self.dtype = dtype
        self.value = value
        self.parameter = parameter

    def array(self) -> Any:
        """The values as a NumPy array; of a file's tensor a view of the mapped file. Raises `ModelFileError`."""
        if hasattr(self.value, "array"):
            return self.value.array()
        import numpy

        return numpy.array(self.value, self.dtype).reshape(self.shape)


class Unsaid:
    """A field of a layer that its text leaves out: what it is taken as, what else it may be, and the layer then.

    `given` makes of the layer what it is with a value of the field. It raises as the layer's constructor does.
    """

    __slots__ = ("field", "given", "layer", "other", "taken")

    def __init__(
        self, field: str, taken: object, other: object, layer: Layer, given: Callable[[Layer, Any], Layer]
    ) -> None:
        self.field = field
        self.taken = taken
        self.other = other
        self.given = given
        self.layer = given(layer, other)

    def of(self, layer: Layer) -> Unsaid:
        """The same of another layer."""
        return Unsaid(self.field, self.taken, self.other, layer, self.given)


@dataclass(frozen=True, eq=False)
class Node:
    """A layer at its place: the names of the tensors that come in and go out.

    `span` and `spans` (by field) say where it was written, for errors, and `unsaid` what its text leaves out. In a
    model that came from a file `weights` names the tensor that each parameter and buffer is, `op` is what the file
    calls the layer, and `attributes` are all that it says of it. A module that is called again `shares` the parameters
    of the node of this name.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    span: Span | None = None
    spans: Mapping[str, Span] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    op: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[Unsaid, ...] = ()
    shares: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in topological order, the tensors that come in, and the names of those that go out.

    `inputs` is empty when the shape of what comes in is left open. A node may read a tensor that neither comes in nor
    is made by a node: how it is wired is not known then, nor any shape after it; `unwired` may say why. `hidden` names
    modules that may own parameters which no node has. `notes` and `warnings` are sentences about how the network was
    read. `constants` are tensors that nodes take without computing them; `dtypes` are the types of tensors that a file
    gives another one than float32. `decided` names what decided shapes by the numbers of one input, for which alone the
    network is.
    """

    inputs: Mapping[str, Input]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    constants: Mapping[str, Constant] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    decided: str = ""
    unwired: str = ""

    @classmethod
    def chain(cls, *layers: Layer, input: Sequence[int] | None, batch: int | None = None) -> Network:
        """Layers in a row on an input of shape (channels, *sizes), with a batch of `batch` (1, hidden, if None).

        Without an input (None) only the geometry of the chain can be asked for.

        >>> from convcalc.layers.conv import Conv2d
        >>> Network.chain(Conv2d(3, 64, 7), input=(3, 224, 224)).outputs
        ('0',)
        """
        nodes = []
        current = "input"
        for index, layer in enumerate(layers if batch is not None else map(on_hidden_batch, layers)):
            outputs = tensor_names(str(index), layer)
            nodes.append(Node(str(index), layer, (current,), outputs))
            current = outputs[0]
        if input is None:
            return cls({}, tuple(nodes), (current,))
        given = Input((1 if batch is None else batch, *input), batch_given=batch is not None)
        return cls({"input": given}, tuple(nodes), (current,))

    @property
    def reads_nothing(self) -> bool:
        """Whether nothing reads an input: parameters alone can be asked for then."""
        return not any("input" in node.inputs for node in self.nodes)

    def with_batch(self, batch: int) -> Network:
        """The same network on so many samples. Raises `ExpressionError` when the input's shape has a batch already."""
        if not self.inputs:
            raise no_input()
        for given in self.inputs.values():
            if given.batch_given:
                raise ExpressionError(
                    f"the batch is given twice: --batch {batch}, and {given.shape[0]} in {shape_text(given.shape)}",
                    field="batch",
                    value=batch,
                )
        inputs = {
            name: replace(given, shape=(batch, *given.shape[1:]), batch_given=True)
            for name, given in self.inputs.items()
        }
        return replace(self, inputs=inputs)


def on_hidden_batch(layer: Layer) -> Layer:
    """The layer as it is on what has a batch that nobody wrote, which always comes first.

    What PyTorch's modules over sequences take without a batch has no other axis for it.
    """
    if getattr(layer, "batch_first", True):
        return layer
    plain: Any = layer  # a dataclass with this field
    turned: Layer = replace(plain, batch_first=True)
    return turned


def tensor_names(node: str, layer: Layer) -> tuple[str, ...]:
    """What a node's outputs are called: its own name, then name.1, ... for further ones."""
    count = len(layer.output_dtypes("float32"))
    return (node, *(f"{node}.{index}" for index in range(1, count)))


_MOST_NAMES = 20
"""Of layers, in an error."""


def no_such_layer(option: str, name: str, names: Sequence[str]) -> ExpressionError:
    """The error for an option that asks for a layer which is not there."""
    more = ", ..." if len(names) > _MOST_NAMES else ""
    have = (
        f"the layers are {', '.join(names[:_MOST_NAMES])}{more}" if len(names) > 1 else f"the only layer is {names[0]}"
    )
    meant = did_you_mean(name, names) or f"; {have}"
    return ExpressionError(f"{option} {name}: there is no such layer{meant}", value=name)


def input_twice(span: Span | None) -> ExpressionError:
    """The error for two inputs of one network; the span is that of one of them."""
    return ExpressionError("the input is given twice; keep one of them", span=span, field="input")


def no_input() -> ExpressionError:
    """The error for a question that needs the shape of what comes in."""
    return ExpressionError("there is no input; write its shape first, such as 3x224x224", field="input")
