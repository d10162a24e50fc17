"""Arrays as text: nested lists, and rows of numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from convcalc.arrays import Array
from convcalc.errors import ExpressionError, ModelFileError, Source, Span
from convcalc.layers.base import shape_text

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_MOST_AXES = 8


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


_TOGETHER = 1 << 16


def nested(array: Array) -> Any:
    """Nested lists of numbers as short as they are exact: a float32 of 0.1 is 0.1."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        flat, exact = array.reshape(-1), np.empty(array.size)
        for start in range(0, array.size, _TOGETHER):  # their text takes 32 times what they do
            exact[start : start + _TOGETHER] = flat[start : start + _TOGETHER].astype("U32").astype(np.float64)
        array = exact.reshape(array.shape)
    return array.tolist()
