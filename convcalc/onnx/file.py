"""An ONNX file as a network, or as a program that becomes one when its inputs have shapes."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from convcalc.errors import ShapeError, Span, UnsupportedOpError
from convcalc.expressions.program import Program
from convcalc.network import Network, input_twice
from convcalc.onnx.inputs import GivenShapes
from convcalc.onnx.messages import read_model
from convcalc.onnx.reader import Reader
from convcalc.onnx.wire import FileName


def read_onnx(
    source: FileName | bytes,
    name: str = "",
    *,
    given: GivenShapes | None = None,
    batch: int | None = None,
    path: FileName | None = None,
) -> Network:
    """The network in an ONNX file.

    `given` are the shapes of inputs whose sizes the file leaves open, `batch` is the first axis of all; `path` is
    where bytes belong: beside it are weights that are in files of their own. Raises
    `ModelFileError` for what is wrong with the file, `ShapeError` for sizes that stay open or do not fit.
    """
    return Reader(read_model(source, name, path), given or {}, batch).network()


class OnnxModel(Program):
    """An ONNX file as a program: it becomes a `Network` when its inputs have shapes."""

    names_inputs = True
    tells_types = True

    def __init__(
        self,
        source: FileName | bytes,
        name: str,
        given: tuple[int, ...] | None = None,
        input_span: Span | None = None,
    ) -> None:
        self.model = read_model(source, name)
        self.given = given
        self.input_span = input_span

    @property
    def items(self) -> Sequence[Any]:  # type: ignore[override]  # a file has none
        """Raises `UnsupportedOpError`: a file holds no expressions that could be run."""
        raise UnsupportedOpError(f"{self.model.file.name} is an ONNX file, which run does not compute yet")

    def sample_axes(self) -> None:
        """None: a file says itself what its axes are."""

    def refuse_unbatched(self, names: Container[str]) -> None:
        """Raise `ShapeError` where the file says that an input has no axis of samples in front, as others have."""
        assert self.model.graph is not None
        told = {info.name: info.shape for info in self.model.graph.inputs if info.name in names}
        any_number = [name for name, shape in told.items() if shape and not isinstance(shape[0], int)]
        for name, shape in told.items():
            size = shape[0] if shape else 1
            if shape == () or (any_number and isinstance(size, int) and size > 1):
                first = f"{size} in front, however many samples there are of {any_number[0]}" if shape else "one number"
                raise ShapeError(
                    f"the input {name} is {first}; batches need an axis of samples in front of every input",
                    field="input",
                    value=name,
                )

    def named_network(self, given: GivenShapes, batch: int | None = None, *, open_input: bool = False) -> Network:
        """The network with these shapes of inputs by name ("" for the only one). Raises as `read_onnx` does."""
        if given and self.given is not None:
            raise input_twice(self.input_span)
        return Reader(self.model, given if self.given is None else {"": self.given}, batch).network()

    def network(self, shape: tuple[int, ...] | None = None, *, open_input: bool = False) -> Network:
        """The network with this shape of its only input."""
        return self.named_network({} if shape is None else {"": shape})
