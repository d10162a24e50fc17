"""Matrix products of tensors: plain, general, by Einstein's notation, attention, and with whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, choice, flag, number, refused, shape_text, whole
from convcalc.layers.join import broadcast
from convcalc.records import dataclass, replace
from convcalc.tracing import product


class _Products(Layer):
    """Layers whose cost is their dot products."""

    inputs: ClassVar[tuple[int, int | None]] = (2, 2)

    def macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """The multiply-accumulates of the forward pass."""
        raise NotImplementedError

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """A dot product for each output element."""
        macs = self.macs(inputs, outputs)
        return Cost(macs, macs, F.sum_additions(macs, product(outputs[0])) if macs else 0)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """A product of the forward's size for each of the factors."""
        macs = self.macs(inputs, outputs)
        sums = sum(F.sum_additions(macs, product(shape)) for shape in inputs[:2]) if macs else 0
        return {"input": Cost(2 * macs, 2 * macs, sums)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Both factors."""
        return ("input0", "input1")


@dataclass(frozen=True, eq=False, repr=False)
class MatMul(_Products):
    """The matrix product of the last two axes, the others broadcast, as torch.matmul: `matmul:@b`.

    >>> MatMul().infer((1, 8, 10, 64), (1, 8, 64, 10))
    ((1, 8, 10, 10),)
    """

    kind = "matmul"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(..., rows, columns); a factor of one axis is a row or a column that is dropped again."""
        one, other = inputs[:2]
        if not one or not other:
            raise ShapeError("a scalar has no matrix product")
        left = one if len(one) > 1 else (1, *one)
        right = other if len(other) > 1 else (*other, 1)
        if left[-1] != right[-2]:
            raise ShapeError(
                f"{shape_text(one)} by {shape_text(other)}: {left[-1]} terms meet {right[-2]}", value=other
            )
        rows = left[-2:-1] if len(one) > 1 else ()
        columns = right[-1:] if len(other) > 1 else ()
        return ((*broadcast(left[:-2], right[:-2]), *rows, *columns),)

    def macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """As many terms as the first factor has columns, for each output element."""
        return F.linear_macs(product(outputs[0]), inputs[0][-1], 1)


@dataclass(frozen=True, eq=False, repr=False)
class Gemm(_Products):
    """alpha·A·B + beta·C of matrices, either transposed; ONNX's Gemm. C may be left out, and is broadcast.

    >>> Gemm(transb=True).infer((5, 16), (10, 16), (10,))
    ((5, 10),)
    """

    kind = "gemm"
    inputs = (2, 3)
    alpha: float = 1.0
    beta: float = 1.0
    transa: bool = False
    transb: bool = False

    def __post_init__(self) -> None:
        for field in ("alpha", "beta"):
            number(field, getattr(self, field))
        for field in ("transa", "transb"):
            flag(field, getattr(self, field))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(rows, columns). Raises `ShapeError` when the matrices do not meet."""
        one, other = inputs[:2]
        if len(one) != 2 or len(other) != 2:
            raise ShapeError(f"needs two matrices, but {shape_text(one)} and {shape_text(other)} came in")
        rows, terms = one[::-1] if self.transa else one
        met, columns = other[::-1] if self.transb else other
        if terms != met:
            raise ShapeError(f"{shape_text(one)} by {shape_text(other)}: {terms} terms meet {met}", value=other)
        if len(inputs) > 2 and broadcast((rows, columns), inputs[2]) != (rows, columns):
            raise ShapeError(f"{shape_text(inputs[2])} cannot be added to {rows}x{columns}", value=inputs[2])
        return ((rows, columns),)

    def macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """As many terms as the factors share, for each output element."""
        return F.linear_macs(product(outputs[0]), inputs[0][0 if self.transa else 1], 1)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The dot products, alpha and beta where they are not 1, and an addition an element for C."""
        elements = product(outputs[0])
        third = elements * (len(inputs) > 2)
        scaled = elements * (self.alpha != 1) + (product(inputs[2]) if third and self.beta != 1 else 0)
        return super().cost(inputs, outputs) + Cost(0, scaled, third)


@dataclass(frozen=True, eq=False, repr=False)
class Einsum(_Products):
    """A sum of products by Einstein's notation, such as `bij,bjk->bik`, as torch.einsum.

    >>> Einsum("bij,bjk->bik").infer((2, 3, 4), (2, 4, 5))
    ((2, 3, 5),)
    """

    kind = "einsum"
    inputs = (1, None)
    equation: str

    def __post_init__(self) -> None:
        left, _, right = self.equation.replace(" ", "").partition("->")
        if not all(letter.isalpha() or letter in ".," for letter in left + right):
            raise refused("equation", self.equation, "letters, commas and ->")

    def _sizes(self, inputs: Sequence[Shape]) -> tuple[dict[str, int], Shape, str]:
        """The size of each letter, what ... stands for, and the output's letters."""
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        if len(terms) != len(inputs):
            raise ShapeError(f"equation {self.equation} takes {len(terms)} inputs, but {len(inputs)} came in")
        sizes: dict[str, int] = {}
        rest: Shape = ()
        for term, shape in zip(terms, inputs, strict=True):
            before, dots, after = term.partition("...")
            extra = len(shape) - len(before) - len(after)
            if extra < 0 or (extra and not dots):
                raise ShapeError(f"{term} has other axes than {shape_text(shape)}", field="equation", value=shape)
            rest = broadcast(rest, shape[len(before) : len(before) + extra])
            for letter, size in zip(before + after, shape[: len(before)] + shape[len(before) + extra :], strict=True):
                if sizes.setdefault(letter, size) not in (size, 1) and size != 1:
                    raise ShapeError(f"{letter} is {sizes[letter]} and {size}", field="equation", value=shape)
                sizes[letter] = max(sizes[letter], size)
        if not arrow:
            letters = left.replace(",", "").replace(".", "")
            right = ("..." if "..." in left else "") + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
        return sizes, rest, right

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The sizes of the output's letters. Raises `ShapeError` when a letter has two sizes."""
        sizes, rest, right = self._sizes(inputs)
        before, dots, after = right.partition("...")
        if any(letter not in sizes for letter in before + after):
            raise ShapeError(f"equation {self.equation} has an output letter that no input has", field="equation")
        return ((*(sizes[x] for x in before), *(rest if dots else ()), *(sizes[x] for x in after)),)

    def macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """A product for each combination of all letters, for each factor after the first."""
        if len(inputs) < 2:
            return 0
        sizes, rest, _ = self._sizes(inputs)
        return int(product([*sizes.values(), *rest])) * (len(inputs) - 1)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """The products, and the additions that leave the output's elements; of one input only additions."""
        if len(inputs) > 1:
            return super().cost(inputs, outputs)
        return Cost(additions=product(inputs[0]) - product(outputs[0]))

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """All factors; of one alone nothing."""
        return tuple(f"input{index}" for index in range(len(inputs))) if len(inputs) > 1 else ()


@dataclass(frozen=True, eq=False, repr=False)
class Det(Layer):
    """The determinant of each square matrix, as torch.linalg.det: (..., n, n) -> (...).

    >>> Det().infer((3, 2, 2))
    ((3,),)
    """

    kind = "det"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape without the last two axes. Raises `ShapeError` where these are no square matrices."""
        shape = inputs[0]
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ShapeError(f"needs square matrices, but {shape_text(shape) or 'a scalar'} came in", value=shape)
        return (shape[:-2],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Gaussian elimination, n(n - 1) / 2 divisions, and the product of the diagonal."""
        count, size = product(outputs[0]), inputs[0][-1]
        macs = count * F.elimination_macs(size)
        return Cost(macs, macs + count * (size - 1), macs, count * (size * (size - 1) // 2))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Of each matrix its inverse, in n³ multiply-accumulates, and two multiplications an element."""
        macs = product(inputs[0]) * inputs[0][-1]
        return {"input": Cost(macs, macs + 2 * product(inputs[0]), macs)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input and the output."""
        return ("input0", "output0")


@dataclass(frozen=True, eq=False, repr=False)
class Attention(_Products):
    """softmax(Q·Kᵀ·scale)·V by heads, `attention:8,@k,@v`: torch's scaled_dot_product_attention, ONNX's Attention.

    Q, K, V are (N, heads, length, size), or (N, length, heads·size) with q_heads and kv_heads, which are q_heads where
    they are left out. Heads of Q may share those of K and V. A fourth input is a mask; `given` names the further ones:
    a "mask", true where something is looked at or else added; the "past_key" and "past_value" that come first, `past`
    places long; the "lengths" of K and V that count.

    `causal` lets a place look at no later one, `window` at no more than so many before and after (-1: any). `softcap`
    bends scores below it, c·tanh(score / c). `scale` None is 1 / √size.

    >>> Attention().infer((1, 8, 10, 64), (1, 8, 20, 64), (1, 8, 20, 32))
    ((1, 8, 10, 32),)
    """

    kind = "attention"
    inputs = (3, None)
    q_heads: int | None = None
    kv_heads: int | None = None
    past: int = 0
    masked: bool = False
    extra: tuple[str, ...] = ()
    """Further outputs: "key", "value" (with the past), "scores"."""
    given: tuple[str, ...] = ()
    causal: bool = False
    window: tuple[int, int] = (-1, -1)
    scale: float | None = None
    softcap: float = 0.0
    stage: int = 0
    """Which scores go out: 0 the products, 1 bent, 2 masked, 3 after the softmax."""

    def __post_init__(self) -> None:
        for field in ("given", "extra"):
            if not isinstance(getattr(self, field), tuple):  # as an expression has one
                self._set(**{field: (getattr(self, field),)})
        for name in self.given:
            choice("given", name, ("mask", "past_key", "past_value", "lengths"))
        for name in self.extra:
            choice("extra", name, ("key", "value", "scores"))
        flag("causal", self.causal)
        flag("masked", self.masked)
        if self.scale is not None:
            number("scale", self.scale)
        if not isinstance(self.window, tuple) or len(self.window) != 2:
            raise refused("window", self.window, "two numbers, before and after")
        for size in self.window:
            whole("window", size, -1)
        if number("softcap", self.softcap) < 0:
            raise refused("softcap", self.softcap, "at least 0")
        if self.stage not in range(4):
            raise refused("stage", self.stage, "from 0 to 3")
        for field in ("q_heads", "kv_heads"):
            if getattr(self, field) is not None:
                whole(field, getattr(self, field))
        whole("past", self.past, 0)

    def bind(self, *inputs: Shape) -> Self:
        """Take a fourth input that is not named for a mask. Raises `ShapeError` for more."""
        if len(inputs) == 4 and not self.given:
            return replace(self, given=("mask",), masked=True)
        if len(inputs) != 3 + len(self.given):
            raise ShapeError(f"takes queries, keys, values and a mask, but {len(inputs)} tensors came in")
        return self

    def heads(self, inputs: Sequence[Shape]) -> tuple[Shape, Shape, Shape]:
        """Q, K and V as (N, heads, length, size)."""
        found = []
        shared = self.kv_heads or self.q_heads
        for shape, heads in zip(inputs[:3], (self.q_heads, shared, shared), strict=True):
            if len(shape) == 3 and heads and shape[2] % heads == 0:
                found.append((shape[0], heads, shape[1], shape[2] // heads))
            elif len(shape) == 4:
                found.append(shape)
            else:
                raise ShapeError(f"{shape_text(shape)} cannot be cut into {heads or 'unknown'} heads", value=shape)
        query, key, value = found
        if query[3] != key[3] or key[:3] != value[:3] or query[0] != key[0] or query[1] % key[1]:
            raise ShapeError(f"Q {shape_text(query)}, K {shape_text(key)} and V {shape_text(value)} do not fit")
        longer = key[2] + self.past
        return query, (*key[:2], longer, key[3]), (*value[:2], longer, value[3])

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """(N, heads, length, size of V), cut as Q is, and the further outputs."""
        query, key, value = self.heads(inputs)
        batch, heads, length, _ = query
        out = (batch, heads, length, value[3]) if len(inputs[0]) == 4 else (batch, length, heads * value[3])
        more = {"key": key, "value": value, "scores": (batch, heads, length, key[2])}
        return (out, *(more[name] for name in self.extra))

    def output_dtypes(self, dtype: str) -> tuple[str, ...]:
        """The input's type for all."""
        return (dtype,) * (1 + len(self.extra))

    def macs(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        """Q·Kᵀ and its product with V."""
        (batch, heads, length, size), key, value = self.heads(inputs)
        return F.linear_macs(batch * heads * length, size, key[2]) + F.linear_macs(
            batch * heads * length, key[2], value[3]
        )

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """Two matrix products; a multiplication by the scale, an addition of the mask and a softmax for each score.

        A softcap is a division, a function call and a multiplication.
        """
        (batch, heads, length, _), key, _ = self.heads(inputs)
        macs = self.macs(inputs, outputs)
        scores, rows = batch * heads * length * key[2], batch * heads * length
        sums = F.sum_additions(macs, scores + product(outputs[0])) + F.softmax_additions(scores, rows)
        bent = scores * bool(self.softcap)
        others = F.softmax_others(scores, rows) + 2 * bent
        return Cost(macs, macs + scores + bent, sums + scores * self.masked, others)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Two products of the forward's size for each of the two, and the softmax's."""
        (batch, heads, length, _), key, _ = self.heads(inputs)
        macs = 2 * self.macs(inputs, outputs)
        scores, rows = batch * heads * length * key[2], batch * heads * length
        sums = F.sum_additions(macs, 2 * scores + sum(product(shape) for shape in inputs[:3]))
        return {"input": Cost(macs, macs + 3 * scores, sums + F.softmax_additions(scores, rows))}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """Q, K, V, and the scores after the softmax."""
        (batch, heads, length, _), key, _ = self.heads(inputs)
        return ("input0", "input1", "input2", ((batch, heads, length, key[2]), None))
