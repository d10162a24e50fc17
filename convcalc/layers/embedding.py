"""Rows of a table for whole numbers, such as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, number, refused, whole
from convcalc.records import dataclass
from convcalc.tracing import product


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Layer):
    """For each whole number its row of a table: (N, *) -> (N, *, embedding_dim), `embedding:64,n1000`.

    Fields as PyTorch's Embedding. With max_norm longer rows are shortened to it when they are read, by the norm of the
    power norm_type; that changes the table, and is not counted.

    >>> Embedding(1000, 64).infer((1, 12))
    ((1, 12, 64),)
    """

    kind = "embedding"
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    def __post_init__(self) -> None:
        whole("num_embeddings", self.num_embeddings)
        whole("embedding_dim", self.embedding_dim)
        count = self.num_embeddings
        if self.padding_idx is not None and not -count <= whole("padding_idx", self.padding_idx, -count) < count:
            raise refused("padding_idx", self.padding_idx, f"from {-count} to {count - 1}")
        if self.max_norm is not None:
            number("max_norm", self.max_norm)
        number("norm_type", self.norm_type)
        for field in ("scale_grad_by_freq", "sparse"):
            flag(field, getattr(self, field))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape and embedding_dim after it."""
        return ((*inputs[0], self.embedding_dim),)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (num_embeddings, embedding_dim)."""
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Nothing: rows are copied."""
        return Cost()

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Each gradient of an output is added to its row; whole numbers have none."""
        return {"input": Cost(), "weight": Cost(additions=product(outputs[0]))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The whole numbers."""
        return ("input0",)
