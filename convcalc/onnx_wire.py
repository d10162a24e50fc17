"""ONNX's wire format: messages become light objects, and weights are stepped over.

An ONNX file is a Protocol Buffers message: fields, each a tag (number and wire type) and a value. Only the fields that
`FIELDS` of each class names are kept; others are stepped over. What is large or seldom asked for stays where it is:
attributes and types are decoded when they are read, the values of a tensor when `integers()` or `array()` asks.

Everything that is wrong with a file is a `ModelFileError` that names the byte; no length is believed before it was
compared with what is there, so that nothing larger than the file is ever allocated.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from convcalc.errors import ConvcalcError, ModelFileError, UnsupportedOpError, unreadable
from convcalc.foreign import LONGEST_START, refuse_foreign

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

M = TypeVar("M", bound="Message")

FileName = str | os.PathLike[str]
"""What names a file. `pathlib` takes as long to load as a model to read, so it is loaded only where it is needed."""

DEEPEST = 100
"""How many messages may stand inside one another; Protocol Buffers' own limit."""
MOST_AXES = 64
"""How many axes a tensor may have; NumPy's limit."""
MOST_REPEATED = 1 << 17
"""How many nodes, tensors, names or axes one message may have: objects are larger than the bytes that ask for them."""
MOST_NUMBERS = 1 << 20
"""How many numbers one attribute may have."""
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

_LONGEST_HEAD = 20  # a tag and a length or number, of ten bytes each
_WINDOW = 1 << 13

_INT, _FLOAT, _STRING, _BYTES, _EXTENT, _MESSAGE, _INTS, _FLOATS = range(8)
_WIRE = {_INT: 0, _FLOAT: 5, _STRING: 2, _BYTES: 2, _EXTENT: 2, _MESSAGE: 2, _INTS: 0, _FLOATS: 5}
_WIRE_NAMES = {0: "a number", 1: "8 bytes", 2: "a length and bytes", 5: "4 bytes"}


class WireFile:
    """The bytes of a file, of which a window is held at a time; or all bytes, when they came from standard input.

    The window keeps the memory small: touching a mapped file was seen to bring in half of it, weights and all. `values`
    maps it, when weights are asked for. `name` is what errors call the file.
    """

    __slots__ = ("_base", "_file", "_limit", "_map", "_window", "name", "path", "size")

    def __init__(self, source: int | bytes, name: str, path: FileName | None = None, size: int = 0) -> None:
        self.name = name
        self.path = path
        self._map: mmap.mmap | bytes | None = None
        self._base = 0
        if isinstance(source, bytes):
            self._file = -1
            self._map = self._window = source
        else:
            self._file = source
            self._window = b""
        self._limit = len(self._window)
        self.size = size or self._limit

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def folder(self) -> Path | None:
        """Where the file is; nowhere, if it came from standard input."""
        from pathlib import Path

        return None if self.path is None else Path(self.path).parent

    def wrong(self, place: int, what: str) -> ModelFileError:
        """The error for what stands at a byte."""
        return ModelFileError(f"{self.name} is no valid ONNX file: byte {place}: {what}")

    def window(self, place: int) -> tuple[bytes, int, int]:
        """Bytes of the file that hold the longest head of a field at this place; where they begin and end."""
        if place < self._base or (place + _LONGEST_HEAD > self._limit and self._limit < self.size):
            self._window = self._read(place, min(_WINDOW, self.size - place))
            self._base = place
            self._limit = place + len(self._window)
        return self._window, self._base, self._limit

    def bytes_of(self, start: int, end: int) -> bytes:
        """The bytes from one place to another, copied."""
        if self._base <= start and end <= self._limit:
            return self._window[start - self._base : end - self._base]
        return self._read(start, end - start)

    def _read(self, place: int, size: int) -> bytes:
        os.lseek(self._file, place, os.SEEK_SET)
        found = os.read(self._file, size)
        if len(found) != size:
            raise self.wrong(place, "the file has become shorter")
        return found

    def values(self) -> mmap.mmap | bytes:
        """The whole file as one buffer, mapped and not read."""
        if self._map is None:
            import mmap

            self._map = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) if self.size else b""
        return self._map

    def varint(self, place: int, end: int) -> tuple[int, int]:
        """The number of up to ten bytes at a place, and where it ends."""
        window, base, _ = self.window(place)
        value, at = 0, place
        for shift in range(0, 70, 7):
            if at >= end:
                raise self.wrong(place, "a number is cut off")
            byte = window[at - base]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    break
                return value, at
        raise self.wrong(place, "a number has more than 64 bits")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(field number, wire type, first, second, place) of each field of a message.

        A number is (value, end); what has a length is (start, end); so are 4 or 8 bytes.
        """
        at = start
        window, base, limit = self.window(at)
        while at < end:
            place = at
            if at + _LONGEST_HEAD > limit:
                window, base, limit = self.window(at)
            tag = window[at - base]
            at += 1
            if tag > 127:
                tag, at = self.varint(place, end)
            wire, number = tag & 7, tag >> 3
            if not 0 < number < 1 << 29:
                raise self.wrong(place, f"there is no field {number}")
            if wire == 2:
                size = window[at - base] if at < end else 128
                if size < 128:
                    at += 1
                else:
                    size, at = self.varint(at, end)
                if size > end - at:
                    raise self.wrong(place, f"a field of {size} bytes, where {end - at} are left")
                yield number, wire, at, at + size, place
                at += size
            elif wire == 0:
                value = window[at - base] if at < end else 128
                if value < 128:
                    at += 1
                else:
                    value, at = self.varint(at, end)
                yield number, wire, value, at, place
            else:
                size = self._fixed_size(wire, place, end - at)
                yield number, wire, at, at + size, place
                at += size

    def _fixed_size(self, wire: int, place: int, left: int) -> int:
        """The bytes of a field of a wire type of fixed size. Raises `ModelFileError` for types that ONNX has not."""
        if wire not in (1, 5):
            what = "a group, which ONNX does not use" if wire in (3, 4) else f"wire type {wire} does not exist"
            raise self.wrong(place, what)
        size = 8 if wire == 1 else 4
        if size > left:
            raise self.wrong(place, f"a field of {size} bytes, where {left} are left")
        return size

    def text(self, start: int, end: int) -> str:
        """The text between two bytes."""
        try:
            return self.bytes_of(start, end).decode()
        except UnicodeDecodeError as error:
            raise self.wrong(start + error.start, "a name is no UTF-8") from None


def signed(value: int) -> int:
    """A 64-bit number as two's complement.

    >>> signed(2**64 - 1)
    -1
    """
    return value - (1 << 64) if value >> 63 else value


Field = tuple[str, int, bool, "type[Message] | None"]
"""A field of a message: its name, what it holds, whether it may repeat, and the class if it holds messages."""
Fields = Mapping[int, Field]


def _one(name: str, kind: int, cls: type[Message] | None = None) -> Field:
    return name, kind, False, cls


def _many(name: str, kind: int, cls: type[Message] | None = None) -> Field:
    return name, kind, True, cls


class Message:
    """A message: where it stands in which file, and its fields by ONNX's names."""

    __slots__ = ("depth", "end", "file", "start")
    FIELDS: ClassVar[Fields]
    ABSENT: ClassVar[tuple[tuple[str, Any], ...]] = ()
    """What fields that are not there hold; None stands for a new list. An attribute leaves most of them out."""

    def __init__(self, file: WireFile, start: int, end: int, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise file.wrong(start, f"more than {DEEPEST} messages stand inside one another")
        self.file = file
        self.start = start
        self.end = end
        self.depth = depth
        fields = self.FIELDS
        for name, kind, repeated, _ in fields.values() if not self.ABSENT else ():
            setattr(self, name, [] if repeated else _DEFAULTS[kind])
        for name, default in self.ABSENT:
            setattr(self, name, default)
        for number, wire, first, second, place in file.fields(start, end):
            field = fields.get(number)
            if field is not None:
                self._take(field, wire, first, second, place)

    def _take(self, field: Field, wire: int, first: int, second: int, place: int) -> None:
        name, kind, repeated, cls = field
        if self.ABSENT and repeated and not hasattr(self, name):
            setattr(self, name, [])
        if wire != _WIRE[kind]:
            if wire == 2 and kind in (_INTS, _FLOATS):
                self._take_packed(name, kind, first, second, place)
                return
            raise self.file.wrong(
                place,
                f"{_called(self)}'s {name} is {_WIRE_NAMES[wire]}, but must be {_WIRE_NAMES[_WIRE[kind]]}",
            )
        value: Any
        if kind == _STRING:
            value = self.file.text(first, second)
        elif kind in (_INT, _INTS):
            value = signed(first)
        elif kind == _EXTENT:
            value = (first, second)
        elif kind == _BYTES:
            value = self.file.bytes_of(first, second)
        elif kind == _MESSAGE:
            if not repeated and getattr(self, name, None) is not None:
                raise self.file.wrong(place, f"{_called(self)} has a second {name}")
            assert cls is not None
            value = cls(self.file, first, second, self.depth + 1)
        else:
            value = struct.unpack("<f", self.file.bytes_of(first, second))[0]
        if repeated:
            self._append(getattr(self, name), name, value, place)
        else:
            setattr(self, name, value)

    def _append(self, values: list[Any], name: str, value: Any, place: int) -> None:
        values.append(value)
        if len(values) > MOST_REPEATED:
            self._check_count(name, len(values), place)

    def _check_count(self, name: str, count: int, place: int) -> None:
        most = MOST_NUMBERS if name in ("floats", "ints") else MOST_REPEATED
        if count > most:
            raise self.file.wrong(place, f"{_called(self)} has more than {most} {name}")

    def _take_packed(self, name: str, kind: int, start: int, end: int, place: int) -> None:
        values = getattr(self, name)
        if kind == _FLOATS:
            if (end - start) % 4:
                raise self.file.wrong(place, f"{_called(self)}'s {name} is {end - start} bytes, not a multiple of 4")
            self._check_count(name, len(values) + (end - start) // 4, place)
            values.extend(struct.unpack(f"<{(end - start) // 4}f", self.file.bytes_of(start, end)))
            return
        while start < end:
            value, start = self.file.varint(start, end)
            self._append(values, name, signed(value), place)


_DEFAULTS: dict[int, Any] = {_INT: 0, _FLOAT: 0.0, _STRING: "", _BYTES: b"", _EXTENT: None, _MESSAGE: None}


def _called(message: Message) -> str:
    """What a message is called in errors: its class, and its name when that was read already."""
    name = getattr(message, "name", "")
    return type(message).__name__.lower() + (f" {name}" if name else "")


class Entry(Message):
    """A key with its text (ONNX: StringStringEntryProto)."""

    __slots__ = ("key", "value")
    FIELDS: ClassVar[Fields] = {1: _one("key", _STRING), 2: _one("value", _STRING)}
    key: str
    value: str


# --- tensors --------------------------------------------------------------------------------------------------------

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
        1: _many("dims", _INTS),
        2: _one("data_type", _INT),
        3: _one("segment", _EXTENT),
        8: _one("name", _STRING),
        9: _one("raw_data", _EXTENT),
        13: _many("external_data", _MESSAGE, Entry),
        14: _one("data_location", _INT),
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
            raise file.wrong(start, f"{_called(self)} has {len(self.dims)} axes, more than {MOST_AXES}")
        if self.dims and min(self.dims) < 0:
            raise file.wrong(start, f"{_called(self)} has a size of {min(self.dims)}")

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
                raise self.file.wrong(place, f"{_TYPED_DATA[number]} is {_WIRE_NAMES[wire]}")
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
        1: _one("values", _MESSAGE, Tensor),
        2: _one("indices", _MESSAGE, Tensor),
        3: _many("dims", _INTS),
    }
    values: Tensor | None
    indices: Tensor | None
    dims: list[int]


# --- types ----------------------------------------------------------------------------------------------------------


class Dimension(Message):
    """One axis: `value` is an int, a name, or None for not known."""

    __slots__ = ("dim_param", "dim_value", "known")
    FIELDS: ClassVar[Fields] = {1: _one("dim_value", _INT), 2: _one("dim_param", _STRING)}
    dim_value: int
    dim_param: str

    def _take(self, field: Field, wire: int, first: int, second: int, place: int) -> None:
        # A size of 0 is known; no size at all is not.
        self.known = field[0]
        super()._take(field, wire, first, second, place)

    @property
    def value(self) -> int | str | None:
        """The size, the name that stands for it, or None."""
        known = getattr(self, "known", "")
        return self.dim_value if known == "dim_value" else (self.dim_param or None)


class TensorShape(Message):
    """The axes of a tensor."""

    __slots__ = ("dim",)
    FIELDS: ClassVar[Fields] = {1: _many("dim", _MESSAGE, Dimension)}
    dim: list[Dimension]


class TensorType(Message):
    """Type and shape of a tensor; a shape of None is not known."""

    __slots__ = ("elem_type", "shape")
    FIELDS: ClassVar[Fields] = {1: _one("elem_type", _INT), 2: _one("shape", _MESSAGE, TensorShape)}
    elem_type: int
    shape: TensorShape | None


class Type(Message):
    """A type: of a tensor, or of something else that holds tensors, of which only the place is kept."""

    __slots__ = ("map_type", "optional_type", "sequence_type", "sparse_tensor_type", "tensor_type")
    FIELDS: ClassVar[Fields] = {
        1: _one("tensor_type", _MESSAGE, TensorType),
        4: _one("sequence_type", _EXTENT),
        5: _one("map_type", _EXTENT),
        8: _one("sparse_tensor_type", _MESSAGE, TensorType),
        9: _one("optional_type", _EXTENT),
    }
    tensor_type: TensorType | None
    sequence_type: tuple[int, int] | None
    map_type: tuple[int, int] | None
    sparse_tensor_type: TensorType | None
    optional_type: tuple[int, int] | None


class ValueInfo(Message):
    """The name of a tensor, and what the file says of its type."""

    __slots__ = ("name", "type_extent")
    FIELDS: ClassVar[Fields] = {1: _one("name", _STRING), 2: _one("type_extent", _EXTENT)}
    name: str
    type_extent: tuple[int, int] | None

    @property
    def type(self) -> Type | None:
        """The type, decoded now."""
        return None if self.type_extent is None else Type(self.file, *self.type_extent, self.depth + 1)

    @property
    def shape(self) -> tuple[int | str | None, ...] | None:
        """Sizes, names of sizes, and None for unknown ones; None when not even their number is known."""
        kind = self.type
        tensor = None if kind is None else kind.tensor_type or kind.sparse_tensor_type
        if tensor is None or tensor.shape is None:
            return None
        return tuple(dimension.value for dimension in tensor.shape.dim)

    @property
    def dtype(self) -> str | None:
        """Our name of the elements' type, or None when it is not a tensor's."""
        kind = self.type
        tensor = None if kind is None else kind.tensor_type or kind.sparse_tensor_type
        return None if tensor is None else DATA_TYPES.get(tensor.elem_type, ("undefined", 0))[0]


# --- graphs ---------------------------------------------------------------------------------------------------------

_ATTRIBUTE_VALUES: dict[int, tuple[str, Any]] = {
    1: ("f", 0.0), 2: ("i", 0), 3: ("s", b""), 4: ("t", None), 5: ("g", None), 6: ("floats", None), 7: ("ints", None),
    8: ("strings", None), 9: ("tensors", None), 10: ("graphs", None), 11: ("sparse_tensor", None),
    12: ("sparse_tensors", None), 13: ("tp", None), 14: ("type_protos", None),
}  # fmt: skip
"""By the number of an attribute's type: the field that holds it, and what that is when it is absent."""


class Attribute(Message):
    """A named value of a node. `value` is a float, int, bytes, `Tensor`, `Graph`, ... or a list of them."""

    __slots__ = ("f", "floats", "g", "graphs", "i", "ints", "name", "ref_attr_name", "s", "sparse_tensor",
                 "sparse_tensors", "strings", "t", "tensors", "tp", "type", "type_protos")  # fmt: skip
    FIELDS: ClassVar[dict[int, Field]] = {}  # given below: it holds Graphs
    ABSENT = (("name", ""), ("type", 0), ("ref_attr_name", ""))
    name: str
    type: int
    ref_attr_name: str

    @property
    def value(self) -> Any:
        """What the attribute holds, by its `type`; old files leave the type out, and hold one thing alone."""
        found = _ATTRIBUTE_VALUES.get(self.type)
        if found is not None:
            name, default = found
            value = getattr(self, name, default)
            return [] if value is None and name.endswith("s") and name != "s" else value
        if self.type:
            raise self.file.wrong(self.start, f"attribute {self.name} is of type {self.type}, which does not exist")
        given = [getattr(self, name) for name, _ in _ATTRIBUTE_VALUES.values() if getattr(self, name, None)]
        return given[0] if given else None


class Node(Message):
    """One op: what it is called, what comes in and goes out by name, and its attributes, decoded when asked for."""

    __slots__ = ("_attributes", "attribute_extents", "domain", "inputs", "metadata_extents", "name", "op_type",
                 "outputs", "overload")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: _many("inputs", _STRING),
        2: _many("outputs", _STRING),
        3: _one("name", _STRING),
        4: _one("op_type", _STRING),
        5: _many("attribute_extents", _EXTENT),
        7: _one("domain", _STRING),
        8: _one("overload", _STRING),
        9: _many("metadata_extents", _EXTENT),
    }
    inputs: list[str]
    outputs: list[str]
    name: str
    op_type: str
    attribute_extents: list[tuple[int, int]]
    metadata_extents: list[tuple[int, int]]
    domain: str
    overload: str

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes by name."""
        try:
            return self._attributes
        except AttributeError:
            self._attributes: dict[str, Attribute] = {}
        for start, end in self.attribute_extents:
            attribute = Attribute(self.file, start, end, self.depth + 1)
            if attribute.name in self._attributes:
                raise self.file.wrong(start, f"{self.op_type} {self.name} has a second attribute {attribute.name}")
            self._attributes[attribute.name] = attribute
        return self._attributes

    def metadata(self, key: str) -> str:
        """What the file notes of the node under a key, or nothing. Only that is read: exporters note much."""
        wanted = key.encode()
        for start, end in self.metadata_extents:
            fields = {number: (first, second) for number, wire, first, second, _ in self.file.fields(start, end)
                      if wire == 2}  # fmt: skip
            if 1 in fields and self.file.bytes_of(*fields[1]) == wanted:
                return self.file.text(*fields[2]) if 2 in fields else ""
        return ""


class Graph(Message):
    """Nodes in order, the tensors that come in and go out, and the weights."""

    __slots__ = ("initializers", "inputs", "name", "nodes", "outputs", "sparse_initializers", "value_infos")
    FIELDS: ClassVar[Fields] = {
        1: _many("nodes", _MESSAGE, Node),
        2: _one("name", _STRING),
        5: _many("initializers", _MESSAGE, Tensor),
        11: _many("inputs", _MESSAGE, ValueInfo),
        12: _many("outputs", _MESSAGE, ValueInfo),
        13: _many("value_infos", _MESSAGE, ValueInfo),
        15: _many("sparse_initializers", _MESSAGE, SparseTensor),
    }
    nodes: list[Node]
    name: str
    initializers: list[Tensor]
    inputs: list[ValueInfo]
    outputs: list[ValueInfo]
    value_infos: list[ValueInfo]
    sparse_initializers: list[SparseTensor]


Attribute.FIELDS.update({
    1: _one("name", _STRING), 2: _one("f", _FLOAT), 3: _one("i", _INT),
    4: _one("s", _BYTES), 5: _one("t", _MESSAGE, Tensor), 6: _one("g", _MESSAGE, Graph),
    7: _many("floats", _FLOATS), 8: _many("ints", _INTS), 9: _many("strings", _BYTES),
    10: _many("tensors", _MESSAGE, Tensor), 11: _many("graphs", _MESSAGE, Graph), 14: _one("tp", _MESSAGE, Type),
    15: _many("type_protos", _MESSAGE, Type), 20: _one("type", _INT),
    21: _one("ref_attr_name", _STRING), 22: _one("sparse_tensor", _MESSAGE, SparseTensor),
    23: _many("sparse_tensors", _MESSAGE, SparseTensor),
})  # fmt: skip


class OpsetImport(Message):
    """The version of a domain's ops that the file speaks."""

    __slots__ = ("domain", "version")
    FIELDS: ClassVar[Fields] = {1: _one("domain", _STRING), 2: _one("version", _INT)}
    domain: str
    version: int


class Function(Message):
    """An op that the file defines: its body is nodes."""

    __slots__ = ("attribute_defaults", "attributes", "domain", "inputs", "name", "nodes", "opset_imports", "outputs",
                 "overload", "value_infos")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: _one("name", _STRING),
        4: _many("inputs", _STRING),
        5: _many("outputs", _STRING),
        6: _many("attributes", _STRING),
        7: _many("nodes", _MESSAGE, Node),
        9: _many("opset_imports", _MESSAGE, OpsetImport),
        10: _one("domain", _STRING),
        11: _many("attribute_defaults", _MESSAGE, Attribute),
        12: _many("value_infos", _MESSAGE, ValueInfo),
        13: _one("overload", _STRING),
    }
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: list[str]
    nodes: list[Node]
    opset_imports: list[OpsetImport]
    domain: str
    attribute_defaults: list[Attribute]
    value_infos: list[ValueInfo]
    overload: str


class Model(Message):
    """A whole file."""

    __slots__ = ("domain", "functions", "graph", "ir_version", "metadata", "model_version", "opset_imports",
                 "producer_name", "producer_version")  # fmt: skip
    FIELDS: ClassVar[Fields] = {
        1: _one("ir_version", _INT),
        2: _one("producer_name", _STRING),
        3: _one("producer_version", _STRING),
        4: _one("domain", _STRING),
        5: _one("model_version", _INT),
        7: _one("graph", _MESSAGE, Graph),
        8: _many("opset_imports", _MESSAGE, OpsetImport),
        14: _many("metadata", _MESSAGE, Entry),
        25: _many("functions", _MESSAGE, Function),
    }
    ir_version: int
    producer_name: str
    producer_version: str
    domain: str
    model_version: int
    graph: Graph | None
    opset_imports: list[OpsetImport]
    metadata: list[Entry]
    functions: list[Function]

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each domain's ops; ONNX's own domain is ""."""
        return versions(self.opset_imports)


def versions(imports: Sequence[OpsetImport]) -> dict[str, int]:
    """The version by domain; ONNX's own domain, which has two names, is ""."""
    return {"" if item.domain == "ai.onnx" else item.domain: item.version for item in imports}


# --- files ----------------------------------------------------------------------------------------------------------


def open_file(path: FileName, name: str) -> WireFile:
    """The file, ready to be read piece by piece. Raises `ModelFileError` when it cannot be."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):  # a pipe cannot be read twice
            os.close(file)
            with open(path, "rb") as stream:  # noqa: PTH123  see FileName
                return WireFile(stream.read(), name, path)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise unreadable(name, error) from None
    return WireFile(file, name, path, status.st_size)


def read_model(source: FileName | bytes, name: str = "", path: FileName | None = None) -> Model:
    """The model in a file, or in bytes that were read. Raises `ModelFileError` for what is no ONNX file.

    `path` is where bytes belong: beside it are weights that are in files of their own.
    """
    file = WireFile(source, name, path) if isinstance(source, bytes) else open_file(source, name or str(source))
    if not file.size:
        raise ModelFileError(f"{file.name} is empty")
    refuse_foreign(file.window(0)[0][:LONGEST_START], file.name)
    model = Model(file, 0, file.size)
    if model.graph is None:
        raise ModelFileError(f"{file.name} is no ONNX file: it holds no graph")
    return model
