"""Writing an ONNX file anew with other nodes in it: every byte that is not theirs stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convcalc.errors import ModelFileError
from convcalc.onnx.messages import Graph, Model, Node
from convcalc.onnx.tensors import DATA_TYPES, Tensor
from convcalc.onnx.wire import Message
from convcalc.records import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NODE, _INITIALIZER, _GRAPH_INPUT, _VALUE_INFO, _GRAPH = 1, 5, 11, 13, 7
"""The numbers of fields in a graph, and of the graph in a model."""
WITHOUT_INPUTS = 4
"""From this version of the format on initializers need not be among the graph's inputs, and those that are may be
given from outside."""
_MOST_BYTES = 1 << 31
"""A message of Protocol Buffers is smaller."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """Nodes, as bytes, and their weights, that take the places of others, the last of which is at `place`.

    They take one tensor and give one.
    """

    place: int
    nodes: Sequence[bytes]
    tensors: Mapping[str, Array]
    takes: str
    gives: str


def rewritten(model: Model, replacements: Sequence[Replacement], dropped: set[int], target: Path | None) -> bytes:
    """The bytes of the file with these nodes in it, without those at the places `dropped`.

    Weights and constants that only they took go too. Raises `ModelFileError` for a `target` that cannot reach the files
    in which weights are.
    """
    graph = model.graph
    assert graph is not None
    always = {*inner_names(graph), *(info.name for info in graph.outputs), *(each.takes for each in replacements)}
    dropped = dropped | _left_alone(graph, dropped, always)
    used = always | {name for index, node in enumerate(graph.nodes) if index not in dropped for name in node.inputs}
    # What nothing took before is not ours to drop.
    unused = {name for index in dropped for name in graph.nodes[index].inputs} - used
    lost = {name for index in dropped for name in graph.nodes[index].outputs} - {each.gives for each in replacements}
    if target is not None:
        _need_same_folder(model, unused, target)
    new = {each.place: each.nodes for each in replacements}
    tensors = {name: array for each in replacements for name, array in each.tensors.items()}
    gone: dict[int, tuple[Sequence[Any], set[str]]] = {
        _INITIALIZER: (graph.initializers, unused),
        _GRAPH_INPUT: (graph.inputs, unused & {tensor.name for tensor in graph.initializers}),
        _VALUE_INFO: (graph.value_infos, lost),
    }
    places = dict.fromkeys((_NODE, *gone), -1)
    parts: list[bytes] = []
    for number, raw in _raw_fields(graph):
        if number in places:
            places[number] += 1
            place = places[number]
            if number == _NODE and place in new:
                parts += [field_bytes(_NODE, node) for node in new[place]]
                continue
            if place in dropped if number == _NODE else gone[number][0][place].name in gone[number][1]:
                continue
        parts.append(raw)
    parts += [field_bytes(_INITIALIZER, _tensor(name, array)) for name, array in tensors.items()]
    if model.ir_version < WITHOUT_INPUTS:
        parts += [field_bytes(_GRAPH_INPUT, _info(name, array)) for name, array in tensors.items()]
    body = b"".join(parts)
    content = b"".join(field_bytes(_GRAPH, body) if number == _GRAPH else raw for number, raw in _raw_fields(model))
    if len(content) >= _MOST_BYTES:
        raise ModelFileError(f"the merged file would have {len(content)} bytes, but ONNX files end at 2 GiB")
    return content


def _left_alone(graph: Graph, dropped: set[int], kept: set[str]) -> set[int]:
    """Nodes that make constants, and that nothing takes once others are gone."""
    makers = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs
              if node.op_type in ("Constant", "Identity")}  # fmt: skip
    found: set[int] = set()
    while True:
        gone = dropped | found
        taken = kept | {name for index, node in enumerate(graph.nodes) if index not in gone for name in node.inputs}
        more = {makers[name] for index in gone for name in graph.nodes[index].inputs if name in makers} - gone
        more = {index for index in more if taken.isdisjoint(graph.nodes[index].outputs)}
        if not more:
            return found
        found |= more


def inner_names(graph: Graph) -> Iterator[str]:
    """The tensors that branches and loops take, whatever graph they are of."""
    for node in graph.nodes:
        for inner in inner_graphs(node):
            for each in inner.nodes:
                yield from each.inputs
            yield from (info.name for info in inner.outputs)
            yield from inner_names(inner)


def inner_graphs(node: Node) -> Iterator[Graph]:
    """The graphs that a node holds."""
    if node.op_type in ("If", "Loop", "Scan") or node.domain not in ("", "ai.onnx"):
        for attribute in node.attributes.values():
            held = attribute.value
            yield from (each for each in (held if isinstance(held, list) else [held]) if isinstance(each, Graph))


def external_tensors(graph: Graph) -> Iterator[Tensor]:
    """The tensors whose values are in other files."""
    for node in graph.nodes:
        for inner in inner_graphs(node):
            yield from external_tensors(inner)
        if node.op_type == "Constant":
            values = (attribute.value for attribute in node.attributes.values())
            yield from (value for value in values if isinstance(value, Tensor) and value.external)
    yield from (tensor for tensor in graph.initializers if tensor.external)


def refuse_own_files(model: Model, path: Path, target: str) -> None:
    """Raise `ModelFileError` when the target is the model, by whatever name, or a file that holds its weights."""
    folder, graph = model.file.folder, model.graph
    held = {entry.value for tensor in external_tensors(graph) for entry in tensor.external_data
            if entry.key == "location"} if graph is not None and folder is not None else ()  # fmt: skip
    for own, what in ((path, "the model itself"), *((path.parent / name, "where its weights are") for name in held)):
        if own.exists() and Path(target).exists() and own.samefile(target):
            raise ModelFileError(f"-o {target} is {what}; give another name")


def _need_same_folder(model: Model, unused: set[str], target: Path) -> None:
    folder, graph = model.file.folder, model.graph
    assert graph is not None
    stays = any(tensor.name not in unused for tensor in external_tensors(graph))
    if stays and (folder is None or folder.resolve() != target.resolve().parent):
        raise ModelFileError(f"-o {target}: weights are in files beside {model.file.name}; write into the same folder")


def _raw_fields(message: Message) -> Iterator[tuple[int, bytes]]:
    """Each field of a message: its number and its bytes, tag included."""
    file = message.file
    fields = [(number, place) for number, _, _, _, place in file.fields(message.start, message.end)]
    ends = [place for _, place in fields[1:]] + [message.end]
    for (number, place), end in zip(fields, ends, strict=True):
        yield number, file.bytes_of(place, end)


class Names:
    """Names that are not taken yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    @classmethod
    def of_tensors(cls, graph: Graph) -> Names:
        """Those of a graph's tensors."""
        names = cls(tensor.name for tensor in graph.initializers)
        names.taken.update(info.name for info in graph.inputs)
        for node in graph.nodes:
            names.taken.update(node.inputs, node.outputs)
        names.taken.update(inner_names(graph))
        return names

    def new(self, wanted: str) -> str:
        """The name wanted, with a number if it is taken."""
        name, count = wanted, 1
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.taken.add(name)
        return name


def node_bytes(
    op: str, inputs: Sequence[str], output: str, name: str, attributes: Mapping[str, int | Sequence[int]]
) -> bytes:
    """A node with one output."""
    parts = [_text(1, each) for each in inputs]
    parts += [_text(2, output), _text(3, name), _text(4, op)]
    parts += [
        field_bytes(5, _integer(key, value) if isinstance(value, int) else _integers(key, value))
        for key, value in attributes.items()
    ]
    return b"".join(parts)


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


def field_bytes(number: int, content: bytes) -> bytes:
    """A field with a length."""
    return b"".join((_varint(number << 3 | 2), _varint(len(content)), content))


def _text(number: int, text: str) -> bytes:
    return field_bytes(number, text.encode())


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
    return dims + _number(2, _type_of(array)) + _text(8, name) + field_bytes(9, data)


def _type_of(array: Array) -> int:
    return next(number for number, (name, _) in DATA_TYPES.items() if name == array.dtype.name)


def _info(name: str, array: Array) -> bytes:
    """What a graph says of a tensor that comes in."""
    dims = b"".join(field_bytes(1, _number(1, size)) for size in array.shape)
    return _text(1, name) + field_bytes(2, field_bytes(1, _number(1, _type_of(array)) + field_bytes(2, dims)))
