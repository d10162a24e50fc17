"""The gradients of what ONNX has as operators, and PyTorch as functions, against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402  after torch is known to be there
from convcalc.layers.base import Layer  # noqa: E402
from convcalc.layers.elementwise import Clip, Combine, Function, HardSigmoid  # noqa: E402
from convcalc.layers.matmul import Attention, Einsum, Gemm, MatMul  # noqa: E402
from convcalc.layers.recurrent import GRU, LSTM, RNN  # noqa: E402
from convcalc.layers.reduce import Cumulate, Reduce, TopK  # noqa: E402
from convcalc.layers.tensor import (  # noqa: E402
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

pytestmark = pytest.mark.torch
F = torch.nn.functional

Tensor = Any
Case = tuple[Layer, list[Any], Callable[..., Any]]
"""A layer, the shapes or arrays that come in, and the same in PyTorch."""


def places(*values: Any) -> np.ndarray:
    return np.array(values)


def case(layer: Layer, theirs: Callable[..., Any], *inputs: Any) -> Case:
    return layer, list(inputs), theirs


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
    "l2": lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keep),
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
]


def drawn(stream: np.random.Generator, given: Any) -> np.ndarray:
    """An array: the one that is given, or a random one of this shape, maybe where a function is defined."""
    if isinstance(given, np.ndarray):
        return given
    if given[0] == "inside":
        return stream.uniform(0.1, 0.9, given[1])
    return stream.uniform(1.1, 3, given[1]) if given[0] == "above one" else stream.normal(size=given)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: f"{index}-{CASES[index][0].kind}")
def test_the_gradients_are_theirs(index: int) -> None:
    layer, given, theirs = CASES[index]
    stream = np.random.default_rng(index)
    arrays = tuple(drawn(stream, each) for each in given)
    tensors = [torch.tensor(array, requires_grad=array.dtype.kind == "f" and array.ndim > 0) for array in arrays]
    wanted = theirs(*tensors)
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    layer = layer.bind(*(array.shape for array in arrays))
    outputs = kernel_of(layer)(layer, arrays, {})
    for mine, their in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(mine, their.detach().numpy(), rtol=1e-9, atol=1e-12)
    grads = tuple(stream.normal(size=output.shape) for output in outputs)
    learned = [pair for pair in zip(wanted, grads, strict=True) if pair[0].requires_grad]
    torch.autograd.backward([tensor for tensor, _ in learned], [torch.tensor(grad) for _, grad in learned])
    found, none = gradient_of(layer)(layer, arrays, outputs, {}, grads)
    assert none == {}
    for mine, tensor, array in zip(found, tensors, arrays, strict=True):
        if tensor.requires_grad:
            assert mine is not None
            assert mine.shape == array.shape
            np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=1e-9, atol=1e-11)


RECURRENT = [
    (LSTM, torch.nn.LSTM, [0, 3, 1, 2]),
    (GRU, torch.nn.GRU, [1, 0, 2]),
    (RNN, torch.nn.RNN, [0]),
]
"""The layer, PyTorch's, and where ONNX's gates stand among PyTorch's."""


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("ours", "theirs", "order"), RECURRENT, ids=lambda value: getattr(value, "__name__", ""))
def test_recurrent_layers(ours: type, theirs: type, order: list[int], directions: int) -> None:
    torch.manual_seed(0)
    size, hidden, length, batch = 3, 4, 5, 2
    module = theirs(size, hidden, bidirectional=directions == 2).double()
    x = torch.randn(length, batch, size, dtype=torch.float64, requires_grad=True)
    wanted, last = module(x)
    lasts = list(last) if isinstance(last, tuple) else [last]
    named = dict(module.named_parameters())

    def rows(name: str, direction: int) -> torch.Tensor:
        whole = named[f"{name}_l0{'_reverse' * direction}"].detach()
        return torch.cat([whole[place * hidden : (place + 1) * hidden] for place in order])

    def stacked(name: str) -> np.ndarray:
        return np.stack([rows(name, direction).numpy() for direction in range(directions)])

    weights = {"weight_ih": stacked("weight_ih"), "weight_hh": stacked("weight_hh"),
               "bias": np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)}  # fmt: skip
    more = {"linear_before_reset": True} if ours is GRU else {}
    layer = ours(size, hidden, directions=directions, **more)
    outputs = kernel_of(layer)(layer, (x.detach().numpy(),), weights)
    turned = outputs[0].swapaxes(1, 2).reshape(length, batch, -1)
    np.testing.assert_allclose(turned, wanted.detach().numpy(), rtol=1e-9)
    grad = torch.randn_like(wanted)
    grad_lasts = [torch.randn_like(state) for state in lasts]
    torch.autograd.backward([wanted, *lasts], [grad, *grad_lasts])
    grads = (
        grad.numpy().reshape(length, batch, directions, hidden).swapaxes(1, 2),
        *map(torch.Tensor.numpy, grad_lasts),
    )
    (of_x,), learned = gradient_of(layer)(layer, (x.detach().numpy(),), outputs, weights, grads)
    np.testing.assert_allclose(of_x, x.grad.numpy(), rtol=1e-8, atol=1e-11)
    for parameter in named.values():
        parameter.data = parameter.grad
    np.testing.assert_allclose(learned["weight_ih"], stacked("weight_ih"), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(learned["weight_hh"], stacked("weight_hh"), rtol=1e-8, atol=1e-11)
    biases = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    np.testing.assert_allclose(learned["bias"], biases, rtol=1e-8, atol=1e-11)
