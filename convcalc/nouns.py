"""From what was asked about to a `Network`: expressions, a layer by options, a file, or standard input.

Which token is what is decided by its spelling, never by which files exist.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from convcalc.errors import (
    ConvcalcError,
    ExpressionError,
    ModelFileError,
    Source,
    Span,
    refuse_below_one,
    unreadable,
)
from convcalc.expressions import parse
from convcalc.expressions.layer_text import LayerText, is_main_apart, refuse_unknown
from convcalc.expressions.program import Program
from convcalc.expressions.tokens import Token, is_expression, is_input, shape_of, tokens_of, value_of
from convcalc.layers import find_kind
from convcalc.network import Network, input_twice

if TYPE_CHECKING:
    from convcalc.onnx.file import OnnxModel
    from convcalc.torch_text import PrintedModel


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
        span = option_span("--kind", word)
        found = find_kind(word)
        if found is None and find_kind(word.partition(":")[0]):
            raise ExpressionError(f"--kind takes a kind alone; write {word} without it", span=span, value=word)
        if found is None:
            from convcalc.expressions.slips import unknown_layer

            raise unknown_layer(word, span)
        layer = LayerText(*found, span)
        for field, (option, text) in self.fields.items():
            where = option_span(option, text)
            name = layer.kind.keys.get("c", "out_channels") if field == "channels" else field
            refuse_unknown(layer, name, where)
            layer.give(name, value_of(text, where), where)
        return layer


def option_span(option: str, text: str) -> Span:
    """The place of an option's value, for errors."""
    return Span(Source(f"{option} {text}"), len(option) + 1, len(option) + 1 + len(text))


def read_network(
    words: Sequence[str],
    *,
    input_shape: str | None = None,
    options: LayerOptions | None = None,
    batch: int | None = None,
    open_input: bool = False,
    assume_sequential: bool = False,
    unprinted: Sequence[str] = (),
) -> Network:
    """The network that the words of a command line, its --input and its layer options mean.

    With `open_input` there need be no input (see `Program.network`).

    `assume_sequential` is for the text that PyTorch prints: every container calls its modules in printed order; and
    `unprinted` says what that text leaves out, such as num_heads=8. Raises
    `ExpressionError` for what is wrong on the command line, `ModelFileError` for a file that cannot be read.
    """
    program = _as_said(read_program(words, options), assume_sequential, unprinted)
    return _network(program, input_shape, batch, open_input)


def line_network(
    line: bytes,
    number: int,
    *,
    input_shape: str | None = None,
    options: LayerOptions | None = None,
    batch: int | None = None,
    open_input: bool = False,
    assume_sequential: bool = False,
    unprinted: Sequence[str] = (),
) -> Network:
    """The network that a line of standard input means, read as the words of a command line are."""
    program = _as_said(program_of(line_spans(line, number), options), assume_sequential, unprinted)
    given = program.input_span
    if input_shape is not None and given is not None and given.source.name == _STANDARD_INPUT:
        raise input_twice(given)
    return _network(program, input_shape, batch, open_input)


def line_spans(line: bytes, number: int) -> list[Span]:
    """The words of a line of standard input."""
    source = Source(_text(line, f"line {number} of {_STANDARD_INPUT}").rstrip("\r\n"), _STANDARD_INPUT,
                    on_command_line=False, line_number=number)  # fmt: skip
    return [token.span for token in tokens_of(source)]


def _as_said(program: Program, assume_sequential: bool, unprinted: Sequence[str]) -> Program:
    """The program with what is said of the text that PyTorch printed; an error where it is none."""
    if assume_sequential:
        program.assume_sequential()
    program.say(unprinted)
    return program


def _network(program: Program, input_shape: str | None, batch: int | None, open_input: bool) -> Network:
    refuse_below_one("--batch", batch)
    if program.names_inputs:
        named = cast("OnnxModel | PrintedModel", program)
        return named.named_network(_named_shapes(input_shape), batch, open_input=open_input)
    shape = None
    if input_shape is not None:
        shape = shape_of(input_shape, option_span("--input", input_shape))
    network = program.network(shape, open_input=open_input)
    return network if batch is None else network.with_batch(batch)


def _named_shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    """The shapes of --input x=1x3x224x224,y=1x10; "" is the name of one without a name."""
    shapes: dict[str, tuple[int, ...]] = {}
    start = len("--input ")
    source = Source(f"--input {text}")
    for part in (text or "").split(",") if text is not None else ():
        name, _, shape = part.rpartition("=")
        span = Span(source, start, start + len(part))
        if name in shapes:
            raise ExpressionError(
                f"the input {name or shape} is given twice; keep one of them", span=span, field="input"
            )
        shapes[name] = shape_of(shape, Span(source, span.end - len(shape), span.end))
        start = span.end + 1
    return shapes


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
        if is_main_apart(word, before):
            from convcalc.expressions.slips import unknown_layer

            raise unknown_layer(word, span, before)
        if is_input(word) or is_expression(word):
            tokens += tokens_of(source, span.start, span.end)
        elif word.startswith("["):
            raise ExpressionError("an array is read by run only; here a shape such as 3x224x224 comes first", span=span)
        elif not word:
            raise ExpressionError("a word of the command line is empty", span=span)
        else:
            if word == "-" and (not source.on_command_line or texts.count("-") > 1):
                raise ExpressionError("standard input can be read once only", span=span)
            name = _STANDARD_INPUT if word == "-" else word
            try:
                found = _read(word, span, before)
                if not isinstance(found, str):
                    return _onnx_program(found or word, name, span, words, options)
                tokens, printed = _read_text(found, "" if found is word else name, span, tokens, printed)
            except ModelFileError as error:
                error.span = error.span or span
                raise
        before = word
    program = parse(tokens)
    if printed is not None:
        program = _printed_model(program, printed, tokens)
    return _with_options(program, options) if options else program


def _with_options(program: Program, options: LayerOptions) -> Program:
    """The layer by options on the program's input, which is all that it may have."""
    if program.layers:
        first = program.layers[0]
        raise ExpressionError(
            "a layer by options and layers written out are given together; keep one of them", span=first.span
        )
    return Program([options.layer()], program.given, program.input_span)


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
_ONNX_START = b"\x08"
"""What every ONNX file begins with, and no text: the field ir_version."""


def _onnx_program(
    source: str | bytes, name: str, place: Span, words: Sequence[Span], options: LayerOptions | None
) -> OnnxModel:
    """The model of an ONNX file, with the input that may stand beside it. Its reader is loaded only now."""
    tokens = []
    for span in words:
        if span is place and not options:
            continue
        if options or not is_input(span.source.text[span.start : span.end]):
            raise ExpressionError(
                "an ONNX file stands alone, beside its input; no layers can be put before or after it", span=span
            )
        tokens += tokens_of(span.source, span.start, span.end)
    given = parse(tokens)
    from convcalc.onnx.file import OnnxModel

    return OnnxModel(source, name, given.given, given.input_span)


def _read(word: str, span: Span, before: str) -> str | bytes | None:
    """The text of the file that a word names, or the word itself where it is a text; an ONNX file's bytes from standard
    input, and None where the word is the name of one.

    Raises `ModelFileError` for a file of another program, before all of it is read.
    """
    from convcalc.foreign import LONGEST_START, refuse_foreign

    if word == "-":
        content = b"".join(standard_input())
        if content.startswith(_ONNX_START):
            return content
        refuse_foreign(content[:LONGEST_START], _STANDARD_INPUT)
        return _text(content, _STANDARD_INPUT)
    if _is_printed(word, strange=False):
        return word
    if word.lower().endswith(".onnx"):
        return None
    try:
        with open(word, "rb") as file:  # noqa: PTH123  pathlib takes long to load
            start = file.read(LONGEST_START)
            if start.startswith(_ONNX_START):
                return None
            refuse_foreign(start, word)
            return _text(start + file.read(), word)
    except (FileNotFoundError, ValueError):  # ValueError: no file can have such a name
        raise _no_file(word, span, before) from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR):
            raise _no_file(word, span, before) from None
        raise unreadable(word, error) from None


def standard_input() -> Iterable[bytes]:
    """Standard input, line by line. Raises `ModelFileError` when it is closed."""
    if sys.stdin is None:
        raise ModelFileError(f"{_STANDARD_INPUT} is closed")
    return sys.stdin.buffer


def _text(content: bytes, name: str) -> str:
    """The text of a file, which may begin with the mark that some editors and shells put there."""
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
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
    return tokens + text_tokens(text, name), printed


def _is_printed(text: str, *, strange: bool = True) -> bool:
    """Whether PyTorch printed a text; its reader is loaded only for one that has several lines or looks like a call.

    A single line may be of a `strange` class, which a word of the command line is not taken for.
    """
    if ")" not in text or ("\n" not in text.strip() and not re.match(r"\s*[A-Z]\w*\(", text)):
        return False
    from convcalc.torch_text import looks_printed

    return looks_printed(text, strange=strange)


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


def _no_file(word: str, span: Span, before: str) -> ConvcalcError:
    """A word that is neither a kind nor a file: what was most likely meant decides the sentence."""
    from convcalc.expressions.slips import unknown_layer

    unknown = unknown_layer(word, span, before)
    near = _near_file(word)
    if not near and ("did you mean" in unknown.message or ":" in word or "(" in word):
        return unknown
    if word.startswith("--"):
        return ExpressionError(f"{word} is an option; of --lines the options stand on the command line", span=span)
    meant = f"; did you mean '{near}'?" if near else ""
    return ModelFileError(f"{word} is neither a layer nor a file that exists{meant}", span=span)


_SUFFIXES = ("", ".txt", ".onnx")


def _near_file(word: str) -> str:
    """A file with the word as its name, but for a suffix or the folder examples; "" where there is none."""
    folder, name = os.path.split(word)
    places = [os.path.join(folder, inner, name + suffix) for inner in ("", "examples") for suffix in _SUFFIXES]  # noqa: PTH118
    return next((place for place in places if os.path.isfile(place)), "")  # noqa: PTH113  pathlib takes long to load
