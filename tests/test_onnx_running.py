"""ONNX models whose shapes hang on numbers: read on the numbers that come in, and run as onnxruntime runs them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from convcalc.cli import run_command_line
from convcalc.errors import ConvcalcError, UnsupportedOpError
from convcalc.executor.batches import Batches
from convcalc.executor.fit import fit
from convcalc.executor.run import compute, prepare
from convcalc.onnx.file import OnnxModel

OPSET = 20
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node, info = helper.make_node, helper.make_tensor_value_info


def graph_of(name, nodes, inputs, outputs):
    return helper.make_graph(nodes, name, inputs, outputs)


def model_of(nodes, inputs, outputs, constants=None):
    """A model; inputs and outputs are name -> type, sizes are left open."""
    ranks = {name: (kind, [f"{name}{axis}" for axis in range(rank)]) for name, (kind, rank) in inputs.items()}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [info(name, *told) for name, told in ranks.items()],
        [info(name, kind, None) for name, kind in outputs.items()],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def turn(nodes, outputs):
    """The body of a loop over a state x: `outputs` are the condition, the next x, and what is kept of each turn."""
    inputs = [info("turn", INT64, []), info("on", BOOL, []), info("x", FLOAT, None)]
    return graph_of(
        "body", nodes, inputs, [info(name, BOOL if not at else FLOAT, None) for at, name in enumerate(outputs)]
    )


DOUBLING = turn(
    [
        node("Add", ["x", "x"], ["next"]),
        node("ReduceSum", ["next"], ["total"], keepdims=0),
        node("Less", ["total", "limit"], ["goes"]),
        node("Identity", ["total"], ["kept"]),
    ],
    ["goes", "next", "kept"],
)
GROWING = turn(
    [node("Concat", ["x", "x"], ["next"], axis=0), node("Identity", ["on"], ["goes"])],
    ["goes", "next"],
)
SUMS = graph_of("then", [node("ReduceSum", ["a", "rows"], ["sums"])], [], [info("sums", FLOAT, None)])
SIGNS = graph_of("else", [node("Neg", ["a"], ["signs"])], [], [info("signs", FLOAT, None)])

X = (FLOAT, 2)
MODELS = {
    "places of what is not 0": model_of(
        [
            node("Relu", ["x"], ["r"]),
            node("NonZero", ["r"], ["places"]),
            node("Transpose", ["places"], ["rows"]),
            node("GatherND", ["r", "rows"], ["found"]),
            node("Exp", ["found"], ["y"]),
        ],
        {"x": X},
        {"y": FLOAT, "places": INT64},
    ),
    "a loop that ends when a sum is large": model_of(
        [node("Abs", ["x"], ["a"]), node("Loop", ["", "yes", "a"], ["y", "sums"], body=DOUBLING)],
        {"x": X},
        {"y": FLOAT, "sums": FLOAT},
        {"limit": np.float32(100), "yes": np.array(True)},
    ),
    "a loop of so many turns, that grows": model_of(
        [node("Loop", ["n", "yes", "x"], ["y"], body=GROWING), node("Exp", ["y"], ["z"])],
        {"x": X, "n": (INT64, 0)},
        {"z": FLOAT},
        {"yes": np.array(True)},
    ),
    "branches of other shapes": model_of(
        [
            node("Tanh", ["x"], ["a"]),
            node("ReduceMean", ["a"], ["mean"], keepdims=0),
            node("Greater", ["mean", "zero"], ["positive"]),
            node("If", ["positive"], ["b"], then_branch=SUMS, else_branch=SIGNS),
            node("Exp", ["b"], ["y"]),
        ],
        {"x": X},
        {"y": FLOAT},
        {"zero": np.float32(0), "rows": np.array([1])},
    ),
    "what there is, once each": model_of(
        [
            node("Round", ["x"], ["r"]),
            node("Unique", ["r"], ["u", "first", "which", "count"], sorted=0),
            node("Exp", ["u"], ["y"]),
        ],
        {"x": X},
        {"y": FLOAT, "first": INT64, "which": INT64, "count": INT64},
    ),
    "rows that are wanted": model_of(
        [
            node("ReduceSum", ["x", "rows"], ["sums"], keepdims=0),
            node("Greater", ["sums", "zero"], ["wanted"]),
            node("Compress", ["x", "wanted"], ["y"], axis=0),
            node("Shape", ["y"], ["shape"]),
        ],
        {"x": X},
        {"y": FLOAT, "shape": INT64},
        {"zero": np.float32(0), "rows": np.array([1])},
    ),
    "counted to the largest": model_of(
        [
            node("ReduceMax", ["n"], ["most"], keepdims=0),
            node("Range", ["zero", "most", "one"], ["places"]),
            node("Unsqueeze", ["n", "last"], ["column"]),
            node("Less", ["places", "column"], ["mask"]),
        ],
        {"n": (INT64, 1)},
        {"mask": BOOL},
        {"zero": np.array(0), "one": np.array(1), "last": np.array([1])},
    ),
    "sizes that come in": model_of(
        [
            node("Mul", ["x", "x"], ["square"]),
            node("Expand", ["square", "sizes"], ["wide"]),
            node("Pad", ["wide", "pads", "value"], ["y"]),
        ],
        {"x": X, "sizes": (INT64, 1), "value": (FLOAT, 0)},
        {"y": FLOAT},
        {"pads": np.array([1, 0, 0, 2])},
    ),
    "padding with a number that comes in": model_of(
        [node("Pad", ["x", "pads", "value"], ["y"])],
        {"x": X, "value": (FLOAT, 0)},
        {"y": FLOAT},
        {"pads": np.array([1, 0, 0, 2])},
    ),
    "the best boxes": model_of(
        [
            node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"]),
            node("Gather", ["chosen", "two"], ["column"], axis=1),
            node("Squeeze", ["column", "last"], ["rows"]),
            node("Gather", ["boxes", "rows"], ["y"], axis=1),
        ],
        {"boxes": (FLOAT, 3), "scores": (FLOAT, 3)},
        {"y": FLOAT, "chosen": INT64},
        {
            "most": np.array([5]),
            "overlap": np.float32([0.3]),
            "least": np.float32([0.2]),
            "two": np.array([2]),
            "last": np.array([1]),
        },
    ),
}


def numbers(name, seed):
    stream = np.random.default_rng(seed)
    corners = np.sort(stream.random((1, 40, 2, 2)), axis=2).reshape(1, 40, 4)
    made = {
        "x": stream.normal(size=(1, 3) if name == "sizes that come in" else (4, 3)),
        "n": np.array(3) if "turns" in name else np.array([3, 1, 4]),
        "sizes": np.array([2 + seed, 3]),
        "value": np.array(0.5 + seed),
        "boxes": corners,
        "scores": stream.random((1, 2, 40)),
    }
    types = {each.name: each.type.tensor_type.elem_type for each in MODELS[name].graph.input}
    return {each: made[each].astype(helper.tensor_dtype_to_np_dtype(kind)) for each, kind in types.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_as_onnxruntime_runs_it(name, seed):
    source = MODELS[name].SerializeToString()
    given = numbers(name, seed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, given)
    found = compute(prepare(OnnxModel(source, "m.onnx"), given)).outputs
    assert list(found) == [each.name for each in MODELS[name].graph.output]
    for one, other in zip(found.values(), wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_nothing_is_left_of_what_only_decided():
    given = numbers("the best boxes", 0)
    prepared = prepare(OnnxModel(MODELS["the best boxes"].SerializeToString(), "m.onnx"), given)
    assert [each.op for each in prepared.network.nodes] == ["Gather"]
    assert prepared.notes == ("what NonMaxSuppression_0 gives decides shapes; they are those of this input",)


def test_what_was_computed_while_reading_is_not_computed_again():
    given = numbers("places of what is not 0", 0)
    prepared = prepare(OnnxModel(MODELS["places of what is not 0"].SerializeToString(), "m.onnx"), given)
    assert [each.op for each in prepared.network.nodes] == ["Relu", "GatherND", "Exp"]
    assert [each.op for each in prepared.rest.network.nodes] == ["GatherND", "Exp"]
    whole = compute(prepared, keep=True)
    assert list(whole.layers) == [each.name for each in prepared.network.nodes]
    np.testing.assert_array_equal(whole.output, compute(prepared).output)


def test_weights_that_are_given_decide_too():
    nodes = [node("Gemm", ["x", "w"], ["h"], name="fc", transB=1), node("NonZero", ["h"], ["y"])]
    source = model_of(nodes, {"x": X}, {"y": INT64}, {"w": np.eye(3, dtype=np.float32)}).SerializeToString()
    given = {"x": np.ones((1, 3), np.float32)}
    assert compute(prepare(OnnxModel(source, "m"), given)).output.shape == (2, 3)
    two = np.diag([1, 0, 1]).astype(np.float32)
    assert compute(prepare(OnnxModel(source, "m"), given, {"fc.weight": two})).output.tolist() == [[0, 0], [0, 2]]


def test_an_op_that_is_not_known_is_refused_before_anything_is_computed(monkeypatch):
    nodes = [node("NonZero", ["x"], ["i"]), node("Bernoulli", ["x"], ["d"], name="last")]
    source = model_of(nodes, {"x": X}, {"i": INT64, "d": FLOAT}).SerializeToString()
    monkeypatch.setattr("convcalc.executor.onnx_running.RunningReader._run", None)
    with pytest.raises(
        UnsupportedOpError, match=r"^m: node last \(Bernoulli\): Bernoulli is not known, so it cannot be run$"
    ):
        prepare(OnnxModel(source, "m"), np.ones((2, 2)))


def test_a_loop_that_does_not_end_is_refused():
    endless = turn([node("Identity", ["on"], ["goes"]), node("Identity", ["x"], ["next"])], ["goes", "next"])
    source = model_of([node("Loop", ["", "", "x"], ["y"], body=endless)], {"x": X}, {"y": FLOAT}).SerializeToString()
    with pytest.raises(UnsupportedOpError, match="it takes more than 1024 turns"):
        prepare(OnnxModel(source, "m"), {"x": np.ones((1, 1))})


def test_what_has_other_numbers_is_refused():
    """The network is one for these numbers."""
    name = "places of what is not 0"
    source = MODELS[name].SerializeToString()
    x = np.ones((4, 3), np.float32)
    prepared = prepare(OnnxModel(source, "m"), {"x": x})
    with pytest.raises(ConvcalcError, match="what NonZero_1 gives decides shapes; while the weights learn"):
        fit(prepared, np.ones(12))
    with pytest.raises(ConvcalcError, match="run the samples one by one, without --batch"):
        Batches(OnnxModel(source, "m"), np.ones((2, 4, 3), np.float32), 1)


def test_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(MODELS["places of what is not 0"].SerializeToString())
    np.save(tmp_path / "x.npy", np.array([[0, 1], [2, -3]], np.float32))
    assert run_command_line(["run", str(tmp_path / "x.npy"), str(path), "--get", "outputs.places"]) == 0
    said = capsys.readouterr()
    assert said.out == "[[0,1],[1,0]]\n"
    assert said.err == "note: what NonZero_1 gives decides shapes; they are those of this input\n"
    assert run_command_line(["shape", "2x2", str(path)]) == 0
    assert "NonZero is not known" in capsys.readouterr().err
