"""Which constants of a file are parameters: a file holds weights, sizes, scales and zeros alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.layers.reshape import Moved
from convcalc.network import Node
from convcalc.onnx.known import Known
from convcalc.onnx.tensors import FLOATING

_UNLEARNED: Mapping[str, Sequence[int]] = {
    "BatchNormalization": (3, 4), "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pow": (1,), "Mod": (1,),
    "Scatter": (2,), "ScatterElements": (2,), "ScatterND": (2,),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),
}  # fmt: skip
"""Places of inputs whose floats are no weight, scale or bias, in whatever they hold."""
_RECURRENT = ("LSTM", "GRU", "RNN")
"""Ops whose states begin with what is learned, or zeros."""


def unlearned(op: str, inputs: Sequence[str], known: Known) -> Sequence[int]:
    """The places of such inputs of a node. Where a product has two constant factors, the second is the weight."""
    if op in ("MatMul", "Gemm") and all(map(known.is_constant, inputs[:2])):
        return (0,)
    return _UNLEARNED.get(op, ())


def is_learned(op: str, key: str, name: str, known: Known) -> bool:
    """Whether what an op takes as its weight `key` is one: no running statistic, and nothing that is made up.

    Exporters write a scale of ones and a bias of zeros for a norm that has neither, and for one of groups, which they
    put together of others. They bear no module's name.
    """
    if key.startswith("running_"):
        return False
    if op != "InstanceNormalization" or "." in name.rpartition("/")[2]:
        return True
    numbers = known.numbers(name)
    return numbers is None or set(numbers) != {1.0 if key == "weight" else 0.0}


class LeftOut:
    """Tensors that nodes take and their layers do not: sizes, and initial states."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._tensors: list[tuple[str, str, bool]] = []

    def note(self, node: str, op: str, inputs: Sequence[str], places: Sequence[int], weights: Sequence[str]) -> None:
        """Note the floats among a node's inputs that are neither at its layer's `places` nor its weights."""
        state = op in _RECURRENT
        if len(places) + len(weights) == len(inputs) and not state:
            return
        self._tensors += [
            (tensor, node, state)
            for place, tensor in enumerate(inputs)
            if (place not in places or (state and place))
            and tensor not in weights
            and tensor not in self.known.smalls
            and self.known.dtypes.get(tensor) in FLOATING
        ]

    def forget(self, nodes: Sequence[Node]) -> None:
        """Take constants from the parameters that serve only what layers leave out: sizes, and states of zeros.

        An initial state is a parameter only where it is learned; PyTorch writes the zeros of one that is not.
        """
        if not self._tensors:
            return
        constants = self.known.constants
        makers = {tensor: node for node in nodes for tensor in node.outputs}
        takers: dict[str, set[str]] = {}
        for node in nodes:
            for tensor in (*node.inputs, *node.weights.values()):
                takers.setdefault(tensor, set()).add(node.name)
        idle: dict[str, bool] = {}
        passed = {taker for _, taker, state in self._tensors if state}
        for tensor, _, state in self._tensors:
            stack = [tensor]
            while stack:
                name = stack.pop()
                maker = makers.get(name)
                if name in constants:
                    idle[name] = state or idle.get(name, False)
                elif maker is not None and maker.name not in passed and isinstance(maker.layer, Moved):
                    passed.add(maker.name)
                    stack += maker.inputs
        for name, state in idle.items():
            if takers.get(name, passed) <= passed and not (state and self._holds_more_than_zeros(name)):
                constants[name].parameter = False

    def _holds_more_than_zeros(self, name: str) -> bool:
        numbers = self.known.numbers(name)
        return numbers is None or any(numbers)
