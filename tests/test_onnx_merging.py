"""Merged ONNX files: onnxruntime gives the same, the checker accepts them, and the rest stays byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import resnet50

from convcalc.analysis.costs import costs
from convcalc.analysis.shapes import resolve
from convcalc.analysis.summary import summary
from convcalc.cli import run_command_line
from convcalc.composition.models import merge_model
from convcalc.errors import ConvcalcError
from convcalc.executor.run import run
from convcalc.onnx.file import read_onnx

RANDOM = np.random.default_rng(0)


class Builder:
    """A graph that grows layer by layer, with random weights."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, name, *shape, positive=False):
        values = self.random.uniform(0.5, 2, shape) if positive else self.random.normal(size=shape) * 0.3
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, x, before, after, kernel=3, *, bias=True, transposed=False, groups=1, **attributes):
        name = f"w{len(self.weights)}"
        shape = (before, after // groups) if transposed else (after, before // groups)
        inputs = [x, self.weight(name, *shape, kernel, kernel)]
        if bias:
            inputs.append(self.weight(f"{name}_b", after))
        return self.op("ConvTranspose" if transposed else "Conv", *inputs, group=groups, **attributes)

    def norm(self, x, channels):
        name = f"n{len(self.weights)}"
        parts = [self.weight(f"{name}_{part}", channels, positive=part == "v") for part in "sbmv"]
        return self.op("BatchNormalization", x, *parts)

    def model(self, outputs, shape=("N", 4, 9, 9), opset=17, ir=8, infos=(), rank=4):
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs], self.weights,
            value_info=infos,
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        made.metadata_props.add(key="who", value="a test")
        if ir < 4:
            for tensor in self.weights:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            made.graph.CopyFrom(graph)
        return made


def merged(model, tmp_path, shape=(2, 4, 9, 9), **options):
    """The merged model and the report; onnxruntime gives the same for both, and the calculator counts what is said."""
    path, target = tmp_path / "model.onnx", tmp_path / "merged.onnx"
    onnx.save(model, path)
    network = read_onnx(path, batch=shape[0])
    report = merge_model(path, "model.onnx", network, str(target), **options)
    made = onnx.load(target)
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    # onnxruntime merges too, at times into what it then refuses (padding as wide as a pool).
    plainly = onnxruntime.SessionOptions()
    plainly.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before, after = (onnxruntime.InferenceSession(file, plainly).run(None, {"x": x}) for file in (path, target))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * max(np.abs(one).max(), 1))
    totals = costs(read_onnx(target, batch=shape[0])).totals
    assert (totals["params"], totals["macs"]) == (report.totals["params"], report.totals["macs"])
    totals = costs(network).totals
    assert (totals["params"], totals["macs"]) == (report.totals["was_params"], report.totals["was_macs"])
    assert report.totals["macs"] <= report.totals["was_macs"] or options.get("always")
    return made, report


def ops(model):
    return [node.op_type for node in model.graph.node]


def test_batch_norm_is_folded_and_names_stay(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 6, pads=[1] * 4, bias=False), 6)
    made, report = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv"]
    assert (made.graph.node[0].name, made.graph.node[0].output[0]) == ("Conv_0", x)
    assert [row.name for row in report.rows] == ["Conv_0"]
    assert report.rows[0].values["merges"] == "Conv_0 (conv), BatchNormalization_1 (batchnorm)"
    assert report.rows[0].values["count"] == 2


def test_what_is_not_touched_is_kept_byte_for_byte(tmp_path):
    build = Builder()
    first = build.op("Relu", build.conv("x", 4, 4, pads=[1] * 4))
    middle = build.norm(build.conv(first, 4, 4, pads=[1] * 4), 4)
    last = build.conv(build.op("Relu", middle), 4, 2)
    model = build.model([last], infos=[helper.make_tensor_value_info(first, TensorProto.FLOAT, ("N", 4, 9, 9))])
    made, _ = merged(model, tmp_path)
    kept = [
        node.SerializeToString() for node in model.graph.node if node.name not in ("Conv_2", "BatchNormalization_3")
    ]
    assert [node.SerializeToString() for node in made.graph.node if node.name != "Conv_2"] == kept
    old = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    new = {tensor.name: tensor.SerializeToString() for tensor in made.graph.initializer}
    assert {name for name in new if name not in old} == {"w2_merged", "w2_merged_bias"}
    assert all(new[name] == old[name] for name in new if name in old)
    made.ClearField("graph")
    model.ClearField("graph")
    assert made.SerializeToString() == model.SerializeToString()


def test_nothing_to_merge_gives_the_same_bytes(tmp_path):
    build = Builder()
    model = build.model([build.op("Relu", build.conv("x", 4, 4))])
    merged(model, tmp_path)
    assert (tmp_path / "merged.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_repvgg(tmp_path):
    build = Builder()
    x = "x"
    for _ in range(2):
        wide = build.norm(build.conv(x, 4, 4, pads=[1] * 4, bias=False), 4)
        narrow = build.norm(build.conv(x, 4, 4, 1, bias=False), 4)
        x = build.op("Relu", build.op("Add", build.op("Add", wide, narrow), build.norm(x, 4)))
    made, report = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv", "Relu", "Conv", "Relu"]
    assert report.totals["layers"] == 4


def test_residual_blocks_keep_their_sums(tmp_path):
    build = Builder()
    x = build.op("Relu", build.norm(build.conv("x", 4, 4, pads=[1] * 4), 4))
    y = build.op("Relu", build.norm(build.conv(x, 4, 4, pads=[1] * 4), 4))
    y = build.norm(build.conv(y, 4, 4, pads=[1] * 4), 4)
    made, _ = merged(build.model([build.op("Relu", build.op("Add", y, x))]), tmp_path)
    assert ops(made) == ["Conv", "Relu", "Conv", "Relu", "Conv", "Add", "Relu"]


def test_scales_and_shifts_are_folded(tmp_path):
    build = Builder()
    x = build.op("Mul", build.conv("x", 4, 4, bias=False), build.weight("k", 1, 4, 1, 1))
    x = build.op("Add", build.weight("shift", 4, 1, 1), x)
    made, _ = merged(build.model([build.op("Mul", x, build.weight("two"))]), tmp_path)
    assert ops(made) == ["Conv"]


def test_transposed_convolution_and_batch_norm(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 6, 4, transposed=True, groups=2, strides=[2, 2], pads=[1] * 4,
                              output_padding=[1, 1]), 6)  # fmt: skip
    made, _ = merged(build.model([x]), tmp_path)
    assert ops(made) == ["ConvTranspose"]


def test_linear_layers(tmp_path):
    build = Builder()
    flat = build.op("Flatten", "x")
    x = build.op("Gemm", flat, build.weight("g", 8, 324), build.weight("gb", 8), transB=1)
    x = build.norm(x, 8)
    made, _ = merged(build.model([x], rank=2), tmp_path)
    assert ops(made) == ["Flatten", "Gemm"]
    build.op("Gemm", x, build.weight("h", 200, 8), build.weight("hb", 200), transB=1)
    model = build.model([build.nodes[-1].output[0]], rank=2)
    assert ops(merged(model, tmp_path)[0]) == ["Flatten", "Gemm", "Gemm"]  # 324·200 is more than 324·8 + 8·200
    assert ops(merged(model, tmp_path, always=True)[0]) == ["Flatten", "Gemm"]


def test_what_would_cost_more_or_change_the_border_stays(tmp_path):
    build = Builder()
    x = build.conv(build.conv("x", 4, 4, bias=False), 4, 4)
    model = build.model([x], ("N", 4, 19, 19))
    assert ops(merged(model, tmp_path, (2, 4, 19, 19))[0]) == ["Conv", "Conv"]
    made, _ = merged(model, tmp_path, (2, 4, 19, 19), always=True)
    assert ops(made) == ["Conv"]
    assert list(made.graph.node[0].attribute[2].ints) == [5, 5]
    build = Builder()
    x = build.conv(build.conv("x", 4, 4, 1), 4, 4, pads=[1] * 4)
    made, report = merged(build.model([x]), tmp_path, always=True)
    assert ops(made) == ["Conv", "Conv"]
    assert any("the border would differ" in item.message for item in report.diagnostics)


def test_a_tensor_that_is_an_output_stays(tmp_path):
    build = Builder()
    conv = build.conv("x", 4, 4)
    made, _ = merged(build.model([conv, build.norm(conv, 4)]), tmp_path)
    assert ops(made) == ["Conv", "BatchNormalization"]


def test_a_weight_that_another_node_takes_stays(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4, pads=[1] * 4, bias=False), 4)
    x = build.op("Conv", build.op("Relu", x), "w0", pads=[1] * 4)
    made, _ = merged(build.model([x]), tmp_path)
    assert {"w0", "w0_merged"} <= {tensor.name for tensor in made.graph.initializer}


def test_padding_that_depends_on_the_size_stays(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4, auto_pad="SAME_UPPER", strides=[2, 2]), 4)
    made, _ = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv", "BatchNormalization"]


def test_old_files_list_their_weights_as_inputs(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4), 4)
    made, _ = merged(build.model([x], opset=8, ir=3), tmp_path)
    assert ops(made) == ["Conv"]
    assert [info.name for info in made.graph.input if info.name != "x"] == ["w0_merged", "w0_merged_bias"]


def test_what_a_branch_takes_stays(tmp_path):
    build = Builder()
    conv = build.conv("x", 4, 4)
    x = build.norm(conv, 4)
    inner = helper.make_graph([helper.make_node("Identity", [conv], ["inner"])], "then", [],
                              [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None] * 4)])  # fmt: skip
    flag = build.op("Greater", build.op("ReduceMax", x, keepdims=0), build.weight("zero"))
    build.nodes.append(helper.make_node("If", [flag], ["picked"], then_branch=inner, else_branch=inner))
    made, _ = merged(build.model([x, "picked"]), tmp_path)
    assert ops(made)[:2] == ["Conv", "BatchNormalization"]


@st.composite
def models(draw):
    """Layers in a row and branches, some of them linear."""
    build = Builder(draw(st.integers(0, 1000)))
    x, channels = "x", 4
    for _ in range(draw(st.integers(2, 5))):
        kind = draw(
            st.sampled_from(
                ["conv", "conv", "norm", "relu", "mul", "block", "pool", "up", "pad", "groups", "repeat", "drop"]
            )
        )
        if kind == "conv":
            after, kernel = draw(st.integers(1, 6)), draw(st.sampled_from([1, 3]))
            pad = draw(st.integers(0, kernel // 2))
            x = build.conv(x, channels, after, kernel, bias=draw(st.booleans()), pads=[pad] * 4)
            channels = after
            if kernel == 3 and pad == 0:
                x = build.conv(x, channels, channels, 3, pads=[2] * 4)
        elif kind == "up":
            x = build.conv(x, channels, channels, 3, transposed=True, bias=draw(st.booleans()), pads=[1] * 4)
        elif kind == "norm":
            x = build.norm(x, channels)
        elif kind == "mul":
            x = build.op(
                draw(st.sampled_from(["Mul", "Add", "Sub", "Div"])),
                x,
                build.weight(f"k{len(build.weights)}", channels, 1, 1),
            )
        elif kind == "pad":
            pads = [0, 0, *draw(st.lists(st.integers(0, 2), min_size=2, max_size=2))] * 2
            name = f"pads{len(build.weights)}"
            build.weights.append(numpy_helper.from_array(np.array(pads), name))
            x = build.op("Pad", x, name, mode=draw(st.sampled_from(["constant", "constant", "edge"])))
        elif kind == "groups":
            kernel, pad, stride = (
                draw(st.sampled_from([1, 3])),
                draw(st.integers(1, 2)),
                draw(st.sampled_from([1, 1, 2])),
            )
            x = build.conv(x, channels, channels * 2, kernel, groups=channels, pads=[pad] * 4, strides=[stride] * 2)
            channels *= 2
        elif kind == "repeat":
            x = build.op("Resize", x, "", fill(build, f"s{len(build.weights)}", [1, 1, 1, 2]), mode="nearest",
                         nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip
        elif kind == "drop":
            x = build.op(draw(st.sampled_from(["Dropout", "Identity", "Neg"])), x)
        elif kind == "pool":
            x = build.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1],
                         count_include_pad=draw(st.integers(0, 1)))  # fmt: skip
        elif kind == "block":
            one = build.norm(build.conv(x, channels, channels, pads=[1] * 4, bias=False), channels)
            two = build.conv(x, channels, channels, 1)
            join = draw(st.sampled_from(["Add", "Concat"]))
            x = build.op(join, one, two, **({"axis": 1} if join == "Concat" else {}))
            channels *= 2 if join == "Concat" else 1
        else:
            x = build.op("Relu", x)
    if draw(st.booleans()):
        return build.model([x])
    x = build.op("Flatten", build.op("AveragePool", x, kernel_shape=[2, 2]))
    if draw(st.booleans()):
        x = build.op("Mul", x, build.weight("last"))
    x = build.op("Gemm", x, build.weight("g", features_of(build, x), 3))
    return build.model([build.op("Add", x, build.weight("h", 3))], rank=2)


def features_of(build, name):
    """The features of a tensor."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        onnx.save(build.model([name], rank=2), file.name)
        network = read_onnx(Path(file.name), batch=1)
    return resolve(network)[-1].outputs[0][-1]


@given(models(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_random_models(tmp_path_factory, model, always):
    merged(model, tmp_path_factory.mktemp("models"), always=always)


@pytest.mark.slow
@given(models(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_many_random_models(tmp_path_factory, model, always):
    merged(model, tmp_path_factory.mktemp("models"), always=always)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = Builder()
    onnx.save(build.model([build.norm(build.conv("x", 4, 6, pads=[1] * 4), 6)]), "net.onnx")
    assert run_command_line(["compose", "net.onnx", "--batch", "1", "-o", "out.onnx", "--format", "plain"]) == 0
    done = capsys.readouterr()
    assert "1 merged layer takes the place of 2: 2 layers before, 1 after" in done.err
    assert "written to out.onnx" in done.err
    assert Path("out.onnx").exists()
    before = Path("net.onnx").read_bytes()
    assert run_command_line(["compose", "net.onnx", "--batch", "1", "-o", "./net.onnx"]) == 1
    assert "is the model itself" in capsys.readouterr().err
    assert Path("net.onnx").read_bytes() == before
    assert run_command_line(["compose", "conv:k3", "-o", "out.onnx"]) == 2
    assert run_command_line(["compose", "conv:k3", "--always"]) == 2
    assert run_command_line(["compose", "net.onnx", "--batch", "1", "-o", "nowhere/out.onnx"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4), 4)
    build.weights[0] = numpy_helper.from_array(np.full((4, 4, 3, 3), np.nan, np.float32), "w0")
    onnx.save(build.model([x]), tmp_path / "model.onnx")
    network = read_onnx(tmp_path / "model.onnx", batch=1)
    with pytest.raises(ConvcalcError, match=r"layer Conv_0 \(conv\): its weight holds NaN or infinity"):
        merge_model(tmp_path / "model.onnx", "model.onnx", network, str(tmp_path / "out.onnx"))
    assert not (tmp_path / "out.onnx").exists()


# --- more than convolutions and batch norm --------------------------------------------------------------------------


def fill(build, name, values):
    """A weight of given values."""
    build.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name


def test_constants_are_subtracted_and_divided_by(tmp_path):
    build = Builder()
    x = build.op("Sub", "x", build.weight("mean", 1, 4, 1, 1))
    x = build.op("Div", x, build.weight("deviation", 4, 1, 1, positive=True))
    x = build.conv(x, 4, 6)
    x = build.op("Sub", build.weight("from", 1), build.op("Neg", x))
    made, _ = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv"]
    x = build.op("Div", build.weight("numerator", 1), x)
    assert ops(merged(build.model([x]), tmp_path)[0]) == ["Conv", "Div"]


def test_a_division_by_zero_stays(tmp_path):
    build = Builder()
    x = build.op("Div", build.conv("x", 4, 2), fill(build, "d", np.reshape([1, 0], (2, 1, 1))))
    path = tmp_path / "model.onnx"
    onnx.save(build.model([x]), path)
    report = merge_model(path, "model.onnx", read_onnx(path, batch=1))
    assert not report.rows
    assert any("it divides by 0" in item.message for item in report.diagnostics)


def test_what_is_not_one_number_a_channel_stays(tmp_path):
    build = Builder()
    x = build.op("Add", build.conv("x", 4, 4), build.weight("each", 1, 4, 7, 7))
    x = build.op("Mul", x, build.weight("columns", 7))
    assert ops(merged(build.model([x]), tmp_path)[0]) == ["Conv", "Add", "Mul"]


def test_batch_norm_before_a_convolution(tmp_path):
    build = Builder()
    model = build.model([build.conv(build.norm("x", 4), 4, 6)])
    assert ops(merged(model, tmp_path)[0]) == ["Conv"]
    build = Builder()
    model = build.model([build.conv(build.norm("x", 4), 4, 6, pads=[1] * 4)])
    made, report = merged(model, tmp_path, always=True)
    assert ops(made) == ["BatchNormalization", "Conv"]  # zeros are padded after the shift
    assert any("the border would differ" in item.message for item in report.diagnostics)
    build = Builder()  # a scale alone leaves zeros what they are
    model = build.model([build.conv(build.op("Mul", "x", build.weight("k", 4, 1, 1)), 4, 6, pads=[1] * 4)])
    assert ops(merged(model, tmp_path)[0]) == ["Conv"]


def test_padding_and_pools_become_part_of_convolutions(tmp_path):
    build = Builder()
    build.weights.append(numpy_helper.from_array(np.array([0, 0, 1, 2, 0, 0, 3, 0]), "pads"))
    x = build.conv(build.op("Pad", "x", "pads"), 4, 6)
    made, _ = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv"]
    assert list(made.graph.node[0].attribute[3].ints) == [1, 2, 3, 0]
    build = Builder()
    x = build.op("AveragePool", build.conv("x", 4, 4, bias=False), kernel_shape=[2, 2], strides=[2, 2])
    made, report = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv"]  # 16 products for each of a quarter of the outputs are fewer than 9 for each
    assert report.totals["macs"] < report.totals["was_macs"]


def test_depthwise_and_pointwise_merge_where_that_pays(tmp_path):
    build = Builder()
    x = build.conv(build.conv("x", 4, 4, groups=4), 4, 8, 1)
    assert ops(merged(build.model([x]), tmp_path)[0]) == ["Conv", "Conv"]
    build = Builder()
    x = build.conv(build.conv("x", 4, 4, groups=4), 4, 1, 1)  # 36 + 4 products against 36
    assert ops(merged(build.model([x]), tmp_path)[0]) == ["Conv"]


def test_repeated_elements_and_a_convolution(tmp_path):
    build = Builder()
    x = build.op("Resize", "x", "", fill(build, "scales", [1, 1, 2, 2]), mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric")  # fmt: skip
    made, report = merged(build.model([build.conv(x, 4, 4, pads=[1] * 4, bias=False)]), tmp_path)
    assert ops(made) == ["ConvTranspose"]
    assert report.totals["macs"] * 9 == report.totals["was_macs"] * 4


def test_matrix_products(tmp_path):
    build = Builder()
    x = build.op("MatMul", build.op("Flatten", "x"), build.weight("m", 324, 5))
    x = build.op("Add", x, build.weight("shift", 5))
    x = build.op("Mul", x, build.weight("scale", 1, 5))
    x = build.op("Gemm", x, build.weight("g", 5, 3), build.weight("gb", 1, 3), alpha=0.5, beta=2.0)
    made, report = merged(build.model([x], rank=2), tmp_path)
    assert ops(made) == ["Flatten", "Gemm"]
    assert report.totals["macs"] == 2 * 324 * 3


def test_scales_without_a_matrix_stay(tmp_path):
    build = Builder()
    x = build.op("Flatten", "x")
    for _ in range(2):
        x = build.op("Mul", build.op("Add", x, build.weight(f"a{x}", 324)), build.weight(f"b{x}", 324))
    assert ops(merged(build.model([x], rank=2), tmp_path, always=True)[0]) == ["Flatten", "Add", "Mul", "Add", "Mul"]
    x = build.op("Gemm", x, build.weight("g", 5, 324), transB=1)
    assert ops(merged(build.model([x], rank=2), tmp_path)[0]) == ["Flatten", "Gemm"]


def test_matrices_side_by_side(tmp_path):
    build = Builder()
    x = build.op("Relu", build.op("Flatten", "x"))
    low = build.op(
        "Gemm", build.op("Gemm", x, build.weight("a", 2, 324), transB=1), build.weight("b", 324, 2), transB=1
    )
    full = build.op("Gemm", x, build.weight("w", 324, 324), build.weight("wb", 324), transB=1)
    model = build.model([build.op("Add", build.op("Add", full, low), x)], rank=2)
    assert ops(merged(model, tmp_path, always=True)[0]) == ["Flatten", "Relu", "Gemm"]
    build.nodes = [node for node in build.nodes if node.op_type != "Add"]
    joined = build.model([build.op("Concat", full, low, axis=1)], rank=2)
    assert ops(merged(joined, tmp_path, always=True)[0]) == ["Flatten", "Relu", "Gemm"]


@pytest.mark.parametrize("view", ["Flatten", "Reshape"])
def test_a_convolution_before_features(tmp_path, view):
    build = Builder()
    x = build.conv("x", 4, 30, 9)
    build.weights.append(numpy_helper.from_array(np.array([0, -1]), "shape"))
    x = build.op(view, x, *(["shape"] if view == "Reshape" else []))
    x = build.op("Gemm", x, build.weight("g", 10, 30), transB=1)
    made, report = merged(build.model([x], rank=2), tmp_path)
    assert ops(made) == ["Flatten", "Gemm"]
    assert report.totals["macs"] == 2 * 324 * 10
    build = Builder()
    x = build.op("Mul", build.conv("x", 4, 3, pads=[1] * 4), build.weight("k", 3, 1, 1))
    x = build.op("Gemm", build.op("Flatten", build.op("Relu", x)), build.weight("g", 2, 243), transB=1)
    assert ops(merged(build.model([x], rank=2), tmp_path, always=True)[0]) == ["Conv", "Relu", "Flatten", "Gemm"]


@pytest.mark.parametrize(("shape", "kernel"), [((2, 4, 11), [3]), ((1, 4, 5, 6, 7), [3, 3, 3])])
def test_other_ranks_and_groups(tmp_path, shape, kernel):
    build = Builder()
    rank = len(kernel)
    wide = build.op("Conv", "x", build.weight("w", 4, 2, *kernel), pads=[1] * 2 * rank, group=2)
    narrow = build.op("Conv", "x", build.weight("v", 4, 2, *[1] * rank), group=2)
    x = build.norm(build.op("Sum", build.norm(wide, 4), narrow, build.norm("x", 4)), 4)
    x = build.op("ConvTranspose", build.op("Relu", x), build.weight("t", 4, 3, *kernel), strides=[2] * rank)
    x = build.norm(x, 3)
    model = build.model([x], ("N", *shape[1:]), rank=len(shape))
    made, _ = merged(model, tmp_path, shape)
    assert ops(made) == ["Conv", "Relu", "ConvTranspose"]
    assert made.graph.node[0].attribute[1].i == 2


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 18, 20, 21, 22, 23])
def test_versions_of_the_ops(tmp_path, opset):
    build = Builder()
    x = build.op("Relu", build.op("Dropout", build.norm(build.conv("x", 4, 6, pads=[1] * 4), 6)))
    x = build.op("AveragePool", x, kernel_shape=[9, 9])
    x = build.op("Gemm", build.op("Flatten", x), build.weight("g", 5, 6), build.weight("gb", 5), transB=1)
    x = build.norm(x, 5)
    made, _ = merged(build.model([x], opset=opset, ir=3 if opset < 9 else 8, rank=2), tmp_path)
    assert ops(made) == ["Conv", "Relu", "AveragePool", "Flatten", "Gemm"]


# --- where weights are, and who else takes them ---------------------------------------------------------------------


def test_weights_in_constant_nodes_and_behind_identity(tmp_path):
    build = Builder()
    values = np.random.default_rng(3).normal(size=(6, 4, 3, 3)).astype(np.float32)
    build.nodes.append(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(values)))
    build.nodes.append(helper.make_node("Identity", [build.weight("held", 6)], ["b"]))
    x = build.norm(build.op("Conv", "x", "w", "b"), 6)
    made, report = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv"]
    assert [tensor.name for tensor in made.graph.initializer] == ["w_merged", "w_merged_bias"]
    assert report.totals["params"] == 6 * 4 * 9 + 6


def test_what_merged_layers_take_stays(tmp_path):
    build = Builder()
    x = build.op("Identity", "x")
    wide, narrow = build.conv(x, 4, 4, pads=[1] * 4), build.conv(x, 4, 4, 1)
    made, _ = merged(build.model([build.op("Add", wide, narrow)]), tmp_path)
    assert ops(made) == ["Identity", "Conv"]


def test_weights_that_two_layers_share_go_on_being_shared(tmp_path):
    build = Builder()
    norm = [build.weight(f"n{part}", 6, positive=part == "v") for part in "sbmv"]
    w = build.weight("w", 6, 4, 3, 3)
    twice = [build.op("BatchNormalization", build.op("Conv", x, w), *norm) for x in ("x", build.op("Relu", "x"))]
    made, _ = merged(build.model(twice), tmp_path)
    assert sorted(ops(made)) == ["Conv", "Conv", "Relu"]
    assert len(made.graph.initializer) == 2


def test_weights_that_may_be_given_from_outside_stay(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4), 4)
    model = build.model([x])
    model.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, (4, 4, 3, 3)))
    made, report = merged(model, tmp_path)
    assert ops(made) == ["Conv", "BatchNormalization"]
    assert "Conv_0 (conv) stays as it is: its weight is an input of the model, which may be given another one" in [
        item.message for item in report.diagnostics
    ]


def test_a_tensor_whose_shape_is_asked_for_stays(tmp_path):
    build = Builder()
    conv = build.conv("x", 4, 6)
    x = build.op("Reshape", build.norm(conv, 6), build.op("Shape", conv))
    made, _ = merged(build.model([x]), tmp_path)
    assert ops(made) == ["Conv", "BatchNormalization", "Shape", "Reshape"]


def test_external_weights(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 6), 6)
    x = build.conv(build.op("Relu", x), 6, 6)
    path = tmp_path / "model.onnx"
    onnx.save(build.model([x]), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    held = (tmp_path / "weights.bin").read_bytes()
    network = read_onnx(path, batch=1)
    report = merge_model(path, "model.onnx", network, str(tmp_path / "merged.onnx"), verify=True)
    assert report.totals["difference_inside"] < 1e-5
    x = RANDOM.normal(size=(1, 4, 9, 9)).astype(np.float32)
    before, after = (onnxruntime.InferenceSession(tmp_path / name).run(None, {"x": x})[0]
                     for name in ("model.onnx", "merged.onnx"))  # fmt: skip
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    (tmp_path / "other").mkdir()
    with pytest.raises(ConvcalcError, match="write into the same folder"):
        merge_model(path, "model.onnx", network, str(tmp_path / "other" / "merged.onnx"))
    with pytest.raises(ConvcalcError, match="is where its weights are"):
        merge_model(path, "model.onnx", network, str(tmp_path / "weights.bin"))
    assert (tmp_path / "weights.bin").read_bytes() == held


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_float_types(tmp_path, dtype):
    build = Builder()
    x = build.norm(build.conv("x", 4, 6, pads=[1] * 4), 6)
    model = build.model([x])
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(numpy_type), tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = dtype
    path, target = tmp_path / "model.onnx", tmp_path / "merged.onnx"
    onnx.save(model, path)
    report = merge_model(path, "model.onnx", read_onnx(path, batch=1), str(target), verify=True)
    made = onnx.load(target)
    onnx.checker.check_model(made, full_check=True)
    assert ops(made) == ["Conv"]
    assert {tensor.data_type for tensor in made.graph.initializer} == {dtype}
    assert not [item for item in report.diagnostics if item.level == "warning"]


def test_a_type_that_numpy_does_not_have_stays(tmp_path):
    build = Builder()
    model = build.model([build.norm(build.conv("x", 4, 6), 6)])
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, values.reshape(-1)))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnx.save(model, tmp_path / "model.onnx")
    report = merge_model(tmp_path / "model.onnx", "m", read_onnx(tmp_path / "model.onnx", batch=1), str(tmp_path / "o"))
    assert "stay as they are: it holds bfloat16" in report.diagnostics[1].message + report.diagnostics[2].message
    assert (tmp_path / "o").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_layers_in_branches_are_left_alone_and_that_is_said(tmp_path):
    build = Builder()
    x = build.norm(build.conv("x", 4, 4), 4)
    graphs = []
    for branch in ("then", "else"):
        inner = Builder(1)
        w = inner.weight(f"{branch}_w", 4, 4, 3, 3)
        norm = [inner.weight(f"{branch}_{part}", 4, positive=part == "v") for part in "sbmv"]
        inner.nodes.append(helper.make_node("Conv", [x, w], [f"{branch}_conv"]))
        inner.nodes.append(helper.make_node("BatchNormalization", [f"{branch}_conv", *norm], [f"{branch}_out"]))
        output = helper.make_tensor_value_info(f"{branch}_out", TensorProto.FLOAT, [None] * 4)
        graphs.append(helper.make_graph(inner.nodes, branch, [], [output], inner.weights))
    flag = build.op("Greater", build.op("ReduceMax", x, keepdims=0), build.weight("zero"))
    build.nodes.append(helper.make_node("If", [flag], ["picked"], then_branch=graphs[0], else_branch=graphs[1]))
    path = tmp_path / "model.onnx"
    onnx.save(build.model(["picked"]), path)
    report = merge_model(path, "m", read_onnx(path, batch=1), str(tmp_path / "o.onnx"))
    assert "4 layers in branches, loops and functions of the file are left as they are" in [
        item.message for item in report.diagnostics
    ]
    made = onnx.load(tmp_path / "o.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert ops(made) == ["Conv", "ReduceMax", "Greater", "If"]
    x = RANDOM.normal(size=(1, 4, 9, 9)).astype(np.float32)
    before, after = (onnxruntime.InferenceSession(tmp_path / name).run(None, {"x": x})[0]
                     for name in ("model.onnx", "o.onnx"))  # fmt: skip
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


# --- the file -------------------------------------------------------------------------------------------------------


def test_fields_that_nobody_knows_are_kept(tmp_path):
    """Fields of a later format, doc strings, metadata and ops of other domains: on the wire."""
    build = Builder()
    x = build.norm(build.conv("x", 4, 4), 4)
    build.nodes.append(helper.make_node("Mystery", [x], ["y"], name="own", domain="com.example", doc_string="said"))
    model = build.model(["y"])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.doc_string = model.graph.doc_string = "words"
    unknown = bytes([0xFA, 0x3E, 3]) + b"new"  # field 1007, of a length
    varint = bytes([0xC0, 0x3E, 7])  # field 1000, a number
    node = model.graph.node[-1].SerializeToString() + unknown
    body = bytearray()
    for each in model.graph.node[:-1]:
        body += onnx_field(1, each.SerializeToString())
    body += varint + onnx_field(1, node)
    del model.graph.node[:]
    body += model.graph.SerializeToString() + unknown
    model.ClearField("graph")
    content = unknown + onnx_field(7, bytes(body)) + model.SerializeToString() + varint
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    merge_model(path, "m", read_onnx(path, batch=1), str(tmp_path / "o.onnx"))
    made = (tmp_path / "o.onnx").read_bytes()
    assert made.startswith(unknown)
    assert made.endswith(model.SerializeToString() + varint)
    assert varint + onnx_field(1, node) in made
    found = onnx.load(tmp_path / "o.onnx")
    assert ops(found) == ["Conv", "Mystery"]
    assert (found.doc_string, found.graph.doc_string, found.graph.node[1].doc_string) == ("words", "words", "said")
    assert unknown + onnx_field(5, found.graph.initializer[0].SerializeToString()) in made


def onnx_field(number, content):
    """A field with a length, as Protocol Buffers have it."""
    from google.protobuf.internal.encoder import _VarintBytes

    return _VarintBytes(number << 3 | 2) + _VarintBytes(len(content)) + content


@pytest.mark.parametrize("how", ["itself", "symlink", "hardlink", "relative"])
def test_the_model_is_never_written_over(tmp_path, monkeypatch, how):
    build = Builder()
    (tmp_path / "deep").mkdir()
    path = tmp_path / "model.onnx"
    onnx.save(build.model([build.norm(build.conv("x", 4, 6), 6)]), path)
    before = path.read_bytes()
    target = tmp_path / "link.onnx"
    if how == "symlink":
        target.symlink_to(path)
    elif how == "hardlink":
        target.hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    target = {"itself": path, "relative": Path("deep/../model.onnx")}.get(how, target)
    with pytest.raises(ConvcalcError, match="is the model itself"):
        merge_model(path, "model.onnx", read_onnx(path, batch=1), str(target))
    assert path.read_bytes() == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    build = Builder()
    path, target = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(build.model([build.norm(build.conv("x", 4, 6), 6)]), path)
    target.write_bytes(b"before")
    network = read_onnx(path, batch=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ConvcalcError, match="cannot be written: no space left on device"):
        merge_model(path, "m", network, str(target))
    assert target.read_bytes() == b"before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]
    monkeypatch.undo()
    monkeypatch.setattr("convcalc.composition.onnx_writing._MOST_BYTES", 100)
    with pytest.raises(ConvcalcError, match="ONNX files end at 2 GiB"):
        merge_model(path, "m", network, str(target))
    assert target.read_bytes() == b"before"


def test_both_models_are_run_and_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = Builder()
    onnx.save(build.model([build.norm(build.conv("x", 4, 6, pads=[1] * 4), 6)]), "net.onnx")
    assert run_command_line(["compose", "net.onnx", "--batch", "1", "--verify", "--format", "plain"]) == 0
    said = capsys.readouterr().err
    assert "on random numbers (seed 0), both models differ by at most" in said
    assert not Path("merged.onnx").exists()
    assert (
        run_command_line(["compose", "net.onnx", "--batch", "1", "--verify", "--get", "totals.difference_inside"]) == 0
    )
    assert 0 < float(capsys.readouterr().out) < 1e-5


@pytest.mark.slow
def test_resnet50(tmp_path):
    """Folded, in onnxruntime and by `run`, with weights as training leaves them: He's, and statistics of batch norm."""
    random = np.random.default_rng(50)
    model = resnet50(folded=False)
    model.ir_version = 8
    for tensor in model.graph.initializer:
        shape = tuple(tensor.dims)
        if tensor.name.endswith("running_var"):
            values = random.uniform(0.5, 2, shape)
        elif len(shape) > 1:
            values = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            values = random.normal(size=shape) * 0.1 + tensor.name.endswith("bn.weight")
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    path, target = tmp_path / "resnet50.onnx", tmp_path / "folded.onnx"
    onnx.save(model, path)
    network = read_onnx(path)
    report = merge_model(path, "resnet50.onnx", network, str(target), verify=True)
    made = onnx.load(target)
    onnx.checker.check_model(made, full_check=True)
    assert ops(model).count("BatchNormalization") == 53
    assert ops(made).count("Conv") == ops(model).count("Conv") == 53
    assert "BatchNormalization" not in ops(made)
    assert report.totals["params"] == 25_530_472
    assert report.totals["macs"] == report.totals["was_macs"] == 4_089_184_256
    assert (report.totals["layers_before"], report.totals["layers"]) == (175, 122)
    folded = read_onnx(target)
    totals = summary(folded).totals
    assert (totals["params"], totals["macs"]) == (report.totals["params"], report.totals["macs"])
    x = random.normal(size=(1, 3, 224, 224)).astype(np.float32)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before, after = (onnxruntime.InferenceSession(file, plain).run(None, {"input": x})[0] for file in (path, target))
    scale = np.abs(before).max()
    assert np.abs(after - before).max() < 1e-5 * scale
    assert np.abs(run(folded, x).output - before).max() < 1e-5 * scale
    assert report.totals["difference_inside"] < 1e-5 * scale
