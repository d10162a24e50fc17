"""Random layers of every kind against PyTorch: shape, refusal, parameters, buffers, and what autograd keeps.

convcalc must accept a layer on an input exactly when PyTorch does, and give the same shapes. It differs on purpose in
what follows, so that none of it is drawn here:

- A size of 0 is always refused. Where PyTorch gives an empty tensor, its answer here counts as a refusal; fields that
  it takes a 0 for without one (a kernel of FractionalMaxPool2d, of MaxUnpool, a dilation of ConvTranspose) are not
  drawn.
- There is always a batch. PyTorch reads (C, *sizes) as one sample without a batch where it can.
- A tuple of one number stands for that number on every axis, and None for None on every axis. PyTorch takes that in
  some layers, not in others (LPPool1d((2,)), AdaptiveAvgPool2d(None)). Tuples that are too long are refused; PyTorch's
  MaxUnpool reads the front of them.
- CircularPad that wraps on one side and crops on the other fails in PyTorch while it copies within its own output.
- AdaptiveAvgPool to 1 is a mean in PyTorch, which does not mind too many axes; here it does.
- The shape is inference's, as in `eval()`: BatchNorm in training also refuses a single value for each channel.
"""

from __future__ import annotations

import inspect
import random
from collections import Counter
from math import prod

import pytest
from layer_cases import SIGNATURES

from convcalc.analysis.memory import memory
from convcalc.errors import ConvcalcError
from convcalc.expressions import parse_text
from convcalc.layers import LAYERS, SEQUENCES, find_kind

torch = pytest.importorskip("torch")

# PyTorch warns of dims left out, of empty weights and of what it will drop one day; none of it changes an answer.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

nn = torch.nn
ROUNDS = 70
"""Layers drawn of each name. There are more than a hundred names."""


# --- drawing --------------------------------------------------------------------------------------------------------


class Draw:
    """Random fields and inputs. Most are valid; `wrong` tells when one should not be."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.int = self.rng.randint
        self.one_of = self.rng.choice

    def wrong(self, chance=0.04):
        return self.rng.random() < chance

    def maybe(self):
        return self.rng.random() < 0.5

    def per_axis(self, rank, low, high, least=1):
        """A number or one for each axis, from low to high; now and then less than least, or of another length."""
        if self.wrong():
            low = least - 2
        if self.wrong(0.02):
            return tuple(self.int(max(low, 1), high) for _ in range(rank + 1))
        return self.right(rank, low, high)

    def right(self, rank, low, high):
        """A number or one for each axis, from low to high."""
        return self.int(low, high) if self.maybe() else tuple(self.int(low, high) for _ in range(rank))

    def shape(self, rank, low=1, high=9, channels=None):
        """An input; now and then with one or two axes too many."""
        channels = channels or self.one_of([1, 2, 3, 4, 6, 8])
        if rank == 3:
            high = min(high, 6)
        extra = self.int(1, 2) if self.wrong(0.03) else 0
        return (self.int(1, 3), channels, *(self.int(low, high) for _ in range(rank + extra)))

    def any_shape(self, least=2, most=5, even=False):
        shape = [self.int(1, 3), *(self.int(1, 6) for _ in range(self.int(least, most) - 1))]
        return tuple(2 * size if even else size for size in shape)


def some(draw, **fields):
    """Some of the fields, so that defaults are tried too."""
    return {name: value for name, value in fields.items() if draw.maybe()}


def draw_conv(draw, rank):
    groups = draw.one_of([1, 1, 1, 2, 4])
    channels = groups * draw.int(1, 3)
    out = groups * draw.int(1, 3) if not draw.wrong() else draw.int(1, 5)
    fields = some(draw, stride=draw.per_axis(rank, 1, 3), dilation=draw.per_axis(rank, 1, 2), bias=draw.maybe())
    fields |= {"in_channels": channels, "out_channels": out, "kernel_size": draw.per_axis(rank, 1, 4), "groups": groups}
    return fields, [draw.shape(rank, channels=draw.int(1, 6) if draw.wrong() else channels)]


def draw_convolution(draw, rank):
    fields, shapes = draw_conv(draw, rank)
    padding = draw.per_axis(rank, 0, 3, 0) if draw.rng.random() < 0.7 else draw.one_of(["same", "valid", "sam"])
    fields |= some(draw, padding=padding)
    if draw.rng.random() < 0.3:
        fields["padding_mode"] = draw.one_of(["zeros", "reflect", "replicate", "circular", "mirror"])
    return fields, shapes


def draw_transposed(draw, rank):
    fields, shapes = draw_conv(draw, rank)
    if "dilation" in fields:
        fields["dilation"] = draw.right(rank, 1, 2)
    return fields | some(
        draw, padding=draw.per_axis(rank, 0, 2, 0), output_padding=draw.per_axis(rank, 0, 2, 0)
    ), shapes


def draw_linear(draw, rank):
    shape = draw.any_shape()
    fields = {"in_features": draw.int(1, 6) if draw.wrong(0.2) else shape[-1], "out_features": draw.int(1, 5)}
    return fields | some(draw, bias=draw.maybe()), [shape]


def window(draw, rank):
    kernel = draw.per_axis(rank, 1, 4)
    fields = {"kernel_size": kernel} | some(draw, stride=draw.per_axis(rank, 1, 4), ceil_mode=draw.maybe())
    if draw.maybe():
        sides = kernel if isinstance(kernel, tuple) else (kernel,) * rank
        fields["padding"] = (
            draw.per_axis(rank, 0, 2, 0) if draw.wrong(0.2) else tuple(draw.int(0, max(side, 0) // 2) for side in sides)
        )
    return fields


def draw_maxpool(draw, rank):
    fields = window(draw, rank) | some(draw, dilation=draw.per_axis(rank, 1, 3), return_indices=draw.maybe())
    return fields, [draw.shape(rank)]


def draw_avgpool(draw, rank):
    fields = window(draw, rank) | some(draw, count_include_pad=draw.maybe())
    if rank > 1 and draw.maybe():
        fields["divisor_override"] = draw.int(0 if draw.wrong() else 1, 5)
    return fields, [draw.shape(rank)]


def draw_lppool(draw, rank):
    fields = window(draw, rank) | {"norm_type": draw.one_of([1, 2, 3, 1.5, 0])}
    fields.pop("padding", None)
    return no_single(fields), [draw.shape(rank)]


def draw_adaptive(draw, rank):
    size = draw.per_axis(rank, 1, 7, 1)
    if rank > 1 and isinstance(size, tuple) and draw.maybe():
        size = tuple(None if draw.maybe() else number for number in size)
    one = size == 1 or (isinstance(size, tuple) and set(size) == {1})
    return {"output_size": size}, [draw.shape(rank) if not one else draw.any_shape(rank + 2, rank + 2)]


def draw_adaptive_max(draw, rank):
    fields, shapes = draw_adaptive(draw, rank)
    return fields | some(draw, return_indices=draw.maybe()), shapes


def draw_fractional(draw, rank):
    fields = {"kernel_size": draw.right(rank, 1, 3)} | some(draw, return_indices=draw.maybe())
    if draw.maybe() or draw.wrong():
        fields["output_size"] = draw.per_axis(rank, 1, 5)
    if ("output_size" not in fields) != draw.wrong():
        ratio = [0.3, 0.5, 0.75, 0.9, 1.5] if draw.wrong() else [0.3, 0.5, 0.75, 0.9]
        fields["output_ratio"] = tuple(draw.one_of(ratio) for _ in range(rank)) if draw.maybe() else draw.one_of(ratio)
    return fields, [draw.shape(rank, 4)]


def draw_unpool(draw, rank):
    fields = {"kernel_size": draw.right(rank, 1, 3)}
    fields |= some(draw, stride=draw.right(rank, 1, 3), padding=draw.right(rank, 0, 1))
    shape = draw.shape(rank, high=4)
    other = draw.shape(rank, high=4) if draw.wrong(0.1) else shape
    return fields, [shape, other]


def draw_flatten(draw, rank):
    return some(draw, start_dim=draw.int(-5, 5), end_dim=draw.int(-5, 5)), [draw.any_shape()]


def draw_unflatten(draw, rank):
    sizes = [draw.int(1, 3) for _ in range(draw.int(1, 3))]
    shape = list(draw.any_shape())
    dim = draw.int(0, len(shape) - 1)
    shape[dim] = prod(sizes) + draw.wrong(0.15)
    if draw.maybe():
        sizes[draw.int(0, len(sizes) - 1)] = -1 if not draw.wrong() else -2
    return {"dim": draw.int(-6, 6) if draw.wrong() else dim, "unflattened_size": tuple(sizes)}, [tuple(shape)]


def draw_reshape(draw, rank):
    shape = draw.any_shape()
    sizes = list(shape)
    draw.rng.shuffle(sizes)
    for _ in range(draw.int(0, 2)):
        if len(sizes) > 1:
            sizes[0] *= sizes.pop()
    if draw.maybe():
        sizes[draw.int(0, len(sizes) - 1)] = -1
    if draw.wrong(0.15):
        sizes[0] = draw.one_of([-2, -1, 5])
    return {"shape": tuple(sizes), "batch": True}, [shape]


def draw_permute(draw, rank):
    shape = draw.any_shape()
    dims = list(range(len(shape)))
    draw.rng.shuffle(dims)
    if draw.maybe():
        dims[0] -= len(dims)
    if draw.wrong(0.2):
        dims[-1] = draw.int(-6, 6)
    return {"dims": tuple(dims)}, [shape]


def draw_nothing(draw, rank):
    return {}, [draw.any_shape()]


def draw_shuffle(draw, rank):
    return {"groups": draw.int(0 if draw.wrong() else 1, 4)}, [draw.any_shape(least=3)]


def draw_pixels(field):
    def drawn(draw, rank):
        shape = draw.shape(2, high=12, channels=draw.one_of([1, 4, 8, 9, 16, 18]))
        return {field: draw.int(-1 if draw.wrong() else 1, 3)}, [shape]

    return drawn


def columns(draw):
    fields = {"kernel_size": draw.per_axis(2, 1, 3)}
    return fields | some(
        draw, dilation=draw.per_axis(2, 1, 2), padding=draw.per_axis(2, 0, 2, 0), stride=draw.per_axis(2, 1, 3)
    )


def draw_unfold(draw, rank):
    return columns(draw), [draw.shape(2)]


def draw_fold(draw, rank):
    fields = columns(draw) | {"output_size": draw.per_axis(2, 2, 7)}
    try:
        folded = nn.Unfold(**{name: value for name, value in fields.items() if name != "output_size"})
        size = fields["output_size"]
        sides = size if isinstance(size, tuple) else (size, size)
        shape = tuple(folded(torch.zeros(draw.int(1, 2), draw.int(1, 3), *sides)).shape)
    except (RuntimeError, TypeError):
        shape = draw.any_shape(3, 3)
    return fields, [shape if not draw.wrong(0.15) else (*shape[:-1], shape[-1] + 1)]


def factors(draw, rank):
    one = lambda: draw.one_of([0.3, 0.5, 1, 1.5, 2, 2.7, 3])  # noqa: E731  a short name for one expression
    return tuple(one() for _ in range(rank)) if draw.wrong(0.3) else one()


def draw_upsample(draw, rank):
    rank = draw.int(1, 3)
    own = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    mode = draw.one_of(["nearest", "nearest-exact", own, own, "area", "bicubic", "bicubic", "linear", "cubic"])
    fields = {"mode": mode} if draw.rng.random() < 0.8 else {}
    if draw.maybe() or draw.wrong():
        fields["size"] = draw.per_axis(rank, 1, 9)
    if ("size" not in fields) != draw.wrong():
        fields["scale_factor"] = factors(draw, rank)
    if mode in ("linear", "bilinear", "bicubic", "trilinear") or draw.wrong(0.1):
        fields |= some(draw, align_corners=draw.maybe())
    if draw.wrong(0.15):
        fields["recompute_scale_factor"] = draw.maybe()
    return no_single(fields), [draw.shape(rank)]


def no_single(fields):
    """The fields with a tuple of one number as that number."""
    return {name: value[0] if isinstance(value, tuple) and len(value) == 1 else value for name, value in fields.items()}


def draw_upsampling(draw, rank):
    fields = {"size": draw.per_axis(2, 1, 9)} if draw.maybe() else {}
    if ("size" not in fields) != draw.wrong():
        fields["scale_factor"] = factors(draw, 2)
    return fields, [draw.shape(2)]


def draw_padding(draw, rank):
    shape = draw.shape(rank, high=7)
    low = -2 if draw.wrong(0.3) else 0
    padding = draw.int(low, 3) if draw.maybe() else tuple(draw.int(low, 4) for _ in range(2 * rank))
    return {"padding": padding}, [shape]


def draw_constant_padding(draw, rank):
    fields, shapes = draw_padding(draw, rank)
    return fields | {"value": draw.one_of([0, 1.5, -2])}, shapes


def draw_pad(draw, rank):
    fields, shapes = draw_padding(draw, rank)
    padding = fields["padding"]
    if isinstance(padding, tuple):
        fields["padding"] = tuple(zip(padding[::2], padding[1::2], strict=True))
    return fields | some(draw, mode=draw.one_of(["constant", "reflect", "replicate", "circular", "mirror"])), shapes


def draw_channels(draw, rank, shape=None):
    shape = shape or draw.shape(rank, high=5)
    return {"num_features": draw.int(1, 8) if draw.wrong(0.1) else shape[1]} | some(
        draw,
        eps=1e-3,
        momentum=draw.one_of([None, 0.5]),
        affine=draw.maybe(),
        track_running_stats=draw.maybe(),
        bias=draw.maybe(),
    ), [shape]


def draw_batchnorm(draw, rank):
    return draw_channels(draw, rank, draw.any_shape(2, 3) if rank == 1 and draw.maybe() else None)


def draw_syncbatchnorm(draw, rank):
    return draw_channels(draw, rank, draw.any_shape(2, 5))


def draw_instancenorm(draw, rank):
    fields, shapes = draw_channels(draw, rank)
    if fields.get("momentum", 0) is None:
        fields["momentum"] = 0.2
    return fields, shapes


def draw_groupnorm(draw, rank):
    groups = draw.int(1, 3)
    shape = (draw.int(1, 2), groups * draw.int(1, 3), *(draw.int(1, 4) for _ in range(draw.int(0, 3))))
    fields = {"num_groups": draw.int(1, 3) if draw.wrong(0.2) else groups}
    fields["num_channels"] = draw.int(1, 6) if draw.wrong(0.15) else shape[1]
    return fields | some(draw, eps=1e-3, affine=draw.maybe(), bias=draw.maybe()), [shape]


def draw_layernorm(draw, rank):
    shape = draw.any_shape()
    size = shape[-draw.int(1, len(shape)) :] if not draw.wrong(0.2) else (draw.int(1, 5),)
    fields = {"normalized_shape": size[0] if len(size) == 1 and draw.maybe() else size}
    return fields | some(draw, eps=1e-3, elementwise_affine=draw.maybe()), [shape]


def draw_layernorm_bias(draw, rank):
    fields, shapes = draw_layernorm(draw, rank)
    return fields | some(draw, bias=draw.maybe()), shapes


def draw_lrn(draw, rank):
    fields = {"size": draw.int(-1 if draw.wrong() else 1, 5)} | some(draw, alpha=0.1, beta=0.5, k=2.0)
    return fields, [draw.any_shape(2 if draw.wrong(0.1) else 3, 5)]


def draw_dropout(draw, rank):
    p = draw.one_of([-0.1, 1.1]) if draw.wrong(0.1) else draw.one_of([0, 0.25, 0.5, 1])
    return some(draw, p=p, inplace=draw.maybe()), [draw.any_shape() if rank is None else draw.shape(rank, high=4)]


def draw_inplace(draw, rank):
    return some(draw, inplace=draw.maybe()), [draw.any_shape()]


def draw_numbers(*names, inplace=True, needed=(), values=(-1.5, -0.5, 0, 0.1, 0.25, 1, 2.5, 20)):
    def drawn(draw, rank):
        fields = {name: draw.one_of(values) for name in names if name in needed or draw.maybe()}
        if inplace:
            # PyTorch refuses the gradient, not the layer, of a negative slope in place.
            in_place = draw.maybe() and all(value > 0 for value in fields.values())
            fields |= some(draw, inplace=in_place)
        return fields, [draw.any_shape()]

    return drawn


def draw_gelu(draw, rank):
    return some(draw, approximate=draw.one_of(["none", "tanh", "erf" if draw.wrong() else "tanh"])), [draw.any_shape()]


def draw_prelu(draw, rank):
    shape = draw.any_shape()
    return {"num_parameters": draw.one_of([1, shape[1], shape[1], draw.int(1, 4)])}, [shape]


def draw_dim(draw, rank):
    return some(draw, dim=draw.int(-5, 5)), [draw.any_shape()]


def draw_glu(draw, rank):
    return some(draw, dim=draw.int(-5, 5)), [draw.any_shape(even=draw.rng.random() < 0.7)]


def draw_softmax2d(draw, rank):
    return {}, [draw.shape(2)]


def draw_joined(draw, rank):
    shape = draw.any_shape()
    shapes = []
    for _ in range(draw.int(2, 4)):
        other = [1 if draw.wrong(0.2) else size for size in shape]
        if draw.wrong():
            other[draw.int(0, len(other) - 1)] += 1
        shapes.append(tuple(other[draw.int(0, 1) if draw.wrong(0.2) else 0 :]))
    return {}, [shape, *shapes[1:]]


def draw_concat(draw, rank):
    shape = draw.any_shape()
    dim = draw.int(-6, 6) if draw.wrong(0.1) else draw.int(-len(shape), len(shape) - 1)
    shapes = [list(shape) for _ in range(draw.int(2, 4))]
    for other in shapes:
        other[dim % len(shape)] = draw.int(1, 5)
        if draw.wrong():
            other[draw.int(0, len(other) - 1)] += 1
    return {"dim": dim}, [tuple(other) for other in shapes]


def draw_crop(draw, rank):
    shape = draw.shape(draw.int(1, 3))
    other = tuple(draw.int(1, size + draw.wrong()) for size in shape)
    return {}, [shape, other]


def draw_global(draw, rank):
    return {}, [draw.any_shape(3, 5)]


# --- what PyTorch does for kinds that are no modules there ----------------------------------------------------------


def crop(one, other):
    wanted = other.shape[2:]
    if any(small > size for small, size in zip(wanted, one.shape[2:], strict=True)):
        raise RuntimeError("too small")
    for axis, size in enumerate(wanted, 2):
        one = one.narrow(axis, (one.shape[axis] - size) // 2, size)
    return one


def chained(operation):
    def run(first, *others):
        for other in others:
            first = operation(first, other)
        return first

    return run


def pad(rank):
    def module(padding, mode="constant"):
        pairs = ((padding, padding),) * rank if isinstance(padding, int) else padding
        flat = [number for pair in reversed(pairs) for number in pair]
        return lambda x: nn.functional.pad(x, flat, mode)

    return module


FUNCTIONS = {
    "Add": lambda: chained(torch.add),
    "Mul": lambda: chained(torch.mul),
    "Concat": lambda dim: lambda *tensors: torch.cat(tensors, dim),
    "Crop": lambda: crop,
    "Scale": lambda factor: lambda x: factor * x,
    "Shift": lambda amount: lambda x: x + amount,
    "Reshape": lambda shape, batch: lambda x: x.reshape(shape),
    "Permute": lambda dims: lambda x: x.permute(dims),
    "GlobalAvgPool": lambda: lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda: lambda x: getattr(nn, f"AdaptiveMaxPool{x.dim() - 2}d")(1)(x),
    **{f"Pad{rank}d": pad(rank) for rank in (1, 2, 3)},
}

SLOPES = (0, 0.1, 0.25, 1)
DRAWN = {
    "Conv": draw_convolution,
    "ConvTranspose": draw_transposed,
    "Linear": draw_linear,
    "MaxPool": draw_maxpool,
    "AvgPool": draw_avgpool,
    "LPPool": draw_lppool,
    "AdaptiveMaxPool": draw_adaptive_max,
    "AdaptiveAvgPool": draw_adaptive,
    "GlobalAvgPool": draw_global,
    "GlobalMaxPool": draw_global,
    "FractionalMaxPool": draw_fractional,
    "MaxUnpool": draw_unpool,
    "Flatten": draw_flatten,
    "Unflatten": draw_unflatten,
    "Reshape": draw_reshape,
    "Permute": draw_permute,
    "Identity": draw_nothing,
    "ChannelShuffle": draw_shuffle,
    "PixelShuffle": draw_pixels("upscale_factor"),
    "PixelUnshuffle": draw_pixels("downscale_factor"),
    "Unfold": draw_unfold,
    "Fold": draw_fold,
    "Upsample": draw_upsample,
    "UpsamplingNearest2d": draw_upsampling,
    "UpsamplingBilinear2d": draw_upsampling,
    "Pad": draw_pad,
    "ConstantPad": draw_constant_padding,
    "ZeroPad": draw_padding,
    "ReflectionPad": draw_padding,
    "ReplicationPad": draw_padding,
    "CircularPad": draw_padding,
    "Crop": draw_crop,
    "BatchNorm": draw_batchnorm,
    "SyncBatchNorm": draw_syncbatchnorm,
    "InstanceNorm": draw_instancenorm,
    "GroupNorm": draw_groupnorm,
    "LayerNorm": draw_layernorm_bias,
    "RMSNorm": draw_layernorm,
    "LocalResponseNorm": draw_lrn,
    "Dropout": draw_dropout,
    "AlphaDropout": draw_dropout,
    "FeatureAlphaDropout": draw_dropout,
    **dict.fromkeys(("ReLU", "ReLU6", "Hardsigmoid", "Hardswish", "SELU", "SiLU", "Mish"), draw_inplace),
    **dict.fromkeys(("Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Tanhshrink"), draw_nothing),
    "LeakyReLU": draw_numbers("negative_slope"),
    "RReLU": draw_numbers("lower", "upper"),
    "ELU": draw_numbers("alpha"),
    "CELU": draw_numbers("alpha"),
    "Hardtanh": draw_numbers("min_val", "max_val"),
    "Threshold": draw_numbers("threshold", "value", needed=("threshold", "value")),
    "Hardshrink": draw_numbers("lambd", inplace=False),
    "Softshrink": draw_numbers("lambd", inplace=False),
    "Softplus": draw_numbers("beta", "threshold", inplace=False),
    "GELU": draw_gelu,
    "PReLU": draw_prelu,
    "GLU": draw_glu,
    "Softmax": draw_dim,
    "Softmin": draw_dim,
    "LogSoftmax": draw_dim,
    "Softmax2d": draw_softmax2d,
    "Add": draw_joined,
    "Mul": draw_joined,
    "Concat": draw_concat,
    "Scale": lambda draw, rank: ({"factor": draw.int(-3, 3)}, [draw.any_shape()]),
    "Shift": lambda draw, rank: ({"amount": draw.int(-3, 3)}, [draw.any_shape()]),
}
NAMES = {
    f"{stem}{rank}d" if rank else stem: (drawn, rank)
    for stem, drawn in DRAWN.items()
    for rank in ((1, 2, 3) if find_kind(f"{stem}2d") and not hasattr(nn, stem) else (None,))
}
del NAMES["FractionalMaxPool1d"]  # PyTorch has none
NAMES |= {f"Dropout{rank}d": (draw_dropout, rank) for rank in (1, 2, 3)}


# --- the two answers ------------------------------------------------------------------------------------------------


def torch_module(name, fields):
    return FUNCTIONS[name](**fields) if name in FUNCTIONS else getattr(nn, name)(**fields)


def tensors_for(name, shapes):
    tensors = [torch.rand(shape) for shape in shapes]
    if name.startswith("MaxUnpool"):
        tensors[1] = torch.zeros(shapes[1], dtype=torch.int64)
    return tensors


def answer_of_torch(name, fields, shapes):
    """The module and the shapes that come out, or the error."""
    try:
        module = torch_module(name, fields)
        if isinstance(module, nn.Module):
            module.eval()
        with torch.no_grad():
            outputs = module(*tensors_for(name, shapes))
    except Exception as error:  # every error of PyTorch is a refusal
        return None, error
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    shapes_out = tuple(tuple(output.shape) for output in outputs)
    return (module, shapes_out) if all(map(all, shapes_out)) else (None, shapes_out)


def layer_class(name):
    kind, rank = find_kind(name)
    return kind.layer_class(rank)


def our_answer(name, fields, shapes):
    """The bound layer and the shapes that come out, or the error."""
    try:
        layer = layer_class(name)(**fields).bind(*shapes)
        return layer, layer.infer(*shapes)
    except ConvcalcError as error:
        return None, error


def samples(name):
    drawn, rank = NAMES[name]
    draw = Draw(f"convcalc {name}")
    for _ in range(ROUNDS):
        yield drawn(draw, rank)


def test_every_kind_is_drawn():
    # Layers over sequences stand beside PyTorch's in test_torch_recurrent.
    assert {find_kind(name)[0].name for name in NAMES} == set(LAYERS) - {*SEQUENCES, "matmul"}
    assert len(NAMES) * ROUNDS >= 5000


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signatures(name):
    left_out = {
        "self",
        "device",
        "dtype",
        "args",
        "kwargs",
        "min_value",
        "max_value",
        "process_group",
        "_random_samples",
        "_weight",
        "_freeze",
    }
    if name in ("LSTM", "GRU", "RNN"):
        # What they take by name is the base's; proj_size is refused by two, nonlinearity known to one.
        wanted = (
            SIGNATURES["LSTM"]
            if name == "LSTM"
            else SIGNATURES[name].removesuffix(" nonlinearity=tanh") + " proj_size=0"
        )
        parameters = list(inspect.signature(nn.RNNBase.__init__).parameters.values())
        fields = [each for each in parameters if each.name not in {*left_out, "mode"}]
        assert [each.partition("=")[0] for each in wanted.split()] == [each.name for each in fields]
        assert [each.partition("=")[2] for each in wanted.split()][2:] == [str(each.default) for each in fields][2:]
        assert (
            ("nonlinearity" in SIGNATURES[name]) == (name == "RNN") == hasattr(getattr(nn, name)(1, 1), "nonlinearity")
        )
        return
    for module in [getattr(nn, name)] if hasattr(nn, name) else [getattr(nn, f"{name}{rank}d") for rank in (2, 3)]:
        fields = [
            parameter.name + (f"={parameter.default}" if parameter.default is not parameter.empty else "")
            for parameter in inspect.signature(module.__init__).parameters.values()
            if parameter.name not in left_out
        ]
        assert " ".join(fields) == SIGNATURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_refusal(name):
    torch.manual_seed(0)
    counts = Counter()
    different = []
    for fields, shapes in samples(name):
        module, theirs = answer_of_torch(name, fields, shapes)
        layer, ours = our_answer(name, fields, shapes)
        if "refer to a single memory location" in str(theirs):
            continue
        counts["refused" if module is None else "accepted"] += 1
        by_axis = module is None and isinstance(theirs, tuple) and all(map(all, theirs))
        if (layer is None) != (module is None and not by_axis) or (layer is not None and ours != theirs):
            different.append(f"{name} {fields} on {shapes}: convcalc {ours!s}, PyTorch {theirs!s}")
    print(f"{name}: {counts['accepted']} accepted, {counts['refused']} refused")  # noqa: T201  for -s
    assert not different, "\n".join(different)
    assert counts["accepted"] >= ROUNDS / 4


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FUNCTIONS])
def test_parameters_and_buffers(name):
    for fields, shapes in samples(name):
        module, _ = answer_of_torch(name, fields, shapes)
        layer, _ = our_answer(name, fields, shapes)
        if module is None or layer is None:
            continue
        for ours, theirs in (
            (layer.parameters(), module.named_parameters()),
            (layer.buffers(), module.named_buffers()),
        ):
            assert list(ours.items()) == [(key, tuple(value.shape)) for key, value in theirs], (fields, shapes)


UNPRINTED = ("AvgPool", "FractionalMaxPool")
"""What PyTorch prints without what decides the shape."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FUNCTIONS and not name.startswith(UNPRINTED)])
def test_what_pytorch_prints_is_the_layer(name):
    for fields, shapes in samples(name):
        module, theirs = answer_of_torch(name, fields, shapes)
        if module is not None:
            layer = parse_text(str(module)).layers[0].layer(2).bind(*shapes)
            assert layer.infer(*shapes)[0] == theirs[0], str(module)
            assert list(layer.parameters()) == [key for key, _ in module.named_parameters()], str(module)


def kept_by_torch(module, name, shapes, *, input_grad=True):
    """Bytes of every storage that autograd keeps while a module runs in training mode, or None if it cannot.

    A module in the midst of a network owes its input a gradient; a network's own input needs none.
    """
    storages = {}
    held = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    if isinstance(module, nn.Module):
        module.train()
    # times 1, which keeps nothing: a leaf cannot be changed in place
    tensors = [
        tensor.requires_grad_() * 1 if input_grad and tensor.is_floating_point() else tensor
        for tensor in tensors_for(name, shapes)
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = module(*tensors)
    except (RuntimeError, ValueError):
        return None  # training refuses what inference takes, such as one value for each channel
    held.append(output)
    return sum(storages.values())


NETWORKS = {
    "in place": (
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3),
        nn.Dropout2d(0.2, inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10), nn.LogSoftmax(1),
    ),
    "dropout between": (
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 4),
    ),
    "norms and resizing": (
        nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.GELU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
        nn.GroupNorm(2, 8), nn.PReLU(8), nn.PixelShuffle(2), nn.AvgPool2d(4), nn.Hardswish(inplace=True),
    ),
    "views": (
        nn.PixelUnshuffle(2), nn.Conv2d(12, 16, 1), nn.Tanh(), nn.Flatten(2), nn.LayerNorm(16), nn.Softplus(),
        nn.Unflatten(2, (4, 4)), nn.Identity(), nn.ConvTranspose2d(16, 4, 2, stride=2), nn.Sigmoid(), nn.LPPool2d(2, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_what_autograd_keeps_of_a_network(name):
    """Each storage once, whatever layers share it; every module is read from its own text."""
    torch.manual_seed(0)
    report = memory(parse_text(" ".join(map(str, NETWORKS[name]))).network((2, 3, 8, 8)), train=True)
    theirs = kept_by_torch(nn.Sequential(*NETWORKS[name]), name, [(2, 3, 8, 8)], input_grad=False)
    assert report.totals["saved"] == theirs
    assert sum(report.totals[key] for key in ("parameters", "buffers")) == sum(
        tensor.nbytes for tensor in nn.Sequential(*NETWORKS[name]).state_dict().values()
    )


def kept_by_us(layer, shapes, outputs):
    own = {**layer.parameters(), **layer.buffers()}
    dtypes = layer.output_dtypes("float32")
    tensors = {}
    for index, saved in enumerate(layer.saved(shapes, outputs)):
        if not isinstance(saved, str):
            shape, dtype = saved
            tensors[index] = prod(shape) * (8 if dtype == "int64" else 4)
        elif saved in own:
            tensors[saved] = prod(own[saved]) * 4
        else:
            place = int(saved[-1])
            shape = shapes[place] if saved.startswith("input") else outputs[place]
            index_input = layer.kind == "maxunpool" and saved == "input1"
            tensors[saved] = prod(shape) * (8 if index_input or (saved[0] == "o" and dtypes[place] == "int64") else 4)
    return sum(tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_autograd_keeps(name):
    different = []
    compared = 0
    for fields, shapes in samples(name):
        module, _ = answer_of_torch(name, fields, shapes)
        layer, outputs = our_answer(name, fields, shapes)
        if module is None or layer is None:
            continue
        theirs = kept_by_torch(module, name, shapes)
        ours = kept_by_us(layer, shapes, outputs)
        compared += theirs is not None
        if theirs is not None and ours != theirs:
            different.append(f"{name} {fields} on {shapes}: convcalc {ours}, PyTorch {theirs}")
    assert compared >= ROUNDS / 5
    assert not different, "\n".join(different)
