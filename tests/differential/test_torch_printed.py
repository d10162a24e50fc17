"""What PyTorch really prints: every class of this project's table, and random models against their own counts."""

from __future__ import annotations

import inspect
import random
import warnings
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402  after torch is known to be there

from convcalc.analysis.costs import costs  # noqa: E402
from convcalc.analysis.memory import memory  # noqa: E402
from convcalc.analysis.shapes import shapes  # noqa: E402
from convcalc.layers import LAYERS, SEQUENCES, find_kind  # noqa: E402
from convcalc.network import tensor_names  # noqa: E402
from convcalc.torch_text import PrintedModel  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.torch

ARGUMENTS = {
    "in_channels": 4, "out_channels": 4, "kernel_size": 2, "output_size": 3, "num_features": 4, "num_groups": 2,
    "num_channels": 4, "normalized_shape": (8,), "in_features": 8, "out_features": 5, "padding": 1, "size": 3,
    "unflattened_size": (2, 2), "dim": 1, "groups": 2, "upscale_factor": 2, "downscale_factor": 2, "threshold": 0.1,
    "value": 0.5, "norm_type": 2, "output_ratio": 0.5, "scale_factor": 2,
}  # fmt: skip
TWO_INPUTS = ("MaxUnpool",)
NOT_PRINTED = ("FractionalMaxPool",)
NOT_OF_PYTORCH = {"Add", "Mul", "Concat", "Crop", "Reshape", "Permute", "GlobalAvgPool", "GlobalMaxPool"} | {
    "Pad1d", "Pad2d", "Pad3d", "FractionalMaxPool1d", "Scale", "Shift", "MatMul", "Attention",
}  # fmt: skip


def class_names() -> list[str]:
    """Those that take images; layers over sequences stand beside PyTorch's in test_torch_recurrent."""
    names = []
    for kind in (kind for name, kind in LAYERS.items() if name not in SEQUENCES):
        names += [kind.classes] if isinstance(kind.classes, str) else list(kind.classes)
    return [name for name in names if hasattr(nn, name)]


def made(name: str):
    """A module of a class with what its constructor needs."""
    cls = getattr(nn, name)
    needed = {
        name: ARGUMENTS[name]
        for name, parameter in inspect.signature(cls).parameters.items()
        if (parameter.default is inspect.Parameter.empty and name in ARGUMENTS)
    }
    if name.startswith(("Upsampl", "FractionalMaxPool")):
        needed |= {"scale_factor": 2} if name.startswith("Ups") else {"kernel_size": 2, "output_size": 3}
    return cls(**needed)


def given_to(name: str) -> tuple[int, ...]:
    """An input that the class takes."""
    rank = int(name[-2]) if name[-1] == "d" and name[-2].isdigit() else 2
    return 2, 4, *((8,) * rank)


def test_every_class_has_its_counterpart() -> None:
    table = {name for kind in LAYERS.values() for name in (
        [kind.classes] if isinstance(kind.classes, str) else kind.classes
    )}  # fmt: skip
    assert {name for name in table if not hasattr(nn, name)} <= NOT_OF_PYTORCH


@pytest.mark.parametrize("name", class_names())
def test_every_class_as_it_prints(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = made(name).eval()
    # Columns come of an image only.
    model = nn.Sequential(nn.Unfold(2), nn.Fold(8, 2)) if name == "Fold" else nn.Sequential(module)
    report = costs(PrintedModel(str(model), "model").network(given_to(name)))
    assert report.totals["params"] == sum(parameter.numel() for parameter in module.parameters())
    if name.startswith((*NOT_PRINTED, *TWO_INPUTS)):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = tuple(model(torch.zeros(given_to(name))).shape)
    assert report.rows[-1].outputs == (wanted,)
    assert report.status == "complete"


OTHER_VALUES = {
    bool: lambda value: not value, int: lambda value: value + 1, float: lambda value: value + 0.25,
}  # fmt: skip
SPECIAL = {
    "padding_mode": "circular", "mode": "bilinear", "approximate": "tanh", "padding": 1, "stride": 3, "dilation": 2,
    "divisor_override": 7, "align_corners": True, "recompute_scale_factor": True, "end_dim": 2, "start_dim": 2,
    "output_size": 2, "kernel_size": 3, "in_channels": 4, "num_features": 4, "num_channels": 4,
    "normalized_shape": (8, 8), "lower": 0.2, "in_features": 8,
    "unflattened_size": (4, 1), "num_parameters": 4, "dim": 1, "groups": 4, "size": 4,
}  # fmt: skip
NO_FIELDS = ("device", "dtype", "args", "kwargs", "_random_samples", "process_group", "min_value", "max_value", "init")
"""What changes no answer, or is another name for what does."""
LEFT_OUT = {
    "ceil_mode", "count_include_pad", "divisor_override", "align_corners", "recompute_scale_factor", "inplace",
    "return_indices", "bias",
}  # fmt: skip
"""What some classes do not print; bias of an instance norm that has no weights."""


def variations() -> list[tuple[str, str]]:
    return [
        (name, field)
        for name in class_names()
        if not name.startswith(NOT_PRINTED)
        for field in inspect.signature(getattr(nn, name)).parameters
        if field not in NO_FIELDS
    ]


@pytest.mark.parametrize(("name", "field"), variations())
def test_what_a_class_prints_and_what_it_leaves_out(name: str, field: str) -> None:
    """An argument that changes the text changes the layer; one that does not is said by the verbs that it concerns."""
    cls = getattr(nn, name)
    parameters = inspect.signature(cls).parameters
    given = {key: ARGUMENTS[key] for key, one in parameters.items() if one.default is inspect.Parameter.empty}
    if name.startswith("Upsampl") and field != "size":
        given["scale_factor"] = 2.0
    if field == "align_corners":
        given["mode"] = "bilinear"
    plain = parameters[field].default
    value = SPECIAL[field] if field in SPECIAL else OTHER_VALUES.get(type(plain), lambda _: 1)(plain)
    if name.startswith("LPPool") and field == "norm_type":
        value = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one, other = cls(**given), cls(**{**given, field: value})
        except ValueError:
            assert (name[:-2], field) == ("ConvTranspose", "padding_mode")  # zeros alone
            return
    found, rank = find_kind(name)
    made_here = found.layer_class(rank)(**{**given, field: value})
    text = f"Sequential(\n  (0): {other!r}\n)"
    network = PrintedModel(text, "model").network(given_to(name))
    node = network.nodes[0]
    if repr(one) != repr(other):
        assert node.layer == made_here
        return
    same = type(node.layer)(**{**given, field: value}) == node.layer
    assert same or field in LEFT_OUT
    outputs = tensor_names(node.name, made_here)
    for verb, key in ((costs, "flops"), (memory, "activations"), (shapes, None)):
        taken = verb(network)
        there = verb(replace(network, nodes=(replace(node, layer=made_here, outputs=outputs, unsaid=()),)))
        if key is None:
            changes = taken.answer != there.answer
        else:
            changes = any(taken.totals[name] != there.totals[name] for name in (key, "params") if name in taken.totals)
        assert any(item.message.startswith(f"{field} is not printed") for item in taken.diagnostics) == changes


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "made",
    [
        lambda: nn.LSTM(3, 4),
        lambda: nn.LSTM(3, 6, num_layers=3, bidirectional=True, proj_size=2),
        lambda: nn.GRU(3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.1),
        lambda: nn.RNN(3, 4, bidirectional=True, nonlinearity="relu"),
        lambda: nn.LSTMCell(3, 4),
        lambda: nn.GRUCell(3, 4, bias=False),
        lambda: nn.RNNCell(3, 4),
        lambda: nn.Embedding(10, 3, padding_idx=1, max_norm=2.0),
        lambda: nn.EmbeddingBag(10, 3, mode="sum"),
        lambda: nn.Bilinear(3, 4, 5, bias=False),
    ],
)
def test_recurrent_modules_and_those_of_which_only_parameters_are_known(made) -> None:
    module = made()
    words = isinstance(module, nn.Embedding)
    report = costs(PrintedModel(str(nn.Sequential(module)), "model").network((6,) if words else (6, 3)))
    assert report.totals["params"] == sum(parameter.numel() for parameter in module.parameters())
    assert "params" not in report.partial
    if isinstance(module, nn.RNNBase | nn.Embedding):
        given = torch.zeros(6, dtype=torch.long) if words else torch.zeros(6, 3)
        assert [tuple(shape) for shape in report.rows[-1].outputs] == [tuple(x.shape) for x in flat(module(given))]
        assert report.status == "complete"
    else:
        assert report.totals["macs"] is None


def flat(outputs) -> list[torch.Tensor]:
    """The tensors of nested tuples."""
    return [outputs] if isinstance(outputs, torch.Tensor) else [x for each in outputs for x in flat(each)]


def random_model(draw: random.Random, depth: int = 0):
    """A module with 8 channels in and out that keeps 8x8: leaves, chains, lists and containers of somebody's own."""

    class Somebodys(nn.Module):
        def __init__(self, **modules) -> None:
            super().__init__()
            for name, module in modules.items():
                self.add_module(name, module)

    leaves = [
        lambda: nn.Conv2d(8, 8, 3, padding=1, bias=draw.random() < 0.5),
        lambda: nn.Conv2d(8, 8, 3, padding="same", groups=draw.choice([1, 2, 8]), padding_mode="reflect"),
        lambda: nn.ConvTranspose2d(8, 8, 1),
        lambda: nn.BatchNorm2d(8, affine=draw.random() < 0.8, momentum=None),
        lambda: nn.GroupNorm(draw.choice([1, 2, 4]), 8),
        lambda: nn.PReLU(draw.choice([1, 8])),
        lambda: nn.Sequential(nn.AvgPool2d(2, ceil_mode=False), nn.Upsample(scale_factor=2, mode="bilinear")),
        lambda: nn.Linear(8, 8),
        lambda: nn.LayerNorm([8, 8], elementwise_affine=draw.random() < 0.5),
        draw.choice([nn.ReLU, nn.GELU, nn.SiLU, nn.Identity, nn.Hardswish, nn.Dropout]),
    ]
    pick = draw.random()
    if depth > 3 or pick < 0.5:
        return draw.choice(leaves)()
    inside = [random_model(draw, depth + 1) for _ in range(draw.randint(1, 4))]
    if pick < 0.75:
        return nn.Sequential(*inside)
    if pick < 0.85:
        return nn.ModuleList([*inside, nn.ReLU(), nn.ReLU(), nn.ReLU()])
    if pick < 0.9:
        return nn.MultiheadAttention(8, 2, bias=draw.random() < 0.5)
    return Somebodys(**{f"part{index}": module for index, module in enumerate(inside)})


@pytest.mark.parametrize("seed", range(150))
def test_random_models(seed: int) -> None:
    draw = random.Random(seed)
    model = nn.Sequential(random_model(draw), random_model(draw), random_model(draw)).eval()
    text = str(model)
    network = PrintedModel(text, "model").network((8, 8, 8))
    report = costs(network)
    assert report.totals["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert ("params" in report.partial) == ("Somebodys" in text)
    buffers = sum(buffer.numel() for name, buffer in model.named_buffers() if not name.endswith("num_batches_tracked"))
    scalars = sum(name.endswith("num_batches_tracked") for name, _ in model.named_buffers())
    assert memory(network).totals["buffers"] in (4 * buffers + 4 * scalars, 4 * buffers + 8 * scalars)
    names = {name for name, module in model.named_modules() if not list(module.children())}
    found = {row.name for row in report.rows}
    assert {name for name in names if not name.endswith("out_proj")} <= found | {""}
    if not any(word in text for word in ("Somebodys", "ModuleList", "Multihead")):
        assert report.status == "complete"
        assert report.rows[-1].outputs[0] == tuple(model(torch.zeros(1, 8, 8, 8)).shape[1:])


@pytest.mark.parametrize("given", [{}, {"norm_first": True}, {"activation": "gelu"}, {"bias": False}])
def test_an_encoder_costs_what_torch_counts(given: dict[str, object]) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **given)
    model = nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 3, nn.LayerNorm(16), False), nn.Linear(16, 2))
    # In training mode, so that torch does not take its fused kernel, which its counter does not know.
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 10, 6))
    report = costs(PrintedModel(str(model), "model").network((10, 6)))
    assert report.totals["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert report.totals["macs"] == counter.get_total_flops() // 2
    assert (report.status, report.rows[-1].outputs) == ("complete", ((10, 2),))


@pytest.mark.parametrize("parametrize", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrised_modules_own_what_torch_counts(parametrize: str) -> None:
    model = nn.Sequential(getattr(torch.nn.utils.parametrizations, parametrize)(nn.Conv2d(3, 4, 3)), nn.ReLU())
    report = costs(PrintedModel(str(model), "model").network((3, 8, 8)))
    assert report.totals["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert report.totals["macs"] == 6 * 6 * 4 * 27
    assert "params" not in report.partial
