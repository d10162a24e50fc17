"""Algebra: how the one layer is made of those that it stands for, in symbols and with the numbers, for `--explain`.

The merge is walked once more, layer by layer. `W` and `b` are the weight and the bias of all layers so far, `W'` and
`b'` those with one layer more; `weight` and `bias` are that layer's own. t, u and v are places in a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.fields import Window
from convcalc.analysis.shapes import Resolved, label
from convcalc.composition.borders import border_between, end_names
from convcalc.composition.geometry import followed
from convcalc.composition.maps import Map, Matrix, joined, start, summed
from convcalc.composition.pieces import TRANSPARENT, VIEWS, Piece, piece_of
from convcalc.layers.base import shape_text
from convcalc.tracing import Step, per_axis, recording

if TYPE_CHECKING:
    from convcalc.composition.kernels import Given, Kernel
    from convcalc.composition.merging import Made, Merger

_NORMS = ("batchnorm", "syncbatchnorm")
_CONVS = ("conv", "convt")
_DIGITS = 6
"""Of weights in worked examples."""
_TERMS = 3
"""Of a sum that are written out."""


class Explained:
    """What explains a merge: sentences of algebra, and the uses of formulas."""

    def __init__(self, made: Made, merger: Merger, given: Given | None) -> None:
        self.links = {link.item.node.name: link for link in merger.links}
        self.merger = merger
        self.given = given
        self.lines = ["W, b: weight and bias so far; W', b': with this layer; weight, bias: its own"]
        self.steps: list[Step] = []
        found = made.map
        if isinstance(found, Matrix):
            self._matrix(found)
        elif found is not None:
            self._walk(found)
        self._kernel_size(made)
        self._costs(made)

    # --- a kernel ---

    def _walk(self, found: Map) -> None:
        maps = {found.source: start(found.source, found.channels[0], found.rank)}
        for item in found.nodes:
            here = [maps[name] for name in item.node.inputs if name in maps]
            if item.layer.kind in TRANSPARENT:
                made = here[0].handed_on(item)
            elif len(here) > 1:
                whole = summed(here, item)
                assert isinstance(whole, Map)
                made = whole
                self.lines += _side_by_side(here, made, item)
            else:
                piece = piece_of(self.links[item.node.name], self.merger.constants)
                assert piece is not None
                made = joined(here[0], piece, item)
                self._in_a_row(here[0], piece, made, item)
            if self.given is not None:
                # Each kernel is computed once: those after it begin with its numbers.
                made = replace(made, arrays=partial(_known, made.arrays(self.given)))
            maps[item.node.outputs[0]] = made

    def _in_a_row(self, first: Map, piece: Piece, made: Map, item: Resolved) -> None:
        name = label(item.node)
        begins = not first.count and not first.joins
        self.lines += (f"{name}: {line}" for line in _algebra(first, piece, made, item, begins=begins))
        straight = not made.transposed and not any(window.transposed for window in piece.windows)
        if self.given is not None and not begins and straight and not first.transposed:
            self.lines += (f"{name}: {line}" for line in _worked(first, piece, self.given))
        if not begins and straight and any(window != Window() for window in piece.windows):
            self.steps += _window_steps(first, piece, made)
        elif not begins and first.transposed and all(window.transposed for window in piece.windows):
            with recording() as steps:
                per_axis(followed, first.axes, piece.windows)
            self.steps += steps

    def _kernel_size(self, made: Made) -> None:
        """The sizes of the kernel as the layer has them."""
        layer: Any = made.node.layer
        if isinstance(made.map, Map) and any(step.formula.result == "extent" for step in self.steps):
            with recording() as steps:
                per_axis(F.composed_kernel_size, [axis.extent for axis in made.map.axes], layer.dilation)
            self.steps += steps
        elif isinstance(made.map, Map):
            sizes = shape_text(layer.kernel_size)
            self.lines.append(f"kernel_size = {sizes}, stride = {shape_text(layer.stride)}")

    # --- a matrix ---

    def _matrix(self, found: Matrix) -> None:
        if found.base is not None and found.base.count:
            self.lines.append("W[:,i] = the layers on a 1 at place i − the layers on zeros; b = the layers on zeros")
        begins = found.base is None or not found.base.count
        own = set() if found.base is None else {item.node.name for item in found.base.nodes}
        for item in found.nodes:
            if item.layer.kind in (*TRANSPARENT, *VIEWS) or item.node.name in own:
                continue
            lines = _SCALES.get(item.layer.kind, _scale_lines)(item, "o,i")
            if item.layer.kind in ("linear", "gemm", "matmul"):
                lines = ["W = weight, b = bias" if begins else "W'[o,i] = Σ_m weight[o,m]·W[m,i]"]
                lines += [] if begins else ["b'[o] = bias[o] + Σ_m weight[o,m]·b[m]"]
            elif item.layer.kind in ("add", "concat"):
                lines = ["W' = the sum of the branches' W" if item.layer.kind == "add" else
                         "W' = the branches' W, one below the other"]  # fmt: skip
            self.lines += (f"{label(item.node)}: {line}" for line in lines)
            begins = False

    # --- costs ---

    def _costs(self, made: Made) -> None:
        """Weights and MACs, and those of the layers before."""
        layer: Any = made.node.layer
        with recording() as steps:
            if layer.kind == "linear":
                F.parameter_elements(layer.parameters()["weight"])
            else:
                F.conv_weights(layer.out_channels, layer.in_channels, layer.groups, layer.kernel_size)
        self.steps += steps
        from convcalc.composition.merging import weights_of

        self._before("weights", [weights_of(item.layer) for item in made.merged])
        shape = self.merger.shapes.get(made.takes)
        if shape is not None:
            shape = (shape[0], layer.in_features) if layer.kind == "linear" else shape
            with recording() as steps:
                layer.cost([shape], layer.infer(shape))
            self.steps += [step for step in steps if step.formula.result == "MACs"]
        self._before("MACs", [self.merger.macs_of(item) for item in made.merged])

    def _before(self, what: str, counts: Sequence[Any]) -> None:
        if None in counts:
            return
        with recording() as steps:
            F.layers_together(tuple(count for count in counts if count) or (0,))
        for step in steps:
            step.axis = f"{what} before"
        self.steps += steps


def _known(kernel: Kernel, given: Given) -> Kernel:
    return kernel


# --- in a row ---------------------------------------------------------------------------------------------------------


def _algebra(first: Map, piece: Piece, made: Map, item: Resolved, *, begins: bool) -> Iterator[str]:
    kind = item.layer.kind
    if kind in _CONVS and begins:
        yield "W = weight, b = bias" if piece.bias else "W = weight"
    elif kind not in _CONVS and all(window == Window() for window in piece.windows):
        if begins:
            yield "W[o,o] = 1, b[o] = 0 before it"
        yield from _SCALES.get(kind, _scale_lines)(item, "o,i,t")
    else:
        yield from _kernel_lines(first, piece, made, item, begins=begins)


def _kernel_lines(first: Map, piece: Piece, made: Map, item: Resolved, *, begins: bool) -> Iterator[str]:
    own, value = "weight[o,m,v]", ""
    channelwise = piece.groups == piece.channels[0] == piece.channels[1]
    if item.layer.kind not in _CONVS:
        value = _constant(item, piece)
        if begins:
            yield f"W[o,o,t] = {value}"
            return
    if channelwise:
        own = value or "weight[o,v]"
    before, channels = ("W[o,i,u]", "") if channelwise else ("W[m,i,u]", "Σ_m ")
    if any(window.transposed != made.transposed for window in piece.windows):
        yield "weight turned round along each axis, as a convolution of the other kind has it"
    if made.transposed:
        spread = _times([window.stride for window in piece.windows], "stride")
        places = f"{spread}u + {_times([window.dilation for window in piece.windows], 'dilation')}v = t"
    else:
        jumps = [axis.stride * window.dilation for axis, window in zip(first.axes, piece.windows, strict=True)]
        places = f"u + {_times(jumps, 'jump')}v = t"
    yield f"W'[o,i,t] = {channels}Σ_({places}) {own}·{before}"
    if piece.groups > 1 and not channelwise:
        yield f"m runs over the channels of the group of o, of {piece.groups}"
    if piece.even:
        return
    passed = f"{channels}Σ_v {own}·b[{'o' if channelwise else 'm'}]" if first.bias else ""
    words = " + ".join(filter(None, ("bias[o]" if piece.bias else "", passed)))
    if words:
        yield f"b'[o] = {words}"


def _times(numbers: Sequence[int], name: str) -> str:
    """A factor before a letter: nothing for 1, its name where the axes differ."""
    if len(set(numbers)) > 1:
        return f"{name}·"
    return "" if numbers[0] == 1 else f"{numbers[0]}·"


def _constant(item: Resolved, piece: Piece) -> str:
    """The one number of a kernel that has no weights of its own."""
    layer: Any = item.layer
    if "pool" not in layer.kind:
        return "1"
    divisor = getattr(layer, "divisor_override", None)
    sizes = "·".join(str(window.kernel_size) for window in piece.windows)
    return f"1/{divisor or (sizes if len(piece.windows) == 1 else f'({sizes})')}"


def _norm_lines(item: Resolved, places: str) -> list[str]:
    return [
        "scale[o] = weight[o] / √(running_var[o] + eps)",
        f"W'[{places}] = W[{places}]·scale[o]",
        "b'[o] = (b[o] − running_mean[o])·scale[o] + bias[o]",
    ]


def _scale_lines(item: Resolved, places: str) -> list[str]:
    layer: Any = item.layer
    kind = getattr(layer, "function", layer.kind)
    number = f"{layer.arguments[0]:g}".replace("-", "−") if kind in ("scale", "shift") else "constant[o]"
    number = f"({number})" if number.startswith("−") else number
    if kind == "neg":
        number = "(−1)"
    if kind in ("scale", "mul", "neg"):
        return [f"W'[{places}] = {number}·W[{places}], b'[o] = {number}·b[o]"]
    if kind == "div":
        return [f"W'[{places}] = W[{places}] / {number}, b'[o] = b[o] / {number}"]
    if kind == "sub":
        return [f"W' = W, b'[o] = b[o] − {number}, or both turned round where the constant comes first"]
    return [f"W' = W, b'[o] = b[o] + {number}"] if kind in ("shift", "add") else ["W' = W, b' = b"]


_SCALES: dict[str, Any] = dict.fromkeys(_NORMS, _norm_lines)


def _worked(first: Map, piece: Piece, given: Given) -> Iterator[str]:
    """The first element of the kernel with the numbers."""
    inner, outer = first.arrays(given)[0], piece.weights(given)[0]
    origin = (0,) * first.rank
    if outer.shape[1] > len(inner) // first.groups:
        return  # the channels between are of several groups, which do not all reach this element
    pairs = [(float(outer[0, m, *origin]), float(inner[m, 0, *origin])) for m in range(outer.shape[1])]
    terms = [f"{_short(own)}·{_short(before)}" for own, before in pairs]
    shown = terms if len(terms) <= _TERMS + 1 else [*terms[:_TERMS], "…"]
    result = _short(sum(own * before for own, before in pairs)).strip("()")
    yield f"W'[0,0{',0' * first.rank}] = {' + '.join(shown)} = {result}"


def _short(number: float) -> str:
    text = f"{number:.{_DIGITS}g}".replace("-", "−")
    return f"({text})" if text.startswith("−") else text


def _window_steps(first: Map, piece: Piece, made: Map) -> Iterator[Step]:
    """The extent, the stride, the padding and the border of a layer after others."""
    axes, windows = first.axes, piece.windows
    with recording() as steps:
        per_axis(F.composed_extent, [axis.extent for axis in axes], [window.kernel_size for window in windows],
                 [axis.stride for axis in axes], [window.dilation for window in windows])  # fmt: skip
        per_axis(F.composed_stride, [axis.stride for axis in axes], [window.stride for window in windows])
        for axis_pads, window_pads in (
            ([axis.before for axis in axes], [window.before for window in windows]),
            ([axis.after for axis in axes], [window.after for window in windows]),
        ):
            per_axis(F.composed_padding, axis_pads, [axis.stride for axis in axes], window_pads)
    pads = any(max(window.before, window.after) > 0 for window in windows)
    so_far = first.fallback if pads and first.mode != "zeros" else first.border
    with recording() as borders:
        border_between(first, piece, windows, so_far, made.mode, upwards=False)
    for step, end in zip(borders, end_names(first.rank), strict=True):
        step.axis = end
    return chain(steps, (step for step in borders if step.value > 0))


# --- side by side -----------------------------------------------------------------------------------------------------


def _side_by_side(branches: Sequence[Map], made: Map, item: Resolved) -> Iterator[str]:
    name = label(item.node)
    if item.layer.kind == "concat":
        yield f"{name}: W' = the branches' W, one below the other along o; b' likewise"
    else:
        yield f"{name}: W'[o,i,t] = Σ_branches W[o,i,t − place], b'[o] = Σ_branches b[o]"
    if made.transposed or any(branch.transposed for branch in branches):
        return
    places = [
        f"{shape_text(tuple(axis.extent for axis in branch.axes))} at place "
        + ",".join(str(axis.before - own.before) for axis, own in zip(made.axes, branch.axes, strict=True))
        for branch in branches
    ]
    yield f"{name}: place = largest padding − the branch's: {'; '.join(places)}"
