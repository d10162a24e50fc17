"""What a printed model leaves out, said where another value than the one that is taken would change the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from convcalc.analysis.report import Diagnostic
from convcalc.errors import ConvcalcError
from convcalc.layers.base import Layer, shape_text, text_of
from convcalc.tracing import product

if TYPE_CHECKING:
    from convcalc.analysis.shapes import Resolved

Effect = Callable[["Resolved", Layer], str]
"""What an answer would have instead if a layer were this one, in words; nothing if it stays the same."""


def unsaid(resolved: Sequence[Resolved], effect: Effect) -> Iterator[Diagnostic]:
    """A note for each field and kind of layer that has an effect; the first layer stands for all of them."""
    found: dict[tuple[str, str], list[tuple[Resolved, str]]] = {}
    for item in resolved:
        for one in item.node.unsaid:
            try:
                gives = effect(item, one.layer if item.unknown else one.layer.bind(*item.inputs))
            except ConvcalcError:  # the other value does not work here, so it is not meant
                continue
            if gives:
                other = f"--unprinted {one.field}={text_of(one.other)}"
                text = f"{one.field} is not printed and taken as {text_of(one.taken)}; {other} {gives}"
                found.setdefault((one.field, item.layer.kind), []).append((item, text))
    for items in found.values():
        item, text = items[0]
        more = f", and so for {len(items) - 1} more" if len(items) > 1 else ""
        yield Diagnostic("note", text + more, f"{item.node.name} ({item.layer.kind})")


def other_shape(item: Resolved, other: Layer) -> str:
    """Another shape of the output."""
    if item.unknown:
        return ""
    shape = other.infer(*item.inputs)[0]
    return f"gives {shape_text(shape[1:])}" if shape != item.outputs[0] else ""


def other_cost(item: Resolved, other: Layer) -> str:
    """Another shape, other parameters or other FLOPs."""
    counts = [sum(map(product, layer.parameters().values())) for layer in (item.layer, other)]
    if counts[0] != counts[1]:
        return f"gives {counts[1]:,} parameters"
    shape = other_shape(item, other)
    if shape or item.unknown:
        return shape
    flops = other.cost(item.inputs, other.infer(*item.inputs)).flops
    return f"gives {flops:,} FLOPs" if flops != item.layer.cost(item.inputs, item.outputs).flops else ""


def other_memory(item: Resolved, other: Layer) -> str:
    """Another shape, other parameters, further outputs, one that lies in the input, or other tensors kept."""
    if item.unknown:
        return other_cost(item, other)
    shape = other_cost(item, other).partition(" FLOPs")
    if shape[0] and not shape[1]:
        return shape[0]
    outputs = other.infer(*item.inputs)
    if len(outputs) > len(item.outputs):
        return f"gives {len(outputs)} outputs"
    if other.reuses_input(training=False) != item.layer.reuses_input(training=False):
        return "writes over its input"
    kept = [set(layer.saved(item.inputs, item.outputs)) for layer in (item.layer, other)]
    return "keeps other tensors for training" if kept[0] != kept[1] else ""


def other_values(item: Resolved, other: Layer) -> str:
    """Other numbers: what is not printed and does not only say where they are stored."""
    return "gives other numbers" if other != item.layer and not other_memory(item, other).startswith("writes") else ""
