"""Learning: weights that are shared or stand beside layers, what is refused, and what an interrupt leaves."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import initializer, model

from convcalc.errors import ConvcalcError, LayerError, ShapeError, UnsupportedOpError
from convcalc.executor.fit import fit
from convcalc.executor.run import compute, prepare
from convcalc.nouns import read_program
from convcalc.onnx.file import read_onnx

TWICE = """\
Net(
  (c): Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
  (fc): Linear(in_features=2, out_features=3, bias=True)
)

def forward(self, x):
    c = self.c(x);  x = None
    relu = torch.relu(c);  c = None
    c_1 = self.c(relu);  relu = None
    mean = c_1.mean((2, 3));  c_1 = None
    fc = self.fc(mean);  mean = None
    return fc
"""


def test_a_module_that_is_called_twice_has_one_weight(tmp_path):
    stream = np.random.default_rng(0)
    x, target = stream.normal(size=(2, 2, 4, 4)), stream.normal(size=(2, 3))
    path = tmp_path / "net.txt"
    path.write_text(TWICE)
    program = read_program([str(path)])
    before = prepare(program, x)
    learned = fit(before, target, lr=0.01, steps=3).result.weights
    np.testing.assert_array_equal(learned["c.2.weight"], learned["c.weight"])
    assert not np.array_equal(learned["c.weight"], before.weights["c.weight"])


def two_layers():
    """One initializer of two convolutions, a bias that stands beside a product, and a number that is no parameter."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1]),
        helper.make_node("Conv", ["a", "w"], ["b"], name="second", pads=[1, 1]),
        helper.make_node("ReduceMean", ["b"], ["m"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["m", "table"], ["p"], name="product"),
        helper.make_node("Add", ["p", "shift"], ["s"]),
        helper.make_node("Mul", ["s", "half"], ["y"]),
    ]
    stream = np.random.default_rng(0)
    weights = [
        initializer("w", 2, 2, 3, value=stream.normal(size=(2, 2, 3))),
        initializer("table", 2, 3, value=stream.normal(size=(2, 3))),
        initializer("shift", 3, value=stream.normal(size=3)),
        initializer("half", value=0.5),
    ]
    return read_onnx(model(nodes, {"x": [4, 2, 5]}, {"y": [4, 3]}, weights, opset=13).SerializeToString(), "m")


def test_all_parameters_of_a_file_are_learned_and_can_be_used_again(tmp_path):
    stream = np.random.default_rng(1)
    x, target = stream.normal(size=(4, 2, 5)).astype(np.float32), stream.normal(size=(4, 3))
    before = prepare(two_layers(), x)
    done = fit(before, target, lr=0.02, steps=200)
    assert done.losses[-1] < 0.6 * done.losses[0]
    learned = done.result.weights
    np.testing.assert_array_equal(learned["first.weight"], learned["second.weight"])
    assert not np.array_equal(learned["shift"], before.constants["shift"])
    assert "half" not in learned
    again = compute(prepare(two_layers(), x, learned))
    np.testing.assert_allclose(((again.output - target) ** 2).sum(), done.losses[-1], rtol=1e-5)
    with pytest.raises(ShapeError, match="shift is 2, but must be 3"):
        prepare(two_layers(), x, {"shift": np.zeros(2, np.float32)})


def test_shared_weights_learn_from_every_layer():
    stream = np.random.default_rng(1)
    x, target = stream.normal(size=(4, 2, 5)).astype(np.float32), stream.normal(size=(4, 3))
    before = prepare(two_layers(), x)
    after = fit(before, target, lr=1e-3, steps=1).result.weights

    def loss(place, step):
        changed = {key: before.weights[key].astype(np.float64) for key in ("first.weight", "second.weight")}
        for array in changed.values():
            array[place] += step
        return float(((compute(prepare(two_layers(), x, changed)).output - target) ** 2).sum())

    for place in ((0, 0, 0), (1, 0, 2), (0, 1, 1)):
        taken = (before.weights["first.weight"][place] - after["first.weight"][place]) / 1e-3
        assert taken == pytest.approx((loss(place, 1e-2) - loss(place, -1e-2)) / 2e-2, rel=1e-2, abs=1e-2)


def test_whole_numbers_that_name_rows_stay_whole():
    prepared = prepare("embedding:4,n5 flatten linear:2", [[1, 2, 3]])
    assert fit(prepared, [[1.0, 2.0]], lr=0.1, steps=40).losses[-1] < 1e-3
    node = helper.make_node("Gather", ["rows", "places"], ["y"], name="words")
    rows = [initializer("rows", 5, 2, value=np.arange(10.0).reshape(5, 2))]
    made = model([node], {"places": [3]}, {"y": [3, 2]}, rows, opset=13)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    network = read_onnx(made.SerializeToString(), "m")
    done = fit(prepare(network, np.array([0, 3, 3])), np.zeros((3, 2)), lr=0.1, steps=30)
    assert done.losses[-1] < 1e-3
    (learned,) = (array for array in done.result.weights.values() if array.shape == (5, 2))
    np.testing.assert_array_equal(learned[1], [2, 3])  # a row that nobody asked for


@pytest.mark.parametrize(
    ("x", "target", "lr", "error", "sentence"),
    [
        ([1.0, 2.0], [1.0, np.nan], 0.1, ShapeError, r"the target has nan at \[1\], which nothing can come near to"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 0.1, ShapeError, "the target is 3, but the output is 2"),
        ([1.0, np.inf], [1.0, 2.0], 0.1, ShapeError, "input has numbers that are not finite"),
        ([1.0, 2.0], [1.0, 2.0], -1, LayerError, "lr is -1, but must be a number that is not below 0"),
        ([1.0, 2.0], [1.0, 2.0], np.nan, LayerError, "lr is nan"),
        ([1e3, 2e3], [1.0, 2.0], 10, ConvcalcError, r"grew beyond all bounds by step \d+; a smaller rate than 10 is"),
        ([1e200, 2.0], [1.0, 2.0], 10, ConvcalcError, "the loss is not finite before anything is learned"),
    ],
)
def test_what_cannot_be_learned_says_why(x, target, lr, error, sentence):
    with pytest.raises(error, match=sentence):
        fit(prepare("linear:2", x), target, lr=lr, steps=500)


def test_an_interrupt_keeps_what_was_learned():
    prepared = prepare("linear:2", [1.0, 2.0])

    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    done = fit(prepared, [3.0, 4.0], steps=10, lr=0.01, on_step=interrupt, keep_interrupted=True)
    assert done.interrupted
    assert len(done.losses) == 4
    whole = fit(prepared, [3.0, 4.0], steps=3, lr=0.01)
    assert not whole.interrupted
    assert done.losses == whole.losses
    np.testing.assert_array_equal(done.result.weights["0.weight"], whole.result.weights["0.weight"])
    with pytest.raises(KeyboardInterrupt):
        fit(prepared, [3.0, 4.0], steps=10, lr=0.01, on_step=interrupt)


def test_training_draws_from_the_seed_and_brings_statistics_up_to_date():
    stream = np.random.default_rng(0)
    x, target = stream.normal(3, 2, (16, 2, 4, 4)), stream.normal(size=(16, 3))
    prepared = prepare("batchnorm2d dropout:0.4 flatten linear:3", x)

    def learn(seed):
        return fit(prepared, target, lr=1e-4, steps=60, train=True, seed=seed)

    done = learn(1)
    assert done.losses == learn(1).losses
    assert done.losses != learn(2).losses
    weights = done.result.weights
    share = 1 - 0.9**60
    np.testing.assert_allclose(weights["0.running_mean"], share * x.mean((0, 2, 3)))
    np.testing.assert_allclose(weights["0.running_var"], 1 - share + share * x.var((0, 2, 3), ddof=1))
    assert weights["0.num_batches_tracked"] == 60
    again = compute(prepare("batchnorm2d dropout:0.4 flatten linear:3", x, weights))
    assert ((again.output - target) ** 2).sum() == pytest.approx(done.losses[-1])
    with pytest.raises(UnsupportedOpError, match=r"layer 0 \(lstm\): dropout inside lstm is not drawn here"):
        fit(prepare("lstm:3,l2,dropout=0.5", np.ones((4, 1, 2))), np.ones((4, 1, 3)), train=True)
