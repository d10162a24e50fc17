"""An ONNX file read on the numbers that come in, where they decide shapes: which branch is taken, how often a loop
turns, how many boxes are left.

`RunningReader` walks the file as its reader does, and where that asks for values which only a run has, computes what it
has read so far. What comes out is a network for these numbers: branches and loops written out, and tensors that decide
shapes as constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

import numpy as np
import numpy.typing as npt

from convcalc.errors import UnsupportedOpError
from convcalc.executor.kernels import Array
from convcalc.executor.model import typed_inputs
from convcalc.executor.onnx_dynamic import DYNAMIC
from convcalc.narrow import holder
from convcalc.network import Constant, Input, Network, Node
from convcalc.onnx import evaluation
from convcalc.onnx.file import OnnxModel
from convcalc.onnx.folding import FOLDERS
from convcalc.onnx.functions import FUNCTIONS
from convcalc.onnx.known import MOST_ELEMENTS, Small
from convcalc.onnx.messages import Graph, Node as WireNode
from convcalc.onnx.names import MainScope, Scope, Visit, domain_of
from convcalc.onnx.ops import function_of
from convcalc.onnx.reader import STRUCTURES, Reader
from convcalc.records import replace


class Held:
    """The values of a constant that was computed."""

    __slots__ = ("held",)

    def __init__(self, array: Array) -> None:
        self.held = array

    def array(self) -> Array:
        """The values."""
        return self.held


class RunningReader(Reader):
    """The walk, with what has been computed of it."""

    def __init__(
        self, model: OnnxModel, inputs: Mapping[str, npt.ArrayLike], weights: Mapping[str, npt.ArrayLike], seed: int
    ) -> None:
        super().__init__(model.model, {name: np.shape(array) for name, array in inputs.items()}, None)
        self.arrays = inputs
        self.weights = weights
        self.seed = seed
        self.computed: dict[str, Array] = {}
        self.ran = 0
        self.begun = 0
        self.position = -1
        self.last_taken = self._last_taken()
        self.decided: dict[str, None] = {}
        self.node_name = ""

    def network(self) -> Network:
        """The network for the numbers that came in. Raises `UnsupportedOpError` before any is computed where it can."""
        for position, node in enumerate(self.graph.nodes):
            known = function_of(node.op_type) is not None or node.op_type in FUNCTIONS or node.op_type in DYNAMIC
            known |= node.op_type in (*FOLDERS, *evaluation.OWN, *STRUCTURES)
            if not (known and domain_of(node.domain) == "") and self.function_of(node) is None:
                op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                name = node.name or f"{node.op_type}_{position}"
                raise UnsupportedOpError(f"{self.file}: node {name} ({op}): {op} is not known, so it cannot be run")
        network = super().network()
        first = next(iter(self.decided), "")
        more = f" and {len(self.decided) - 1} more" if len(self.decided) > 1 else ""
        note = f"what {first}{more} gives decides shapes; they are those of this input" if first else ""
        kept = _alive(network)
        # What is left out has used its weights.
        done = {node.name for node in network.nodes} - {node.name for node in kept}
        self.weights = {key: array for key, array in self.weights.items() if key.rpartition(".")[0] not in done}
        notes = (*network.notes, note) if note else network.notes
        self.whole = replace(network, nodes=kept, notes=notes, decided=first)
        return self.whole

    def rest(self) -> tuple[Network, Mapping[str, Array], Mapping[str, npt.ArrayLike]]:
        """What of the network is not computed yet, with what it takes of what is; and its weights."""
        left = {node.name for node in self.builder.nodes[self.ran :]}
        kept = tuple(node for node in self.whole.nodes if node.name in left)
        known = {self.builder.renamed.get(name, name): array for name, array in self.computed.items()}
        taken = {tensor for node in kept for tensor in (*node.inputs, *node.weights.values())}
        arrays = {name: known[name] for name in {*taken, *self.whole.outputs} if name in known}
        arrays = {name: array for name, array in arrays.items() if name not in self.known.constants}
        inputs = {name: Input(array.shape) for name, array in arrays.items()}
        weights = {key: array for key, array in self.weights.items() if key.rpartition(".")[0] in left}
        return replace(self.whole, inputs=inputs, nodes=kept), arrays, weights

    def inputs(self, scope: Scope) -> dict[str, Input]:
        """The inputs of the main graph, with the numbers that come in."""
        from convcalc.executor.inputs import input_arrays

        inputs = super().inputs(scope)
        network = Network(inputs, (), (), dtypes=self.known.dtypes)
        given = self.arrays.get("", self.arrays)
        self.computed = typed_inputs(network, input_arrays(network, given, keep_types=True)) if inputs else {}
        return inputs

    # --- what is kept ---

    def _last_taken(self) -> dict[str, float]:
        """The last node of the graph that takes each tensor; those that go out are taken for ever."""
        last: dict[str, float] = {}
        for position, node in enumerate(self.graph.nodes):
            last.update(dict.fromkeys(_taken(node), position))
        last.update((info.name, inf) for info in self.graph.outputs)
        return last

    def take(self, node: WireNode, scope: Scope) -> None:
        """Take one node as the reader does; of those of the main graph the place is noted."""
        if isinstance(scope, MainScope):
            self.position += 1
            self.begun = len(self.builder.nodes)
            self.scope = scope
            self.node_name = node.name or node.op_type
        super().take(node, scope)

    def _alive(self) -> set[str]:
        """The tensors that the rest of the graph takes, those of sequences too."""
        names = (self.scope.names.get(name) for name, last in self.last_taken.items() if last >= self.position)
        alive = {name for name in names if name is not None}
        # What a node of the graph stands for may take what it has made by now; what is not computed takes what it does.
        nodes = self.builder.nodes
        alive.update(tensor for node in nodes[self.begun :] for tensor in node.outputs)
        alive.update(tensor for node in nodes[self.ran :] for tensor in (*node.inputs, *node.weights.values()))
        alive.update(tensor for tensors in self.known.sequences.values() for tensor in tensors)
        return alive

    # --- what is computed ---

    def _array(self, name: str) -> Array:
        """A tensor's numbers: what has been read and not computed so far is computed, all of it."""
        known = self.known
        if name in known.constants:
            return np.asarray(known.constants[name].array())
        if name in known.stored:
            return np.asarray(known.stored[name].array())
        small = known.smalls.get(name)
        if small is not None:
            return np.array(small.items, holder(small.dtype)).reshape(small.shape)
        if name not in self.computed:
            self._run()
        return self.computed[name]

    def _run(self) -> None:
        from convcalc.executor.run import compute, prepare

        new = self.builder.nodes[self.ran :]
        alive = self._alive()
        made = [tensor for node in new for tensor in node.outputs if tensor in alive]
        if not made:
            return
        part = self.builder.part(new, made)
        owners = {node.name for node in new}
        weights = {key: array for key, array in self.weights.items() if key.rpartition(".")[0] in owners}
        prepared = prepare(part, {name: self.computed[name] for name in part.inputs}, weights, seed=self.seed)
        self.computed |= compute(prepared).outputs
        self.ran = len(self.builder.nodes)
        # What no later node of the graph takes is let go.
        self.computed = {tensor: array for tensor, array in self.computed.items() if tensor in alive}

    def needed(self, name: str) -> Small | None:
        """The values of a tensor, computed if they are not known. They are those of this run from here on."""
        found = super().needed(name)
        if found is None and name in self.known.shapes:
            array = self._array(name)
            if array.size <= MOST_ELEMENTS:
                found = self.known.smalls[name] = _small(array, self.known.dtypes.get(name, "float32"))
                self.decided.setdefault(self.node_name)
        return found

    def take_unknown(self, visit: Visit, why: str) -> None:
        """Compute the outputs of an op that has no layer. Raises `UnsupportedOpError` where it is not known."""
        node, known = visit.node, self.known
        compute = DYNAMIC.get(node.op_type) if domain_of(node.domain) == "" else None
        if compute is None and why.startswith(self.file):  # a node inside it has said so
            raise UnsupportedOpError(why)
        if compute is None:
            raise UnsupportedOpError(f"{visit.where}: {why or 'what comes in is not known'}")
        given = [self._array(tensor) if tensor else None for tensor in visit.inputs]
        with np.errstate(all="ignore"):
            arrays = compute(visit.attributes, given)
        self.decided.setdefault(visit.name)
        for output, array in zip(node.outputs, arrays, strict=False):
            if not output:
                continue
            tensor = visit.scope.define(output)
            own = str(array.dtype)
            if given[0] is not None and given[0].dtype == array.dtype:
                own = known.dtypes.get(visit.inputs[0], own)
            known.hold(tensor, Constant(array.shape, own, Held(array), parameter=False))
            if array.size <= MOST_ELEMENTS:
                known.smalls[tensor] = _small(array, own)


def _small(array: Array, dtype: str) -> Small:
    return Small(array.shape, array.reshape(-1).tolist(), dtype)


def _taken(node: WireNode) -> Iterator[str]:
    """The tensors that a node takes, or that a graph inside it may take from around it."""
    yield from node.inputs
    for attribute in node.attributes.values():
        if isinstance(attribute.value, Graph):
            for inner in attribute.value.nodes:
                yield from _taken(inner)
            yield from (info.name for info in attribute.value.outputs)


def _alive(network: Network) -> tuple[Node, ...]:
    """The nodes of which the outputs hang on something: what only decided shapes has done so."""
    needed = {name for name in network.outputs if name not in network.constants}
    kept = []
    for node in reversed(network.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(name for name in (*node.inputs, *node.weights.values()) if name not in network.constants)
    return tuple(reversed(kept))
