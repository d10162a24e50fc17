"""Attention with its projections, as PyTorch's MultiheadAttention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, number, refused, shape_text, whole
from convcalc.layers.matmul import Attention
from convcalc.records import dataclass
from convcalc.tracing import product


@dataclass(frozen=True, eq=False, repr=False)
class MultiheadAttention(Layer):
    """Queries, keys and values projected, `Attention` by heads, and what comes of it projected again.

    (length, N, embed_dim), or with batch_first (N, length, embed_dim), three times; one alone is queries, keys and
    values: `mha:64,h8`, or `mha:64,h8,@k,@v`. Without a batch (length, embed_dim). A fourth input is a mask, added, or
    true where nothing is looked at. Dropout does nothing at inference. Fields as PyTorch's; keys of other sizes, and
    keys that are added, are refused.

    >>> MultiheadAttention(64, 8).infer((10, 1, 64), (20, 1, 64), (20, 1, 64))
    ((10, 1, 64),)
    """

    kind = "multiheadattention"
    inputs = (1, 4)
    embed_dim: int
    num_heads: int
    dropout: float = 0.0
    bias: bool = True
    add_bias_kv: bool = False
    add_zero_attn: bool = False
    kdim: int | None = None
    vdim: int | None = None
    batch_first: bool = False

    def __post_init__(self) -> None:
        whole("embed_dim", self.embed_dim)
        whole("num_heads", self.num_heads)
        number("dropout", self.dropout)
        flag("bias", self.bias)
        flag("batch_first", self.batch_first)
        for field in ("add_bias_kv", "add_zero_attn"):
            if flag(field, getattr(self, field)):
                raise refused(field, True, "false: keys that are added are not known here")
        for field in ("kdim", "vdim"):
            if getattr(self, field) not in (None, self.embed_dim):
                raise refused(field, getattr(self, field), f"embed_dim ({self.embed_dim}): others are not known here")
        if self.embed_dim % self.num_heads:
            raise refused("num_heads", self.num_heads, f"a divisor of embed_dim {self.embed_dim}")

    def attention(self) -> Attention:
        """The attention between the projections, which takes (N, length, embed_dim)."""
        return Attention(self.num_heads, self.num_heads)

    def by_batch(self, inputs: Sequence[Shape]) -> tuple[Shape, Shape, Shape]:
        """Queries, keys and values as (N, length, embed_dim). Raises `ShapeError` for other features."""
        three = (inputs[0],) * 3 if len(inputs) == 1 else tuple(inputs[:3])
        for shape in three:
            if len(shape) != 3 or shape[2] != self.embed_dim:
                raise ShapeError(
                    f"needs steps and {self.embed_dim} features, and a batch beside them if there is one, but"
                    f" {shape_text(shape[1:]) or 'a scalar'} came in",
                    field="embed_dim",
                    value=shape,
                )
        turned = [shape if self.batch_first else (shape[1], shape[0], shape[2]) for shape in three]
        return turned[0], turned[1], turned[2]

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape of the queries."""
        three = self.by_batch(inputs)
        self.attention().infer(*three)
        return (inputs[0],)

    def parameters(self) -> Mapping[str, Shape]:
        """in_proj_weight (3·embed_dim, embed_dim), in_proj_bias, and the weight and bias of out_proj."""
        size = self.embed_dim
        if not self.bias:
            return {"in_proj_weight": (3 * size, size), "out_proj.weight": (size, size)}
        return {
            "in_proj_weight": (3 * size, size), "in_proj_bias": (3 * size,),
            "out_proj.weight": (size, size), "out_proj.bias": (size,),
        }  # fmt: skip

    def _rows(self, inputs: Sequence[Shape]) -> int:
        """How many vectors are projected: queries twice, keys and values once."""
        query, key, value = (product(shape[:2]) for shape in self.by_batch(inputs))
        return int(2 * query + key + value)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Four linear layers, and the attention."""
        rows = self._rows(inputs)
        macs = F.linear_macs(rows, self.embed_dim, self.embed_dim)
        elements = rows * self.embed_dim
        linear = Cost(macs, macs, F.sum_additions(macs, elements) + elements * self.bias)
        three = self.by_batch(inputs)
        return linear + self.attention().cost(three, self.attention().infer(*three))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Of each linear layer two products of the forward's size, and the attention's."""
        rows, size = self._rows(inputs), self.embed_dim
        macs = F.linear_macs(rows, size, size)
        three = self.by_batch(inputs)
        attended = self.attention().backward(three, self.attention().infer(*three))["input"]
        gradients = {"input": Cost(macs, macs, F.sum_additions(macs, rows * size)) + attended}
        last = product(three[0][:2])
        for name, count, outputs_of in (("in_proj_", rows - last, 3 * size), ("out_proj.", last, size)):
            macs = F.linear_macs(count, size, size)
            gradients[f"{name}weight"] = Cost(macs, macs, F.sum_additions(macs, size * outputs_of))
            if self.bias:
                gradients[f"{name}bias"] = Cost(additions=F.sum_additions(count * size, outputs_of))
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """What comes in, the weights, what the attention keeps, and what is projected at last."""
        query, key, value = self.by_batch(inputs)
        scores = (query[0], self.num_heads, query[1], key[1])
        came = tuple(f"input{place}" for place in range(min(len(inputs), 3)))
        return (*came, "in_proj_weight", "out_proj.weight", (query, None), (key, None), (value, None), (scores, None),
                (query, None))  # fmt: skip
