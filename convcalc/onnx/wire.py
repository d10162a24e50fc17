"""The wire format of ONNX files: messages become light objects, and weights are stepped over.

An ONNX file is a Protocol Buffers message: fields, each a tag (number and wire type) and a value. Only the fields that
`FIELDS` of each class names are kept; others are stepped over. What is large or seldom asked for stays where it is: an
`EXTENT` is a place in the file, which is decoded when it is asked for.

Everything that is wrong with a file is a `ModelFileError` that names the byte; no length is believed before it was
compared with what is there, so that nothing larger than the file is ever allocated.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from convcalc.errors import ModelFileError, unreadable

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

FileName = str | os.PathLike[str]
"""What names a file. `pathlib` takes as long to load as a model to read, so it is loaded only where it is needed."""

DEEPEST = 100
"""How many messages may stand inside one another; Protocol Buffers' own limit."""
MOST_REPEATED = 1 << 17
"""How many nodes, tensors, names or axes one message may have: objects are larger than the bytes that ask for them."""
MOST_NUMBERS = 1 << 20
"""How many numbers one attribute may have."""

_LONGEST_HEAD = 20  # a tag and a length or number, of ten bytes each
_WINDOW = 1 << 13

INT, FLOAT, STRING, BYTES, EXTENT, MESSAGE, INTS, FLOATS = range(8)
"""What a field holds."""
_NUMBERS = frozenset((INT, INTS))
_WIRE = {INT: 0, FLOAT: 5, STRING: 2, BYTES: 2, EXTENT: 2, MESSAGE: 2, INTS: 0, FLOATS: 5}
WIRE_NAMES = {0: "a number", 1: "8 bytes", 2: "a length and bytes", 5: "4 bytes"}
"""What stands in the file for each wire type, in errors."""


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


def signed(value: int) -> int:
    """A 64-bit number as two's complement.

    >>> signed(2**64 - 1)
    -1
    """
    return value - (1 << 64) if value >> 63 else value


_DEFAULTS: dict[int, Any] = {INT: 0, FLOAT: 0.0, STRING: "", BYTES: b"", EXTENT: None, MESSAGE: None}

Field = tuple[str, int, bool, "type[Message] | None"]
"""A field of a message: its name, what it holds, whether it may repeat, and the class if it holds messages."""
Fields = Mapping[int, Field]


def one(name: str, kind: int, cls: type[Message] | None = None) -> Field:
    """A field that stands there once or not at all."""
    return name, kind, False, cls


def many(name: str, kind: int, cls: type[Message] | None = None) -> Field:
    """A field that stands there any number of times."""
    return name, kind, True, cls


class Message:
    """A message: where it stands in which file, and its fields by ONNX's names."""

    __slots__ = ("depth", "end", "file", "start")
    FIELDS: ClassVar[Fields]
    ABSENT: ClassVar[tuple[tuple[str, Any], ...]] = ()
    """What fields that are not there hold. An attribute leaves most of them out."""
    LISTS: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a list, however empty."""

    def __init_subclass__(cls) -> None:
        if "FIELDS" in cls.__dict__ and not cls.ABSENT:
            fields = cls.FIELDS.values()
            cls.ABSENT = tuple((name, _DEFAULTS[kind]) for name, kind, repeated, _ in fields if not repeated)
            cls.LISTS = tuple(name for name, _, repeated, _ in fields if repeated)

    def __init__(self, file: WireFile, start: int, end: int, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise file.wrong(start, f"more than {DEEPEST} messages stand inside one another")
        self.file = file
        self.start = start
        self.end = end
        self.depth = depth
        for name, default in self.ABSENT:
            setattr(self, name, default)
        for name in self.LISTS:
            setattr(self, name, [])
        field_of, take = self.FIELDS.get, self._take
        for number, wire, first, second, place in file.fields(start, end):
            field = field_of(number)
            if field is not None:
                take(field, wire, first, second, place)

    def _take(self, field: Field, wire: int, first: int, second: int, place: int) -> None:
        name, kind, repeated, cls = field
        if repeated and not hasattr(self, name):
            setattr(self, name, [])
        if wire != _WIRE[kind]:
            self._take_packed(name, kind, wire, first, second, place)
            return
        value: Any
        if kind == STRING:
            value = self.file.text(first, second)
        elif kind in _NUMBERS:
            value = signed(first)
        elif kind == EXTENT:
            value = (first, second)
        elif kind == BYTES:
            value = self.file.bytes_of(first, second)
        elif kind == MESSAGE:
            if not repeated and getattr(self, name, None) is not None:
                raise self.file.wrong(place, f"{called(self)} has a second {name}")
            assert cls is not None
            value = cls(self.file, first, second, self.depth + 1)
        else:
            value = struct.unpack("<f", self.file.bytes_of(first, second))[0]
        if repeated:
            values = getattr(self, name)
            values.append(value)
            if len(values) > MOST_REPEATED:
                self._check_count(name, len(values), place)
        else:
            setattr(self, name, value)

    def _check_count(self, name: str, count: int, place: int) -> None:
        most = MOST_NUMBERS if name in ("floats", "ints") else MOST_REPEATED
        if count > most:
            raise self.file.wrong(place, f"{called(self)} has more than {most} {name}")

    def _take_packed(self, name: str, kind: int, wire: int, start: int, end: int, place: int) -> None:
        """Take numbers that stand together. Raises `ModelFileError` for a field of another type than it should have."""
        if wire != 2 or kind not in (INTS, FLOATS):
            raise self.file.wrong(
                place,
                f"{called(self)}'s {name} is {WIRE_NAMES[wire]}, but must be {WIRE_NAMES[_WIRE[kind]]}",
            )
        values = getattr(self, name)
        if kind == FLOATS:
            if (end - start) % 4:
                raise self.file.wrong(place, f"{called(self)}'s {name} is {end - start} bytes, not a multiple of 4")
            self._check_count(name, len(values) + (end - start) // 4, place)
            values.extend(struct.unpack(f"<{(end - start) // 4}f", self.file.bytes_of(start, end)))
            return
        while start < end:
            value, start = self.file.varint(start, end)
            values.append(signed(value))
            if len(values) > MOST_REPEATED:
                self._check_count(name, len(values), place)


def called(message: Message) -> str:
    """What a message is called in errors: its class, and its name when that was read already."""
    name = getattr(message, "name", "")
    return type(message).__name__.lower() + (f" {name}" if name else "")
