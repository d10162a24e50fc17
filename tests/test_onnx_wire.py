"""The wire reader beside the onnx package, and on files that mean harm."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import onnx
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases
from onnx_compare import same_model
from onnx_models import initializer, integers, model, resnet50

from convcalc.errors import ModelFileError, UnsupportedOpError
from convcalc.onnx import wire
from convcalc.onnx.messages import Graph, read_model
from convcalc.onnx.tensors import Tensor


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx's own cases divide by zero, to see what comes out
        return collect_testcases(None)


def test_every_field_of_every_operator_case_agrees(cases):
    for case in cases:
        same_model(read_model(case.model.SerializeToString(), case.name), onnx.load_from_string(
            case.model.SerializeToString()
        ))  # fmt: skip
    assert len(cases) > 1500


TYPES = {
    TensorProto.FLOAT: "f4", TensorProto.UINT8: "u1", TensorProto.INT8: "i1", TensorProto.UINT16: "u2",
    TensorProto.INT16: "i2", TensorProto.INT32: "i4", TensorProto.INT64: "i8", TensorProto.BOOL: "?",
    TensorProto.FLOAT16: "f2", TensorProto.DOUBLE: "f8", TensorProto.UINT32: "u4", TensorProto.UINT64: "u8",
    TensorProto.COMPLEX64: "c8", TensorProto.COMPLEX128: "c16",
}  # fmt: skip


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", TYPES)
def test_values_of_every_type(kind, raw):
    array = np.array([[0, 1, 100], [3, 4, 127]]).astype(TYPES[kind])
    if array.dtype.kind in "if":
        array = -array
    tensor = helper.make_tensor("w", kind, array.shape, array.tobytes() if raw else array.reshape(-1), raw=raw)
    found = read_tensor(tensor)
    np.testing.assert_array_equal(found.array(), array)
    assert found.array().dtype == array.dtype
    if array.dtype.kind != "c":
        assert found.numbers() == array.reshape(-1).tolist()


def test_small_types():
    for kind, values in ((TensorProto.INT4, [-8, 7, -1]), (TensorProto.UINT4, [15, 0, 3])):
        assert read_tensor(helper.make_tensor("w", kind, [3], values)).array().tolist() == values
    bfloat16 = helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0])
    assert read_tensor(bfloat16).array().tolist() == [1.5, -2.0]
    with pytest.raises(UnsupportedOpError, match="tensor w holds string"):
        read_tensor(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])).array()


def read_tensor(tensor):
    return read_model(model([], {}, {}, [tensor]).SerializeToString(), "m").graph.initializers[0]


def test_resnet50_is_stepped_over(tmp_path):
    path = tmp_path / "resnet50.onnx"
    path.write_bytes(resnet50().SerializeToString())
    program = f"""
import resource, sys
from pathlib import Path
from convcalc.onnx.messages import read_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = read_model(Path({str(path)!r}))
assert sum(tensor.elements for tensor in model.graph.initializers) == 25530472
assert "numpy" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4096  # KiB, of a file of 100 MB
    weight = read_model(path).graph.initializers[0].array()
    assert weight.shape == (64, 3, 7, 7)
    assert not weight.flags.owndata
    assert (weight == 0.5).all()


# --- values in other files ------------------------------------------------------------------------------------------


def external(**entries):
    tensor = initializer("w", 2, 3)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def written(tmp_path, tensor):
    (tmp_path / "m.onnx").write_bytes(model([], {}, {}, [tensor]).SerializeToString())
    return read_model(tmp_path / "m.onnx").graph.initializers[0]


def test_external_values(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + np.arange(6, dtype="<f4").tobytes() + b"\0")
    found = written(tmp_path, external(location="w.bin", offset=8, length=24))
    assert found.array().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"location": "gone.bin"}, "tensor w: its values are in gone.bin: gone.bin does not exist"),
        ({"location": "../w.bin"}, "outside of the model's folder"),
        ({"location": "/etc/passwd"}, "outside of the model's folder"),
        ({"location": "a\0b"}, "cannot be read"),
        ({"location": "w.bin", "offset": 30}, "its values are bytes 30 to 24 of w.bin, which has 24"),
        ({"location": "w.bin", "offset": 4}, "20 bytes of values, where its sizes need 24"),
        ({"location": "w.bin", "length": "many"}, "is not a number"),
        ({}, "not named"),
    ],
)
def test_external_values_that_are_not_there(tmp_path, entries, sentence):
    (tmp_path / "w.bin").write_bytes(bytes(24))
    found = written(tmp_path, external(**entries))
    assert found.dims == [2, 3]  # what needs no values works
    with pytest.raises(ModelFileError) as caught:
        found.array()
    assert sentence in str(caught.value)


# --- files that mean harm -------------------------------------------------------------------------------------------

VALID = helper.make_node("Relu", ["x"], ["y"], name="r")


def wrong(content, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        visit(read_model(path, "bad.onnx"))
    with pytest.raises(ModelFileError) as again:
        visit(read_model(content, "bad.onnx"))
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def visit(found):
    """Read everything that is lazy."""
    for entry in found.graph.inputs + found.graph.outputs + found.graph.value_infos:
        assert entry.shape is None or entry.dtype
    for node in found.graph.nodes + [node for function in found.functions for node in function.nodes]:
        visit_node(node)
    for tensor in found.graph.initializers:
        visit_tensor(tensor)


def visit_node(node):
    for attribute in node.attributes.values():
        if isinstance(attribute.value, Graph):
            for inner in attribute.value.nodes:
                visit_node(inner)
        elif isinstance(attribute.value, Tensor):
            visit_tensor(attribute.value)


def visit_tensor(tensor):
    with contextlib.suppress(UnsupportedOpError):
        tensor.array()
    tensor.numbers()
    tensor.integers()


ZIP = "bad.onnx is a zip archive; unpack it, and name the file inside"
BYTES = "bad.onnx is no valid ONNX file: byte "


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "bad.onnx is empty"),
        (b"PK\x03\x04\x00\x00", ZIP),
        (b"\x08\x07", "bad.onnx is no ONNX file: it holds no graph"),
        (b"\x08", BYTES + "1: a number is cut off"),
        (b"\x08" + b"\xff" * 11, BYTES + "1: a number has more than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", BYTES + "1: a number has more than 64 bits"),
        (b"\x08\x07\x3a\x7f\x0a", BYTES + "2: a field of 127 bytes, where 1 are left"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", BYTES + f"0: a field of {2**63 - 1} bytes, where 0 are left"),
        (b"\x3a\x80", BYTES + "1: a number is cut off"),
        (b"\x3a", BYTES + "1: a number is cut off"),
        (b"\x3b\x3c", BYTES + "0: a group, which ONNX does not use"),
        (b"\x0f", BYTES + "0: wire type 7 does not exist"),
        (b"\x02\x01", BYTES + "0: there is no field 0"),
        (b"\x0a\x01\x07", BYTES + "0: model's ir_version is a length and bytes, but must be a number"),
        (b"\x38\x01", BYTES + "0: model's graph is a number, but must be a length and bytes"),
        (b"\x39" + bytes(8), BYTES + "0: model's graph is 8 bytes, but must be a length and bytes"),
        (b"\x3d" + bytes(3), BYTES + "0: a field of 4 bytes, where 3 are left"),
        (b"\x3a\x00\x3a\x00", BYTES + "2: model has a second graph"),
        (b"\x12\x01\xff\x3a\x00", BYTES + "2: a name is no UTF-8"),
        (b"conv:8,k3 relu\n", BYTES + "0: a group, which ONNX does not use"),
    ],
)  # fmt: skip
def test_harm(content, sentence, tmp_path):
    assert wrong(content, tmp_path) == sentence


def test_lying_tensors_allocate_nothing(tmp_path):
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20], raw_data=b"1234")
    tracemalloc.start()
    sentence = wrong(model([], {}, {}, [huge]).SerializeToString(), tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "tensor w: 4 bytes of values, where its sizes need 4611686018427387904" in sentence
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (TensorProto(name="w", data_type=1, dims=[-3]), "tensor w has a size of -3"),
        (TensorProto(name="w", data_type=1, dims=[1] * 65), "tensor w has 65 axes, more than 64"),
        (TensorProto(name="w", data_type=1, dims=[3], float_data=[1, 2]), "8 bytes of values, where its sizes need 12"),
        (TensorProto(name="w", data_type=7, dims=[3], int64_data=[1, 2]), "2 values, where its sizes need 3"),
        (TensorProto(name="w", data_type=2, dims=[1], int32_data=[300]), "do not fit its type uint8"),
        (TensorProto(name="w", data_type=14, dims=[1], float_data=[1, 2, 3]), "12 bytes of values"),
    ],
)
def test_tensors_that_lie(tensor, sentence, tmp_path):
    assert sentence in wrong(model([], {}, {}, [tensor]).SerializeToString(), tmp_path)


def test_two_attributes_of_one_name(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", group=1)
    node.attribute.add().CopyFrom(node.attribute[0])
    assert "Conv c has a second attribute group" in wrong(model([node], {}, {}).SerializeToString(), tmp_path)


def test_deep_nesting(tmp_path):
    inner = b""
    for _ in range(200):
        inner = field(1, field(5, field(6, inner)))  # graph: node: attribute: graph
    assert "more than 100 messages stand inside one another" in wrong(field(7, inner), tmp_path)


def varint(number):
    written = b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def field(number, content, more=0):
    """A field of these bytes, and of so many more that follow."""
    return varint(number << 3 | 2) + varint(len(content) + more) + content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (field(7, b"\x0a\x00" * 200), "byte 203: graph has more than 100 nodes"),
        (field(7, b"\x2a\x00" * 200), "byte 203: graph has more than 100 initializers"),
        (field(7, field(1, b"\x0a\x00" * 200)), "byte 206: node has more than 100 inputs"),
        (field(7, field(5, field(1, bytes(200)))), "tensor has more than 100 dims"),
        (field(7, field(1, field(5, field(1, b"a") + field(8, bytes(501))))), "attribute a has more than 500 ints"),
        (field(7, field(1, field(5, field(7, bytes(2004))))), "attribute has more than 500 floats"),
        (field(7, field(5, b"\x08\x01\x10\x07" + field(7, bytes(200)))), "more values than its sizes need, 1"),
    ],
    ids=["nodes", "initializers", "inputs", "dims", "ints", "floats", "values"],
)
def test_many_small_things_stop_before_they_fill_the_memory(content, sentence, monkeypatch):
    monkeypatch.setattr(wire, "MOST_REPEATED", 100)
    monkeypatch.setattr(wire, "MOST_NUMBERS", 500)
    with pytest.raises(ModelFileError) as caught:
        visit(read_model(content, "bad.onnx"))
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_several_gigabytes_are_analysed_within_200_megabytes(tmp_path):
    """64 weights of 64 MiB, of which the disk holds only the ends: a hole is what nobody reads."""
    count, side = 64, 4096
    size = 4 * side * side
    nodes = [helper.make_node("MatMul", ["x" if not i else f"t{i - 1}", f"w{i}"], [f"t{i}"]) for i in range(count)]
    plain = model(nodes, {"x": [1, 8, side]}, {f"t{count - 1}": None})
    graph = plain.graph.SerializeToString()
    plain.ClearField("graph")
    tensors = []
    for i in range(count):
        tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side]).SerializeToString()
        tensor += field(9, b"", size)
        tensors.append(field(5, tensor, size))
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(plain.SerializeToString() + field(7, graph, sum(map(len, tensors)) + count * size))
        for tensor in tensors:
            file.write(tensor)
            file.seek(size, 1)
        file.truncate()
    assert path.stat().st_size > 4 << 30
    # VmHWM and not getrusage(), which also knows of the process that this one was begun from.
    program = f"""
from pathlib import Path
from convcalc.analysis.costs import costs
from convcalc.nouns import read_network
totals = costs(read_network([{str(path)!r}])).totals
(most,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(totals["params"], totals["macs"], most)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    params, macs, most = map(int, done.stdout.split())
    assert (params, macs) == (count * side**2, 8 * count * side**2)
    assert most < 200 << 10  # KiB


def _seed():
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["n"])], "then",
                             [], [helper.make_tensor_value_info("n", TensorProto.FLOAT, [1, "h"])])  # fmt: skip
    function = helper.make_function("local", "f", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])],
                                    [helper.make_opsetid("", 17)])  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], auto_pad="NOTSET"),
        helper.make_node("If", ["q"], ["i"], then_branch=body, else_branch=body),
        helper.make_node("Constant", [], ["k"], value=integers("v", [1, -1, 300])),
        helper.make_node("f", ["i"], ["y"], domain="local"),
    ]
    made = model(nodes, {"x": [1, 3, "h", 8]}, {"y": None},
                 [initializer("w", 2, 3, 3, 3), external(location="w.bin")], functions=[function])  # fmt: skip
    return made.SerializeToString()


SEED = _seed()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_fuzz(data):
    content = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(("set", "cut", "insert", "repeat", "drop")))
        if how == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del content[max(place, 1) :]
        elif how == "insert":
            content[place:place] = data.draw(st.binary(max_size=12))
        else:
            piece = content[place : place + data.draw(st.integers(1, 40))]
            content[place : place + len(piece)] = piece * 2 if how == "repeat" else b"\0"
    with contextlib.suppress(ModelFileError):
        visit(read_model(bytes(content), "fuzzed"))
