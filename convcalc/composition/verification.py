"""Proof of a merge: the layers and what they were merged into are run on the same random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convcalc.analysis.report import Diagnostic, Value
from convcalc.composition.borders import border_of, border_words
from convcalc.composition.geometry import Link, source_of
from convcalc.composition.merging import Made
from convcalc.composition.parameters import own_arrays
from convcalc.executor.run import Prepared, prepare, run, steps
from convcalc.layers.base import Pairs, Shape
from convcalc.network import Input, Network
from convcalc.onnx.file import read_onnx
from convcalc.records import replace
from convcalc.tracing import product

Array = NDArray[Any]

TOLERANCE = 1e-9
"""What float64 may lose, as a part of the largest output."""
_ROUNDINGS = 1e4
"""Steps of a model's type that its layers, one after the other, may lose of the largest output."""
_LEAST_SIZE = 16
_LEAST_INSIDE = 4
"""Outputs between the borders, where the size of the input is free."""


def with_input(network: Network, links: Sequence[Link], made: Sequence[Made]) -> Network:
    """The network on an input that is large enough to have an inside."""
    sizes = []
    for axis, composed in enumerate(links[-1].after):
        most = max((sum(each.border[axis]) for each in made if each.border), default=0)
        jump = composed.reach.jump or 1
        sizes.append(max(_LEAST_SIZE, composed.reach.field + int(jump * (most + _LEAST_INSIDE))))
    shape = (1, links[0].channels, *sizes)
    return replace(network, inputs={source_of(network): Input(shape, batch_given=False)})


def verified(
    network: Network, links: Sequence[Link], made: Sequence[Made], given: Mapping[str, Array], seed: int
) -> tuple[dict[str, Value], list[Diagnostic]]:
    """The largest differences inside and at the border, how many outputs differ at each end, and what to say of it.

    Weights that are not given are drawn from the seed.
    """
    weights = {**random_weights(links, seed), **given}
    x = np.random.default_rng(seed).normal(size=links[0].item.inputs[0])
    one, arrays = merged_network(network, made, weights)
    before = _run(network, x, weights)
    after = _run(one, x, arrays)
    scale = max(float(np.abs(before).max(initial=0)), 1e-300)
    apart = np.abs(after - before)
    bound = border_of(made, links, network.outputs[0])
    if bound is None or not bound:
        bound = ((0, 0) if bound is not None else (1 << 30, 1 << 30),) * max(apart.ndim - 2, 0)
    border = measured_border(apart > TOLERANCE * scale, bound)
    inside = _inside(apart, border)
    frame = apart.copy()
    _inside(frame, border).fill(0)
    largest_inside = float(inside.max(initial=0))
    totals: dict[str, Value] = {
        "difference_inside": largest_inside,
        "difference_border": float(frame.max(initial=0)),
        "border_found": border,
    }
    numbers = "random numbers" if given else "random numbers and weights"
    said = f"on {numbers} (seed {seed}), both differ by at most {largest_inside:.2g} inside"
    if any(map(any, border)):
        said += f" and {totals['difference_border']:.2g} at the border, which is {border_words(border)}"
    else:
        said += ", and there is no border" if inside.size else ""
    found = [Diagnostic("note", f"{said}; the largest output is {scale:.2g}")]
    if not inside.size:
        found = [Diagnostic("warning", "every output is at the border: the input is too small to have an inside")]
    elif not np.isfinite(largest_inside) or largest_inside > TOLERANCE * scale:
        found.append(
            Diagnostic("warning", "inside, both differ by more than rounding: the weights' sizes lie too far apart")
        )
    return totals, found


def models_apart(
    network: Network, content: bytes, name: str, path: Path, seed: int
) -> tuple[dict[str, Value], list[Diagnostic]]:
    """How far a model's outputs are from those of the model that was made of it, at most, and what to say of it.

    `content` are the bytes of the new model; beside `path` are the files with weights that both take.
    """
    shapes = {name: given.shape for name, given in network.inputs.items()}
    after = read_onnx(content, name, given=shapes, path=path)
    random = np.random.default_rng(seed)
    inputs = {name: _random_input(random, shape, network.dtypes.get(name, "float32")) for name, shape in shapes.items()}
    before, now = (_as_written(prepare(each, inputs)) for each in (network, after))
    worst, notes = 0.0, []
    for output, array in before.items():
        one, other = (np.asarray(each, np.float64) for each in (array, now[output]))
        scale = float(np.abs(one).max(initial=0))
        apart = float(np.abs(other - one).max(initial=0))
        worst = max(worst, apart)
        least = np.finfo(array.dtype).eps if array.dtype.kind == "f" else 0.0
        which = f" ({output})" if len(before) > 1 else ""
        said = f"on random numbers (seed {seed}), both models differ by at most {apart:.2g}{which}"
        notes.append(Diagnostic("note", f"{said}; the largest output is {scale:.2g}"))
        if not apart <= _ROUNDINGS * float(least) * scale:
            notes.append(Diagnostic("warning", f"both models differ by more than rounding{which}"))
    return {"difference_inside": worst}, notes


def _as_written(prepared: Prepared) -> dict[str, Array]:
    """The outputs, every layer by itself: the executor too folds batch norm, but here that is what is to be proved."""
    found = {**prepared.constants, **prepared.inputs}
    wanted = {name: found[name] for name in prepared.network.outputs if name in found}
    for items, _, outputs, _ in steps(prepared, prepared.inputs):
        pairs = zip(items[-1].node.outputs, outputs, strict=True)
        wanted.update(pair for pair in pairs if pair[0] in prepared.network.outputs)
    return wanted


def _random_input(random: np.random.Generator, shape: Shape, dtype: str) -> Array:
    """Normal numbers; of whole ones such as tokens, small ones."""
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def merged_network(
    network: Network, made: Sequence[Made], weights: Mapping[str, Array]
) -> tuple[Network, dict[str, Array]]:
    """The merged network and its weights by name."""
    arrays: dict[str, Array] = {}
    names = {}
    for each in made:
        names[each.output] = each.node.outputs[0]
        found = each.arrays(weights) if each.merges else {}
        if each.kept is not None:
            found = own_arrays(each.kept, weights)
        arrays |= {f"{each.node.name}.{parameter}": array for parameter, array in found.items()}
    outputs = tuple(names.get(name, name) for name in network.outputs)
    return replace(network, nodes=tuple(each.node for each in made), outputs=outputs), arrays


def random_weights(links: Sequence[Link], seed: int) -> dict[str, Array]:
    """Weights that hide nothing: normal, of a size that keeps outputs near 1, and variances between ½ and 2."""
    random = np.random.default_rng((seed, 1))
    weights: dict[str, Array] = {}
    for link in links:
        for name, shape in {**link.item.layer.parameters(), **link.item.layer.buffers()}.items():
            key = f"{link.item.node.name}.{name}"
            if name == "running_var":
                weights[key] = random.uniform(0.5, 2, shape)
            elif name != "num_batches_tracked":
                spread = sqrt(max(product(shape[1:]), 1)) if name == "weight" else 1.0
                weights[key] = random.normal(size=shape) / spread
    return weights


def _run(network: Network, x: Array, weights: Mapping[str, Array]) -> Array:
    known = {f"{node.name}." for node in network.nodes}
    own = {key: array for key, array in weights.items() if f"{key.rpartition('.')[0]}." in known}
    given = {name: replace(item, shape=x.shape, batch_given=True) for name, item in network.inputs.items()}
    return run(replace(network, inputs=given), x, own).output


def measured_border(differs: Array, bound: Pairs) -> Pairs:
    """How many outputs at either end of each axis differ, from the middle of the other axes; at most the bound."""
    rank = differs.ndim - 2
    border = []
    for axis in range(rank):
        size = differs.shape[2 + axis]
        others = tuple(
            slice(None) if other == axis else _middle(bound[other], differs.shape[2 + other]) for other in range(rank)
        )
        along = differs[:, :, *others]
        places = np.flatnonzero(along.any(axis=tuple(place for place in range(along.ndim) if place != 2 + axis)))
        before, after = bound[axis]
        if before + after >= size:
            before, after = (size + 1) // 2, size // 2
        first, last = places[places < before], places[places >= size - after]
        border.append((int(first[-1]) + 1 if len(first) else 0, size - int(last[0]) if len(last) else 0))
    return tuple(border)


def _middle(pair: tuple[int, int], size: int) -> slice:
    before, after = pair
    return slice(before, size - after) if before + after < size else slice(size // 2, size // 2 + 1)


def _inside(array: Array, border: Pairs) -> Array:
    """What is inside the border."""
    places = tuple(
        slice(before, max(size - after, before)) for (before, after), size in zip(border, array.shape[2:], strict=True)
    )
    return array[:, :, *places]
