"""The pieces of a text and where they stand, and the values that pieces stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from convcalc.errors import ExpressionError, Source, Span
from convcalc.layers import find_kind

_OPENING, _CLOSING = "([{", ")]}"
# Patterns are compiled when they are used, each a tenth of a millisecond; what most texts hold is told without any.
_FLOAT = r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]+)?$|[+-]?inf$"
_AXIS = r"(?P<before>[+-]?[0-9]+)\+(?P<after>[+-]?[0-9]+)$|none$|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_DESIGN_SPACE = r"[0-9](/|\.\.)[0-9]"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
"""What names of kinds and keys begin with."""
CONSTANTS = {"true": True, "false": False, "none": None}
"""Words that are values."""
_MOST_DIGITS = 300
"""Digits of a number that is read."""
WIRING = ("from", "repeat", "end")
"""Words that are no layers."""


class Token:
    """A piece of a source, between spaces that are outside brackets."""

    __slots__ = ("span", "text")

    def __init__(self, text: str, span: Span) -> None:
        self.text = text
        self.span = span

    def part(self, start: int, end: int) -> Span:
        """The span of the characters start to end of this token."""
        return Span(self.span.source, self.span.start + start, self.span.start + end)

    def __repr__(self) -> str:
        return f"Token({self.text!r})"


def split_outside(text: str, separators: str) -> Iterator[tuple[int, int]]:
    """Where the pieces stand that the separators part, outside brackets and quotes. Empty pieces are given too.

    >>> text = "a,(b,c),d"
    >>> [text[start:end] for start, end in split_outside(text, ",")]
    ['a', '(b,c)', 'd']
    """
    depth, start, quote = 0, 0, ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character in separators and depth <= 0:
            yield start, index
            start = index + 1
    yield start, len(text)


def tokens_of(source: Source, start: int = 0, end: int | None = None) -> list[Token]:
    """The tokens of a source, or of a part of it; a # outside brackets begins a comment in a file."""
    text = source.text[start:end]
    tokens = []
    for begin, stop in split_outside(text, " \t\n"):
        piece = text[begin:stop]
        if piece.startswith("#") and not source.on_command_line:
            break
        if piece.strip():
            tokens.append(Token(piece, Span(source, start + begin, start + stop)))
    return tokens


def letters_of(text: str) -> str:
    """The letters that a text begins with.

    >>> letters_of("k3x5"), letters_of("3")
    ('k', '')
    """
    return text[: len(text) - len(text.lstrip(LETTERS))]


def is_input(text: str) -> bool:
    """Whether a token is the shape of an input: digits with x, / and .. only."""
    return "0" <= text[:1] <= "9" and not text.strip("0123456789x/.")


def is_expression(text: str) -> bool:
    """Whether a token is a layer or wiring, by its spelling alone."""
    if text.startswith("@"):
        return True
    word = text.partition(":")[0].partition("(")[0].partition(",")[0]
    return word in (*WIRING, "input") or find_kind(word) is not None


# --- values -------------------------------------------------------------------------------------------------------


def is_whole(text: str) -> bool:
    """Whether a text is a whole number: digits, perhaps after a sign.

    >>> is_whole("-12"), is_whole("1.5"), is_whole("-")
    (True, False, False)
    """
    digits = text[1:] if text[:1] in ("+", "-") else text
    return digits.isascii() and digits.isdigit()


def integer(text: str, span: Span | None) -> int:
    """An int from its digits. Raises `ExpressionError` for one that is absurdly long."""
    if len(text) > _MOST_DIGITS:
        raise ExpressionError(
            f"a number has {len(text):,} digits; {_MOST_DIGITS} are the most that are read", span=span
        )
    return int(text)


def _is_plain(text: str) -> bool:
    """Whether a text is a number, true, false or none."""
    return is_whole(text) or re.match(_FLOAT, text) is not None or text.lower() in CONSTANTS


def _plain(text: str, span: Span) -> Any:
    """What a plain text stands for."""
    if is_whole(text):
        return integer(text, span)
    return CONSTANTS[text.lower()] if text.lower() in CONSTANTS else float(text)


def value_of(text: str, span: Span) -> Any:
    """The value that a text stands for: a number, sizes, pairs, true, false, none, or a word."""
    if _is_plain(text):
        return _plain(text, span)
    if re.search(_DESIGN_SPACE, text):
        raise ExpressionError(
            f"{text} is a set or a range of designs, which is not there yet; give one number", span=span, value=text
        )
    axes = [re.match(_AXIS, axis) for axis in text.lower().split("x")]
    if all(axes):
        return tuple(_axis(axis, span) for axis in axes if axis)
    if text[:1].isdigit() or (text[:1] in "+-" and text[1:2].isdigit()):
        if ":" in text:
            raise ExpressionError(
                f"{text} has a colon of its own; commas part arguments: {text.replace(':', ',')}", span=span, value=text
            )
        raise ExpressionError(
            f"{text} is no number; sizes are written 3, 3x5 or, before and after, 1+2", span=span, value=text
        )
    if not text:
        raise ExpressionError("a value is missing here", span=span)
    return text.strip("'\"")


def _axis(match: re.Match[str], span: Span) -> Any:
    """One axis of several: a number, none, or a (before, after) pair."""
    if match["before"]:
        return integer(match["before"], span), integer(match["after"], span)
    return None if match[0] == "none" else integer(match[0], span) if is_whole(match[0]) else float(match[0])


def shape_of(text: str, span: Span | None) -> tuple[int, ...]:
    """The numbers of an input's shape."""
    if "/" in text or ".." in text:
        raise ExpressionError(
            f"{text} is a set or a range of designs, which is not there yet; give one shape, such as 3x224x224",
            span=span,
            value=text,
        )
    numbers = text.split("x")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        from convcalc.expressions.slips import shape_meant

        meant = f"; did you mean '{shape_meant(text)}'?" if shape_meant(text) else "; write one such as 3x224x224"
        raise ExpressionError(f"{text} is no shape{meant}", span=span, value=text)
    shape = tuple(integer(number, span) for number in numbers)
    if 0 in shape:
        raise ExpressionError(f"the input {text} has a size of 0; every size is at least 1", span=span, value=text)
    return shape


def python_value(text: str, span: Span) -> Any:
    """A value in PyTorch's printed syntax: numbers, tuples, strings, True, False, None, bare words. Never evaluated."""
    text = text.strip()
    if not text:
        raise ExpressionError("a value is missing here", span=span)
    if text[:1] in "([" and text[-1:] in ")]":
        inside = text[1:-1]
        pieces = [inside[start:end] for start, end in split_outside(inside, ",")]
        return tuple(python_value(piece, span) for piece in pieces if piece.strip())
    if _is_plain(text):
        return _plain(text, span)
    quoted = re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", text)
    if quoted:
        return quoted[1] or quoted[2] or ""
    if re.fullmatch(r"[A-Za-z_][\w.-]*", text):
        return text
    raise ExpressionError(f"{text or 'nothing'} is no value; write a number, a tuple or a word", span=span, value=text)
