# ruff: noqa: T201  a table is printed
"""How exact the executor is: random layers in float32 beside PyTorch's, both against PyTorch's in float64.

python tests/differential/test_torch_accuracy.py        prints the table: algorithm, layers, worst errors
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the bounds are, also when this file is run alone

from test_algorithms import BOUNDS  # noqa: E402  after torch is known to be there

from convcalc.errors import LayerError, ShapeError  # noqa: E402
from convcalc.executor.algorithms import ALGORITHMS, forced  # noqa: E402
from convcalc.executor.conv import padded_problem  # noqa: E402
from convcalc.executor.kernels import kernel_of  # noqa: E402
from convcalc.executor.threads import threads  # noqa: E402
from convcalc.layers import LAYERS  # noqa: E402

pytestmark = pytest.mark.torch

PARTS, LAYERS_OF_A_PART = 8, 400
MOST_MACS = 1 << 23
EPSILON = float(np.finfo(np.float32).eps)
ULPS = 4.0
"""How far off a direct algorithm may be, unless PyTorch is off by more than half as much on the same layer."""

F = torch.nn.functional
Tensor = Any
Shape = tuple[int, ...]


class Case(NamedTuple):
    """A layer, the shapes of its input and weights, and the same in PyTorch, of tensors of any type."""

    layer: Any
    shape: Shape
    weights: dict[str, Shape]
    theirs: Callable[[Tensor, dict[str, Tensor]], Tensor]


def ranked(draw: random.Random, rank: int, low: int, high: int) -> Shape:
    return tuple(draw.randint(low, high) for _ in range(rank))


def pairs(draw: random.Random, rank: int, most: int) -> tuple[tuple[int, int], ...]:
    """Padding, unequal more often than not."""
    return tuple((draw.randint(0, most), draw.randint(0, most)) for _ in range(rank))


def spatial(draw: random.Random, rank: int) -> Shape:
    most = draw.choice([{1: 40, 2: 12, 3: 6}[rank], {1: 400, 2: 30, 3: 11}[rank]])
    return ranked(draw, rank, 2, most)


def channels(draw: random.Random) -> int:
    return draw.choice([1, 2, 3, 8, 16, 33, 64, 128, 300, 512])


def conv(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    inside = channels(draw)
    groups = draw.choice([1, 1, 1, inside, draw.choice([n for n in (1, 2, 3, 4, 8, 11) if inside % n == 0])])
    padding = pairs(draw, rank, draw.choice([0, 1, 3]))
    mode = draw.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    stride = draw.choice([(1,) * rank, ranked(draw, rank, 1, 3)])
    dilation = draw.choice([(1,) * rank, ranked(draw, rank, 1, 2)])
    layer = LAYERS["conv"].layer_class(rank)(
        inside, groups * draw.choice([1, 2, 7, 16]), ranked(draw, rank, 1, draw.choice([1, 3, 5, 7])), stride=stride,
        padding=padding, dilation=dilation, groups=groups, bias=draw.random() < 0.5, padding_mode=mode,
    )  # fmt: skip
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]

    def theirs(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        for axis, pair in enumerate(padding, 2):
            x = padded(x, axis, pair, mode)
        return function(x, weights["weight"], weights.get("bias"), stride, 0, dilation, groups)

    return Case(layer, (draw.randint(1, 3), inside, *spatial(draw, rank)), layer.parameters(), theirs)


def padded(x: Tensor, axis: int, pair: tuple[int, int], mode: str) -> Tensor:
    """One axis at a time: PyTorch's own padding of all is not there for unequal pairs in every mode and type."""
    size, (before, after) = x.shape[axis], pair
    places = torch.arange(-before, size + after)
    if mode == "reflect":
        places = (size - 1) - ((size - 1) - places.abs()).abs()
    elif mode == "circular":
        places = places % size
    inside = (places >= 0) & (places < size)
    found = x.index_select(axis, places.clamp(0, size - 1))
    return found if mode != "zeros" else found * inside.reshape(-1, *(1,) * (x.ndim - 1 - axis))


def transposed(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    inside = channels(draw)
    groups = draw.choice([1, 1, inside])
    stride, kernel, padding = ranked(draw, rank, 1, 4), ranked(draw, rank, 1, 5), pairs(draw, rank, 2)
    more = tuple(draw.randint(0, step - 1) for step in stride)
    dilation = draw.choice([(1,) * rank, ranked(draw, rank, 1, 2)])
    layer = LAYERS["convt"].layer_class(rank)(
        inside, groups * draw.choice([1, 2, 7, 16]), kernel, stride=stride, padding=padding, output_padding=more,
        groups=groups, bias=draw.random() < 0.5, dilation=dilation,
    )  # fmt: skip
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]

    def theirs(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        y = function(x, weights["weight"], weights.get("bias"), stride, 0, more, groups, dilation)
        inner = (slice(before, size - after) for (before, after), size in zip(padding, y.shape[2:], strict=True))
        return y[(slice(None), slice(None), *inner)]

    return Case(layer, (draw.randint(1, 2), inside, *spatial(draw, rank)), layer.parameters(), theirs)


def linear(draw: random.Random) -> Case:
    inside = draw.choice([1, 7, 64, 500, 2048, 9216])
    layer = LAYERS["linear"].layer_class(None)(inside, draw.choice([1, 10, 300]), bias=draw.random() < 0.5)
    shape = (*ranked(draw, draw.randint(1, 2), 1, 9), inside)
    return Case(layer, shape, layer.parameters(), lambda x, w: F.linear(x, w["weight"], w.get("bias")))


def pool(draw: random.Random) -> Case:
    rank = draw.randint(1, 3)
    kernel, stride = ranked(draw, rank, 1, 5), ranked(draw, rank, 1, 3)
    padding = tuple(draw.randint(0, size // 2) for size in kernel)
    ceil = draw.random() < 0.5
    shape = (draw.randint(1, 2), draw.choice([1, 3, 16]), *spatial(draw, rank))
    if draw.random() < 0.5:
        dilation = ranked(draw, rank, 1, 2)
        layer = LAYERS["maxpool"].layer_class(rank)(kernel, stride, padding, dilation, ceil_mode=ceil)
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
        return Case(layer, shape, {}, lambda x, w: function(x, kernel, stride, padding, dilation, ceil))
    counted = draw.random() < 0.5
    layer = LAYERS["avgpool"].layer_class(rank)(kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    return Case(layer, shape, {}, lambda x, w: average(x, kernel, stride, padding, ceil, counted))


def cases(seed: int, count: int) -> Iterator[Case]:
    draw = random.Random(seed)
    while count:
        case = draw.choice([conv, conv, conv, transposed, linear, pool])(draw)
        try:
            layer = case.layer.bind(case.shape)
            (output,) = layer.infer(case.shape)
        except (LayerError, ShapeError):
            continue
        if layer.cost((case.shape,), (output,)).macs <= MOST_MACS:
            count -= 1
            yield case._replace(layer=layer)


# --- the measure ----------------------------------------------------------------------------------------------------


@dataclass
class Worst:
    """The worst of some layers, and which layer came nearest to what is allowed.

    `ulps` are in epsilons of the sum of absolute products, `torch` PyTorch's own, `near` in epsilons of the largest
    such sum that there could be, and `share` is the part of what is allowed.
    """

    layers: int = 0
    ulps: float = 0.0
    torch: float = 0.0
    near: float = 0.0
    share: float = 0.0
    case: str = ""


Found = dict[tuple[str, str], Worst]
"""By algorithm and kind of numbers."""


def ways(case: Case) -> Iterator[tuple[str, str]]:
    """The algorithms that can do a layer, and what the table calls them."""
    kind = case.layer.kind
    if kind not in ("conv", "convt"):
        yield "direct", kind
    elif kind == "convt":
        yield from ((name, f"convt, {name}") for name in ("direct", "grouped", "winograd4"))
    else:
        (output,) = case.layer.infer(case.shape)
        problem, _ = padded_problem(case.layer, case.shape, output)
        yield "direct", "direct"
        yield from ((name, name) for name, algorithm in ALGORITHMS.items() if algorithm.fits(problem))


def measure(case: Case, *, positive: bool, seed: int, found: Found) -> None:
    """Compute a layer in every way, and add to what was found how far each is off."""
    stream = np.random.default_rng(seed)

    def numbers(size: Shape) -> Any:
        return stream.random(size, np.float32) if positive else stream.standard_normal(size, np.float32)

    x, weights = numbers(case.shape), {name: numbers(size) for name, size in case.weights.items()}

    def theirs(dtype: Any, change: Callable[[Any], Any] = np.asarray) -> Any:
        tensors = {name: torch.from_numpy(change(array)).to(dtype) for name, array in weights.items()}
        return case.theirs(torch.from_numpy(change(x)).to(dtype), tensors).numpy()

    exact, absolute, in_float32 = theirs(torch.float64), theirs(torch.float64, np.abs), theirs(torch.float32)
    ulp = np.maximum(absolute * EPSILON, np.finfo(np.float32).smallest_subnormal)
    their_ulps = float((abs(in_float32 - exact) / ulp).max())
    beyond = largest_sum(case, x, weights) * EPSILON
    for name, shown in ways(case):
        with forced(name), threads(1 + seed % 2), patch("convcalc.executor.conv.SMALL", 0):
            y = kernel_of(case.layer)(case.layer, (x,), weights)[0]
        assert y.dtype == np.float32
        assert y.shape == exact.shape
        error = abs(y - exact)
        ulps, near = float((error / ulp).max()), float(error.max() / beyond)
        if case.layer.kind == "maxpool":
            share = float("inf") if ulps else 0.0  # nothing is rounded
        else:
            share = near / BOUNDS[name] if name in BOUNDS else ulps / max(ULPS, 2 * their_ulps)
        worst = found[shown, "positive" if positive else "normal"]
        worst.layers += 1
        worst.ulps, worst.near = max(worst.ulps, ulps), max(worst.near, near)
        worst.torch = max(worst.torch, their_ulps)
        if share >= worst.share:
            worst.share = share
            worst.case = f"{case.layer} on {case.shape}: {ulps:.3g} ulps, PyTorch {their_ulps:.3g}, {near:.3g} near"


def largest_sum(case: Case, x: Any, weights: dict[str, Any]) -> float:
    """The largest sum of absolute weights that an output has, times the largest input: what can meet."""
    if not weights:
        return float(abs(x).max())
    first = (0, *range(2, x.ndim)) if case.layer.kind == "convt" else tuple(range(1, weights["weight"].ndim))
    sums = [abs(weights["weight"]).sum(axis=first).max(), *(abs(weights[name]).max() for name in weights)]
    return float(max(sums)) * max(float(abs(x).max()), 1.0)


def table(parts: int, count: int = LAYERS_OF_A_PART, found: Found | None = None, start: int = 0) -> Found:
    """What is found of so many parts of so many layers each."""
    found = defaultdict(Worst) if found is None else found
    for part in range(start, start + parts):
        for index, case in enumerate(cases(part, count)):
            measure(case, positive=bool(index % 2), seed=part * count + index, found=found)
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_random_layers_are_as_exact_as_is_said(part: int) -> None:
    for (name, data), worst in table(1, start=part).items():
        assert worst.share <= 1, f"{name}, {data} numbers: {worst.case}"


def test_there_are_enough_layers_of_each() -> None:
    assert PARTS * LAYERS_OF_A_PART >= 3000
    kinds = Counter(case.layer.kind for case in cases(0, LAYERS_OF_A_PART))
    assert set(kinds) == {"conv", "convt", "linear", "maxpool", "avgpool"}
    assert min(kinds.values()) >= 20


def main() -> None:
    """Print the table."""
    print("algorithm          numbers   layers    ulps  PyTorch  of what can meet  of bound")
    found = table(PARTS)
    for (name, data), worst in sorted(found.items()):
        ulps = f"{worst.ulps:7.2f}" if name.split(", ")[-1] not in BOUNDS else f"{'':7}"
        print(f"{name:18} {data:9} {worst.layers:6} {ulps} {worst.torch:8.2f} {worst.near:17.2f} {worst.share:9.2f}")
    print("nearest to its bound:", max(found.values(), key=lambda worst: worst.share).case)


if __name__ == "__main__":
    main()
