"""Receptive fields of networks: what each output reads of the input, through branches, and the tiling that follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from convcalc import formulas as F
from convcalc.analysis.fields import Axes, Reach, Window, axes_of
from convcalc.analysis.report import Column, Diagnostic, Report, Value
from convcalc.analysis.shapes import Resolved, View, base_row, diagnose, label, located, need_layers, resolve
from convcalc.errors import ConvcalcError, ShapeError, UnsupportedOpError
from convcalc.layers.base import axis_name, shape_text
from convcalc.network import Network
from convcalc.records import replace

_COLUMNS = (
    Column("receptive_field", "Field", "sizes", total=False),
    Column("jump", "Jump", "sizes", total=False),
    Column("offset", "Offset", "sizes", total=False),
    Column("overlap", "Overlap", "sizes", total=False, wide=True),
)

_JOINS = ("add", "mul", "concat", "combine")


def receptive_fields(network: Network) -> Report:
    """What every layer's outputs read of the network's input, in elements, one number for each spatial axis.

    `receptive_field` is from the first to the last element that one output reads, the most of any output, padding
    included; `jump` the distance between the fields of neighbours; `offset` the first element that the first output
    reads, negative in the padding; `overlap` what two tiles of the input must share. A join reads what any of its paths
    reads. Statistics of norms are not counted. The totals are those of the last layer that has spatial axes.

    Raises `ShapeError` for an input without spatial axes.
    """
    need_layers(network)
    resolved = resolve(network, partial=True)
    view = View(network, resolved)
    paths = _Paths(network, resolved)
    rows = []
    for item in resolved:
        reaches, reason = paths.known[item.node.outputs[0]]
        row = base_row(item, view)
        values = dict.fromkeys(column.key for column in _COLUMNS) if reaches is None else _values(reaches)
        reasons = {**row.reasons, **({"receptive_field": reason} if reason else {})}
        rows.append(replace(row, values={} if reason == _ENDED else values, reasons=reasons))
    last = next((row for row in reversed(rows) if row.values), None)
    totals = {} if last is None else dict(last.values)
    said = [*diagnose(network, resolved), *paths.warnings]
    if last is not None:
        said += [Diagnostic("note", text) for text in _tiling(last.name, last is rows[-1], resolved, paths)]
    unknown = any(row.values.get("receptive_field", 0) is None for row in rows)
    return Report(
        "shape",
        _COLUMNS,
        tuple(rows),
        totals,
        totals.get("receptive_field"),
        tuple(said),
        partial=frozenset({"receptive_field"} if unknown else ()),
    )


_ENDED = "the spatial axes have ended"
_Known = tuple[Sequence[Reach] | None, str]
"""What a tensor's elements read along each axis, or None and why."""


class _Paths:
    """What every tensor reads of the input, found from the first layer to the last."""

    def __init__(self, network: Network, resolved: Sequence[Resolved]) -> None:
        self.rank = max((len(given.shape) for given in network.inputs.values()), default=0) - 2
        if self.rank < 1:
            raise ShapeError("the input has no spatial axes, so there is no receptive field")
        self.known: dict[str, _Known] = {name: ((Reach(),) * self.rank, "") for name in network.inputs}
        self.makers = {tensor: label(item.node) for item in resolved for tensor in item.node.outputs}
        self.numbers = set(network.constants)
        """Tensors that are made of the model's own numbers alone, and read nothing of the input."""
        self.warnings: list[Diagnostic] = []
        for item in resolved:
            found: _Known
            try:
                found = self._through(item)
            except UnsupportedOpError as error:
                found = None, error.message
            except ConvcalcError as error:
                raise located(error, item.node) from None
            self.known.update(dict.fromkeys(item.node.outputs, found))

    def _through(self, item: Resolved) -> _Known:
        if item.unknown:
            return None, item.unknown
        came = [self.known[name] for name in item.node.inputs if name not in self.numbers]
        if not came:
            self.numbers.update(item.node.outputs)
            return None, _ENDED
        for reaches, reason in came:
            if reaches is None:
                return None, reason
        if item.layer.kind in _JOINS:
            return self._join(item, [reaches for reaches, _ in came if reaches is not None]), ""
        axes = _axes(item, self.rank)
        if axes is None or len(item.outputs[0]) < self.rank + 2:
            return None, _ENDED
        reaches = came[0][0] or ()
        found: list[Reach] = []
        for index, (reach, axis) in enumerate(zip(reaches, axes, strict=True)):
            size = item.outputs[0][2 + index]
            same = next((other for other in range(index) if _alike(other, index, reaches, axes, item)), None)
            if same is not None:
                found.append(found[same])
                continue
            found.append(reach if axis == Window() else reach.then(_reach(axis), size))
        return found, ""

    def _join(self, item: Resolved, came: Sequence[Sequence[Reach]]) -> list[Reach]:
        """What any of the paths reads. Raises `UnsupportedOpError` where they stand side by side along an axis."""
        layer: Any = item.layer
        if layer.kind == "concat" and layer.dim % len(item.inputs[0]) != 1:
            raise UnsupportedOpError("what it reads differs along the axis that it joins")
        joined = []
        pairs = zip(item.node.inputs, item.inputs, strict=True)
        read = [(name, shape) for name, shape in pairs if name not in self.numbers]
        axes = len(item.outputs[0])
        if axes != self.rank + 2:
            raise UnsupportedOpError(_ENDED)
        shapes = [(1,) * (axes - len(shape)) + shape for _, shape in read]
        names = [self.makers.get(name, "the input") for name, _ in read]
        for axis in range(self.rank):
            size = item.outputs[0][2 + axis]
            paths = [
                # One element that is repeated reads the same for every output.
                Reach((reaches[axis].of(0),), 0) if shape[2 + axis] == 1 < size else reaches[axis]
                for reaches, shape in zip(came, shapes, strict=True)
            ]
            self._say_misaligned(item, axis, paths, names)
            all_paths = paths[0]
            for path in paths[1:]:
                all_paths = all_paths.beside(path, size)
            joined.append(all_paths)
        return joined

    def _say_misaligned(self, item: Resolved, axis: int, paths: Sequence[Reach], names: Sequence[str]) -> None:
        """Warn of paths that do not look at the same place of the input."""
        where = axis_name(self.rank, axis)
        for path, name in zip(paths[1:], names[1:], strict=True):
            if 0 in (path.jump, paths[0].jump) or None in (path.jump, paths[0].jump):
                continue
            if path.jump != paths[0].jump:
                text = (
                    f"its paths drift apart along the {where}: neighbours from {names[0]} are"
                    f" {_plain(paths[0].jump)} elements of the input apart, from {name} {_plain(path.jump)}"
                )
            elif _centre(path, paths[0]) != _centre(paths[0], path):
                apart = abs(_centre(path, paths[0]) - _centre(paths[0], path))
                text = (
                    f"its paths are misaligned by {_plain(apart)} along the {where}:"
                    f" {names[0]} and {name} look at different places of the input"
                )
            else:
                continue
            self.warnings.append(Diagnostic("warning", text, label(item.node)))


def _alike(other: int, index: int, reaches: Sequence[Reach], axes: Axes, item: Resolved) -> bool:
    """Whether two axes are treated alike, so that one answer serves both."""
    sizes = item.outputs[0]
    return (reaches[other], axes[other], sizes[2 + other]) == (reaches[index], axes[index], sizes[2 + index])


def _axes(item: Resolved, rank: int) -> Axes | None:
    """What a layer does along the axes of its first input. Raises `UnsupportedOpError` where that is not known."""
    layer: Any = item.layer
    if layer.kind == "crop":
        return [Window(before=-offset) for offset in layer.offsets(item.inputs)]
    if layer.kind == "maxunpool":
        # An element of a window's input may come out anywhere in it.
        return [
            Window(kernel, stride, before, after, transposed=True)
            for kernel, stride, (before, after) in zip(layer.kernel_size, layer.stride, layer.padding, strict=True)
        ]
    return axes_of(item.layer, rank, item.inputs[0], item.outputs[0])


def _reach(axis: Window | Reach) -> Reach:
    return axis.reach() if isinstance(axis, Window) else axis


def _centre(path: Reach, beside: Reach) -> Fraction:
    """The middle of what an output reads, on average over as many as both paths repeat after."""
    count = lcm(len(path.sets), len(beside.sets))
    centres = [first + Fraction(bits.bit_length() - 1, 2) for first, bits in map(path.of, range(count)) if bits]
    return sum(centres, Fraction(0)) / max(len(centres), 1)


# --- what is reported -------------------------------------------------------------------------------------------------


def _plain(number: Fraction | None) -> int | float:
    number = number or Fraction(0)
    return int(number) if number.denominator == 1 else float(number)


def _values(reaches: Sequence[Reach]) -> dict[str, Value]:
    values: dict[str, Value] = {"receptive_field": tuple(reach.field for reach in reaches)}
    jumps = [reach.jump for reach in reaches]
    if None not in jumps:
        values["jump"] = tuple(map(_plain, jumps))
    values["offset"] = tuple(_first(reach) for reach in reaches)
    if None not in jumps:
        values["overlap"] = tuple(_overlap(reach) for reach in reaches)
    return values


def _first(reach: Reach) -> int:
    """The first element that the first output reads that reads any."""
    return next((first for first, bits in reach.sets if bits), 0)


def _overlap(reach: Reach) -> int:
    """What two tiles share that begin a whole number of periods apart."""
    read = [(first, first + bits.bit_length()) for first, bits in reach.sets if bits]
    extent = max(end for _, end in read) - min(first for first, _ in read) if read else 0
    return F.tile_overlap(extent, reach.shift or 0)


def _tiling(name: str, at_the_end: bool, resolved: Sequence[Resolved], paths: _Paths) -> Iterator[str]:
    """What follows for an input that is worked on tile by tile."""
    item = next(item for item in resolved if item.node.name == name)
    reaches = paths.known[item.node.outputs[0]][0]
    if reaches is None:
        return
    if not at_the_end:
        yield f"the spatial axes end after {label(item.node)}; the field of the network is taken there"
    if all(reach.shift for reach in reaches) and any(size > 1 for size in item.outputs[0][2:]):
        overlap = shape_text(tuple(map(_overlap, reaches)))
        steps = shape_text(tuple(reach.shift or 0 for reach in reaches))
        yield f"tiles of the input that begin at multiples of {steps} and overlap by {overlap} hold all that is read"
    least = tuple(reach.least_field for reach in reaches)
    if least != tuple(reach.field for reach in reaches):
        yield f"the field differs from place to place; the least is {shape_text(least)}, the largest is shown"
