"""An op that is known by name only."""

from __future__ import annotations

from collections.abc import Mapping

from convcalc.errors import UnsupportedOpError
from convcalc.layers.base import Layer, Shape
from convcalc.records import dataclass, field


@dataclass(frozen=True, eq=False, repr=False)
class Opaque(Layer):
    """A module or op of which nothing but its name and text is known: what it gives and costs is unknown, never 0.

    `owns` says whether it may have parameters that are not known, `owned` are those that are. `shapes` and `dtypes` are
    those of its outputs where a file tells them. `reason` says what is not known about it, if it is not its name.
    It is in no table: no expression makes one.
    """

    kind = "unknown"
    inputs = (0, None)
    name: str
    text: str
    owns: bool = True
    shapes: tuple[Shape, ...] = ()
    dtypes: tuple[str, ...] = ()
    owned: Mapping[str, Shape] = field(default_factory=dict)
    reason: str = ""

    @property
    def unknown(self) -> str:
        """Why its costs are unknown."""
        return self.reason or f"{self.name} is not known"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shapes that were told. Raises `UnsupportedOpError` without them."""
        if self.shapes:
            return self.shapes
        raise UnsupportedOpError(f"{self.name} is not known, so neither is the shape that it gives", value=self.name)

    def parameters(self) -> Mapping[str, Shape]:
        """Those that are known. Raises `UnsupportedOpError` when there may be others."""
        if self.owns:
            raise UnsupportedOpError(f"{self.name} is not known, so neither are its parameters", value=self.name)
        return self.owned

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The types that were told."""
        return self.dtypes or (dtype,)
