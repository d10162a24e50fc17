"""The table of gradients: for every kind of layer cases that are tested against finite differences and PyTorch.

`EXAMPLES` are expressions, `CASES` layers that only files and modules have, with the same in PyTorch's words, and
`WITHOUT` is what has no gradient. A test fails for a kind that is in none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from convcalc.layers.base import Layer
from convcalc.layers.elementwise import Clip, Combine, Function, HardSigmoid
from convcalc.layers.matmul import Attention, Det, Einsum, Gemm, MatMul
from convcalc.layers.multihead import MultiheadAttention
from convcalc.layers.recurrent import OnnxGRU, OnnxLSTM, OnnxRNN
from convcalc.layers.reduce import Cumulate, Reduce, TopK
from convcalc.layers.sample import DeformConv, GridSample, RoiAlign
from convcalc.layers.spectral import DFT, STFT
from convcalc.layers.tensor import (
    Cast,
    DepthToSpace,
    Expand,
    Gather,
    GatherElements,
    GatherND,
    PadAxes,
    Resize,
    Scatter,
    Shaped,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
)
from convcalc.layers.variants import BatchNormTraining, DropoutMask, LayerNormStatistics, WindowPool


class Later:
    """A module of PyTorch's that is imported when a function of it is called: finite differences need none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, function: str) -> Callable[..., Any]:
        def call(*inputs: Any, **fields: Any) -> Any:
            return getattr(import_module(self.name), function)(*inputs, **fields)

        return call


torch, F, linalg, fft = (Later(f"torch{name}") for name in ("", ".nn.functional", ".linalg", ".fft"))

EXAMPLES: dict[str, str] = {
    "conv": "conv:4,k3x2,s2x1,p1+2,g2 conv:4,k3,padding_mode=circular,p2,nobias conv:8,k2,d2,g4",
    "convt": "convt:6,k3,s2,p1,op1,g2 convt:2,k2x3,nobias,d2",
    "linear": "linear:3 linear:2,nobias",
    "maxpool": "maxpool:3,s2,p1 maxpool:2,d2",
    "avgpool": "avgpool:3,s2,p1,ceil avgpool:2,count_include_pad=false,p1",
    "lppool": "lppool:norm_type=2,kernel_size=2 lppool:norm_type=4,kernel_size=3,s2,ceil",
    "adaptivemaxpool": "adaptivemaxpool:2x3",
    "adaptiveavgpool": "adaptiveavgpool:4x3",
    "scale": "scale:0.5",
    "shift": "shift:-0.5",
    "globalavgpool": "globalavgpool",
    "globalmaxpool": "globalmaxpool",
    "fractionalmaxpool": "fractionalmaxpool:2,output_size=3x2",
    "maxunpool": "zeropad:0x1x0x0 maxpool:2,indices @p maxunpool:2,@p.1",
    "flatten": "flatten",
    "unflatten": "unflatten:dim=1,unflattened_size=2x2",
    "reshape": "reshape:shape=12x10",
    "permute": "permute:0x2x3x1",
    "identity": "identity",
    "channelshuffle": "channelshuffle:2",
    "pixelshuffle": "pixelshuffle:2",
    "pixelunshuffle": "pad:0x0+1 pixelunshuffle:2",
    "unfold": "unfold:2x3,p1,s2",
    "fold": "unfold:2,p1,s1 fold:6x5,k2,p1",
    "upsample": "upsample:2 upsample:size=7x4,mode=bilinear upsample:size=4x7,mode=bicubic upsample:size=3x4,mode=area",
    "upsamplingnearest": "upsamplingnearest:2",
    "upsamplingbilinear": "upsamplingbilinear:2",
    "pad": "pad:1+2x0,reflect pad:-1+2x0,v-1.5",
    "constantpad": "constantpad:1,v2",
    "zeropad": "zeropad:1x2x0x1",
    "reflectionpad": "reflectionpad:2",
    "replicationpad": "replicationpad:2",
    "circularpad": "circularpad:1",
    "crop": "@a conv:k3 @b from:@a crop:@b",
    "batchnorm": "batchnorm batchnorm:notrack",
    "syncbatchnorm": "syncbatchnorm:4",
    "instancenorm": "instancenorm:4,affine instancenorm:4,track",
    "groupnorm": "groupnorm:2",
    "layernorm": "layernorm layernorm:6x5,nobias",
    "rmsnorm": "rmsnorm",
    "localresponsenorm": "lrn:3,alpha=0.5",
    "threshold": "threshold:threshold=0.1,value=-1",
    "glu": "glu:1",
    "lstm": "reshape:24x5 lstm:3,l2,bidirectional lstm:4,proj_size=2,batch_first,nobias",
    "gru": "reshape:24x5 gru:3,l2,bidirectional @h gru:2,batch_first from:@h gru:3,l2,bidirectional,@h.1",
    "rnn": "reshape:24x5 rnn:3,l2,relu rnn:2,bidirectional",
    "multiheadattention": "reshape:20x6 @k sigmoid @v mha:6,h2 mha:6,h3,batch_first,@k,@v",
    "matmul": "@a permute:0x1x3x2 @b from:@a matmul:@b",
    "attention": "reshape:20x6 @k tanh @v attention:2,@k,@k from:@v linear:12 attention:6,kv3,causal,@k,@v",
    "embedding": "scale:0 shift:2 embedding:3,n4",
    "add": "@a sigmoid add:@a",
    "mul": "@a sigmoid mul:@a",
    "concat": "@a sigmoid concat:@a",
}
"""Layers of the kinds that take more than their name; what they stand after is there for their input."""
WITHOUT = {
    "unknown": "its numbers are not known",
    "quantize": "it rounds",
    "fill": "it hangs on nothing that comes in",
}
"""What has no gradient, and why."""

Tensor = Any


class Case(NamedTuple):
    """A layer, the shapes or arrays that come in, and the same in PyTorch, of the inputs and the weights by name.

    Without that another test compares it with PyTorch's module.
    """

    layer: Layer
    inputs: list[Any]
    theirs: Callable[..., Any] | None


def places(*values: Any) -> np.ndarray:
    return np.array(values)


def case(layer: Layer, theirs: Callable[..., Any] | None, *inputs: Any) -> Case:
    return Case(layer, list(inputs), theirs)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name)
    for name in ("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp", "log", "neg",
                 "reciprocal", "sin", "sinh", "sqrt", "tan", "ceil", "floor", "round", "sign")
}  # fmt: skip
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "l1": lambda x, dims, keep: x.abs().sum(dims, keep),
    "l2": lambda x, dims, keep: linalg.vector_norm(x, 2, dims, keep),
    "logsum": lambda x, dims, keep: x.sum(dims, keep).log(),
    "logsumexp": torch.logsumexp,
    "sumsquare": lambda x, dims, keep: (x * x).sum(dims, keep),
    "prod": lambda x, dims, keep: x.prod(dims[0], True).prod(dims[1], True) if keep else x.prod(2).prod(0),
}
COMBINED: dict[str, Callable[..., Tensor]] = {
    "sub": torch.sub,
    "div": torch.div,
    "pow": torch.pow,
    "max": torch.maximum,
    "min": torch.minimum,
    "prelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "mean": lambda *xs: sum(xs) / len(xs),
}


def joined(x: Tensor) -> Tensor:
    """Numbers whose parts stand in the last axis, as PyTorch has them."""
    return x if x.ndim == 2 else x[..., 0] if x.shape[-1] == 1 else torch.view_as_complex(x)


def frames(x: Tensor, window: Tensor, step: int, **fields: bool) -> Tensor:
    """torch.stft, (N, frames, bins, 2), without what it puts around the signal."""
    found = torch.stft(joined(x), len(window), step, window=window, center=False, return_complex=True, **fields)
    return torch.view_as_real(found.transpose(1, 2))


CASES: list[Case] = [
    *(case(Function(name), theirs, ("inside", (3, 4))) for name, theirs in FUNCTIONS.items() if name != "acosh"),
    case(Function("acosh"), torch.acosh, ("above one", (3, 4))),
    *(case(Combine(name), theirs, ("inside", (2, 3, 4)), ("inside", (3, 1))) for name, theirs in COMBINED.items()),
    case(Combine("where"), torch.where, places([True, False, True]), (2, 3), (1, 3)),
    case(Combine("clip"), torch.clamp, (5, 6), np.array(-0.5), np.array(0.5)),
    case(Clip(-0.5, None), lambda x: x.clamp(min=-0.5), (4, 5)),
    case(Clip(-0.5, 0.5), lambda x: x.clamp(-0.5, 0.5), (4, 5)),
    case(HardSigmoid(0.3, 0.4), lambda x: (0.3 * x + 0.4).clamp(0, 1), (4, 5)),
    *(
        case(Reduce(name, (0, 2), keep), lambda x, theirs=theirs, keep=keep: theirs(x, (0, 2), keep), ("inside", shape))
        for name, theirs in REDUCTIONS.items()
        for keep, shape in ((True, (2, 3, 4)), (False, (2, 3, 4)))
    ),
    case(Reduce("prod", (1,)), lambda x: x.prod(1, True), places([[2.0, 0.0, 3.0], [0.0, 0.0, 1.0]])),
    case(Reduce("max", None, False), lambda x: x.amax(), places([[1.0, 3.0], [3.0, 2.0]])),
    case(Cumulate(1), lambda x: x.cumsum(1), (2, 4, 3)),
    case(Cumulate(1, "prod"), lambda x: x.cumprod(1), places([[[1.0], [0.0], [3.0], [2.0]]])),
    case(Det(), linalg.det, (2, 3, 4, 4)),
    case(Det(), linalg.det, (1, 1)),
    *(
        case(DFT(1, length), lambda x, n=length: torch.view_as_real(fft.fft(joined(x), n, 1)), (2, 5, 3, parts))
        for length in (None, 4, 7)
        for parts in (1, 2)
    ),
    case(DFT(0, inverse=True), lambda x: torch.view_as_real(fft.ifft(joined(x), dim=0)), (5, 3, 2)),
    case(DFT(-2, 6, inverse=True), lambda x: torch.view_as_real(fft.ifft(joined(x), 6).resolve_conj()), (2, 5, 1)),
    *(
        case(DFT(1, length, onesided=True), lambda x, length=length: torch.view_as_real(fft.rfft(x[..., 0], length, 1)),
             (2, size, 3, 1))
        for length, size in ((None, 6), (None, 5), (4, 6), (9, 6), (1, 2))
    ),
    *(
        case(DFT(1, length, inverse=True, onesided=True),
             lambda x, length=length: fft.irfft(joined(x), length, 1)[..., None], (2, 4, 3, 2))
        for length in (None, 7, 4, 5, 10, 1, 2)
    ),
    case(STFT(3, 5), lambda x: frames(x, torch.ones(5, dtype=x.dtype), 3), (2, 14, 1)),
    case(STFT(7, 4, onesided=False), lambda x: frames(x, torch.ones(4, dtype=x.dtype), 7, onesided=False), (1, 14, 1)),
    *(case(STFT(2), lambda x, window: frames(x, window, 2), shape, (4,)) for shape in ((2, 11, 1), (2, 11))),
    case(STFT(3, 6, onesided=False), lambda x, window: frames(x, window, 3, onesided=False), (2, 13, 2), (6,)),
    case(TopK(2, 1), lambda x: x.topk(2, 1), (3, 5)),
    case(TopK(2, 0, largest=False), lambda x: x.topk(2, 0, largest=False), (5, 3)),
    case(MatMul(), torch.matmul, (2, 3, 4), (4, 5)),
    case(MatMul(), torch.matmul, (3, 4), (2, 1, 4, 5)),
    case(MatMul(), torch.matmul, (4,), (2, 4, 5)),
    case(MatMul(), torch.matmul, (2, 3, 4), (4,)),
    case(MatMul(), torch.matmul, (4,), (4,)),
    case(Gemm(0.5, 2.0, transa=True), lambda a, b, c: 0.5 * a.T @ b + 2 * c, (3, 4), (3, 5), (5,)),
    case(Gemm(transb=True), lambda a, b: a @ b.T, (4, 3), (5, 3)),
    *(
        case(Einsum(equation), lambda *xs, equation=equation: torch.einsum(equation, *xs), *shapes)
        for equation, *shapes in (
            ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
            ("...ij,jk->...k", (2, 3, 4), (4, 5)),
            ("ij,j->i", (3, 4), (4,)),
            ("ij->i", (3, 4)),
            ("ij,kl->ik", (3, 4), (2, 5)),
            ("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)),
            ("i,j", (3,), (4,)),
        )
    ),
    case(Shaped((3, 4)), lambda x: x.reshape(3, 4), (2, 6)),
    case(Slice((1, -1), (5, -7), (0, 1), (2, -2)), lambda x: x[1:5:2].flip(1)[:, ::2], (6, 5)),
    case(Split((2, 3), 1), lambda x: x.split((2, 3), 1), (2, 5)),
    case(Gather(0), lambda x, i: x[i], (5, 3), places([1, -1, 1], [0, 4, 1])),
    case(GatherElements(1), lambda x, i: x.gather(1, i), (2, 4), places([0, 0, 3], [2, 1, 1])),
    case(GatherND(), lambda x, i: x[i[:, 0], i[:, 1]], (3, 4, 2), places([0, 1], [2, 3], [0, 1])),
    case(Scatter(1), lambda x, i, u: x.scatter(1, i, u), (2, 4), places([0, 3], [2, 1]), (2, 2)),
    case(Scatter(1, "add"), lambda x, i, u: x.scatter_add(1, i, u), (2, 4), places([0, 0], [2, 1]), (2, 2)),
    case(Scatter(None), lambda x, i, u: x.index_put((i[:, 0],), u), (4, 3), places([3], [1]), (2, 3)),
    case(Scatter(None, "add"), lambda x, i, u: x.index_put((i[:, 0],), u, True), (4, 3), places([3], [3]), (2, 3)),
    case(Expand((2, 3, 4)), lambda x: x.expand(2, 3, 4), (3, 1)),
    case(Tile((2, 1, 3)), lambda x: x.repeat(2, 1, 3), (1, 2, 3)),
    case(PadAxes(((0, 0), (1, 2), (-1, 3)), "constant", 2.0), lambda x: F.pad(x, (-1, 3, 1, 2), value=2.0), (2, 3, 4)),
    case(PadAxes(((0, 0), (0, 0), (2, 1)), "reflect"), lambda x: F.pad(x, (2, 1), "reflect"), (2, 3, 4)),
    case(PadAxes(((0, 0), (0, 0), (2, 1)), "replicate"), lambda x: F.pad(x, (2, 1), "replicate"), (2, 3, 4)),
    case(PadAxes(((0, 0), (0, 0), (2, 1)), "circular"), lambda x: F.pad(x, (2, 1), "circular"), (2, 3, 4)),
    case(DepthToSpace(2, "CRD"), lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 2)),
    case(SpaceToDepth(2, "CRD"), lambda x: F.pixel_unshuffle(x, 2), (2, 2, 6, 4)),
    case(Resize((1, 2, 7, 9), "linear"), lambda x: F.interpolate(x, (7, 9), mode="bilinear"), (1, 2, 5, 4)),
    case(Resize((1, 2, 7, 3), "cubic"), lambda x: F.interpolate(x, (7, 3), mode="bicubic"), (1, 2, 5, 4)),
    case(Resize((1, 2, 10), "nearest"), lambda x: F.interpolate(x, 10, mode="nearest-exact"), (1, 2, 5)),
]  # fmt: skip


HEADS = {"q_heads": 4, "kv_heads": 2}


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, cap: float = 0.0) -> Tensor:
    """Four heads of queries on two of keys, in PyTorch's words."""
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) / query.shape[-1] ** 0.5
    scores = cap * torch.tanh(scores / cap) if cap else scores
    return torch.softmax(scores if mask is None else scores + mask, -1) @ value.repeat_interleave(2, 1)


def in_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same of (N, length, heads · size)."""
    split = [x.unflatten(2, (heads, -1)).transpose(1, 2) for x, heads in ((query, 4), (key, 2), (value, 2))]
    return attention(*split).transpose(1, 2).flatten(2)


KEYS = ((2, 4, 3, 5), (2, 2, 6, 5), (2, 2, 6, 7))
CASES += [
    case(Attention(**HEADS), attention, *KEYS),
    case(Attention(**HEADS, softcap=0.7), lambda *xs: attention(*xs, cap=0.7), *KEYS),
    case(Attention(**HEADS), in_rows, (2, 3, 20), (2, 6, 10), (2, 6, 14)),
    case(
        Attention(**HEADS, past=2, given=("past_key", "past_value"), scale=0.3),
        lambda query, key, value, *past: attention(
            query * 0.3 * 5**0.5, torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        ),
        *(*KEYS, (2, 2, 2, 5), (2, 2, 2, 7)),
    ),
    # A mask of numbers that is repeated for every sample and head, and all that may go out.
    case(Attention(**HEADS, given=("mask",), masked=True), attention, *KEYS, (3, 6)),
    *(
        case(
            Attention(
                **HEADS, given=("mask",), masked=True, softcap=0.7, stage=stage, extra=("key", "value", "scores")
            ),
            lambda *xs, stage=stage: told(*xs, cap=0.7, stage=stage),
            *(*KEYS, (1, 4, 3, 6)),
        )
        for stage in range(4)
    ),
]


def told(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, cap: float, stage: int) -> tuple[Tensor, ...]:
    """What attention gives, keys and values as they are, and the scores after so many steps."""
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) / query.shape[-1] ** 0.5
    bent = cap * torch.tanh(scores / cap)
    stages = (scores, bent, bent + mask, torch.softmax(bent + mask, -1))
    return attention(query, key, value, mask, cap), key * 1, value * 1, stages[stage]


def roi_align(x: Tensor, boxes: Tensor, images: Tensor, layer: RoiAlign) -> Tensor:
    """Box by box from the four neighbours of every sample; boxes have no gradient, as torchvision's have none."""
    found = []
    for box, image in zip(boxes.detach() * layer.scale - 0.5 * layer.half_pixel, images, strict=True):
        along = []
        for axis, (size, cells) in enumerate(zip(x.shape[2:], layer.output_size, strict=True)):
            length = box[3 - axis] - box[1 - axis] if layer.half_pixel else (box[3 - axis] - box[1 - axis]).clamp(min=1)
            count = layer.ratio or int((length / cells).ceil())
            places = box[1 - axis] + (torch.arange(cells * count, dtype=x.dtype) + 0.5) * (length / cells / count)
            inside = ((places >= -1) & (places <= size)) * 1.0
            places = places.clamp(0, size - 1)
            low = places.floor().long()
            high = (low + 1).clamp(max=size - 1)
            along.append(((low, (1 - places + low) * inside), (high, (places - low) * inside)))
        parts = torch.stack([
            x[image][:, rows][:, :, columns] * high[:, None] * wide
            for rows, high in along[0] for columns, wide in along[1]
        ])  # fmt: skip
        height, width = layer.output_size
        cells = parts.reshape(4, x.shape[1], height, -1, width, parts.shape[-1] // width)
        found.append(cells.amax((0, 3, 5)) if layer.mode == "max" else cells.sum(0).mean((2, 4)))
    return torch.stack(found)


def deform_conv(x: Tensor, offsets: Tensor, *mask: Tensor, layer: DeformConv, weight: Tensor, bias: Tensor) -> Tensor:
    """Tap by tap with PyTorch's samples of a grid."""
    (height, width), outputs = x.shape[2:], offsets.shape[2:]
    own = x.reshape(-1, x.shape[1] // layer.offset_groups, height, width)
    moved = offsets.reshape(len(own), -1, 2, *outputs)
    columns = []
    for tap, (i, j) in enumerate(np.ndindex(*layer.kernel_size)):
        starts = [
            torch.arange(count) * step - pad[0] + place * wide
            for count, step, pad, place, wide in zip(
                outputs, layer.stride, layer.padding, (i, j), layer.dilation, strict=True
            )
        ]
        rows = moved[:, tap, 0] + starts[0][:, None]
        across = moved[:, tap, 1] + starts[1]
        grid = torch.stack([across * 2 / (width - 1) - 1, rows * 2 / (height - 1) - 1], -1)
        samples = F.grid_sample(own, grid, align_corners=True)
        columns.append(samples * mask[0].reshape(len(own), -1, 1, *outputs)[:, tap] if mask else samples)
    stacked = torch.stack(columns, 2).reshape(len(x), layer.groups, -1, *outputs)
    product = torch.einsum(
        "ngkhw,gok->ngohw", stacked, weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
    )
    return product.flatten(1, 2) + bias[:, None, None]


def batch_norm_training(x: Tensor, **weights: Tensor) -> tuple[Tensor, ...]:
    """The batch's statistics, and the running ones a tenth of the way to them."""
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    y = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    y = y * weights["weight"][:, None, None] + weights["bias"][:, None, None]
    return y, 0.9 * weights["running_mean"] + 0.1 * mean, 0.9 * weights["running_var"] + 0.1 * variance


def window_pool(x: Tensor, layer: WindowPool) -> Tensor:
    """Windows as columns; of a mean what is padding counts for nothing."""
    (top, bottom), (left, right) = layer.padding
    padded = F.pad(x, (left, right, top, bottom))
    sizes = [
        (size - (kernel - 1) * wide - 1) // step + 1
        for size, kernel, wide, step in zip(
            padded.shape[2:], layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
    ]

    def sums(of: Tensor) -> Tensor:
        columns = F.unfold(of, layer.kernel_size, layer.dilation, 0, layer.stride)
        return columns.unflatten(1, (x.shape[1], -1)).sum(2).unflatten(2, sizes)

    if layer.function == "lp":
        return sums(padded.abs() ** layer.power) ** (1 / layer.power)
    return sums(padded) / sums(F.pad(torch.ones_like(x), (left, right, top, bottom)))


ROIS = (np.array([[0.3, 0.7, 6.2, 5.1], [2.2, 1.1, 3.4, 7.9], [-4.3, -3.9, 2.8, 9.7]]), places(1, 0, 1))
ROI_LAYERS = [
    RoiAlign((2, 3), 0.7, 2),
    RoiAlign((2, 2), 1.0, 0, half_pixel=False),
    RoiAlign((3, 2), 0.5, 2, mode="max"),
]
DEFORM = {
    "plain": DeformConv(4, 6, (2, 3), (1, 2), ((1, 0), (1, 1)), (1, 1)),
    "groups": DeformConv(4, 6, (2, 2), (1, 1), ((0, 0), (0, 0)), (2, 1), 2, 2, masked=True),
}
CASES += [
    *(
        case(
            GridSample(mode, padding, corners),
            lambda x, grid, mode=mode, padding=padding, corners=corners: F.grid_sample(
                x, grid, {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode), padding, corners
            ),
            (2, 3, 5, 4),
            (2, 3, 6, 2),
        )
        for mode in ("nearest", "linear", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    ),
    case(GridSample(), lambda x, grid: F.grid_sample(x, grid, align_corners=False), (2, 3, 5, 4, 3), (2, 2, 3, 2, 3)),
    *(case(layer, lambda *xs, layer=layer: roi_align(*xs, layer), (2, 3, 6, 5), *ROIS) for layer in ROI_LAYERS),
    case(
        DEFORM["plain"],
        lambda *xs, **weights: deform_conv(*xs, layer=DEFORM["plain"], **weights),
        (2, 4, 5, 6),
        (2, 12, 5, 3),
    ),
    case(
        DEFORM["groups"],
        lambda *xs, **weights: deform_conv(*xs, layer=DEFORM["groups"], **weights),
        (2, 4, 5, 4),
        (2, 16, 3, 3),
        (2, 8, 3, 3),
    ),
    *(
        case(Scatter(1, mine), lambda x, i, u, theirs=theirs: x.scatter_reduce(1, i, u, theirs), x, i, u)
        for mine, theirs in (("mul", "prod"), ("max", "amax"), ("min", "amin"))
        for x, i, u in (
            ((3, 4), places([0, 3, 3], [2, 1, 2]), (2, 3)),
            (places([1.0, 2.0, 2.0]), places([0, 2, 2, 1]), places([3.0, 2.0, 2.0, -1.0])),
        )
    ),
    case(
        Scatter(1, "mul"),
        lambda x, i, u: x.scatter_reduce(1, i, u, "prod"),
        places([0.0, 2.0, 0.0, 3.0]),
        places([0, 2, 2, 3, 3]),
        places([3.0, 2.0, 5.0, 0.0, 4.0]),
    ),
    case(
        Scatter(None, "mul"),
        lambda x, i, u: x.scatter_reduce(0, i.expand(2, 3), u, "prod"),
        (4, 3),
        places([3], [3]),
        (2, 3),
    ),
    case(
        Scatter(None, "max"),
        lambda x, i, u: x.scatter_reduce(0, i.expand(2, 3), u, "amax"),
        (4, 3),
        places([3], [1]),
        (2, 3),
    ),
    case(Cast("float64"), lambda x: x * 1, (2, 3)),
    case(DropoutMask(0.3), lambda x: (x * 1, torch.ones_like(x, dtype=bool)), (2, 3)),
    case(BatchNormTraining(3), batch_norm_training, (2, 3, 4, 2)),
    *(
        case(layer, lambda x, layer=layer: window_pool(x, layer), (2, 3, 6, 5))
        for layer in (
            WindowPool("mean", (2, 3), (2, 1), ((1, 1), (0, 0)), (2, 1)),
            WindowPool("lp", (2, 2), (1, 2), ((1, 1), (1, 1)), (1, 2), power=3),
            WindowPool("lp", (2, 2), (1, 2), ((0, 0), (0, 0)), (1, 1), power=1),
        )
    ),
    case(OnnxLSTM(3, 4, 2, peepholes=True, clip=0.9), None, (5, 2, 3)),
    case(OnnxGRU(3, 4, reverse=True, batch_first=True), None, (2, 5, 3)),
    case(OnnxRNN(3, 4, bias=False, given=("initial_h",)), None, (5, 2, 3), (1, 2, 4)),
    case(MultiheadAttention(6, 2), None, (4, 2, 6), (3, 2, 6), (3, 2, 6), (4, 3)),  # no expression gives a mask
    case(LayerNormStatistics((4,)), None, (2, 3, 4)),
]
"""Cases of the kinds that no expression makes."""


def drawn(stream: np.random.Generator, given: Any) -> np.ndarray:
    """An array: the one that is given, or a random one of this shape, maybe where a function is defined."""
    if isinstance(given, np.ndarray):
        return given
    if given[0] == "inside":
        return stream.uniform(0.1, 0.9, given[1])
    return stream.uniform(1.1, 3, given[1]) if given[0] == "above one" else stream.normal(size=given)


class Drawn(NamedTuple):
    """A case with its numbers: the bound layer, what comes in, and its weights."""

    layer: Layer
    inputs: tuple[np.ndarray, ...]
    weights: dict[str, np.ndarray]


def numbers(index: int) -> Drawn:
    """The numbers of a case, the same every time. Weights are positive, as variances are."""
    stream = np.random.default_rng(index)
    layer, given, _ = CASES[index]
    arrays = tuple(drawn(stream, each) for each in given)
    layer = layer.bind(*(array.shape for array in arrays))
    sizes = {**layer.parameters(), **layer.buffers()}
    return Drawn(layer, arrays, {name: stream.uniform(0.2, 1.2, size) for name, size in sizes.items()})


NAMES = [f"{index}-{each.layer.kind}" for index, each in enumerate(CASES)]
