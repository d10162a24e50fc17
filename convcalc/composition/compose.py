"""Composition: layers in a row and side by side as one, and linear layers merged into one, weights included.

NumPy is imported only when there are weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from convcalc import formulas as F
from convcalc.analysis.fields import WINDOWS, Window, members
from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import View, base_row, diagnose, label, need_layers
from convcalc.composition.borders import border_of, border_words
from convcalc.composition.geometry import START, Composed, Link, links_of, source_of
from convcalc.composition.merging import Made, Merger, plain, stops_of, total, weights_of
from convcalc.composition.parameters import doubts, informed, named, own_arrays
from convcalc.errors import UnsupportedOpError
from convcalc.expressions.writing import expression_of
from convcalc.layers.base import Pairs, Shape, axis_name, shape_text
from convcalc.layers.conv import Conv
from convcalc.layers.pad import Pad1d, Pad2d, Pad3d
from convcalc.network import Network
from convcalc.tracing import Step, recording

if TYPE_CHECKING:
    from convcalc.composition.kernels import Array
    from convcalc.composition.parameters import GivenWeights


_COLUMNS = (
    Column("kernel_size", "Kernel", "sizes"),
    Column("stride", "Stride", "sizes", wide=True),
    Column("padding", "Padding", "sizes", wide=True),
    Column("dilation", "Dilation", "sizes", wide=True),
    Column("receptive_field", "Field", "sizes"),
    Column("jump", "Jump", "sizes", wide=True),
    Column("weights", "Weights"),
    Column("macs", "MACs"),
)


def compose(
    network: Network,
    weights: GivenWeights | None = None,
    *,
    explain: bool = False,
    verify: bool = False,
    seed: int = 0,
) -> Report:
    """The layers as one: kernel, stride, padding, dilation and receptive field, per axis, layer by layer and in all.

    A network without inputs is answered as far as no size is needed; MACs are then those of one output position, all
    channels together. The totals also have the `taps` (elements of the kernel that are no holes) and, when there are
    linear layers to merge, the `merged` network as expressions, its weights and its MACs; and when they are all one,
    how many outputs at the `border` may differ from the layers', at most. Branches that are added or whose channels are
    joined merge too.

    With `explain` the rows have the formulas that were used, and the merged ones the algebra of their weights too.

    `weights` are by "name.parameter" ("0.weight"), or in the order of the layers that have any; a weight without
    a bias has none. Then `arrays` holds the merged network's, in float64, named in the same way. `verify` runs both on
    random numbers of this seed, with random weights where none are given, and puts the largest difference inside and
    at the border into the totals, and how many outputs really differ.

    Raises `UnsupportedOpError` for several inputs, for a layer whose windows are not known, for branches that cannot
    lie over one another when no size is known, and for weights without a linear layer.
    """
    need_layers(network)
    given = None
    if weights is not None:
        given = named(network, weights)
        network = informed(network, given)
    links = links_of(network)
    merger = _merger(network, links)
    made = merger.merge()
    view = View(network, [link.item for link in links])
    end = links[-1].after
    macs = [_macs(link, merger) for link in links]
    rows = [
        replace(
            base_row(link.item, view),
            values={**_row_values(link), "weights": weights_of(link.item.layer), "macs": cost},
            steps=(steps := (*link.steps, *_fold_steps(link, given or {})) if explain else ()),
            algebra=_unchanged(link) if explain and not steps else (),
        )
        for link, cost in zip(links, macs, strict=True)
    ]
    merged = tuple(_merged_row(each, merger, view, given, explain=explain) for each in made if each.merges)
    totals: dict[str, Value] = {}
    diagnostics = [*diagnose(network, [link.item for link in links] if network.inputs else [])]
    diagnostics += [Diagnostic("note", note) for note in (*_geometry(totals, end), *_ended(links))]
    totals |= {key: total([row.values[key] for row in rows]) for key in ("weights", "macs")}
    totals["params"] = total([weights_of(link.item.layer, bias=True) for link in links])
    diagnostics += [Diagnostic("note", note) for note in _merge_notes(made, merger)]
    if any(each.merges for each in made):
        totals["merged"] = wiring_text(made, merger.sources[0])
        totals["merged_params"] = total([weights_of(each.node.layer, bias=True) for each in made])
        totals["merged_weights"] = total([each.weights for each in made])
        totals["merged_macs"] = total([each.macs for each in made])
        totals["merging"] = _verdict(totals["macs"], totals["merged_macs"])
        border = border_of(made, links, network.outputs[0])
        if border is not None:
            totals["border"] = border or ((0, 0),) * len(end)
        diagnostics += [Diagnostic("note", note) for note in _whole_border(made, border)]
    if not network.inputs:
        diagnostics.append(Diagnostic("note", "without an input, MACs are those of one output position, all channels"))
    if given is not None:
        diagnostics += [Diagnostic("warning", text, name) for name, text in doubts(links, given)]
    arrays = {} if given is None else _merged_arrays(made, given)
    if verify and not any(each.merges for each in made):
        diagnostics.append(Diagnostic("note", "nothing merges, so there is nothing to verify"))
    elif verify:
        from convcalc.composition.verification import verified, with_input

        if not network.inputs:
            network = with_input(network, links, made)
            links = links_of(network)
            made = _merger(network, links).merge()
            shape = shape_text(network.inputs[source_of(network)].shape[1:])
            diagnostics.append(Diagnostic("note", f"without an input, both are run on one of {shape}"))
        found, notes = verified(network, links, made, given or {}, seed)
        totals |= found
        diagnostics += notes
    return Report("compose", _COLUMNS, tuple(rows), totals, totals.get("kernel_size"), tuple(diagnostics), arrays,
                  merged=merged)  # fmt: skip


def _merger(network: Network, links: Sequence[Link]) -> Merger:
    source = source_of(network)
    grids: dict[str, Sequence[Composed]] = {source: (START,) * links[0].rank}
    shapes: dict[str, Shape] = {}
    for link in links:
        grids.update(dict.fromkeys(link.item.node.outputs, link.after))
        shapes.update(zip(link.item.node.outputs, link.item.outputs, strict=False))
    shapes |= {name: given.shape for name, given in network.inputs.items()}
    end = links[-1].after

    def positions(name: str) -> Fraction:
        """How many positions of a tensor there are for each output position of the network."""
        ratio = Fraction(1)
        for here, last in zip(grids[name], end, strict=True):
            # Without an input every reach is regular: layers whose windows are not have asked for one.
            ratio *= (last.reach.jump or 1) / (here.reach.jump or Fraction(1))
        return ratio

    return Merger(links, (source,), network.outputs, shapes=shapes, grids=positions)


# --- what is reported -----------------------------------------------------------------------------------------------


def _row_values(link: Link) -> dict[str, Value]:
    if link.axes is None:
        return {}
    windows = [axis for axis in link.axes if isinstance(axis, Window)]
    windowed = link.item.layer.kind in WINDOWS and len(windows) == link.rank
    return (_window_values(windows) if windowed else {}) | _reach_values(link.after)


def _merged_row(each: Made, merger: Merger, view: View, given: Mapping[str, Array] | None, *, explain: bool) -> Row:
    """A merged layer; its name is those of the layers that it stands for."""
    layer: Any = each.node.layer
    values: dict[str, Value] = {}
    if layer.kind != "linear":
        values = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        if layer.kind == "convt":
            values["output_padding"] = layer.output_padding
        values["border"] = each.border
    values |= {"weights": each.weights, "macs": each.macs, "was_weights": each.was[0], "was_macs": each.was[1]}
    ends: list[tuple[Shape, ...]] = [
        (view(shape),) if (shape := merger.shapes.get(name)) else () for name in (each.takes, each.output)
    ]
    row = Row(each.names, layer.kind, layer, ends[0], ends[1], values)
    if not explain:
        return row
    from convcalc.composition.algebra import Explained

    told = Explained(each, merger, given)
    return replace(row, steps=tuple(told.steps), algebra=tuple(told.lines))


def _window_values(windows: Sequence[Window]) -> dict[str, Value]:
    return {
        "kernel_size": tuple(window.kernel_size for window in windows),
        "stride": tuple(window.stride for window in windows),
        "padding": tuple((window.before, window.after) for window in windows),
        "dilation": tuple(window.dilation for window in windows),
    }


def _reach_values(composed: Sequence[Composed]) -> dict[str, Value]:
    values: dict[str, Value] = {"receptive_field": tuple(axis.reach.field for axis in composed)}
    jumps = [axis.reach.jump for axis in composed]
    if None not in jumps:
        values["jump"] = tuple(plain(jump) for jump in jumps if jump is not None)
    return values


_DIGITS = 6
"""Of weights in explanations."""


def _fold_steps(link: Link, given: Mapping[str, Array]) -> Sequence[Step]:
    """How batch norm becomes a scale and a shift, with the numbers of its first channel."""
    name = link.item.node.name
    if link.item.layer.kind not in ("batchnorm", "syncbatchnorm") or f"{name}.running_var" not in given:
        return ()

    def first(parameter: str, other: float) -> float:
        values = given.get(f"{name}.{parameter}")
        return other if values is None else float(f"{values.reshape(-1)[0]:.{_DIGITS}g}")

    layer: Any = link.item.layer
    if first("running_var", 1) + layer.eps <= 0:
        return ()  # what merges the weights refuses it
    with recording() as steps:
        scale = F.norm_scale(first("weight", 1), first("running_var", 1), layer.eps)
        F.norm_shift(first("bias", 0), first("running_mean", 0), float(f"{scale:.{_DIGITS}g}"))
    for step in steps:
        step.axis = "channel 0"
    return steps


def _unchanged(link: Link) -> tuple[str, ...]:
    """What to say of a layer that no formula was needed for."""
    return ("geometry unchanged",) if link.axes is not None and link.before == link.after else ()


def _macs(link: Link, merger: Merger) -> Value:
    """The MACs for the input; where it is left open, those of one output position of the network."""
    return merger.macs_of(link.item)


_MOST_OFFSETS = 20
"""Of a kernel with holes that are listed."""


def _geometry(totals: dict[str, Value], composed: Sequence[Composed]) -> Iterator[str]:
    """Put the chain's geometry into the totals, and say what numbers do not."""
    windows = [axis.window for axis in composed]
    found = [window for window in windows if window is not None]
    if len(found) == len(windows) and len({window.transposed for window in found if window.stride > 1}) < 2:
        transposed = any(window.transposed and window.stride > 1 for window in found)
        composed = [axis.turned() if axis.transposed != transposed else axis for axis in composed]
        totals |= _window_values([axis.window or Window() for axis in composed])
        totals["taps"] = tuple((axis.taps or 0).bit_count() for axis in composed)
        for index, axis in enumerate(composed):
            if axis.holes:
                taps = members((0, axis.taps or 0))
                offsets = " ".join(map(str, taps[:_MOST_OFFSETS])) + (" ..." if len(taps) > _MOST_OFFSETS else "")
                yield (
                    f"the kernel has {axis.holes} {'hole' if axis.holes == 1 else 'holes'}"
                    f" ({axis_name(len(composed), index)}): it reads at {offsets}"
                )
        if transposed:
            yield "the chain is a transposed convolution: its kernel spreads an element over so many"
    else:
        yield "the chain is no one layer, because windows that spread and windows that skip meet in it"
    totals |= _reach_values(composed)
    least = tuple(axis.reach.least_field for axis in composed)
    if least != totals["receptive_field"]:
        yield f"the receptive field differs from place to place; the least is {shape_text(least)}, the largest is shown"


def _ended(links: Sequence[Link]) -> Iterator[str]:
    """Say where the spatial axes end, if they do before the chain does."""
    for link in links:
        if link.axes is None:
            yield f"{link.name} ends the spatial axes; the geometry is that of the layers before it"
            return


# --- merging --------------------------------------------------------------------------------------------------------


def wiring_text(made: Sequence[Made], source: str) -> str:
    """The merged network as expressions."""
    used = {name for each, after in zip(made, [*made[1:], None], strict=True) for name in each.node.inputs[1:]}
    current = source
    for each in made:
        if each.node.inputs[0] != current:
            used.add(each.node.inputs[0])
        current = each.node.outputs[0]
    words = [f"@{source}"] if source in used else []
    current = source
    for each in made:
        first, *others = each.node.inputs
        if first != current:
            words.append(f"from:@{_tag(first)}")
        links = ",".join(f"@{_tag(name)}" for name in others)
        text = each.expression
        words.append(f"{text}{',' if ':' in text else ':'}{links}" if links else text)
        current = each.node.outputs[0]
        if current in used:
            words.append(f"@{_tag(current)}")
    return " ".join(words)


def _tag(name: str) -> str:
    """What a tensor is called in expressions: those of layers without a name are numbers."""
    return f"t{name}" if name[:1].isdigit() else name


def _merge_notes(made: Sequence[Made], merger: Merger) -> Iterator[str]:
    """What merges, what it saves or loses, where it is exact, and what stops it."""
    for each in made:
        if not each.merges:
            continue
        yield (
            f"{each.names} merge into {each.expression}: {_number(each.weights)} weights against"
            f" {_number(each.was[0])}{_pairs(each)}, {_number(each.macs)} MACs against {_number(each.was[1])}:"
            f" merging {_verdict(each.was[1], each.macs)}"
        )
        if any(map(any, each.border)):
            yield (
                f"the merged layer is exact inside; at the border, outputs may differ, at most"
                f" {border_words(each.border)}, because padding stands between the layers"
            )
            yield from _exact_notes(each)
        else:
            yield "the merged layer is exact everywhere"
    stops = dict(stops_of(merger))
    across = [name for name, reason in stops.items() if not reason]
    if len(made) > 1 and across:
        yield f"weights do not merge across {', '.join(across)}"
    for name, reason in stops.items():
        if reason:
            yield f"{name} does not merge with what comes before it: {reason}"


def _whole_border(made: Sequence[Made], border: Pairs | None) -> Iterator[str]:
    """The border at the end of several layers."""
    if len(made) == 1 or not any(any(map(any, each.border)) for each in made):
        return
    if border is None:
        yield "through the layers after it the border reaches every output"
    else:
        yield f"at the end of all layers, outputs may differ, at most {border_words(border)}"


PADS: dict[int, type[Any]] = {1: Pad1d, 2: Pad2d, 3: Pad3d}


def _exact_notes(each: Made) -> Iterator[str]:
    """The merges that are exact everywhere."""
    layers = padded_first(each)
    if layers:
        yield f"with all padding first, {' '.join(layers)}, they are the merged layer everywhere"
    cut = PADS[len(each.border)](tuple((-before, -after) for before, after in each.border))
    yield f"cut to what is inside, {expression_of(cut)}, both are the same"


def padded_first(each: Made) -> list[str]:
    """The same layers in a row with all padding before the first, as expressions; none where that cannot be."""
    layer: Any = each.node.layer
    convs = [item.layer for item in each.merged]
    if each.map is None or each.map.joins or layer.kind != "conv" or layer.padding_mode != "zeros":
        return []
    if not all(isinstance(conv, Conv) and conv.padding_mode == "zeros" for conv in convs):
        return []
    pads: list[Any] = [layer.padding, *[0] * (len(convs) - 1)]
    return [expression_of(type(conv)(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding,
                                     conv.dilation, conv.groups, conv.bias))
            for conv, padding in zip(convs, pads, strict=True) if isinstance(conv, Conv)]  # fmt: skip


def _verdict(was: Value, now: Value) -> str:
    if not (isinstance(was, int | float) and isinstance(now, int | float)):
        return "costs what is not known"
    return "loses" if now > was else "saves" if now < was else "costs the same"


def _number(value: Value) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _pairs(each: Made) -> str:
    """The weights for each pair of a channel that comes in and one that goes out, where every layer has as many."""
    convs = [item.layer for item in each.merged]
    ends = {conv.bound for conv in (*convs, each.node.layer) if isinstance(conv, Conv)}
    inputs, outputs, groups = next(iter(ends), (1, 1, 1))
    pairs = inputs * outputs // groups
    if len(ends) != 1 or not all(isinstance(conv, Conv) for conv in convs) or pairs == 1:
        return ""
    now, was = (int(value) // pairs for value in (each.weights, each.was[0]) if isinstance(value, int | float))
    return f" ({now} against {was} for each pair of channels)"


def _merged_arrays(made: Sequence[Made], given: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of the merged network, whose layers are named by their index."""
    arrays: dict[str, Array] = {}
    if not any(each.merges or isinstance(each.node.layer, Conv) for each in made):
        names = ", ".join(label(each.kept.node) for each in made if each.kept is not None)
        raise UnsupportedOpError(f"there are no linear layers to merge: {names}")
    for each in made:
        if each.merges:
            found = each.arrays(given)
        elif each.kept is None:
            continue
        else:
            found = own_arrays(each.kept, given)
        arrays |= {f"{each.node.name}.{parameter}": array for parameter, array in found.items()}
    return arrays
