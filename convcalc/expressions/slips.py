"""What was meant by what cannot be read. None of this is loaded for a text that can be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

from convcalc.errors import ExpressionError, Span, did_you_mean
from convcalc.expressions.layer_text import LayerText, field_names, is_main_apart
from convcalc.expressions.tokens import WIRING
from convcalc.layers import FILE_LAYERS, LAYERS, Kind, find_kind

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


def unknown_layer(text: str, span: Span, before: str = "") -> ExpressionError:
    """The error for a word that is no layer, with what was most likely meant; `before` is the word before it.

    >>> from convcalc.errors import Source
    >>> text = Source("conv8,k3")
    >>> unknown_layer(text.text, Span(text, 0, 8)).message
    "unknown layer conv8; did you mean 'conv:8,k3'?"
    """
    name = text if re.fullmatch(_SHAPE_SLIP, text) else re.split("[:(,]", text)[0] or text
    return ExpressionError(f"unknown layer {name}{_meant(text, name, before)}", span=span, value=name)


def _meant(text: str, name: str, before: str) -> str:
    if re.fullmatch(_SHAPE_SIGN, text):
        return "; a shape has no spaces: did you mean one such as '3x224x224'?"
    meant = shape_meant(text) or _argument_meant(text)
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


def shape_meant(text: str) -> str:
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


def _names_of(kind: Kind) -> tuple[str, ...]:
    return (*kind.keys, *field_names(kind.layer_class()), "name")


def refuse_argument(layer: LayerText, text: str, key: str, span: Span) -> NoReturn:
    """Raise `ExpressionError` for an argument that cannot be read; `key` are the letters before its value."""
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
