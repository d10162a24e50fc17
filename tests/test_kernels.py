"""Kernels against naive loops, gradients against finite differences, and the worked examples of the study notes."""

from __future__ import annotations

import math
from itertools import product as grid

import naive
import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from convcalc.errors import LayerError, ResourceError, ShapeError
from convcalc.executor.conv import im2col
from convcalc.executor.kernels import gradient_of, kernel_of
from convcalc.executor.special import erf
from convcalc.executor.threads import share, threads
from convcalc.layers import LAYERS
from convcalc.layers.conv import PADDING_WORDS, Conv1d, Conv2d, ConvTranspose2d
from convcalc.layers.parametric import Hardshrink, Threshold
from convcalc.layers.pool import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d


def numbers(array: naive.Array) -> np.ndarray:
    result = np.zeros(array.shape, dtype=np.int64)
    for index in array.indices:
        result[index] = naive.plain(array[index])
    return result


def computed(layer, *inputs, **weights):
    return kernel_of(layer)(layer, inputs, weights)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_kernel(name):
    for rank in (1, 2, 3):
        kernel_of(LAYERS[name].layer_class(rank))


# --- against naive loops --------------------------------------------------------------------------------------------


@st.composite
def convolutions(draw, transposed=False):
    rank = draw(st.integers(1, 3))
    side = st.integers(1, 4 if rank == 3 else 7)
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4])), *(draw(side) for _ in range(rank)))

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    groups = draw(st.sampled_from([1, shape[1]]))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    fields = {
        "in_channels": shape[1],
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": per_axis(1, 3),
        "stride": per_axis(1, 3),
        "padding": pads,
        "dilation": per_axis(1, 2),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        fields["output_padding"] = per_axis(0, 1)
    elif draw(st.booleans()):
        fields["padding"] = draw(st.sampled_from(PADDING_WORDS))
    try:
        layer = LAYERS["convt" if transposed else "conv"].layer_class(rank)(**fields)
        layer.infer(shape)
    except (LayerError, ShapeError):
        assume(False)
    return layer, shape


def against_naive(layer, shape, loop):
    x = naive.array(shape)
    weights = {name: naive.array(size, seed) for seed, (name, size) in enumerate(layer.parameters().items())}
    (y,) = computed(layer, numbers(x), **{name: numbers(weight) for name, weight in weights.items()})
    assert y.dtype == np.int64
    assert y.tolist() == numbers(loop(layer, x, **weights)).tolist()


@given(convolutions())
def test_convolution(case):
    against_naive(*case, naive.conv)


@given(convolutions(transposed=True))
def test_transposed_convolution(case):
    against_naive(*case, naive.convt)


@st.composite
def pools(draw, kind):
    rank = draw(st.integers(1, 3))
    shape = (1, 2, *(draw(st.integers(1, 4 if rank == 3 else 8)) for _ in range(rank)))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    fields = {
        "kernel_size": kernel,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        "padding": tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    if kind == "maxpool":
        fields["dilation"] = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    else:
        fields["count_include_pad"] = draw(st.booleans())
        fields["divisor_override"] = draw(st.sampled_from([None, 5]))
    layer = LAYERS[kind].layer_class(rank)(**fields)
    try:
        layer.infer(shape)
    except ShapeError:
        assume(False)
    return layer, shape


@given(pools("maxpool"))
def test_max_pooling(case):
    layer, shape = case
    x = naive.array(shape)
    wanted = numbers(naive.maxpool(layer, x))
    (y,) = computed(layer, numbers(x))
    # The loop's padding is 0 and its numbers are positive; a window of padding alone has the lowest of all numbers.
    assert np.maximum(y, 0).tolist() == wanted.tolist()


@given(pools("avgpool"))
def test_average_pooling(case):
    layer, shape = case
    x = numbers(naive.array(shape)).astype(float)
    places = naive.window_starts(layer, shape[2:], layer.padding, layer.ceil_mode, (1,) * len(layer.kernel_size))
    (y,) = computed(layer, x)
    for index in np.ndindex(*y.shape):
        total, inside, padded = 0.0, 0, 0
        for tap in grid(*map(range, layer.kernel_size)):
            at = [axis[i] + t for axis, i, t in zip(places, index[2:], tap, strict=True)]
            real = all(0 <= a < size for a, size in zip(at, shape[2:], strict=True))
            near = all(
                -pair[0] <= a < size + pair[1] for a, size, pair in zip(at, shape[2:], layer.padding, strict=True)
            )
            total += x[(*index[:2], *at)] if real else 0
            inside, padded = inside + real, padded + near
        divisor = layer.divisor_override or (padded if layer.count_include_pad else inside)
        assert y[index] == pytest.approx(total / divisor if divisor else 0)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("zeros", [1, 3, 6, 5, 3]),
        ("reflect", [6, 5, 6, 7, 6]),
        ("replicate", [3, 4, 6, 8, 9]),
        ("circular", [6, 6, 6, 6, 6]),
    ],
)
def test_padding_modes_by_hand(mode, wanted):
    layer = Conv1d(1, 1, 3, padding=2, bias=False, padding_mode=mode)
    (y,) = computed(layer, np.array([[[1, 2, 3]]]), weight=np.ones((1, 1, 3), np.int64))
    assert y.ravel().tolist() == wanted


# --- values that are easy to get wrong ------------------------------------------------------------------------------


def test_max_pooling_of_infinities_chooses_an_element_not_the_padding():
    layer = MaxPool1d(3, stride=2, padding=1, return_indices=True)
    y, indices = computed(layer, np.full((1, 1, 4), -np.inf))
    assert y.tolist() == [[[-np.inf, -np.inf]]]
    assert indices.tolist() == [[[0, 1]]]


def test_max_pooling_keeps_nan():
    y, indices = computed(MaxPool1d(2, return_indices=True), np.array([[[1.0, np.nan, 3.0, 4.0]]]))
    assert np.isnan(y[0, 0, 0])
    assert y[0, 0, 1] == 4
    assert indices.tolist() == [[[1, 3]]]


@pytest.mark.parametrize("layer", [Threshold(0.1, 3.0), Hardshrink(0.5)])
def test_what_is_no_number_stays_so(layer):
    (y,) = computed(layer, np.array([[np.nan, 0.0, 1.0]]))
    assert np.isnan(y[0, 0])
    assert y[0, 1:].tolist() == [3.0 if layer.kind == "threshold" else 0.0, 1.0]


def test_the_largest_whole_numbers_are_refused_not_wrapped():
    layer = Conv1d(1, 1, 2, bias=False)
    with pytest.raises(ResourceError, match="2\\^63"):
        computed(layer, np.full((1, 1, 2), 2**40), weight=np.full((1, 1, 2), 2**40))


def test_a_batch_in_parts_gives_the_same(monkeypatch):
    layer = Conv2d(2, 3, 3, padding=1, bias=False)
    stream = np.random.default_rng(0)
    x, weight = stream.normal(size=(5, 2, 6, 6)), stream.normal(size=(3, 2, 3, 3))
    (whole,) = computed(layer, x, weight=weight)
    monkeypatch.setattr("convcalc.executor.conv.COLUMN_LIMIT", 1)
    (parts,) = computed(layer, x, weight=weight)
    assert np.array_equal(whole, parts)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(4, 6, (3, 2), stride=(1, 2), padding=((0, 1), (2, 1)), groups=2), (2, 4, 5, 6)),
        (Conv1d(2, 2, 3, padding="same", padding_mode="reflect"), (1, 2, 5)),
        (Conv2d(1, 2, 3, padding=2, padding_mode="circular", bias=False), (1, 1, 4, 3)),
        (ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 3, 2)),
        (MaxPool2d(3, stride=2, padding=1), (1, 2, 5, 5)),
        (AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (1, 2, 6, 5)),
        (AvgPool1d(2, stride=3), (1, 2, 7)),
    ],
)
def test_gradient_is_the_slope(layer, shape):
    stream = np.random.default_rng(1)
    arrays = {"input": stream.normal(size=shape)}
    arrays |= {name: stream.normal(size=size) for name, size in layer.parameters().items()}

    def forward():
        weights = {name: array for name, array in arrays.items() if name != "input"}
        return computed(layer, arrays["input"], **weights)

    outputs = forward()
    grad = stream.normal(size=outputs[0].shape)
    weights = {name: array for name, array in arrays.items() if name != "input"}
    (grad_input,), grad_weights = gradient_of(layer)(layer, (arrays["input"],), outputs, weights, (grad,))
    for name, gradient in {"input": grad_input, **grad_weights}.items():
        assert gradient.shape == arrays[name].shape
        for index in list(np.ndindex(*gradient.shape))[::3]:
            before = arrays[name][index]
            slopes = []
            for step in (1e-6, -1e-6):
                arrays[name][index] = before + step
                slopes.append((forward()[0] * grad).sum())
            arrays[name][index] = before
            assert gradient[index] == pytest.approx((slopes[0] - slopes[1]) / 2e-6, abs=1e-6)


# --- worked examples ------------------------------------------------------------------------------------------------


def test_pointwise_convolution_is_a_linear_layer_on_every_pixel():
    stream = np.random.default_rng(0)
    x, weight = stream.normal(size=(3, 3, 3)), stream.normal(size=(2, 3, 1, 1))
    (y,) = computed(Conv2d(3, 2, 1, bias=False), x[None], weight=weight)
    product = weight.reshape(2, 3) @ x.reshape(3, 9)
    assert np.abs(y.reshape(2, 9) - product).max() < 1e-6


def test_im2col_has_one_row_per_window():
    x = np.arange(9).reshape(1, 1, 3, 3)
    rows = im2col(Conv2d(1, 1, 2), x)
    assert rows.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    assert (rows @ np.arange(4)).tolist() == [19, 25, 37, 43]


def test_max_pooling_of_the_notes():
    x = np.array([[1, 2, 5, 6], [3, 4, 7, 8], [9, 1, 0, 7], [2, 3, 4, 5]])
    (y,) = computed(MaxPool2d(2), x[None, None])
    assert y.tolist() == [[[[4, 8], [9, 7]]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_function_is_within_three_roundings(dtype):
    x = np.concatenate([np.linspace(-7, 7, 40001), 10.0 ** np.arange(-300.0, 1, 7), [0.0, -0.0, np.inf, -np.inf]])
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
    found, wanted = erf(x), np.array([math.erf(value) for value in x])
    assert found.dtype == dtype
    with np.errstate(all="ignore"):
        ulps = np.abs(found - wanted) / np.spacing(np.abs(wanted).astype(dtype)).astype(np.float64)
    assert ulps.max() <= 3
    assert np.isnan(erf(np.array([np.nan], dtype)))[0]
    assert np.signbit(erf(np.array([-0.0], dtype)))[0]
    assert erf(np.zeros((2, 0, 3), dtype)).shape == (2, 0, 3)


def test_tasks_that_share_in_their_turn_do_not_wait_for_one_another():
    """An activation in the blocks of a convolution may work in blocks of its own."""
    done = []
    with threads(2):
        share(lambda outer: share(lambda inner: done.append((outer, inner)), range(3)), range(8))
        share(done.append, range(2))
    assert sorted(map(str, done)) == sorted(map(str, [*[(a, b) for a in range(8) for b in range(3)], 0, 1]))
