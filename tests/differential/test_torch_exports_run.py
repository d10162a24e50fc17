"""ONNX files that PyTorch itself writes, run: the numbers are the module's."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as TF  # noqa: E402  torch is imported above or the module is skipped
from torch import nn  # noqa: E402

from convcalc.executor.run import run  # noqa: E402
from convcalc.onnx.file import OnnxModel  # noqa: E402

pytestmark = pytest.mark.torch


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


class Reader(nn.Module):
    """A recurrent layer, and a linear one on what it says last."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        return self.last(self.layer(x)[0][:, -1])


class Attending(nn.Module):
    """Attention of one tensor to another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x, y):
        return self.attention(x, y, y)[0]


def floats(*shape):
    return lambda: torch.randn(shape)


def places(most, *shape):
    return lambda: torch.randint(0, most, shape)


def grid(*shape):
    return lambda: torch.rand(shape) * 3 - 1.5


CASES = {
    "lstm": (lambda: Reader(nn.LSTM), floats(2, 7, 8)),
    "gru": (lambda: Reader(nn.GRU), floats(2, 7, 8)),
    "rnn": (lambda: Reader(nn.RNN), floats(2, 7, 8)),
    "multi-head attention": (Attending, floats(2, 7, 16), floats(2, 5, 16)),
    "causal attention": (
        lambda: Lambda(partial(TF.scaled_dot_product_attention, is_causal=True)), *[floats(2, 4, 6, 8)] * 3
    ),
    **{
        f"{mode} by {factor}": (
            lambda mode=mode, factor=factor: Lambda(partial(TF.interpolate, scale_factor=factor, mode=mode)),
            floats(1, 3, 9, 7),
        )
        for mode in ("nearest", "bilinear", "bicubic")
        for factor in (2.0, 0.6, 1.7)
    },
    "corners": (
        lambda: Lambda(partial(TF.interpolate, size=(13, 5), mode="bilinear", align_corners=True)), floats(1, 3, 9, 7)
    ),
    **{
        f"grid {mode} {padding}": (
            lambda mode=mode, padding=padding: Lambda(
                partial(TF.grid_sample, mode=mode, padding_mode=padding, align_corners=False)
            ),
            floats(1, 3, 9, 7),
            grid(1, 5, 6, 2),
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
    },
    "fold": (lambda: nn.Fold((6, 7), (2, 3), padding=1, stride=2), floats(1, 12, 16)),
    "unfold": (lambda: nn.Unfold((2, 3), padding=1, stride=2), floats(1, 2, 6, 7)),
    "scatter": (
        lambda: Lambda(lambda x, i, s: x.scatter_add(1, i, s)), floats(3, 5), places(5, 3, 4), floats(3, 4)
    ),
    "put": (
        lambda: Lambda(lambda x, v: x.index_put((torch.tensor([0, 2]),), v)), floats(3, 5), floats(2, 5)
    ),
    "one-hot": (lambda: Lambda(partial(TF.one_hot, num_classes=6)), places(6, 3, 4)),
    "embedding": (lambda: nn.Embedding(10, 4), places(10, 3, 4)),
    "cross entropy": (lambda: Lambda(TF.cross_entropy), floats(3, 5), places(5, 3)),
    "gelu": (nn.GELU, floats(3, 500)),
    "top": (lambda: Lambda(partial(torch.topk, k=3)), floats(3, 5)),
    "sums": (lambda: Lambda(partial(torch.cumsum, dim=1)), floats(3, 5)),
    "triangle": (lambda: Lambda(partial(torch.tril, diagonal=1)), floats(5, 5)),
    "power pool": (lambda: nn.LPPool2d(2, 3, 2), floats(1, 3, 8, 8)),
    "shuffle": (lambda: nn.PixelShuffle(2), floats(1, 8, 4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_exported_module_gives_its_numbers(name, tmp_path):
    torch.manual_seed(0)
    make, *inputs = CASES[name]
    module, given = make().eval(), tuple(one() for one in inputs)
    names = [f"x{place}" for place in range(len(given))]
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, given, path, dynamo=False, input_names=names, opset_version=20)
    with torch.no_grad():
        wanted = module(*given)
    found = run(OnnxModel(path, "m.onnx"), dict(zip(names, (x.numpy() for x in given), strict=True))).outputs
    expected = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
    for one, other in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-5)
