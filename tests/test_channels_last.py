"""Tensors with their channels last: convolutions into and from them, pools, products by parts, and which are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from convcalc.executor import channel_products
from convcalc.executor.adaptive import averages
from convcalc.executor.affine import affine_into
from convcalc.executor.algorithms import ALGORITHMS, forced
from convcalc.executor.channel_products import laid_by_parts, parts_at_once
from convcalc.executor.channels_last import VARIANTS
from convcalc.executor.conv import convolution
from convcalc.executor.format_choice import channels_last_tensors
from convcalc.executor.fusion import in_place, joined_runs
from convcalc.executor.kernels import LayerWeights, parts_of
from convcalc.executor.memory_format import as_they_lie, empty, is_channels_last, lying, seen
from convcalc.executor.pool import maxima
from convcalc.executor.profile import profile
from convcalc.executor.replay import Replay
from convcalc.executor.run import compute, prepare
from convcalc.executor.threads import collecting, in_a_row, play, threads
from convcalc.executor.winograd import channels_at_once
from convcalc.layers.activation import ReLU
from convcalc.layers.conv import Conv1d, Conv2d, Conv3d
from convcalc.layers.pool import MaxPool2d

BOUNDS = {"winograd2": 2e-4, "winograd4": 2e-3}
"""Of the largest output, for float32; others 1e-5."""


def as_channels_last(array):
    made = empty(array.shape, array.dtype)
    made[...] = array
    return made


def test_arrays_are_seen_in_one_order_and_lie_in_another():
    memory = np.arange(24.0)
    array = seen(memory, (1, 2, 3, 4))
    assert array.shape == (1, 2, 3, 4)
    assert array[0, 1, 0, 0] == 1
    assert is_channels_last(array)
    assert not is_channels_last(np.ascontiguousarray(array))
    assert not is_channels_last(array[:, :1])  # there are gaps
    assert not is_channels_last(np.ones((2, 3)))
    assert lying(array).flags.c_contiguous
    assert [x.shape for x in as_they_lie(array, array)] == [(1, 3, 4, 2)] * 2
    plain = np.ones((1, 2, 3, 4))
    assert as_they_lie(array, plain) == (array, plain)


LAYERS = [
    (Conv2d(32, 64, 1), (2, 32, 9, 11)),
    (Conv2d(600, 64, 1), (1, 600, 5, 7)),
    (Conv2d(256, 96, 1, bias=False), (2, 256, 7, 7)),
    (Conv2d(32, 64, 1, stride=2), (2, 32, 9, 10)),
    (Conv2d(16, 24, 3, padding=1), (2, 16, 13, 18)),
    (Conv2d(16, 24, 3, padding=1), (1, 16, 56, 60)),
    (Conv2d(64, 128, 3, padding=2), (1, 64, 7, 7)),
    (Conv2d(128, 64, 3, stride=2, padding=1), (1, 128, 14, 15)),
    (Conv2d(128, 32, 3, stride=2, padding=1), (3, 128, 5, 5)),
    (Conv2d(24, 32, (3, 2), stride=(1, 2), padding=((1, 0), (0, 2)), dilation=(2, 1)), (2, 24, 12, 13)),
    (Conv2d(3, 64, 7, stride=2, padding=3), (2, 3, 64, 70)),
    (Conv2d(16, 24, 1), (70, 16, 4, 4)),  # many small images
    (Conv2d(16, 32, 3, stride=2, padding=1), (41, 16, 7, 6)),
    (Conv1d(32, 48, 5, padding=2), (2, 32, 300)),
    (Conv3d(8, 16, 3, padding=1), (1, 8, 9, 10, 11)),
]


@pytest.mark.parametrize(("count", "dtype"), [(1, np.float32), (2, np.float32), (3, np.float64)])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(number) for number in range(len(LAYERS))])
def test_any_order_gives_what_the_direct_way_gives(layer, shape, count, dtype):
    stream = np.random.default_rng(0)
    x = stream.standard_normal(shape).astype(dtype)
    weights = {name: stream.standard_normal(size).astype(dtype) for name, size in layer.parameters().items()}
    (output,) = layer.infer(shape)
    added = stream.standard_normal(output).astype(dtype)
    with forced("direct"):
        exact = convolution(layer, x, LayerWeights(weights)) + added
    relu = in_place(ReLU())
    tried = 0
    for name in VARIANTS:
        with threads(count), forced(name):
            for source, target in (("last", "last"), ("first", "last"), ("last", "first")):
                out = (empty if target == "last" else np.empty)(output, dtype)
                given_x = as_channels_last(x) if source == "last" else x
                more = as_channels_last(added) if target == "last" else added
                found = convolution(layer, given_x, LayerWeights(weights), relu, out, [more])
                assert found is out
                bound = BOUNDS.get(name, 1e-5) * (1 if dtype is np.float32 else 1e-8)
                np.testing.assert_allclose(found, np.maximum(exact, 0), rtol=0, atol=bound * abs(exact).max())
                tried += 1
    assert tried == 3 * len(VARIANTS)


@pytest.mark.parametrize("small", [True, False])
@settings(max_examples=30, deadline=None)
@given(
    places=st.integers(1, 700),
    terms=st.sampled_from([1, 36, 256, 300, 512, 576, 1024]),
    channels_out=st.sampled_from([1, 7, 32, 96, 128, 192]),
    count=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_products_by_parts_are_products(small, places, terms, channels_out, count, seed):
    stream = np.random.default_rng(seed)
    a, matrix = stream.standard_normal((places, terms)), stream.standard_normal((channels_out, terms))
    bias, added = stream.standard_normal(channels_out), stream.standard_normal((places, channels_out))
    parts = parts_of(terms) if small and terms % parts_of(terms) == 0 else 0
    weight = laid_by_parts(matrix, parts)
    assert weight.by_parts == bool(parts)
    assert weight.channels_out == channels_out
    result = np.empty((places, channels_out))
    image = channel_products.Places(a, result, [added])
    with threads(count):
        channel_products.share_products([image], weight, bias, None, places * terms * channels_out)
    np.testing.assert_allclose(result, a @ matrix.T + bias + added, rtol=1e-9, atol=1e-9)


def test_parts_divide_the_terms_and_are_exact_enough():
    for places in (1, 8, 49, 196, 784, 6000):
        for terms in (64, 256, 509, 512, 1152, 2048, 4608):
            parts = parts_at_once(places, terms, 512)
            if parts:
                assert terms % parts == 0
                assert parts >= parts_of(terms)
    assert parts_at_once(49, 509, 512) == 0  # a prime


def test_channels_are_multiplied_by_parts_that_two_threads_can_share():
    for channels in (1, 7, 16, 32, 64, 96, 128, 192, 2048):
        assert channels % channels_at_once(channels) == 0


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 30, 31), (3, 64, 14, 15), (50, 16, 9, 8), (3, 32, 100, 99)])
@pytest.mark.parametrize(
    "layer",
    [
        MaxPool2d(3, 2, 1),
        MaxPool2d(2),
        MaxPool2d((1, 3), (1, 2), (0, 1)),
        MaxPool2d((3, 1), 1, (1, 0)),
        MaxPool2d(3, 2, ceil_mode=True),
        MaxPool2d(4, 3, 2, ceil_mode=True),
    ],
)
def test_maxima_in_either_order(layer, shape, count):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (output,) = layer.infer(shape)
    wanted = np.empty(output, np.float32)
    maxima(layer, x, wanted)
    found = empty(output, np.float32)
    with threads(count):
        maxima(layer, as_channels_last(x), found)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", [1, 7, 64, 130])
def test_means_in_either_order(size):
    x = np.random.default_rng(0).random((2, 5, size, 3), np.float32)
    found = averages(as_channels_last(x), (2, 5, 1, 1))
    np.testing.assert_allclose(found[:, :, 0, 0], x.astype(np.float64).mean((2, 3)), rtol=3e-7)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(5, 7), (1, 7, 9, 11), (3, 64, 40, 41), (2, 16, 300), (900, 16, 4, 4)])
def test_lines_of_channels_in_either_order(shape, count):
    stream = np.random.default_rng(0)
    x, scale, move = stream.standard_normal(shape), stream.standard_normal(shape[1]), stream.standard_normal(shape[1])
    column = (-1, *(1,) * (len(shape) - 2))
    wanted = np.maximum(x * scale.reshape(column) + move.reshape(column), 0)
    for made in (np.empty(shape), empty(shape, x.dtype)):
        with threads(count):
            source = as_channels_last(x) if is_channels_last(made) else x
            affine_into(source, scale, move, in_place(ReLU()), made)
        np.testing.assert_array_equal(made, wanted)


def test_a_batch_norm_before_its_convolution_is_part_of_a_row():
    text = "conv:32,k3,p1 @a bn relu conv:16,k3,p1 concat:@a bn silu conv:32,k1 bn conv:8,k3"
    x = np.random.default_rng(0).standard_normal((2, 8, 40, 41)).astype(np.float32)
    prepared = prepare(text, x)
    exact = compute(prepare(text, x), algorithm="direct").output
    with threads(2):
        found = [compute(prepared).output for _ in range(3)]
        assert [len(step.items) for step in prepared.again()] == [10]
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-5 * abs(exact).max())
    for again in found[1:]:
        np.testing.assert_array_equal(again, found[0])


def chosen(text, shape):
    prepared = prepare(text, np.ones(shape, np.float32))
    runs = joined_runs(prepared.network, prepared.resolved)
    return channels_last_tensors(prepared.network, runs, np.dtype(np.float32))


def test_which_tensors_lie_so():
    wide = (1, 16, 64, 64)
    assert chosen("conv:32,k3,p1 relu conv:32,k1 relu conv:8,k3,p1", wide) == {"1", "3"}  # not what goes out
    assert chosen("conv:32,k3,p1 relu conv:32,k3,p1,g32 relu conv:8,k1", wide) == set()  # a reader that cannot
    assert chosen("conv:32,k3,p1 softmax:1 conv:8,k1", wide) == set()
    assert chosen("conv:32,k3,p1 maxpool:2 conv:8,k1", wide) == {"0", "1"}
    assert chosen("conv:32,k3,p1 maxpool:2,dilation=2 conv:8,k1", wide) == set()
    assert chosen("conv:32,k3,p1 globalavgpool", wide) == {"0"}
    # Tensors that are added are of one order.
    assert chosen("conv:32,k3,p1 @a conv:32,k3,p1 add:@a relu conv:8,k1", wide) == {"0", "3"}
    assert chosen("conv:32,k3,p1 @a conv:32,k3,p1 add:@a relu @b conv:8,k1,g8 from:@b conv:8,k1", wide) == set()
    with forced("im2col"):
        assert chosen("conv:32,k3,p1 relu conv:32,k1 relu conv:8,k3,p1", wide) == set()
    assert chosen("conv:8,k3,p1 relu conv:8,k1", (1, 4, 5, 5)) == set()  # so little is done directly


RESNET = (
    "conv:32,k7,s2,p3 bn relu maxpool:3,s2,p1 @a conv:32,k1 relu conv:32,k3,p1 relu conv:64,k1 @b from:@a conv:64,k1"
    " add:@b relu @c conv:32,k3,s2,p1 relu conv:128,k1 @d from:@c conv:128,k1,s2 add:@d relu concat:@d conv:16,k1"
    " globalavgpool flatten linear:10"
)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 3, 96, 100), (3, 3, 96, 100)])
def test_a_network_gives_what_the_direct_way_gives(shape, count):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    prepared = prepare(RESNET, x)
    assert len(chosen(RESNET, shape)) > 4
    exact = compute(prepare(RESNET, x), algorithm="direct").output
    with threads(count):
        found = [compute(prepared).output for _ in range(3)]
        assert any(isinstance(step, Replay) for step in prepared.again())
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-5 * abs(exact).max())
    for again in found[1:]:
        np.testing.assert_array_equal(again, found[0])


def test_a_tensor_between_two_rows_keeps_its_order():
    # What softmax gives is no part of a row, nor is what a sum of other layers' tensors waits for.
    text = "conv:32,k3,p1 relu @a conv:32,k3,p1 relu @b prelu softmax:1 conv:32,k1 relu conv:32,k3,p1 add:@a conv:8,k1"
    x = np.random.default_rng(0).standard_normal((1, 8, 64, 64)).astype(np.float32)
    prepared = prepare(text, x)
    with threads(2):
        found = [compute(prepared).output for _ in range(3)]
        assert sum(isinstance(step, Replay) for step in prepared.again()) == 2
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_every_variant_is_an_algorithm():
    assert {*VARIANTS, *VARIANTS.values()} <= {*ALGORITHMS}


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(number) for number in range(len(LAYERS))])
def test_calls_that_are_kept_take_what_is_there_when_they_are_made(layer, shape):
    stream = np.random.default_rng(0)
    weights = LayerWeights({name: stream.random(size, np.float32) for name, size in layer.parameters().items()})
    (output,) = layer.infer(shape)
    for name in VARIANTS:
        for source, target in ((empty, empty), (np.empty, empty), (empty, np.empty)):
            x, added = source(shape, np.float32), target(output, np.float32)
            out, wanted = target(output, np.float32), target(output, np.float32)
            x[...], added[...] = 0, 0
            with threads(2), forced(name), in_a_row(True):
                with collecting() as stages:
                    convolution(layer, x, weights, in_place(ReLU()), out, [added])
                x[...], added[...] = stream.standard_normal(shape), stream.standard_normal(output)
                play(stages)
                convolution(layer, x, weights, in_place(ReLU()), wanted, [added])
            np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("images", [1, 5])
def test_another_batch_than_was_prepared_is_computed_as_it_is(images):
    text = "conv:32,k3,p1 relu @a conv:32,k3,p1 add:@a relu maxpool:2 conv:8,k1"
    stream = np.random.default_rng(0)
    prepared = prepare(text, stream.random((4, 16, 40, 40), np.float32))
    assert len(chosen(text, (4, 16, 40, 40))) == 3
    x = stream.random((images, 16, 40, 40), np.float32)
    wanted = compute(prepare(text, x, prepared.weights)).output
    for _ in range(3):
        found = compute(prepared, inputs={"input": x}).output
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * abs(wanted).max())


def test_means_of_what_is_not_finite_say_nothing():
    x = as_channels_last(np.full((1, 3, 10, 10), 3e38, np.float32))
    x[0, 1, 0, 0], x[0, 1, 1, 0] = np.inf, -np.inf
    assert averages(x, (1, 3, 1, 1)).ravel()[[0, 2]].tolist() == [np.inf, np.inf]
    assert np.isnan(averages(x, (1, 3, 1, 1))[0, 1, 0, 0])


def test_a_profile_names_what_computed_a_layer():
    text = "conv:64,k3,p1 relu conv:8,k3,p2,d2 relu conv:64,k3,p1"
    prepared = prepare(text, np.ones((1, 64, 40, 40), np.float32))
    rows = profile(prepared, repeats=1).rows
    assert [row.values["algorithm"] for row in rows] == ["winograd4", "im2col", "winograd4"]
    with forced("kn2row"):
        rows = profile(prepared, repeats=1).rows
    assert [row.values["algorithm"] for row in rows] == ["kn2row"] * 3
