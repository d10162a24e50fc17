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

`parse` gives a `Program`, whose `network` method fixes the rank and makes the layers; `expression_of` writes one back.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

from convcalc.errors import ConvcalcError, ExpressionError, LayerError, ResourceError, Source, Span, did_you_mean
from convcalc.layers import FILE_LAYERS, LAYERS, SEQUENCES, Kind, find_kind, kind_of
from convcalc.layers.base import Layer, shape_text, text_of
from convcalc.network import Input, Network, Node, input_twice, no_input, on_hidden_batch, tensor_names
from convcalc.records import REQUIRED, parameters_of

_OPENING, _CLOSING = "([{", ")]}"
# Patterns are compiled when they are used: all of them take as long as a short answer's layers.
_INTEGER = r"[+-]?[0-9]+$"
_FLOAT = r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]+)?$|[+-]?inf$"
_AXIS = r"(?P<before>[+-]?[0-9]+)\+(?P<after>[+-]?[0-9]+)$|none$|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SHAPE_SLIP = r"(torch\.Size\()?[(\[]?\s*[0-9]+(\s*[xX×*,\s]\s*[0-9]+)+\s*[)\]]*[,:]?"
_SHAPE_SIGN = r"[xX×*]"
_MAIN_SLIP = r"([A-Za-z_]+?)=?([0-9]+(?:x[0-9]+)*(?:,.*)?)"
_KERNEL_SLIP = r"([A-Za-z_]+)([0-9]+x[0-9]+)(?::(.+))?"
"""What people write for an input, for the main size of a kind and for its kernel, when they slip."""
_OTHER_NAMES = {
    "dense": "linear", "fc": "linear", "fullyconnected": "linear", "convolution": "conv", "dwconv": "conv:depthwise",
    "depthwise": "conv:depthwise", "depthwiseconv": "conv:depthwise", "pointwise": "conv:k1", "deconv": "convt",
    "upconv": "convt", "transposedconv": "convt", "pool": "maxpool' or 'avgpool", "averagepool": "avgpool",
    "globalpool": "globalavgpool", "norm": "batchnorm", "interpolate": "upsample", "resize": "upsample",
    "sum": "add", "plus": "add", "multiply": "mul", "merge": "concat", "lrelu": "leakyrelu", "activation": "relu",
    "skip": "add:@name", "residual": "add:@name", "shortcut": "add:@name", "padding": "pad", "softmax1d": "softmax",
}  # fmt: skip
"""What other programs and people call a layer."""
_DESIGN_SPACE = r"[0-9](/|\.\.)[0-9]"
_CONSTANTS = {"true": True, "false": False, "none": None}
_IGNORED_FIELDS = ("device", "dtype")
_MOST_DIGITS = 300
"""Digits of a number that is read."""
WIRING = ("from", "repeat", "end")
_MOST_ITEMS = 100_000
"""Layers that repeats may grow to: a slip of the finger is not to fill the memory."""


# --- tokens ---------------------------------------------------------------------------------------------------------


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


def is_input(text: str) -> bool:
    """Whether a token is the shape of an input: digits with x, / and .. only."""
    return "0" <= text[:1] <= "9" and not text.strip("0123456789x/.")


def is_expression(text: str) -> bool:
    """Whether a token is a layer or wiring, by its spelling alone."""
    if text.startswith("@"):
        return True
    word = text.partition(":")[0].partition("(")[0].partition(",")[0]
    return word in (*WIRING, "input") or find_kind(word) is not None


# --- values ---------------------------------------------------------------------------------------------------------


def integer(text: str, span: Span | None) -> int:
    """An int from its digits. Raises `ExpressionError` for one that is absurdly long."""
    if len(text) > _MOST_DIGITS:
        raise ExpressionError(
            f"a number has {len(text):,} digits; {_MOST_DIGITS} are the most that are read", span=span
        )
    return int(text)


def value_of(text: str, span: Span) -> Any:
    """The value that a text stands for: a number, sizes, pairs, true, false, none, or a word."""
    if re.match(_INTEGER, text):
        return integer(text, span)
    if re.match(_FLOAT, text):
        return float(text)
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
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
    return None if match[0] == "none" else integer(match[0], span) if re.match(_INTEGER, match[0]) else float(match[0])


def shape_of(text: str, span: Span | None) -> tuple[int, ...]:
    """The numbers of an input's shape."""
    if "/" in text or ".." in text:
        raise ExpressionError(
            f"{text} is a set or a range of designs, which is not there yet; give one shape, such as 3x224x224",
            span=span,
            value=text,
        )
    numbers = text.split("x")
    if not all(re.fullmatch(r"[0-9]+", number) for number in numbers):
        meant = f"; did you mean '{_shape_meant(text)}'?" if _shape_meant(text) else "; write one such as 3x224x224"
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
    if re.match(_INTEGER, text):
        return integer(text, span)
    if re.match(_FLOAT, text):
        return float(text)
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    quoted = re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", text)
    if quoted:
        return quoted[1] or quoted[2] or ""
    if re.fullmatch(r"[A-Za-z_][\w.-]*", text):
        return text
    raise ExpressionError(f"{text or 'nothing'} is no value; write a number, a tuple or a word", span=span, value=text)


# --- layers ---------------------------------------------------------------------------------------------------------


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


def unknown_layer(text: str, span: Span, before: str = "") -> ExpressionError:
    """The error for a word that is no layer, with what was most likely meant; `before` is the word before it.

    >>> text = Source("conv8,k3")
    >>> unknown_layer(text.text, Span(text, 0, 8)).message
    "unknown layer conv8; did you mean 'conv:8,k3'?"
    """
    name = text if re.fullmatch(_SHAPE_SLIP, text) else re.split("[:(,]", text)[0] or text
    return ExpressionError(f"unknown layer {name}{_meant(text, name, before)}", span=span, value=name)


def _meant(text: str, name: str, before: str) -> str:
    if re.fullmatch(_SHAPE_SIGN, text):
        return "; a shape has no spaces: did you mean one such as '3x224x224'?"
    meant = _shape_meant(text) or _argument_meant(text)
    if meant:
        return f"; did you mean '{meant}'?"
    found = find_kind(before.partition(":")[0].rstrip(","))
    if found and (
        name in found[0].flags
        or name.rstrip("0123456789x+=") in _names_of(found[0])
        or is_main_apart(text, before)
    ):  # fmt: skip
        return f"; did you mean '{before.rstrip(',')}{',' if ':' in before else ':'}{text}', without a space?"
    bare = name.removeprefix("torch.").removeprefix("nn.")
    known = [*LAYERS, *(alias for kind in LAYERS.values() for alias in kind.names()), *WIRING]
    return other_name(bare) or did_you_mean(bare, known)


def other_name(word: str) -> str:
    """What is said of a word by which others call a layer, or which only ONNX files have; "" of any other."""
    name = word.lower().replace("_", "")
    if name in FILE_LAYERS:
        return "; it is read in ONNX files only"
    return f"; did you mean '{_OTHER_NAMES[name]}'?" if name in _OTHER_NAMES else ""


def _shape_meant(text: str) -> str:
    """The shape that was meant by (3, 224, 224) and the like, if one was."""
    return "x".join(re.findall("[0-9]+", text)) if re.fullmatch(_SHAPE_SLIP, text) else ""


def _argument_meant(text: str) -> str:
    """The layer that was meant by conv64 or conv3x3:64, if one was."""
    kernel = re.fullmatch(_KERNEL_SLIP, text)
    found = find_kind(kernel[1]) if kernel else None
    if kernel and found and "k" in found[0].keys:
        return f"{kernel[1]}:{kernel[3] + ',' if kernel[3] else ''}k{kernel[2]}"
    main = re.fullmatch(_MAIN_SLIP, text)
    return f"{main[1]}:{main[2]}" if main and find_kind(main[1]) else ""


def is_main_apart(text: str, before: str) -> bool:
    """Whether a number is the main size of the layer before it, which has none: conv 64."""
    found = find_kind(before)
    return text.isdecimal() and found is not None and found[0].main is not None


def _names_of(kind: Kind) -> tuple[str, ...]:
    return (*kind.keys, *field_names(kind.layer_class()), "name")


def parse_layer(token: Token, before: str = "") -> LayerText:
    """One layer from its token; `before` is the text of the one before it.

    Raises `ExpressionError` at the part that is wrong.
    """
    text = token.text.rstrip(",")
    word = re.match(r"[A-Za-z_][\w.]*", text)
    found = find_kind(word[0]) if word else None
    if word is None or found is None:
        raise unknown_layer(text, token.span, before)
    layer = LayerText(*found, token.span)
    rest = text[word.end() :]
    if rest.startswith("("):
        if not rest.endswith(")"):
            raise ExpressionError(f"{word[0]}( is not closed", span=token.span)
        _parse_call(layer, token, word.end() + 1, len(text) - 1)
    elif rest.startswith(":"):
        _parse_arguments(layer, token, word.end() + 1, len(text))
    elif rest:
        raise ExpressionError(
            f"{rest} does not belong after {word[0]}; arguments follow a colon, {word[0]}:...",
            span=token.part(word.end(), len(text)),
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
            letters = re.match(r"[A-Za-z_]*", text)
            key = letters[0] if letters else ""
            if key in kind.keys and len(text) > len(key):
                layer.give(kind.keys[key], value_of(text[len(key) :], span), span)
            elif index == 0 and kind.main is not None and (not key or text.lower() in _CONSTANTS):
                layer.give(kind.main, value_of(text, span), span)
            else:
                _refuse_argument(layer, text, key, span)


def _refuse_argument(layer: LayerText, text: str, key: str, span: Span) -> None:
    kind = layer.kind
    fields = field_names(kind.layer_class())
    if not text:
        raise ExpressionError(f"an argument of {kind.name} is empty", span=span)
    if not key:
        where = f"{kind.main} comes first" if kind.main else f"{kind.name} takes none"
        raise ExpressionError(f"{text} has no key; only one bare value is read, and {where}", span=span, value=text)
    if key in kind.keys:
        raise ExpressionError(f"{key} needs a value, such as {key}2", span=span, value=text)
    if text in fields:
        raise ExpressionError(f"{text} needs a value, such as {text}=2", span=span, value=text)
    if key.lower() in kind.keys or text.lower() in kind.flags:
        raise ExpressionError(
            f"unknown key {text} for {kind.name}; did you mean '{text.lower()}'?", span=span, value=text
        )
    slip = re.fullmatch(r"([A-Za-z_]+)([0-9].*)", text)
    if slip and slip[1] in fields:
        raise ExpressionError(
            f"unknown key {text} for {kind.name}; did you mean '{slip[1]}={slip[2]}'?", span=span, value=text
        )
    raise unknown_key(kind, text, span, [*fields, *kind.keys, *kind.flags, "name"])


def unknown_key(kind: Kind, key: str, span: Span, known: Iterable[str]) -> ExpressionError:
    """The error for an argument that a kind does not have."""
    return ExpressionError(f"unknown key {key} for {kind.name}{did_you_mean(key, known)}", span=span, value=key)


def refuse_unknown(layer: LayerText, field: str, span: Span) -> None:
    """Raise `ExpressionError` for a field that the kind does not have."""
    fields = field_names(layer.kind.layer_class(layer.rank))
    if field not in fields and field != "name":
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


# --- programs -------------------------------------------------------------------------------------------------------


class Wire:
    """Wiring as it was written: "@" names the current tensor, "from" goes back to one."""

    __slots__ = ("label", "span", "what")

    def __init__(self, what: str, label: str, span: Span) -> None:
        self.what = what
        self.label = label
        self.span = span


ONE_CHANNEL = "the input is read as sizes with one channel"
"""The note on an input without channels."""


_CHANNELS_LAST = "the input {0} is read as {2} channels of {1}; channels come first, as in {4}x{2}x{3}"


def _ends_in_channels(shape: Sequence[int]) -> bool:
    """Whether an image's channels seem to come last: 224x224x3."""
    return len(shape) == 4 and shape[1] == shape[2] > shape[3] and shape[3] in (1, 3, 4) and shape[1] >= 16


class Program:
    """Parsed expressions: layers and wiring in order, and the input if the text has one."""

    names_inputs = False
    """Whether inputs have names of their own, so that --input can give several."""

    usual: tuple[int, ...] | None = None
    """The input of a file that gave way to the given one."""

    def __init__(self, items: Sequence[LayerText | Wire], given: tuple[int, ...] | None, span: Span | None) -> None:
        self.items = items
        self.given = given
        self.input_span = span

    @property
    def layers(self) -> list[LayerText]:
        """The layers without the wiring."""
        return [item for item in self.items if isinstance(item, LayerText)]

    @property
    def gives_way(self) -> bool:
        """Whether the input may be another one: there is none, or it is a file's, which the command line's replaces."""
        return self.given is None or (self.input_span is not None and not self.input_span.source.on_command_line)

    def network(self, shape: tuple[int, ...] | None = None, *, open_input: bool = False) -> Network:
        """The network on the input of the text, or on `shape`, which takes the place of a file's but for the channels
        if it has none.

        Raises `ExpressionError` for both on the command line, and for none unless `open_input`: then the network has no
        inputs, and only its geometry can be asked for.
        """
        given, usual = self.given, self.usual
        if shape is not None:
            if not self.gives_way:
                raise input_twice(self.input_span)
            given, usual = shape, self.given
        notes: tuple[str, ...] = ()
        if given is not None:
            rank, read = self.read_input(given)
            if not read.channels_given and (channels := self._usual_channels(usual)):
                read = Input((1, channels, *read.shape[2:]), batch_given=False)
            inputs = {"input": read}
            if not read.channels_given:
                notes = (ONE_CHANNEL,)
            elif _ends_in_channels(read.shape):
                notes = (_CHANNELS_LAST.format(shape_text(read.shape[1:]), text_of(read.shape[2:]), *read.shape[1:]),)
        elif open_input:
            rank, inputs = self.rank() or 2, {}
        else:
            raise no_input()
        return self.wired(rank, inputs, notes)

    def _usual_channels(self, usual: tuple[int, ...] | None) -> int | None:
        """The channels of an input that is sizes alone, where the file's usual one or the first layer says them."""
        if usual is not None:
            read = self.read_input(usual)[1]
            return read.shape[1] if read.channels_given else None
        channels = self.layers[0].fields.get("in_channels") if self.layers else None
        return channels if isinstance(channels, int) and channels > 1 else None

    def wired(self, rank: int, inputs: Mapping[str, Input], notes: tuple[str, ...]) -> Network:
        """The network on these inputs. Raises the errors of layers and of wiring."""
        wiring = _Wiring(rank, hidden=any(not given.batch_given for given in inputs.values()))
        for item in self.items:
            wiring.take(item)
        return Network(inputs, tuple(wiring.nodes), (wiring.current,), (*notes, *wiring.notes()))

    def assume_sequential(self) -> None:
        """Raise `ExpressionError`: only what PyTorch prints leaves open how it is wired."""
        raise ExpressionError("--assume-sequential has a meaning for the text that PyTorch prints only")

    def say(self, texts: Sequence[str]) -> None:
        """Raise `ExpressionError` where something is said: only what PyTorch prints leaves out fields of layers."""
        if texts:
            raise ExpressionError("--unprinted has a meaning for the text that PyTorch prints only")

    def rank(self) -> int | None:
        """The rank that the first layer of fixed rank decides, if any."""
        return next((item.implied_rank for item in self.layers if item.implied_rank is not None), None)

    def sample_axes(self) -> int | None:
        """How many axes a sequence has that comes in, or None where no layer is over sequences."""
        return next((SEQUENCES[item.kind.name] for item in self.layers if item.kind.name in SEQUENCES), None)

    def read_input(self, given: tuple[int, ...]) -> tuple[int, Input]:
        """The rank and the input that these numbers mean for these layers."""
        ranked = any(item.kind.ranked for item in self.layers)
        rank = self.rank()
        count = len(given)
        if rank is None and not ranked:
            axes = self.sample_axes()
            if axes is not None:
                return 2, Input(given, batch_given=True) if count > axes else Input((1, *given), batch_given=False)
            if any(item.kind.name == "linear" for item in self.layers):
                return 2, Input((1, *given), batch_given=False)
            rank = max(count - 2, 2)
        elif rank is None:
            rank = 3 if count == 5 else 2
        if count == 1:
            given, count = given * rank, rank
        if count == rank:
            return rank, Input((1, 1, *given), batch_given=False, channels_given=False)
        if count == rank + 1:
            return rank, Input((1, *given), batch_given=False)
        if count == rank + 2:
            return rank, Input(given)
        what = f"the input has {count} numbers" if count else "the input is a number alone"
        raise ExpressionError(
            f"{what}, but layers over {rank} spatial axes take {rank} sizes,"
            f" {rank + 1} with channels, or {rank + 2} with channels and batch",
            span=self.input_span,
            field="input",
            value=given,
        )


class _Wiring:
    """Layers and wires taken one after the other: nodes over named tensors come of it."""

    def __init__(self, rank: int, *, hidden: bool) -> None:
        self.rank = rank
        self.hidden = hidden
        self.steps_first: list[str] = []
        self.nodes: list[Node] = []
        self.current = "input"
        self.tensors = {"input"}
        self.counts: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.used: set[str] = set()
        # A wire inside repeat is taken more than once and is one wire still.
        self.unused_wires: dict[Wire, None] = {}
        self.named: dict[str, LayerText] = {}
        self.same_names: list[str] = []
        self.wires: dict[str, Wire] = {}

    def take(self, item: LayerText | Wire) -> None:
        """One item. Raises `ExpressionError` at the part of it that is wrong."""
        if isinstance(item, LayerText):
            self._layer(item)
        elif item.what == "@":
            self.labels[item.label] = self.current
            if self.wires.get(item.label) is not item:
                self.unused_wires[item] = None
            self.wires[item.label] = item
        else:
            self.current = self._tensor(item.label, item.span)

    def _layer(self, item: LayerText) -> None:
        layer = item.layer(self.rank)
        if self.hidden:
            layer = on_hidden_batch(layer)
        elif not getattr(layer, "batch_first", True):
            self.steps_first.append(f"{item.name or len(self.nodes)} ({layer.kind})")
        inputs = (self.current, *(self._tensor(label, span) for label, span in item.links))
        _check_inputs(item, layer, len(inputs))
        name = wanted = item.name or str(len(self.nodes))
        # A layer inside repeat has its name once and is numbered; two layers of one name are a slip.
        same = item.name is not None and self.named.setdefault(item.name, item) is not item
        while not self.tensors.isdisjoint(outputs := tensor_names(name, layer)):
            self.counts[wanted] = self.counts.get(wanted, 0) + 1
            name = f"{wanted}.{self.counts[wanted]}"
        if same:
            self.same_names.append(f"two layers are named {wanted}; the second is {name}")
        self.tensors.update(outputs)
        self.used.update(inputs)
        spans = item.spans | {f"input{index}": span for index, (_, span) in enumerate(item.links, 1)}
        self.nodes.append(Node(name, layer, inputs, outputs, item.span, spans))
        self.current = outputs[0]

    def _tensor(self, label: str, span: Span) -> str:
        """The tensor that a label names; a.1 is the second output of the layer whose first is a."""
        owner = label
        tensor = self.labels.get(label)
        if tensor is None:
            owner, _, index = label.rpartition(".")
            further = f"{self.labels.get(owner)}.{index}"
            tensor = further if index.isdecimal() and any(further in node.outputs[1:] for node in self.nodes) else None
        if tensor is None:
            known = did_you_mean(label, self.labels) or "; name a tensor with @name before it is used"
            if label in self.named:
                known = f"; {label} is a layer: write @{label} after it to name what it gives"
            raise ExpressionError(f"no tensor is named @{label}{known}", span=span, value=label)
        self.unused_wires.pop(self.wires[owner], None)
        return tensor

    def notes(self) -> Iterator[str]:
        """What was named twice, or named or made and then not used, and where the batch does not come first."""
        yield from self.same_names
        yield from steps_before_batch(self.steps_first)
        for wire in self.unused_wires:
            yield f"@{wire.label} is never used"
        result = self.current
        made = {tensor: node for node in self.nodes for tensor in node.outputs}
        last = f"that of {made[result].name} ({made[result].layer.kind})" if result in made else "the input itself"
        for node in self.nodes:
            if result not in node.outputs and self.used.isdisjoint(node.outputs):
                yield f"the output of {node.name} ({node.layer.kind}) is never used; the network's output is {last}"


def steps_before_batch(layers: Sequence[str]) -> Iterator[str]:
    """The note on layers whose input has its batch second."""
    if layers:
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        yield f"layer {layers[0]}{more}: steps come first and the batch second, as in PyTorch without batch_first"


def _check_inputs(item: LayerText, layer: Layer, count: int) -> None:
    """Raise `ExpressionError` for fewer or more inputs than a layer takes."""
    least, most = layer.inputs
    if least <= count and (most is None or count <= most):
        return
    wanted = "one input" if most == 1 else f"at least {least} inputs" if most is None else f"{least} inputs"
    example = f"; name one with @a and write {item.kind.name}:@a" if count < least else ""
    span = item.links[most - 1][1] if most is not None and count > most else item.span
    raise ExpressionError(f"{item.kind.name} takes {wanted}, but {count} came in{example}", span=span)


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
        word = re.match(r"[a-z]+(?=[:,]|$)", text)
        if is_input(text) or text.startswith("input:"):
            shape = shape_of(text.removeprefix("input:"), token.span)
            if span is not None and span.source.on_command_line and not token.span.source.on_command_line:
                usual = shape
            else:
                _refuse_input(tokens, token, before, given=given is not None, late=bool(items))
                given, span = shape, token.span
        elif text.startswith("@"):
            items.append(Wire("@", _name(text[1:], token.span), token.span))
        elif word and word[0] == "from":
            items.append(Wire("from", _name(text[5:].removeprefix("@"), token.span), token.span))
        elif word and word[0] == "repeat":
            loops.append((len(items), _times(token), token.span))
        elif word and word[0] == "end":
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


# --- back to text ---------------------------------------------------------------------------------------------------


def expression_of(layer: Layer) -> str:
    """The expression of a layer: parsing it again gives an equal one.

    >>> from convcalc.layers.conv import Conv2d
    >>> expression_of(Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
    'conv2d:64,i3,k7,s2,p3,nobias'
    """
    kind = kind_of(layer)
    made: Any = type(layer)  # no class with a __hash__ of its own is hashable to mypy
    names, required, defaults, keys, flags = _spelling(made)
    plain = _normalised(made, defaults, tuple([(name, getattr(layer, name)) for name in required]))
    first, others = [], []
    for name in names:
        value = getattr(layer, name)
        if name in plain and value == plain[name]:
            continue
        text = _field_text(value, layer.rank)
        if kind.module == "pad" and name == "padding" and "x" in text:
            # Numbers without a + would be read in PyTorch's order, from the last axis on.
            text = "x".join(f"{before}+{after}" for before, after in value)
        if (name, value) in flags:
            others.append(flags[name, value])
        elif name == kind.main and not text[:1].isalpha():
            first.append(text)
        elif name in keys and text[:1].isdigit():
            others.append(keys[name] + text)
        else:
            others.append(f"{name}={text}")
    word = kind.name + (f"{layer.rank}d" if layer.rank and not isinstance(kind.classes, str) else "")
    arguments = ",".join(first + others)
    return f"{word}:{arguments}" if arguments else word


_Fields = tuple[tuple[str, Any], ...]
"""Names of fields, each with a value."""


@lru_cache
def _spelling(
    cls: type[Layer],
) -> tuple[tuple[str, ...], tuple[str, ...], _Fields, Mapping[str, str], Mapping[tuple[str, object], str]]:
    """Of a class its fields, those that decide the others' defaults, the defaults, and its kind's keys and flags."""
    kind = LAYERS.get(cls.kind) or FILE_LAYERS[cls.kind]
    defaults = {name: default for name, default in parameters_of(cls).items() if default is not REQUIRED}
    required = required_fields(cls)
    if "stride" in defaults and defaults["stride"] is None:  # then it is the kernel_size
        required = (*required, "kernel_size")
    keys = {field: key for key, field in kind.keys.items()}
    flags = {pair: word for word, pair in kind.flags.items()}
    return field_names(cls), required, tuple(defaults.items()), keys, flags


@lru_cache
def _normalised(cls: type[Layer], defaults: _Fields, required: _Fields) -> Mapping[str, Any]:
    """The defaults as they are in a layer made of what is required alone. Many layers of a network have the same."""
    try:
        plain = cls(**dict(required))
    except LayerError:
        # One of several fields has to be given, such as size or scale_factor; their defaults need no normalising.
        return dict(defaults)
    return {name: getattr(plain, name) for name, _ in defaults}


def _field_text(value: Any, rank: int | None) -> str:
    """A value for an expression; sizes that are the same on every axis once."""
    if isinstance(value, tuple) and value and all(isinstance(item, tuple) for item in value):
        texts = [f"{before}+{after}" if before != after else str(before) for before, after in value]
        return texts[0] if len(set(texts)) == 1 else "x".join(texts)
    if isinstance(value, tuple) and len(value) == rank and len(set(value)) == 1:
        return str(value[0])
    return text_of(value)
