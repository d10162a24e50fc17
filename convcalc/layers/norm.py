"""Normalisation: by batch, layer, group, instance, root mean square, and across channels.

Costs are inference's. None has a dot product, so none has MACs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from convcalc import formulas as F
from convcalc.errors import ShapeError
from convcalc.layers.base import Cost, Layer, Saved, Shape, flag, number, refused, shape_text, whole, wrong_axes
from convcalc.records import dataclass, replace
from convcalc.tracing import product


class _Norm(Layer):
    """What norms share: the output has the input's shape, and there may be a weight and a bias to scale with."""

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)

    def _affine(self, elements: int) -> Cost:
        """Scaling each element by the weight and moving it by the bias, where there are these."""
        names = self.parameters()
        return Cost(0, elements * ("weight" in names), elements * ("bias" in names))

    def _normalising(self, elements: int, groups: int) -> Cost:
        """Mean, variance and root of each group, and each element's distance from the mean over the root."""
        return Cost(0, 2 * elements, F.norm_additions(elements, groups), 4 * groups) + self._affine(elements)

    def _gradients(self, elements: int, groups: int) -> Mapping[str, Cost]:
        """inv·(g − mean(g) − x̂·mean(g·x̂)) with g scaled by the weight and x̂ = inv·(x − mean) made once more.

        The weight's gradient sums g·x̂, the bias's g.
        """
        shapes = self.parameters()
        gradients = {
            "input": Cost(
                0,
                elements * (4 + ("weight" in shapes)),
                F.norm_backward_additions(elements, groups),
                2 * groups,
            )
        }
        for name, shape in shapes.items():
            products = elements if name == "weight" else 0
            gradients[name] = Cost(0, products, F.sum_additions(elements, product(shape)))
        return gradients


def _refuse_channels(field: str, wanted: int | None, shape: Shape) -> None:
    """The channels must be as many as the layer was made for."""
    if wanted is not None and wanted != shape[1]:
        raise ShapeError(
            f"{field} is {wanted}, but the input {shape_text(shape[1:])} has {shape[1]} channels",
            field=field,
            value=wanted,
        )


# --- by batch and by instance ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class _Running(_Norm):
    """Norms of channels that may keep running statistics."""

    num_features: int | None = None
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    bias: bool = True

    least_axes = 2
    """The axes that an input of any rank has at least."""

    def __post_init__(self) -> None:
        if self.num_features is not None:
            whole("num_features", self.num_features)
        number("eps", self.eps)
        if self.momentum is not None:
            number("momentum", self.momentum)
        for field in ("affine", "track_running_stats", "bias"):
            flag(field, getattr(self, field))
        # Without a weight there is no bias; PyTorch prints false where it was not asked for.
        self._set(bias=self.bias or not self.affine)

    def _refuse_axes(self, shape: Shape) -> None:
        allowed = self._axes()
        if len(shape) not in allowed:
            raise wrong_axes([axes - 2 for axes in allowed], shape)

    def _axes(self) -> tuple[int, ...]:
        """How many axes the input may have."""
        return (self.rank + 2,) if self.rank is not None else tuple(range(self.least_axes, 6))

    def bind(self, *inputs: Shape) -> Self:
        """Take num_features from the channels where it is left open."""
        shape = inputs[0]
        self._refuse_axes(shape)
        if self.affine or self.track_running_stats:
            _refuse_channels("num_features", self.num_features, shape)
        return self if self.num_features is not None else replace(self, num_features=shape[1])

    def parameters(self) -> Mapping[str, Shape]:
        """weight and bias (num_features,) with affine; the bias unless `bias` is false."""
        if not self.affine:
            return {}
        shape = (self.num_features or 0,)
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}

    def buffers(self) -> Mapping[str, Shape]:
        """running_mean and running_var (num_features,) and the scalar num_batches_tracked, if they are tracked."""
        if not self.track_running_stats:
            return {}
        shape = (self.num_features or 0,)
        return {"running_mean": shape, "running_var": shape, "num_batches_tracked": ()}

    def _groups(self, shape: Shape) -> int:
        """How many groups of elements are normalised together."""
        raise NotImplementedError

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """With running statistics a multiplication and an addition an element, into which weight and bias merge.

        Without them, the statistics of the input: of n elements 3n - 1 additions, 2n multiplications, and 4 others.
        """
        elements = product(inputs[0])
        if self.track_running_stats:
            return Cost(0, elements, elements)
        return self._normalising(elements, self._groups(inputs[0]))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """As training computes it, through the statistics of the input."""
        return self._gradients(product(inputs[0]), self._groups(inputs[0]))


class BatchNorm(_Running):
    """Each channel over the batch: (N, C, *sizes) -> the same. Fields as PyTorch's BatchNorm1d, 2d, 3d.

    num_features None is taken from the input. Without a rank it takes any number of axes.

    >>> BatchNorm2d(8).infer((1, 8, 5, 5)), BatchNorm2d(8).parameters()
    (((1, 8, 5, 5),), {'weight': (8,), 'bias': (8,)})
    """

    kind = "batchnorm"

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` for statistics of one value, if none are kept running."""
        shape = inputs[0]
        if not self.track_running_stats and product(shape) == shape[1]:
            raise ShapeError(
                f"needs more than one value for each channel to normalise, but {shape_text(shape[1:])} came in",
                value=shape,
            )
        return (shape,)

    def _groups(self, shape: Shape) -> int:
        return shape[1]

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the running statistics, the weight, and the mean and root of each channel."""
        tracked = ("running_mean", "running_var") if self.track_running_stats else ()
        weight = ("weight",) if self.affine else ()
        return ("input0", *tracked, *weight, *(((inputs[0][1],), None),) * 2)


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of (N, C) or (N, C, L)."""

    rank = 1

    def _axes(self) -> tuple[int, ...]:
        return 2, 3


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of (N, C, H, W)."""

    rank = 2


class BatchNorm3d(BatchNorm):
    """`BatchNorm` of (N, C, D, H, W)."""

    rank = 3


class SyncBatchNorm(BatchNorm):
    """`BatchNorm` whose training looks at the batches of several processes. PyTorch's process_group is left out."""

    kind = "syncbatchnorm"


@dataclass(frozen=True, eq=False, repr=False)
class InstanceNorm(_Running):
    """Each channel of each sample: (N, C, *sizes) -> the same. Fields as PyTorch's InstanceNorm1d, 2d, 3d.

    num_features None is taken from the input. Without a rank it takes 1, 2 or 3 spatial axes.

    >>> InstanceNorm2d(8).parameters()
    {}
    """

    kind = "instancenorm"
    affine: bool = False
    track_running_stats: bool = False
    least_axes = 3

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` for one spatial element, which has no variance of its own."""
        if not self.track_running_stats and product(inputs[0][2:]) == 1:
            raise ShapeError(
                f"needs more than one spatial element to normalise, but {shape_text(inputs[0][1:])} came in",
                value=inputs[0],
            )
        return (inputs[0],)

    def _groups(self, shape: Shape) -> int:
        return shape[0] * shape[1]

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, mean and root of each channel of each sample, and so many copies of weight and statistics."""
        copies = 2 + self.affine + 2 * self.track_running_stats
        return ("input0", *(((inputs[0][0] * inputs[0][1],), None),) * copies)


class InstanceNormOfOne(InstanceNorm):
    """`InstanceNorm` as ONNX has it: what is left of a single spatial element is the bias.

    >>> InstanceNormOfOne(8, affine=True).infer((1, 8, 1, 1))
    ((1, 8, 1, 1),)
    """

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)


class InstanceNorm1d(InstanceNorm):
    """`InstanceNorm` of (N, C, L)."""

    rank = 1


class InstanceNorm2d(InstanceNorm):
    """`InstanceNorm` of (N, C, H, W)."""

    rank = 2


class InstanceNorm3d(InstanceNorm):
    """`InstanceNorm` of (N, C, D, H, W)."""

    rank = 3


# --- by group -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(_Norm):
    """Groups of channels of each sample: (N, C, *) -> the same. Fields as PyTorch's GroupNorm.

    num_channels None is taken from the input.

    >>> GroupNorm(2, 8).infer((1, 8, 5, 5))
    ((1, 8, 5, 5),)
    """

    kind = "groupnorm"
    num_groups: int
    num_channels: int | None = None
    eps: float = 1e-5
    affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        whole("num_groups", self.num_groups)
        if self.num_channels is not None and whole("num_channels", self.num_channels) % self.num_groups:
            raise refused("num_channels", self.num_channels, f"divisible by num_groups ({self.num_groups})")
        number("eps", self.eps)
        flag("affine", self.affine)
        self._set(bias=flag("bias", self.bias) or not self.affine)

    def bind(self, *inputs: Shape) -> Self:
        """Take num_channels from the input where it is left open."""
        shape = inputs[0]
        if len(shape) < 2:
            raise ShapeError("needs channels, but a scalar came in", value=shape)
        if self.affine:
            _refuse_channels("num_channels", self.num_channels, shape)
        if shape[1] % self.num_groups:
            raise ShapeError(
                f"num_groups is {self.num_groups}, which does not divide the {shape[1]} channels",
                field="num_groups",
                value=self.num_groups,
            )
        return self if self.num_channels is not None else replace(self, num_channels=shape[1])

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError`, as PyTorch does, when all batches' groups hold one value in all."""
        shape = inputs[0]
        if shape[0] * shape[1] // self.num_groups * product(shape[2:]) == 1:
            raise ShapeError(
                f"num_groups is {self.num_groups}, which leaves a single value to normalise in {shape_text(shape[1:])}",
                field="num_groups",
                value=self.num_groups,
            )
        return (shape,)

    def parameters(self) -> Mapping[str, Shape]:
        """weight and bias (num_channels,) with affine; the bias unless `bias` is false."""
        if not self.affine:
            return {}
        shape = (self.num_channels or 0,)
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """For a group of n elements 3n - 1 additions, 2n multiplications, 2 divisions, a root and its inverse.

        Weight and bias are a multiplication and an addition an element.
        """
        return self._normalising(product(inputs[0]), inputs[0][0] * self.num_groups)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Through the statistics of each group."""
        return self._gradients(product(inputs[0]), inputs[0][0] * self.num_groups)

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, the weight, and the mean and root of each group."""
        return ("input0", *self._weight(), *(((inputs[0][0], self.num_groups), None),) * 2)

    def _weight(self) -> tuple[str, ...]:
        return ("weight",) if self.affine else ()


class GroupNormOfOne(GroupNorm):
    """`GroupNorm` as ONNX has it: what is left of a group of a single value is the bias."""

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape."""
        return (inputs[0],)


# --- by the last axes -----------------------------------------------------------------------------------------------


def _normalized(value: Any) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not sizes:
        raise refused("normalized_shape", value, "at least one size")
    return tuple(whole("normalized_shape", size) for size in sizes)


class _LastAxes(_Norm):
    """Norms of the last axes, each place of the others by itself."""

    normalized_shape: tuple[int, ...] | None

    def bind(self, *inputs: Shape) -> Self:
        """Take the last axis for normalized_shape where that is left open."""
        shape = inputs[0]
        if self.normalized_shape is None:
            if len(shape) < 2:
                raise ShapeError("needs a last axis to normalise, but a scalar came in", value=shape)
            return replace(self, normalized_shape=shape[-1:])  # type: ignore[type-var]  # a dataclass below
        if shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(
                f"normalized_shape is {shape_text(self.normalized_shape)}, but the input {shape_text(shape[1:])} does"
                " not end in it",
                field="normalized_shape",
                value=self.normalized_shape,
            )
        return self

    @property
    def bound(self) -> tuple[int, ...]:
        """normalized_shape of a bound layer."""
        if self.normalized_shape is None:
            raise ShapeError("normalized_shape is open until the layer is bound to an input")
        return self.normalized_shape

    def _outer(self, shape: Shape) -> Shape:
        """The axes that are not normalised over, and 1 for each that is."""
        inner = len(self.bound)
        return (*shape[:-inner], *(1,) * inner)


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(_LastAxes):
    """The last axes of the input. Fields as PyTorch's LayerNorm; normalized_shape None is the last axis.

    >>> LayerNorm(64).infer((1, 10, 64))
    ((1, 10, 64),)
    """

    kind = "layernorm"
    normalized_shape: tuple[int, ...] | None = None
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        if self.normalized_shape is not None:
            self._set(normalized_shape=_normalized(self.normalized_shape))
        number("eps", self.eps)
        flag("elementwise_affine", self.elementwise_affine)
        self._set(bias=flag("bias", self.bias) or not self.elementwise_affine)

    def parameters(self) -> Mapping[str, Shape]:
        """weight and bias (*normalized_shape) with elementwise_affine; the bias unless `bias` is false."""
        if not self.elementwise_affine:
            return {}
        return {"weight": self.bound, "bias": self.bound} if self.bias else {"weight": self.bound}

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """For n elements 3n - 1 additions, 2n multiplications, 2 divisions, a root and its inverse.

        Weight and bias are a multiplication and an addition an element.
        """
        return self._normalising(product(inputs[0]), product(self._outer(inputs[0])))

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """Through the statistics of each place."""
        return self._gradients(product(inputs[0]), product(self._outer(inputs[0])))

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, weight and bias, and the mean and root of each place."""
        return ("input0", *self.parameters(), *((self._outer(inputs[0]), None),) * 2)


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(_LastAxes):
    """x over the root of the mean of x² over the last axes. Fields as PyTorch's RMSNorm.

    normalized_shape None is the last axis; eps None is the smallest step of the type.

    >>> RMSNorm((8, 64)).parameters()
    {'weight': (8, 64)}
    """

    kind = "rmsnorm"
    normalized_shape: tuple[int, ...] | None = None
    eps: float | None = None
    elementwise_affine: bool = True

    def __post_init__(self) -> None:
        if self.normalized_shape is not None:
            self._set(normalized_shape=_normalized(self.normalized_shape))
        if self.eps is not None:
            number("eps", self.eps)
        flag("elementwise_affine", self.elementwise_affine)

    def parameters(self) -> Mapping[str, Shape]:
        """weight (*normalized_shape) with elementwise_affine."""
        return {"weight": self.bound} if self.elementwise_affine else {}

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """For n elements n squares, n - 1 additions and one for eps, a division, a root, its inverse, n products.

        The weight is one more multiplication an element.
        """
        elements, places = product(inputs[0]), product(self._outer(inputs[0]))
        return Cost(0, 2 * elements, elements, 3 * places) + self._affine(elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """inv·(g − x̂·mean(g·x̂)) with g scaled by the weight and x̂ = inv·x made once more; the weight's sums g·x̂."""
        elements, places = product(inputs[0]), product(self._outer(inputs[0]))
        weight = len(self.parameters())
        gradients = {"input": Cost(0, elements * (4 + weight), F.sum_additions(elements, places) + elements, places)}
        if weight:
            gradients["weight"] = Cost(0, elements, F.sum_additions(elements, product(self.bound)))
        return gradients

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input and the root of each place; with a weight that and the normalised input too."""
        weighted: tuple[Saved, ...] = ("weight", (inputs[0], None)) if self.elementwise_affine else ()
        return ("input0", (self._outer(inputs[0]), None), *weighted)

    def saved_at_the_front(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The normalised input for the weight's gradient."""
        return ((inputs[0], None),) if self.elementwise_affine else ()


# --- across channels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class LocalResponseNorm(_Norm):
    """x / (k + alpha·mean of x² over `size` neighbouring channels)^beta. Fields as PyTorch's LocalResponseNorm.

    >>> LocalResponseNorm(5).infer((1, 96, 55, 55))
    ((1, 96, 55, 55),)
    """

    kind = "localresponsenorm"
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        whole("size", self.size)
        for field in ("alpha", "beta", "k"):
            number(field, getattr(self, field))

    def infer(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The input's shape. Raises `ShapeError` without axes after the channels."""
        if len(inputs[0]) < 3:
            raise ShapeError(
                f"needs channels and at least one axis after them, but {shape_text(inputs[0][1:]) or 'a scalar'}"
                " came in",
                value=inputs[0],
            )
        return (inputs[0],)

    def cost(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
        """For each element its square, size - 1 additions, a division, alpha, k, a power and a division."""
        elements = product(inputs[0])
        return Cost(0, 2 * elements, elements * self.size, 3 * elements)

    def backward(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Mapping[str, Cost]:
        """g/d^beta − x·c·Σ g·y/d over the same neighbours, with d and its power kept, and c = 2·alpha·beta/size."""
        elements = product(inputs[0])
        return {"input": Cost(0, 3 * elements, elements * self.size, 2 * elements)}

    def saved(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Sequence[Saved]:
        """The input, its squares with size - 1 more channels, the denominator and what it is the power of."""
        batch, channels, *sizes = inputs[0]
        squares = (batch, channels + self.size - 1, *sizes)
        return ("input0", (squares, None), (inputs[0], None), (inputs[0], None))
