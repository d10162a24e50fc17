"""What each output reads, against the gradients that PyTorch finds."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")

from convcalc.analysis.fields import Reach, axes_of, members  # noqa: E402  after torch is known to be there
from convcalc.analysis.shapes import resolve  # noqa: E402
from convcalc.composition.compose import compose  # noqa: E402
from convcalc.errors import ShapeError  # noqa: E402
from convcalc.expressions import parse_text  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = 96


def drawn(draw: random.Random) -> str:
    """One linear layer over one axis, in PyTorch's words."""
    kernel, stride, dilation = draw.randint(1, 4), draw.randint(1, 3), draw.randint(1, 2)
    return draw.choice(
        [
            f"Conv1d(1, 1, {kernel}, stride={stride}, padding={draw.randint(0, 2)}, dilation={dilation})",
            f"ConvTranspose1d(1, 1, {kernel}, stride={stride}, padding={draw.randint(0, 1)}, dilation={dilation})",
            f"AvgPool1d({kernel}, stride={stride}, padding={draw.randint(0, kernel // 2)})",
            f"Upsample(scale_factor={draw.randint(2, 4)}, mode='{draw.choice(['nearest', 'linear'])}')",
            f"Upsample(size={draw.randint(40, 120)}, mode='{draw.choice(['nearest', 'area'])}')",
            f"Upsample(size={draw.randint(40, 120)}, mode='linear', align_corners={draw.choice([True, False])})",
            f"AdaptiveAvgPool1d({draw.randint(20, 60)})",
        ]
    )


def read_by_gradient(layers: list[str]) -> list[set[int]]:
    """The input elements that move each output, all weights being 1."""
    network = torch.nn.Sequential(*(eval(f"torch.nn.{layer}") for layer in layers)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)
        moved = network(torch.eye(SIZE, dtype=torch.float64)[:, None]) - network(torch.zeros(1, 1, SIZE).double())
    # Sums of positive products: what is read is well above the rounding of interpolation's places.
    return [set(torch.nonzero(column > 1e-7).flatten().tolist()) for column in moved[:, 0].T]


@pytest.mark.parametrize("seed", range(300))
def test_reach_is_what_gradients_show(seed):
    draw = random.Random(seed)
    layers = [drawn(draw) for _ in range(draw.randint(1, 4))]
    text = f"1x{SIZE} Conv1d(1, 1, 1) {' '.join(layer.replace(' ', '') for layer in layers)}"
    network = parse_text(text.replace("Conv1d(1, 1, 1)", "Conv1d(1,1,1)")).network()
    try:
        resolved = resolve(network)
    except ShapeError:
        pytest.skip("nothing is left of the input")
    reach = Reach()
    for item in resolved:
        (axis,) = axes_of(item.layer, 1, item.inputs[0], item.outputs[0])
        reach = reach.then(axis if isinstance(axis, Reach) else axis.reach(), item.outputs[0][2])
    assert compose(network).totals["receptive_field"] == (reach.field,)
    found = read_by_gradient(layers)
    assert len(found) == resolved[-1].outputs[0][2]
    for output, read in enumerate(found):
        mine = set(members(reach.of(output)))
        # At the ends, padding between the layers stands where an axis without ends goes on.
        assert read <= mine
        if mine and min(mine) >= 32 and max(mine) < SIZE - 32:
            assert read == mine, (text, output)
