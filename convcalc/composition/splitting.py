"""Splitting: one convolution as two or three smaller ones, exactly or nearly, and what that saves.

Each way is a low-rank approximation of the kernel, laid out as a matrix in its own manner; the singular values say what
is lost. A kernel made of two smaller ones has no such form and is sought step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convcalc import formulas as F
from convcalc.analysis.report import Column, Diagnostic, Report, Row, Value
from convcalc.analysis.shapes import located
from convcalc.composition.compose import compose
from convcalc.composition.factoring import halves, two_kernels
from convcalc.composition.geometry import links_of
from convcalc.composition.parameters import informed, named
from convcalc.errors import ExpressionError, UnsupportedOpError
from convcalc.expressions.writing import expression_of
from convcalc.layers.base import shape_text
from convcalc.layers.conv import Conv
from convcalc.network import Network, Node
from convcalc.tracing import Step, product, recording

if TYPE_CHECKING:
    from convcalc.composition.parameters import GivenWeights

Array = NDArray[Any]
Factors = Callable[[int], list[Array]]
"""The weights of the layers for a rank."""

EXACT = 1e-10
"""The error below which a split is exact: what float64 leaves."""
_POINTS = 12
"""Ranks that a curve shows, at most."""
_LEAST_SIZE = 16
"""Of the input of a proof, where the size is free."""
_LARGE = 20_000
"""Weights from which on a kernel is not split into two of more than twice the weights."""

_COLUMNS = (
    Column("rank", "Rank", total=False),
    Column("error", "Error", "share", total=False),
    Column("params", "Params", total=False),
    Column("macs", "MACs", total=False),
    Column("saved", "Params saved", "percent", total=False),
    Column("macs_saved", "MACs saved", "percent", total=False),
)


@dataclass(frozen=True)
class Way:
    """A way to split: what it makes of a group's kernel, the largest rank there is, the layers of a rank, and how
    the kernel is made of theirs in symbols.
    """

    text: str
    most: Callable[[Conv], int]
    factors: Callable[[Array, Conv, int], Factors]
    layers: Callable[[Conv, int], list[Conv]]
    algebra: str


def split(
    network: Network,
    way: str,
    weights: GivenWeights | None = None,
    *,
    rank: int | None = None,
    error: float | None = None,
    explain: bool = False,
    verify: bool = False,
    seed: int = 0,
) -> Report:
    """A convolution split in a `WAYS`' way: a row for each rank with the error, parameters and MACs.

    The error is that of the kernel, ‖W − W'‖ / ‖W‖. `rank` or the largest `error` that is allowed choose the split
    that the totals and `arrays` are of; without them it is the first that is exact. Without weights the kernel is
    random. With `explain` the rows have their formulas. Raises `UnsupportedOpError` for anything but one convolution.
    """
    if way not in WAYS:
        raise ExpressionError(f"--split is {way}, but must be one of {', '.join(WAYS)}", value=way)
    if len(network.nodes) != 1 or not isinstance(network.nodes[0].layer, Conv):
        kinds = ", ".join(node.layer.kind for node in network.nodes)
        raise UnsupportedOpError(f"one convolution is split at a time, but here is {kinds}")
    given = None if weights is None else named(network, weights)
    if given is not None:
        network = informed(network, given)
    (link,) = links_of(network)
    node, conv = network.nodes[0], link.item.layer
    assert isinstance(conv, Conv)
    _need_window(conv, way, node)
    weight, bias, notes = _kernel(node, conv, given, seed)
    method = WAYS[way]
    groups = conv.bound[2]
    factors = [method.factors(part, conv, seed) for part in np.split(weight, groups)]
    most = method.most(conv)
    known: dict[int, tuple[list[Array], float]] = {}

    def at(count: int) -> tuple[list[Array], float]:
        if count not in known:
            stages = [np.concatenate(each) for each in zip(*(factor(count) for factor in factors), strict=True)]
            known[count] = stages, _error(weight, network, conv, method.layers(conv, count), stages)
        return known[count]

    chosen = _chosen(at, most, rank, error, notes)
    whole = compose(network).totals
    rows = []
    for count in sorted({*_ranks(most), chosen}):
        layers = method.layers(conv, count)
        values: dict[str, Value] = {"split": " ".join(map(expression_of, layers)), "rank": count, "error": at(count)[1]}
        values |= _costs(network, layers)
        values["saved"] = _saved(whole["params"], values["params"])
        values["macs_saved"] = _saved(whole["macs"], values["macs"])
        # The layers of each rank are long, and alike but for the rank: a table has room for the curve without them.
        told = _steps(weight, layers, values, whole) if explain else ()
        rows.append(Row(f"{'> ' if count == chosen else ''}rank {count}", "split", "", (), (), values, steps=told,
                        algebra=(method.algebra,) if explain else ()))  # fmt: skip
    row = next(row for row in rows if row.values["rank"] == chosen)
    totals: dict[str, Value] = dict(row.values)
    totals |= {f"whole_{key}": whole[key] for key in ("params", "macs")}
    stages = at(chosen)[0]
    arrays = {f"{index}.weight": stage for index, stage in enumerate(stages)}
    if conv.bias:
        arrays[f"{len(stages) - 1}.bias"] = np.zeros(conv.bound[1]) if bias is None else bias
    notes += list(_words(way, method, conv, at, totals, most, rank=rank, error=error))
    if verify:
        notes.append(_proved(network, conv, weight, arrays, method.layers(conv, chosen), seed))
    diagnostics = tuple(Diagnostic("note", note) for note in notes)
    return Report("compose", _COLUMNS, tuple(rows), totals, row.values["split"], diagnostics, arrays if given else {})


def _need_window(conv: Conv, way: str, node: Node) -> None:
    if product(conv.kernel_size) == 1 and way != "tucker":
        raise located(UnsupportedOpError("a kernel of one element is not split; --split tucker makes it two"), node)
    if conv.rank == 1 and way == "rank":
        raise located(UnsupportedOpError("a kernel of one axis has no columns and rows"), node)
    if isinstance(conv.padding, str) and conv.padding not in ("valid", "same", "causal", "full"):
        raise located(UnsupportedOpError(f"padding {conv.padding} depends on the input; write it in numbers"), node)


def _kernel(
    node: Node, conv: Conv, given: Mapping[str, Array] | None, seed: int
) -> tuple[Array, Array | None, list[str]]:
    """The weight, the bias, and what to say of them."""
    shape = conv.parameters()["weight"]
    if given is None or f"{node.name}.weight" not in given:
        note = f"the kernel is random (seed {seed}), which nothing splits well; -w gives the real one"
        return np.random.default_rng(seed).normal(size=shape), None, [note]
    weight = given[f"{node.name}.weight"]
    weight = weight.reshape((1,) * (len(shape) - weight.ndim) + weight.shape)
    if weight.shape != shape:
        raise located(ExpressionError(f"weight is {shape_text(weight.shape)}, but must be {shape_text(shape)}"), node)
    if not weight.any():
        raise located(UnsupportedOpError("the kernel is all zeros, which leaves nothing to split"), node)
    return weight, given.get(f"{node.name}.bias"), []


def _ranks(most: int) -> list[int]:
    """Ranks for a curve, closer together where they are small."""
    if most <= _POINTS:
        return list(range(1, most + 1))
    steps = np.geomspace(1, most, _POINTS)
    return sorted({round(float(step)) for step in steps})


def _chosen(
    at: Callable[[int], tuple[list[Array], float]], most: int, rank: int | None, error: float | None, notes: list[str]
) -> int:
    if rank is not None:
        if not 1 <= rank <= most:
            raise ExpressionError(f"--rank is {rank}, but must be 1 to {most}", value=rank)
        return rank
    # The error falls with the rank: halve the range.
    limit = EXACT if error is None else max(error, EXACT)
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle)[1] <= limit else (middle + 1, high)
    if at(low)[1] > limit:
        notes.append(f"no rank reaches an error of {limit:.2g}; the best is shown")
    return low


def _costs(network: Network, layers: Sequence[Conv]) -> dict[str, Value]:
    made = _chained(network, layers)
    totals = compose(made).totals
    return {"params": totals["params"], "macs": totals["macs"]}


def _chained(network: Network, layers: Sequence[Conv]) -> Network:
    chain = Network.chain(*layers, input=None)
    source = chain.nodes[0].inputs[0]
    return replace(chain, inputs=dict(zip((source,), network.inputs.values(), strict=False)))


def _saved(whole: Value, now: Value) -> Value:
    assert isinstance(whole, int | float)
    assert isinstance(now, int | float)
    return F.saved_percent(whole, now)  # type: ignore[arg-type]  # counts of layers are whole


_DIGITS = 6
"""Of numbers in explanations."""


def _steps(
    weight: Array, layers: Sequence[Conv], values: Mapping[str, Value], whole: Mapping[str, Value]
) -> tuple[Step, ...]:
    """The formulas of a row, in numbers that are short enough to read."""

    def short(number: float) -> float:
        return float(f"{number:.{_DIGITS}g}")

    norm = float(np.linalg.norm(weight))
    error: Any = values["error"]
    with recording() as steps:
        F.relative_error(short(error * norm), short(norm))
        F.layers_together(tuple(sum(map(product, layer.parameters().values())) for layer in layers))
        for key in ("params", "macs"):
            _saved(whole[key], values[key])
    for step, name in zip(steps, ("", "params", "params", "MACs"), strict=True):
        step.axis = name
        step.value = short(step.value) if isinstance(step.value, float) else step.value
    return tuple(steps)


def _error(weight: Array, network: Network, conv: Conv, layers: Sequence[Conv], stages: Sequence[Array]) -> float:
    """How far the kernel that the layers merge into is from the one that was split, as a part of it."""
    made = compose(Network.chain(*[_bare(layer) for layer in layers], input=None),
                   {f"{index}.weight": stage for index, stage in enumerate(stages)})  # fmt: skip
    merged = made.arrays["0.weight"]
    groups = conv.bound[2]
    full = merged if merged.shape == weight.shape else _same_groups(merged, weight.shape, groups)
    return F.relative_error(float(np.linalg.norm(full - weight)), float(np.linalg.norm(weight)))


def _same_groups(merged: Array, shape: tuple[int, ...], groups: int) -> Array:
    """A merged weight whose groups are finer or coarser, as one of the groups wanted."""
    rows = np.split(merged, groups)
    inputs = shape[1]
    if merged.shape[1] == inputs * groups:
        return np.concatenate([row[:, index * inputs : (index + 1) * inputs] for index, row in enumerate(rows)])
    raise UnsupportedOpError("the groups of this layer do not split")


def _bare(layer: Conv) -> Conv:
    """The layer without a bias, dilation or stride: what its kernel alone is."""
    return type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size, groups=layer.groups, bias=False)


def _proved(
    network: Network, conv: Conv, weight: Array, arrays: Mapping[str, Array], layers: Sequence[Conv], seed: int
) -> str:
    """Both run on random numbers, in a sentence."""
    from convcalc.executor.run import run

    sizes = tuple(
        max(_LEAST_SIZE, 2 * size * spread) for size, spread in zip(conv.kernel_size, conv.dilation, strict=True)
    )
    if network.inputs:
        sizes = next(iter(network.inputs.values())).shape[2:]
    x = np.random.default_rng(seed).normal(size=(conv.bound[0], *sizes))
    bias = {"0.bias": arrays[f"{len(layers) - 1}.bias"]} if conv.bias else {}
    one = run(Network.chain(conv, input=x.shape), x, {"0.weight": weight, **bias}).output
    many = run(Network.chain(*layers, input=x.shape), x, dict(arrays)).output
    scale = float(np.abs(one).max())
    return (f"on random numbers (seed {seed}), both differ by at most {float(np.abs(one - many).max()):.2g}; the"
            f" largest output is {scale:.2g}")  # fmt: skip


def _words(
    way: str,
    method: Way,
    conv: Conv,
    at: Callable[[int], tuple[list[Array], float]],
    totals: Mapping[str, Value],
    most: int,
    *,
    rank: int | None,
    error: float | None,
) -> Iterator[str]:
    found = totals["error"]
    assert isinstance(found, float)
    exact = found <= EXACT
    yield (
        f"{method.text}, {'exactly' if exact else f'with an error of {found:.3g}'} at rank {totals['rank']}:"
        f" {totals['params']:,} parameters against {totals['whole_params']:,}, {totals['macs']:,} MACs against"
        f" {totals['whole_macs']:,}"
    )
    now, whole = totals["params"], totals["whole_params"]
    assert isinstance(now, int | float)
    assert isinstance(whole, int | float)
    if now >= whole:
        yield "this split saves no parameters"
    if way == "two":
        one = at(1)[1]
        if conv.bound[0] // conv.bound[2] == conv.bound[1] // conv.bound[2] == 1:
            yield (
                f"with one channel between, the error is {one:.3g}: "
                + ("this kernel is two smaller ones" if one <= EXACT else
                   "not every kernel is two smaller ones, because not every polynomial is a product")
            )  # fmt: skip


# --- columns and rows -----------------------------------------------------------------------------------------------


def _ends(conv: Conv) -> tuple[int, int, int]:
    """Channels that come in and go out of each group, and the groups."""
    inputs, outputs, groups = conv.bound
    return inputs // groups, outputs // groups, groups


def _pads(conv: Conv) -> tuple[tuple[int, int], ...]:
    return conv.pads((1,) * len(conv.kernel_size))


def _part(conv: Conv, inputs: int, outputs: int, groups: int, axes: Sequence[bool], *, bias: bool = False) -> Conv:
    """A layer that does what the convolution does along the axes that are marked, and nothing along others."""

    def pick(values: Sequence[Any], other: Any) -> Any:
        return tuple(value if mine else other for value, mine in zip(values, axes, strict=True))

    return type(conv)(
        inputs, outputs, pick(conv.kernel_size, 1), pick(conv.stride, 1), pick(_pads(conv), (0, 0)),
        pick(conv.dilation, 1), groups, bias, conv.padding_mode,
    )  # fmt: skip


def _rank_factors(weight: Array, conv: Conv, seed: int) -> Factors:
    """The kernel as a matrix from (input channel, row) to (output channel, column)."""
    outputs, inputs, first, *others = weight.shape
    matrix = np.moveaxis(weight, (1, 2), (0, 1)).reshape(inputs * first, -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)

    def factors(rank: int) -> list[Array]:
        root = np.sqrt(values[:rank])
        columns = (left[:, :rank] * root).T.reshape(rank, inputs, first, *(1,) * len(others))
        rows = (right[:rank].T * root).reshape(outputs, *others, rank)
        return [columns, np.moveaxis(rows, -1, 1).reshape(outputs, rank, 1, *others)]

    return factors


def _rank_layers(conv: Conv, rank: int) -> list[Conv]:
    inputs, outputs, groups = conv.bound
    first = [axis == 0 for axis in range(len(conv.kernel_size))]
    rest = [not mine for mine in first]
    return [_part(conv, inputs, rank * groups, groups, first),
            _part(conv, rank * groups, outputs, groups, rest, bias=conv.bias)]  # fmt: skip


def _most_rank(conv: Conv) -> int:
    inputs, outputs, _ = _ends(conv)
    return min(inputs * conv.kernel_size[0], outputs * int(product(conv.kernel_size[1:])))


# --- depthwise and pointwise ----------------------------------------------------------------------------------------


def _depthwise_factors(weight: Array, conv: Conv, seed: int) -> Factors:
    """Each input channel's kernels, one for each output, as a matrix of their own."""
    outputs, inputs = weight.shape[:2]
    matrices = np.moveaxis(weight.reshape(outputs, inputs, -1), 1, 0)
    left, values, right = np.linalg.svd(matrices, full_matrices=False)

    def factors(rank: int) -> list[Array]:
        kernels = right[:, :rank].reshape(inputs * rank, 1, *weight.shape[2:])
        mixed = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 0, 2).reshape(outputs, inputs * rank)
        return [kernels, mixed.reshape(outputs, inputs * rank, *(1,) * (weight.ndim - 2))]

    return factors


def _depthwise_layers(conv: Conv, rank: int) -> list[Conv]:
    inputs, outputs, groups = conv.bound
    every = [True] * len(conv.kernel_size)
    none = [False] * len(conv.kernel_size)
    return [_part(conv, inputs, inputs * rank, inputs, every),
            _part(conv, inputs * rank, outputs, groups, none, bias=conv.bias)]  # fmt: skip


def _most_depthwise(conv: Conv) -> int:
    return min(_ends(conv)[1], int(product(conv.kernel_size)))


# --- Tucker: 1x1, k x k, 1x1 ----------------------------------------------------------------------------------------


def _tucker_factors(weight: Array, conv: Conv, seed: int) -> Factors:
    """A core between the channels' leading directions, found by turns until they stand still."""
    outputs, inputs = weight.shape[:2]
    block = weight.reshape(outputs, inputs, -1)

    def leading(matrix: Array, count: int) -> Array:
        found: Array = np.linalg.svd(matrix, full_matrices=False)[0][:, :count]
        return found

    def factors(rank: int) -> list[Array]:
        out, into = min(rank, outputs), min(rank, inputs)
        right = leading(np.moveaxis(block, 1, 0).reshape(inputs, -1), into)
        for _ in range(20):
            left = leading(np.einsum("oik,ir->ork", block, right).reshape(outputs, -1), out)
            right = leading(np.einsum("oik,or->irk", block, left).reshape(inputs, -1), into)
        core = np.einsum("oik,or,is->rsk", block, left, right)
        ones = (1,) * (weight.ndim - 2)
        return [right.T.reshape(right.shape[1], inputs, *ones),
                core.reshape(*core.shape[:2], *weight.shape[2:]),
                left.reshape(outputs, -1, *ones)]  # fmt: skip

    return factors


def _tucker_layers(conv: Conv, rank: int) -> list[Conv]:
    inputs, outputs, groups = conv.bound
    own_in, own_out, _ = _ends(conv)
    into, out = min(rank, own_in) * groups, min(rank, own_out) * groups
    every = [True] * len(conv.kernel_size)
    none = [False] * len(conv.kernel_size)
    return [_part(conv, inputs, into, groups, none), _part(conv, into, out, groups, every),
            _part(conv, out, outputs, groups, none, bias=conv.bias)]  # fmt: skip


def _most_tucker(conv: Conv) -> int:
    return max(_ends(conv)[:2])


# --- two smaller kernels --------------------------------------------------------------------------------------------


def _two_factors(weight: Array, conv: Conv, seed: int) -> Factors:
    return lambda rank: two_kernels(weight, rank, seed)


def _two_layers(conv: Conv, rank: int) -> list[Conv]:
    inputs, outputs, groups = conv.bound
    first, then = halves(conv.kernel_size)
    # All padding stands before the first, so that the second sees what the whole kernel would.
    return [type(conv)(inputs, rank * groups, first, 1, _pads(conv), conv.dilation, groups, False, conv.padding_mode),
            type(conv)(rank * groups, outputs, then, conv.stride, 0, conv.dilation, groups, conv.bias)]  # fmt: skip


def _most_two(conv: Conv) -> int:
    """So many channels hold every kernel: shifted copies of each input channel, of which the second layer's windows
    reach all, or the same for each output.

    Of a large kernel no more are looked at than make twice the weights.
    """
    inputs, outputs, _ = _ends(conv)
    first, then = halves(conv.kernel_size)
    copies = (product([-(-size // part) for size, part in zip(conv.kernel_size, half, strict=True)])
              for half in (then, first))  # fmt: skip
    most = min(int(count) * channels for count, channels in zip(copies, (inputs, outputs), strict=True))
    whole = inputs * outputs * int(product(conv.kernel_size))
    if whole < _LARGE:
        return most
    return max(min(most, 2 * whole // int(inputs * product(first) + outputs * product(then))), 1)


WAYS: dict[str, Way] = {
    "rank": Way(
        "a column and a row",
        _most_rank,
        _rank_factors,
        _rank_layers,
        "W[o,i,y,x] ≈ Σ_r row[o,r,x]·column[r,i,y], r up to the rank",
    ),
    "two": Way(
        "two smaller kernels",
        _most_two,
        _two_factors,
        _two_layers,
        "W[o,i,t] ≈ Σ_m Σ_(u + v = t) second[o,m,v]·first[m,i,u], m up to the rank",
    ),
    "depthwise": Way(
        "depthwise and pointwise",
        _most_depthwise,
        _depthwise_factors,
        _depthwise_layers,
        "W[o,i,t] ≈ Σ_r pointwise[o,i,r]·depthwise[i,r,t], r up to the rank",
    ),
    "tucker": Way(
        "1x1, the kernel, 1x1",
        _most_tucker,
        _tucker_factors,
        _tucker_layers,
        "W[o,i,t] ≈ Σ_p Σ_q last[o,p]·core[p,q,t]·first[q,i], p and q up to the rank",
    ),
}
"""The ways to split a convolution."""
