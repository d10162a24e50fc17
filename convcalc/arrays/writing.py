"""Arrays into files: NumPy's own, rows of numbers, and images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convcalc.arrays import Array
from convcalc.arrays.text import nested
from convcalc.errors import ExpressionError, ShapeError
from convcalc.files import refuse_inputs, write_whole
from convcalc.layers.base import shape_text

WRITTEN_SUFFIXES = (".npy", ".npz", ".csv", ".png", ".pgm")


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
