"""Arrays in and out: files, images, text, and names.

| what | read | written |
|---|---|---|
| `.npy`, `.npz` | NumPy's own, never pickled objects | yes |
| `.csv`, `.tsv` | rows of numbers parted by commas, semicolons, tabs or spaces | `.csv`, up to two axes |
| images | (channels, height, width), grey 1 and colour 3 channels, from 0 to 1 (pillow) | `.png`, `.pgm` |
| `photos/` | the images of a folder, one sample each | |
| `[[0,1],[2,3]]` | nested lists, with nan and inf | |
| `sobel`, `gaussian`, ... | `NAMED` | |
| `ones:3x4`, `zeros:`, `arange:`, `random:` | of that shape; random is from 0 to 1, from a seed | |
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from convcalc.errors import (
    ExpressionError,
    ModelFileError,
    ShapeError,
    Source,
    Span,
    did_you_mean,
    unreadable,
)
from convcalc.files import refuse_inputs, write_whole
from convcalc.images import IMAGE_SUFFIXES, read_image
from convcalc.layers.base import shape_text
from convcalc.limits import need_bytes, need_memory
from convcalc.mapped import MappedArray
from convcalc.tracing import product

Array = npt.NDArray[Any]

NAMED: dict[str, tuple[Sequence[Sequence[int]], int]] = {
    "identity": (((0, 0, 0), (0, 1, 0), (0, 0, 0)), 1),
    "difference": (((1, -1),), 1),
    "sobel-x": (((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), 1),
    "sobel-y": (((-1, -2, -1), (0, 0, 0), (1, 2, 1)), 1),
    "prewitt-x": (((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)), 1),
    "prewitt-y": (((-1, -1, -1), (0, 0, 0), (1, 1, 1)), 1),
    "scharr-x": (((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)), 1),
    "scharr-y": (((-3, -10, -3), (0, 0, 0), (3, 10, 3)), 1),
    "roberts-x": (((1, 0), (0, -1)), 1),
    "roberts-y": (((0, 1), (-1, 0)), 1),
    "laplacian": (((0, 1, 0), (1, -4, 1), (0, 1, 0)), 1),
    "laplacian8": (((1, 1, 1), (1, -8, 1), (1, 1, 1)), 1),
    "edge": (((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)), 1),
    "sharpen": (((0, -1, 0), (-1, 5, -1), (0, -1, 0)), 1),
    "emboss": (((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), 1),
    "box": (((1, 1, 1), (1, 1, 1), (1, 1, 1)), 9),
    "box5": (((1, 1, 1, 1, 1),) * 5, 25),
    "gaussian": (((1, 2, 1), (2, 4, 2), (1, 2, 1)), 16),
    "gaussian5": (
        ((1, 4, 6, 4, 1), (4, 16, 24, 16, 4), (6, 24, 36, 24, 6), (4, 16, 24, 16, 4), (1, 4, 6, 4, 1)),
        256,
    ),
}
"""Kernels that have a name: rows of whole numbers, and what all are divided by. They are cross-correlated, so that
sobel-x is positive where it gets lighter to the right."""
ALIASES = {"sobel": "sobel-x", "prewitt": "prewitt-x", "scharr": "scharr-x", "roberts": "roberts-x", "blur": "box",
           "outline": "edge"}  # fmt: skip
MADE = ("ones", "zeros", "arange", "random")
"""What is made for a shape: `ones:3x4`."""

TEXT_SUFFIXES = (".csv", ".tsv")
WRITTEN_SUFFIXES = (".npy", ".npz", ".csv", ".png", ".pgm")


def is_array(text: str) -> bool:
    """Whether a token is an array by its spelling: brackets, a named kernel, `ones:3x4`, or a file that holds one.

    Several by name are, too: `a=a.npy,b=[1,2]`.

    >>> [is_array(text) for text in ("[[1,2]]", "sobel", "ones:3x4", "photo.png", "conv:k3", "3x4")]
    [True, True, True, True, False, False]
    """
    word, colon, _ = text.partition(":")
    if text.startswith("[") or word in MADE or (not colon and (word in NAMED or word in ALIASES)):
        return True
    if "=" in text:
        return all(name and is_array(value) for name, value in _named_parts(text))
    return is_folder(text) or _suffix(_split_key(text)[0]) in _READERS


def is_folder(text: str) -> bool:
    """Whether a token is a folder of images by its spelling.

    >>> is_folder("photos/"), is_folder("photos")
    (True, False)
    """
    return text.endswith("/")


def read_array(text: str, *, seed: int = 0) -> Array:
    """The array that a text stands for, by its spelling; of an .npz file of several, `file.npz:name`.

    Whole numbers are int64 where they are written as text. Raises `ExpressionError` for text that is wrong,
    `ModelFileError` for a file that is.

    >>> read_array("[[0,1],[2,3]]").tolist(), read_array("arange:2x2").tolist(), read_array("difference").tolist()
    ([[0, 1], [2, 3]], [[0, 1], [2, 3]], [[1, -1]])
    """
    if text.startswith("["):
        return parse_array(text)
    word, colon, rest = text.partition(":")
    if word in MADE and colon:
        return _made(word, rest, text, seed)
    if not colon and (word in NAMED or word in ALIASES):
        return named_kernel(word)
    name, key = _split_key(text)
    reader = _READERS.get(_suffix(name))
    if reader is not None:
        return reader(name, key)
    span = Span(Source(text), 0, len(text))
    if not Path(name).exists() and not _suffix(name):
        known = (*NAMED, *ALIASES, *MADE)
        raise ExpressionError(
            f"{text} is no array: write [[0,1],[2,3]], a file, or a kernel's name{did_you_mean(text, known)}",
            span=span,
            value=text,
        )
    raise ModelFileError(
        f"cannot tell what array {name} holds; its name should end in .npy, .npz, .csv or an image's suffix", span=span
    )


def named_texts(text: str) -> dict[str, str]:
    """The texts of arrays by name, of text such as a=a.npy,b=1x10; what has no name is called "".

    Raises `ExpressionError` for a name that is given twice.

    >>> named_texts("a=a.npy,b=[1,2]"), named_texts("x.npy")
    ({'a': 'a.npy', 'b': '[1,2]'}, {'': 'x.npy'})
    """
    named: dict[str, str] = {}
    for name, value in _named_parts(text):
        if name in named:
            raise ExpressionError(f"the input {name} is given twice; keep one of them", field="input", value=value)
        named[name] = value
    return named


def _named_parts(text: str) -> list[tuple[str, str]]:
    parts = (part.rpartition("=") for part in _NEXT_NAME.split(text))
    return [(name, value) for name, _, value in parts]


def map_array(path: str | Path) -> MappedArray:
    """The array of an .npy file as it lies on the disk, read where it is touched. Raises `ModelFileError`."""
    array = MappedArray(path)
    _check(array, str(path))
    return array


def read_arrays(path: str | Path) -> dict[str, Array]:
    """All arrays of an .npz file by name. Raises `ResourceError` for more than memory holds."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115  an error of opening it is told from one of what it holds
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        try:
            loaded = np.load(file, allow_pickle=False)
        except (ValueError, *_DAMAGE):
            raise ModelFileError(f"{path} is no file of NumPy arrays, or is damaged") from None
        if isinstance(loaded, np.ndarray):
            raise ModelFileError(f"{path} holds one array without a name; it is no .npz file")
        need_bytes(sum(member.file_size for member in loaded.zip.infolist()), f"what {path} holds")
        return {name: _check(_member(loaded, name, path), f"{name} of {path}") for name in loaded.files}


def named_kernel(name: str) -> Array:
    """A kernel of `NAMED`: whole numbers if they are, else floats that add up to 1."""
    rows, divisor = NAMED[ALIASES.get(name, name)]
    array = np.array(rows, np.int64)
    return array if divisor == 1 else array / divisor


def _made(word: str, rest: str, text: str, seed: int) -> Array:
    from convcalc.expressions.tokens import shape_of

    shape = shape_of(rest, Span(Source(text), len(word) + 1, len(text)))
    need_memory(product(shape), shape_text(shape))
    if word == "ones":
        return np.ones(shape, np.int64)
    if word == "zeros":
        return np.zeros(shape, np.int64)
    if word == "arange":
        return np.arange(int(np.prod(shape))).reshape(shape)
    return np.random.default_rng(seed).random(shape)


_NAMED_WEIGHT = re.compile(r"([A-Za-z0-9_.-]+\.[A-Za-z_]+)=(.+)", re.DOTALL)


def read_weights(texts: Sequence[str], *, seed: int = 0) -> tuple[dict[str, Array], list[Array]]:
    """The weights by name and those without one, of texts such as 2.weight=sobel, net.npz or [[0,1],[2,3]].

    The arrays of an .npz file have names when one of these has a dot.
    """
    named: dict[str, Array] = {}
    bare: list[Array] = []
    for text in texts:
        found = _NAMED_WEIGHT.fullmatch(text)
        if found:
            named[found[1]] = read_array(found[2], seed=seed)
        elif text.lower().endswith(".npz"):
            arrays = read_arrays(text)
            if any("." in name for name in arrays):
                named.update(arrays)
            else:
                bare.append(read_array(text))
        else:
            bare.append(read_array(text, seed=seed))
    return named, bare


# --- text -----------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_MOST_AXES = 8
_NEXT_NAME = re.compile(r",(?=[^,=\[\]]+=)")


def parse_array(text: str) -> Array:
    """The array of nested lists of numbers. Raises `ExpressionError` at the character that is wrong.

    >>> parse_array("[[1, 2.5], [nan, -inf]]").shape
    (2, 2)
    """
    reader = _Lists(text)
    if not text.lstrip().startswith("["):
        raise reader.wrong("an array begins with [", 0)
    shape = reader.element(0)
    reader.skip_spaces()
    if reader.at < len(text):
        raise reader.wrong("there is more after the array's end", reader.at, len(text))
    return _numbers(reader.numbers).reshape(shape)


class _Lists:
    """Reads nested lists from left to right; `at` is where it is, `numbers` what it has met."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.numbers: list[float] = []

    def wrong(self, message: str, start: int, end: int | None = None) -> ExpressionError:
        span = Span(Source(self.text), start, start + 1 if end is None else end)
        return ExpressionError(message, span=span, value=self.text)

    def skip_spaces(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def element(self, depth: int) -> tuple[int, ...]:
        """The shape of the number or list that stands here: () for a number."""
        self.skip_spaces()
        if self.text[self.at : self.at + 1] == "[":
            return self.list(depth)
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            raise self.unexpected("a number or [")
        self.numbers.append(_number(number[0]))
        self.at = number.end()
        return ()

    def list(self, depth: int) -> tuple[int, ...]:
        """The shape of the list that begins here. All its elements have one shape."""
        begin = self.at
        if depth == _MOST_AXES:
            raise self.wrong(f"the array has more than {_MOST_AXES} axes", begin)
        shape: tuple[int, ...] | None = None
        count = 0
        closed = False
        while not closed:
            self.at += 1
            self.skip_spaces()
            start = self.at
            if self.text[start : start + 1] == "]":
                if not count:
                    raise self.wrong("a list is empty", begin, start + 1)
                break  # a comma may stand after the last element
            found = self.element(depth + 1)
            if shape is not None and found != shape:
                raise self.wrong(_difference(shape, found), start, self.at)
            shape, count = found, count + 1
            self.skip_spaces()
            closed = self.text[self.at : self.at + 1] == "]"
            if not closed and self.text[self.at : self.at + 1] != ",":
                raise self.unexpected(", or ]")
        self.at += 1
        return (count, *(shape or ()))

    def unexpected(self, wanted: str) -> ExpressionError:
        if self.at >= len(self.text):
            return self.wrong("a ] is missing at the end", len(self.text))
        return self.wrong(f"{wanted} should stand here, not {self.text[self.at]}", self.at)


def _difference(before: tuple[int, ...], found: tuple[int, ...]) -> str:
    if not before or not found:
        return f"a {'list' if found else 'number'} stands where a {'list' if before else 'number'} should"
    if len(before) != len(found):
        return f"this has {len(found)} axes where those before it have {len(before)}"
    return f"this is {shape_text(found)} where those before it are {shape_text(before)}"


def parse_rows(content: bytes, name: str) -> Array:
    """Rows of numbers as an array of two axes. Empty lines and lines that begin with # are skipped.

    Numbers are parted by tabs, semicolons, commas or spaces, whichever comes first in this order; between semicolons
    and tabs a comma is a decimal comma. Raises `ModelFileError` with the number of the line that is wrong.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelFileError(f"{name} is not text") from None
    rows: list[list[float]] = []
    for line_number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        mark = next((mark for mark in "\t;," if mark in line), None)
        cells = [cell.strip() for cell in line.strip("\r\n").split(mark)]
        if cells[-1] == "" and len(cells) > 1:
            cells.pop()
        for column, cell in enumerate(cells, 1):
            plain = cell.replace(",", ".") if mark in (";", "\t") else cell
            if not _NUMBER.fullmatch(plain):
                shown = f"'{cell}' is no number" if cell else "a number is missing"
                raise ModelFileError(f"{name}, line {line_number}, column {column}: {shown}")
            cells[column - 1] = plain
        if rows and len(cells) != len(rows[0]):
            raise ModelFileError(
                f"{name}, line {line_number} has {len(cells)} numbers where those before it have {len(rows[0])}"
            )
        rows.append([_number(cell) for cell in cells])
    if not rows:
        raise ModelFileError(f"{name} holds no numbers")
    return _numbers([number for row in rows for number in row]).reshape(len(rows), -1)


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _numbers(numbers: list[float]) -> Array:
    """int64 when all are whole and small enough to be exact, else float64."""
    if all(isinstance(number, int) and abs(number) < 2**63 for number in numbers):
        return np.array(numbers, np.int64)
    return np.array([float(number) for number in numbers], np.float64)


# --- files ----------------------------------------------------------------------------------------------------------


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _split_key(text: str) -> tuple[str, str]:
    """A file and the name of an array in it, of `file.npz:name`."""
    found = re.fullmatch(r"(.*\.npz):(.+)", text, re.IGNORECASE)
    return (found[1], found[2]) if found else (text, "")


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


_DAMAGE = (OSError, EOFError, KeyError, SyntaxError, RuntimeError, BadZipFile, zlib.error)
"""What NumPy lets through from a file that is cut short, changed, encrypted or of another kind."""


def _member(loaded: Any, name: str, path: str | Path) -> Array:
    try:
        array: Array = loaded[name]
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise ModelFileError(f"{name} of {path} holds Python objects, which are never loaded") from None
        raise ModelFileError(f"{name} of {path} is damaged") from None
    except _DAMAGE:
        raise ModelFileError(f"{name} of {path} is damaged") from None
    return array


T = TypeVar("T", Array, MappedArray)


def _check(array: T, what: str) -> T:
    if array.dtype.kind not in "biuf":
        raise ModelFileError(f"{what} holds {array.dtype}, but should hold whole or floating-point numbers")
    if 0 in array.shape:
        raise ModelFileError(f"{what} is empty ({shape_text(array.shape)})")
    return array


def _one_of(arrays: Mapping[str, Array], name: str, key: str) -> Array:
    if key:
        if key not in arrays:
            raise ModelFileError(
                f"{name} has no array {key}{did_you_mean(key, arrays) or '; it has ' + ', '.join(arrays)}"
            )
        return arrays[key]
    if len(arrays) != 1:
        if not arrays:
            raise ModelFileError(f"{name} holds no arrays")
        first = next(iter(arrays))
        raise ModelFileError(f"{name} holds {len(arrays)} arrays ({', '.join(arrays)}); choose one with {name}:{first}")
    return next(iter(arrays.values()))


_READERS: dict[str, Callable[[str, str], Array]] = {
    ".npy": lambda name, _: map_array(name).whole(),
    ".npz": lambda name, key: _one_of(read_arrays(name), name, key),
    **dict.fromkeys(TEXT_SUFFIXES, lambda name, _: parse_rows(_bytes_of(name), name)),
    **dict.fromkeys(IMAGE_SUFFIXES, lambda name, _: read_image(name)),
}
"""What reads a file by its suffix, given the name of an array in it ("" for the only one)."""


# --- writing --------------------------------------------------------------------------------------------------------


def write_array(
    path: str | Path,
    array: Array,
    *,
    others: Mapping[str, Array] | None = None,
    inputs: Collection[str | Path] = (),
) -> None:
    """Write an array in the format of the path's suffix, whole or not at all, and never over one of the inputs.

    An .npz file holds it as "output", and the others by their names; other formats hold it alone.
    A .csv has one or two axes. An image is (height, width), or (3, height, width) as .png; values from 0 to 1 become
    black to white, and others are stretched so that the least is black and the largest white; nan is black.
    Raises `ShapeError` for an array that the format cannot hold, `ModelFileError` when writing fails.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise ExpressionError(
            f"cannot write {path}: its name should end in {', '.join(WRITTEN_SUFFIXES)}",
            field="output",
            value=str(path),
        )
    refuse_inputs(target, inputs)
    write_whole(target, _encoded(array, suffix, others or {}))


def write_arrays(path: str | Path, arrays: Mapping[str, Array], *, inputs: Collection[str | Path] = ()) -> None:
    """Write arrays by name into an .npz file, or the only one into an .npy file, whole or not at all.

    Raises `ExpressionError` for several arrays and an .npy file, `ModelFileError` as `write_array` does.
    """
    target = Path(path)
    if target.suffix.lower() == ".npy":
        if len(arrays) != 1:
            raise ExpressionError(
                f"{path} can hold one array, but there are {len(arrays)} ({', '.join(arrays)}); write an .npz file",
                field="output",
                value=str(path),
            )
        write_array(path, next(iter(arrays.values())), inputs=inputs)
        return
    refuse_inputs(target, inputs)
    write_whole(target, _npz(arrays))


def _encoded(array: Array, suffix: str, others: Mapping[str, Array]) -> bytes:
    buffer = BytesIO()
    if suffix == ".npy":
        np.save(buffer, array, allow_pickle=False)
    elif suffix == ".npz":
        return _npz({"output": array, **others})
    elif suffix == ".csv":
        buffer.write(_csv(array).encode())
    elif suffix == ".pgm":
        plane = _pixels(array, suffix)[0]
        buffer.write(b"P5\n%d %d\n255\n" % plane.shape[::-1] + plane.tobytes())
    else:
        buffer.write(_png(_pixels(array, suffix)))
    return buffer.getvalue()


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = BytesIO()
    # savez's types mix the arrays' names with its own options, which older NumPy would store as arrays.
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


_TOGETHER = 1 << 16


def nested(array: Array) -> Any:
    """Nested lists of numbers as short as they are exact: a float32 of 0.1 is 0.1."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        flat, exact = array.reshape(-1), np.empty(array.size)
        for start in range(0, array.size, _TOGETHER):  # their text takes 32 times what they do
            exact[start : start + _TOGETHER] = flat[start : start + _TOGETHER].astype("U32").astype(np.float64)
        array = exact.reshape(array.shape)
    return array.tolist()


_CHANNELS = {".pgm": (1,), ".png": (1, 3)}
"""How many channels an image has, by its suffix."""


def refuse_shape(path: str | Path, shape: tuple[int, ...]) -> None:
    """Raise `ShapeError` for an array of a shape that the format of the path's suffix cannot hold."""
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        _rows_shape(shape)
    elif suffix in _CHANNELS:
        _image_shape(shape, suffix)


def _rows_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of size 1 in front of the last two."""
    plain = tuple(size for axis, size in enumerate(shape) if size > 1 or axis >= len(shape) - 2)
    if len(plain) > 2:
        raise ShapeError(f"a .csv file holds one or two axes, not {shape_text(shape)}; write .npy")
    return plain


def _image_shape(shape: tuple[int, ...], suffix: str) -> tuple[int, ...]:
    """The shape as (channels, height, width)."""
    plain = shape[-3:] if set(shape[:-3]) <= {1} else shape
    plain = (1, *plain) if len(plain) == 2 else plain
    if len(plain) != 3 or plain[0] not in _CHANNELS[suffix]:
        known = " or ".join(map(str, _CHANNELS[suffix]))
        raise ShapeError(f"a {suffix} image has {known} channels of two axes, not {shape_text(shape)}; write .npy")
    return plain


def _csv(array: Array) -> str:
    plain = array.reshape(_rows_shape(array.shape))
    return "".join(",".join(map(str, row)) + "\n" for row in nested(np.atleast_2d(plain)))


def _pixels(array: Array, suffix: str) -> npt.NDArray[np.uint8]:
    """(channels, height, width) of bytes."""
    values = array.reshape(_image_shape(array.shape, suffix)).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    result: npt.NDArray[np.uint8] = np.round((values - low) / (high - low or 1) * 255).astype(np.uint8)
    return result


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file (W3C, Portable Network Graphics): eight bits, grey or colour, no filter."""
    channels, height, width = pixels.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = np.moveaxis(pixels, 0, -1).reshape(height, width * channels)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
