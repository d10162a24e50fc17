"""Merging the layers of an ONNX file, and writing the file anew: what is not touched stays as it is, byte for byte.

Only what changes no output is merged. A merged layer stands in the place of the last of its layers, gives the tensor
of the same name, and has the name of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convcalc.analysis.fields import Window, axes_of
from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import Resolved, View, label, located, resolve
from convcalc.composition.geometry import JOINS, START, Link
from convcalc.composition.maps import Matrix
from convcalc.composition.merging import Made, Merger, total, weights_of
from convcalc.composition.onnx_writing import (
    WITHOUT_INPUTS,
    Names,
    Replacement,
    inner_graphs,
    inner_names,
    node_bytes,
    refuse_own_files,
    rewritten,
)
from convcalc.composition.pieces import VIEWS
from convcalc.errors import ConvcalcError, ShapeError
from convcalc.files import write_whole
from convcalc.network import Network, Node
from convcalc.onnx.messages import Graph, Model, read_model
from convcalc.tracing import product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_COLUMNS = (
    Column("count", "Layers merged", total=False),
    Column("was_params", "Params before", wide=True),
    Column("params", "Params"),
    Column("was_macs", "MACs before", wide=True),
    Column("macs", "MACs"),
)
_WEIGHTED = ("BatchNormalization", "Conv", "ConvTranspose", "Gemm")
_OPS = (*_WEIGHTED, "Add", "AveragePool", "Concat", "Div", "Dropout", "Flatten", "Identity", "MatMul", "Mul", "Neg",
        "Pad", "Reshape", "Resize", "Squeeze", "Sub", "Sum", "Upsample")  # fmt: skip
"""The ops that are merged; the first of them have weights."""
_FLOATS = ("float16", "float32", "float64")
"""The types that are merged."""


def merge_model(
    path: Path,
    name: str,
    network: Network,
    target: str | None = None,
    *,
    always: bool = False,
    verify: bool = False,
    seed: int = 0,
) -> Report:
    """Merge the layers of the ONNX file that the network was read from, and write the result to `target`.

    What pays is merged: what needs no more MACs than before, nor more operations where MACs are the same; with
    `always` all that can be. Weights are computed in float64 and written in the type that they had. `verify` runs both
    models on random numbers of this seed before anything is written, and puts the largest difference into the totals.
    Raises `ModelFileError` when the target is the file itself or cannot be written, `ShapeError` for weights that are
    not finite.
    """
    model = read_model(path, name)
    assert model.graph is not None
    if target is not None:
        refuse_own_files(model, path, target)
    resolved = resolve(network, partial=True)
    links = [_link(item, network) for item in resolved]
    file = _File(model, model.graph, network)
    merger = file.merger(links, pays=not always)
    made = merger.merge()
    totals: dict[str, Value] = {}
    notes = [*_stay_notes(merger), *file.notes()]
    if target is not None or verify:
        content = file.merged(made, None if target is None else Path(target))
        if verify:
            from convcalc.composition.verification import models_apart

            totals, said = models_apart(network, content, name, path, seed)
            notes += said
        if target is not None:
            write_whole(target, content)
            notes.insert(0, Diagnostic("note", f"written to {target}"))
    return _report(network, resolved, made, merger, totals, notes)


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


class _File:
    """A model's file beside the network that was read from it: which layer is which node, and what may be touched."""

    def __init__(self, model: Model, graph: Graph, network: Network) -> None:
        self.model = model
        self.graph = graph
        self.network = network
        self.places = {node.outputs[0]: index for index, node in enumerate(graph.nodes) if node.outputs}
        inputs = {info.name for info in graph.inputs} if model.ir_version >= WITHOUT_INPUTS else set()
        self.overridable = inputs & {tensor.name for tensor in graph.initializers}
        self.constants = {name: held for name, held in network.constants.items() if name not in self.overridable}

    def merger(self, links: Sequence[Link], *, pays: bool) -> Merger:
        """The walk over the layers of the file."""
        shapes = {name: given.shape for name, given in self.network.inputs.items()}
        for link in links:
            shapes.update(zip(link.item.node.outputs, link.item.outputs, strict=False))
        stay = set(inner_names(self.graph))
        # What nothing takes stays too.
        taken = {name for link in links for name in link.item.node.inputs}
        stay.update(name for link in links for name in link.item.node.outputs if name not in taken)
        # What a node of the file takes that is no layer, such as Shape, has to be there as well.
        layers = {
            self.places.get(node.outputs[0]) for node in self.network.nodes if self._node(node.outputs[0], node.op)
        }
        for index, wire in enumerate(self.graph.nodes):
            if index not in layers:
                stay.update(wire.inputs)
        return Merger(
            links,
            tuple(self.network.inputs),
            (*self.network.outputs, *(name for name in shapes if name in stay)),
            shapes=shapes,
            grids=lambda name: Fraction(1),
            constants=self.constants,
            pays=pays,
            exact=True,
            refused=self.refusal,
        )

    def _node(self, output: str, op: str) -> bool:
        """Whether the layer that gives a tensor is one node of the main graph."""
        place = self.places.get(output)
        return place is not None and self.graph.nodes[place].op_type == op

    def refusal(self, item: Resolved) -> str | None:
        """Why a layer stays as it is, "" if it is none that merges; None if it may merge."""
        node, layer = item.node, item.layer
        if item.unknown or node.op not in _OPS or not self._node(node.outputs[0], node.op):
            return ""
        wire = self.graph.nodes[self.places[node.outputs[0]]]
        data = [name for name in node.inputs if name not in self.network.constants]
        if not {*data} <= {*wire.inputs} or any(wire.outputs[1:]) or len(node.outputs) > 1:
            return ""
        types = {self.network.dtypes.get(tensor, "float32") for tensor in (*data, *node.outputs)}
        if not types <= {*_FLOATS}:
            return f"it holds {', '.join(sorted(types - {*_FLOATS}))}" if node.op in _WEIGHTED else ""
        return self._unfit_weights(item) or self._hangs_on_size(item, layer)

    def _unfit_weights(self, item: Resolved) -> str | None:
        for parameter, tensor in item.node.weights.items():
            constant = self.network.constants.get(tensor)
            if constant is None:
                return f"its {parameter} is computed"
            if tensor in self.overridable:
                return f"its {parameter} is an input of the model, which may be given another one"
            if constant.dtype not in _FLOATS:
                return f"its {parameter} is {constant.dtype}"
        return None

    def _hangs_on_size(self, item: Resolved, layer: Any) -> str | None:
        """Why a layer is another one for inputs of another size, if it is."""
        if isinstance(getattr(layer, "padding", None), str) and set(getattr(layer, "stride", (1,))) != {1}:
            return "its padding depends on the size of the input"
        if item.node.op == "AveragePool" and getattr(layer, "ceil_mode", False):
            return "its last windows depend on the size of the input"
        if layer.kind == "upsample" and layer.scale_factor is None:
            return ""
        if layer.kind in VIEWS and (len(item.outputs[0]) != 2 or item.outputs[0][0] != item.inputs[0][0]):
            return ""
        return "" if layer.kind == "pad" and len(item.node.inputs) > 1 else None

    def notes(self) -> list[Diagnostic]:
        """What is said of layers that are not looked at."""
        inside = sum(_layers_inside(inner) for node in self.graph.nodes for inner in inner_graphs(node))
        inside += sum(node.op_type in _WEIGHTED for function in self.model.functions for node in function.nodes)
        if not inside:
            return []
        layers = "layer" if inside == 1 else "layers"
        return [
            Diagnostic("note", f"{inside} {layers} in branches, loops and functions of the file are left as they are")
        ]

    # --- writing ---

    def merged(self, made: Sequence[Made], target: Path | None) -> bytes:
        """The bytes of the file with these layers in it."""
        kept = {each.kept.node.name for each in made if each.kept is not None}
        merged = [each for each in made if each.merges]
        gone = {item.node for each in merged if each.map for item in each.map.nodes if item.node.name not in kept}
        names = Names.of_tensors(self.graph)
        places = {self.places[node.outputs[0]] for node in gone}
        called = Names(node.name for place, node in enumerate(self.graph.nodes) if place not in places)
        known: dict[tuple[Any, ...], list[str]] = {}
        replacements = [self._replacement(each, names, called, known) for each in merged]
        return rewritten(self.model, replacements, places, target)

    def _replacement(
        self, each: Made, names: Names, called: Names, known: dict[tuple[Any, ...], list[str]]
    ) -> Replacement:
        """The node of a merged layer, and its weights by the name of the tensor, those that are not `known` yet."""
        import numpy as np

        assert each.map is not None
        layer: Any = each.node.layer
        dtype = self.network.dtypes.get(each.output, "float32")
        own = _signature(each)
        arrays = {} if own in known else self._arrays(each, dtype)
        if arrays and "bias" not in arrays and layer.kind == "linear":
            arrays["bias"] = np.zeros(layer.bound[1], dtype)
        first = _first(each)
        wire = self.graph.nodes[self.places[first.outputs[0]]]
        start = f"{first.weights.get('weight', first.name)}_merged"
        tensors = {names.new(start if key == "weight" else f"{start}_{key}"): array for key, array in arrays.items()}
        # Layers that shared their weights go on sharing them.
        taken = known.setdefault(own, [*tensors])
        source, nodes = each.map.source, []
        name = called.new(wire.name or first.name)
        if isinstance(each.map, Matrix) and len(each.shape) != 2:
            flat = names.new(f"{each.output}_flat")
            nodes.append(node_bytes("Flatten", [source], flat, called.new(f"{name}_flatten"), {"axis": 1}))
            source = flat
        op = {"conv": "Conv", "convt": "ConvTranspose", "linear": "Gemm"}[layer.kind]
        nodes.append(node_bytes(op, [source, *taken], each.output, name, _attributes(layer)))
        return Replacement(self.places[each.output], nodes, tensors, each.takes, each.output)

    def _arrays(self, each: Made, dtype: str) -> dict[str, Array]:
        """The weights of a merged layer in the model's type. Raises `ShapeError` where one does not fit."""
        import numpy as np

        arrays = {}
        try:
            found = each.arrays(self._given(each))
        except ShapeError as error:
            raise located(error, each.merged[0].node) from None
        for parameter, array in found.items():
            with np.errstate(over="ignore"):
                cast = array.astype(dtype)
            if not np.isfinite(cast).all():
                raise located(ShapeError(f"the merged {parameter} does not fit into {dtype}"), each.merged[0].node)
            arrays[parameter] = cast
        return arrays

    def _given(self, each: Made) -> dict[str, Array]:
        """The weights of the layers that merge, in float64. Raises `ShapeError` for one that is not finite."""
        import numpy as np

        given = {}
        for item in each.merged:
            for parameter, tensor in item.node.weights.items():
                array = np.asarray(self.network.constants[tensor].array())
                if not np.isfinite(array).all():
                    raise located(
                        ShapeError(f"its {parameter} holds NaN or infinity, and merging would spread it"), item.node
                    )
                given[f"{item.node.name}.{parameter}"] = array.astype(np.float64)
        return given


def _first(each: Made) -> Node:
    """The layer whose name a merged one has: the first with weights."""
    return next((item.node for item in each.merged if item.node.weights), each.merged[0].node)


def _signature(each: Made) -> tuple[Any, ...]:
    """What the weights of a merged layer are made of: those of one signature are the same."""
    takes = [(item.node.op, *sorted(item.node.weights.items()), *item.node.inputs[1:]) for item in each.merged]
    return each.expression, *takes


def _layers_inside(graph: Graph) -> int:
    """The layers with weights in a graph and the graphs in it."""
    inner = sum(_layers_inside(each) for node in graph.nodes for each in inner_graphs(node))
    return inner + sum(node.op_type in _WEIGHTED for node in graph.nodes)


def _attributes(layer: Any) -> Mapping[str, int | Sequence[int]]:
    if layer.kind == "linear":
        return {"transB": 1}
    pads = layer.padding
    found = {
        "dilations": layer.dilation,
        "group": layer.bound[2],
        "kernel_shape": layer.kernel_size,
        "pads": [pair[0] for pair in pads] + [pair[1] for pair in pads],
        "strides": layer.stride,
    }
    return found | {"output_padding": layer.output_padding} if layer.kind == "convt" else found


# --- the report -----------------------------------------------------------------------------------------------------


def _report(
    network: Network,
    resolved: Sequence[Resolved],
    made: Sequence[Made],
    merger: Merger,
    verified: Mapping[str, Value],
    notes: Sequence[Diagnostic],
) -> Report:
    """A row for each merged layer; the totals are of the whole model, before and after."""
    view = View(network, list(resolved))
    rows = []
    macs = {item.node.name: merger.costs[item.node.name].macs for item in resolved if item.inputs}
    makers = [each for each in made if each.merges]
    for each in makers:
        shapes = merger.shapes
        values: dict[str, Value] = {
            "merges": each.names,
            "count": len(each.merged),
            "was_params": total([weights_of(item.layer, bias=True) for item in each.merged]),
            "params": weights_of(each.node.layer, bias=True),
            "was_macs": each.was[1],
            "macs": each.macs,
        }
        rows.append(Row(_first(each).name, each.node.layer.kind, each.expression, (view(shapes[each.takes]),),
                        (view(shapes[each.output]),), values))  # fmt: skip
    kept = [each.kept for each in made if each.kept is not None]
    merged = [row.values for row in rows]
    own = {_signature(each): row.values["params"] for each, row in zip(makers, rows, strict=True)}
    totals: dict[str, Value] = {
        "layers_before": len(resolved),
        "layers": len(made),
        "was_params": _params(resolved),
        "was_macs": sum(macs.values()),
        "params": total([_params(kept) + _left_over(kept, network), *own.values()]),
        "macs": total([sum(macs.get(item.node.name, 0) for item in kept), *(values["macs"] for values in merged)]),
        **verified,
    }
    said = f"{len(rows)} merged {'layer takes' if len(rows) == 1 else 'layers take'} the place of"
    said += (
        f" {sum(len(each.merged) for each in made if each.merges)}: {len(resolved)} layers before, {len(made)} after"
    )
    before, after = totals["was_macs"], totals["macs"]
    if isinstance(before, int) and isinstance(after, int):
        said += f"; {before:,} MACs before, {after:,} after"
    said = said if rows else "nothing merges without changing an output or costing more"
    diagnostics = [Diagnostic("note", said), *notes]
    diagnostics += [Diagnostic("warning", text) for text in network.warnings]
    partial = frozenset({"params", "macs", "was_params", "was_macs"} if any(item.unknown for item in resolved) else ())
    return Report("compose", _COLUMNS, tuple(rows), totals, len(made), tuple(diagnostics), partial=partial)


def _params(items: Sequence[Resolved]) -> int:
    """Parameters as the file has them, each once."""
    return sum(int(product(shape)) for item in items for shape in (item.parameters or {}).values())


def _left_over(kept: Sequence[Resolved], network: Network) -> int:
    """Parameters that layers which stay share with one that does not, at which they were counted."""
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


_MOST_NAMES = 3
"""Of layers that are named together."""


def _stay_notes(merger: Merger) -> list[Diagnostic]:
    """Why layers do not merge, those of one reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for link in merger.links:
        name = link.item.node.name
        if (reason := merger.stops.get(name)) and link.item.layer.kind not in JOINS:
            reasons.setdefault(("not merge with what comes before", reason), []).append(label(link.item.node))
        if reason := merger.left.get(name):
            reasons.setdefault(("stay as", reason), []).append(label(link.item.node))
    notes = []
    for (what, reason), names in reasons.items():
        one = len(names) == 1
        said = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            said += f" and {len(names) - _MOST_NAMES} more"
        if what == "stay as":
            said += f" {'stays as it is' if one else 'stay as they are'}"
        else:
            said += f" {'does' if one else 'do'} not merge with what comes before {'it' if one else 'them'}"
        notes.append(Diagnostic("note", f"{said}: {reason}"))
    return notes
