"""Kernels that have a quick way, beside the plain one: NumPy's own function, or the same step by step."""

from __future__ import annotations

import numpy as np
import pytest

from convcalc.errors import ShapeError
from convcalc.executor import adaptive, attention, products, quantized, reduce, windows
from convcalc.executor.kernels import kernel_of
from convcalc.executor.threads import threads
from convcalc.layers.adaptive import AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d
from convcalc.layers.conv import Conv2d
from convcalc.layers.elementwise import Combine, Quantize
from convcalc.layers.matmul import Attention, Einsum
from convcalc.layers.norm import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from convcalc.layers.recurrent import OnnxLSTM
from convcalc.layers.reduce import Reduce, TopK
from convcalc.layers.sample import RoiAlign
from convcalc.layers.tensor import GatherElements, Scatter
from convcalc.narrow import holder, limits


def computed(layer, *inputs, **weights):
    with np.errstate(all="ignore"):
        return kernel_of(layer)(layer, inputs, weights)


def stream():
    return np.random.default_rng(0)


EQUATIONS = (
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("ij,jk->ik", (4, 5), (5, 6)),
    ("ij,jk->ki", (4, 5), (5, 6)),
    ("abc,cbd->bad", (2, 3, 4), (4, 3, 5)),
    ("i,j->ij", (4,), (5,)),
    ("i,i->", (4,), (4,)),
    ("ij,ij->", (4, 5), (4, 5)),
    ("ij,ij->ij", (4, 5), (4, 5)),
    ("ijk,k->ij", (2, 3, 4), (4,)),
    ("ij,jk->i", (4, 5), (5, 6)),
    ("ii,ij->ij", (4, 4), (4, 5)),
    ("bij,bjk->bik", (1, 4, 5), (3, 5, 6)),
    ("...ij,...jk->...ik", (2, 4, 5), (2, 5, 6)),
    ("ij,jk", (4, 5), (5, 6)),
)


@pytest.mark.parametrize(("equation", "first", "second"), EQUATIONS)
def test_products_of_an_equation(equation, first, second):
    a, b = (stream().standard_normal(shape) for shape in (first, second))
    (found,) = computed(Einsum(equation), a, b)
    np.testing.assert_allclose(found, np.einsum(equation, a, b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("kind", ["normal", "equal", "nan", "infinite", "whole"])
def test_the_first_of_the_largest(largest, dim, kind):
    x = stream().standard_normal((60, 70, 40)).astype(np.float32)
    if kind == "equal":
        x = np.round(x)
    elif kind == "nan":
        x[3, 4, 5:7] = np.nan
    elif kind == "infinite":
        x[3:, 4, 5] = x[3, 3:, 5] = x[3, 4, 3:] = -np.inf if largest else np.inf
    elif kind == "whole":
        x = np.round(x * 3).astype(np.int8)
    layer = TopK(5, dim, largest)
    values, places = computed(layer, x)
    order = np.argsort(-x.astype(np.float64) if largest else x, axis=dim, kind="stable")
    if kind == "nan" and largest:  # it counts as the largest, and NumPy puts it last
        order = np.argsort(np.where(np.isnan(x), -np.inf, -x), axis=dim, kind="stable")
    wanted = np.take(order, range(5), axis=dim)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(x, wanted, dim))
    quick = reduce._few(layer, x) is not None
    assert quick == (kind in ("normal", "equal") or (kind == "nan" and largest))


def test_elements_of_rows():
    x = stream().standard_normal((3, 4, 50)).astype(np.float32)
    places = stream().integers(-50, 50, (3, 4, 7))
    (found,) = computed(GatherElements(2), x, places)
    np.testing.assert_array_equal(found, np.take_along_axis(x, places, 2))
    (found,) = computed(GatherElements(2), x, places[:2])
    np.testing.assert_array_equal(found, np.take_along_axis(x[:2], places[:2], 2))
    updates = stream().standard_normal((3, 4, 7)).astype(np.float32)
    (found,) = computed(Scatter(-1), x, places, updates)
    wanted = x.copy()
    np.put_along_axis(wanted, places, updates, 2)
    np.testing.assert_array_equal(found, wanted)
    for wrong in (50, -51):
        places[1, 1, 1] = wrong
        with pytest.raises(ShapeError, match=f"a place is {wrong}, but must be from -50 to 49"):
            computed(GatherElements(2), x, places)


@pytest.mark.parametrize("kinds", [("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
@pytest.mark.parametrize("terms", [3, 256, 1000])
def test_products_of_bytes_are_exact(kinds, terms):
    for ends in (True, False):
        a, b = (
            stream().choice([np.iinfo(kind).min, np.iinfo(kind).max], shape).astype(kind)
            if ends
            else stream().integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)
            for kind, shape in zip(kinds, ((5, terms), (terms, 4)), strict=True)
        )
        for zeros in ((None, None), (np.array(7, kinds[0]), np.arange(4).astype(kinds[1]))):
            left, right = (
                x.astype(object) - (0 if zero is None else zero.astype(object))
                for x, zero in zip((a, b), zeros, strict=True)
            )
            np.testing.assert_array_equal(quantized._product(a, zeros[0], b, zeros[1]), (left @ right).astype(float))


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("channels", "groups", "kernel"), [(3, 1, 3), (70, 1, 3), (300, 1, 1), (4, 2, 2), (2, 1, 20)])
def test_convolutions_of_bytes_are_exact(kind, channels, groups, kernel):
    layer = Conv2d(channels, 4, kernel, padding=kernel // 2, groups=groups, bias=False)
    ends = [np.iinfo(kind).min, np.iinfo(kind).max]
    x = stream().choice(ends, (2, channels, 7, 6)).astype(kind)
    weight = np.random.default_rng(1).choice(ends, (4, channels // groups, kernel, kernel)).astype(kind)
    zero, weight_zero = np.array(7, kind), np.arange(4).astype(kind)
    bound = layer.bind(x.shape)
    found = quantized._convolved(bound, x, zero, weight, weight_zero, np.arange(4, dtype=np.int32))
    whole = weight.astype(np.int64) - weight_zero.astype(np.int64).reshape(-1, 1, 1, 1)
    (wanted,) = computed(bound, x.astype(np.int64) - 7, weight=whole)
    np.testing.assert_array_equal(found, wanted + np.arange(4).reshape(-1, 1, 1))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint4"])
def test_steps_of_a_scale(dtype):
    x = stream().standard_normal((3, 70, 90)).astype(np.float32) * 100
    x.reshape(-1)[:8] = [np.nan, np.inf, -np.inf, 0.5, 1.5, -0.5, -1.5, 1e30]
    low, high = limits(dtype)
    for given, moved in ((1.0, 0), (0.7, 3), ([1, 0.3, 5], [1, 2, 3])):
        scale, zero = np.asarray(given, np.float32), np.asarray(moved, holder(dtype))
        (found,) = computed(Quantize(dtype, axis=0), x, scale, zero)
        column = (-1, 1, 1) if scale.ndim else ()
        steps = np.rint(x / scale.reshape(column)) + zero.reshape(column).astype(np.float64)
        wanted = np.clip(np.where(np.isnan(steps), 0, steps), low, high)
        assert found.dtype == zero.dtype
        np.testing.assert_array_equal(found, wanted)
        (back,) = computed(Quantize("float32", True, axis=0), found, scale, zero)
        np.testing.assert_array_equal(back, (wanted - zero.reshape(column)).astype(np.float32) * scale.reshape(column))


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [((13, 12), (6, 5)), ((7, 7), (1, 1)), ((5,), (3,)), ((9, 8, 7), (2, 3, 4)), ((3, 3), (5, 7)), ((60, 70), (59, 3))],
)
def test_means_of_adaptive_windows(sizes, counts):
    x = stream().random((2, 3, *sizes)).astype(np.float32)
    output = (2, 3, *counts)
    wanted = adaptive._by_windows(x.astype(np.float64), output)
    np.testing.assert_allclose(adaptive.averages(x, output), wanted, rtol=1e-6)
    for odd in (np.inf, -np.inf, np.nan):
        x[(0, 0, *(size // 2 for size in sizes))] = odd
        np.testing.assert_allclose(adaptive.averages(x, output), adaptive._by_windows(x, output), rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
@pytest.mark.parametrize(
    ("cls", "sizes", "counts"),
    [
        (AdaptiveMaxPool2d, (13, 12), (6, 5)), (AdaptiveMaxPool2d, (7, 7), (1, 1)), (AdaptiveMaxPool1d, (5,), (3,)),
        (AdaptiveMaxPool3d, (9, 8, 7), (2, 3, 4)), (AdaptiveMaxPool2d, (3, 3), (5, 7)),
    ],
)  # fmt: skip
def test_maxima_of_adaptive_windows(cls, sizes, counts, kind):
    x = (stream().standard_normal((2, 3, *sizes)) * 100).astype(kind)
    if kind is np.float32:
        x[(0, 0, *(size // 2 for size in sizes))] = np.nan
    (found,) = computed(cls(counts), x)
    np.testing.assert_array_equal(found, computed(cls(counts, return_indices=True), x)[0])


@pytest.mark.parametrize("options", [{}, {"directions": 2}, {"reverse": True}, {"bias": False}, {"batch_first": True}])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_an_lstm_without_arrays_in_its_steps(options, count, batch, monkeypatch):
    from convcalc.executor import recurrent

    monkeypatch.setattr(recurrent, "LEAST_WORK", 1)
    usual = (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0))
    layer = OnnxLSTM(6, 5, given=("initial_h", "initial_c"), **options)
    plain = OnnxLSTM(
        6, 5, given=("initial_h", "initial_c"), activations=usual * layer.directions, **options
    )  # what is said is done step by step
    draw = stream()
    weights = {name: draw.standard_normal(shape) for name, shape in layer.parameters().items()}
    x = draw.standard_normal((batch, 7, 6) if layer.batch_first else (7, batch, 6))
    start = (batch, layer.directions, 5) if layer.batch_first else (layer.directions, batch, 5)
    states = [draw.standard_normal(start) for _ in range(2)]
    with threads(count):
        found = computed(layer, x, *states, **weights)
        wanted = computed(plain, x, *states, **weights)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(2, 6, 40, 50), (3, 6, 3, 5), (1, 6, 1, 1)])
def test_norms_of_rows(shape, count):
    """float32 beside float64."""
    draw = stream()
    x = (draw.standard_normal(shape) * 3 + 10).astype(np.float32)
    channels = {name: draw.standard_normal(6) for name in ("weight", "bias", "running_mean")} | {
        "running_var": draw.random(6) + 0.5
    }
    last = {name: draw.standard_normal(shape[2:]) for name in ("weight", "bias")}
    affine = {name: channels[name] for name in ("weight", "bias")}
    cases = (
        (BatchNorm2d(6), channels), (BatchNorm2d(6, affine=False), {**channels, "weight": None, "bias": None}),
        (BatchNorm2d(6, track_running_stats=False), affine), (GroupNorm(3, 6), affine), (GroupNorm(6, 6), affine),
        (GroupNorm(2, 6), {"bias": affine["bias"]}), (InstanceNorm2d(6, affine=True), affine), (InstanceNorm2d(6), {}),
        (LayerNorm(shape[2:]), last), (LayerNorm(shape[2:]), {"weight": last["weight"]}), (LayerNorm(shape[3:]), {}),
        (RMSNorm(shape[2:]), {"weight": last["weight"]}), (RMSNorm(shape[3:]), {}),
    )  # fmt: skip
    for layer, given in cases:
        weights = {name: array for name, array in given.items() if array is not None}
        with threads(count):
            (found,) = computed(layer, x, **{name: array.astype(np.float32) for name, array in weights.items()})
        (wanted,) = computed(layer, x.astype(np.float64), **weights)
        assert found.dtype == np.float32
        if product_of(layer, shape) > 1:  # of one number by itself nothing is left but its rounding
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5, err_msg=repr(layer))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "groups"), [((2, 8, 1, 1), 2), ((3, 6, 1), 3), ((1, 8, 1, 1), 1), ((2, 4, 3), 2)])
def test_each_group_has_weights_of_its_own(shape, groups, dtype):
    """As the definition says, which of planes of one number, as after a global pool, was not so once."""
    draw = stream()
    x, channels = draw.standard_normal(shape).astype(dtype), shape[1]
    weights = {name: draw.standard_normal(channels).astype(dtype) for name in ("weight", "bias")}
    (found,) = computed(GroupNorm(groups, channels), x, **weights)
    wanted = np.empty(shape)
    for sample in range(shape[0]):
        for first in range(0, channels, channels // groups):
            part = slice(first, first + channels // groups)
            of_group = x[sample, part].astype(np.float64)
            normal = (of_group - of_group.mean()) / np.sqrt(of_group.var() + 1e-5)
            for channel, row in enumerate(normal, first):
                wanted[sample, channel] = row * weights["weight"][channel] + weights["bias"][channel]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def product_of(layer, shape):
    """How many numbers have statistics of their own."""
    return {"groupnorm": 2}.get(layer.kind, 1) * int(np.prod(shape[2:])) if "Batch" not in type(layer).__name__ else 2


@pytest.mark.parametrize("function", ["l1", "l2", "logsum", "logsumexp", "max", "mean", "min", "sum", "sumsquare"])
@pytest.mark.parametrize("dims", [None, (1,), (2,), (1, 2), (0, 2), (0,)])
def test_reductions_of_rows(function, dims):
    x = stream().random((5, 60, 70)).astype(np.float32) + np.float32(0.1)
    for keepdim in (True, False):
        layer = Reduce(function, dims, keepdim)
        (found,) = computed(layer, x)
        (wanted,) = computed(layer, x.astype(np.longdouble))
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted.astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0, -1.0])
def test_powers(power):
    x = stream().random((100, 100)).astype(np.float32) + np.float32(0.1)
    for exponent in (
        np.float32(power).reshape(()),
        np.full((1, 1), power, np.float32),
        np.full(100, power, np.float32),
    ):
        (found,) = computed(Combine("pow"), x, np.asarray(exponent))
        np.testing.assert_allclose(found, x.astype(np.float64) ** power, rtol=5e-7)


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_an_exponent_may_have_more_axes(power):
    x = stream().random(5).astype(np.float32)
    (found,) = computed(Combine("pow"), x, np.full((1, 1), power, np.float32))
    assert found.shape == (1, 5)
    np.testing.assert_allclose(found[0], x.astype(np.float64) ** power, rtol=5e-7)


def empty(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("layer", "shape", "weights"),
    [
        (Conv2d(3, 4, 3), (0, 3, 8, 8), {"weight": (4, 3, 3, 3), "bias": (4,)}),
        (Conv2d(4, 4, 1, groups=2), (0, 4, 8, 8), {"weight": (4, 2, 1, 1), "bias": (4,)}),
        (TopK(1, 1, largest=False), (0, 20), {}),
        (OnnxLSTM(3, 2, bias=False), (5, 0, 3), {"weight_ih": (1, 8, 3), "weight_hh": (1, 8, 2)}),
        (OnnxLSTM(3, 2, bias=False), (0, 2, 3), {"weight_ih": (1, 8, 3), "weight_hh": (1, 8, 2)}),
    ],
)
def test_nothing_gives_nothing(layer, shape, weights):
    """Of a picture without boxes a model may go on with arrays of none."""
    found = computed(layer, empty(*shape), **{name: empty(*sizes) for name, sizes in weights.items()})
    assert [array.shape for array in found] == [*layer.infer(shape)]


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_means_of_boxes_by_products(mode):
    """What is not finite in another image has all boxes done sample by sample."""
    draw = stream()
    x = draw.standard_normal((3, 4, 20, 30))
    boxes = np.sort(draw.random((9, 2, 2)) * 34 - 2, axis=1).reshape(9, 4)
    images = np.array([0, 1] * 4 + [0])
    for layer in (RoiAlign((3, 2), 1.0, 2, mode=mode), RoiAlign((2, 5), 0.7, 0, half_pixel=False, mode=mode)):
        (found,) = computed(layer, x, boxes, images)
        odd = x.copy()
        odd[2] = np.inf
        (wanted,) = computed(layer, odd, boxes, images)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("mode", "known"), windows._NUMPY_MODES.items())
def test_padding_is_numpys(mode, known, seed):
    """Whatever lies in whatever order, and where more is outside than the axis has."""
    draw = np.random.default_rng(seed)
    rank, lead = draw.integers(1, 4), draw.integers(3)
    x = draw.integers(0, 100, (*draw.integers(1, 4, lead), *draw.integers(1, 7, rank))).swapaxes(0, -1)
    pads = tuple((int(before), int(after)) for before, after in draw.integers(0, 8 if seed % 2 else 3, (rank, 2)))
    settings = {"constant_values": 2} if known == "constant" else {}
    wanted = np.pad(x, [(0, 0)] * (x.ndim - rank) + list(pads), known, **settings)
    np.testing.assert_array_equal(windows.pad(x, pads, mode, 2), wanted)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("output", [5, 40, 300])
@pytest.mark.parametrize("apart", [0, 1 << 20])
def test_axes_at_other_sizes_by_products_and_by_picking(count, output, apart, monkeypatch):
    from convcalc.executor import pieces, resample

    monkeypatch.setattr(pieces, "ALONE", 1)
    monkeypatch.setattr(resample, "_APART", apart)
    monkeypatch.setattr(resample, "BLOCK_ELEMENTS", 500)
    draw = stream()
    x = draw.standard_normal((3, 41, 5, 42))
    for axis in range(4):
        size = x.shape[axis]
        centres = (np.arange(output) + 0.5) * size / output - 0.5
        found = resample.taps(centres, size, resample.linear_curve, 1)
        column = (-1, *(1,) * (3 - axis))
        neighbours = zip(found[0].T, found[1].T, strict=True)
        wanted = sum(x.take(places, axis) * shares.reshape(column) for places, shares in neighbours)
        with threads(count):
            np.testing.assert_allclose(resample.weighted(x, axis, *found), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2])
def test_rows_times_a_matrix(count, monkeypatch):
    monkeypatch.setattr(products, "LEAST_WORK", 1)
    draw = stream()
    for shape, columns in (((300, 50), 7), ((4, 75, 50), 7), ((1, 50), 7), ((130, 1), 1), ((50,), 3)):
        x, matrix = draw.standard_normal(shape), draw.standard_normal((shape[-1], columns))
        with threads(count):
            np.testing.assert_allclose(products.rows_times(x, matrix), x @ matrix, rtol=1e-12, atol=1e-12)
            whole = (x * 10).astype(np.int64), (matrix * 10).astype(np.int64)
            np.testing.assert_array_equal(products.rows_times(*whole), whole[0] @ whole[1])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [1.0, 40.0])
@pytest.mark.parametrize("heads", [(6, 6), (6, 2)])
def test_attention_of_a_few_heads_at_a_time(count, size, heads, monkeypatch):
    """With small scores, whose exponentials are taken as they are, and with large ones; four heads divide no count."""
    for name in ("PIECE", "SHARED"):
        monkeypatch.setattr(attention, name, 4 * 8 * 9 * 11 * heads[0] // heads[1])
    draw = stream()
    query, key, value = (
        draw.standard_normal((2, many, length, 5)) * size
        for many, length in ((heads[0], 9), (heads[1], 11), (heads[1], 11))
    )
    with threads(count):
        (found,) = computed(Attention(), query, key, value)
        (causal,) = computed(Attention(causal=True), query, key, value)
    key, value = (x.repeat(heads[0] // heads[1], axis=1) for x in (key, value))
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(5)
    for wanted, seen in ((found, 1), (causal, np.tri(9, 11))):
        hidden = np.where(seen, scores, -np.inf)
        shares = np.exp(hidden - hidden.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(wanted, shares @ value / shares.sum(axis=-1, keepdims=True), rtol=1e-9, atol=1e-12)
