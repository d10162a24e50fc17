"""Tensors in ONNX files: their sizes and types at once, their values when they are asked for.

Weights are mapped, not copied, wherever the file's bytes are the values; those in files of their own are looked for
beside the model, and nowhere else.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from convcalc.errors import ConvcalcError, ModelFileError, UnsupportedOpError
from convcalc.onnx.wire import (
    EXTENT,
    INT,
    INTS,
    MESSAGE,
    STRING,
    WIRE_NAMES,
    Fields,
    Message,
    WireFile,
    called,
    many,
    one,
    open_file,
    signed,
)

if TYPE_CHECKING:
    import mmap

    import numpy as np
    import numpy.typing as npt

MOST_AXES = 64
"""How many axes a tensor may have; NumPy's limit."""
MOST_INTEGERS = 1 << 16
"""How many values `integers()` gives at most: what computes a shape is small."""

DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("float16", 16), 11: ("float64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bfloat16", 16), 17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8), 19: ("float8e5m2", 8), 20: ("float8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("float4e2m1", 4), 24: ("float8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2),
}  # fmt: skip
"""ONNX's numbers of types: our name, and bits an element."""
FLOATING = frozenset(name for name, _ in DATA_TYPES.values() if name.startswith(("float", "bfloat", "complex")))
"""Types of numbers that are not whole."""


class Entry(Message):
    """A key with its text (ONNX: StringStringEntryProto)."""

    __slots__ = ("key", "value")
    FIELDS: ClassVar[Fields] = {1: one("key", STRING), 2: one("value", STRING)}
    key: str
    value: str


_TYPED_DATA = {4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 10: "double_data",
               11: "uint64_data"}  # fmt: skip
_IN_INT32 = frozenset((2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26))
_STRUCT = {2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "?", 12: "I", 13: "Q", 1: "f", 11: "d", 10: "e"}


class Tensor(Message):
    """A tensor: its name, sizes (`dims`) and type, and where its values are.

    Values are read when they are asked for: `raw_data` is (start, end) in the file, and those in typed fields are found
    by walking over the message again.
    """

    __slots__ = ("data_location", "data_type", "dims", "external_data", "name", "raw_data", "segment")
    FIELDS: ClassVar[Fields] = {
        1: many("dims", INTS),
        2: one("data_type", INT),
        3: one("segment", EXTENT),
        8: one("name", STRING),
        9: one("raw_data", EXTENT),
        13: many("external_data", MESSAGE, Entry),
        14: one("data_location", INT),
    }
    dims: list[int]
    data_type: int
    segment: tuple[int, int] | None
    name: str
    raw_data: tuple[int, int] | None
    external_data: list[Entry]
    data_location: int

    def __init__(self, file: WireFile, start: int, end: int, depth: int = 0) -> None:
        super().__init__(file, start, end, depth)
        if len(self.dims) > MOST_AXES:
            raise file.wrong(start, f"{called(self)} has {len(self.dims)} axes, more than {MOST_AXES}")
        if self.dims and min(self.dims) < 0:
            raise file.wrong(start, f"{called(self)} has a size of {min(self.dims)}")

    @property
    def dtype(self) -> str:
        """Our name of the type; "undefined" for one that ONNX does not have."""
        return DATA_TYPES.get(self.data_type, ("undefined", 0))[0]

    @property
    def elements(self) -> int:
        """How many elements the sizes say there are."""
        return prod(self.dims)

    @property
    def absent(self) -> bool:
        """Whether the values are in another file that is not there."""
        if not self.external:
            return False
        names = [entry.value for entry in self.external_data if entry.key == "location"]
        folder = self.file.folder
        return folder is None or not all(name and "\0" not in name and (folder / name).exists() for name in names)

    @property
    def external(self) -> bool:
        """Whether the values are in another file."""
        return self.data_location == 1

    def wrong(self, what: str) -> ModelFileError:
        """The error for what is wrong with this tensor."""
        return self.file.wrong(self.start, f"tensor {self.name}: {what}" if self.name else f"a tensor: {what}")

    def integers(self) -> list[int] | None:
        """The values as plain ints, or None when they are not whole numbers or too many to be a shape.

        Raises `ModelFileError` when there are not as many values as the sizes say, or the other file is absent.
        """
        values = self.numbers() if self.data_type in _WHOLE else None
        return None if values is None else [int(value) for value in values]

    def numbers(self) -> list[Any] | None:
        """The values as plain ints, bools or floats, or None when they are something else or too many."""
        if self.elements > MOST_INTEGERS or self.data_type not in _STRUCT:
            return None
        found = self._raw()
        if found is None:
            return self._checked(self._typed_values())
        code = _STRUCT[self.data_type]
        data, start, end = found
        self._check_size(end - start)
        return list(struct.unpack(f"<{self.elements}{code}", data[start:end]))

    def array(self) -> npt.NDArray[Any]:
        """The values as a NumPy array: a view of the mapped file wherever its bytes are the values.

        Floats that NumPy does not have become float32, numbers of 4 and 2 bits int8 or uint8. Raises `ModelFileError`
        when the values are not there, `UnsupportedOpError` for what is no number.
        """
        name, bits = DATA_TYPES.get(self.data_type, ("undefined", 0))
        if not bits:
            raise UnsupportedOpError(f"tensor {self.name} holds {name}, which cannot be read as numbers")
        try:
            found = self._raw()
            return self._typed_array() if found is None else self._raw_array(*found)
        except (ValueError, OverflowError) as error:
            if isinstance(error, ConvcalcError):
                raise
            raise self.wrong(f"its values do not fit its type {name} and sizes") from None

    def _raw_array(self, data: mmap.mmap | bytes, start: int, end: int) -> npt.NDArray[Any]:
        import numpy as np

        name, bits = DATA_TYPES[self.data_type]
        self._check_size(end - start)
        if name.startswith(_CODED) or bits < 8:
            return self._codes(np.frombuffer(data, np.uint8, end - start, start))
        if not self.elements:
            return np.zeros(self.dims, "float32" if name == "bfloat16" else name)
        stored = "uint16" if name == "bfloat16" else name
        array: npt.NDArray[Any] = np.frombuffer(data, np.dtype(stored).newbyteorder("<"), self.elements, start).reshape(
            self.dims
        )
        return _widened(array) if name == "bfloat16" else array

    def _codes(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """What bytes of short numbers mean."""
        from convcalc.narrow import decoded

        name, bits = DATA_TYPES[self.data_type]
        codes = packed if bits == 8 else _unpacked(packed, bits, self.elements, signed=name.startswith("int"))
        return (decoded(codes, name) if name.startswith(_CODED) else codes).reshape(self.dims)

    def _check_size(self, size: int) -> None:
        wanted = -(-self.elements * DATA_TYPES[self.data_type][1] // 8)
        if size != wanted:
            raise self.wrong(f"{size} bytes of values, where its sizes need {wanted}")

    def _raw(self) -> tuple[mmap.mmap | bytes, int, int] | None:
        """The bytes that are the values, if they stand as such in this file or another."""
        if self.segment is not None:
            raise self.wrong("its values are cut into segments, which no tool writes")
        if self.external:
            return self._external()
        return None if self.raw_data is None else (self.file.values(), *self.raw_data)

    def _external(self) -> tuple[mmap.mmap | bytes, int, int]:
        entries = {entry.key: entry.value for entry in self.external_data}
        location = entries.get("location", "")
        if not location:
            raise self.wrong("its values are in another file, which is not named")
        from pathlib import Path

        if self.file.folder is None:
            raise self.wrong(f"its values are in {location}, which standard input has no folder for")
        # A model must not make us read any file of the machine.
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise self.wrong(f"its values are in {location}, which is outside of the model's folder")
        path = self.file.folder / location
        try:
            other = open_file(path, location)
        except ModelFileError as error:
            raise ModelFileError(f"tensor {self.name}: its values are in {location}: {error.message}") from None
        try:
            start = int(entries.get("offset", "0"))
            end = start + int(entries["length"]) if "length" in entries else other.size
        except ValueError:
            raise self.wrong("the place of its values is not a number") from None
        if not 0 <= start <= end <= other.size:
            raise self.wrong(f"its values are bytes {start} to {end} of {location}, which has {other.size}")
        return other.values(), start, end

    def _typed_values(self) -> list[Any]:
        """The values of the typed fields, walked over once more."""
        values: list[Any] = []
        wanted = _typed_field(self.data_type)
        for number, wire, first, second, place in self.file.fields(self.start, self.end):
            if number != wanted:
                continue
            if number in (4, 10):
                code, size = ("f", 4) if number == 4 else ("d", 8)
                if wire not in (2, 5 if number == 4 else 1) or (second - first) % size:
                    raise self.file.wrong(place, f"{_TYPED_DATA[number]} has no whole number of values")
                self._check_most(len(values) + (second - first) // size)
                values += struct.unpack(f"<{(second - first) // size}{code}", self.file.bytes_of(first, second))
            elif wire == 0:
                values.append(first)
            elif wire == 2:
                at = first
                while at < second:
                    value, at = self.file.varint(at, second)
                    values.append(value)
                    self._check_most(len(values))
            else:
                raise self.file.wrong(place, f"{_TYPED_DATA[number]} is {WIRE_NAMES[wire]}")
        return [self._typed_value(value) for value in values]

    def _check_most(self, count: int) -> None:
        """Refuse more values than the sizes need (complex numbers are two) before they are all read."""
        if count > 2 * self.elements:
            raise self.wrong(f"more values than its sizes need, {self.elements}")

    def _typed_value(self, value: Any) -> Any:
        if isinstance(value, float) or self.data_type in (12, 13):
            return value
        if self.data_type == 10:
            return struct.unpack("<e", struct.pack("<H", value & 0xFFFF))[0]
        value = signed(value)
        return bool(value) if self.data_type == 9 else value

    def _checked(self, values: list[Any]) -> list[Any]:
        if len(values) != self.elements:
            raise self.wrong(f"{len(values)} values, where its sizes need {self.elements}")
        return values

    def _typed_array(self) -> npt.NDArray[Any]:
        import numpy as np

        name, bits = DATA_TYPES[self.data_type]
        parts = [
            (first, second)
            for number, wire, first, second, _ in self.file.fields(self.start, self.end)
            if number == _typed_field(self.data_type) and wire == 2
        ]
        if name in ("float32", "float64", "complex64", "complex128") and len(parts) == 1:
            start, end = parts[0]
            self._check_size(end - start)
            return np.frombuffer(self.file.values(), np.dtype(name).newbyteorder("<"), self.elements, start).reshape(
                self.dims
            )
        values = self._typed_values()
        if name.startswith(_CODED) or bits < 8:
            packed = np.array([value & 255 for value in values], np.uint8)
            self._check_size(packed.size)
            return self._codes(packed)
        if name in ("complex64", "complex128"):
            values = [complex(real, imaginary) for real, imaginary in zip(values[::2], values[1::2], strict=True)]
        self._checked(values)
        if name == "bfloat16":
            return _widened(np.array(values)).reshape(self.dims)
        return np.array(values, name).reshape(self.dims)


_CODED = ("float8", "float4")
_WHOLE = frozenset((2, 3, 4, 5, 6, 7, 9, 12, 13))


def _typed_field(data_type: int) -> int:
    """The number of the field that holds values of a type."""
    if data_type in _IN_INT32:
        return 5
    return {1: 4, 7: 7, 8: 6, 11: 10, 12: 11, 13: 11, 14: 4, 15: 10}.get(data_type, 0)


def _widened(halves: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """bfloat16 as float32, whose upper half it is."""
    import numpy as np

    widened: npt.NDArray[Any] = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return widened


def _unpacked(packed: npt.NDArray[np.uint8], bits: int, elements: int, *, signed: bool) -> npt.NDArray[Any]:
    """Numbers of 4 or 2 bits, the first in the lowest bits of a byte."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values: npt.NDArray[Any] = ((packed[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:elements]
    return values.astype(np.int8) - (values >> (bits - 1) << bits).astype(np.int8) if signed else values


class SparseTensor(Message):
    """A tensor of which only some values are stored."""

    __slots__ = ("dims", "indices", "values")
    FIELDS: ClassVar[Fields] = {
        1: one("values", MESSAGE, Tensor),
        2: one("indices", MESSAGE, Tensor),
        3: many("dims", INTS),
    }
    values: Tensor | None
    indices: Tensor | None
    dims: list[int]
