"""Merged ONNX files: onnxruntime gives the same, the checker accepts them, and the rest stays byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper

from convcalc.analysis.costs import costs
from convcalc.cli import run_command_line
from convcalc.composition.models import merge_model
from convcalc.errors import ConvcalcError
from convcalc.onnx_file import read_onnx

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
    before, after = (onnxruntime.InferenceSession(file).run(None, {"x": x}) for file in (path, target))
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
    assert [row.name for row in report.rows] == ["Conv_0 (conv), BatchNormalization_1 (batchnorm)"]


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
        kind = draw(st.sampled_from(["conv", "conv", "norm", "relu", "mul", "block", "pool", "up"]))
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
                draw(st.sampled_from(["Mul", "Add"])), x, build.weight(f"k{len(build.weights)}", channels, 1, 1)
            )
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
    return build.model([x])


@given(models(), st.booleans())
@settings(max_examples=60, deadline=None)
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
