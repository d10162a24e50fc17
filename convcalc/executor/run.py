"""Running a network on arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import Resolved, View, located, resolve
from convcalc.analysis.unsaid import other_values, unsaid
from convcalc.errors import ShapeError, UnsupportedOpError, did_you_mean
from convcalc.executor.algorithms import forced, forced_name
from convcalc.executor.format_choice import channels_last_tensors, tensors_of_type
from convcalc.executor.fusion import Step, can_join, joined_runs, joined_steps, single_steps
from convcalc.executor.inputs import as_array, bytes_there, float_type, input_arrays, same_floats, with_batch_of
from convcalc.executor.kernels import Array, LayerWeights
from convcalc.executor.model import computed_weights, constants, fixed_weights, is_model, numbers, typed_inputs
from convcalc.executor.onnx_nodes import computing, refuse
from convcalc.executor.plan import need, plan
from convcalc.executor.replay import Replay, replays
from convcalc.executor.threads import in_a_row, thread_count, threads as using_threads
from convcalc.executor.weights import WINDOWED, GivenWeights, all_weights, by_name, drawn_note, program_of, settle
from convcalc.expressions.program import ONE_CHANNEL, Program
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.layers.opaque import Opaque
from convcalc.narrow import converted
from convcalc.network import Network, no_such_layer
from convcalc.records import dataclass, field, replace
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.executor.onnx_running import RunningReader
    from convcalc.onnx.file import OnnxModel
    from convcalc.torch_text import PrintedModel


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave. Arrays have the shapes that people see: without a batch, and without channels, unless given.

    `output` is what the network gives, `layers` what each layer gave (when asked to keep it), `indices` what each max
    pooling chose, `weights` every weight that was used, by "name.parameter". `outputs` are all outputs by name, where
    a model's file has several.
    """

    output: Array
    layers: Mapping[str, Array] = field(default_factory=dict)
    indices: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs: Mapping[str, Array] = field(default_factory=dict)


class Turn(NamedTuple):
    """A step of a run: the tensors that go in and come out, and those that nobody needs after it."""

    step: Step | Replay
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    over: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network with arrays for its inputs and weights, checked, so that it can be computed.

    `drop_channels`: the kernel was given without an axis of outputs, so the result is shown without one. `constants`
    are tensors of a model's file that layers take as inputs. `rest` is what is left to compute where some was while the
    network was read.
    """

    network: Network
    resolved: Sequence[Resolved]
    inputs: Mapping[str, Array]
    weights: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    drop_channels: bool = False
    constants: Mapping[str, Array] = field(default_factory=dict)
    rest: Prepared | None = None
    _of_layers: dict[str, LayerWeights] = field(default_factory=dict, init=False)
    _steps: dict[tuple[bool, str | None], list[Step]] = field(default_factory=dict, init=False)
    _computed: list[frozenset[str]] = field(default_factory=list, init=False)
    _replays: dict[tuple[int, str | None], list[Step | Replay] | None] = field(default_factory=dict, init=False)
    _turns: dict[str, tuple[Sequence[Step | Replay], list[Turn]]] = field(default_factory=dict, init=False)
    _views: list[View] = field(default_factory=list, init=False)

    def shown(self, array: Array, name: str = "") -> Array:
        """An array (batch first, of most tensors) in the shape that people see."""
        return array.reshape(self.shown_shape(array.shape, name))

    def shown_shape(self, shape: Shape, name: str = "") -> Shape:
        """A shape (batch first, of most tensors) as people see it."""
        if not self._views:
            self._views.append(View(self.network, list(self.resolved)))
        shown = self._views[0](shape, name)
        if self.drop_channels:
            rank = len(shape) - 2
            shown = (*shown[: len(shown) - rank - 1], *shown[len(shown) - rank :])
        return shown

    def weights_of(self, name: str) -> LayerWeights:
        """The weights of one layer, by parameter. What is derived from them is kept with them."""
        if name not in self._of_layers:
            start = f"{name}."
            self._of_layers[name] = LayerWeights(
                {key.removeprefix(start): value for key, value in self.weights.items() if key.startswith(start)}
            )
        return self._of_layers[name]

    @property
    def with_computed_weights(self) -> frozenset[str]:
        """The names of the nodes whose weights are made by nodes before them."""
        if not self._computed:
            nodes = (item.node for item in self.resolved)
            self._computed.append(frozenset(node.name for node in nodes if computed_weights(self.network, node)))
        return self._computed[0]

    def steps(self, *, joined: bool) -> list[Step]:
        """What is computed one after the other: layers by themselves, or joined where that is faster."""
        key = (joined, forced_name())
        if key not in self._steps:
            self._steps[key] = (
                joined_steps(self.network, self.resolved, self.weights_of, self._channels_last())
                if joined
                else single_steps(self.resolved, self.weights_of)
            )
        return self._steps[key]

    def _channels_last(self) -> frozenset[str]:
        """The tensors that lie so where layers are joined."""
        if not self.inputs:
            return frozenset()
        return channels_last_tensors(self.network, joined_runs(self.network, self.resolved), self._dtype())

    @property
    def has_a_row(self) -> bool:
        """Whether there are layers whose calls could be kept together."""
        return sum(step.into is not None for step in self.steps(joined=True)) > 1

    def again(self) -> Sequence[Step | Replay]:
        """Joined steps; where they have been computed before with as many threads, those in a row as one."""
        key = (thread_count(), forced_name())
        plain = self.steps(joined=True)
        if key not in self._replays:
            self._replays.clear()  # the memory of one is enough
            self._replays[key] = None
            return plain
        found = self._replays.get(key)  # another thread may have forgotten it by now
        if found is None:
            shapes = tensors_of_type(self.network, self.resolved, self._dtype())
            found = replays(plain, self.network.outputs, shapes, self._dtype())
            self._replays[key] = found
        return found or plain

    def turns(self, todo: Sequence[Step | Replay]) -> list[Turn]:
        """The steps with what is over after each; those that were asked for last are kept."""
        kept = self._turns.get("last")
        if kept is not None and kept[0] is todo:
            return kept[1]
        names = [(step.inputs, step.outputs) for step in todo]
        last = {name: index for index, pair in enumerate(names) for name in (*pair[0], *pair[1])}
        stay = set(self.network.outputs)
        turns = [
            Turn(step, *pair, tuple({name for name in (*pair[0], *pair[1]) if last[name] == index} - stay))
            for index, (step, pair) in enumerate(zip(todo, names, strict=True))
        ]
        self._turns["last"] = todo, turns
        return turns

    def _dtype(self) -> np.dtype[Any]:
        return next(iter(self.inputs.values())).dtype


def run(
    network: Network | Program | Layer | Sequence[Layer] | str,
    input: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    weights: GivenWeights | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    seed: int = 0,
    keep: bool = False,
    indices: bool = False,
    flip: bool = False,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Result:
    """Compute a network, a layer, layers in a row, or an expression on an array (several inputs: on arrays by name).

    The input is (batch, channels, *sizes), and may leave out batch and channels. Weights are by "name.parameter"
    ("0.weight"; a layer without a name has its index). One array alone is the first layer's weight: its leading axes
    may be left out, and it decides out_channels and kernel_size where they are open; without channels it is used on
    every channel by itself. A weight given without a bias has none; what is not given at all is drawn from the seed,
    uniformly within 1 / √fan_in as PyTorch does.

    `keep` keeps what every layer gives; `indices` says what max pooling chose; `flip` turns every kernel by 180
    degrees, which makes cross-correlation true convolution. `threads` is how many to use (every core if None), and
    `algorithm` is "direct" or one of `ALGORITHMS`, for the convolutions that can be done by it. Dropout does nothing,
    and batch norm uses its running statistics. Raises `ShapeError` for an array that does not fit.

    >>> run("conv", [[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[0, 1], [2, 3]]).output.tolist()
    [[19, 25], [37, 43]]
    """
    prepared = prepare(network, input, weights, bias=bias, seed=seed)
    return compute(prepared, keep=keep, indices=indices, flip=flip, threads=threads, algorithm=algorithm)


def prepare(
    network: Network | Program | Layer | Sequence[Layer] | str,
    input: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    weights: GivenWeights | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Prepared:
    """The network with its arrays: shapes settled, weights checked, missing ones drawn. As `run`, without running."""
    drop_channels = False
    notes: list[str] = []
    if isinstance(network, Program) and type(network) is not Program:
        # A model's file leaves nothing open that a weight could decide.
        if isinstance(input, Mapping):
            if not network.names_inputs:
                raise ShapeError("a chain has one input; give one array")
            read = cast("OnnxModel | PrintedModel", network).named_network(
                {name: np.shape(array) for name, array in input.items()}
            )
        else:
            read = network.network(as_array(input, "the input").shape)
        reader = _reader_on_numbers(network, read, input, weights, seed)
        if reader is not None:
            network = reader.network()
            part, arrays, own = reader.rest()
            rest = _prepared_model(part, arrays, own, seed)
            return replace(_prepared_model(network, input, reader.weights if weights else weights, seed), rest=rest)
        network = read
    if isinstance(network, Network) and is_model(network):
        return _prepared_model(network, input, weights, seed)
    if isinstance(network, Network):
        notes += (note for note in network.notes if note != ONE_CHANNEL)
        arrays = input_arrays(network, input)
        network = with_batch_of(network, arrays)
        given = by_name(network, weights, bias)
    else:
        if isinstance(input, Mapping):
            raise ShapeError("a chain has one input; give one array")
        program = network if isinstance(network, Program) else program_of(network)
        x = as_array(input, "the input")
        network, given, drop_channels = settle(program, x, weights, bias)
        shape = network.inputs["input"].shape
        if x.size != product(shape):  # the first layer says of how many channels sizes alone are
            raise ShapeError(
                f"the input is one array of {shape_text(x.shape)}, and the first layer takes {shape[1]} channels;"
                f" give an array of {shape_text(shape[1:])}",
                field="in_channels",
                value=shape[1],
            )
        arrays = {"input": x.reshape(shape)}
    resolved = resolve(network)
    _refuse(resolved)
    notes += (f"layer {item.layer}: {item.message}" for item in unsaid(resolved, other_values))
    dtype = float_type(arrays.values())
    need(plan(network, resolved, str(dtype)), bytes_there((*arrays.values(), *given.values()), dtype))
    ready, drawn = all_weights(resolved, given, dtype, seed)
    arrays, ready = same_floats(network, arrays, ready)
    if drawn:
        notes.append(drawn_note(drawn, seed))
    held = numbers(network, (*arrays.values(), *ready.values()))
    return Prepared(network, resolved, arrays, ready, tuple(notes), drop_channels, constants=held)


def _reader_on_numbers(
    program: Program,
    network: Network,
    input: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    weights: GivenWeights | None,
    seed: int,
) -> RunningReader | None:
    """What reads a file on the numbers that come in, where they decide shapes; None where they do not.

    Raises `UnsupportedOpError` for what cannot be run either way.
    """
    open_nodes = any(isinstance(node.layer, Opaque) or "lacking" in node.attributes for node in network.nodes)
    if not (open_nodes and is_model(network)):
        return None
    try:
        for item in resolve(network, partial=True):
            refuse(item)
    except UnsupportedOpError:
        from convcalc.executor.onnx_running import RunningReader
        from convcalc.onnx.file import OnnxModel

        if not isinstance(program, OnnxModel):
            raise
        given = input if isinstance(input, Mapping) else {"": input}
        return RunningReader(program, given, weights if isinstance(weights, Mapping) else {}, seed)
    return None


def refuse_decided(network: Network, what: str) -> None:
    """Raise `UnsupportedOpError` for a network that is one for the numbers of its input alone; `what` has others."""
    if network.decided:
        raise UnsupportedOpError(f"what {network.decided} gives decides shapes; {what}")


def compute(
    prepared: Prepared,
    *,
    keep: bool = False,
    indices: bool = False,
    flip: bool = False,
    threads: int | None = None,
    algorithm: str | None = None,
    inputs: Mapping[str, Array] | None = None,
) -> Result:
    """Run what is prepared, as `run` says, or the same on other inputs of the same shapes.

    A tensor is let go after its last use.
    """
    with using_threads(threads), forced(algorithm):
        if prepared.rest is not None and inputs is None and not (keep or indices or flip):
            found = _compute(prepared.rest, prepared.rest.inputs, keep=False, indices=False)
            return replace(found, weights=prepared.weights, notes=prepared.notes)
        ready = flipped(prepared) if flip else prepared
        if keep and prepared.inputs:
            arrays = (*prepared.inputs.values(), *prepared.weights.values())
            dtype = str(next(iter(prepared.inputs.values())).dtype)
            need(plan(prepared.network, prepared.resolved, dtype, keep=True), sum(array.nbytes for array in arrays))
        return _compute(ready, prepared.inputs if inputs is None else inputs, keep=keep, indices=indices)


def layer_output(prepared: Prepared, name: str) -> Array:
    """What one layer gives, as people see it. The layers after it are not computed."""
    for items, _, outputs, _ in steps(prepared, prepared.inputs):
        if items[-1].node.name == name:
            return prepared.shown(outputs[0])
    raise no_such_layer("--layer", name, [item.node.name for item in prepared.resolved])


def _prepared_model(
    network: Network, input: npt.ArrayLike | Mapping[str, npt.ArrayLike], weights: GivenWeights | None, seed: int
) -> Prepared:
    """A network with tensors of its own: they keep their types. What it lacks is drawn as for any other."""
    if not network.outputs:
        raise ShapeError("the model has no outputs, so that there is nothing to compute")
    if weights is not None and not isinstance(weights, Mapping):
        raise ShapeError("a model's file has its weights; give others by name, such as conv1.weight")
    arrays = typed_inputs(network, input_arrays(network, input, keep_types=True)) if network.inputs else {}
    network = with_batch_of(network, arrays)
    # Some layers of unknown cost can be run, such as an If.
    resolved = resolve(network, partial=True)
    _refuse(resolved)
    given = {key: np.asarray(value) for key, value in (weights or {}).items()}
    dtype = str(next(iter(arrays.values())).dtype) if arrays else "float32"
    need(plan(network, resolved, dtype), sum(array.nbytes for array in (*arrays.values(), *given.values())))
    ready = fixed_weights(network, resolved, given)
    held = constants(network, given)
    unknown = [key for key in given if key not in ready and key not in held]
    if unknown:
        raise ShapeError(f"no layer has a weight {unknown[0]}{did_you_mean(unknown[0], ready)}")
    missing, drawn = all_weights([item for item in resolved if not item.node.weights], {}, dtype, seed)
    notes = [note for note in network.notes if note != ONE_CHANNEL]
    if drawn:
        notes.append(drawn_note(drawn, seed))
    return Prepared(network, resolved, arrays, {**missing, **ready}, tuple(notes), constants=held)


def _refuse(resolved: Sequence[Resolved]) -> None:
    """Raise `UnsupportedOpError` for a layer that cannot be run, or would give other numbers than it should."""
    for item in resolved:
        try:
            refuse(item)
        except UnsupportedOpError as error:
            raise located(error, item.node) from None


class Computed(NamedTuple):
    """Layers that have been computed as one: what went in and came out, and the names of the latter."""

    items: tuple[Resolved, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    names: tuple[str, ...]


def steps(
    prepared: Prepared, given: Mapping[str, Array], *, joined: bool = False, again: bool = False
) -> Iterator[Computed]:
    """Compute layer by layer, or layers joined where that is faster; with `again` many of them, as if they were one.

    A tensor is let go after its last use, so that nobody should hold on to what this gives.
    """
    tensors = {**prepared.constants, **given}
    computed = prepared.with_computed_weights
    joined = joined and _may_join(prepared, given)
    todo = prepared.again() if joined and again else prepared.steps(joined=joined)
    # These are held as float32, and rounded when they are made.
    halves = {name for name, kind in prepared.network.dtypes.items() if kind == "bfloat16"}
    for step, names, made, over in prepared.turns(todo):
        inputs = tuple([tensors[name] for name in names])
        if step.items[0].node.name in computed:
            outputs = with_computed_weights(prepared, step.items[0], inputs, tensors)
        else:
            outputs = _compute_step(step, inputs)
        if halves:
            outputs = tuple(
                converted(x, "bfloat16") if name in halves else x for name, x in zip(made, outputs, strict=True)
            )
        tensors.update(zip(made, outputs, strict=True))
        for name in over:
            tensors.pop(name, None)
        yield Computed(step.items, inputs, outputs, made)
        del inputs, outputs


def _may_join(prepared: Prepared, given: Mapping[str, Array]) -> bool:
    return not prepared.with_computed_weights and can_join([array.dtype for array in given.values()])


def _compute(prepared: Prepared, given: Mapping[str, Array], *, keep: bool, indices: bool) -> Result:
    kept, chosen = {}, {}
    wanted = dict.fromkeys(prepared.network.outputs)
    found = {name: array for name, array in {**prepared.constants, **given}.items() if name in wanted}
    joined = not (keep or indices) and _may_join(prepared, given)
    # Work is divided alike the first time and when calls are kept, so that every time gives the same numbers.
    with in_a_row(joined and prepared.has_a_row):
        for items, inputs, outputs, names in steps(prepared, given, joined=joined, again=joined):
            item = items[-1]
            found.update(pair for pair in zip(names, outputs, strict=True) if pair[0] in wanted)
            if keep:
                kept[item.node.name] = prepared.shown(outputs[0])
            if indices and item.layer.kind == "maxpool":
                from convcalc.executor.pool import max_indices

                found_at = max_indices(item.layer, inputs[0], outputs[0])  # type: ignore[arg-type]  # a kind has one class
                chosen[item.node.name] = prepared.shown(found_at)
            del inputs, outputs  # nothing of a layer is held while the next is computed
    shown = {name: prepared.shown(found[name], name) for name in wanted}
    output = shown[prepared.network.outputs[0]]
    return Result(output, kept, chosen, prepared.weights, prepared.notes, shown)


def with_computed_weights(
    prepared: Prepared, item: Resolved, inputs: tuple[Array, ...], tensors: Mapping[str, Array]
) -> tuple[Array, ...]:
    """The outputs of a layer whose weights are made by layers before it."""
    shapes = {**item.layer.parameters(), **item.layer.buffers()}
    computed = computed_weights(prepared.network, item.node)
    weights = {key: tensors[name].reshape(shapes[key]) for key, name in computed.items()}
    fixed = prepared.weights_of(item.node.name)
    return compute_layer(item, inputs[: len(inputs) - len(computed)], {**fixed, **weights})


def _compute_step(step: Step | Replay, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """The outputs of layers that run as one; an error names the layer."""
    # Overflow to inf and inf - inf are answers here; NumPy's warnings would add nothing to them.
    with np.errstate(all="ignore"):
        return step.run(inputs)


def compute_layer(item: Resolved, inputs: tuple[Array, ...], weights: Mapping[str, Array]) -> tuple[Array, ...]:
    """One layer's outputs; an error names the layer."""
    return _compute_step(Step((item,), lambda given: computing(item)(given, weights)), inputs)


def flipped(prepared: Prepared) -> Prepared:
    """The same with every kernel turned by 180 degrees."""
    refuse_decided(prepared.network, "with turned kernels they would be others")
    weights = dict(prepared.weights)
    for item in prepared.resolved:
        if item.layer.kind in WINDOWED:
            key = f"{item.node.name}.weight"
            weights[key] = np.flip(weights[key], axis=tuple(range(2, weights[key].ndim)))
    return replace(prepared, weights=weights)
