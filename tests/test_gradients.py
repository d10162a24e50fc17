"""The gradient of every kind of layer against finite differences, and that none is left out."""

from __future__ import annotations

import random
from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules

import numpy as np
import pytest
from gradient_cases import CASES, EXAMPLES, NAMES, WITHOUT, Drawn, numbers
from onnx import helper, numpy_helper
from onnx_models import initializer, integers, model

import convcalc.layers
from convcalc.analysis.shapes import resolve
from convcalc.errors import ShapeError, UnsupportedOpError
from convcalc.executor import norm
from convcalc.executor.fit import fit
from convcalc.executor.gradients import conv as gradients, onnx_nodes
from convcalc.executor.kernels import gradient_of, kernel_of
from convcalc.executor.onnx_nodes import NODES, computing, differentiating
from convcalc.executor.pool import max_indices
from convcalc.executor.run import prepare
from convcalc.executor.threads import threads
from convcalc.executor.windows import pad, unpad
from convcalc.expressions import parse_text
from convcalc.layers import FILE_LAYERS, LAYERS
from convcalc.layers.base import Layer
from convcalc.layers.unpool import MaxUnpool1d
from convcalc.layers.variants import LayerNormStatistics
from convcalc.network import Input, Network, Node
from convcalc.onnx.file import read_onnx


def classes():
    """Every class of layer, ONNX's among them."""
    for module in iter_modules(convcalc.layers.__path__):
        import_module(f"convcalc.layers.{module.name}")
    todo = [Layer]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if "kind" in vars(cls):
            yield cls


def test_every_layer_has_a_gradient_or_a_reason():
    without = set()
    for cls in classes():
        try:
            gradient_of(cls)
        except UnsupportedOpError:
            without.add(cls.kind)
    assert without <= set(WITHOUT)


def test_every_kind_has_an_example():
    assert set(EXAMPLES) <= set(LAYERS)
    tested = {each.layer.kind for each in CASES}
    assert tested <= {*FILE_LAYERS, "multiheadattention", "attention", "matmul"}
    assert tested | set(WITHOUT) >= set(FILE_LAYERS)


def layers_of(kind):
    """The layers of this kind in its example, with the arrays that come into each and its weights."""
    stream = np.random.default_rng(1)
    arrays = {"input": stream.normal(size=(2, 4, 6, 5))}
    for item in resolve(parse_text(EXAMPLES.get(kind, kind)).network((2, 4, 6, 5))):
        inputs = tuple(arrays[name] for name in item.node.inputs)
        sizes = {**item.layer.parameters(), **item.layer.buffers()}
        weights = {name: stream.uniform(0.2, 1.2, size) for name, size in sizes.items()}
        outputs = kernel_of(item.layer)(item.layer, inputs, weights)
        arrays.update(zip(item.node.outputs, outputs, strict=True))
        if item.layer.kind == kind:
            yield Drawn(item.layer, inputs, weights)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in WITHOUT])
def test_the_gradient_is_the_slope(kind):
    found = list(layers_of(kind))
    assert found
    for drawn in found:
        gradients_are_slopes(drawn)


@pytest.mark.parametrize("plane", [1, 1 << 20])
def test_the_gradient_of_a_batch_norm_by_planes_and_at_once(plane, monkeypatch):
    monkeypatch.setattr(norm, "_PLANE", plane)
    for layer, inputs, weights in layers_of("batchnorm"):
        gradients_are_slopes(Drawn(layer, inputs, weights))
        gradients_are_slopes(Drawn(layer, inputs, {name: weights[name] for name in ("weight", "bias")}))
    x = np.random.default_rng(0).normal(100, 1, (3, 4, 5, 6))
    for found, wanted in zip(norm.channel_statistics(x), (x.mean((0, 2, 3)), x.var((0, 2, 3))), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def single(array):
    return array.astype(np.float32) if array.dtype == np.float64 else array


@pytest.mark.parametrize("kind", [kind for kind in (*LAYERS, *FILE_LAYERS) if kind not in WITHOUT])
def test_gradients_of_single_precision_stay_so(kind):
    """One of double precision would make all that come before it so."""
    of_files = (numbers(index) for index in range(len(CASES)) if CASES[index].layer.kind == kind)
    for layer, inputs, weights in layers_of(kind) if kind in LAYERS else of_files:
        given = tuple(map(single, inputs)), {name: single(array) for name, array in weights.items()}
        with np.errstate(all="ignore"):
            outputs = kernel_of(layer)(layer, *given)
            grads = tuple(np.ones(y.shape, np.float32) for y in outputs)
            of_inputs, of_weights = gradient_of(layer)(layer, given[0], outputs, given[1], grads)
        assert {array.dtype for array in (*of_inputs, *of_weights.values()) if array is not None} <= {
            np.dtype(np.float32)
        }


def smooth(index):
    """Whether a case has a slope that steps of a millionth can tell.

    Chosen numbers lie on corners, whose sides have slopes of their own; statistics are in single precision.
    """
    case = CASES[index]
    return not isinstance(case.inputs[0], np.ndarray) and case.layer.kind != "layernormstatistics"


@pytest.mark.parametrize("index", [index for index in range(len(CASES)) if smooth(index)], ids=NAMES.__getitem__)
def test_the_gradient_is_the_slope_in_layers_of_files(index):
    gradients_are_slopes(numbers(index))


def gradients_are_slopes(drawn):
    """The gradients of a layer are what its outputs, weighted at random, change by with each number."""
    layer, inputs, weights = drawn
    inputs = tuple(array.copy() for array in inputs)
    outputs = kernel_of(layer)(layer, inputs, weights)
    stream = np.random.default_rng(0)
    grads = tuple(stream.normal(size=y.shape) if y.dtype.kind == "f" else np.zeros(y.shape) for y in outputs)
    grad_inputs, grad_weights = gradient_of(layer)(layer, inputs, outputs, weights, grads)
    assert set(grad_weights) == set(layer.parameters())
    checked = [pair for pair in zip(inputs, grad_inputs, strict=True) if pair[1] is not None]
    assert checked or grad_weights
    pairs = [*checked, *((weights[name], grad_weights[name]) for name in grad_weights)]
    are_slopes(pairs, lambda: kernel_of(layer)(layer, inputs, weights), grads, stream)


def are_slopes(pairs, outputs, grads, stream):
    """Of each array, a dozen places drawn at random: by how much the weighted outputs change with each number."""
    for array, gradient in pairs:
        assert gradient.shape == array.shape
        for index in stream.choice(array.size, min(array.size, 12), replace=False):
            place = np.unravel_index(index, array.shape)
            before, sums = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = before + step
                sums.append(sum((y * g).sum() for y, g in zip(outputs(), grads, strict=True)))
            array[place] = before
            assert gradient[place] == pytest.approx((sums[0] - sums[1]) / 2e-6, rel=1e-5, abs=1e-6)


def large_convolutions(seed):
    """Convolutions that are large enough for the algorithms that work by blocks."""
    draw = random.Random(seed)
    rank = draw.choice([1, 2, 2, 2, 3])
    kind = draw.choice(["conv", "convt"])
    groups, size = draw.choice([1, 1, 2, 8]), {1: 400, 2: 24, 3: 9}[rank]
    fields = {
        "kernel_size": tuple(draw.choice([1, 2, 3, 3, 5]) for _ in range(rank)),
        "stride": tuple(draw.choice([1, 1, 2, 3]) for _ in range(rank)),
        "padding": tuple(draw.randint(0, 2) for _ in range(rank)),
        "dilation": tuple(draw.choice([1, 1, 2]) for _ in range(rank)),
        "groups": groups,
    }
    if kind == "conv" and draw.random() < 0.3:
        fields["padding_mode"] = draw.choice(["reflect", "replicate", "circular"])
    if kind == "convt":
        most = zip(fields["stride"], fields["dilation"], strict=True)
        fields["output_padding"] = tuple(draw.randint(0, max(pair) - 1) for pair in most)
    layer = LAYERS[kind].layer_class(rank)(groups * draw.randint(1, 6), groups * draw.randint(1, 6), **fields)
    shape = (draw.choice([1, 3]), layer.bound[0], *(draw.randint(size // 2, size) for _ in range(rank)))
    return layer, shape


def plain_gradients(layer, x, weight, grad):
    """Those of input and weight, window by window."""
    groups, axes = layer.groups, "xyz"[: x.ndim - 2]
    taps = list(np.ndindex(*layer.kernel_size))
    if layer.kind == "conv":
        pads = layer.pads(x.shape[2:])
        wide, many = pad(x, pads, layer.padding_mode), grad
    else:
        pads = layer.padding
        wide, many = pad(grad, pads), x
    outputs, inputs = many.shape[1] // groups, wide.shape[1] // groups
    of_weight, of_wide, of_many = np.zeros_like(weight), np.zeros_like(wide), np.zeros_like(many)
    for tap in taps:
        rows = tuple(
            slice(place * spread, place * spread + (count - 1) * step + 1, step)
            for place, spread, count, step in zip(tap, layer.dilation, many.shape[2:], layer.stride, strict=True)
        )
        for group in range(groups):
            own, seen = (
                (slice(None), slice(group * outputs, (group + 1) * outputs)),
                slice(group * inputs, (group + 1) * inputs),
            )
            window = wide[(slice(None), seen, *rows)]
            w = weight[(own[1], slice(None), *tap)]
            of_weight[(own[1], slice(None), *tap)] = np.einsum(f"no{axes},nc{axes}->oc", many[own], window)
            of_wide[(slice(None), seen, *rows)] += np.einsum("oc,no...->nc...", w, many[own])
            of_many[own] += np.einsum("oc,nc...->no...", w, window)
    if layer.kind == "convt":
        return of_many, of_weight
    return unpad(of_wide, pads, x.shape[2:], layer.padding_mode), of_weight


@pytest.mark.parametrize("blocks", [None, 3000])
@pytest.mark.parametrize("seed", range(40))
def test_large_convolutions_have_the_gradients_of_the_plain_formula(seed, blocks, monkeypatch):
    layer, shape = large_convolutions(seed)
    try:
        (output,) = layer.infer(shape)
    except ShapeError:
        return
    if blocks:
        monkeypatch.setattr(gradients, "LAID_ELEMENTS", blocks)
    stream = np.random.default_rng(seed)
    x, grad = stream.normal(size=shape), stream.normal(size=output)
    weights = {name: stream.normal(size=size) for name, size in layer.parameters().items()}
    gradients.way_of.cache_clear()
    with threads(1 + seed % 3):
        (of_x,), learned = gradient_of(layer)(layer, (x,), (grad,), weights, (grad,))
    wanted_x, wanted_weight = plain_gradients(layer, x, weights["weight"], grad)
    np.testing.assert_allclose(of_x, wanted_x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(learned["weight"], wanted_weight, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(learned["bias"], grad.sum((0, *range(2, grad.ndim))), rtol=1e-9, atol=1e-9)
    gradients.way_of.cache_clear()


@pytest.mark.parametrize("seed", range(20))
def test_of_equal_maxima_the_first_is_chosen_and_no_number_is_the_largest(seed):
    draw = random.Random(seed)
    rank = draw.randint(1, 3)
    kernel = tuple(draw.randint(1, 4) for _ in range(rank))
    layer = LAYERS["maxpool"].layer_class(rank)(
        kernel, tuple(draw.randint(1, 3) for _ in range(rank)), tuple(draw.randint(0, size // 2) for size in kernel),
        tuple(draw.randint(1, 3) for _ in range(rank)), ceil_mode=draw.random() < 0.5,
    )  # fmt: skip
    x = np.random.default_rng(seed).integers(-1, 2, (2, 3, *(draw.randint(5, 12) for _ in range(rank)))).astype(float)
    if seed % 3 == 1:
        x[x == 0] = -np.inf
    if seed % 3 == 2:
        x.reshape(-1)[:: draw.randint(5, 40)] = np.nan
    try:
        (y,) = kernel_of(layer)(layer, (x,), {})
    except ShapeError:
        return
    found = max_indices(layer, x, y)
    for place in np.ndindex(y.shape):
        best = None
        for tap in np.ndindex(*layer.kernel_size):
            geometry = zip(place[2:], layer.stride, layer.padding, tap, layer.dilation, strict=True)
            at = tuple(out * step - pair[0] + own * wide for out, step, pair, own, wide in geometry)
            if all(0 <= index < size for index, size in zip(at, x.shape[2:], strict=True)):
                value = x[(*place[:2], *at)]
                if best is None or value > best[0] or (np.isnan(value) and not np.isnan(best[0])):
                    best = value, np.ravel_multi_index(at, x.shape[2:])
        assert found[place] == (0 if best is None else best[1])
    grad = np.random.default_rng(seed).integers(-9, 9, y.shape).astype(np.float32)
    wanted = np.zeros((6, x[0, 0].size), np.float32)
    np.add.at(wanted, (np.arange(6)[:, None], found.reshape(6, -1)), grad.reshape(6, -1))
    for count in (1, 2):
        with threads(count):
            ((given,), _) = gradient_of(layer)(layer, (x.astype(np.float32),), (y.astype(np.float32),), {}, (grad,))
        assert given.tolist() == wanted.reshape(x.shape).tolist()


SHAPE = (2, 4, 3)
NODE_CASES = [
    ("CumSum", {"reverse": 1, "exclusive": 1}, ["whole"], 14),
    ("CumSum", {"exclusive": 1}, ["whole"], 14),
    ("CumProd", {"reverse": 1}, ["whole"], 26),
    ("CumProd", {"exclusive": 1}, ["whole"], 26),
    ("Mod", {"fmod": 1}, ["spread"], 13),
    ("Shrink", {"bias": 0.3, "lambd": 0.2}, [], 9),
    ("Trilu", {"upper": 0}, ["whole"], 14),
    ("GroupNormalization", {"num_groups": 2}, ["groups", "groups"], 18),
    ("GroupNormalization", {"num_groups": 2}, ["channels", "channels"], 21),
    ("MaxPool", {"kernel_shape": [2], "storage_order": 1}, [], 12),
    ("Hardmax", {}, [], 13),
]  # fmt: skip
"""A node, its attributes, what comes in beside x, and the opset; `GIVEN` says what those are."""
GIVEN = {
    "whole": np.array(1),
    "spread": np.random.default_rng(3).uniform(0.4, 0.7, (4, 1)),
    "groups": np.random.default_rng(4).uniform(0.5, 1.5, 2),
    "channels": np.random.default_rng(4).uniform(0.5, 1.5, 4),
}


def node_of(op, attributes, names, opset, shape=SHAPE):
    """The resolved node of a model, whose second and later inputs are constants."""
    kinds = {"f": np.float32, "i": np.int64}
    weights = [
        numpy_helper.from_array(GIVEN[name].astype(kinds[GIVEN[name].dtype.kind]), f"{name}{place}")
        for place, name in enumerate(names)
    ]
    node = helper.make_node(op, ["x", *(weight.name for weight in weights)], ["y"], **attributes)
    text = model([node], {"x": shape}, {"y": None}, weights, opset=opset).SerializeToString()
    (item,) = resolve(read_onnx(text, "m"))
    return item


@pytest.mark.parametrize(("op", "attributes", "names", "opset"), NODE_CASES)
def test_the_gradient_is_the_slope_of_nodes_that_are_computed_otherwise(op, attributes, names, opset):
    item = node_of(op, attributes, names, opset)
    stream = np.random.default_rng(0)
    taken = len(item.node.inputs)
    inputs = (stream.normal(size=SHAPE), *(GIVEN[name].copy() for name in names))[:taken]
    weights = {name: stream.uniform(0.5, 1.5, 4) for name in item.layer.parameters()}
    outputs = computing(item)(inputs, weights)
    grads = tuple(stream.normal(size=y.shape) for y in outputs)
    found, learned = differentiating(item)(inputs, outputs, weights, grads)
    assert set(learned) == set(item.layer.parameters())
    pairs = [*zip(inputs, found, strict=True), *((weights[name], learned[name]) for name in learned)]
    assert all(gradient is None for array, gradient in pairs if array.dtype.kind != "f")
    floats = [(x, np.zeros_like(x) if gradient is None else gradient) for x, gradient in pairs if x.dtype.kind == "f"]
    are_slopes(floats, lambda: computing(item)(inputs, weights), grads, stream)


def test_every_node_that_is_computed_otherwise_has_a_gradient_or_a_reason():
    assert {*onnx_nodes.NODES, *onnx_nodes.WITHOUT} == set(NODES)
    whole = {"ArgMax", "ArgMin", "IsInf", "BitShift"}  # what they give are no floats
    assert {op for op, *_ in NODE_CASES} == set(onnx_nodes.NODES) - whole - {"MaxUnpool"}  # it has the test below


def test_unpooling_into_a_smaller_output_leaves_gradients_out():
    layer = MaxUnpool1d(2, output_size=(5,))
    node = Node("u", layer, ("x", "i"), ("y",), op="MaxUnpool")
    values, places = np.array([[[3.0, 4.0, 5.0]]]), np.array([[[1, 2, 5]]])
    (item,) = resolve(Network(inputs={"x": Input((1, 1, 3)), "i": Input((1, 1, 3))}, nodes=(node,), outputs=("y",)))
    (y,) = computing(item)((values, places), {})
    np.testing.assert_array_equal(y, [[[0, 3, 4, 0, 0]]])
    (found, none), _ = differentiating(item)((values, places), (y,), {}, (np.array([[[1.0, 2.0, 3.0, 4.0, 6.0]]]),))
    np.testing.assert_array_equal(found, [[[2, 3, 0]]])
    assert none is None


def test_statistics_of_layer_norm_hand_their_gradients_back():
    """In single precision, from the formula in double precision."""
    layer = LayerNormStatistics((4,)).bind((3, 4))
    stream = np.random.default_rng(0)
    x, weights = stream.normal(size=(3, 4)), {"weight": np.ones(4), "bias": np.zeros(4)}
    outputs = kernel_of(layer)(layer, (x,), weights)
    grads = tuple(stream.normal(size=y.shape) for y in outputs)

    def weighted(x):
        mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        inverse = 1 / np.sqrt(variance + 1e-5)
        return sum((y * g).sum() for y, g in zip(((x - mean) * inverse, mean, inverse), grads, strict=True))

    (found,), _ = gradient_of(layer)(layer, (x,), outputs, weights, grads)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-6
        assert found[place] == pytest.approx((weighted(x + step) - weighted(x - step)) / 2e-6, rel=1e-5, abs=1e-6)


def test_a_model_of_operators_is_fitted(tmp_path):
    """Operators between the weights and the output, one that has no gradient before all weights, and constants."""
    nodes = [
        helper.make_node("Floor", ["x"], ["floor"]),
        helper.make_node("Conv", ["floor", "w"], ["c"], name="conv"),
        helper.make_node("Sub", ["c", "half"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("ReduceMean", ["t"], ["r"], axes=[2], keepdims=0),
        helper.make_node("Slice", ["r", "zero", "three", "one"], ["p"]),
        helper.make_node("MatMul", ["p", "m"], ["y"], name="fc"),
    ]
    weights = [
        initializer("w", 4, 2, 3, value=np.random.default_rng(0).normal(size=(4, 2, 3))),
        initializer("half", value=0.5),
        initializer("m", 3, 2, value=np.random.default_rng(1).normal(size=(3, 2))),
        integers("zero", [0]),
        integers("three", [3]),
        integers("one", [1]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, {"x": [5, 2, 8]}, {"y": [5, 2]}, weights, opset=13).SerializeToString())
    stream = np.random.default_rng(2)
    x, target = stream.normal(size=(5, 2, 8)).astype(np.float32), stream.normal(size=(5, 2))
    prepared = prepare(read_onnx(path, "m"), x)
    learned = fit(prepared, target, lr=0.02, steps=60)
    assert all(after < before for before, after in pairwise(learned.losses))
    assert learned.losses[-1] < 0.7 * learned.losses[0]
    assert not np.array_equal(learned.result.weights["conv.weight"], prepared.weights["conv.weight"])
