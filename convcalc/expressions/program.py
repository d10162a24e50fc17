"""Layers and wiring in order, as they are written, and the network that comes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convcalc.errors import ExpressionError, Span, did_you_mean
from convcalc.expressions.layer_text import LayerText
from convcalc.layers import SEQUENCES
from convcalc.layers.base import Layer, shape_text, text_of
from convcalc.network import Input, Network, Node, input_twice, no_input, on_hidden_batch, tensor_names


class Wire:
    """Wiring as it was written: "@" names the current tensor, "from" goes back to one."""

    __slots__ = ("label", "span", "what")

    def __init__(self, what: str, label: str, span: Span) -> None:
        self.what = what
        self.label = label
        self.span = span


ONE_CHANNEL = "the input is read as sizes with one channel"
"""The note on an input without channels."""


_CHANNELS_LAST = "the input {0} is read as {2} channels of {1}; channels come first, as in {4}x{2}x{3}"


def _ends_in_channels(shape: Sequence[int]) -> bool:
    """Whether an image's channels seem to come last: 224x224x3."""
    return len(shape) == 4 and shape[1] == shape[2] > shape[3] and shape[3] in (1, 3, 4) and shape[1] >= 16


class Program:
    """Parsed expressions: layers and wiring in order, and the input if the text has one."""

    names_inputs: bool = False
    """Whether inputs have names of their own, so that --input can give several."""

    tells_types: bool = False
    """Whether the text says of what shapes and types the inputs are."""

    usual: tuple[int, ...] | None = None
    """The input of a file that gave way to the given one."""

    def __init__(self, items: Sequence[LayerText | Wire], given: tuple[int, ...] | None, span: Span | None) -> None:
        self.items = items
        self.given = given
        self.input_span = span

    @property
    def layers(self) -> list[LayerText]:
        """The layers without the wiring."""
        return [item for item in self.items if isinstance(item, LayerText)]

    @property
    def gives_way(self) -> bool:
        """Whether the input may be another one: there is none, or it is a file's, which the command line's replaces."""
        return self.given is None or (self.input_span is not None and not self.input_span.source.on_command_line)

    def network(self, shape: tuple[int, ...] | None = None, *, open_input: bool = False) -> Network:
        """The network on the input of the text, or on `shape`, which takes the place of a file's but for the channels
        if it has none.

        Raises `ExpressionError` for both on the command line, and for none unless `open_input`: then the network has no
        inputs, and only its geometry can be asked for.
        """
        given, usual = self.given, self.usual
        if shape is not None:
            if not self.gives_way:
                raise input_twice(self.input_span)
            given, usual = shape, self.given
        notes: tuple[str, ...] = ()
        if given is not None:
            rank, read = self.read_input(given)
            if not read.channels_given and (channels := self._usual_channels(usual)):
                read = Input((1, channels, *read.shape[2:]), batch_given=False)
            inputs = {"input": read}
            if not read.channels_given:
                notes = (ONE_CHANNEL,)
            elif _ends_in_channels(read.shape):
                notes = (_CHANNELS_LAST.format(shape_text(read.shape[1:]), text_of(read.shape[2:]), *read.shape[1:]),)
        elif open_input:
            rank, inputs = self.rank() or 2, {}
        else:
            raise no_input()
        return self.wired(rank, inputs, notes)

    def _usual_channels(self, usual: tuple[int, ...] | None) -> int | None:
        """The channels of an input that is sizes alone, where the file's usual one or the first layer says them."""
        if usual is not None:
            read = self.read_input(usual)[1]
            return read.shape[1] if read.channels_given else None
        channels = self.layers[0].fields.get("in_channels") if self.layers else None
        return channels if isinstance(channels, int) and channels > 1 else None

    def wired(self, rank: int, inputs: Mapping[str, Input], notes: tuple[str, ...]) -> Network:
        """The network on these inputs. Raises the errors of layers and of wiring."""
        wiring = _Wiring(rank, hidden=any(not given.batch_given for given in inputs.values()))
        for item in self.items:
            wiring.take(item)
        return Network(inputs, tuple(wiring.nodes), (wiring.current,), (*notes, *wiring.notes()))

    def assume_sequential(self) -> None:
        """Raise `ExpressionError`: only what PyTorch prints leaves open how it is wired."""
        raise ExpressionError("--assume-sequential has a meaning for the text that PyTorch prints only")

    def say(self, texts: Sequence[str]) -> None:
        """Raise `ExpressionError` where something is said: only what PyTorch prints leaves out fields of layers."""
        if texts:
            raise ExpressionError("--unprinted has a meaning for the text that PyTorch prints only")

    def rank(self) -> int | None:
        """The rank that the first layer of fixed rank decides, if any."""
        return next((item.implied_rank for item in self.layers if item.implied_rank is not None), None)

    def sample_axes(self) -> int | None:
        """How many axes a sequence has that comes in, or None where no layer is over sequences."""
        return next((SEQUENCES[item.kind.name] for item in self.layers if item.kind.name in SEQUENCES), None)

    def read_input(self, given: tuple[int, ...]) -> tuple[int, Input]:
        """The rank and the input that these numbers mean for these layers."""
        ranked = any(item.kind.ranked for item in self.layers)
        rank = self.rank()
        count = len(given)
        if rank is None and not ranked:
            axes = self.sample_axes()
            if axes is not None:
                return 2, Input(given, batch_given=True) if count > axes else Input((1, *given), batch_given=False)
            if any(item.kind.name == "linear" for item in self.layers):
                return 2, Input((1, *given), batch_given=False)
            rank = max(count - 2, 2)
        elif rank is None:
            rank = 3 if count == 5 else 2
        if count == 1:
            given, count = given * rank, rank
        if count == rank:
            return rank, Input((1, 1, *given), batch_given=False, channels_given=False)
        if count == rank + 1:
            return rank, Input((1, *given), batch_given=False)
        if count == rank + 2:
            return rank, Input(given)
        what = f"the input has {count} numbers" if count else "the input is a number alone"
        raise ExpressionError(
            f"{what}, but layers over {rank} spatial axes take {rank} sizes,"
            f" {rank + 1} with channels, or {rank + 2} with channels and batch",
            span=self.input_span,
            field="input",
            value=given,
        )


class _Wiring:
    """Layers and wires taken one after the other: nodes over named tensors come of it."""

    def __init__(self, rank: int, *, hidden: bool) -> None:
        self.rank = rank
        self.hidden = hidden
        self.steps_first: list[str] = []
        self.nodes: list[Node] = []
        self.current = "input"
        self.tensors = {"input"}
        self.counts: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.used: set[str] = set()
        # A wire inside repeat is taken more than once and is one wire still.
        self.unused_wires: dict[Wire, None] = {}
        self.named: dict[str, LayerText] = {}
        self.same_names: list[str] = []
        self.wires: dict[str, Wire] = {}

    def take(self, item: LayerText | Wire) -> None:
        """One item. Raises `ExpressionError` at the part of it that is wrong."""
        if isinstance(item, LayerText):
            self._layer(item)
        elif item.what == "@":
            self.labels[item.label] = self.current
            if self.wires.get(item.label) is not item:
                self.unused_wires[item] = None
            self.wires[item.label] = item
        else:
            self.current = self._tensor(item.label, item.span)

    def _layer(self, item: LayerText) -> None:
        layer = item.layer(self.rank)
        if self.hidden:
            layer = on_hidden_batch(layer)
        elif not getattr(layer, "batch_first", True):
            self.steps_first.append(f"{item.name or len(self.nodes)} ({layer.kind})")
        inputs = (self.current, *(self._tensor(label, span) for label, span in item.links))
        _check_inputs(item, layer, len(inputs))
        name = wanted = item.name or str(len(self.nodes))
        # A layer inside repeat has its name once and is numbered; two layers of one name are a slip.
        same = item.name is not None and self.named.setdefault(item.name, item) is not item
        while not self.tensors.isdisjoint(outputs := tensor_names(name, layer)):
            self.counts[wanted] = self.counts.get(wanted, 0) + 1
            name = f"{wanted}.{self.counts[wanted]}"
        if same:
            self.same_names.append(f"two layers are named {wanted}; the second is {name}")
        self.tensors.update(outputs)
        self.used.update(inputs)
        spans = item.spans | {f"input{index}": span for index, (_, span) in enumerate(item.links, 1)}
        self.nodes.append(Node(name, layer, inputs, outputs, item.span, spans))
        self.current = outputs[0]

    def _tensor(self, label: str, span: Span) -> str:
        """The tensor that a label names; a.1 is the second output of the layer whose first is a."""
        owner = label
        tensor = self.labels.get(label)
        if tensor is None:
            owner, _, index = label.rpartition(".")
            further = f"{self.labels.get(owner)}.{index}"
            tensor = further if index.isdecimal() and any(further in node.outputs[1:] for node in self.nodes) else None
        if tensor is None:
            known = did_you_mean(label, self.labels) or "; name a tensor with @name before it is used"
            if label in self.named:
                known = f"; {label} is a layer: write @{label} after it to name what it gives"
            raise ExpressionError(f"no tensor is named @{label}{known}", span=span, value=label)
        self.unused_wires.pop(self.wires[owner], None)
        return tensor

    def notes(self) -> Iterator[str]:
        """What was named twice, or named or made and then not used, and where the batch does not come first."""
        yield from self.same_names
        yield from steps_before_batch(self.steps_first)
        for wire in self.unused_wires:
            yield f"@{wire.label} is never used"
        result = self.current
        made = {tensor: node for node in self.nodes for tensor in node.outputs}
        last = f"that of {made[result].name} ({made[result].layer.kind})" if result in made else "the input itself"
        for node in self.nodes:
            if result not in node.outputs and self.used.isdisjoint(node.outputs):
                yield f"the output of {node.name} ({node.layer.kind}) is never used; the network's output is {last}"


def steps_before_batch(layers: Sequence[str]) -> Iterator[str]:
    """The note on layers whose input has its batch second."""
    if layers:
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        yield f"layer {layers[0]}{more}: steps come first and the batch second, as in PyTorch without batch_first"


def _check_inputs(item: LayerText, layer: Layer, count: int) -> None:
    """Raise `ExpressionError` for fewer or more inputs than a layer takes."""
    least, most = layer.inputs
    if least <= count and (most is None or count <= most):
        return
    wanted = "one input" if most == 1 else f"at least {least} inputs" if most is None else f"{least} inputs"
    example = f"; name one with @a and write {item.kind.name}:@a" if count < least else ""
    span = item.links[most - 1][1] if most is not None and count > most else item.span
    raise ExpressionError(f"{item.kind.name} takes {wanted}, but {count} came in{example}", span=span)
