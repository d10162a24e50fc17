"""A node as the function of its op sees it, and what that makes of it: a `Call` and a `Plan`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from convcalc.errors import ModelFileError, ShapeError, UnsupportedOpError
from convcalc.layers import FILE_LAYERS, LAYERS
from convcalc.layers.base import Layer, Pairs, Shape, refused, shape_text

if TYPE_CHECKING:
    from convcalc.onnx.known import Small


class Plan:
    """What a node becomes: its layer, the places of its inputs that are data, and those that are weights by name.

    `then` are layers that follow in a row; `dtypes` are the outputs' types where the layer's own rule does not hold.
    `lacking` says what its numbers hang on, where that is not known and its shapes do not.
    """

    __slots__ = ("data", "dtypes", "lacking", "layer", "then", "weights")

    def __init__(
        self,
        layer: Layer,
        data: Sequence[int] | None = None,
        weights: Mapping[str, int] | None = None,
        *,
        then: Sequence[Layer] = (),
        dtypes: Sequence[str] | None = None,
        lacking: str = "",
    ) -> None:
        self.layer = layer
        self.data = data
        self.weights = weights or {}
        self.then = then
        self.dtypes = dtypes
        self.lacking = lacking


class Call:
    """A node as its function sees it: attributes with their defaults, and the inputs' shapes and known values."""

    __slots__ = (
        "attributes", "constant", "dtypes", "inputs", "needed", "op", "opset", "outputs", "shapes", "small", "where",
    )  # fmt: skip

    def __init__(
        self,
        op: str,
        opset: int,
        where: str,
        attributes: Mapping[str, Any],
        inputs: Sequence[str],
        shapes: Sequence[Shape | None],
        dtypes: Sequence[str],
        outputs: Sequence[bool],
        small: Callable[[str], Small | None],
        needed: Callable[[str], Small | None],
        constant: Callable[[str], bool],
    ) -> None:
        self.op = op
        self.opset = opset
        self.where = where
        self.attributes = attributes
        self.inputs = inputs
        self.shapes = shapes
        self.dtypes = dtypes
        self.outputs = outputs
        self.small = small
        self.needed = needed
        self.constant = constant

    # --- attributes ---

    def _attribute(self, name: str, kind: type, what: str) -> Any:
        value = self.attributes.get(name)
        if value is not None and not isinstance(value, kind):
            raise ModelFileError(f"{self.where}: attribute {name} is no {what}")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is a whole number."""
        value = self._attribute(name, int, "whole number")
        return default if value is None else int(value)

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        value = self._attribute(name, float, "number")
        return default if value is None else shortest(value)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        value = self._attribute(name, bytes, "text")
        return default if value is None else value.decode("utf-8", "replace")

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is whole numbers, or None."""
        return self._listed(name, int)

    def numbers(self, name: str) -> list[float] | None:
        """An attribute that is numbers, or None."""
        found = self._listed(name, float)
        return None if found is None else [shortest(value) for value in found]

    def _listed(self, name: str, kind: type) -> list[Any] | None:
        value = self._attribute(name, list, "list")
        if value and set(map(type, value)) != {kind}:
            raise ModelFileError(f"{self.where}: attribute {name} is no list of {kind.__name__}s")
        return None if value is None else list(value)

    # --- inputs ---

    def has(self, place: int) -> bool:
        """Whether this input is given."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def shape(self, place: int = 0) -> Shape:
        """The shape of an input that must be there."""
        shape = self.shapes[place] if self.has(place) else None
        if shape is None:
            raise ModelFileError(f"{self.where}: input {place + 1} is missing")
        return shape

    def values(self, place: int, what: str) -> list[Any]:
        """The values of an input that must be known before the model runs."""
        self.shape(place)
        small = self.needed(self.inputs[place])
        if small is None:
            raise UnsupportedOpError(f"its {what} are computed while the model runs")
        return small.items

    def whole(self, place: int, what: str) -> list[int]:
        """The values of such an input that must be whole numbers."""
        found = self.values(place, what)
        if not all(isinstance(item, int) for item in found):
            raise ModelFileError(f"{self.where}: its {what} are no whole numbers")
        return found

    def scalar(self, place: int, what: str) -> int:
        """The value of such an input that must be one whole number."""
        found = self.whole(place, what)
        if len(found) != 1:
            raise ModelFileError(f"{self.where}: its {what} is {len(found)} numbers, but must be one")
        return found[0]

    def either(self, name: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in old opsets and an input in new ones."""
        return self.whole(place, name) if self.has(place) else self.integers(name)

    def given(self) -> list[int]:
        """The places of all inputs that are given."""
        return self.given_of(*range(len(self.inputs)))

    def given_of(self, *places: int) -> list[int]:
        """Those of these places whose inputs are given."""
        return [place for place in places if self.has(place)]

    def refuse(self, what: str) -> NoReturn:
        """Say that this form of the op has no layer."""
        raise UnsupportedOpError(f"{self.op} {what}, which convcalc does not know")


def shortest(value: float) -> float:
    """The number of the fewest digits that is the same in float32, where that is what a file holds.

    >>> shortest(9.999999747378752e-06), shortest(1 / 3), shortest(6.0)
    (1e-05, 0.3333333333333333, 6.0)
    """
    stored = struct.pack("<f", value) if abs(value) < _LARGEST else b""
    if not stored or struct.unpack("<f", stored)[0] != value:
        return float(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == stored:
            return short
    return float(value)


_LARGEST = 3e38
"""Larger numbers stay as they are: of fewer digits they might not be in float32's range."""

Op = Callable[[Call], "Layer | Plan"]


def class_of(kind: str, rank: int | None = None) -> Any:
    """The class of a kind, whose family is loaded now."""
    return (LAYERS.get(kind) or FILE_LAYERS[kind]).layer_class(rank)


def as_pairs(numbers: Sequence[int]) -> Pairs:
    """ONNX's pads, all befores and then all afters, as pairs.

    >>> as_pairs([1, 2, 3, 4])
    ((1, 3), (2, 4))
    """
    half, odd = divmod(len(numbers), 2)
    if odd:
        raise refused("pads", tuple(numbers), "an even number of them, all before and then all after")
    return tuple(zip(numbers[:half], numbers[half:], strict=True))


def axis_of(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < max(len(shape), 1):
        raise ShapeError(f"axis is {axis}, but the input {shape_text(shape)} has {len(shape)} axes", field="axis")
    return axis % max(len(shape), 1)


def plain(kind: str, *fields: Any) -> Op:
    """An op that is a layer without attributes."""
    return lambda _: class_of(kind)(*fields)
