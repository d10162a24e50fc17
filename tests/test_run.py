"""Running networks on arrays: what comes in, what weights decide, and what is shown."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from convcalc.errors import ConvcalcError, ResourceError, ShapeError, UnsupportedOpError
from convcalc.executor.fit import fit
from convcalc.executor.matrix import as_matrix
from convcalc.executor.run import prepare, run
from convcalc.layers.activation import ReLU
from convcalc.layers.conv import Conv2d
from convcalc.layers.linear import Linear
from convcalc.network import Network

X = np.arange(9).reshape(3, 3)
K = np.arange(4).reshape(2, 2)
STACKED_X, STACKED_K = np.stack([X, X + 1]), np.stack([K, K + 1])
EDGES = np.ones((6, 8), np.int64)
EDGES[:, 2:6] = 0


# --- worked examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "weight", "wanted"),
    [
        (X, K, [[19, 25], [37, 43]]),
        (STACKED_X, STACKED_K, [[56, 72], [104, 120]]),
        (
            STACKED_X,
            np.stack([STACKED_K, STACKED_K + 1, STACKED_K + 2]),
            [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]],
        ),
        (EDGES, [1, -1], [[0, 1, 0, 0, 0, -1, 0]] * 6),
        (EDGES.T, [[1, -1]], [[0] * 5] * 8),
    ],
)
def test_cross_correlation(x, weight, wanted):
    output = run("", x, weight).output
    assert output.dtype == np.int64
    assert output.tolist() == wanted


def test_true_convolution_turns_the_kernel():
    assert run("conv", X, K, flip=True).output.tolist() == run("conv", X, K[::-1, ::-1]).output.tolist()


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "shape", "wanted"),
    [
        ("conv:4,k3", (6, 6), (4, 4, 4)),
        ("conv:4,k3", (2, 6, 6), (4, 4, 4)),
        ("conv:4,k3", (5, 2, 6, 6), (5, 4, 4, 4)),
        ("conv1d:k3", (6,), (4,)),
        ("conv:k3", (6,), (4,)),
        ("conv:k3 relu maxpool:2", (9,), (3,)),
        ("conv3d:k2", (4, 4, 4), (3, 3, 3)),
        ("linear:10", (784,), (10,)),
        ("maxpool:2", (4, 4), (2, 2)),
    ],
)
def test_output_has_as_many_axes_as_people_gave(expression, shape, wanted):
    assert run(expression, np.ones(shape)).output.shape == wanted


def test_layers_networks_and_expressions_give_the_same():
    layers = [Conv2d(1, 2, 2), ReLU()]
    wanted = run("conv:2,k2 relu", X).output
    assert np.array_equal(run(layers, X).output, wanted)
    assert np.array_equal(run(Network.chain(*layers, input=(1, 3, 3)), X).output, wanted)


def test_a_network_takes_a_batch_of_its_input():
    network = Network.chain(Conv2d(1, 2, 2), input=(1, 3, 3))
    assert run(network, np.stack([X, X])[:, None]).output.shape == (2, 2, 2, 2)


def test_a_network_refuses_another_shape():
    network = Network.chain(Conv2d(1, 2, 2), input=(1, 3, 3))
    with pytest.raises(ShapeError, match="the input input is 4x4, but the network takes 1x3x3"):
        run(network, np.ones((4, 4)))


# --- weights --------------------------------------------------------------------------------------------------------


def test_a_weight_decides_what_is_open():
    layer = prepare("conv:s2", np.ones((3, 9, 9)), np.ones((4, 3, 3, 5))).resolved[0].layer
    assert (layer.out_channels, layer.kernel_size, layer.stride, layer.bias) == (4, (3, 5), (2, 2), False)


def test_a_kernel_without_channels_is_for_every_channel():
    output = run("conv", STACKED_X, K).output
    assert output.tolist() == [run("conv", X, K).output.tolist(), run("conv", X + 1, K).output.tolist()]


def test_weights_by_name():
    weights = {"stem.weight": np.ones((2, 1, 2, 2)), "stem.bias": [1, -1], "2.weight": np.ones((1, 8))}
    output = run("conv:2,k2,name=stem flatten linear:1", X, weights).output
    ones = run("conv", X, np.ones((2, 2))).output
    assert output.tolist() == [2 * ones.sum() + 4 - 4]


def test_a_bias_for_every_output():
    assert run("conv", X, K, bias=[1]).output.tolist() == [[20, 26], [38, 44]]
    assert run("conv:2", X, np.stack([[K], [K]]), bias=[1, 0]).output[0].tolist() == [[20, 26], [38, 44]]


def test_whole_numbers_with_float_weights_are_floats():
    output = run("conv", X, K + 0.5).output
    assert output.dtype == np.float64
    assert output.tolist() == [[19 + 4, 25 + 6], [37 + 10, 43 + 12]]


def test_float32_stays_float32():
    assert run("conv", X.astype(np.float32), K.astype(np.float64)).output.dtype == np.float32
    assert run("conv:2,k2", X.astype(np.float32)).output.dtype == np.float32


def test_half_floats_and_unsigned_numbers_are_widened():
    assert run("relu", np.ones(3, np.float16)).output.dtype == np.float32
    assert run("relu", np.array([2**64 - 1], np.uint64)).output.tolist() == [2.0**64]
    assert run("relu", np.array([200], np.uint8)).output.dtype == np.int64


@pytest.mark.parametrize("expression", ["@a mul:@a", "@a add:@a", "convt:k2"])
def test_whole_numbers_that_would_wrap_are_refused(expression):
    with pytest.raises(ResourceError, match=r"may pass 2\^63"):
        run(expression, np.full((2, 2), 2**62), np.full((2, 2), 1) if "conv" in expression else None)


def test_weights_drawn_from_a_seed_do_not_depend_on_the_layers_before():
    weights = run("conv:2,k2 linear:3", X, seed=5).weights
    assert np.array_equal(weights["1.weight"], run("relu linear:3", np.ones((3, 2, 2)), seed=5).weights["1.weight"])
    assert np.abs(weights["0.weight"]).max() <= 1 / 2
    assert not np.array_equal(weights["0.weight"], run("conv:2,k2", X, seed=6).weights["0.weight"])


def test_random_weights_are_said():
    assert "the weights of 0 are random, drawn from seed 0" in run("conv:2,k2 relu", X).notes
    assert not any("random" in note for note in run("conv", X, K).notes)


@pytest.mark.parametrize(
    ("expression", "weights", "message"),
    [
        ("conv:4,k3", np.ones((4, 1, 2, 2)), r"layer 0 \(conv\): weight is 4x1x2x2, but must be 4x1x3x3"),
        ("conv:k2", {"0.weihgt": K}, "no layer has a weight 0.weihgt; did you mean '0.weight'?"),
        ("conv:k2", {"0.weight": np.ones((1, 1, 2, 2)), "0.bias": [1, 2]}, r"bias is 2, but must be 1$"),
        ("conv", np.ones((1, 1, 1, 2, 2, 2)), "has 6 axes, but conv takes at most 4"),
        ("relu", K, "no layer has a weight: relu"),
        ("conv", [[1, 2], [3]], "the weight is not an array: its rows differ in length"),
        ("conv", [["a"]], "the weight holds <U1, but must hold"),
    ],
)
def test_weights_that_do_not_fit(expression, weights, message):
    with pytest.raises(ShapeError, match=message):
        run(expression, X, weights)


def test_an_expression_is_not_changed_by_running_it():
    from convcalc.expressions import parse_text

    program = parse_text("conv")
    assert run(program, X, K).output.shape == (2, 2)
    assert run(program, X, np.ones((3, 1, 3, 3))).output.shape == (3, 1, 1)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_every_layer_can_be_kept():
    layers = run("conv:k2,name=first relu flatten", X - 4, [[1, 0], [0, 0]], keep=True).layers
    assert {name: array.shape for name, array in layers.items()} == {"first": (1, 2, 2), "1": (1, 2, 2), "2": (4,)}
    assert layers["1"].tolist() == [[[0, 0], [0, 0]]]


def test_indices_say_what_max_pooling_chose():
    x = np.array([[1, 2, 5, 6], [3, 4, 7, 8], [9, 1, 0, 7], [2, 3, 4, 5]])
    result = run("maxpool:2", x, indices=True)
    assert result.output.tolist() == [[4, 8], [9, 7]]
    assert x.ravel()[result.indices["0"]].tolist() == [[4, 8], [9, 7]]


def test_a_tensor_is_let_go_after_its_last_use():
    import tracemalloc

    tracemalloc.start()
    run("relu relu relu relu relu relu relu relu", np.ones((1, 256, 1024)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * 2**21


def test_one_linear_layer_by_its_class():
    assert run(Linear(3, 2), [1.0, 2.0, 3.0]).output.shape == (2,)


# --- the matrix of a layer ------------------------------------------------------------------------------------------


def test_the_matrix_of_a_convolution_and_of_the_transposed_one():
    kernel = np.arange(1, 10).reshape(3, 3)
    matrix = as_matrix(prepare("conv", np.ones((4, 4), int), kernel))
    assert matrix.shape == (4, 16)
    assert matrix[0].tolist() == [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]
    assert matrix[3].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]
    transposed = as_matrix(prepare("convt", np.ones((2, 2), int), kernel))
    assert transposed.tolist() == matrix.T.tolist()


@pytest.mark.parametrize(
    "expression",
    ["conv:3,k2,s2,p1", "convt:4,k3,s2,g2", "avgpool:2", "conv:4,k3 avgpool:2 flatten linear:3", "linear:2"],
)
def test_the_matrix_does_what_the_layers_do(expression):
    x = np.random.default_rng(0).normal(size=(2, 5, 6))
    prepared = prepare(expression, x)
    offset = run(expression, x * 0).output.ravel()
    assert as_matrix(prepared) @ x.ravel() + offset == pytest.approx(run(expression, x).output.ravel())


def test_what_is_not_linear_has_no_matrix():
    with pytest.raises(UnsupportedOpError, match="layer 1: relu is not linear"):
        as_matrix(prepare("conv:k2 relu", X))


def test_a_matrix_that_is_too_large_is_refused():
    with pytest.raises(ResourceError, match="the matrix would be"):
        as_matrix(prepare("conv:k3", np.ones((3, 224, 224), np.float32)))


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_edge_kernel_is_learned(seed):
    wanted = run("", EDGES, [1, -1]).output
    seen = []
    learned = fit(
        prepare("conv:k1x2,nobias", EDGES, seed=seed), wanted, lr=3e-2, steps=20, on_step=lambda *now: seen.append(now)
    )
    assert learned.result.weights["0.weight"].ravel() == pytest.approx([1, -1], abs=0.02)
    assert len(learned.losses) == 21
    assert seen == list(enumerate(learned.losses[:-1], 1))
    assert all(later < before for before, later in pairwise(learned.losses))


def test_every_parameter_of_a_chain_is_learned():
    x = np.random.default_rng(0).normal(size=(4, 1, 6, 6))
    prepared = prepare("conv:2,k3 relu avgpool:2 flatten linear:1", x)
    learned = fit(prepared, np.arange(4.0)[:, None], lr=5e-3, steps=200)
    assert learned.losses[-1] < learned.losses[0] / 10
    for name, start in prepared.weights.items():
        assert not np.array_equal(learned.result.weights[name], start)


def test_a_rate_that_is_too_large_is_said():
    with pytest.raises(ConvcalcError, match=r"beyond all bounds by step \d+; a smaller rate than 10 is needed"):
        fit(prepare("conv:k2", X), np.zeros((2, 2)), lr=10, steps=500)


def test_a_target_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="the target is 3x3, but the output is 2x2"):
        fit(prepare("conv:k2", X), X)


def test_nothing_to_learn():
    with pytest.raises(ShapeError, match="nothing to learn"):
        fit(prepare("relu", X), X)


def test_layers_over_sequences_run_in_a_network():
    from convcalc.layers.multihead import MultiheadAttention
    from convcalc.layers.recurrent import GRU, LSTM

    layers = LSTM(3, 8, 2, batch_first=True, bidirectional=True), MultiheadAttention(16, 4, batch_first=True)
    network = Network.chain(*layers, GRU(16, 5, batch_first=True), input=(6, 3), batch=2)
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    result = run(network, x)
    assert result.output.shape == (2, 6, 5)
    assert 0 < np.abs(result.weights["0.weight_hh_l1_reverse"]).max() <= 8**-0.5
    assert not result.weights["1.in_proj_bias"].any()
    # A sample by itself gives the same.
    np.testing.assert_allclose(run(network, x[[1, 1]], result.weights).output[0], result.output[1], rtol=1e-12)
