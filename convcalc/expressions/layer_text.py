"""A layer as it is written: in an expression, or as PyTorch prints it."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from convcalc.errors import ConvcalcError, ExpressionError, Span
from convcalc.expressions.tokens import CONSTANTS, LETTERS, Token, letters_of, python_value, split_outside, value_of
from convcalc.layers import Kind, find_kind
from convcalc.layers.base import Layer, text_of
from convcalc.records import REQUIRED, parameters_of

_IGNORED_FIELDS = ("device", "dtype")


class LayerText:
    """A layer as it was written: its kind, the rank if the text fixes one, and the fields with their places."""

    __slots__ = ("fields", "kind", "links", "name", "rank", "span", "spans")

    def __init__(self, kind: Kind, rank: int | None, span: Span) -> None:
        self.kind = kind
        self.rank = rank
        self.span = span
        self.fields: dict[str, Any] = {}
        self.spans: dict[str, Span] = {}
        self.links: list[tuple[str, Span]] = []
        self.name: str | None = None

    def give(self, field: str, value: Any, span: Span) -> None:
        """Note a field's value. Raises `ExpressionError` when it has one."""
        if field == "name":
            if self.name is not None:
                raise ExpressionError("name is given twice", span=span, field="name")
            self.name = str(value)
            return
        if field in self.fields:
            raise ExpressionError(f"{field} is given twice", span=span, field=field, value=value)
        self.fields[field] = value
        self.spans[field] = span

    @property
    def implied_rank(self) -> int | None:
        """The rank that the kind's name or a kernel of several sizes fixes."""
        kernel = self.fields.get("kernel_size")
        if self.rank is None and self.kind.ranked and isinstance(kernel, tuple) and len(kernel) > 1:
            if len(kernel) > 3:
                raise ExpressionError(
                    f"kernel_size is {text_of(kernel)}, but {self.kind.name} has 1, 2 or 3 spatial axes",
                    span=self.spans.get("kernel_size"),
                    field="kernel_size",
                )
            return len(kernel)
        return self.rank

    def layer(self, rank: int) -> Layer:
        """The layer, of this rank if the text leaves it open. Errors point at the field."""
        chosen = self.implied_rank or (None if self.kind.free else rank)
        cls = self.kind.layer_class(chosen)
        try:
            return cls(**self.fields)
        except ConvcalcError as error:
            error.span = error.span or self.spans.get(error.field or "", self.span)
            raise
        except TypeError:
            # Which field is missing is the constructor's to know; which are there is checked before.
            self.refuse_missing(cls)
            raise

    def refuse_missing(self, cls: type[Layer], but: Container[str] = ()) -> None:
        """Raise `ExpressionError` when a field that the layer needs is not written, other than those."""
        for name in required_fields(cls):
            if name not in self.fields and name not in but:
                raise ExpressionError(
                    f"{self.kind.name} needs {name}; write {example_of(self.kind, name)}", span=self.span, field=name
                ) from None


def field_names(cls: type[Layer]) -> tuple[str, ...]:
    """The fields that a layer's constructor takes, in PyTorch's order."""
    return tuple(parameters_of(cls))


def required_fields(cls: type[Layer]) -> tuple[str, ...]:
    """The fields without a default."""
    return tuple(name for name, default in parameters_of(cls).items() if default is REQUIRED)


def example_of(kind: Kind, field: str) -> str:
    """How a field is given, for an error."""
    if kind.main == field:
        return f"{kind.name}:2"
    key = next((key for key, name in kind.keys.items() if name == field), None)
    return f"{kind.name}:{key}2" if key else f"{kind.name}:{field}=2"


def parse_layer(token: Token, before: str = "") -> LayerText:
    """One layer from its token; `before` is the text of the one before it.

    Raises `ExpressionError` at the part that is wrong.
    """
    text = token.text.rstrip(",")
    end = next((index for index, letter in enumerate(text) if not (letter.isalnum() or letter in "_.")), len(text))
    word = text[:end] if text[:1] in LETTERS else ""
    found = find_kind(word) if word else None
    if found is None:
        from convcalc.expressions.slips import unknown_layer

        raise unknown_layer(text, token.span, before)
    layer = LayerText(*found, token.span)
    rest = text[end:]
    if rest.startswith("("):
        if not rest.endswith(")"):
            raise ExpressionError(f"{word}( is not closed", span=token.span)
        _parse_call(layer, token, end + 1, len(text) - 1)
    elif rest.startswith(":"):
        _parse_arguments(layer, token, end + 1, len(text))
    elif rest:
        raise ExpressionError(
            f"{rest} does not belong after {word}; arguments follow a colon, {word}:...",
            span=token.part(end, len(text)),
        )
    return layer


def _parse_arguments(layer: LayerText, token: Token, start: int, end: int) -> None:
    kind = layer.kind
    for index, (begin, stop) in enumerate(split_outside(token.text[start:end], ",")):
        text = token.text[start + begin : start + stop]
        span = token.part(start + begin, start + stop)
        if text.startswith("@"):
            layer.links.append((text[1:], span))
        elif text in kind.flags:
            layer.give(*kind.flags[text], span)
        elif "=" in text:
            field, _, value = text.partition("=")
            field = kind.keys.get(field, field)
            refuse_unknown(layer, field, span)
            layer.give(field, value if field == "name" else value_of(value, span), span)
        else:
            key = letters_of(text)
            if key in kind.keys and len(text) > len(key):
                layer.give(kind.keys[key], value_of(text[len(key) :], span), span)
            elif index == 0 and kind.main is not None and (not key or text.lower() in CONSTANTS):
                layer.give(kind.main, value_of(text, span), span)
            else:
                from convcalc.expressions.slips import refuse_argument

                refuse_argument(layer, text, key, span)


def is_main_apart(text: str, before: str) -> bool:
    """Whether a number is the main size of the layer before it, which has none: conv 64."""
    found = find_kind(before)
    return text.isdecimal() and found is not None and found[0].main is not None


def refuse_unknown(layer: LayerText, field: str, span: Span) -> None:
    """Raise `ExpressionError` for a field that the kind does not have."""
    fields = field_names(layer.kind.layer_class(layer.rank))
    if field not in fields and field != "name":
        from convcalc.expressions.slips import unknown_key

        raise unknown_key(layer.kind, field, span, [*fields, "name"])


def _parse_call(layer: LayerText, token: Token, start: int, end: int) -> None:
    """PyTorch's own text: Conv2d(3, 64, kernel_size=(7, 7), bias=False)."""
    cls = layer.kind.layer_class(layer.rank)
    fields = field_names(cls)
    named = False
    position = 0
    for begin, stop in split_outside(token.text[start:end], ","):
        piece = token.text[start + begin : start + stop]
        if not piece.strip():
            continue
        lead = len(piece) - len(piece.lstrip())
        span = token.part(start + begin + lead, start + stop)
        field, equals, value = piece.strip().partition("=")
        if equals and re.fullmatch(r"\w+", field.strip()):
            named = True
            if field.strip() in (*_IGNORED_FIELDS, *cls.printed):
                continue
            refuse_unknown(layer, field.strip(), span)
            layer.give(field.strip(), python_value(value, span), span)
            continue
        if named:
            raise ExpressionError("a value without a name comes after one with a name", span=span)
        if position >= len(fields):
            raise ExpressionError(f"{layer.kind.name} takes at most {len(fields)} values", span=span)
        layer.give(fields[position], python_value(piece, span), span)
        position += 1
