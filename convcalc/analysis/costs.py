"""Costs: parameters, MACs and exact FLOPs, forward and backward, and the time they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convcalc import formulas as F
from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import Resolved, View, base_row, diagnose, located, need_layers, resolve, rule
from convcalc.analysis.unsaid import other_cost
from convcalc.errors import ConvcalcError
from convcalc.layers.base import Cost, choice, whole
from convcalc.network import Network
from convcalc.tracing import Step, product, recording

CONVENTIONS = ("exact", "macs", "2mac", "torch", "fvcore", "thop", "ptflops")
"""What the FLOPs column can follow: exact counts, or another tool's way of counting."""

GROUPS = ("layer", "kind", "module")
"""What a row of costs can be of."""

_FORWARD = (
    Column("params", "Params"),
    Column("macs", "MACs"),
    Column("flops", "FLOPs"),
    Column("multiplications", "Mult", wide=True),
    Column("additions", "Add", wide=True),
)
_BUFFERS = Column("buffers", "Buffers", wide=True)
"""What is kept and not learned, such as running means; a column where a layer has some."""
_NO_PRODUCTS = "no products"


def costs(
    network: Network,
    *,
    backward: bool = False,
    input_grad: bool = False,
    convention: str = "exact",
    samples: int | None = None,
    speed: float | None = None,
    explain: bool = False,
    by: str = "layer",
    depth: int = 1,
) -> Report:
    """What every layer costs, and all of them.

    With `backward`, what each gradient costs too; the network's own input needs none unless `input_grad`. `convention`
    changes the FLOPs alone, of the backward pass too where it counts MACs. `samples` multiplies the totals, and `speed`
    (FLOPs a second) gives the time in seconds. `by` sums the rows up by "kind", or by "module", of which `depth` levels
    are told apart.

    Raises `ShapeError` for an input that a layer cannot take, `LayerError` for an unknown convention or `by`.
    """
    choice("convention", convention, CONVENTIONS)
    choice("by", by, GROUPS)
    need_layers(network)
    resolved = resolve(network, partial=True)
    view = View(network, resolved)
    columns = list(_FORWARD)
    if any(item.buffers for item in resolved):
        columns.append(_BUFFERS)
    if backward:
        names = _gradient_names(resolved)
        columns += [Column(f"backward_{name}_macs", f"∂{name} MACs", wide=True) for name in names]
        columns += [Column("backward_macs", "Backward MACs"), Column("backward_flops", "Backward FLOPs")]
    rows = []
    needed = needs_gradient(network, resolved, input_grad=input_grad)
    for item in resolved:
        values, reasons, steps = _forward(item, convention, explain=explain)
        if _BUFFERS in columns:
            values["buffers"] = sum(product(shape) for shape in item.buffers.values())
        if backward:
            values |= _backward(item, names, any(needed[item.node.name]), convention)
            if explain and not item.unknown:
                reasons["backward_flops"] = rule(item.layer.backward)
        rows.append(base_row(item, view, values, reasons, steps))
    totals = total(columns, rows)
    partial = parts(columns, rows) | ({"params"} if network.hidden else set())
    diagnostics = [*diagnose(network, resolved, other_cost)]
    if convention != "exact":
        apart = "" if convention in _FLOPS_PER_MAC or not backward else ", which counts forward; backward are exact"
        diagnostics.append(Diagnostic("note", f"FLOPs by the convention of {convention}{apart}"))
    _time(totals, samples, speed, backward=backward)
    if partial & {"flops", "backward_flops"}:
        partial |= {"total_flops", "seconds"} & totals.keys()
    if by != "layer":
        from convcalc.analysis.grouping import by_kind, nested

        rows = by_kind(rows, columns) if by == "kind" else list(nested(rows, columns, whole("depth", depth)))
    return Report(
        "flops",
        tuple(columns),
        tuple(rows),
        totals,
        totals["macs"],
        tuple(diagnostics),
        partial=frozenset(partial),
    )


def parameter_count(item: Resolved) -> int | None:
    """All elements of all parameters of a layer; None where they are not known."""
    shapes = item.parameters
    return None if shapes is None else sum(F.parameter_elements(shape) for shape in shapes.values())


def parts(columns: Sequence[Column], rows: Sequence[Row]) -> set[str]:
    """The columns with a total of which a row's value is unknown."""
    return {
        column.key for column in columns if column.total and any(row.values.get(column.key, 0) is None for row in rows)
    }


def total(columns: Sequence[Column], rows: Sequence[Row]) -> dict[str, Value]:
    """The sum of what is known of each column that has one; None when nothing is. See `parts`."""
    totals: dict[str, Value] = {}
    for column in columns:
        if not column.total:
            continue
        values = [row.values.get(column.key, 0) for row in rows]
        known = [value for value in values if isinstance(value, int | float)]
        totals[column.key] = sum(known) if known else None
    return totals


def _forward(
    item: Resolved, convention: str, *, explain: bool
) -> tuple[dict[str, Value], dict[str, str], tuple[Step, ...]]:
    steps: list[Step] = []
    if item.unknown:
        unknown = dict.fromkeys((*(column.key for column in _FORWARD), "other"))
        return unknown | {"params": parameter_count(item)}, {}, ()
    try:
        if explain:
            with recording() as steps:
                cost = item.layer.cost(item.inputs, item.outputs)
        else:
            cost = item.layer.cost(item.inputs, item.outputs)
    except ConvcalcError as error:
        raise located(error, item.node) from None
    values: dict[str, Value] = {
        "params": parameter_count(item),
        "macs": cost.macs,
        "flops": flops_by(convention, item, cost),
        "multiplications": cost.multiplications,
        "additions": cost.additions,
        "other": cost.other,
    }
    reasons = {} if cost.macs else {"macs": _NO_PRODUCTS}
    if values["flops"] == 0 and cost.flops:
        reasons["flops"] = f"{convention} counts nothing here"
    elif explain:
        reasons["flops"] = rule(item.layer.cost)
    if explain:
        steps = [*_parameter_steps(item), *steps]
        counts = cost.multiplications, cost.additions, cost.other
        if convention == "exact" and sum(map(bool, counts)) > 1:
            steps.append(Step(F.operations, counts, "", cost.flops))
    return values, reasons, tuple(steps)


def _parameter_steps(item: Resolved) -> Iterator[Step]:
    """How many parameters each weight of a layer is; nothing where its shape is not known."""
    for name, shape in (item.parameters or {}).items():
        yield Step(F.parameter_elements, (tuple(shape),), name, F.parameter_elements(tuple(shape)))


def flops_by(convention: str, item: Resolved, cost: Cost) -> int:
    """The FLOPs of a layer as a convention counts them."""
    if convention == "exact":
        return cost.flops
    from convcalc.analysis.conventions import CONVENTION_RULES

    return CONVENTION_RULES[convention](item, cost)


def _gradient_names(resolved: Sequence[Resolved]) -> list[str]:
    names = ["input"]
    for item in resolved:
        names += [name for name in item.parameters or () if name not in names]
    return names


def needs_gradient(network: Network, resolved: Sequence[Resolved], *, input_grad: bool) -> dict[str, tuple[bool, ...]]:
    """Which of its inputs each layer owes a gradient to: those with something to learn before them."""
    learned = dict.fromkeys(network.inputs, input_grad)
    learned |= {name: constant.parameter for name, constant in network.constants.items()}
    needed = {}
    for item in resolved:
        owed = needed[item.node.name] = tuple(learned.get(name, True) for name in item.node.inputs)
        learned.update(dict.fromkeys(item.node.outputs, any(owed) or item.parameters != {}))
    return needed


_FLOPS_PER_MAC = {"macs": 1, "2mac": 2}
"""The conventions that the backward pass follows; tools have their rules for the forward pass alone."""


def _backward(item: Resolved, names: Sequence[str], needs_input: bool, convention: str) -> dict[str, Value]:
    if item.unknown:
        return dict.fromkeys((*(f"backward_{name}_macs" for name in names), "backward_macs", "backward_flops"))
    gradients: Mapping[str, Cost] = {
        name: cost
        for name, cost in item.layer.backward(item.inputs, item.outputs).items()
        if name != "input" or needs_input
    }
    values: dict[str, Value] = {f"backward_{name}_macs": gradients.get(name, Cost()).macs for name in names}
    everything = sum(gradients.values(), Cost())
    per_mac = _FLOPS_PER_MAC.get(convention)
    flops = everything.flops if per_mac is None else per_mac * everything.macs
    return values | {"backward_macs": everything.macs, "backward_flops": flops}


def _time(totals: dict[str, Value], samples: int | None, speed: float | None, *, backward: bool) -> None:
    operations = totals["flops"]
    if backward and isinstance(operations, int) and isinstance(totals["backward_flops"], int):
        operations += totals["backward_flops"]
    if not isinstance(operations, int):
        return
    if samples is not None:
        operations *= samples
        totals["samples"] = samples
        totals["total_flops"] = operations
    if speed is not None:
        totals["seconds"] = operations / speed
