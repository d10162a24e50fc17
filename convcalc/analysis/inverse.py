"""The inverse of a shape: which layers of a kind take this input to the sizes wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product as combinations
from typing import Any

from convcalc import formulas as F
from convcalc.analysis.report import Column, Diagnostic, Report
from convcalc.analysis.shapes import View, base_row, resolve
from convcalc.errors import ConvcalcError, ExpressionError, ShapeError
from convcalc.expressions.layer_text import field_names
from convcalc.expressions.program import Program
from convcalc.layers import Kind
from convcalc.layers.base import Layer, Shape, shape_text, spatial, text_of
from convcalc.network import Network, Node, tensor_names
from convcalc.records import replace

_TRIED: dict[str, Sequence[int]] = {
    "kernel_size": range(1, 12),
    "stride": range(1, 9),
    "padding": range(6),
    "dilation": (1, 2, 3),
    "output_padding": range(8),
}
"""What is tried for a field that is left open."""
_SHOWN = 12
_COLUMNS = (Column("unread", "Unread", total=False),)


def inverse(program: Program, sizes: tuple[int, ...], shape: tuple[int, ...] | None = None) -> Report:
    """The layers like the one of the program that give outputs of these sizes, the usual ones first.

    Fields that are written stay as they are, the others are tried: kernels up to 11, strides up to 8, padding up to 5,
    dilation up to 3. Usual are a stride within the kernel, no dilation, all of the input read, an odd kernel or one as
    large as its stride, padding on both sides of the middle, and small numbers. `unread` is how many elements of the
    input, padding apart, are never read at the far ends. `answer` is the first layer's expression.

    Raises `ShapeError` when there is none.
    """
    if len(program.layers) != 1 or not _slides(program.layers[0].kind):
        raise ExpressionError("--to finds one layer with windows; write one, such as conv:k3, or none for any conv")
    (text,) = program.layers
    numbers = program.given if shape is None else shape
    if numbers is None:
        raise ExpressionError("there is no input; write its sizes first, such as 224", field="input")
    rank, given = program.read_input(numbers)
    wanted = spatial(rank, "to", sizes)
    cls = text.kind.layer_class(text.implied_rank or rank)
    text.refuse_missing(cls, _TRIED)
    found = sorted(_found(cls, text.fields, given.shape, wanted), key=lambda layer: _unusual(layer, given.shape))
    if not found:
        fixed = ", ".join(f"{name} {text_of(value)}" for name, value in text.fields.items() if name in _TRIED)
        raise ShapeError(
            f"no {text.kind.name}{' of ' if fixed else ''}{fixed} takes {shape_text(given.shape[2:])} to"
            f" {shape_text(wanted)}, with kernels up to 11, strides up to 8, padding up to 5 and dilation up to 3",
            field="to",
            value=shape_text(wanted),
        )
    rows = []
    for index, layer in enumerate(found[:_SHOWN]):
        name = str(index)
        node = Node(name, layer, ("input",), tensor_names(name, layer))
        network = Network({"input": given}, (node,), (name,))
        resolved = resolve(network)
        row = base_row(resolved[0], View(network, resolved))
        rows.append(replace(row, values={"unread": _unread(layer, given.shape)}))
    count = f"{len(found)} layers give" if len(found) > 1 else "one layer gives"
    rest = f"; the {_SHOWN} most usual are shown" if len(found) > _SHOWN else ""
    notes = (Diagnostic("note", f"{count} {shape_text(wanted)}{rest}"),)
    return Report("shape", _COLUMNS, tuple(rows), {}, rows[0].layer, notes)


def _slides(kind: Kind) -> bool:
    """Whether layers of this kind slide a window over one tensor."""
    if not kind.ranked:
        return False
    cls = kind.layer_class(2)
    return cls.inputs == (1, 1) and {"kernel_size", "stride"} <= set(field_names(cls))


def _found(cls: type[Layer], fixed: Mapping[str, Any], shape: Shape, wanted: tuple[int, ...]) -> Iterator[Layer]:
    """Every layer of the class, with what is fixed and all that is tried, whose output has the sizes wanted."""
    open_fields = [name for name in field_names(cls) if name in _TRIED and name not in fixed]
    for values in combinations(*(_TRIED[name] for name in open_fields)):
        chosen = {**fixed, **dict(zip(open_fields, values, strict=True))}
        if chosen.get("kernel_size") == 1 and chosen.get("dilation", 1) != 1 and "dilation" in open_fields:
            continue
        try:
            layer = cls(**chosen).bind(shape)
            output = layer.infer(shape)[0]
        except ConvcalcError:
            continue
        if output[2:] == wanted:
            yield cls(**chosen)


def _axes(layer: Layer, shape: Shape) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Size, kernel, stride, padding before and after, and dilation of each axis."""
    fields = vars(layer)
    sizes = shape[2:]
    pads = layer.pads(sizes) if hasattr(layer, "pads") else fields.get("padding", ((0, 0),) * len(sizes))
    dilation = fields.get("dilation", (1,) * len(sizes))
    yield from zip(sizes, fields["kernel_size"], fields["stride"], *zip(*pads, strict=True), dilation, strict=True)


def _unread(layer: Layer, shape: Shape) -> int:
    """Elements of the input at the far ends that no window reads, the most of any axis; 0 where nothing is floored."""
    if hasattr(layer, "output_padding") or getattr(layer, "ceil_mode", False):
        return 0
    return max(max(F.unread(*axis) - axis[4], 0) for axis in _axes(layer, shape))


def _unusual(layer: Layer, shape: Shape) -> tuple[Any, ...]:
    """What to sort by: the reasons why one would not take this layer, the worst first, then how large it is."""
    transposed = hasattr(layer, "output_padding")
    reasons = []
    for _, kernel, stride, before, after, dilation in _axes(layer, shape):
        extent = F.kernel_extent(kernel, dilation)
        uneven = kernel % stride != 0 if transposed else kernel % 2 == 0 and kernel != stride
        # Centred is half the kernel on each side; where the stride is even, half of what the stride leaves.
        padding = before + after
        off_centre = min(abs(padding - (extent - 1)), abs(padding - max(extent - stride, 0)))
        reasons.append((stride > extent, dilation > 1, uneven, off_centre > 1, off_centre))
    gaps, dilated, uneven, aside, off_centre = (max(column) for column in zip(*reasons, strict=True))
    extra = max(getattr(layer, "output_padding", (0,)))
    sizes = [axis[1:] for axis in _axes(layer, shape)]
    usual = 3 if layer.kind == "conv" else 2
    away = max(abs(kernel - usual) for kernel, *_ in sizes)
    return gaps, dilated, _unread(layer, shape) > 0, extra, uneven, aside, off_centre, away, sizes
