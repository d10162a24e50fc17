"""ONNX files that PyTorch itself writes: parameters, MACs and output shape are those of the module."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  torch is imported above or the module is skipped
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from convcalc.analysis.costs import costs  # noqa: E402
from convcalc.nouns import read_network  # noqa: E402

pytestmark = pytest.mark.torch


class Residual(nn.Module):
    """Two convolutions with a way round them."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, stride, 1), nn.ReLU(), nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1)
        )
        self.way = nn.Conv2d(channels, 2 * channels, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.way(x))


class Upwards(nn.Module):
    """Down, up again, and concatenated with what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=2)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.last(torch.cat([x, self.up(torch.sigmoid(self.down(x)))], 1))


MODULES = {
    "chain": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2), nn.Hardswish(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 10), nn.Softmax(-1),
        ),
        (2, 3, 33, 35),
    ),
    "residual": (lambda: nn.Sequential(Residual(4), Residual(8, 2)), (1, 4, 16, 16)),
    "upwards": (Upwards, (1, 8, 12, 12)),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(4, 6, 4, 3, dilation=2), nn.LeakyReLU(), nn.AvgPool1d(2)), (3, 4, 50)),
    "three axes": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.GELU(), nn.MaxPool3d(2)), (1, 2, 9, 9, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_an_exported_file_is_the_module(name, tmp_path):
    make, shape = MODULES[name]
    module, x = make().eval(), torch.randn(shape)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no other package calls itself old
        torch.onnx.export(module, (x,), path, dynamo=False)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        wanted = tuple(module(x).shape)
    report = costs(read_network([str(path)]))
    assert report.status == "complete"
    assert report.rows[-1].outputs[0] == wanted
    assert report.totals["params"] == sum(parameter.numel() for parameter in module.parameters())
    assert report.totals["macs"] == counter.get_total_flops() // 2
