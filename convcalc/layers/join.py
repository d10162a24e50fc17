"""Joins: several tensors into one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, axis_of, integer, shape_text
from convcalc.layers.reshape import Moved
from convcalc.records import dataclass
from convcalc.tracing import product


def broadcast(one: Shape, other: Shape) -> Shape:
    """The shape that both grow to when axes of 1 are repeated, counted from the last, as PyTorch and NumPy do.

    >>> broadcast((2, 8, 5, 5), (2, 8, 1, 1))
    (2, 8, 5, 5)
    """
    rank = max(len(one), len(other))
    left, right = ((1,) * (rank - len(shape)) + shape for shape in (one, other))
    clashes = [axis for axis, (a, b) in enumerate(zip(left, right, strict=True)) if a != b and 1 not in (a, b)]
    if clashes:
        said = 0 if clashes == [0] and len(one) == len(other) else 1  # the batch too where that is what differs
        raise ShapeError(
            f"{shape_text(one[said:])} and {shape_text(other[said:])} do not match: from the last axis on, sizes must"
            " be the same or 1",
            value=other,
        )
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


@dataclass(frozen=True, eq=False, repr=False)
class _Elementwise(Layer):
    """Two or more inputs, element by element, one after the other."""

    inputs = (2, None)

    def _steps(self, inputs: Sequence[Shape]) -> Iterator[Shape]:
        """The shape after each further input."""
        shape = inputs[0]
        for other in inputs[1:]:
            shape = broadcast(shape, other)
            yield shape

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape that all grow to. Raises `ShapeError` when they do not match."""
        *_, last = self._steps(inputs)
        return (last,)

    def _repeats(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """What it takes to add the gradient up where inputs were repeated."""
        return sum(product(outputs[0]) - product(shape) for shape in inputs)


class Add(_Elementwise):
    """The sum of two or more tensors, broadcast as PyTorch does; the current one comes first: `add:@a`.

    >>> Add().infer((1, 8, 5, 5), (1, 8, 1, 1))
    ((1, 8, 5, 5),)
    """

    kind = "add"

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One addition an element for each input after the first."""
        return Cost(additions=sum(product(shape) for shape in self._steps(inputs)))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """The gradient of every input is the output's, added up where the input was repeated."""
        return {"input": Cost(additions=self._repeats(inputs, outputs))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Nothing."""
        return ()


class Mul(_Elementwise):
    """The product of two or more tensors, broadcast as PyTorch does; the current one comes first: `mul:@a`.

    >>> Mul().infer((1, 8, 5, 5), (1, 8, 1, 1))
    ((1, 8, 5, 5),)
    """

    kind = "mul"

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """One multiplication an element for each input after the first; nothing is summed, so 0 MACs."""
        return Cost(multiplications=sum(product(shape) for shape in self._steps(inputs)))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Two products an element for each step, one for each factor, added up where a factor was repeated."""
        multiplications = additions = 0
        before = inputs[0]
        for after, other in zip(self._steps(inputs), inputs[1:], strict=True):
            multiplications += 2 * product(after)
            additions += 2 * product(after) - product(before) - product(other)
            before = after
        return {"input": Cost(0, multiplications, additions)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Every input, and the products on the way to the last."""
        return self.saved_for(inputs, outputs, [True] * len(inputs))

    def saved_for(self, inputs: Sequence[Shape], outputs: Sequence[Shape], needed: Sequence[bool]) -> Sequence[Saved]:
        """Of each product the factor that the other one's gradient is multiplied by, where that is needed."""
        kept: list[Saved] = []
        before: Saved = "input0"
        owed = needed[0]
        for index, shape in enumerate(self._steps(inputs), 1):
            kept += [f"input{index}"] * owed + [before] * needed[index]
            before, owed = (shape, None), owed or needed[index]
        return tuple(kept)


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Moved):
    """Two or more tensors one after the other along dim, as torch.cat; the current one comes first: `concat:@a`.

    dim counts the batch.

    >>> Concat().infer((1, 8, 5, 5), (1, 4, 5, 5))
    ((1, 12, 5, 5),)
    """

    kind = "concat"
    inputs = (2, None)
    dim: int = 1

    def __post_init__(self) -> None:
        integer("dim", self.dim)

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shapes with dim added up. Raises `ShapeError` when another axis differs."""
        first = inputs[0]
        axis = axis_of("dim", self.dim, first)
        for other in inputs[1:]:
            if len(other) != len(first):
                raise ShapeError(
                    f"{shape_text(first[1:])} and {shape_text(other[1:])} have different numbers of axes", value=other
                )
            if (*other[:axis], *other[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]):
                raise ShapeError(
                    f"{shape_text(first[1:])} and {shape_text(other[1:])} differ in another axis than dim {self.dim}",
                    value=other,
                )
        return ((*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :]),)
