"""Errors for people: one sentence, the text it is about, and a caret."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from convcalc.errors import ConvcalcError, Span
from convcalc.render.units import printable

_WIDEST = 100
"""Characters of a source line that are shown where no terminal is narrower; around the caret when it is longer."""
_MARGIN = "  "


def error_lines(error: ConvcalcError, width: int = _WIDEST) -> Iterator[str]:
    """The sentence, then the marked text if there is one, no wider than so many columns."""
    yield f"error: {printable(str(error))}"
    if error.span is not None:
        yield from marked(error.span, width)


def marked(span: Span, width: int = _WIDEST) -> Iterator[str]:
    """The source line and the carets under the span."""
    source = span.source
    if not source.text.strip():
        return
    if source.name:
        place = f", line {source.line_number}" if source.line_number else ""
        yield f"{_MARGIN}in {printable(source.name)}{place}:"
    text = printable(source.text)
    start, end = span.start, max(span.end, span.start + 1)
    widest = max(min(width, _WIDEST) - len(_MARGIN), 8)
    if _width(text) > widest:
        cut = min(max(0, start - widest // 3), max(len(text) - widest, 0))
        text, start, end = text[cut : cut + widest], start - cut, min(end - cut, widest)
        while _width(text) > widest:  # characters of two columns
            text = text[:-1]
    yield f"{_MARGIN}{text}"
    yield f"{_MARGIN}{' ' * _width(text[:start])}{'^' * max(_width(text[start:end]), 1)}"


def _width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def exit_status(error: ConvcalcError) -> int:
    """2 for the command line, the expressions on it included; 1 for a file, standard input, a shape or a budget."""
    in_file = error.span is not None and not error.span.source.on_command_line
    return 1 if in_file else error.exit_status
