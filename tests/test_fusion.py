"""Layers that run as one give what they give one by one."""

from __future__ import annotations

import numpy as np
import pytest

from convcalc.executor.algorithms import ALGORITHMS
from convcalc.executor.run import compute, prepare
from convcalc.expressions import parse_text


def prepared_of(text, shape=(2, 8, 9, 9), dtype=np.float64, seed=0):
    stream = np.random.default_rng(seed)
    prepared = prepare(parse_text(text), stream.standard_normal(shape).astype(dtype))
    for name, array in prepared.weights.items():  # running statistics are not 0 and 1 in a trained network
        array[...] = stream.random(array.shape) + 0.2 if name.endswith("var") else stream.normal(size=array.shape)
    return prepared


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("conv:8,k3 bn relu", 1),
        ("conv:8,k3,nobias bn silu", 1),
        ("conv:8,k3 relu bn", 2),
        ("conv:8,k3 bn bn", 2),
        ("conv:8,k3 relu6 relu", 2),
        ("conv:8,k3,p1,padding_mode=reflect,g8 bn:affine=false hardswish", 1),
        ("bn relu conv:8,k1 maxpool:2", 3),
        ("conv:8,k3 bn:track_running_stats=false relu", 3),
        ("@x conv:8,k3,p1 bn add:@x relu", 1),
        ("@x conv:8,k1 add:@x", 1),
        ("@x conv:8,k1 add:@x bn", 2),
        ("@x conv:4,k1 relu conv:8,k1 bn add:@x relu", 2),
        ("@x conv:8,k3,p1 relu @y conv:8,k1 add:@x silu", 2),
        ("@x conv:8,k1 add:@x,@x", 2),
        ("@x conv:8,k1 @y add:@x concat:@y", 3),
        ("@x conv:8,k3,p1 @y relu add:@y add:@x leakyrelu", 4),
        ("@x conv:1,k1 add:@x relu", 2),
        ("@x add:@x,@x relu", 1),
        ("convt:8,k3 bn relu", 2),
        ("conv:8,k3 prelu", 2),
        ("conv:8,k3 threshold:threshold=0.1,value=20", 1),
        ("conv:8,k3 softshrink", 1),
    ],
)
def test_joined_layers_give_the_same(text, steps):
    prepared = prepared_of(text)
    assert len(prepared.steps(joined=True)) == steps
    one_by_one = compute(prepared, keep=True)
    joined = compute(prepared)
    assert joined.output.shape == one_by_one.output.shape
    assert joined.output == pytest.approx(one_by_one.output, rel=1e-9, abs=1e-9)
    assert not joined.layers
    assert len(one_by_one.layers) == len(prepared.resolved)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
@pytest.mark.parametrize("text", ["@x conv:8,k3,p1 bn add:@x relu", "@x conv:64,k1 conv:8,k1 add:@x silu"])
def test_a_sum_is_joined_with_every_algorithm(text, algorithm, dtype):
    prepared = prepared_of(text, (2, 8, 20, 20), dtype)
    wanted = compute(prepared, algorithm="direct").output
    for count in (1, 2):
        found = compute(prepared, algorithm=algorithm, threads=count).output
        assert found.dtype == dtype
        assert found == pytest.approx(wanted, rel=1e-3, abs=float(abs(wanted).max()) * 1e-4)


def test_the_later_of_two_branches_has_the_sum():
    """What is added must be there when the convolution is computed."""
    prepared = prepared_of("@x conv:8,k1 bn @y from:@x conv:8,k3,p1 add:@y relu")
    assert [len(step.items) for step in prepared.steps(joined=True)] == [2, 3]


def test_the_input_is_left_alone():
    prepared = prepared_of("@x conv:8,k1 add:@x relu", dtype=np.float32)
    before = prepared.inputs["input"].copy()
    compute(prepared)
    assert np.array_equal(prepared.inputs["input"], before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_stay(dtype):
    prepared = prepared_of("conv:8,k3 bn gelu conv:8,k1 softsign", dtype=dtype)
    assert compute(prepared).output.dtype == dtype


def test_the_direct_way_joins_nothing():
    prepared = prepared_of("conv:8,k3 bn relu", dtype=np.float32)
    direct, kept = compute(prepared, algorithm="direct"), compute(prepared, keep=True, algorithm="direct")
    assert np.array_equal(direct.output, kept.output)


def test_whole_numbers_stay_whole():
    prepared = prepare(
        parse_text("conv:2,k2,nobias relu"), np.arange(18).reshape(2, 3, 3), {"0.weight": np.ones((2, 2, 2, 2), int)}
    )
    assert compute(prepared).output.dtype == np.int64


def test_the_same_weights_serve_other_inputs():
    prepared = prepared_of("conv:8,k3,p1 bn relu", shape=(1, 8, 40, 40), dtype=np.float32)
    other = {"input": np.random.default_rng(5).standard_normal((3, 8, 40, 40)).astype(np.float32)}
    together = compute(prepared, inputs=other).output
    single = compute(prepared, inputs={"input": other["input"][1:2]}).output
    assert together[1] == pytest.approx(single.reshape(together[1].shape), abs=1e-3)
