"""Files of other programs: told by how they begin, with a word on what to do about each."""

from __future__ import annotations

import re

from convcalc.errors import ModelFileError

LONGEST_START = 512
"""Bytes of a file that are enough to tell."""

_PRINT = "convcalc reads what print(model) prints, and what torch.onnx.export writes"
_CONVERT = "convert it to ONNX with tf2onnx"
_WEIGHTS = "which holds weights and no layers"
_RUN = "which run alone reads, as its first word; elsewhere a shape such as 3x224x224 comes first"
_PICKLE = f"a pickle, as torch.save writes it; {_PRINT}"
_COMPRESSED = "compressed; unpack it first"
_IMAGE = f"an image, {_RUN}"
_PAGE = "a web page, not a model; download the file itself"

_STARTS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch that with git lfs pull"),
    *((0, b"\x80" + bytes([protocol]), _PICKLE) for protocol in range(2, 6)),
    (8, b'{"', f"a file of safetensors, {_WEIGHTS}; {_PRINT}"),
    (0, b"\x89HDF\r\n\x1a\n", f"a file of HDF5, as Keras wrote it; {_CONVERT}"),
    (4, b"TFL3", f"a model of TensorFlow Lite; {_CONVERT}"),
    (0, b"\x08\x01\x12", f"a saved model of TensorFlow; {_CONVERT}"),
    (0, b"GGUF", f"a file of GGUF, {_WEIGHTS}; write the layers down"),
    *((0, start, _COMPRESSED) for start in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")),
    (0, b"\x93NUMPY", f"an array of NumPy, {_RUN}"),
    *((0, start, _IMAGE) for start in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"P5\n")),
    (0, b"%PDF", "a PDF document; write the layers down as text"),
    *((0, start, _PAGE) for start in (b"<!doctype", b"<!DOCTYPE", b"<html", b"<?xml")),
    (0, b"{", "JSON; write the layers down as text, such as conv:64,k3 relu"),
)
"""From which byte on a file holds what, and what it is then. The first that fits decides."""

_ZIP = b"PK\x03\x04"
_KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_TORCH_FOLDERS = ("data", "data.pkl", "version", "byteorder", "code", "constants.pkl")
_KEYWORDS = (b"import ", b"class ", b"def ")
# Patterns are compiled for what has one of these words alone: that takes longer than all else here.
_PYTHON = rb"(?m)^(import \w|from [\w.]+ import |class \w+[:(]|def \w+\()"

_TRACED = rb"(?ms)\s*\w+\(\s*^  \(.*?^\)\s*^def forward\("
"""What torch.fx prints: a module, and below it the code of its forward."""


def refuse_foreign(start: bytes, name: str) -> None:
    """Raise `ModelFileError` for a file of another program, told by its first `LONGEST_START` bytes.

    >>> refuse_foreign(b"conv:64,k3", "net.txt")
    >>> refuse_foreign(b"%PDF-1.7", "paper.pdf")
    Traceback (most recent call last):
    convcalc.errors.ModelFileError: paper.pdf is a PDF document; write the layers down as text
    """
    what = _archive(start) if start.startswith(_ZIP) else ""
    for place, piece, program in _STARTS:
        if start.startswith(piece, place):
            what = program
            break
    has_words = not what and any(word in start for word in _KEYWORDS)
    if has_words and re.search(_PYTHON, start) and not re.match(_TRACED, start):
        what = "Python code, which is not run; convcalc reads what print(model) prints"
    if what:
        raise ModelFileError(f"{name} is {what}")


def _archive(start: bytes) -> str:
    """What a zip archive is, told by the name of its first member."""
    length = int.from_bytes(start[26:28], "little")
    member = start[30 : 30 + length].decode(errors="replace")
    if member in _KERAS_MEMBERS:
        return "a model of Keras; export it with model.export('model.onnx', format='onnx')"
    if member.endswith(".npy"):
        return f"a file of NumPy's arrays, {_RUN}"
    if member.partition("/")[2].partition("/")[0] in _TORCH_FOLDERS:
        return f"a file of torch.save; {_PRINT}"
    return "a zip archive; unpack it, and name the file inside"
