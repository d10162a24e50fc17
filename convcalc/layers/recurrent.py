"""Recurrent layers: LSTM, GRU and the plain RNN, one layer of them as ONNX has them, and stacks as PyTorch has them."""

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
        weights = sum(product(shape) for name, shape in self.parameters().items() if name != "bias")
        gradients = {
            "input": Cost(macs, macs + multiplications, F.sum_additions(macs, product(inputs[0])) + additions, others),
            "weight_ih": Cost(macs, macs, F.sum_additions(macs, weights)),
        }
        if self.bias:
            gradients["bias"] = Cost(additions=self.gates * elements)
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the weights, all outputs, and the gates of each step."""
        gates = (*outputs[0][:-1], self.gates * self.hidden_size)
        return ("input0", "weight_ih", "weight_hh", "output0", (gates, None))


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Recurrent):
    """Long short-term memory: four gates, and a cell beside the state.

    With `peepholes` three gates look at the cell, too; with `input_forget` what is forgotten is what comes in.

    >>> LSTM(8, 16).infer((10, 1, 8))
    ((10, 1, 1, 16), (1, 1, 16), (1, 1, 16))
    """

    kind = "lstm"
    gates = 4
    states = 2
    functions = 3
    others = (3, 4, 11)  # three sigmoids (add, exp, divide), two tanh; three products and a sum
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
class GRU(_Recurrent):
    """Gated recurrent unit: three gates. With linear_before_reset the reset comes after the product, as in PyTorch."""

    kind = "gru"
    gates = 3
    functions = 2
    others = (3, 4, 5)  # two sigmoids and a tanh; three products, a difference and a sum
    linear_before_reset: bool = False


class RNN(_Recurrent):
    """The plain recurrent layer: one tanh."""

    kind = "rnn"
    gates = 1
    functions = 1
    others = (0, 0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class _Stack(Layer):
    """Recurrent layers one on the other, as PyTorch has them: (length, N, input_size), or with batch_first (N, length,
    input_size) -> outputs (..., directions·size), and the last states (num_layers·directions, N, size).

    The first states may come in. Dropout between the layers does nothing at inference.
    """

    layer: ClassVar[type[_Recurrent]]
    """What one of them is."""
    inputs = (1, None)

    input_size: int | None
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        for field in ("hidden_size", "num_layers"):
            whole(field, getattr(self, field))
        for field in ("bias", "batch_first", "bidirectional"):
            flag(field, getattr(self, field))
        number("dropout", self.dropout)
        whole("proj_size", self.proj_size, 0)
        if self.proj_size >= self.hidden_size or (self.proj_size and self.layer is not LSTM):
            raise refused("proj_size", self.proj_size, "of an LSTM, and less than its hidden_size")
        choice("nonlinearity", self.nonlinearity, ("tanh", "relu"))

    def bind(self, *inputs: Shape) -> Self:
        """Take input_size from the last axis where it is left open."""
        size = self.layer(self.input_size, self.hidden_size).bind(*inputs).input_size
        return self if self.input_size is not None else replace(self, input_size=size)

    def levels(self) -> tuple[_Recurrent, ...]:
        """The layers, from the first to the last; the length is the first axis of what they take."""
        directions = 1 + self.bidirectional
        came = [self.input_size, *[(self.proj_size or self.hidden_size) * directions] * (self.num_layers - 1)]
        given = ("initial_h", "initial_c")[: self.layer.states]
        curves = (("relu", 0.0, 0.0),) * directions if self.nonlinearity == "relu" else ()
        more: dict[str, Any] = {"linear_before_reset": True} if self.layer is GRU else {}
        return tuple(
            self.layer(size, self.hidden_size, directions, self.bias, activations=curves, given=given,
                       proj_size=self.proj_size, **more)
            for size in came
        )  # fmt: skip

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
        """All outputs, then the last hidden states, and of an LSTM the last cells."""
        length, batch = inputs[0][:2]
        size, directions = self.proj_size or self.hidden_size, 1 + self.bidirectional
        lead = (self.num_layers * directions, length if self.batch_first else batch)
        return ((length, batch, directions * size), *((*lead, size), (*lead, self.hidden_size))[: self.layer.states])

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for all."""
        return (dtype,) * (1 + self.layer.states)

    def parameters(self) -> Mapping[str, Shape]:
        """PyTorch's weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, and so on for each layer and direction."""
        found: dict[str, Shape] = {}
        for level, layer in enumerate(self.levels()):
            own = layer.parameters()
            for direction in ("", "_reverse")[: layer.directions]:
                end = f"_l{level}{direction}"
                found[f"weight_ih{end}"] = own["weight_ih"][1:]
                found[f"weight_hh{end}"] = own["weight_hh"][1:]
                if self.bias:
                    found[f"bias_ih{end}"] = found[f"bias_hh{end}"] = (own["weight_ih"][1],)
                if self.proj_size:
                    found[f"weight_hr{end}"] = own["projection"][1:]
        return found

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """That of each layer."""
        return sum((layer.cost((came,), gone) for layer, came, gone in self._shapes(inputs)), Cost())

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """That of each layer; weights and biases of all together."""
        found: dict[str, Cost] = {}
        for layer, came, gone in self._shapes(inputs):
            for name, cost in layer.backward((came,), gone).items():
                key = {"weight_ih": "weight_ih_l0", "bias": "bias_ih_l0"}.get(name, name)
                found[key] = found.get(key, Cost()) + cost
        return found

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the weights, and of each layer its outputs and the gates of each step."""
        kept: list[Saved] = ["input0", *self.parameters()]
        for layer, _, gone in self._shapes(inputs):
            kept += [(gone[0], None), ((*gone[0][:-1], layer.gates * self.hidden_size), None)]
        return kept


class StackedLSTM(_Stack):
    """`LSTM` layers one on the other: PyTorch's LSTM.

    >>> StackedLSTM(8, 16, 2, bidirectional=True).infer((10, 1, 8))
    ((10, 1, 32), (4, 1, 16), (4, 1, 16))
    """

    kind = "stackedlstm"
    layer = LSTM


class StackedGRU(_Stack):
    """`GRU` layers one on the other: PyTorch's GRU."""

    kind = "stackedgru"
    layer = GRU


class StackedRNN(_Stack):
    """`RNN` layers one on the other: PyTorch's RNN."""

    kind = "stackedrnn"
    layer = RNN
