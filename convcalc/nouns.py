"""From what was asked about to a `Network`: expressions, a layer by options, a file, or standard input.

Which token is what is decided by its spelling, never by which files exist.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, Source, Span, did_you_mean
from convcalc.expressions import (
    LayerText,
    Program,
    Token,
    is_expression,
    is_input,
    parse,
    refuse_unknown,
    shape_of,
    tokens_of,
    value_of,
)
from convcalc.layers import LAYERS, find_kind
from convcalc.network import Network


class LayerOptions:
    """A layer by options: its kind, and by field the text of the value and the option that gave it."""

    def __init__(self, kind: str | None, fields: Mapping[str, tuple[str, str]]) -> None:
        self.kind = kind
        self.fields = fields

    def __bool__(self) -> bool:
        return self.kind is not None or bool(self.fields)

    def layer(self) -> LayerText:
        """The layer as if it had been written as an expression. Raises `ExpressionError` at the option."""
        word = self.kind or "conv"
        span = _option_span("--kind", word)
        found = find_kind(word)
        if found is None:
            raise ExpressionError(f"unknown layer {word}{did_you_mean(word, LAYERS)}", span=span, value=word)
        layer = LayerText(*found, span)
        for field, (option, text) in self.fields.items():
            where = _option_span(option, text)
            name = layer.kind.keys.get("c", "out_channels") if field == "channels" else field
            assert field is not None
            refuse_unknown(layer, name, where)
            layer.give(name, value_of(text, where), where)
        return layer


def _option_span(option: str, text: str) -> Span:
    return Span(Source(f"{option} {text}"), len(option) + 1, len(option) + 1 + len(text))


def read_network(
    words: Sequence[str],
    *,
    input_shape: str | None = None,
    options: LayerOptions | None = None,
    batch: int | None = None,
) -> Network:
    """The network that the words of a command line, its --input and its layer options mean.

    Raises `ExpressionError` for what is wrong on the command line, `ModelFileError` for a file that cannot be read.
    """
    program = read_program(words, options)
    shape = None
    if input_shape is not None:
        shape = shape_of(input_shape, _option_span("--input", input_shape))
    network = program.network(shape)
    return network if batch is None else network.with_batch(batch)


def read_program(words: Sequence[str], options: LayerOptions | None = None) -> Program:
    """The program without an input fixed; see `read_network`."""
    source = Source(" ".join(words))
    tokens: list[Token] = []
    start = 0
    for word in words:
        span = Span(source, start, start + len(word))
        if is_input(word) or is_expression(word):
            tokens += tokens_of(source, span.start, span.end)
        elif word == "-":
            tokens += text_tokens(_standard_input(), "standard input")
        elif word.startswith("["):
            raise ExpressionError("an array is read by run only; here a shape such as 3x224x224 comes first", span=span)
        else:
            tokens += _file_tokens(word, span)
        start = span.end + 1
    program = parse(tokens)
    if options:
        if program.layers:
            first = program.layers[0]
            raise ExpressionError(
                "a layer by options and layers written out are given together; keep one of them", span=first.span
            )
        program = Program([options.layer()], program.given, program.input_span)
    return program


def text_tokens(text: str, name: str) -> list[Token]:
    """The tokens of a file's text, a `Source` a line so that errors can say which."""
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        source = Source(line, name, on_command_line=False, line_number=number)
        found = tokens_of(source)
        if len(found) == 2 and found[0].text == "input":
            found = [Token(f"input:{found[1].text}", found[1].span)]
        tokens += found
    return tokens


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"standard input is no text: {error.reason} at byte {error.start}") from None


def _file_tokens(word: str, span: Span) -> list[Token]:
    path = Path(word)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _no_file(word, span) from None
    except OSError as error:
        raise ModelFileError(f"{word} cannot be read: {(error.strerror or 'error').lower()}", span=span) from None
    if path.suffix == ".onnx":
        raise ModelFileError(f"{word} is an ONNX file; reading them is not there yet", span=span)
    try:
        return text_tokens(content.decode(), word)
    except UnicodeDecodeError as error:
        raise ModelFileError(
            f"{word} is no text of layer expressions: {error.reason} at byte {error.start}", span=span
        ) from None


def _no_file(word: str, span: Span) -> ConvcalcError:
    """A word that is neither a kind nor a file: what was most likely meant decides the sentence."""
    stem = word.partition(":")[0].partition("(")[0]
    known = [*LAYERS, *(alias for kind in LAYERS.values() for alias in kind.names()), "from", "repeat", "end"]
    meant = did_you_mean(stem.removeprefix("nn."), known)
    if meant or ":" in word or "(" in word:
        return ExpressionError(f"unknown layer {stem}{meant}", span=span, value=stem)
    return ModelFileError(f"{word} is neither a layer nor a file that exists", span=span)
