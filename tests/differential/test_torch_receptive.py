"""Receptive fields of whole networks against the inputs for which PyTorch's gradient is not 0."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from convcalc.analysis.receptive_field import receptive_fields  # noqa: E402  after torch is known to be there
from convcalc.network import Network  # noqa: E402
from convcalc.nouns import read_network  # noqa: E402

pytestmark = pytest.mark.torch
EXAMPLES = Path(__file__).parents[2] / "examples"


def along_one_axis(network: Network, given, until: str):
    """The network on one channel and one axis, all weights equal and positive, so that no gradient cancels."""
    functional = torch.nn.functional
    tensors = {"input": given}
    for node in network.nodes:
        layer = node.layer
        came = [tensors[name] for name in node.inputs]
        if layer.kind in ("conv", "maxpool", "avgpool", "convt"):
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            weight = torch.full((1, 1, kernel), 1.0 / kernel, dtype=torch.float64)
            apply = functional.conv_transpose1d if layer.kind == "convt" else functional.conv1d
            pad = layer.padding[0][0]
            made = apply(came[0], weight, stride=stride, padding=pad)
        elif layer.kind in ("add", "concat"):
            made = sum(came)
        elif layer.kind == "crop":
            cut = (came[0].shape[-1] - came[1].shape[-1]) // 2
            made = came[0][..., cut : cut + came[1].shape[-1]]
        else:
            made = came[0]
        tensors[node.outputs[0]] = made
        if node.name == until:
            return made
    raise AssertionError(until)


@pytest.mark.parametrize(
    ("name", "kind", "length"),
    [
        ("resnet18", "add", 1504),
        ("resnet34", "add", 3008),
        ("resnet50", "add", 1504),
        ("googlenet", "concat", 1504),
        ("densenet121", "concat", 7008),
        ("vgg16", "maxpool", 1504),
        ("unet", "conv", 1148),
    ],
)
def test_known_networks(name: str, kind: str, length: int) -> None:
    network = read_network([str(EXAMPLES / f"{name}.txt")])
    report = receptive_fields(network)
    row = [row for row in report.rows if row.kind == kind][-1]
    given = torch.zeros(1, 1, length, dtype=torch.float64, requires_grad=True)
    made = along_one_axis(network, given, row.name)
    middle = made.shape[-1] // 2
    spans = []
    for output in range(middle, middle + 17):
        if output >= made.shape[-1]:
            break
        (gradient,) = torch.autograd.grad(made[0, 0, output], given, retain_graph=True)
        places = gradient[0, 0].nonzero().flatten()
        spans.append((int(places[0]), int(places[-1]) + 1))
        # A field that touches an end of the input would be cut there.
        assert spans[-1][0] > 0
        assert spans[-1][1] < length
    assert row.values["receptive_field"][0] == max(end - start for start, end in spans)
    jump = row.values["jump"][0]
    if len(spans) == 17:
        assert spans[16][0] - spans[0][0] == 16 * jump
    assert spans[0][0] == row.values["offset"][0] + middle * jump or kind == "conv"
