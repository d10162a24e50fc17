"""Arrays of .npy files as they lie on the disk: nothing is read before it is used, and nothing is copied."""

from __future__ import annotations

import mmap
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convcalc.errors import ModelFileError, ResourceError, unreadable
from convcalc.render.units import bytes_text
from convcalc.tracing import product

Array = npt.NDArray[Any]
_ZIP = b"PK\x03\x04"


class _Header(NamedTuple):
    """What an .npy file says of itself: `start` is the byte where the numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int


class MappedArray:
    """The array of an .npy file; what is asked for is mapped and is let go with the array that was given.

    Raises `ModelFileError` for a file that cannot be read, is none of NumPy's, holds objects, or is cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115  parts are mapped later, of this file whatever its name is then
            if self._file.read(len(_ZIP)) == _ZIP:
                raise ModelFileError(f"{path} holds several arrays; it should be named .npz")
            self._file.seek(0)
            self._header = _header(self._file)
            length = self._file.seek(0, 2)
        except OSError as error:
            raise unreadable(path, error) from None
        except (ValueError, EOFError, SyntaxError, TypeError, TokenError):
            raise ModelFileError(f"{path} is no file of NumPy arrays, or is damaged") from None
        if self.dtype.hasobject:
            raise ModelFileError(f"{path} holds Python objects, which are never loaded; save plain numbers")
        wanted = self._header.start + self.nbytes
        if length < wanted:
            raise ModelFileError(f"{path} is cut short: it has {length:,} of {wanted:,} bytes")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._header.dtype

    @property
    def nbytes(self) -> int:
        return int(product(self.shape)) * self.dtype.itemsize

    def whole(self) -> Array:
        """All of it; it cannot be written to."""
        return self._mapped(self._header.start, self.shape)

    def __getitem__(self, part: slice) -> Array:
        """Some of it along the first axis."""
        if self._header.fortran:  # the numbers of a sample do not lie together
            return self.whole()[part]
        first, last, _ = part.indices(self.shape[0])
        row = int(product(self.shape[1:])) * self.dtype.itemsize
        return self._mapped(self._header.start + first * row, (max(last - first, 0), *self.shape[1:]))

    def _mapped(self, start: int, shape: tuple[int, ...]) -> Array:
        length = int(product(shape)) * self.dtype.itemsize
        order: Any = "F" if self._header.fortran else "C"
        if not length:
            return np.empty(shape, self.dtype, order)
        before = start % mmap.ALLOCATIONGRANULARITY
        try:
            held = mmap.mmap(self._file.fileno(), before + length, access=mmap.ACCESS_READ, offset=start - before)
        except OSError as error:
            raise ResourceError(
                f"{self.path} cannot be mapped: {bytes_text(length)} of addresses are needed, and the system gives"
                f" none ({(error.strerror or 'error').lower()}); ulimit -v shows its limit",
                value=length,
            ) from None
        return np.ndarray(shape, self.dtype, held, before, order=order)


def _header(file: Any) -> _Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # only names of fields, which numbers have not, need the third
        raise ValueError
    if any(size < 0 for size in shape):
        raise ValueError
    return _Header(shape, dtype, fortran, file.tell())
