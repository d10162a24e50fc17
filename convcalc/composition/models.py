"""Merging the layers of an ONNX file, and writing the file anew: what is not touched stays as it is, byte for byte.

Only what changes no output is merged. A merged layer stands in the place of the last of its layers, gives the tensor
of the same name, and has the name of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convcalc.analysis.fields import Window, axes_of
from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import Resolved, View, label, located, resolve
from convcalc.composition.geometry import JOINS, START, Link
from convcalc.composition.merging import Made, Merger, total, weights_of
from convcalc.errors import ConvcalcError, ModelFileError, ShapeError
from convcalc.files import write_whole
from convcalc.network import Network
from convcalc.onnx_wire import DATA_TYPES, Graph, Message, Model, Node, read_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_COLUMNS = (
    Column("was_params", "Params before"),
    Column("params", "Params"),
    Column("was_macs", "MACs before"),
    Column("macs", "MACs"),
)
_OPS = ("Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Gemm", "Identity", "Mul")
"""The ops that are merged."""
_FLOATS = {"float16": 10, "float32": 1, "float64": 11}
"""The types that are merged, and their numbers in ONNX."""


def merge_model(path: Path, name: str, network: Network, target: str | None = None, *, always: bool = False) -> Report:
    """Merge the layers of the ONNX file that the network was read from, and write the result to `target`.

    What pays is merged: what needs no more MACs than before, nor more operations where MACs are the same; with
    `always` all that can be. Weights are computed in float64 and written in the type that they had. Raises
    `ModelFileError` when the target is the file itself or cannot be written, `ShapeError` for weights that are not
    finite.
    """
    if target is not None and Path(target).resolve() == path.resolve():
        raise ModelFileError(f"-o {target} is the model itself; give another name")
    model = read_model(path, name)
    assert model.graph is not None
    resolved = resolve(network, partial=True)
    links = [_link(item, network) for item in resolved]
    wires = {node.outputs[0]: index for index, node in enumerate(model.graph.nodes) if node.outputs}
    merger = _merger(network, model.graph, links, wires, pays=not always)
    made = merger.merge()
    merged = [each for each in made if each.merges]
    if target is not None:
        content = _written(model, network, merged, merger, wires, Path(target))
        write_whole(target, content)
    return _report(network, resolved, made, merger, target)


def _link(item: Resolved, network: Network) -> Link:
    """A layer with what it does along the axes, as far as that is known."""
    place, data = next(
        ((index, name) for index, name in enumerate(item.node.inputs) if name not in network.constants), (0, "")
    )
    shape = item.inputs[place] if item.inputs and data else ()
    rank = max(len(shape) - 2, 0)
    axes = None
    if rank and not item.unknown:
        try:
            axes = axes_of(item.layer, rank, shape, item.outputs[0])
        except ConvcalcError:
            axes = [Window()] * rank if item.layer.kind in JOINS else None
    ends = (START,) * rank
    return Link(item, shape[1] if len(shape) > 1 else 1, axes, ends, ends, ())


def _merger(network: Network, graph: Graph, links: Sequence[Link], wires: Mapping[str, int], *, pays: bool) -> Merger:
    shapes = {name: given.shape for name, given in network.inputs.items()}
    for link in links:
        shapes.update(zip(link.item.node.outputs, link.item.outputs, strict=False))
    inner = set(_inner_names(graph))

    def allowed(item: Resolved) -> bool:
        node, layer = item.node, item.layer
        index = wires.get(node.outputs[0])
        if index is None or item.unknown or node.op not in _OPS:
            return False
        wire = graph.nodes[index]
        # One node of the file is one layer, and what it takes is its own.
        if wire.op_type != node.op or not set(node.inputs) <= set(wire.inputs):
            return False
        tensors = [*node.inputs, *node.outputs, *node.weights.values()]
        if any(network.dtypes.get(tensor, "float32") not in _FLOATS for tensor in tensors):
            return False
        if any(tensor not in network.constants for tensor in node.weights.values()):
            return False
        if isinstance(getattr(layer, "padding", None), str) and set(getattr(layer, "stride", (1,))) != {1}:
            return False  # this padding is another one for inputs of another size
        return not (node.op == "AveragePool" and getattr(layer, "ceil_mode", False))

    return Merger(
        links,
        tuple(network.inputs),
        (*network.outputs, *(name for name in shapes if name in inner)),
        shapes=shapes,
        grids=lambda name: Fraction(1),
        constants=network.constants,
        pays=pays,
        exact=True,
        allowed=allowed,
    )


def _inner_names(graph: Graph) -> Iterator[str]:
    """The tensors that branches and loops take, whatever graph they are of."""
    for node in graph.nodes:
        for attribute in node.attributes.values() if _has_graphs(node) else ():
            held = attribute.value
            for inner in held if isinstance(held, list) else [held]:
                if isinstance(inner, Graph):
                    for each in inner.nodes:
                        yield from each.inputs
                    yield from (info.name for info in inner.outputs)
                    yield from _inner_names(inner)


def _has_graphs(node: Node) -> bool:
    return node.op_type in ("If", "Loop", "Scan") or node.domain not in ("", "ai.onnx")


# --- the report -----------------------------------------------------------------------------------------------------


def _report(
    network: Network, resolved: Sequence[Resolved], made: Sequence[Made], merger: Merger, target: str | None
) -> Report:
    """A row for each merged layer; the totals are of the whole model, before and after."""
    view = View(network, list(resolved))
    rows = []
    macs = {item.node.name: merger.costs[item.node.name].macs for item in resolved if item.inputs}
    for each in made:
        if not each.merges:
            continue
        shapes = merger.shapes
        values: dict[str, Value] = {
            "was_params": total([weights_of(item.layer, bias=True) for item in each.merged]),
            "params": weights_of(each.node.layer, bias=True),
            "was_macs": each.was[1],
            "macs": each.macs,
        }
        source = each.map.source if each.map is not None else ""
        rows.append(Row(each.names, each.node.layer.kind, each.expression, (view(shapes[source]),),
                        (view(shapes[each.output]),), values))  # fmt: skip
    kept = [each.kept for each in made if each.kept is not None]
    merged = [row.values for row in rows]
    totals: dict[str, Value] = {
        "layers_before": len(resolved),
        "layers": len(made),
        "was_params": _params(resolved),
        "was_macs": sum(macs.values()),
        "params": total([_params(kept) + _left_over(kept, network), *(values["params"] for values in merged)]),
        "macs": total([sum(macs.get(item.node.name, 0) for item in kept), *(values["macs"] for values in merged)]),
    }
    said = f"{len(rows)} merged {'layer takes' if len(rows) == 1 else 'layers take'} the place of"
    said += (
        f" {sum(len(each.merged) for each in made if each.merges)}: {len(resolved)} layers before, {len(made)} after"
    )
    notes = [said if rows else "nothing merges without changing an output or costing more"]
    if target is not None:
        notes.append(f"written to {target}")
    notes += [
        f"{label(link.item.node)} does not merge with what comes before it: {reason}"
        for link in merger.links
        if (reason := merger.stops.get(link.item.node.name)) and link.item.layer.kind not in JOINS
    ]
    diagnostics = [Diagnostic("note", note) for note in notes]
    diagnostics += [Diagnostic("warning", text) for text in network.warnings]
    partial = frozenset({"params", "macs", "was_params", "was_macs"} if any(item.unknown for item in resolved) else ())
    return Report("compose", _COLUMNS, tuple(rows), totals, len(made), tuple(diagnostics), partial=partial)


def _params(items: Sequence[Resolved]) -> int:
    """Parameters as the file has them, each once."""
    from convcalc.tracing import product

    return sum(int(product(shape)) for item in items for shape in (item.parameters or {}).values())


def _left_over(kept: Sequence[Resolved], network: Network) -> int:
    """Parameters that layers which stay share with one that does not, at which they were counted."""
    from convcalc.tracing import product

    counted = {item.node.weights[name] for item in kept for name in item.node.weights if name not in item.shared}
    found = 0
    for item in kept:
        for name in item.shared:
            tensor = item.node.weights.get(name, "")
            constant = network.constants.get(tensor)
            if constant is not None and constant.parameter and tensor not in counted:
                counted.add(tensor)
                found += int(product(constant.shape))
    return found


# --- writing --------------------------------------------------------------------------------------------------------

_NODE, _INITIALIZER, _GRAPH_INPUT, _VALUE_INFO, _GRAPH = 1, 5, 11, 13, 7
"""The numbers of fields in a graph, and of the graph in a model."""
_WITHOUT_INPUTS = 4
"""From this version of the format on initializers need not be among the graph's inputs."""


def _written(
    model: Model, network: Network, merged: Sequence[Made], merger: Merger, wires: Mapping[str, int], target: Path
) -> bytes:
    """The bytes of the file with these layers in it."""
    graph = model.graph
    assert graph is not None
    _refuse_external(model, graph, target)
    kept = {each.kept.node.name for each in merger.made if each.kept is not None}
    gone = {item.node for each in merged for item in each.map.nodes if each.map and item.node.name not in kept}  # type: ignore[union-attr]  # merged ones have a map
    dropped = {wires[node.outputs[0]] for node in gone}
    names = _Names(graph)
    new_nodes: dict[int, bytes] = {}
    tensors: list[bytes] = []
    infos: list[bytes] = []
    for each in merged:
        node, weights = _node(each, network, names, graph, wires)
        new_nodes[wires[each.output]] = node
        for tensor, array in weights.items():
            tensors.append(_tensor(tensor, array))
            infos.append(_info(tensor, array))
    used = {name for index, node in enumerate(graph.nodes) if index not in dropped for name in node.inputs}
    used.update(_inner_names(graph), (info.name for info in graph.outputs))
    unused = {tensor.name for tensor in graph.initializers} - used
    # What nothing took before is not ours to drop.
    unused &= {name for index in dropped for name in graph.nodes[index].inputs}
    lost = {name for index in dropped for name in graph.nodes[index].outputs} - {each.output for each in merged}
    parts: list[bytes] = []
    places = dict.fromkeys((_NODE, _INITIALIZER, _GRAPH_INPUT, _VALUE_INFO), -1)
    lists: dict[int, list[Any]] = {
        _INITIALIZER: graph.initializers, _GRAPH_INPUT: graph.inputs, _VALUE_INFO: graph.value_infos
    }  # fmt: skip
    for number, raw in _raw_fields(graph):
        if number in places:
            places[number] += 1
            place = places[number]
            if number == _NODE:
                if place in new_nodes:
                    parts.append(_field(_NODE, new_nodes[place]))
                    continue
                if place in dropped:
                    continue
            elif lists[number][place].name in (lost if number == _VALUE_INFO else unused):
                continue
        parts.append(raw)
    parts += [_field(_INITIALIZER, tensor) for tensor in tensors]
    if model.ir_version < _WITHOUT_INPUTS:
        parts += [_field(_GRAPH_INPUT, info) for info in infos]
    body = b"".join(parts)
    return b"".join(_field(_GRAPH, body) if number == _GRAPH else raw for number, raw in _raw_fields(model))


def _raw_fields(message: Message) -> Iterator[tuple[int, bytes]]:
    """Each field of a message: its number and its bytes, tag included."""
    file = message.file
    fields = [(number, place) for number, _, _, _, place in file.fields(message.start, message.end)]
    ends = [place for _, place in fields[1:]] + [message.end]
    for (number, place), end in zip(fields, ends, strict=True):
        yield number, file.bytes_of(place, end)


def _refuse_external(model: Model, graph: Graph, target: Path) -> None:
    folder = model.file.folder
    if any(tensor.external for tensor in graph.initializers) and (
        folder is None or folder.resolve() != target.resolve().parent
    ):
        raise ModelFileError(f"-o {target}: weights are in files beside {model.file.name}; write into the same folder")


class _Names:
    """Names of tensors that are not taken yet."""

    def __init__(self, graph: Graph) -> None:
        self.taken = {tensor.name for tensor in graph.initializers} | {info.name for info in graph.inputs}
        for node in graph.nodes:
            self.taken.update(node.inputs, node.outputs)
        self.taken.update(_inner_names(graph))

    def new(self, wanted: str) -> str:
        """The name wanted, with a number if it is taken."""
        name, count = wanted, 1
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.taken.add(name)
        return name


def _node(
    each: Made, network: Network, names: _Names, graph: Graph, wires: Mapping[str, int]
) -> tuple[bytes, dict[str, Array]]:
    """The node of a merged layer, and its weights by the name of the tensor."""
    import numpy as np

    assert each.map is not None
    layer: Any = each.node.layer
    dtype = network.dtypes.get(each.output, "float32")
    arrays = {}
    given = _given(each, network)
    for parameter, array in each.arrays(given).items():
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if not np.isfinite(cast).all():
            raise located(ShapeError(f"the merged {parameter} does not fit into {dtype}"), each.merged[0].node)
        arrays[parameter] = cast
    if "bias" not in arrays and layer.kind == "linear":
        arrays["bias"] = np.zeros(layer.bound[1], dtype)
    first = next((item.node for item in each.merged if item.node.weights), each.merged[0].node)
    wire = graph.nodes[wires[first.outputs[0]]]
    start = f"{first.weights.get('weight', first.name)}_merged"
    tensors = {names.new(start if key == "weight" else f"{start}_{key}"): array for key, array in arrays.items()}
    op = {"conv": "Conv", "convt": "ConvTranspose", "linear": "Gemm"}[layer.kind]
    parts = [_text(1, name) for name in (each.map.source, *tensors)]
    parts += [_text(2, each.output), _text(3, wire.name or first.name), _text(4, op)]
    parts += [_field(5, attribute) for attribute in _attributes(layer)]
    return b"".join(parts), tensors


def _given(each: Made, network: Network) -> dict[str, Array]:
    """The weights of the layers that merge, in float64. Raises `ShapeError` for one that is not finite."""
    import numpy as np

    given = {}
    for item in each.merged:
        for parameter, tensor in item.node.weights.items():
            array = np.asarray(network.constants[tensor].array())
            if not np.isfinite(array).all():
                raise located(
                    ShapeError(f"its {parameter} holds NaN or infinity, and merging would spread it"), item.node
                )
            given[f"{item.node.name}.{parameter}"] = array.astype(np.float64)
    return given


def _attributes(layer: Any) -> Iterator[bytes]:
    if layer.kind == "linear":
        yield _integer("transB", 1)
        return
    pads = layer.padding
    yield _integers("dilations", layer.dilation)
    yield _integer("group", layer.bound[2])
    yield _integers("kernel_shape", layer.kernel_size)
    yield _integers("pads", [pair[0] for pair in pads] + [pair[1] for pair in pads])
    yield _integers("strides", layer.stride)
    if layer.kind == "convt":
        yield _integers("output_padding", layer.output_padding)


# --- Protocol Buffers -----------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    """A number of up to 64 bits.

    >>> _varint(300)
    b'\\xac\\x02'
    """
    result = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)


def _field(number: int, content: bytes) -> bytes:
    """A field with a length."""
    return b"".join((_varint(number << 3 | 2), _varint(len(content)), content))


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _integer(name: str, value: int) -> bytes:
    """An attribute of one whole number."""
    return _text(1, name) + _number(3, value) + _number(20, 2)


def _integers(name: str, values: Sequence[int]) -> bytes:
    """An attribute of several whole numbers."""
    return _text(1, name) + b"".join(_number(8, value) for value in values) + _number(20, 7)


def _tensor(name: str, array: Array) -> bytes:
    """An initializer with its values as they are in memory, the lowest byte first."""
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, _type_of(array)) + _text(8, name) + _field(9, data)


def _type_of(array: Array) -> int:
    return next(number for number, (name, _) in DATA_TYPES.items() if name == array.dtype.name)


def _info(name: str, array: Array) -> bytes:
    """What a graph says of a tensor that comes in."""
    dims = b"".join(_field(1, _number(1, size)) for size in array.shape)
    return _text(1, name) + _field(2, _field(1, _number(1, _type_of(array)) + _field(2, dims)))
