"""`LAYERS`, the table of every kind of layer, and the way to its class.

The table names modules and classes without importing them: a family is loaded when one of its kinds is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from convcalc.layers.base import Layer

__all__ = ["LAYERS", "Kind", "find_kind", "kind_of"]


class Kind:
    """One line of the table: what a kind is called in expressions, and which class it is.

    `classes` are the names of the class for 1, 2 and 3 axes, or the one name of a class of any rank. `main` is the
    field that a first bare value gives. `keys` are the short keys, `flags` the words that stand for a field and its
    value. `aliases` are other names; PyTorch's class names in lower case need not be listed.
    """

    __slots__ = ("aliases", "classes", "flags", "keys", "main", "module", "name")

    def __init__(
        self,
        name: str,
        classes: str | tuple[str, str, str],
        module: str,
        main: str | None = None,
        keys: dict[str, str] | None = None,
        flags: dict[str, tuple[str, object]] | None = None,
        aliases: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.classes = classes
        self.module = module
        self.main = main
        self.keys = keys or {}
        self.flags = flags or {}
        self.aliases = aliases

    @property
    def ranked(self) -> bool:
        """Whether there is a class for each number of spatial axes."""
        return isinstance(self.classes, tuple)

    def layer_class(self, rank: int | None = None) -> type[Layer]:
        """The class, for so many spatial axes where there is one for each. Imports its family."""
        from importlib import import_module

        name = self.classes if isinstance(self.classes, str) else self.classes[(rank or 2) - 1]
        return cast("type[Layer]", getattr(import_module(f"convcalc.layers.{self.module}"), name))

    def names(self) -> Iterator[str]:
        """Every spelling that finds this kind, in lower case."""
        yield self.name
        yield from self.aliases
        if isinstance(self.classes, tuple):
            for stem in (self.name, *self.aliases):
                for rank in (1, 2, 3):
                    yield f"{stem}{rank}d"
            yield from (name.lower() for name in self.classes)
            yield self.classes[0][:-2].lower()
        else:
            yield self.classes.lower()


def _ranks(stem: str) -> tuple[str, str, str]:
    return f"{stem}1d", f"{stem}2d", f"{stem}3d"


_WINDOW = {"k": "kernel_size", "s": "stride", "p": "padding"}
_CONV = {**_WINDOW, "d": "dilation", "g": "groups", "c": "out_channels", "i": "in_channels"}
_NO_BIAS: dict[str, tuple[str, object]] = {"nobias": ("bias", False)}
_CONV_FLAGS: dict[str, tuple[str, object]] = {**_NO_BIAS, "depthwise": ("groups", "depthwise")}
_PADDING_FLAGS: dict[str, tuple[str, object]] = {
    f"p{word}": ("padding", word) for word in ("same", "same_upper", "same_lower", "valid", "causal", "full")
}
_CEIL: dict[str, tuple[str, object]] = {"ceil": ("ceil_mode", True)}

LAYERS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("conv", _ranks("Conv"), "conv", "out_channels", _CONV, {**_CONV_FLAGS, **_PADDING_FLAGS},
             ("lazyconv",)),
        Kind("convt", _ranks("ConvTranspose"), "conv", "out_channels",
             {**_CONV, "op": "output_padding", "os": "output_size"}, _CONV_FLAGS, ("lazyconvtranspose",)),
        Kind("maxpool", _ranks("MaxPool"), "pool", "kernel_size", {**_WINDOW, "d": "dilation"},
             {**_CEIL, "indices": ("return_indices", True)}),
        Kind("avgpool", _ranks("AvgPool"), "pool", "kernel_size", _WINDOW,
             {**_CEIL, "nopad": ("count_include_pad", False)}),
        Kind("linear", "Linear", "linear", "out_features", {"c": "out_features", "i": "in_features"}, _NO_BIAS,
             ("lazylinear",)),
        Kind("flatten", "Flatten", "reshape", "start_dim"),
        Kind("relu", "ReLU", "activation", flags={"inplace": ("inplace", True)}),
    )
}  # fmt: skip
"""Every kind of layer by its name in expressions."""

_names: dict[str, Kind] = {}


def find_kind(word: str) -> tuple[Kind, int | None] | None:
    """The kind that a word names, and the rank that it fixes, or None for no kind.

    >>> kind, rank = find_kind("nn.ConvTranspose2d")
    >>> kind.name, rank
    ('convt', 2)
    """
    if not _names:
        for kind in LAYERS.values():
            for name in kind.names():
                _names.setdefault(name, kind)
    name = word.removeprefix("torch.").removeprefix("nn.").lower()
    found = _names.get(name)
    if found is None:
        return None
    ranked = re.search(r"([123])d$", name)
    return found, int(ranked[1]) if ranked and found.ranked else None


def kind_of(layer: Layer) -> Kind:
    """The table's line for a layer."""
    return LAYERS[layer.kind]
