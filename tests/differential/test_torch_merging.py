"""Merged layers against the layers themselves, both run by PyTorch: 2,000 random chains of every rank."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  after torch is known to be there
from torch.nn import functional  # noqa: E402

from convcalc.composition.compose import compose  # noqa: E402
from convcalc.errors import UnsupportedOpError  # noqa: E402
from convcalc.executor.run import run  # noqa: E402
from convcalc.expressions import parse_text  # noqa: E402

pytestmark = pytest.mark.torch

CHAINS = 10
"""Of each seed."""
CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def drawn(draw, rank, channels):
    """A linear layer of PyTorch, or one that is not, and the channels that come out."""
    kind = draw.choice(["Conv", "Conv", "Conv", "ConvTranspose", "AvgPool", "BatchNorm", "ZeroPad", "Upsample", "ReLU"])
    kernel = [draw.randint(1, 3) for _ in range(rank)]
    if kind in ("Conv", "ConvTranspose"):
        groups = draw.choice([number for number in (1, 1, 2, 3) if channels % number == 0])
        after = groups * draw.randint(1, 3)
        fields = {"stride": draw.choice([1, 1, 2]), "padding": draw.randint(0, 2), "dilation": draw.choice([1, 1, 2]),
                  "groups": groups, "bias": draw.random() < 0.6}  # fmt: skip
        if kind == "Conv":
            fields["padding_mode"] = draw.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
        else:
            fields["output_padding"] = draw.randint(0, fields["stride"] - 1)
        return getattr(nn, f"{kind}{rank}d")(channels, after, tuple(kernel), **fields), after
    if kind == "AvgPool":
        size = draw.randint(1, 3)
        counted, ceil = draw.random() < 0.5, draw.random() < 0.3
        return getattr(nn, f"AvgPool{rank}d")(size, draw.randint(1, 2), size // 2, ceil, counted), channels
    if kind == "BatchNorm":
        norm = getattr(nn, f"BatchNorm{rank}d")(channels, affine=draw.random() < 0.7)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        return norm, channels
    if kind == "ZeroPad":
        return getattr(nn, f"ZeroPad{rank}d")(tuple(draw.randint(0, 2) for _ in range(2 * rank))), channels
    return (nn.Upsample(scale_factor=2) if kind == "Upsample" else draw.choice([nn.ReLU(), nn.Dropout()])), channels


def module(draw, rank):
    """A chain and its input; None where an input is too small for it."""
    channels = draw.choice([1, 2, 3, 4, 6])
    x = torch.randn(1, channels, *(draw.randint(6, (20, 12, 8)[rank - 1]) for _ in range(rank)), dtype=torch.float64)
    layers = [getattr(nn, f"AvgPool{rank}d")(1)]  # says the rank
    for _ in range(draw.randint(2, 4)):
        layer, channels = drawn(draw, rank, channels)
        layers.append(layer)
    try:
        out = nn.Sequential(*layers).double().eval()(x)
    except RuntimeError:
        return None
    if out.numel() > 5000 or not out.numel():
        return None
    if draw.random() < 0.2:
        layers += [nn.Flatten(), nn.Linear(out.numel(), 3), nn.Linear(3, 2, bias=False)]
    return nn.Sequential(*layers).double().eval(), x


def written(layer):
    """The text of a layer; PyTorch's own leaves out how an average counts."""
    if type(layer).__name__.startswith("AvgPool"):
        fields = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        return f"{type(layer).__name__}({', '.join(f'{field}={getattr(layer, field)}' for field in fields)})"
    return str(layer)


def by_torch(layer, arrays, x):
    """One merged layer, with padding before and after that PyTorch's layers do not have."""
    pads, rank = layer["padding"], len(layer["kernel_size"])
    weight = torch.from_numpy(arrays["0.weight"])
    bias = torch.from_numpy(arrays["0.bias"]) if "0.bias" in arrays else None
    if layer["kind"] == "conv":
        mode = layer["layer"].rpartition("padding_mode=")[2] if "padding_mode" in layer["layer"] else "constant"
        flat = [end for pair in reversed(pads) for end in pair]
        return CONV[rank](functional.pad(x, flat, mode), weight, bias, layer["stride"], 0, layer["dilation"],
                          x.shape[1] // weight.shape[1])  # fmt: skip
    full = TRANSPOSED[rank](x, weight, None, layer["stride"], 0, 0, layer["groups"], layer["dilation"])
    flat = [end for (before, after), more in zip(reversed(pads), reversed(layer["output_padding"]), strict=True)
            for end in (-before, more - after)]  # fmt: skip
    cut = functional.pad(full, flat)
    return cut if bias is None else cut + bias.reshape(1, -1, *(1,) * rank)


def inside(array, border):
    places = tuple(slice(before, max(size - after, before))
                   for (before, after), size in zip(border, array.shape[1:], strict=False))  # fmt: skip
    return array[:, *places] if array.ndim > 1 else array


@pytest.mark.parametrize("seed", range(200))
def test_merged_chains(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    done = 0
    while done < CHAINS:
        made = module(draw, 1 + seed % 3)
        if made is None:
            continue
        chain, x = made
        text = "\n".join(map(written, chain))
        shape = "x".join(map(str, x.shape[1:]))
        network = parse_text(f"{shape}\n{text}").network()
        weights = {name: array.numpy() for name, array in chain.state_dict().items() if "num_batches" not in name}
        try:
            report = compose(network, weights)
        except UnsupportedOpError:  # nothing but layers that are not linear
            continue
        if "merged" not in report.totals:
            continue
        done += 1
        with torch.no_grad():
            expected = chain(x)[0].numpy()
        merged = parse_text(f"{shape} {report.totals['merged']}").network()
        found = run(merged, x[0].numpy(), dict(report.arrays)).output
        assert found.shape == expected.shape, text
        border = report.totals.get("border")
        if border is None:
            continue
        scale = max(np.abs(expected).max(), 1e-9)
        np.testing.assert_allclose(inside(found, border), inside(expected, border), rtol=0, atol=1e-10 * scale,
                                   err_msg=text)  # fmt: skip
        (first, *more) = report.merged
        if len(merged.nodes) > 1 or more or first.kind == "linear":
            continue
        layer = {"kind": first.kind, "layer": first.layer, "groups": merged.nodes[0].layer.groups, **first.values}
        with torch.no_grad():
            again = by_torch(layer, report.arrays, x)[0].numpy()
        np.testing.assert_allclose(inside(again, border), inside(expected, border), rtol=0, atol=1e-10 * scale,
                                   err_msg=text)  # fmt: skip
