"""Recurrent layers: LSTM, GRU and the plain RNN, one of each as ONNX has them, and stacks as PyTorch has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, choice, flag, number, refused, shape_text, whole
from convcalc.records import dataclass, replace
from convcalc.tracing import product

ACTIVATIONS = (
    "affine", "elu", "hardsigmoid", "leakyrelu", "relu", "scaledtanh", "sigmoid", "softplus", "softsign", "tanh",
    "thresholdedrelu",
)  # fmt: skip
"""ONNX's names of what the gates go through, in lower case."""
MOST_LAYERS = 1_000
"""Of a stack: more are a slip."""


@dataclass(frozen=True, eq=False, repr=False)
class _Recurrent(Layer):
    """(length, N, input_size) -> outputs (length, directions, N, hidden_size), and the last state of each direction.

    With batch_first the first two axes change places, as in ONNX's layout 1. input_size None is taken from the input.
    `reverse` goes from the end to the start, as the second of two directions does. `activations` are a name of ONNX,
    alpha and beta for each function of each direction (none: the usual ones), `clip` limits what goes into them.
    `given` names the further inputs that come in: "sequence_lens", "initial_h", "initial_c".
    """

    gates: ClassVar[int]
    """How many times hidden_size is computed for each step."""
    states: ClassVar[int] = 1
    functions: ClassVar[int]
    """How many activation functions a direction has."""
    others: ClassVar[tuple[int, int, int]]
    """Multiplications, additions and others that each hidden element takes besides the products and biases."""
    inputs = (1, None)

    input_size: int | None = None
    hidden_size: int = 1
    directions: int = 1
    bias: bool = True
    batch_first: bool = False
    reverse: bool = False
    activations: tuple[tuple[str, float, float], ...] = ()
    clip: float | None = None
    given: tuple[str, ...] = ()
    proj_size: int = 0
    """What the state is projected to at each step, in PyTorch's LSTM alone; 0 for nothing."""

    def __post_init__(self) -> None:
        if self.input_size is not None:
            whole("input_size", self.input_size)
        whole("hidden_size", self.hidden_size)
        whole("directions", self.directions)
        flag("bias", self.bias)
        flag("batch_first", self.batch_first)
        flag("reverse", self.reverse)
        for name, alpha, beta in self.activations:
            choice("activations", name, ACTIVATIONS)
            number("activations", alpha)
            number("activations", beta)
        if len(self.activations) not in (0, self.functions * self.directions):
            names = " ".join(name for name, *_ in self.activations)
            raise refused("activations", names, f"{self.functions} for each of {self.directions} directions")
        for name in self.given:
            choice("given", name, ("sequence_lens", "initial_h", "initial_c")[: 1 + self.states])

    def bind(self, *inputs: Shape) -> Self:
        """Take input_size from the last axis where it is left open."""
        shape = inputs[0]
        if len(shape) != 3:
            raise ShapeError(f"needs length, batch and features, but {shape_text(shape)} came in", value=shape)
        if self.input_size not in (None, shape[2]):
            raise ShapeError(
                f"input_size is {self.input_size}, but the input {shape_text(shape)} has {shape[2]} features",
                field="input_size",
                value=self.input_size,
            )
        return self if self.input_size is not None else replace(self, input_size=shape[2])

    def _axes(self, shape: Shape) -> tuple[int, int]:
        return (shape[1], shape[0]) if self.batch_first else (shape[0], shape[1])

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """All outputs, then the last hidden state, and of an LSTM the last cell."""
        length, batch = self._axes(inputs[0])
        size = self.proj_size or self.hidden_size
        lead = (batch, self.directions) if self.batch_first else (self.directions, batch)
        states = ((*lead, size), (*lead, self.hidden_size))[: self.states]
        if self.batch_first:
            return ((batch, length, self.directions, size), *states)
        return ((length, *lead, size), *states)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for all."""
        return (dtype,) * (1 + self.states)

    def parameters(self) -> Mapping[str, Shape]:
        """weight_ih (directions, gates·hidden, input), weight_hh (..., hidden), and both biases in one."""
        rows = self.gates * self.hidden_size
        weights: dict[str, Shape] = {
            "weight_ih": (self.directions, rows, self.input_size or 0),
            "weight_hh": (self.directions, rows, self.proj_size or self.hidden_size),
        }
        if self.bias:
            weights["bias"] = (self.directions, 2 * rows)
        if self.proj_size:
            weights["projection"] = (self.directions, self.proj_size, self.hidden_size)
        return weights

    def _macs(self, inputs: Sequence[Shape]) -> int:
        length, batch = self._axes(inputs[0])
        steps = length * batch * self.directions
        terms = (self.input_size or 0) + (self.proj_size or self.hidden_size)
        projection = F.linear_macs(steps, self.hidden_size, self.proj_size) if self.proj_size else 0
        return F.linear_macs(steps, terms, self.gates * self.hidden_size) + projection

    def _elements(self, inputs: Sequence[Shape]) -> int:
        """The hidden elements of all steps."""
        return int(product((*inputs[0][:2], self.directions, self.hidden_size)))

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """At each step the products with the input and with the last state, two biases, and the gates."""
        macs, elements = self._macs(inputs), self._elements(inputs)
        dots = self.gates * elements + (product(outputs[0]) if self.proj_size else 0)
        sums = F.sum_additions(macs, dots) + 2 * self.gates * elements * self.bias
        multiplications, additions, others = (elements * count for count in self.others)
        return Cost(macs, macs + multiplications, sums + additions, others)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Products of the forward's size for the input and states, and for the weights; twice the gates' arithmetic."""
        macs, elements = self._macs(inputs), self._elements(inputs)
        multiplications, additions, others = (2 * elements * count for count in self.others)
        gradients = {
            "input": Cost(macs, macs + multiplications, F.sum_additions(macs, product(inputs[0])) + additions, others)
        }
        for name, shape in self.parameters().items():
            if name in ("weight_ih", "weight_hh", "projection"):
                # Each element of a matrix meets a number at each step of each sample.
                macs = product(inputs[0][:2]) * product(shape)
                gradients[name] = Cost(macs, macs, F.sum_additions(macs, product(shape)))
        if self.bias:
            rows = self.gates * elements
            gradients["bias"] = Cost(additions=F.sum_additions(rows, self.directions * self.gates * self.hidden_size))
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the weights, all outputs, and the gates of each step."""
        gates = (*outputs[0][:-1], self.gates * self.hidden_size)
        return ("input0", "weight_ih", "weight_hh", "output0", (gates, None))


@dataclass(frozen=True, eq=False, repr=False)
class OnnxLSTM(_Recurrent):
    """Long short-term memory: four gates, and a cell beside the state.

    With `peepholes` three gates look at the cell, too; with `input_forget` what is forgotten is what comes in.

    >>> OnnxLSTM(8, 16).infer((10, 1, 8))
    ((10, 1, 1, 16), (1, 1, 16), (1, 1, 16))
    """

    kind = "onnxlstm"
    gates = 4
    states = 2
    functions = 3
    others = (3, 4, 8)  # three sigmoids (add, exp, divide), two tanh; three products and a sum
    peepholes: bool = False
    input_forget: bool = False

    def parameters(self) -> Mapping[str, Shape]:
        """Those of all recurrent layers, and peephole (directions, 3·hidden)."""
        found = super().parameters()
        return {**found, "peephole": (self.directions, 3 * self.hidden_size)} if self.peepholes else found

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """That of all recurrent layers; a peephole is three products and sums for each hidden element of a step."""
        looks = 3 * self._elements(inputs) * self.peepholes
        return super().cost(inputs, outputs) + Cost(0, looks, looks)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Those of all recurrent layers; each peephole's product goes back to the cell and to the weight."""
        found = super().backward(inputs, outputs)
        looks = 3 * self._elements(inputs)
        return {**found, "peephole": Cost(0, 2 * looks, 2 * looks)} if self.peepholes else found


@dataclass(frozen=True, eq=False, repr=False)
class OnnxGRU(_Recurrent):
    """Gated recurrent unit: three gates. With linear_before_reset the reset comes after the product, as in PyTorch."""

    kind = "onnxgru"
    gates = 3
    functions = 2
    others = (3, 4, 5)  # two sigmoids and a tanh; three products, a difference and a sum
    linear_before_reset: bool = False


class OnnxRNN(_Recurrent):
    """The plain recurrent layer: one tanh."""

    kind = "onnxrnn"
    gates = 1
    functions = 1
    others = (0, 0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class _Stack(Layer):
    """Recurrent layers one on the other, as PyTorch has them: (length, N, input_size), or with batch_first (N, length,
    input_size) -> outputs (..., directions·size), and the last states (num_layers·directions, N, size).

    input_size None is taken from the input, hidden_size None is input_size. The first states may come in. Dropout
    between the layers does nothing at inference.
    """

    layer: ClassVar[type[_Recurrent]]
    """What one of them is."""
    inputs = (1, None)
    batch_axes = (0, 1, 1)

    input_size: int | None = None
    hidden_size: int | None = None
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False

    def __post_init__(self) -> None:
        for field in ("input_size", "hidden_size"):
            if getattr(self, field) is not None:
                whole(field, getattr(self, field))
        if whole("num_layers", self.num_layers) > MOST_LAYERS:
            raise refused("num_layers", self.num_layers, f"at most {MOST_LAYERS}")
        for field in ("bias", "batch_first", "bidirectional"):
            flag(field, getattr(self, field))
        number("dropout", self.dropout)

    def bind(self, *inputs: Shape) -> Self:
        """Take the sizes that are left open from the last axis."""
        shape, most = inputs[0], 1 + self.layer.states
        if len(shape) != 3:
            raise ShapeError(
                f"needs steps and features, such as 10x{self.input_size or 8}, and a batch beside them if there is"
                f" one, but {shape_text(shape[1:]) or 'a scalar'} came in",
                value=shape,
            )
        if len(inputs) > most:
            raise ShapeError(f"takes the input and {most - 1} first states at most, but {len(inputs)} came in")
        if self.input_size not in (None, shape[2]):
            raise ShapeError(
                f"input_size is {self.input_size}, but the input {shape_text(shape)} has {shape[2]} features",
                field="input_size",
                value=self.input_size,
            )
        if self.input_size is not None and self.hidden_size is not None:
            return self
        return replace(self, input_size=shape[2], hidden_size=self.hidden_size or shape[2])

    @property
    def bound(self) -> tuple[int, int]:
        """input_size and hidden_size of a bound layer."""
        if self.input_size is None or self.hidden_size is None:
            raise ShapeError("input_size is open until the layer is bound to an input", field="input_size")
        return self.input_size, self.hidden_size

    @property
    def size(self) -> int:
        """How many numbers a direction gives at each step."""
        return self.bound[1]

    def _single(self) -> dict[str, Any]:
        """Further fields of each of the layers."""
        return {}

    def levels(self) -> tuple[_Recurrent, ...]:
        """The layers, from the first to the last; the length is the first axis of what they take."""
        directions = 1 + self.bidirectional
        came = [self.bound[0], *[self.size * directions] * (self.num_layers - 1)]
        given = ("initial_h", "initial_c")[: self.layer.states]
        return tuple(
            self.layer(size, self.bound[1], directions, self.bias, given=given, **self._single()) for size in came
        )

    def _shapes(self, inputs: Sequence[Shape]) -> list[tuple[_Recurrent, Shape, tuple[Shape, ...]]]:
        """Each layer with what it takes and gives."""
        first = inputs[0]
        lead = (first[1], first[0]) if self.batch_first else first[:2]
        found = []
        for layer in self.levels():
            came = (*lead, layer.input_size or 0)
            found.append((layer, came, layer.infer(came)))
        return found

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """All outputs, then the last hidden states, and of an LSTM the last cells. Raises `ShapeError`."""
        length, batch = inputs[0][:2]
        directions = 1 + self.bidirectional
        lead = (self.num_layers * directions, length if self.batch_first else batch)
        states = ((*lead, self.size), (*lead, self.bound[1]))[: self.layer.states]
        for came, state in zip(inputs[1:], states):  # noqa: B905  fewer may come in
            if came != state:
                raise ShapeError(f"the first state is {shape_text(came)}, but must be {shape_text(state)}", value=came)
        return ((length, batch, directions * self.size), *states)

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for all."""
        return (dtype,) * (1 + self.layer.states)

    def _ends(self, level: int) -> tuple[str, ...]:
        """How the names of a layer's weights end, for each direction."""
        return tuple(f"_l{level}{direction}" for direction in ("", "_reverse")[: 1 + self.bidirectional])

    def parameters(self) -> Mapping[str, Shape]:
        """PyTorch's weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, and so on for each layer and direction."""
        found: dict[str, Shape] = {}
        for level, layer in enumerate(self.levels()):
            own = layer.parameters()
            for end in self._ends(level):
                found[f"weight_ih{end}"] = own["weight_ih"][1:]
                found[f"weight_hh{end}"] = own["weight_hh"][1:]
                if self.bias:
                    found[f"bias_ih{end}"] = found[f"bias_hh{end}"] = (own["weight_ih"][1],)
                if "projection" in own:
                    found[f"weight_hr{end}"] = own["projection"][1:]
        return found

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """That of each layer."""
        return sum((layer.cost((came,), gone) for layer, came, gone in self._shapes(inputs)), Cost())

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """That of each layer, the weights of each direction by themselves; both biases have the same gradient."""
        found = {"input": Cost()}
        for level, (layer, came, gone) in enumerate(self._shapes(inputs)):
            found["input"] += layer.backward((came,), gone)["input"]
            of_one = replace(layer, directions=1, activations=()).backward((came,), gone)
            for end in self._ends(level):
                for name, own in _NAMES.items():
                    if own in of_one:
                        found[f"{name}{end}"] = of_one[own]
                if self.bias:
                    found[f"bias_hh{end}"] = Cost()
        return found

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the weights, and of each layer its outputs and the gates of each step."""
        kept: list[Saved] = ["input0", *self.parameters()]
        for layer, _, gone in self._shapes(inputs):
            kept += [(gone[0], None), ((*gone[0][:-1], layer.gates * layer.hidden_size), None)]
        return kept


_NAMES = {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias_ih": "bias", "weight_hr": "projection"}
"""PyTorch's names of what one layer has."""


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Stack):
    """Long short-term memory: PyTorch's LSTM, `lstm:64,l2,bidirectional`. With proj_size the state is projected to it.

    (length, N, input_size), or with batch_first (N, length, input_size) -> outputs (..., directions·size), and the last
    hidden states and cells, (num_layers·directions, N, size). Without a batch (length, input_size). input_size None is
    taken from the input, hidden_size None is input_size. First states may come in, `lstm:64,@h,@c`. Dropout between the
    layers does nothing at inference.

    >>> LSTM(8, 16, 2, bidirectional=True).infer((10, 1, 8))
    ((10, 1, 32), (4, 1, 16), (4, 1, 16))
    """

    kind = "lstm"
    layer = OnnxLSTM
    proj_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("proj_size", self.proj_size, 0)
        if self.hidden_size is not None and self.proj_size >= self.hidden_size:
            raise refused("proj_size", self.proj_size, f"less than hidden_size ({self.hidden_size})")

    @property
    def size(self) -> int:
        """How many numbers a direction gives at each step."""
        return self.proj_size or self.bound[1]

    def _single(self) -> dict[str, Any]:
        return {"proj_size": self.proj_size}


class GRU(_Stack):
    """Gated recurrent unit: PyTorch's GRU, `gru:64`. As LSTM, without cells.

    >>> GRU(8, 16).infer((10, 1, 8))
    ((10, 1, 16), (1, 1, 16))
    """

    kind = "gru"
    layer = OnnxGRU

    def _single(self) -> dict[str, Any]:
        return {"linear_before_reset": True}


@dataclass(frozen=True, eq=False, repr=False)
class RNN(_Stack):
    """The plain recurrent layer: PyTorch's RNN, `rnn:64,relu`. As LSTM, without gates and cells."""

    kind = "rnn"
    layer = OnnxRNN
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("nonlinearity", self.nonlinearity, ("tanh", "relu"))

    def _single(self) -> dict[str, Any]:
        return {"activations": (("relu", 0.0, 0.0),) * (1 + self.bidirectional) if self.nonlinearity == "relu" else ()}
