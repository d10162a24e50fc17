"""Merging: the walk over a network that makes one layer of linear layers, wherever it can.

Each tensor that linear layers make is held as one `Map` from the last tensor that has to be there: the input, or what a
layer gives that is not linear. Only the tensors that something else needs become layers again, one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from convcalc.analysis.report import Value
from convcalc.analysis.shapes import Resolved, label
from convcalc.composition.geometry import Link
from convcalc.composition.maps import Map, Matrix, flattened, joined, multiplied, start, summed
from convcalc.composition.pieces import TRANSPARENT, VIEWS, piece_of, product_of
from convcalc.errors import ShapeError, UnsupportedOpError
from convcalc.expressions.writing import expression_of
from convcalc.layers.base import Cost, Layer, Pairs, Shape
from convcalc.layers.reshape import Flatten
from convcalc.network import Constant, Node, tensor_names
from convcalc.records import dataclass
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.composition.kernels import Array, Given


@dataclass(frozen=True, eq=False)
class Made:
    """A layer of the merged network: one for the layers `merged`, or one that stays as it is (`kept`).

    `weights` and `macs` are the layer's, `was` those of the layers before. `border` are the outputs (before and after,
    per axis) that may differ, at most. `shape` is that of the tensor that the merged layers take, if it is known.
    """

    node: Node
    kept: Resolved | None
    map: Map | Matrix | None
    border: Pairs
    weights: Value
    macs: Value
    was: tuple[Value, Value]
    output: str
    shape: Shape = ()

    @property
    def merges(self) -> bool:
        """Whether it stands for several layers."""
        return self.kept is None and self.map is not None

    @property
    def merged(self) -> list[Resolved]:
        """The layers that it stands for, without those that hand on."""
        nodes = () if self.map is None else self.map.nodes
        return [item for item in nodes if item.layer.kind not in (*TRANSPARENT, *VIEWS)]

    @property
    def takes(self) -> str:
        """The tensor that the layers take which it stands for."""
        return "" if self.map is None else self.map.source

    @property
    def expression(self) -> str:
        """The layer as it is written."""
        return expression_of(self.node.layer)

    @property
    def names(self) -> str:
        """What the layers are called that it stands for."""
        return ", ".join(label(item.node) for item in self.merged)

    def arrays(self, given: Given) -> dict[str, Array]:
        """Its weights by parameter."""
        assert self.map is not None
        return self.map.weights(self.node.layer, given)


class Merger:
    """The walk over the layers that merges them.

    `grids` gives for a tensor how many of its positions there are for each output of the network, where the input is
    left open. `constants` are tensors that layers take without computing them. `pays` merges only what makes the
    network cheaper, `exact` only what changes no output. `refused` says of a layer why it is left as it is ("" for one
    that is nothing to merge), and None if it may merge.
    """

    def __init__(
        self,
        links: Sequence[Link],
        sources: Sequence[str],
        outputs: Sequence[str],
        *,
        shapes: Mapping[str, Shape],
        grids: Callable[[str], Fraction],
        constants: Mapping[str, Constant] | None = None,
        pays: bool = False,
        exact: bool = False,
        refused: Callable[[Resolved], str | None] | None = None,
    ) -> None:
        self.links = links
        self.refused = refused
        self.sources = sources
        self.outputs = outputs
        self.shapes = shapes
        self.grids = grids
        self.constants = constants or {}
        self.pays = pays
        self.exact = exact
        self.costs = {link.item.node.name: _cost(link.item) for link in links}
        self.uses: dict[str, int] = {}
        for link in links:
            for name in link.item.node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        self.stays: set[str] = set()
        self.stops: dict[str, str] = {}
        self.left: dict[str, str] = {}
        self.maps: dict[str, Map | Matrix] = {}
        self.made: list[Made] = []
        self.names: dict[str, str] = {}

    def merge(self) -> list[Made]:
        """The layers of the merged network, in order."""
        while True:
            # What has to be there is found on the way; then all that comes after begins at it.
            before = len(self.stays)
            self._walk()
            if len(self.stays) == before:
                return self.made

    def _walk(self) -> None:
        link = self.links[0]
        self.made = []
        self.names = {name: name for name in self.sources}
        self.kept: set[str] = set()
        self.maps = {}
        for name in self.sources:
            self._begin(name, _channels_of(link, self.shapes.get(name)) if self.shapes else link.channels, link.rank)
        for link in self.links:
            item = link.item
            found = self._found(link)
            if found is None:
                for name in item.node.inputs:
                    self._need(name)
                self._keep(item)
                for name in item.node.outputs:
                    self._begin(name, _channels_of(link, self.shapes.get(name)), link.rank)
                continue
            name = item.node.outputs[0]
            self.maps[name] = found
            if name in self.stays or name in self.outputs:
                self._need(name)
        for name in self.outputs:
            self._need(name)

    def _begin(self, name: str, channels: int, rank: int) -> None:
        self.maps[name] = start(name, channels, rank)

    def _found(self, link: Link) -> Map | Matrix | None:
        """The map to what a layer gives; None when it is not linear."""
        item = link.item
        node = item.node
        here = [self.maps[name] for name in node.inputs if name in self.maps]
        reason = None if self.refused is None else self.refused(item)
        if reason is not None:
            self.left[node.name] = reason
        if not here or len(node.outputs) != 1 or reason is not None:
            return None
        data = next(name for name in node.inputs if name in self.maps)
        if item.layer.kind in TRANSPARENT:
            return here[0].handed_on(item)
        try:
            if len(here) > 1:
                return self._worth(summed(here, item), here, item)
            if self.pays and self.uses.get(data, 0) > 1:
                self._need(data)
                here = [self.maps[data]]
            after = self._after(here[0], link)
            if after is not None:
                return self._worth(after, here, item)
            self.stops.setdefault(node.name, "")
        except UnsupportedOpError as error:
            self.stops.setdefault(node.name, error.message)
            if len(here) == 1:
                return self._anew(here[0], link, data)
        return None

    def _anew(self, first: Map | Matrix, link: Link, name: str) -> Map | Matrix | None:
        """A linear layer that does not merge with what comes before it: that is made, and the layer begins there."""
        try:
            if isinstance(first, Matrix) and first.product is None and first.flatten is not None:
                before = first.flatten.node.inputs[0]
                self._need(before)
                again = flattened(self.maps[before], before, first.flatten)
                return None if again is None else self._after(again, link)
            self._need(name)
            return self._after(self.maps[name], link)
        except UnsupportedOpError:
            return None

    def _after(self, first: Map | Matrix, link: Link) -> Map | Matrix | None:
        """A map and a layer after it as one; None when the layer is not linear."""
        item = link.item
        kind = item.layer.kind
        if isinstance(first, Matrix):
            return self._through_matrix(first, item)
        if kind in VIEWS and item.inputs:
            return flattened(first, first.source, item)
        if item.inputs and not first.count and not first.joins and (kind == "linear" or len(item.outputs[0]) == 2):
            features = self.shapes[first.source][-1]
            return self._through_matrix(Matrix(first.source, None, None, features, features, nodes=first.nodes), item)
        piece = piece_of(link, self.constants)
        return None if piece is None else joined(first, piece, item)

    def _through_matrix(self, first: Matrix, item: Resolved) -> Matrix | None:
        found = product_of(item, first.features, self.constants)
        return None if found is None else multiplied(first, found, item, self.shapes[first.source], self.constants)

    def macs_of(self, item: Resolved) -> Value:
        """The MACs of a layer as it is; where the input is left open, those of one output position of the network."""
        return self.costs[item.node.name].macs if item.inputs else _open_macs(item, self.grids)

    # --- whether it is worth it ---

    def _worth(self, found: Map | Matrix, before: Sequence[Map | Matrix], item: Resolved) -> Map | Matrix | None:
        """What was found, unless it is to be exact and is not, or is to pay and does not."""
        if self.exact and isinstance(found, Map) and any(map(any, found.border)):
            raise UnsupportedOpError("the border would differ")
        if not self.pays or (isinstance(found, Matrix) and found.product is None):
            return found
        was = sum((self._spent(each) for each in before), self.costs[item.node.name])
        now = self._spent(found)
        if (now.macs, now.flops) <= (was.macs, was.flops):
            return found
        raise UnsupportedOpError("merging it would cost more than it saves")

    def _is_themselves(self, found: Map | Matrix) -> bool:
        """Whether the layers stay as they are: one alone, or scales and shifts, which no convolution makes cheaper."""
        return found.is_themselves or (self.pays and isinstance(found, Map) and found.diagonal)

    def _spent(self, found: Map | Matrix) -> Cost:
        if self._is_themselves(found):
            return sum((self.costs[item.node.name] for item in found.nodes), Cost())
        if isinstance(found, Matrix) and found.product is None:
            return Cost() if found.base is None else self._spent(found.base)
        return self._cost_of(found, found.layer())

    def _cost_of(self, found: Map | Matrix, layer: Layer) -> Cost:
        shape = self.shapes[found.source]
        if isinstance(found, Matrix):
            shape = (*shape[:1], found.came) if found.base is not None else shape
        return layer.cost([shape], layer.infer(shape))

    # --- layers again ---

    def _need(self, name: str) -> None:
        """Have a tensor made, by one layer from where its map begins."""
        found = self.maps.get(name)
        if name in self.names or found is None:
            return
        self.stays.add(name)
        if isinstance(found, Matrix) and found.product is None:
            self._need(_before(found))
            for item in found.nodes[found.nodes.index(found.flatten) :] if found.flatten else ():
                self._keep(item)
        elif self._is_themselves(found):
            for item in found.nodes:
                self._keep(item)
        else:
            self._make(name, found)
        if isinstance(found, Map):
            self._begin(name, found.channels[1], found.rank)
        else:
            self.maps[name] = start(name, found.features, self.links[0].rank)

    def _keep(self, item: Resolved) -> None:
        if item.node.name in self.kept:
            return
        self.kept.add(item.node.name)
        weights = weights_of(item.layer)
        macs: Value = self.macs_of(item)
        inputs = tuple(self.names.get(name, name) for name in item.node.inputs)
        self._add(item.layer, inputs, item.node.outputs, item, None, (), weights, macs, (weights, macs))

    def _make(self, name: str, found: Map | Matrix) -> None:
        layer = found.layer()
        weights = int(product(layer.parameters()["weight"]))
        if self.shapes:
            macs: Value = self._cost_of(found, layer).macs
        else:
            macs = plain(weights * self.grids(found.source if layer.kind == "convt" else name))
        order = {link.item.node.name: place for place, link in enumerate(self.links)}
        items = sorted(found.nodes, key=lambda item: order[item.node.name])
        found = replace(found, nodes=tuple(items))
        was = (
            total([weights_of(item.layer) for item in items]),
            total([self.macs_of(item) for item in items]),
        )
        source = self.names[found.source]
        if isinstance(found, Matrix) and found.base is not None and len(self.shapes[found.source]) != 2:
            source = self._add(Flatten(), (source,), (f"{name}.flat",), None, None, (), 0, 0, (0, 0))
        border = found.border if isinstance(found, Map) else ()
        self._add(layer, (source,), (name,), None, found, border, weights, macs, was)

    def _add(
        self,
        layer: Layer,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        kept: Resolved | None,
        found: Map | Matrix | None,
        border: Pairs,
        weights: Value,
        macs: Value,
        was: tuple[Value, Value],
    ) -> str:
        name = str(len(self.made))
        names = tensor_names(name, layer)
        self.names.update(zip(outputs, names, strict=True))
        node = Node(name, layer, inputs, names)
        shape = () if found is None else self.shapes.get(found.source, ())
        self.made.append(Made(node, kept, found, border, weights, macs, was, outputs[0], shape))
        return names[0]


def _before(matrix: Matrix) -> str:
    assert matrix.flatten is not None
    return matrix.flatten.node.inputs[0]


def _channels_of(link: Link, shape: Shape | None) -> int:
    if shape is not None:
        return shape[1] if len(shape) > 1 else 1
    return getattr(link.item.layer, "out_channels", None) or link.channels


def _cost(item: Resolved) -> Cost:
    if not item.inputs or item.unknown:
        return Cost()
    return item.layer.cost(item.inputs, item.outputs)


def _open_macs(item: Resolved, grids: Callable[[str], Fraction]) -> Value:
    """The MACs of a layer for each output position of the network, where the input is left open."""
    weights = weights_of(item.layer)
    if weights is None or not hasattr(item.layer, "in_channels"):
        return 0 if weights is not None else None
    # A convolution multiplies once for each of its outputs, a transposed one for each of its inputs.
    return plain(weights * grids(item.node.inputs[0] if item.layer.kind == "convt" else item.node.outputs[0]))


def weights_of(layer: Layer, *, bias: bool = False) -> int | None:
    """The weights, without the bias unless asked for; None when they depend on an input that is left open."""
    try:
        return sum(int(product(shape)) for name, shape in layer.parameters().items() if bias or name != "bias")
    except ShapeError:
        return None


def total(values: Sequence[Value]) -> Value:
    """The sum of numbers; unknown when one is."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if len(numbers) == len(values) else None


def plain(number: Fraction) -> int | float:
    """An int where it is whole, else a float."""
    return int(number) if number.denominator == 1 else float(number)


def stops_of(merger: Merger) -> Iterator[tuple[str, str]]:
    """The layers that nothing was merged across, and why ("" when they are not linear)."""
    by_name = {link.item.node.name: link for link in merger.links}
    for name, reason in merger.stops.items():
        yield by_name[name].name, reason
