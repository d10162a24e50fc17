r"""Layer expressions: text to layers and back.

    program    = [input] {item}
    input      = ["input:"] number {"x" number}            before the layers: 3x224x224
    item       = layer | "@" name | "from:@" name | "repeat:" count {item} "end"
    layer      = kind | kind ":" argument {"," argument} | Class "(" PyTorch's arguments ")" [","]
    argument   = value                                     first only: the kind's main size
               | flag                                      nobias  ceil  depthwise  psame
               | field "=" value                           kernel_size=3x5  bias=false  name=stem
               | key value                                 k7  k3x5  p1+2  op1
    value      = axis {"x" axis} | word | number | "true" | "false" | "none"
    axis       = integer ["+" integer] | number | "none"   before+after
    joins      = add:@a  mul:@a  concat:@a,@b  crop:@a     the current tensor comes first; @a.1 is a's second output

Kinds are those of `convcalc.layers.LAYERS` and PyTorch's class names, in any case. Commas and spaces split outside
brackets only. `3/5/7` and `32..512..32` are kept for design spaces.

`parse` gives a `Program`, whose `network` method fixes the rank and makes the layers. `tokens` and `layer_text` read
the pieces, `slips` says what was meant by those that cannot be read, and `writing` has `expression_of`, the way back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from convcalc.errors import ExpressionError, ResourceError, Source, Span
from convcalc.expressions.layer_text import LayerText, is_main_apart, parse_layer
from convcalc.expressions.program import Program, Wire
from convcalc.expressions.tokens import Token, integer, is_input, shape_of, tokens_of
from convcalc.network import Network, input_twice

_MOST_ITEMS = 100_000
"""Layers that repeats may grow to: a slip of the finger is not to fill the memory."""


def parse(tokens: Sequence[Token]) -> Program:
    """A program from its tokens. Raises `ExpressionError` at the token that is wrong."""
    given: tuple[int, ...] | None = None
    span: Span | None = None
    usual: tuple[int, ...] | None = None
    items: list[LayerText | Wire] = []
    loops: list[tuple[int, int, Span]] = []
    before = ""
    for token in tokens:
        text = token.text
        word = text.partition(":")[0].partition(",")[0]
        if is_input(text) or text.startswith("input:"):
            shape = shape_of(text.removeprefix("input:"), token.span)
            if span is not None and span.source.on_command_line and not token.span.source.on_command_line:
                usual = shape
            else:
                _refuse_input(tokens, token, before, given=given is not None, late=bool(items))
                given, span = shape, token.span
        elif text.startswith("@"):
            items.append(Wire("@", _name(text[1:], token.span), token.span))
        elif word == "from":
            items.append(Wire("from", _name(text[5:].removeprefix("@"), token.span), token.span))
        elif word == "repeat":
            loops.append((len(items), _times(token), token.span))
        elif word == "end":
            if not loops:
                raise ExpressionError("end has no repeat before it", span=token.span)
            _repeat(items, *loops.pop())
        else:
            items.append(parse_layer(token, before))
        before = text
    if loops:
        raise ExpressionError("repeat has no end", span=loops[-1][2])
    program = Program(items, given, span)
    program.usual = usual
    return program


def _refuse_input(tokens: Sequence[Token], token: Token, before: str, *, given: bool, late: bool) -> None:
    """Raise `ExpressionError` for an input after another one or after a layer, and say what was meant."""
    if is_main_apart(token.text, before):
        from convcalc.expressions.slips import unknown_layer

        raise unknown_layer(token.text, token.span, before)
    numbers = list(takewhile(str.isdecimal, (each.text for each in tokens)))
    if given and token in tokens[1 : len(numbers)]:
        raise ExpressionError(
            f"a shape has no spaces; did you mean '{'x'.join(numbers)}'?", span=token.span, field="input"
        )
    if given:
        raise input_twice(token.span)
    if late:
        raise ExpressionError(f"{token.text} stands after a layer; the input comes first", span=token.span)


def _times(token: Token) -> int:
    """How often a repeat repeats."""
    count = token.text[7:]
    if not re.fullmatch("0*[1-9][0-9]*", count):
        raise ExpressionError(
            "repeat needs a count of at least 1, such as repeat:3", span=token.span, field="repeat", value=count
        )
    return integer(count, token.span)


def _repeat(items: list[LayerText | Wire], start: int, times: int, span: Span) -> None:
    """Write out what stands since `start` so many times. Raises `ResourceError` for an absurd number of layers."""
    if len(items) == start:
        raise ExpressionError("there is nothing between this repeat and its end", span=span)
    if start + (len(items) - start) * times > _MOST_ITEMS:
        raise ResourceError(
            f"this repeat makes the network longer than {_MOST_ITEMS:,} layers", span=span, field="repeat", value=times
        )
    items.extend(items[start:] * (times - 1))


def _name(text: str, span: Span) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise ExpressionError("a tensor's name is letters, digits, _, . and -, such as @skip", span=span, value=text)
    return text


def parse_text(text: str, name: str = "", *, on_command_line: bool = True) -> Program:
    """A program from one text.

    >>> [layer.kind.name for layer in parse_text("3x32x32 conv:16,k3,p1 relu").layers]
    ['conv', 'relu']
    """
    return parse(tokens_of(Source(text, name, on_command_line=on_command_line)))


def parse_network(text: str, *, input: Sequence[int] | None = None, batch: int | None = None) -> Network:
    """The network that a text of expressions means, on the input that stands first in it, or on this one.

    The input is sizes, (channels, *sizes) or (batch, channels, *sizes). Without any only `compose` can be asked. Raises
    `ExpressionError` with the place in the text, `LayerError` for a value that a layer cannot have.

    >>> network = parse_network("3x32x32 conv:16,k3,p1 @a relu add:@a")
    >>> [node.inputs for node in network.nodes]
    [('input',), ('0',), ('1', '0')]
    """
    network = parse_text(text).network(None if input is None else tuple(input), open_input=True)
    return network if batch is None else network.with_batch(batch)
