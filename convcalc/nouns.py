"""From what was asked about to a `Network`: expressions, a layer by options, a file, or standard input.

Which token is what is decided by its spelling, never by which files exist.
"""

from __future__ import annotations

import codecs
import errno
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from convcalc.errors import ConvcalcError, ExpressionError, ModelFileError, Source, Span
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
    unknown_layer,
    value_of,
)
from convcalc.layers import find_kind
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
        if found is None and find_kind(word.partition(":")[0]):
            raise ExpressionError(f"--kind takes a kind alone; write {word} without it", span=span, value=word)
        if found is None:
            raise unknown_layer(word, span)
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
    open_input: bool = False,
    assume_sequential: bool = False,
) -> Network:
    """The network that the words of a command line, its --input and its layer options mean.

    With `open_input` there need be no input (see `Program.network`).

    `assume_sequential` is for the text that PyTorch prints: every container calls its modules in printed order. Raises
    `ExpressionError` for what is wrong on the command line, `ModelFileError` for a file that cannot be read.
    """
    program = read_program(words, options)
    if assume_sequential:
        program.assume_sequential()
    return _network(program, input_shape, batch, open_input)


def line_network(
    line: bytes,
    number: int,
    *,
    input_shape: str | None = None,
    options: LayerOptions | None = None,
    batch: int | None = None,
    open_input: bool = False,
) -> Network:
    """The network that a line of standard input means, read as the words of a command line are."""
    return _network(program_of(line_spans(line, number), options), input_shape, batch, open_input)


def line_spans(line: bytes, number: int) -> list[Span]:
    """The words of a line of standard input."""
    source = Source(_text(line, f"line {number} of {_STANDARD_INPUT}").rstrip("\r\n"), _STANDARD_INPUT,
                    on_command_line=False, line_number=number)  # fmt: skip
    return [token.span for token in tokens_of(source)]


def _network(program: Program, input_shape: str | None, batch: int | None, open_input: bool) -> Network:
    shape = None
    if input_shape is not None:
        shape = shape_of(input_shape, _option_span("--input", input_shape))
    if batch is not None and batch < 1:
        raise ExpressionError(f"--batch is {batch}, but must be at least 1", field="batch", value=batch)
    network = program.network(shape, open_input=open_input)
    return network if batch is None else network.with_batch(batch)


def read_program(words: Sequence[str], options: LayerOptions | None = None) -> Program:
    """The program without an input fixed; see `read_network`."""
    return program_of(word_spans(words), options)


def word_spans(words: Sequence[str]) -> list[Span]:
    """The words of a command line, in one source."""
    source = Source(" ".join(words))
    spans = []
    start = 0
    for word in words:
        spans.append(Span(source, start, start + len(word)))
        start += len(word) + 1
    return spans


def program_of(words: Sequence[Span], options: LayerOptions | None) -> Program:
    """The program that words mean, each of which is a shape, an expression, a file or -."""
    if not words and not options:
        raise ExpressionError(
            "nothing is asked about; write an input and layers, such as 3x224x224 conv:64,k3, or a file,"
            " or - for standard input"
        )
    texts = [span.source.text[span.start : span.end] for span in words]
    tokens: list[Token] = []
    printed: tuple[str, str, Span] | None = None
    before = ""
    for span, word in zip(words, texts, strict=True):
        source = span.source
        if is_input(word) or is_expression(word):
            tokens += tokens_of(source, span.start, span.end)
        elif word == "-":
            if not source.on_command_line or texts.count("-") > 1:
                raise ExpressionError("standard input can be read once only", span=span)
            text, name = _text(b"".join(standard_input()), _STANDARD_INPUT), _STANDARD_INPUT
            tokens, printed = _read_text(text, name, span, tokens, printed)
        elif word.startswith("["):
            raise ExpressionError("an array is read by run only; here a shape such as 3x224x224 comes first", span=span)
        elif not word:
            raise ExpressionError("a word of the command line is empty", span=span)
        else:
            text = word if _is_printed(word) else _file_text(word, span, before)
            name = "" if text is word else word
            tokens, printed = _read_text(text, name, span, tokens, printed)
        before = word
    program = parse(tokens)
    if printed is not None:
        program = _printed_model(program, printed, tokens)
    if options:
        if program.layers:
            first = program.layers[0]
            raise ExpressionError(
                "a layer by options and layers written out are given together; keep one of them", span=first.span
            )
        program = Program([options.layer()], program.given, program.input_span)
    return program


def text_tokens(text: str, name: str) -> list[Token]:
    """The tokens of a file's text, a `Source` a line so that errors can say which.

    Raises `ModelFileError` when there is none.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        source = Source(line, name, on_command_line=False, line_number=number)
        found = tokens_of(source)
        if len(found) == 2 and found[0].text == "input":
            found = [Token(f"input:{found[1].text}", found[1].span)]
        tokens += found
    if not tokens:
        raise ModelFileError(f"{name} is empty; it should hold layers, one or more a line")
    return tokens


_STANDARD_INPUT = "standard input"


def standard_input() -> Iterable[bytes]:
    """Standard input, line by line. Raises `ModelFileError` when it is closed."""
    if sys.stdin is None:
        raise ModelFileError(f"{_STANDARD_INPUT} is closed")
    return sys.stdin.buffer


def _text(content: bytes, name: str) -> str:
    """The text of a file, which may begin with the mark that some editors put there."""
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{name} is no text: {error.reason} at byte {error.start}") from None


def _read_text(
    text: str, name: str, span: Span, tokens: list[Token], printed: tuple[str, str, Span] | None
) -> tuple[list[Token], tuple[str, str, Span] | None]:
    """What was read, with a text more: its tokens, or the text itself when PyTorch printed it."""
    if _is_printed(text):
        if printed is not None:
            raise ExpressionError("one printed model is read at a time", span=span)
        return tokens, (text, name, span)
    try:
        return tokens + text_tokens(text, name), printed
    except ModelFileError as error:
        error.span = error.span or span
        raise


def _is_printed(text: str) -> bool:
    """Whether PyTorch printed a text; its reader is loaded only for one of several lines."""
    if "\n" not in text.strip() or ")" not in text:
        return False
    from convcalc.torch_text import looks_printed

    return looks_printed(text)


def _printed_model(program: Program, printed: tuple[str, str, Span], tokens: Sequence[Token]) -> Program:
    """A printed model on the input that stands beside it."""
    from convcalc.torch_text import PrintedModel

    text, name, _ = printed
    if program.items:
        raise ExpressionError(
            "a printed model stands alone, beside its input; no layers can be put before or after it",
            span=next(token.span for token in tokens if not is_input(token.text)),
        )
    return PrintedModel(text, name, program.given, program.input_span)


def _file_text(word: str, span: Span, before: str) -> str:
    path = Path(word)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, ValueError):  # ValueError: no file can have such a name
        raise _no_file(word, span, before) from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR):
            raise _no_file(word, span, before) from None
        raise ModelFileError(f"{word} cannot be read: {(error.strerror or 'error').lower()}", span=span) from None
    if path.suffix == ".onnx":
        raise ModelFileError(f"{word} is an ONNX file; reading them is not there yet", span=span)
    try:
        return _text(content, word)
    except ModelFileError as error:
        error.span = error.span or span
        raise


def _no_file(word: str, span: Span, before: str) -> ConvcalcError:
    """A word that is neither a kind nor a file: what was most likely meant decides the sentence."""
    unknown = unknown_layer(word, span, before)
    if "did you mean" in unknown.message or ":" in word or "(" in word:
        return unknown
    return ModelFileError(f"{word} is neither a layer nor a file that exists", span=span)
