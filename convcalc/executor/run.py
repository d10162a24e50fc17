"""Running a network on arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from convcalc.analysis.shapes import Resolved, View, located, resolve
from convcalc.analysis.unsaid import other_values, unsaid
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError, did_you_mean
from convcalc.executor.algorithms import forced, forced_name
from convcalc.executor.fusion import Step, can_join, joined_steps, single_steps
from convcalc.executor.kernels import Array, LayerWeights
from convcalc.executor.model import computed_weights, constants, fixed_weights, is_model, numbers, typed_inputs
from convcalc.executor.onnx_nodes import computing, refuse
from convcalc.executor.plan import need, plan
from convcalc.executor.replay import Replay, replays
from convcalc.executor.threads import in_a_row, thread_count, threads as using_threads
from convcalc.expressions import ONE_CHANNEL, LayerText, Program, expression_of, parse_text
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.layers.opaque import Opaque
from convcalc.limits import need_bytes
from convcalc.narrow import converted
from convcalc.network import Input, Network, no_input, no_such_layer
from convcalc.records import dataclass, field, replace
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.executor.onnx_running import RunningReader

GivenWeights = Mapping[str, npt.ArrayLike] | npt.ArrayLike
"""Weights by "name.parameter", such as "0.weight"; or one array, the first layer's weight."""
WINDOWED = ("conv", "convt")
"""The kinds whose weights are kernels."""


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
    _steps: dict[bool, list[Step]] = field(default_factory=dict, init=False)
    _computed: list[frozenset[str]] = field(default_factory=list, init=False)
    _replays: dict[tuple[int, str | None], list[Step | Replay] | None] = field(default_factory=dict, init=False)

    def shown(self, array: Array, name: str = "") -> Array:
        """An array (batch first, of most tensors) in the shape that people see."""
        shape = View(self.network, list(self.resolved))(array.shape, name)
        if self.drop_channels:
            rank = array.ndim - 2
            shape = (*shape[: len(shape) - rank - 1], *shape[len(shape) - rank :])
        return array.reshape(shape)

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
        if joined not in self._steps:
            self._steps[joined] = (
                joined_steps(self.network, self.resolved, self.weights_of)
                if joined
                else single_steps(self.resolved, self.weights_of)
            )
        return self._steps[joined]

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
            found = replays(plain, self.network.outputs, self._shapes(), self._dtype())
            self._replays[key] = found
        return found or plain

    def _dtype(self) -> np.dtype[Any]:
        return next(iter(self.inputs.values())).dtype

    def _shapes(self) -> dict[str, Shape]:
        """The shapes of the tensors that are of the inputs' type, weights and constants apart."""
        types, own = self.network.dtypes, str(self._dtype())
        shapes = {name: given.shape for name, given in self.network.inputs.items()}
        for item in self.resolved:
            made = zip(item.node.outputs, item.outputs, item.layer.output_dtypes(own), strict=False)
            shapes |= {name: shape for name, shape, kind in made if (kind or own) == own}
        return {name: shape for name, shape in shapes.items() if types.get(name, own) == own}


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
            from convcalc.onnx_file import OnnxModel

            if not isinstance(network, OnnxModel):
                raise ShapeError("a chain has one input; give one array")
            read = network.named_network({name: np.shape(array) for name, array in input.items()})
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
        network = _with_batch_of(network, arrays)
        given = _by_name(network, weights, bias)
    else:
        if isinstance(input, Mapping):
            raise ShapeError("a chain has one input; give one array")
        program = network if isinstance(network, Program) else _program(network)
        x = as_array(input, "the input")
        network, given, drop_channels = _settle(program, x, weights, bias)
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
    dtype = _float_type(arrays.values())
    need(plan(network, resolved, str(dtype)), _there((*arrays.values(), *given.values()), dtype))
    ready, drawn = _all_weights(resolved, given, dtype, seed)
    arrays, ready = same_floats(network, arrays, ready)
    if drawn:
        notes.append(_drawn_note(drawn, seed))
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
        from convcalc.onnx_file import OnnxModel

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
    if weights is not None and not isinstance(weights, Mapping):
        raise ShapeError("a model's file has its weights; give others by name, such as conv1.weight")
    arrays = typed_inputs(network, input_arrays(network, input, keep_types=True)) if network.inputs else {}
    network = _with_batch_of(network, arrays)
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
    missing, drawn = _all_weights([item for item in resolved if not item.node.weights], {}, dtype, seed)
    notes = [note for note in network.notes if note != ONE_CHANNEL]
    if drawn:
        notes.append(_drawn_note(drawn, seed))
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
    uses = Counter(name for step in todo for name in step.inputs) + Counter(prepared.network.outputs)
    # These are held as float32, and rounded when they are made.
    halves = {name for name, kind in prepared.network.dtypes.items() if kind == "bfloat16"}
    for step in todo:
        inputs = tuple(tensors[name] for name in step.inputs)
        if step.items[0].node.name in computed:
            outputs = with_computed_weights(prepared, step.items[0], inputs, tensors)
        else:
            outputs = _compute_step(step, inputs)
        if halves:
            outputs = tuple(
                converted(x, "bfloat16") if name in halves else x for name, x in zip(step.outputs, outputs, strict=True)
            )
        tensors.update(zip(step.outputs, outputs, strict=True))
        for name in (*step.inputs, *step.outputs):
            uses[name] -= name in step.inputs
            if uses[name] <= 0:
                tensors.pop(name, None)
        yield Computed(step.items, inputs, outputs, step.outputs)
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
    """The outputs of layers that run as one; an error names the first."""
    try:
        # Overflow to inf and inf - inf are answers here; NumPy's warnings would add nothing to them.
        with np.errstate(all="ignore"):
            return step.compute(inputs)
    except ConvcalcError as error:
        raise located(error, step.items[0].node) from None


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


# --- arrays that come in --------------------------------------------------------------------------------------------


def as_array(value: npt.ArrayLike, what: str) -> Array:
    """An array of whole numbers (int64) or floats. Raises `ShapeError` for what is neither.

    Half floats are computed with as float32, and whole numbers that int64 cannot hold as float64.
    """
    try:
        array: Array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{what} is not an array: its rows differ in length") from None
    if array.size == 0:
        raise ShapeError(f"{what} is empty")
    wanted: np.dtype[Any]
    if array.dtype.kind in "biu":
        wanted = np.dtype(np.int64 if array.dtype != np.uint64 or array.max() < 2**63 else np.float64)
    elif array.dtype.kind == "f":
        wanted = np.dtype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    else:
        raise ShapeError(f"{what} holds {array.dtype}, but must hold whole or floating-point numbers")
    if array.dtype == wanted:
        return array
    need_bytes(array.size * wanted.itemsize, f"{what} as {wanted}")
    return array.astype(wanted)


def _program(network: Layer | Sequence[Layer] | str) -> Program:
    if isinstance(network, Layer):
        network = [network]
    if not isinstance(network, str):
        network = " ".join(map(expression_of, network))
    return parse_text(network)


def input_arrays(
    network: Network, given: npt.ArrayLike | Mapping[str, npt.ArrayLike], *, keep_types: bool = False
) -> dict[str, Array]:
    if not network.inputs:
        raise no_input()
    named: Mapping[str, npt.ArrayLike]
    if isinstance(given, Mapping):
        named = given
    elif len(network.inputs) == 1:
        named = {next(iter(network.inputs)): given}
    else:
        raise ShapeError(
            f"the network has {len(network.inputs)} inputs, {', '.join(network.inputs)}: give each by name"
        )
    arrays = {}
    for name, wanted in network.inputs.items():
        if name not in named:
            raise ShapeError(f"the input {name} is missing")
        array = np.asarray(named[name]) if keep_types else as_array(named[name], f"the input {name}")
        fitting = _stretched(array, wanted.shape, batch_open=not wanted.batch_given)
        if fitting is None:
            raise ShapeError(f"the input {name} is {shape_text(array.shape)}, but the network takes {_taken(wanted)}")
        arrays[name] = fitting
    return arrays


def _taken(wanted: Any) -> str:
    return shape_text(wanted.shape if wanted.batch_given else wanted.shape[1:])


def _stretched(array: Array, shape: Shape, *, batch_open: bool) -> Array | None:
    """The array with the leading axes of size 1 that are left out, or None if it is not of this shape."""
    missing = len(shape) - array.ndim
    if missing >= 0 and shape[missing:] == array.shape and set(shape[:missing]) <= {1}:
        return array.reshape(shape)
    return array if batch_open and not missing and array.shape[1:] == shape[1:] else None


def _with_batch_of(network: Network, arrays: Mapping[str, Array]) -> Network:
    inputs = {
        name: replace(given, shape=arrays[name].shape, batch_given=True) if arrays[name].shape != given.shape else given
        for name, given in network.inputs.items()
    }
    return replace(network, inputs=inputs)


# --- what the weights decide ----------------------------------------------------------------------------------------

_FIRST_AXES = {"conv": 2, "convt": 2, "linear": 2}
"""How many axes a weight has besides the kernel's own, for the kinds that one bare array can be the weight of."""


def _settle(
    program: Program, x: Array, weights: GivenWeights | None, bias: npt.ArrayLike | None
) -> tuple[Network, dict[str, Array], bool]:
    """The network of a program for this input and these weights, and the weights by name."""
    program = _copy(program)
    names = _names(program)
    given: dict[str, Array] = {}
    bare = None
    if isinstance(weights, Mapping):
        given = {key: as_array(value, f"weight {key}") for key, value in weights.items()}
    elif weights is not None:
        bare = as_array(weights, "the weight")
    first = next((name for name, item in names.items() if item.kind.name in _FIRST_AXES), None)
    if first is None and (bare is not None or bias is not None):
        raise ShapeError(f"no layer has a weight: {', '.join(item.kind.name for item in program.layers)}")
    rank = _rank(program, x, bare)
    for item in program.layers:
        if item.kind.ranked and item.implied_rank is None:
            item.rank = rank
    drop = False
    if bare is not None and first is not None:
        channels = _network(program, x).inputs["input"].shape[1]
        missing = _missing_axes(names[first], rank, bare)
        drop = missing == 1 and len(program.layers) == 1 and names[first].kind.name == "conv"
        given[f"{first}.weight"] = _completed(names[first], bare, missing, channels)
    if bias is not None and first is not None:
        given[f"{first}.bias"] = as_array(bias, "the bias").reshape(-1)
    for name, item in names.items():
        if f"{name}.weight" in given:
            _take_sizes(item, given[f"{name}.weight"], with_bias=f"{name}.bias" in given)
    network = _network(program, x)
    if bias is not None and first is not None and given[f"{first}.bias"].size == 1:
        given[f"{first}.bias"] = np.repeat(given[f"{first}.bias"], _bias_size(network, first))
    return network, given, drop and network.nodes[0].layer.out_channels == 1  # type: ignore[attr-defined]  # a conv


def _network(program: Program, x: Array) -> Network:
    """The network on an array. One axis is a row of numbers, where a shape of one number would be every side."""
    network = program.network(x.shape)
    if x.ndim > 1:
        return network
    if not any(item.kind.ranked for item in program.layers):
        return replace(network, inputs={"input": Input((1, *x.shape), batch_given=False)})
    return network if product(network.inputs["input"].shape) == x.size else program.network((1, *x.shape))


def _copy(program: Program) -> Program:
    """The program with layers that can be filled in, and a convolution if it has none."""
    copies = {id(item): item for item in program.items}
    for item in program.layers:
        copied = copies[id(item)] = copy(item)
        copied.fields = dict(item.fields)
    copied_program = copy(program)
    copied_program.items = [copies[id(item)] for item in program.items]
    if not program.layers:
        copied_program.items += parse_text("conv").layers
    return copied_program


def _bias_size(network: Network, name: str) -> int:
    layer = next(item.layer for item in resolve(network) if item.node.name == name)
    return int(product(layer.parameters().get("bias", (1,))))


def _names(program: Program) -> dict[str, LayerText]:
    """The layers by the names that their nodes will have; of a name given twice, the first."""
    result: dict[str, LayerText] = {}
    for index, item in enumerate(program.layers):
        result.setdefault(item.name or str(index), item)
    return result


def _rank(program: Program, x: Array, bare: Array | None) -> int:
    """The spatial axes of layers whose text leaves them open: the input decides, or else a weight of five axes."""
    fixed = program.rank()
    if fixed is not None:
        return fixed
    if x.ndim == 1:
        return 1
    if bare is not None and bare.ndim == 5:
        return 3
    return program.read_input(x.shape)[0]


def _missing_axes(item: LayerText, rank: int, bare: Array) -> int:
    """How many leading axes a bare weight leaves out. Raises `ShapeError` when it has too many."""
    full = 2 + (rank if item.kind.name in WINDOWED else 0)
    if bare.ndim > full:
        raise ShapeError(
            f"the weight {shape_text(bare.shape)} has {bare.ndim} axes, but {item.kind.name} takes at most {full}"
        )
    return full - bare.ndim


def _completed(item: LayerText, bare: Array, missing: int, channels: int) -> Array:
    """A bare weight with its leading axes; a kernel without channels is for every channel of its own."""
    weight = bare.reshape((1,) * missing + bare.shape)
    open_ = not {"groups", "out_channels"} & set(item.fields)
    if item.kind.name in WINDOWED and missing >= 2 and channels > 1 and open_:
        item.fields["groups"] = channels
        weight = np.repeat(weight, channels, axis=0)
    return weight


def _take_sizes(item: LayerText, weight: Array, *, with_bias: bool) -> None:
    """Fill the fields that the expression leaves open and the weight decides."""
    kind = item.kind.name
    if kind not in _FIRST_AXES or weight.ndim < 2:
        return
    groups = item.fields.get("groups", 1)
    if kind == "linear":
        decided: dict[str, Any] = {"out_features": weight.shape[0]}
    else:
        decided = {"kernel_size": weight.shape[2:]} if weight.ndim > 2 else {}
        if kind == "conv":
            decided["out_channels"] = weight.shape[0]
        elif isinstance(groups, int):
            decided["out_channels"] = weight.shape[1] * groups
    decided["bias"] = with_bias
    for name, value in decided.items():
        item.fields.setdefault(name, value)


# --- weights --------------------------------------------------------------------------------------------------------


def _by_name(network: Network, weights: GivenWeights | None, bias: npt.ArrayLike | None) -> dict[str, Array]:
    given: dict[str, Array] = {}
    if isinstance(weights, Mapping):
        given = {key: as_array(value, f"weight {key}") for key, value in weights.items()}
        # An attention that is printed is several layers; the first has PyTorch's in_proj_weight and in_proj_bias.
        names = {node.name for node in network.nodes}
        for key in [key for key in given if key.rpartition("in_proj_")[0] + "in_proj" in names]:
            given[key.replace("in_proj_", "in_proj.")] = given.pop(key)
    elif weights is not None or bias is not None:
        first = next((item for item in resolve(network) if "weight" in item.layer.parameters()), None)
        if first is None:
            raise ShapeError("no layer has a weight")
        if weights is not None:
            array = as_array(weights, "the weight")
            wanted = first.layer.parameters()["weight"]
            given[f"{first.node.name}.weight"] = array.reshape((1,) * (len(wanted) - array.ndim) + array.shape)
        if bias is not None:
            given[f"{first.node.name}.bias"] = as_array(bias, "the bias").reshape(-1)
    return given


def _all_weights(
    resolved: Sequence[Resolved], given: Mapping[str, Array], dtype: npt.DTypeLike, seed: int
) -> tuple[dict[str, Array], list[str]]:
    """Every weight by name: as given, else the usual start. Also the layers whose weights were drawn at random."""
    result: dict[str, Array] = {}
    drawn = []
    for item in resolved:
        name = item.node.name
        shapes = {**item.layer.parameters(), **item.layer.buffers()}
        has_weight = f"{name}.weight" in given
        for parameter, shape in shapes.items():
            key = f"{name}.{parameter}"
            if item.node.shares:
                result[key] = result[f"{item.node.shares}.{parameter}"]
            elif key in given:
                if given[key].shape != shape:
                    error = ShapeError(
                        f"{parameter} is {shape_text(given[key].shape) or 'one number'}, but must be"
                        f" {shape_text(shape)}",
                        field=parameter,
                        value=given[key].shape,
                    )
                    raise located(error, item.node)
                result[key] = given[key]
            elif parameter == "bias" and has_weight:
                result[key] = np.zeros(shape, dtype)
            else:
                result[key], random = _start(item.layer, parameter, shape, dtype, seed, key)
                if random and name not in drawn:
                    drawn.append(name)
    unknown = [key for key in given if key not in result and not key.endswith(".num_batches_tracked")]
    if unknown:
        raise ShapeError(
            f"no layer has a weight {unknown[0]}{did_you_mean(unknown[0], result)}"
            + ("" if did_you_mean(unknown[0], result) else f"; the weights are {', '.join(list(result)[:6]) or 'none'}")
        )
    return result, drawn


def _bound_of_rows(layer: Any, shape: Shape) -> float:
    return 1 / sqrt(max(product(layer.parameters()["weight"][1:]), 1))


def _bound_of_states(layer: Any, shape: Shape) -> float:
    return 1 / sqrt(layer.hidden_size)


def _bound_of_projections(layer: Any, shape: Shape) -> float:
    # Weights by Xavier's rule; biases begin as 0.
    return sqrt(6 / sum(shape)) if len(shape) > 1 else 0.0


_BOUNDS = {
    **dict.fromkeys(_FIRST_AXES, _bound_of_rows),
    **dict.fromkeys(("lstm", "gru", "rnn"), _bound_of_states),
    "multiheadattention": _bound_of_projections,
}
"""Within which bounds PyTorch draws the parameters of a kind, uniformly."""


_MOST_NAMES = 6
"""How many layers a note names."""


def _drawn_note(names: Sequence[str], seed: int) -> str:
    said = ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )
    return f"the weights of {said} are random, drawn from seed {seed}"


def _start(layer: Layer, parameter: str, shape: Shape, dtype: npt.DTypeLike, seed: int, key: str) -> tuple[Array, bool]:
    """What PyTorch starts this parameter with, and whether that is random."""
    if layer.kind in _BOUNDS:
        bound = _BOUNDS[layer.kind](layer, shape)
        # Each has a stream of its own, so that another layer before it changes nothing.
        stream = np.random.default_rng((seed, crc32(key.encode())))
        return stream.uniform(-bound, bound, shape).astype(dtype), True
    if layer.kind == "prelu":
        return np.full(shape, getattr(layer, "init", 0.25), dtype), False
    value = 1 if parameter in ("weight", "running_var") else 0
    return np.full(shape, value, dtype), False


def _there(arrays: Iterable[Array], dtype: npt.DTypeLike) -> int:
    """The bytes of those arrays that are computed with as they are; of all others there will be a copy."""
    return sum(array.nbytes for array in arrays if array.dtype == dtype)


def _float_type(arrays: Any) -> npt.DTypeLike:
    floating = [array.dtype for array in arrays if array.dtype.kind == "f"]
    return np.result_type(*floating) if floating else np.dtype(np.float64)


def same_floats(
    network: Network, inputs: Mapping[str, Array], weights: Mapping[str, Array], *, whole: bool = True
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Arrays of one type: whole numbers stay whole when all that is given is (and `whole`), else all become floats.

    What comes in decides which floats: float32 stays float32 even when weights come as float64. What only names rows of
    tables stays as it is.
    """
    counted = {name for node in network.nodes if node.layer.kind != "embedding" for name in node.inputs}
    numbers = [array for name, array in inputs.items() if name in counted]
    everything = [*numbers, *weights.values()]
    if whole and all(array.dtype.kind != "f" for array in everything):
        return dict(inputs), dict(weights)
    dtype = _float_type(numbers if any(x.dtype.kind == "f" for x in numbers) else everything)
    return (
        {name: array.astype(dtype, copy=False) if name in counted else array for name, array in inputs.items()},
        {name: array.astype(dtype, copy=False) for name, array in weights.items()},
    )
