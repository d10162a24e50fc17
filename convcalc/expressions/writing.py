"""Layers back to text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from convcalc.errors import LayerError
from convcalc.expressions.layer_text import field_names, required_fields
from convcalc.layers import FILE_LAYERS, LAYERS, kind_of
from convcalc.layers.base import Layer, text_of
from convcalc.records import REQUIRED, parameters_of


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
