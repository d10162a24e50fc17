"""Arrays in and out: files, images, text, and names. Reading is here; `text` and `writing` are loaded when needed.

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
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from convcalc.errors import (
    ExpressionError,
    ModelFileError,
    Source,
    Span,
    did_you_mean,
    unreadable,
)
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
_NEXT_NAME = re.compile(r",(?=[^,=\[\]]+=)")


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
        from convcalc.arrays.text import parse_array

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


# --- files ----------------------------------------------------------------------------------------------------------


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _split_key(text: str) -> tuple[str, str]:
    """A file and the name of an array in it, of `file.npz:name`."""
    found = re.fullmatch(r"(.*\.npz):(.+)", text, re.IGNORECASE)
    return (found[1], found[2]) if found else (text, "")


def _rows(path: str | Path) -> Array:
    from convcalc.arrays.text import parse_rows

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_rows(content, str(path))


_DAMAGE = (OSError, EOFError, KeyError, SyntaxError, TokenError, RuntimeError, BadZipFile, zlib.error)
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
    **dict.fromkeys(TEXT_SUFFIXES, lambda name, _: _rows(name)),
    **dict.fromkeys(IMAGE_SUFFIXES, lambda name, _: read_image(name)),
}
"""What reads a file by its suffix, given the name of an array in it ("" for the only one)."""
