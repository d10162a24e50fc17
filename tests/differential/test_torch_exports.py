"""ONNX files that PyTorch's two exporters write: parameters, MACs and shape are those of the module."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  torch is imported above or the module is skipped
from torch.nn import functional as F  # noqa: E402  PyTorch's own way of calling it
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from convcalc.analysis.costs import costs  # noqa: E402
from convcalc.nouns import read_network  # noqa: E402

pytestmark = pytest.mark.torch

EXPORTERS = [
    "old",
    pytest.param("new", marks=pytest.mark.skipif(
        importlib.util.find_spec("onnxscript") is None, reason="PyTorch's newer exporter needs onnxscript"
    )),
]  # fmt: skip


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


class UNet(nn.Module):
    """Two levels, with nearest neighbours on the way up, and a crop to what stands beside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.GroupNorm(4, 8), nn.SiLU())
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, 1, 1), nn.InstanceNorm2d(16, affine=True),
                                    nn.InstanceNorm2d(16))  # fmt: skip
        self.last = nn.Conv2d(24, 2, 1)

    def forward(self, x):
        wide = self.first(x)
        up = F.interpolate(self.second(wide), scale_factor=2, mode="nearest")
        return self.last(torch.cat([wide[:, :, : up.shape[2], : up.shape[3]], up], 1))


class Squeezed(nn.Module):
    """MobileNet's block: a depthwise convolution, squeeze and excitation, a way round."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, 1, 2, groups=channels)
        self.activation = activation()
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        y = self.activation(self.depthwise(x))
        return x + self.project(y * self.excite(y))


class Dense(nn.Module):
    """Each convolution reads all before it, and averages shrink what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4 + 4 * i, 4, 3, 1, 1) for i in range(3))
        self.last = nn.Sequential(nn.Conv2d(16, 8, 1), nn.AvgPool2d(2), nn.PReLU(8))

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return self.last(x)


class Shuffled(nn.Module):
    """Half of the channels through a convolution, then all of them mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 1, 1, groups=4)

    def forward(self, x):
        one, other = x.chunk(2, 1)
        x = torch.cat([one, self.conv(other)], 1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class ConvNext(nn.Module):
    """Channels last, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 7, 1, 3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        y = self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + self.scale * y


class Transformer(nn.Module):
    """ViT: patches, a token for the class, places, encoder layers, the head on the token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.places = nn.Parameter(torch.zeros(1, 17, 16))
        self.encoder = nn.Sequential(*(
            nn.TransformerEncoderLayer(16, 4, 32, 0.1, "gelu", batch_first=True, norm_first=True) for _ in range(2)
        ))  # fmt: skip
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.encoder(x)[:, 0])


class Swin(nn.Module):
    """Attention in shifted windows, with a bias for each relative place that a table holds, and patches merged."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.table = nn.Parameter(torch.zeros(49, 2))
        self.out = nn.Linear(8, 8)
        self.merge = nn.Linear(32, 16, bias=False)
        ways = torch.arange(16)
        places = torch.stack([ways // 4, ways % 4])
        apart = (places[:, :, None] - places[:, None]) + 3
        self.register_buffer("index", (apart[0] * 7 + apart[1]).reshape(-1))

    def forward(self, x):
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(16, 16, 2).permute(2, 0, 1)
        share = (q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1)
        y = self.out((share @ v).transpose(1, 2).reshape(-1, 16, channels))
        y = y.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(x.shape), (2, 2), (1, 2))
        parts = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.merge(torch.cat(parts, -1))


class Recurrent(nn.Module):
    """Words, a recurrent layer in both directions, and a layer on its last outputs."""

    def __init__(self, cls: type[nn.Module], layers: int = 1) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.body = cls(8, 12, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.body(self.words(x))[0][:, -1])


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
    "unet": (UNet, (2, 3, 17, 18)),
    "mobilenet": (lambda: nn.Sequential(Squeezed(8, nn.Hardswish), Squeezed(8, nn.ReLU6)), (1, 8, 9, 9)),
    "efficientnet": (lambda: nn.Sequential(Squeezed(8, nn.SiLU), nn.Dropout(0.2)), (2, 8, 9, 9)),
    "densenet": (Dense, (1, 4, 10, 10)),
    "shufflenet": (Shuffled, (2, 8, 6, 5)),
    "convnext": (ConvNext, (1, 8, 12, 12)),
    "vit": (Transformer, (1, 3, 16, 16)),
    "swin": (Swin, (1, 8, 8, 8)),
    "squeezed": (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Mish(), nn.LPPool2d(2, 3), nn.LocalResponseNorm(3)),
                 (1, 3, 14, 14)),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(4, 6, 4, 3, dilation=2), nn.LeakyReLU(), nn.AvgPool1d(2)), (3, 4, 50)),
    "three axes": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.GELU(), nn.MaxPool3d(2)), (1, 2, 9, 9, 9)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(4, 6, 5, 3, 1, 1), nn.ConvTranspose1d(6, 2, 2, 2)),
                   (2, 4, 7)),
}  # fmt: skip


def distinct(module):
    """The module with other numbers in every parameter: exporters write those that are equal once."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(0, 0.1)
    return module.eval()


@contextlib.contextmanager
def quiet():
    """Without what the exporters say of themselves."""
    logging.disable(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def exported(module, x, path, exporter, **more):
    """The file that an exporter writes, as a network."""
    new = {"dynamo": True, "external_data": False, "verbose": False} if exporter == "new" else {"dynamo": False}
    with quiet():
        torch.onnx.export(module, (x,), path, **new, **more)
    return read_network([str(path)])


def measured(module, x):
    """The shape that comes out, and the MACs that PyTorch counts."""
    counter = FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(False)
    # The products of the fused ways of attention are not counted.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        shape = tuple(module(x).shape)
    torch.backends.mha.set_fastpath_enabled(True)
    return shape, counter.get_total_flops() // 2


def parameters(module):
    return sum(tensor.numel() for tensor in module.parameters())


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", MODULES)
def test_an_exported_file_is_the_module(name, exporter, tmp_path):
    make, shape = MODULES[name]
    x = torch.randn(shape)
    module = make().eval()
    with torch.no_grad():
        module(x)  # what is lazy takes its sizes
    report = costs(exported(distinct(module), x, tmp_path / "model.onnx", exporter))
    wanted, macs = measured(module, x)
    assert report.status == "complete"
    assert report.rows[-1].outputs[0] == wanted
    # Exporters look the table of relative places up: 2 times 16x16 biases instead of 49.
    tables = 2 * (16 * 16 - 49) if name == "swin" else 0
    assert report.totals["params"] == parameters(module) + tables
    assert report.totals["macs"] == macs


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("cls", "gates", "layers"), [(nn.LSTM, 4, 1), (nn.GRU, 3, 1), (nn.GRU, 3, 2)])
def test_recurrent_layers(cls, gates, layers, exporter, tmp_path):
    """Their products are counted by hand: PyTorch's counter does not know them."""
    module = distinct(Recurrent(cls, layers))
    report = costs(exported(module, torch.zeros((2, 5), dtype=torch.int64), tmp_path / "model.onnx", exporter))
    assert report.status == "complete"
    assert report.rows[-1].outputs[0] == (2, 3)
    assert report.totals["params"] == parameters(module)
    terms = sum((8 if not layer else 24) + 12 for layer in range(layers))
    assert report.totals["macs"] == 2 * 5 * 2 * gates * 12 * terms + 2 * 24 * 3


def normalised():
    blocks = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)]
    return nn.Sequential(*blocks)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_batch_norms_are_folded_rightly_or_kept(exporter, tmp_path):
    module = distinct(normalised())
    for norm in (module[1], module[4]):
        norm.running_mean.normal_()
    x = torch.randn(1, 3, 9, 9)
    # Scale and bias go into the convolution, which gets a bias if it has none: 2 x 8 less, 8 more; 2 x 6 less.
    folded = costs(exported(module, x, tmp_path / "folded.onnx", exporter))
    assert folded.totals["params"] == parameters(module) - 16 + 8 - 12
    assert folded.totals["macs"] == measured(module, x)[1]
    if exporter == "old":
        kept = exported(module, x, tmp_path / "kept.onnx", exporter, training=torch.onnx.TrainingMode.PRESERVE)
        assert costs(kept).totals["params"] == parameters(module)
        assert sum(sum(shape) for node in kept.nodes for shape in node.layer.buffers().values() if shape) == 2 * (8 + 6)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_names_nest_as_the_modules_do(exporter, tmp_path):
    network = exported(distinct(UNet()), torch.randn(1, 3, 16, 16), tmp_path / "model.onnx", exporter)
    outer = [row.name for row in costs(network, by="module", depth=1).rows]
    assert [name for name in outer if name.count("/") == 1 and name[1].islower()] == ["/first", "/second"]
    assert "/last/Conv" in outer
    inner = [row.name for row in costs(network, by="module", depth=2).rows]
    assert "/first/first.0/Conv" in inner
    assert [name for name in inner if name.startswith("/second/second.1")] == ["/second/second.1/Conv"]
