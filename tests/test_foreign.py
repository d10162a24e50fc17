"""Files of other programs are named for what they are, from the command line and from standard input."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from convcalc.cli import run_command_line
from convcalc.errors import ModelFileError
from convcalc.onnx.messages import read_model

READS = "convcalc reads what print(model) prints, and what torch.onnx.export writes"
RUN = "which run alone reads, as its first word; elsewhere a shape such as 3x224x224 comes first"


def archive(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member in members:
            file.writestr(member, b"1")
    return buffer.getvalue()


def arrays(**named):
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return buffer.getvalue()


HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
FILES = [
    ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
     "a pointer of Git LFS, not the file itself; fetch that with git lfs pull"),
    ("m.onnx", b"<!DOCTYPE html>\n<html>", "a web page, not a model; download the file itself"),
    ("m.onnx", b"<html><head>", "a web page, not a model; download the file itself"),
    ("m.pt", archive("m/data.pkl", "m/data/0"), f"a file of torch.save; {READS}"),
    ("m.pt", archive("m/data/0", "m/code/__torch__.py"), f"a file of torch.save; {READS}"),
    ("m.pth", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", f"a pickle, as torch.save writes it; {READS}"),
    ("m.safetensors", struct.pack("<Q", len(HEADER)) + HEADER + bytes(8),
     f"a file of safetensors, which holds weights and no layers; {READS}"),
    ("m.keras", archive("metadata.json", "config.json", "model.weights.h5"),
     "a model of Keras; export it with model.export('model.onnx', format='onnx')"),
    ("m.h5", b"\x89HDF\r\n\x1a\n\0\0", "a file of HDF5, as Keras wrote it; convert it to ONNX with tf2onnx"),
    ("m.tflite", b"\x1c\0\0\0TFL3\0\0", "a model of TensorFlow Lite; convert it to ONNX with tf2onnx"),
    ("m.pb", b"\x08\x01\x12\x80\x01", "a saved model of TensorFlow; convert it to ONNX with tf2onnx"),
    ("m.gguf", b"GGUF\x03\0\0\0", "a file of GGUF, which holds weights and no layers; write the layers down"),
    ("m.onnx.gz", b"\x1f\x8b\x08", "compressed; unpack it first"),
    ("m.zip", archive("model.onnx"), "a zip archive; unpack it, and name the file inside"),
    ("m.zip", b"PK\x03\x04", "a zip archive; unpack it, and name the file inside"),
    ("x.npz", arrays(x=np.ones(2)), f"a file of NumPy's arrays, {RUN}"),
    ("x.npy", b"\x93NUMPY\x01\0", f"an array of NumPy, {RUN}"),
    ("x.png", b"\x89PNG\r\n\x1a\n", f"an image, {RUN}"),
    ("net.py", b"# a net\nimport torch\n", "Python code, which is not run; convcalc reads what print(model) prints"),
    ("net.py", b'"""A net."""\n\nfrom torch import nn\n',
     "Python code, which is not run; convcalc reads what print(model) prints"),
    ("net.py", b"def forward(self, x):\n    return x\n",
     "Python code, which is not run; convcalc reads what print(model) prints"),
    ("net.txt", b"class Net(nn.Module):\n", "Python code, which is not run; convcalc reads what print(model) prints"),
    ("net.json", b'{\n "layers": []}', "JSON; write the layers down as text, such as conv:64,k3 relu"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "what"), FILES)
def test_what_it_is(name, content, what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert run_command_line(["shape", name]) == 1
    assert capsys.readouterr() == ("", f"error: {name} is {what}\n  {name}\n  {'^' * len(name)}\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run_command_line(["shape", "-"]) == 1
    assert capsys.readouterr() == ("", f"error: standard input is {what}\n  -\n  ^\n")
    with pytest.raises(ModelFileError) as caught:
        read_model(tmp_path / name, name)
    assert str(caught.value) == f"{name} is {what}"


def test_what_no_program_writes_but_this_one(tmp_path, capsys):
    path = tmp_path / "net.txt"
    for text in ("input 3x8x8\nrelu from:@input", "@input relu from:@input", "# import it\n3x8x8 relu"):
        path.write_text(text)
        run_command_line(["shape", str(path)])
        assert "Python" not in capsys.readouterr().err


def test_what_torch_fx_prints_of_a_small_model_is_read(tmp_path, capsys):
    path = tmp_path / "net.txt"
    path.write_text(
        "Net(\n  (conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))\n)\n\n\n\ndef forward(self, x):\n"
        "    conv = self.conv(x);  x = None\n    return conv\n"
    )
    assert run_command_line(["shape", "3x8x8", str(path), "-q"]) == 0
    assert capsys.readouterr().out == "8x6x6\n"


def test_only_the_start_is_read(tmp_path, capsys):
    path = tmp_path / "large.safetensors"
    path.write_bytes(struct.pack("<Q", len(HEADER)) + HEADER)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a hole: no disk has it, and no memory
    assert run_command_line(["shape", str(path)]) == 1
    assert "safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_that_editors_and_shells_write(encoding, tmp_path, capsys):
    path = tmp_path / "net.txt"
    path.write_text("input 3x8x8\nconv:4,k3\n", encoding=encoding)
    assert run_command_line(["shape", str(path), "-q"]) == 0
    assert capsys.readouterr().out == "4x6x6\n"
