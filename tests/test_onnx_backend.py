# ruff: noqa: T201  a table is printed
"""Every operator case of the onnx package, computed: at that package's own tolerance, or left out for a stated reason.

python tests/test_onnx_backend.py        prints the table: op, cases, passed, left out and why
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx_cases
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from convcalc.cli import run_command_line
from convcalc.errors import ShapeError, UnsupportedOpError
from convcalc.executor.run import compute, prepare, run
from convcalc.narrow import holder
from convcalc.onnx.file import OnnxModel, read_onnx
from convcalc.onnx.tensors import DATA_TYPES

NO_ELEMENTS = "of no elements is not defined"
LEAST_PASSED = 1745
"""Of 1,884 cases with onnx 1.23; fewer are a step back."""


def _held(value):
    """An array in NumPy's own types: what the onnx package's types hold, as the executor holds it."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.isbuiltin == 2:
        return value.astype(holder(DATA_TYPES[helper.np_dtype_to_tensor_dtype(value.dtype)][0]))
    return value


def compared(case):
    """None when every output agrees in type and numbers, else why the case is left out. Fails where they differ."""
    given, wanted = ([_held(value) for value in values] for values in case.data_sets[0])
    if not all(isinstance(value, np.ndarray | np.generic) for value in (*given, *wanted)):
        return "sequences, optional tensors, and types that are no numbers"
    if re.search("attention.*_bf16", case.name):
        return "bfloat16 is rounded at each step inside, and the tolerance is below one rounding"
    names = [info.name for info in case.model.graph.input]
    try:
        model = OnnxModel(case.model.SerializeToString(), "m.onnx")
        prepared = prepare(model, dict(zip(names, given, strict=False)))
        outputs = compute(prepared).outputs
    except UnsupportedOpError as error:
        return error.message
    except ShapeError as error:
        if not error.message.endswith(NO_ELEMENTS):
            raise
        return error.message
    for name, array in zip(prepared.network.outputs, wanted, strict=True):
        assert outputs[name].dtype == array.dtype, case.name
        np.testing.assert_allclose(
            outputs[name], array, rtol=case.rtol, atol=case.atol, err_msg=case.name, equal_nan=True
        )
    return None


def table():
    """For each op how many cases there are, how many passed, and why others were left out."""
    found = defaultdict(Counter)
    for case in onnx_cases.cases():
        found[onnx_cases.op_of(case)][compared(case)] += 1
    return found


def test_every_case_passes_or_is_left_out_for_a_reason():
    found = table()
    assert sum(reasons[None] for reasons in found.values()) >= LEAST_PASSED


# --- models on the command line -------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """Conv, Relu and a Gemm over what is left, with weights in the file."""
    stream = np.random.default_rng(0)
    arrays = {
        "w": stream.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "b": stream.normal(size=4).astype(np.float32),
        "m": stream.normal(size=(16, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "m.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path, arrays


def expected(x, arrays):
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    conv = np.einsum("ncijhw,ochw->noij", windows, arrays["w"]) + arrays["b"].reshape(4, 1, 1)
    return np.maximum(conv, 0).reshape(len(x), -1) @ arrays["m"]


def test_a_model_is_run_with_its_own_weights(model, tmp_path, capsys):
    path, arrays = model
    x = np.random.default_rng(1).normal(size=(5, 2, 4, 4)).astype(np.float32)
    result = run(OnnxModel(path, "m.onnx"), x)
    np.testing.assert_allclose(result.output, expected(x, arrays), rtol=1e-5, atol=1e-5)
    assert (result.output.dtype, result.notes) == (np.float32, ())
    np.save(tmp_path / "x.npy", x)
    command = ["run", str(tmp_path / "x.npy"), str(path), "-o", str(tmp_path / "y.npy")]
    for batch in ([], ["--batch", "2"]):
        assert run_command_line([*command, *batch]) == 0
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), result.output, rtol=1e-5, atol=1e-5)
    assert capsys.readouterr().err == ""


def test_weights_are_mapped_and_can_be_replaced(model):
    path, arrays = model
    network = read_onnx(Path(path), "m", given={"x": (1, 2, 4, 4)})
    x = np.ones((1, 2, 4, 4), np.float32)
    prepared = prepare(network, x)
    assert not prepared.weights["conv.weight"].flags.owndata
    replaced = run(network, x, {"conv.bias": np.full(4, 100, np.float32)})
    wanted = expected(x, {**arrays, "b": np.full(4, 100, np.float32)})
    np.testing.assert_allclose(replaced.output, wanted.reshape(replaced.output.shape), rtol=1e-5)
    with pytest.raises(ShapeError, match=r"no layer has a weight conv\.bais; did you mean 'conv\.bias'"):
        run(network, x, {"conv.bais": np.zeros(4)})
    with pytest.raises(ShapeError, match="bias is 3, but must be 4"):
        run(network, x, {"conv.bias": np.zeros(3)})


@pytest.fixture
def two_by_two(tmp_path):
    """Two inputs, the second of whole numbers, and two outputs: rows of x, and their sums."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["y"], name="rows"),
        helper.make_node("ReduceSum", ["y"], ["z"], name="sums", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("i", TensorProto.INT64, ["m"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")],
    )
    path = tmp_path / "m.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path


def test_a_model_of_several_inputs_and_outputs(two_by_two, tmp_path, capsys):
    x, rows = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 1, 0])
    np.savez(tmp_path / "in.npz", x=x, i=rows)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.npz"
    named = f"x={tmp_path / 'x.npy'},i=[1,1,0]"
    for given in (
        [str(two_by_two), "--input", named],
        [named, str(two_by_two)],
        [str(tmp_path / "in.npz"), str(two_by_two)],
    ):
        assert run_command_line(["run", *given, "-o", str(out)]) == 0
        with np.load(out) as found:
            assert set(found) == {"y", "z"}
            np.testing.assert_array_equal(found["y"], x[rows])
            np.testing.assert_array_equal(found["z"], x[rows].sum())
        out.unlink()
    assert capsys.readouterr().err == ""
    assert run_command_line(["run", str(two_by_two), "--input", named, "--get", "outputs.z"]) == 0
    assert capsys.readouterr().out == "27.0\n"
    assert run_command_line(["run", str(two_by_two), "--input", named, "-o", str(tmp_path / "y.npy")]) == 0
    assert "y.npy holds y alone; an .npz file would hold y, z" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("InstanceNormalization", (2, 3, 1, 1), {}),
        ("InstanceNormalization", (1, 3, 1), {}),
        ("GroupNormalization", (1, 3, 1, 1), {"num_groups": 3}),
    ],
)
def test_what_a_norm_leaves_of_one_value_is_the_bias(op, shape, attributes):
    node = helper.make_node(op, ["x", "scale", "bias"], ["y"], **attributes)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [3], [4, 5, 6]) for name in ("scale", "bias")]
    made = helper.make_model(
        helper.make_graph([node], "g", infos[:1], infos[1:], weights),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = OnnxModel(made.SerializeToString(), "m.onnx")
    found = run(model, x)
    wanted = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(found.output.reshape(shape), wanted)
    np.testing.assert_array_equal(wanted.ravel(), [4, 5, 6] * shape[0])


@pytest.mark.parametrize(
    ("op", "wanted"), [("HannWindow", np.hanning), ("BlackmanWindow", np.blackman), ("HammingWindow", None)]
)
def test_windows_are_as_exact_as_their_type(op, wanted):
    info = helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)
    size = helper.make_tensor("n", TensorProto.INT64, [], [400])
    for periodic in (0, 1):
        node = helper.make_node(op, ["n"], ["y"], periodic=periodic, output_datatype=TensorProto.DOUBLE)
        graph = helper.make_graph([node], "g", [], [info], [size])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        prepared = prepare(OnnxModel(made.SerializeToString(), "m.onnx"), {})
        (found,) = compute(prepared).outputs.values()
        places = np.arange(400) * 2 * np.pi / (399 + periodic)
        whole = wanted(400 + periodic) if wanted else np.append(25 / 46 - 21 / 46 * np.cos(places), 0)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, whole[:400], rtol=0, atol=1e-15)


def test_a_model_without_outputs_is_costed_and_not_run(tmp_path, capsys):
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [info], [])
    path = str(tmp_path / "m.onnx")
    Path(path).write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())
    for verb in ("shape", "flops", "memory", "summary", "compose"):
        assert run_command_line([verb, path]) == 0
        assert ("Relu_0" in capsys.readouterr().out) == (verb != "compose")
    for options in ([], ["--profile"], ["--check", "[1,2]"], ["--fit", "[1,2]"]):
        assert run_command_line(["run", path, *options]) == 1
        assert "error: the model has no outputs, so that there is nothing to compute\n" in capsys.readouterr().err


def test_a_model_says_of_what_shape_its_input_is(tmp_path, capsys):
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "abcd"}
    add, relu = helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Relu", ["a"], ["d"])
    for name, nodes, inputs, output in (("one", [relu], "a", "d"), ("two", [add], "ab", "c")):
        graph = helper.make_graph(nodes, "g", [infos[key] for key in inputs], [infos[output]])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        (tmp_path / f"{name}.onnx").write_bytes(made.SerializeToString())
        assert run_command_line(["run", str(tmp_path / f"{name}.onnx"), "--get", "shape"]) == 0
        assert capsys.readouterr() == ("[2,3]\n", "note: the input is random, drawn from seed 0\n")
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(4, 3))
    assert (
        run_command_line(
            ["run", str(tmp_path / "one.onnx"), "--input", f"a={tmp_path / 'x.npy'}", "--batch", "2", "-q"]
        )
        == 0
    )
    assert capsys.readouterr().out == "[[0.0,1.0,2.0],[3.0,4.0,5.0],[6.0,7.0,8.0],[9.0,10.0,11.0]]\n"
    assert run_command_line(["run", str(tmp_path / "one.onnx"), "--dtype", "float64"]) == 2
    assert "--dtype has no meaning for a model's file" in capsys.readouterr().err


def test_shapes_that_a_model_works_out_are_those_of_each_batch(tmp_path, capsys):
    """As PyTorch exports x.view(x.size(0), -1) * x.size(0)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["x", "sizes"], ["flat"]),
        helper.make_node("Cast", ["n"], ["times"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["flat", "times"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([value]), name) for name, value in (("first", 0), ("rest", -1))],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    asked = ["run", str(tmp_path / "x.npy"), str(tmp_path / "m.onnx"), "--batch", "2", "-o", str(tmp_path / "y.npy")]
    assert run_command_line(asked) == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), x.reshape(5, 6) * np.array([[2], [2], [2], [2], [1]]))


def test_all_outputs_go_through_in_batches(tmp_path, capsys):
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xyz"}
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["y"], infos["z"]])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    asked = ["run", str(tmp_path / "x.npy"), str(tmp_path / "m.onnx"), "--batch", "2", "-o"]
    assert run_command_line([*asked, str(tmp_path / "y.npz")]) == 0
    with np.load(tmp_path / "y.npz") as found:
        assert np.array_equal(found["y"], np.maximum(x, 0))
        assert np.array_equal(found["z"], -x)
    assert capsys.readouterr().err == ""
    assert run_command_line([*asked, str(tmp_path / "y.npy")]) == 0
    assert "y.npy holds y alone; an .npz file would hold y, z" in capsys.readouterr().err


def test_saved_outputs_are_compared_by_name(two_by_two, tmp_path, capsys):
    asked = ["run", str(two_by_two), "--input", "x=[[1,2,3]],i=[0,0]"]
    assert run_command_line([*asked, "-o", str(tmp_path / "y.npz")]) == 0
    with np.load(tmp_path / "y.npz") as saved:
        np.savez(tmp_path / "y.npz", y=saved["y"], z=saved["z"] + 3)
    capsys.readouterr()
    assert run_command_line([*asked, "--check", str(tmp_path / "y.npz"), "--format", "tsv"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[0:5:4] for line in out.splitlines()] == [
        ["name", "error"],
        ["rows", "0.0"],
        ["sums", "3.0"],
    ]
    assert err == f"note: the outputs are compared with {tmp_path / 'y.npz'}\n"
    assert run_command_line([*asked, "--check", "[[1,2,3],[1,2,3]]"]) == 0
    assert "note: of 2 outputs y is compared with" in capsys.readouterr().err
    np.savez(tmp_path / "y.npz", y=np.ones((2, 3)), other=1.0)
    assert run_command_line([*asked, "--check", str(tmp_path / "y.npz")]) == 1
    assert "holds other, which is no output; the outputs are y, z" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x=ones:2x3", "dimension m of input i (m) is open; give it: --input i=1"),
        ("x=ones:2x3,x=ones:2x3", "the input x is given twice; keep one of them"),
        ("ones:2x3", "m.onnx has 2 inputs, x, i; name the one that is meant"),
        ("x=ones:2x3,j=[1]", "m.onnx has no input j"),
    ],
)
def test_inputs_that_do_not_fit(given, message, two_by_two, capsys):
    assert run_command_line(["run", str(two_by_two), "--input", given]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("condition", [True, False])
def test_the_branch_that_the_condition_chooses_is_run(condition, tmp_path):
    """Both take tensors of the graph around them; one has a weight of its own, one holds another If."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    give = helper.make_tensor_value_info
    then = helper.make_graph([helper.make_node("MatMul", ["r", "w"], ["y"])], "then", [], [y],
                             [numpy_helper.from_array(np.full((3, 3), 2, np.float32), "w")])  # fmt: skip
    deep = [helper.make_graph([helper.make_node(op, ["r", "x"], ["y"])], op, [], [y]) for op in ("Add", "Sub")]
    other = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=deep[0], else_branch=deep[1])], "other", [], [y]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["c"], ["z"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Neg", ["z"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [give("x", TensorProto.FLOAT, [2, 3]), give("c", TensorProto.BOOL, [])],
        [give("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    found = run(OnnxModel(path, "m.onnx"), {"x": x, "c": np.array(condition)}).output
    positive = np.maximum(x, 0)
    wanted = -(positive @ np.full((3, 3), 2)) if condition else -(positive - x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def main():
    """Print the table."""
    found = table()
    print(f"{'op':44} cases passed")
    for op, reasons in sorted(found.items()):
        print(f"{op:44} {sum(reasons.values()):5} {reasons[None]:6}")
        for reason, count in reasons.items():
            if reason:
                print(f"    {count:4} left out: {reason}")
    cases, passed = (sum(map(count, found.values())) for count in (Counter.total, lambda reasons: reasons[None]))
    print(f"{cases} cases, {passed} passed, {cases - passed} left out")


if __name__ == "__main__":
    main()
