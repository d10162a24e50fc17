"""Errors for people: one sentence, the text it is about, and a caret."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from convcalc.errors import ConvcalcError, Span

_WIDEST = 100
"""Characters of a source line that are shown; around the caret when it is longer."""


def error_lines(error: ConvcalcError) -> Iterator[str]:
    """The sentence, then the marked text if there is one."""
    yield f"error: {error}"
    if error.span is not None:
        yield from marked(error.span)


def marked(span: Span) -> Iterator[str]:
    """The source line and the carets under the span."""
    source = span.source
    if not source.text.strip():
        return
    if source.name:
        place = f", line {source.line_number}" if source.line_number else ""
        yield f"  in {source.name}{place}:"
    text = "".join(character if character.isprintable() else "·" for character in source.text)
    start, end = span.start, max(span.end, span.start + 1)
    if len(text) > _WIDEST:
        cut = min(max(0, start - _WIDEST // 3), len(text) - _WIDEST)
        text, start, end = text[cut : cut + _WIDEST], start - cut, min(end - cut, _WIDEST)
    yield f"  {text}"
    yield f"  {' ' * _width(text[:start])}{'^' * max(_width(text[start:end]), 1)}"


def _width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def exit_status(error: ConvcalcError) -> int:
    """2 for the command line, the expressions on it included; 1 for a file, standard input, a shape or a budget."""
    in_file = error.span is not None and not error.span.source.on_command_line
    return 1 if in_file else error.exit_status
