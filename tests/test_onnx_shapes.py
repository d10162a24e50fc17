"""ONNX files as networks: shapes of every operator case, known networks, what computes shapes, what is refused."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx_cases
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper
from onnx_models import initializer, integers, model, resnet50

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.receptive_field import receptive_fields
from convcalc.analysis.shapes import resolve, shapes
from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers import FILE_LAYERS, LAYERS
from convcalc.layers.base import Cost
from convcalc.nouns import LayerOptions, read_network
from convcalc.onnx import reader
from convcalc.onnx.file import read_onnx
from convcalc.onnx.folding import FOLDERS, fold
from convcalc.onnx.known import Small

AGREED = 1731
"""How many of the operator cases of onnx 1.23 agree; `python tests/onnx_cases.py` says why the others are left out."""


def read(made, **given):
    shapes_given = {name: tuple(shape) for name, shape in given.items()}
    return read_onnx(made.SerializeToString(), "m.onnx", given=shapes_given)


def chain(*nodes, inputs, outputs="y", weights=(), **more):
    """A model of nodes with one output whose shape the file does not tell."""
    return model(list(nodes), inputs, {outputs: None}, weights, **more)


def op(op_type, inputs, outputs="y", **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def answer(made, **given):
    return shapes(read(made, **given)).answer


# --- the onnx package's own cases -----------------------------------------------------------------------------------


def test_every_operator_case_that_is_known_agrees():
    outcomes = {case.name: onnx_cases.outcome(case) for case in onnx_cases.cases()}
    assert [(name, found) for name, found in outcomes.items() if found and found[0] != "left out"] == []
    assert Counter(found is None for found in outcomes.values())[True] >= AGREED


# --- known networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folded", "params"), [(True, 25530472), (False, 25557032)])
def test_resnet50(folded, params):
    network = read(resnet50(folded=folded))
    report = costs(network)
    assert report.totals["params"] == params
    assert report.totals["macs"] == 4089184256
    assert report.status == "complete"
    assert memory(network).totals["parameters"] == 4 * params
    twice = costs(read(resnet50(folded=folded), input=(2, 3, 224, 224))).totals
    assert twice["params"] == params
    assert twice["macs"] == 2 * 4089184256


def test_batch_norms_statistics_are_buffers():
    parts = [initializer(name, 8) for name in ("w", "b", "mean", "var")]
    network = read(chain(op("BatchNormalization", "x w b mean var"), inputs={"x": [1, 8, 4, 4]}, weights=parts))
    assert (costs(network).totals["params"], costs(network).totals["buffers"]) == (16, 16)
    assert memory(network).totals["buffers"] == 64
    assert "buffers" not in costs(read(chain(op("Relu", "x"), inputs={"x": [1, 8]}))).totals


def test_a_shared_weight_counts_once():
    nodes = [op("Conv", "x w", "a", pads=[1] * 4), op("Conv", "a w", "y", pads=[1] * 4)]
    report = costs(read(chain(*nodes, inputs={"x": [1, 4, 8, 8]}, weights=[initializer("w", 4, 4, 3, 3)])))
    assert [row.values["params"] for row in report.rows] == [144, 0]
    assert report.totals["macs"] == 2 * 144 * 64


def test_what_serves_as_weight_scale_or_bias_is_a_parameter():
    nodes = [
        op("MatMul", "x w", "a"),
        op("Add", "a b", "c"),
        op("Mul", "c half", "d"),
        op("Gather", "table ids", "e"),
        op("Add", "d e", "y"),
    ]
    weights = [
        initializer("w", 16, 10),
        initializer("b", 10),
        initializer("half", value=0.5),
        initializer("table", 7, 10),
    ]
    made = chain(*nodes, inputs={"x": [1, 5, 16]}, weights=[*weights, integers("ids", [1, 2, 3, 4, 5])])
    assert costs(read(made)).totals["params"] == 160 + 10 + 70
    assert costs(read(made)).totals["macs"] == 5 * 160


def test_a_weight_that_is_computed_is_no_parameter():
    nodes = [op("DequantizeLinear", "q s", "w"), op("Conv", "x w", "y")]
    quantised = helper.make_tensor("q", TensorProto.INT8, [4, 3, 1, 1], [1] * 12)
    report = costs(read(chain(*nodes, inputs={"x": [1, 3, 8, 8]}, weights=[quantised, initializer("s", value=0.1)])))
    assert report.totals["params"] == 0
    assert report.totals["macs"] == 12 * 64


def test_a_bias_that_is_computed_comes_in_as_a_tensor():
    made = chain(op("Conv", "x w b"), inputs={"x": [1, 3, 8, 8], "b": [4]}, weights=[initializer("w", 4, 3, 1, 1)])
    report = costs(read(made))
    assert report.totals["params"] == 12
    assert report.rows[0].inputs == ((1, 3, 8, 8), (4,))


def test_what_is_no_weight_scale_or_bias_is_no_parameter():
    """Places, the left factor of a product of constants, updates, limits, and comparisons."""
    nodes = [
        op("MatMul", "places w", "table"),
        op("ScatterND", "table where fills", "mask"),
        op("Greater", "mask limits", "above"),
        op("Where", "above x mask", "y"),
    ]
    weights = [initializer("places", 2, 3), initializer("w", 3, 5), integers("ones", [1]), initializer("fills", 1, 5),
               helper.make_tensor("where", TensorProto.INT64, [1, 1], [1]), initializer("limits", 5)]  # fmt: skip
    assert costs(read(chain(*nodes, inputs={"x": [2, 5]}, weights=weights))).totals["params"] == 15


@pytest.mark.parametrize(("value", "params"), [(0.0, 0), (0.5, 32)])
def test_an_initial_state_is_a_parameter_where_it_is_learned(value, params):
    """PyTorch writes one constant of zeros, which both states of an LSTM are expanded from."""
    nodes = [
        op("Constant", "", "size", value_ints=[1, 3, 32]),
        op("Expand", "state size", "hidden"),
        op("Expand", "state size", "cell"),
        helper.make_node("LSTM", ["x", "wi", "wh", "", "", "hidden", "cell"], ["y"], hidden_size=32),
    ]
    weights = [initializer("wi", 1, 128, 8), initializer("wh", 1, 128, 32), initializer("state", 1, 1, 32, value=value)]
    report = costs(read(chain(*nodes, inputs={"x": [5, 3, 8]}, weights=weights)))
    assert report.totals["params"] == 128 * 40 + params


@pytest.mark.parametrize(("scale", "value", "params"), [("s", 1.0, 0), ("s", 0.5, 8), ("norm.weight", 1.0, 8)])
def test_a_norms_scale_that_an_exporter_made_up_is_no_parameter(scale, value, params):
    weights = [initializer(scale, 8, value=value), initializer("b", 8, value=0.0)]
    made = chain(op("InstanceNormalization", f"x {scale} b"), inputs={"x": [1, 8, 4, 4]}, weights=weights)
    assert costs(read(made)).totals["params"] == params


# --- where others are wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "size", "wanted"),
    [
        (op("MaxPool", "x", kernel_shape=[1], strides=[2], ceil_mode=1), 10, 5),
        (op("AveragePool", "x", kernel_shape=[4], strides=[4], pads=[2, 2], ceil_mode=1), 9, 3),
        (op("AveragePool", "x", kernel_shape=[3], pads=[2, 2], count_include_pad=1), 5, 7),
        (op("MaxPool", "x", kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER"), 10, 5),
        (op("MaxPool", "x", kernel_shape=[3], strides=[2], auto_pad="VALID", ceil_mode=1), 10, 4),
    ],
)
def test_pools(node, size, wanted):
    assert answer(chain(node, inputs={"x": [1, 8, size]}, opset=19)) == (1, 8, wanted)


def test_transposed_convolution_costs_its_input_grid():
    node = op("ConvTranspose", "x w", strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])
    report = costs(read(chain(node, inputs={"x": [1, 8, 8, 8]}, weights=[initializer("w", 8, 4, 3, 3)])))
    assert report.totals["macs"] == 18432
    assert report.rows[0].outputs == ((1, 4, 16, 16),)


# --- sizes that are left open ---------------------------------------------------------------------------------------


def flattened():
    """What torch writes for x.view(x.shape[0], -1), with the batch and the height left open."""
    nodes = [
        op("Conv", "x w", "a"),
        op("Shape", "a", "s"),
        op("Constant", "", "zero", value=helper.make_tensor("v", TensorProto.INT64, [], [0])),
        op("Gather", "s zero", "n", axis=0),
        op("Unsqueeze", "n axes", "n1"),
        op("Constant", "", "rest", value_ints=[-1]),
        op("Concat", "n1 rest", "shape", axis=0),
        op("Reshape", "a shape", "f"),
        op("Gemm", "f fc", "y", transB=1),
    ]
    weights = [initializer("w", 4, 3, 3, 3), integers("axes", [0]), initializer("fc", 10, 144)]
    return chain(*nodes, inputs={"x": ["batch", 3, "height", 8]}, weights=weights)


def test_shapes_that_the_model_computes():
    network = read(flattened(), x=(2, 3, 8, 8))
    assert [row.layer.partition(":")[0] for row in shapes(network).rows] == ["conv2d", "shaped", "linear"]
    assert shapes(network).answer == (2, 10)
    assert costs(network).totals["params"] == 4 * 27 + 1440
    # A shape without the batch is one sample, as everywhere.
    assert shapes(read(flattened(), x=(3, 8, 8))).answer == (10,)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "dimension batch of input x (batchx3xheightx8) is open; give it: --input x=1x3x224x8"),
        ({"x": (1, 3)}, "input x is batchx3xheightx8, with 4 axes, but 1x3 is given"),
        ({"x": (1, 3, 9, 8)}, "layer Gemm_8 (Gemm): 1x168 by 10x144: 168 terms meet 144"),
        ({"z": (1, 3, 9, 8)}, "m.onnx has no input z; it has x"),
    ],
)
def test_sizes_that_do_not_fit(given, sentence):
    with pytest.raises((ShapeError, ExpressionError)) as caught:
        read(flattened(), **given)
    assert str(caught.value).startswith(sentence) or "in_features is 144" in str(caught.value)


def test_one_name_is_one_size():
    made = chain(op("Add", "a b"), inputs={"a": ["n", 4], "b": ["n", 4]})
    assert answer(made, a=(3, 4)) == (3, 4)
    with pytest.raises(ShapeError, match="dimension n is 5 in input b, but 3 before it"):
        read(made, a=(3, 4), b=(5, 4))


def test_a_batch_for_all_inputs():
    made = chain(op("Add", "a b"), inputs={"a": ["n", 4], "b": ["n", 4]})
    assert shapes(read_onnx(made.SerializeToString(), "m", batch=7)).answer == (7, 4)


# --- functions and branches -----------------------------------------------------------------------------------------


def test_a_function_of_the_file_is_put_in_place():
    body = [op("Conv", "a w", "c"), helper.make_node("LeakyRelu", ["c"], ["b"])]
    body[1].attribute.add(name="alpha", type=1, ref_attr_name="slope")
    function = helper.make_function("local", "block", ["a", "w"], ["b"], body, [helper.make_opsetid("", 17)], ["slope"])
    nodes = [op("block", "x w", "h", domain="local", name="first", slope=0.3),
             op("block", "h w", "y", domain="local", name="second", slope=0.1)]  # fmt: skip
    network = read(
        chain(*nodes, inputs={"x": [1, 4, 9, 9]}, weights=[initializer("w", 4, 4, 3, 3)], functions=[function])
    )
    assert [node.name for node in network.nodes] == [
        "first/Conv_1", "first/LeakyRelu_2", "second/Conv_4", "second/LeakyRelu_5",
    ]  # fmt: skip
    assert round(network.nodes[1].layer.negative_slope, 6) == 0.3
    assert round(network.nodes[3].layer.negative_slope, 6) == 0.1
    assert shapes(network).answer == (1, 4, 5, 5)


def test_a_function_that_calls_itself():
    function = helper.make_function("local", "f", ["a"], ["b"], [op("f", "a", "b", domain="local")],
                                    [helper.make_opsetid("local", 1)])  # fmt: skip
    with pytest.raises(ModelFileError, match="function f calls itself"):
        read(chain(op("f", "x", domain="local"), inputs={"x": [1]}, functions=[function]))


def branch(name, node):
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])


@pytest.mark.parametrize(("condition", "wanted"), [(True, (1, 4, 1, 1)), (False, (1, 4, 8, 8))])
def test_the_branch_of_a_known_condition_takes_its_place(condition, wanted):
    then = branch("then", op("GlobalAveragePool", "x", "out"))
    other = branch("else", op("Relu", "x", "out"))
    nodes = [
        op("Constant", "", "c", value=helper.make_tensor("v", TensorProto.BOOL, [], [condition])),
        op("If", "c", "y", then_branch=then, else_branch=other),
    ]
    assert answer(chain(*nodes, inputs={"x": [1, 4, 8, 8]})) == wanted


# --- names and numbers ----------------------------------------------------------------------------------------------


def scoped(node, *modules):
    """A node as PyTorch's newer exporter writes it: the modules apart from the name."""
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="a long text")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(["", *modules, "own"]))
    return node


def test_modules_that_a_file_notes_apart_nest_as_others():
    nodes = [
        scoped(op("Relu", "x", "a"), "stem", "stem.0"),
        scoped(op("Relu", "a", "b"), "stem", "stem.0"),
        scoped(op("Relu", "b", "c"), "stem", "stem.0", "stem.0.act"),
        scoped(op("Relu", "c", "d"), "blocks.3", "blocks.3.act"),
        scoped(op("Relu", "d", "y")),
    ]
    network = read(chain(*nodes, inputs={"x": [1, 4]}))
    assert [node.name for node in network.nodes] == [
        "/stem/stem.0/Relu", "/stem/stem.0/Relu_1", "/stem/stem.0/act/Relu", "/blocks.3/act/Relu", "/Relu",
    ]  # fmt: skip
    rows = costs(network, by="module", depth=1).rows
    assert [(row.name, row.layers) for row in rows] == [("/stem", 3), ("/blocks.3/act/Relu", 0), ("/Relu", 0)]


def test_numbers_have_as_few_digits_as_float32_needs():
    parts = [initializer(name, 8) for name in ("w", "b", "mean", "var")]
    nodes = [op("BatchNormalization", "x w b mean var", "a", epsilon=1e-3, momentum=0.97), op("Elu", "a", alpha=1 / 3)]
    network = read(chain(*nodes, inputs={"x": [1, 8, 4, 4]}, weights=parts))
    norm, elu = (node.layer for node in network.nodes)
    assert (norm.eps, norm.momentum, np.float32(elu.alpha), elu.alpha) == (1e-3, 0.03, np.float32(1 / 3), 0.33333334)


def test_the_end_of_a_slice_is_the_end_of_its_axis():
    numbers = [integers("start", [0]), integers("end", [(1 << 63) - 1]), integers("axis", [1]), integers("step", [2])]
    network = read(chain(op("Slice", "x start end axis step"), inputs={"x": [1, 7]}, weights=numbers))
    assert network.nodes[0].layer.ends == (7,)
    assert shapes(network).answer == (1, 4)


# --- what is not known ----------------------------------------------------------------------------------------------


def test_an_unknown_op_whose_shape_is_told_is_partial():
    told = [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 4, 8, 8])]
    nodes = [op("Mystery", "x", "a", domain="com.example"), op("Conv", "a w", "y")]
    made = chain(*nodes, inputs={"x": ["n", 3]}, weights=[initializer("w", 8, 4, 1, 1)], value_infos=told)
    report = costs(read(made, x=(2, 3)))
    assert report.status == "partial"
    assert report.rows[0].values["macs"] is None
    assert report.rows[0].outputs == ((2, 4, 8, 8),)
    assert report.rows[1].values["macs"] == 2 * 32 * 64
    assert report.totals["params"] == 32
    assert any("Mystery is not known" in item.message for item in report.diagnostics)
    assert memory(read(made, x=(2, 3)), train=True).status == "partial"


def test_after_an_unknown_shape_parameters_are_still_counted():
    nodes = [op("NonZero", "x", "a"), op("MatMul", "a w", "y")]
    report = costs(read(chain(*nodes, inputs={"x": [3, 3]}, weights=[initializer("w", 8, 4)])))
    assert report.status == "partial"
    assert [row.outputs for row in report.rows] == [(), ()]
    assert report.totals["params"] == 32


# --- files that mean harm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([op("Relu", "z")], "m.onnx: node Relu_0 (Relu): it takes z, which nothing before it makes"),
        ([op("Relu", "y")], "m.onnx: node Relu_0 (Relu): it takes y, which nothing before it makes"),
        ([op("Relu", "x"), op("Relu", "x")], "m.onnx: tensor y is made twice"),
        ([op("Relu", "x", "z")], "m.onnx: nothing makes the output y"),
        ([op("Conv", "x")], "m.onnx: node Conv_0 (Conv): input 2 is missing"),
        (
            [op("QuantizeLinear", "x")],
            "m.onnx: node QuantizeLinear_0 (QuantizeLinear): it takes 2 inputs, but 1 are given",
        ),
        ([helper.make_node("If", [""], ["y"])], "m.onnx: node If_0 (If): input 1 is missing"),
        ([op("Flatten", "x", axis=9)], "layer Flatten_0 (Flatten): axis is 9, but the input 1x3x8x8 has 4 axes"),
        ([op("Flatten", "x", axis="a")], "m.onnx: node Flatten_0 (Flatten): attribute axis is no whole number"),
        ([op("MaxPool", "x", kernel_shape=[0, 1])], "m.onnx: node MaxPool_0 (MaxPool): kernel, strides and dilations"),
        (
            [op("MaxPool", "x", kernel_shape=[2])],
            "m.onnx: node MaxPool_0 (MaxPool): kernel_shape and pads must be for 2",
        ),
        ([op("Transpose", "x", perm=[0, 0, 1, 2])], "layer Transpose_0 (Transpose): dims 0x0x1x2 must name each"),
        ([op("LRN", "x", size=0)], "m.onnx: node LRN_0 (LRN): size is 0, but must be at least 1"),
    ],
)
def test_nodes_that_are_wrong(nodes, sentence):
    with pytest.raises(ConvcalcError) as caught:
        read(chain(*nodes, inputs={"x": [1, 3, 8, 8]}))
    assert str(caught.value).startswith(sentence)
    assert caught.value.exit_status == 1


def test_branches_in_functions_in_branches():
    """Neither alone is deep: functions hold an If each, which calls the next."""
    functions = []
    for depth in range(120):
        call = op("Relu", "x", "out") if depth == 119 else op(f"f{depth + 1}", "x c", "out", domain="local")
        inner = branch("inner", call)
        node = op("If", "c", "y", then_branch=inner, else_branch=inner)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        functions.append(helper.make_function("local", f"f{depth}", ["x", "c"], ["y"], [node], imports))
    for inputs, weights in (({"x": [4], "c": []}, []), ({"x": [4]}, [helper.make_tensor("c", 9, [], [True])])):
        made = chain(op("f0", "x c", domain="local"), inputs=inputs, weights=weights, functions=functions)
        with pytest.raises(ModelFileError, match="more than 100 deep inside one another"):
            read(made)


def test_sizes_in_a_file_that_is_not_there_stop_only_what_needs_them():
    size = integers("size", [3, 2])
    size.ClearField("int64_data")
    size.data_location = TensorProto.EXTERNAL
    size.external_data.add(key="location", value="gone.bin")
    told = [helper.make_tensor_value_info("a", TensorProto.FLOAT, [3, 2])]
    nodes = [op("Reshape", "x size", "a"), op("MatMul", "a w", "y")]
    made = chain(*nodes, inputs={"x": [6]}, weights=[size, initializer("w", 2, 5)], value_infos=told)
    report = costs(read(made))
    assert report.rows[1].outputs == ((3, 5),)
    assert (report.totals["params"], report.totals["macs"], report.status) == (10, 30, "partial")
    assert any("needs the values of size, whose file is not there" in item.message for item in report.diagnostics)


def test_a_grid_that_would_fill_the_memory():
    told = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1 << 40, 2, 2])]
    size = integers("size", [1, 1, 1 << 40, 2])
    made = chain(op("AffineGrid", "x size", "y"), inputs={"x": [1, 2, 3]}, weights=[size], opset=20, value_infos=told)
    assert costs(read(made)).status == "partial"


def test_axes_that_are_no_whole_numbers():
    axes = helper.make_tensor("axes", TensorProto.FLOAT, [1], [0.5])
    with pytest.raises(ModelFileError, match=r"node Unsqueeze_0 \(Unsqueeze\): its axes are no whole numbers"):
        read(chain(op("Unsqueeze", "x axes"), inputs={"x": [3]}, weights=[axes]))


def test_what_has_no_elements_costs_nothing():
    report = costs(read(chain(op("Softmax", "x"), inputs={"x": [2, 0, 3]})), backward=True)
    assert report.totals["flops"] == report.totals["backward_flops"] == 0


@pytest.mark.parametrize("outputs", [[], ["y"]])
def test_no_receptive_field_without_inputs(outputs):
    nodes = [op("RandomNormal", "", "a", shape=[2, 3]), op("Relu", "a")]
    told = [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3])]
    with pytest.raises(ShapeError, match="no spatial axes"):
        receptive_fields(read(model(nodes, {}, dict.fromkeys(outputs), value_infos=told)))


def test_functions_that_grow_without_end(monkeypatch):
    monkeypatch.setattr(reader, "MOST_NODES", 1000)
    functions = []
    for depth in range(40):
        calls = [op(f"f{depth + 1}", "a", "m", domain="local"), op(f"f{depth + 1}", "m", "b", domain="local")]
        functions.append(
            helper.make_function("local", f"f{depth}", ["a"], ["b"], calls, [helper.make_opsetid("local", 1)])
        )
    functions.append(
        helper.make_function("local", "f40", ["a"], ["b"], [op("Relu", "a", "b")], [helper.make_opsetid("", 17)])
    )
    made = chain(op("f0", "x", domain="local"), inputs={"x": [1]})
    made.functions.extend(functions)
    with pytest.raises(ConvcalcError, match="grows to more than"):
        read(made)


def test_old_and_missing_opsets():
    with pytest.raises(UnsupportedOpError, match="uses version 6 of ONNX's ops; 7 is the oldest known"):
        read(chain(op("Relu", "x"), inputs={"x": [1]}, opset=6))
    made = chain(op("Relu", "x"), inputs={"x": [1]})
    del made.opset_import[:]
    with pytest.raises(ModelFileError, match="does not say which version"):
        read(made)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzz(data):
    content = bytearray(flattened().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ConvcalcError):
        costs(read_onnx(bytes(content), "fuzzed", given={"x": (1, 3, 8, 8)}))


# --- folding --------------------------------------------------------------------------------------------------------


def test_folding_stays_small():
    huge = Small((2,), [1 << 40, 1 << 40], "int64")
    assert fold("ConstantOfShape", [huge], {}) is None
    assert fold("Expand", [Small((1,), [1], "int64"), huge], {}) is None
    assert fold("Range", [Small((), [n], "int64") for n in (0, 1 << 50, 1)], {}) is None
    assert fold("Pow", [Small((), [10], "int64"), Small((), [1 << 40], "int64")], {}) is None
    assert fold("Div", [Small((), [1], "int64"), Small((), [0], "int64")], {}) is None


@pytest.mark.parametrize(("a", "b", "wanted"), [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3)])
def test_whole_numbers_divide_towards_zero(a, b, wanted):
    assert fold("Div", [Small((), [a], "int64"), Small((), [b], "int64")], {})[0].items == [wanted]


ARRAYS = st.tuples(st.integers(1, 3), st.integers(1, 3)).flatmap(
    lambda shape: st.lists(st.integers(-4, 4), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda items: np.array(items, np.int64).reshape(shape)
    )
)


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.sampled_from(["Add", "Sub", "Mul", "Max", "Min", "Equal", "Less", "Greater"]), st.booleans())
def test_elementwise_folding_is_numpys(x, name, rows):
    other = x[:, :1] if rows else x[:1]
    functions = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum,
                 "Equal": np.equal, "Less": np.less, "Greater": np.greater}  # fmt: skip
    found = fold(name, [small(x), small(other)], {})[0]
    np.testing.assert_array_equal(np.array(found.items).reshape(found.shape), functions[name](x, other))


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.data())
def test_shape_folding_is_numpys(x, data):
    axis = data.draw(st.integers(-2, 1))
    index = data.draw(st.lists(st.integers(-x.shape[axis], x.shape[axis] - 1), max_size=4))
    start, end = data.draw(st.integers(-4, 4)), data.draw(st.integers(-4, 4))
    step = data.draw(st.sampled_from([-2, -1, 1, 2]))
    key = [slice(None)] * 2
    key[axis] = slice(start, end, step)
    numbers = [Small((1,), [number], "int64") for number in (start, end, axis, step)]
    for name, inputs, attributes, wanted in (
        ("Gather", [small(x), Small((len(index),), index, "int64")], {"axis": axis}, np.take(x, index, axis)),
        ("Slice", [small(x), *numbers], {}, x[tuple(key)]),
        ("Concat", [small(x), small(x)], {"axis": axis}, np.concatenate([x, x], axis)),
        ("Transpose", [small(x)], {}, x.T),
        ("Tile", [small(x), Small((2,), [2, 3], "int64")], {}, np.tile(x, (2, 3))),
        ("ReduceSum", [small(x), Small((1,), [axis], "int64")], {"keepdims": 0}, x.sum(axis)),
        ("NonZero", [small(x)], {}, np.array(np.nonzero(x))),
    ):
        found = fold(name, inputs, attributes)[0]
        np.testing.assert_array_equal(np.array(found.items, np.int64).reshape(found.shape), wanted, err_msg=name)


def small(x):
    return Small(x.shape, x.reshape(-1).tolist(), str(x.dtype))


def test_every_folder_is_an_op_that_the_reader_knows():
    from convcalc.onnx.ops import tables

    assert set(FOLDERS) - {op for table in tables() for op in table} == {"Range", "NonZero"}


def test_no_op_is_in_two_families():
    from convcalc.onnx.ops import tables

    every = [op for table in tables() for op in table]
    assert len(every) == len(set(every)) >= 144


def test_a_plain_model_loads_no_families_that_it_does_not_need(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(chain(op("Relu", "x"), inputs={"x": [1, 8]}).SerializeToString())
    program = (
        "import sys\n"
        "from convcalc.onnx.file import read_onnx\n"
        "read_onnx(sys.argv[1])\n"
        "print(*[name for name in sys.modules if name.startswith('convcalc.onnx.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("convcalc.onnx.") for name in done.stdout.split()}
    assert "ops.elementwise" in loaded
    assert not loaded & {"ops.sampling", "ops.recurrent", "functions", "branches", "loops", "sequences", "folding"}


# --- the layers that files alone have -------------------------------------------------------------------------------

EXAMPLES = {
    "function": (("sqrt",), ["2x3"]), "combine": (("sub",), ["2x3", "2x1"]), "clip": ((0.0, None), ["2x3"]),
    "onnxhardsigmoid": ((), ["2x3"]), "quantize": (("uint8",), ["2x3", "1"]), "reduce": (("mean", (1,)), ["2x3"]),
    "cumulate": ((), ["2x3"]), "topk": ((2,), ["2x3"]), "gemm": ((), ["2x3", "3x4"]),
    "einsum": (("ij,jk->ik",), ["2x3", "3x4"]), "det": ((), ["2x3x3"]), "dft": ((), ["2x6x1"]),
    "stft": ((2, 4), ["2x9x1"]),
    **dict.fromkeys(("onnxlstm", "onnxgru", "onnxrnn"), ((None, 5), ["4x2x3"])),
    "gridsample": ((), ["1x2x4x4", "1x3x3x2"]), "roialign": (((2, 2),), ["1x2x8x8", "3x4", "3"]),
    "deformconv": ((2, 3, (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)), ["1x2x4x4", "1x8x3x3"]),
    "shaped": (((6,),), ["2x3"]), "slice": (((0,), (1,), (1,), (1,)), ["2x3"]), "split": (((1, 2),), ["2x3"]),
    "gather": ((), ["5x3", "2x2"]), "gatherelements": ((), ["2x3", "2x3"]), "gathernd": ((), ["2x3", "4x1"]),
    "scatter": ((0,), ["2x3", "1x3", "1x3"]), "expand": (((2, 3),), ["1x3"]), "tile": (((2, 1),), ["2x3"]),
    "cast": (("int64",), ["2x3"]), "fill": (((2, 3),), []), "padaxes": ((((0, 0), (1, 1)),), ["2x3"]),
    "depthtospace": ((2,), ["1x8x3x3"]), "spacetodepth": ((2,), ["1x2x4x4"]),
    "resize": (((1, 2, 8, 8), "linear"), ["1x2x4x4"]), "layernormstatistics": (((3,),), ["2x3"]),
    "batchnormtraining": ((), ["2x3x4"]), "dropoutmask": ((), ["2x3"]),
    "windowpool": (("lp", (2,), (1,), ((1, 1),), (2,)), ["1x2x5"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILE_LAYERS)
def test_every_kind_answers_everything(name):
    fields, texts = EXAMPLES[name]
    inputs = [tuple(map(int, text.split("x"))) for text in texts]
    cls = FILE_LAYERS[name].layer_class()
    assert cls.kind == name
    assert cls.__doc__
    layer = cls(*fields).bind(*inputs)
    outputs = layer.infer(*inputs)
    assert len(layer.output_dtypes("float32")) == len(outputs)
    assert isinstance(layer.cost(inputs, outputs), Cost)
    assert all(isinstance(cost, Cost) for cost in layer.backward(inputs, outputs).values())
    own = {*layer.parameters(), *layer.buffers()}
    for saved in layer.saved(inputs, outputs):
        assert not isinstance(saved, str) or saved in own or saved.startswith(("input", "output"))
    assert name not in LAYERS


# --- the command line -----------------------------------------------------------------------------------------------


def test_words(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(flattened().SerializeToString())
    assert shapes(read_network([str(path)], input_shape="x=2x3x8x8")).answer == (2, 10)
    assert shapes(read_network([str(path)], input_shape="3x8x8")).answer == (10,)
    assert shapes(read_network(["2x3x8x8", str(path)])).answer == (2, 10)
    assert shapes(read_network([str(path)], input_shape="3x8x8", batch=5)).answer == (5, 10)

    class Stdin:
        buffer = path.open("rb")

    monkeypatch.setattr(sys, "stdin", Stdin)
    with Stdin.buffer:
        assert shapes(read_network(["-"], input_shape="3x8x8")).answer == (10,)


def test_a_layer_by_options_does_not_go_with_a_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(flattened().SerializeToString())
    options = LayerOptions(None, {"kernel_size": ("-k", "3")})
    with pytest.raises(ConvcalcError, match="an ONNX file stands alone, beside its input"):
        read_network([str(path)], options=options)


@pytest.mark.parametrize(
    ("words", "input_shape", "sentence"),
    [
        (["{}", "relu"], None, "an ONNX file stands alone, beside its input"),
        (["{}", "{}"], None, "an ONNX file stands alone, beside its input"),
        (["3x8x8", "{}"], "3x8x8", "the input is given twice"),
        (["{}"], "x=3x8x8,x=3x8x8", "the input x is given twice"),
        (["gone.onnx"], None, "gone.onnx does not exist"),
    ],
)
def test_words_that_are_wrong(words, input_shape, sentence, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(flattened().SerializeToString())
    with pytest.raises(ConvcalcError) as caught:
        read_network([word.format(path) for word in words], input_shape=input_shape)
    assert sentence in str(caught.value)


def test_a_document(tmp_path, capsys):
    from convcalc.cli import run_command_line

    path = tmp_path / "m.onnx"
    path.write_bytes(flattened().SerializeToString())
    assert run_command_line(["flops", str(path), "--input", "x=2x3x8x8", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "complete"
    assert [layer["name"] for layer in document["layers"]] == ["Conv_0", "Reshape_7", "Gemm_8"]
    assert run_command_line(["flops", str(path)]) == 1
    assert "dimension batch of input x" in capsys.readouterr().err
    assert resolve(read_network([str(path)], input_shape="3x8x8"))


def two_inputs(tmp_path):
    path = tmp_path / "two.onnx"
    path.write_bytes(chain(op("Add", "a b"), inputs={"a": ["n", 4], "b": ["n", 1]}).SerializeToString())
    return str(path)


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (["a=3x4", "b=3x1"], 0, "3x4\n"),
        (["a=3x4,b=3x1"], 0, "3x4\n"),
        (["a=3x4", "a=3x4"], 2, "error: the input a is given twice"),
        (["3x4", "3x1"], 2, "error: --input is given 2 times, 3x4 and 3x1; keep one of them, or for a model with"),
        (["a=3x4", "3x1"], 2, "error: --input is given 2 times"),
        (["3x4"], 2, "has 2 inputs, a, b; name the one that is meant, such as --input a=3x4"),
    ],
)
def test_the_option_input_may_be_repeated(given, status, said, tmp_path, capsys):
    from convcalc.cli import run_command_line

    words = [word for text in given for word in ("--input", text)]
    assert run_command_line(["shape", two_inputs(tmp_path), *words, "-q"]) == status
    output = capsys.readouterr()
    assert said in (output.err if status else output.out)


@pytest.mark.parametrize(
    ("nodes", "outputs", "more", "sentence"),
    [
        ([op("Constant", "", value_floats=[1.0])], {"y": None}, {}, "the model computes nothing: what it gives stands"),
        ([], {}, {}, "m.onnx: its graph has no nodes and no outputs"),
        ([op("Constant", "", value_floats=[1.0])], {"y": None}, {"x": (3,)}, "m.onnx has no inputs; leave out"),
        ([op("Constant", "", value_floats=[1.0])], {"y": None}, {"": (3,)}, "m.onnx has no inputs; leave out"),
    ],
)
def test_a_model_without_inputs(nodes, outputs, more, sentence):
    with pytest.raises(ConvcalcError) as caught:
        costs(read_onnx(model(nodes, {}, outputs).SerializeToString(), "m.onnx", given=more))
    assert sentence in str(caught.value)


def test_a_model_that_makes_its_own_tensors_needs_no_input():
    told = [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3])]
    nodes = [op("RandomNormal", "", "a", shape=[2, 3]), op("Relu", "a")]
    assert answer(chain(*nodes, inputs={}, value_infos=told)) == (2, 3)


# --- the receptive field --------------------------------------------------------------------------------------------


def test_the_receptive_field_passes_the_models_own_numbers():
    nodes = [
        op("Conv", "x w", "a", pads=[1] * 4),
        op("Mul", "a scale", "b"),
        op("Sqrt", "scale", "root"),
        op("Div", "b root", "c"),
        op(
            "Resize",
            "c none twice",
            "d",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        op("Conv", "d v", "y"),
    ]
    twice = helper.make_tensor("twice", TensorProto.FLOAT, [4], [1, 1, 2, 2])
    none = helper.make_tensor("none", TensorProto.FLOAT, [0], [])
    weights = [initializer("w", 4, 3, 3, 3), initializer("v", 4, 4, 3, 3), initializer("scale", 4, 1, 1), twice, none]
    report = receptive_fields(read(chain(*nodes, inputs={"x": [1, 3, 16, 16]}, weights=weights)))
    assert [row.values.get("receptive_field") for row in report.rows] == [(3, 3), (3, 3), None, (3, 3), (3, 3), (4, 4)]
    assert report.rows[4].kind == "upsample"


def test_what_training_keeps_of_a_files_weights_is_no_memory_more() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    made = model(nodes, {"x": [2, 4]}, {"y": None}, [initializer("w", 4, 4)])
    totals = memory(read(made), train=True).totals
    # Both inputs, and the one weight: its values, its gradient, and the two inputs beside them.
    assert totals["saved"] == 2 * 2 * 4 * 4 + 64
    assert totals["training"] == 2 * 64 + 2 * 2 * 4 * 4


def test_numbers_of_a_file_need_no_gradient() -> None:
    nodes = [helper.make_node("Mul", ["x", "c"], ["a"]), helper.make_node("Sigmoid", ["a"], ["y"])]
    made = model(nodes, {"x": [2, 4]}, {"y": None}, [initializer("c")])
    assert memory(read(made), train=True).totals["saved"] == 0
    assert costs(read(made), backward=True).totals["backward_flops"] == 0


def conv_branch(name, out, size):
    """A branch of an If: one convolution of its own."""
    node = helper.make_node("Conv", ["x", f"w_{name}"], [out], name=f"conv_{name}", pads=[size // 2] * 4)
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [info], [initializer(f"w_{name}", 8, 3, size, size)])


@pytest.mark.parametrize(("sizes", "shape"), [((1, 3), (1, 8, 6, 6)), ((1, 2), None)])
def test_an_if_that_the_model_decides_owns_both_branches(sizes, shape) -> None:
    then, other = conv_branch("then", "a", sizes[0]), conv_branch("else", "b", sizes[1])
    nodes = [
        helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Relu", ["y"], ["z"], name="act"),
    ]
    made = model(nodes, {"x": [1, 3, 6, 6], "c": []}, {"z": None})
    made.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    report = costs(read(made))
    assert report.totals["params"] == 24 * sizes[0] ** 2 + 24 * sizes[1] ** 2
    assert "params" not in report.partial
    assert "macs" in report.partial
    assert report.rows[0].reasons["output"] == "which branch is taken is known only when the model runs"
    assert report.rows[1].outputs == (() if shape is None else (shape,))
    assert ("output" in report.rows[1].reasons) == (shape is None)
    assert [item.message for item in report.diagnostics if item.level == "warning"] == [
        "if (If): which branch is taken is known only when the model runs; what it costs is left out of the totals"
    ]


def info(name, kind, shape=()):
    return helper.make_tensor_value_info(name, kind, shape)


def results(network):
    """The shape of each output."""
    made = [pair for item in resolve(network) for pair in zip(item.node.outputs, item.outputs, strict=True)]
    return [dict(made)[name] for name in network.outputs]


def loop_body(ends="ci"):
    """Each turn adds a weight to the state, multiplies by another, and gives the state."""
    nodes = [
        op("Constant", "", "s", value=initializer("s", 3)),
        op("Add", "v w", "sum"),
        op("Mul", "sum s", "vo"),
        op("Identity", "vo", "given"),
        op("Identity", ends, "co"),
    ]
    given = [info("i", TensorProto.INT64), info("ci", TensorProto.BOOL), info("v", TensorProto.FLOAT, [1, 3])]
    return helper.make_graph(
        nodes,
        "body",
        given,
        [info("co", TensorProto.BOOL), info("vo", TensorProto.FLOAT), info("given", TensorProto.FLOAT)],
        [initializer("w", 3)],
    )


def test_a_loop_of_known_turns_is_its_body_so_often():
    count = helper.make_tensor("n", TensorProto.INT64, [], [4])
    node = helper.make_node("Loop", ["n", "", "x"], ["y", "z"], body=loop_body())
    network = read(model([node], {"x": [1, 3]}, {"y": None, "z": None}, [count]))
    found = {row.name: row for row in costs(network).rows}
    assert costs(network).totals["params"] == 6  # what stands in the body is one, however often it runs
    assert costs(network).totals["flops"] == 4 * 6
    assert list(found)[:2] == ["Loop_0/0/Add_2", "Loop_0/0/Mul_3"]
    assert results(network) == [(1, 3), (4, 1, 3)]


@pytest.mark.parametrize(
    ("count", "ends", "reason"),
    [(None, "ci", "how often it runs is known only when the model runs"),
     (2000, "ci", "it takes more than 1024 turns"),
     (9, "more", "whether it runs on is known only when the model runs")],
)  # fmt: skip
def test_a_loop_whose_turns_cannot_be_counted_may_own_more_than_is_known(count, ends, reason):
    node = helper.make_node("Loop", ["n", "", "x"], ["y", "z"], name="loop", body=loop_body(ends))
    made = model([node], {"x": [1, 3], "more": []}, {"y": [1, 3], "z": [9, 1, 3]})
    made.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    if count is None:
        made.graph.input.append(info("n", TensorProto.INT64))
    else:
        made.graph.initializer.append(helper.make_tensor("n", TensorProto.INT64, [], [count]))
    report = costs(read(made))
    assert [(row.name, row.values["params"]) for row in report.rows] == [("loop", None)]
    assert report.rows[0].outputs == ((1, 3), (9, 1, 3))
    assert report.status == "partial"
    assert [item.message for item in report.diagnostics] == [f"loop: {reason}; what it costs is left out of the totals"]


def test_a_scan_of_a_weight_over_an_axis():
    """A plain recurrent layer: the last state, and all outputs from the last to the first."""
    nodes = [op("MatMul", "h w", "a"), op("Add", "a part", "b"), op("Tanh", "b", "ho"), op("Identity", "ho", "o")]
    body = helper.make_graph(
        nodes,
        "body",
        [info("h", TensorProto.FLOAT, [2, 8]), info("part", TensorProto.FLOAT, [2, 8])],
        [info("ho", TensorProto.FLOAT), info("o", TensorProto.FLOAT)],
    )
    scan = op("Scan", "h0 x", "last all", body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
              scan_output_directions=[1])  # fmt: skip
    made = model([scan], {"h0": [2, 8], "x": [2, 5, 8]}, {"last": None, "all": None}, [initializer("w", 8, 8)])
    network = read(made)
    assert (costs(network).totals["params"], costs(network).totals["macs"]) == (64, 5 * 2 * 64)
    assert results(network) == [(2, 8), (2, 5, 8)]


def test_sequences_are_names_of_tensors():
    nodes = [
        op("SplitToSequence", "x sizes", "parts", axis=1),
        op("Constant", "", "one", value_int=1),
        op("SequenceAt", "parts one", "second"),
        op("Relu", "second", "r"),
        op("SequenceInsert", "parts r", "more"),
        op("SequenceErase", "more one", "fewer"),
        op("SequenceLength", "fewer", "count"),
        op("ConcatFromSequence", "fewer", "y", axis=1),
    ]
    network = read(model(nodes, {"x": [2, 7]}, {"y": None, "count": None}, [integers("sizes", [3, 2, 2])]))
    assert [node.op for node in network.nodes] == ["Split", "Relu", "Concat"]
    assert shapes(network).answer == (2, 7)
    assert network.constants[network.outputs[1]].value == [3]


def test_optional_tensors_are_there_or_not():
    nodes = [
        op("Optional", "x", "o"),
        op("OptionalHasElement", "o", "has"),
        op("OptionalGetElement", "o", "e"),
        op("If", "has", "y", then_branch=branch("then", op("Relu", "e", "out")),
           else_branch=branch("else", op("Neg", "x", "out"))),
    ]  # fmt: skip
    assert [node.op for node in read(chain(*nodes, inputs={"x": [4]}, opset=18)).nodes] == ["Relu"]


def test_a_file_is_known_by_what_it_begins_with(tmp_path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 4]}, {"y": None}).SerializeToString())
    assert read_network([str(path)]).inputs["x"].shape == (1, 4)
