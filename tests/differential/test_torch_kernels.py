"""Every kernel and every gradient against PyTorch's, on random layers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convcalc.errors import ConvcalcError  # noqa: E402  after torch is known to be there
from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402
from convcalc.layers import find_kind  # noqa: E402
from convcalc.layers.base import Layer  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # PyTorch says that unequal padding costs it a copy.
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

Fields = dict[str, Any]


def sizes(draw: random.Random, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.randint(low, high) for _ in range(rank))


def conv_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    groups = draw.choice([1, 1, 2, channels])
    stride = sizes(draw, rank, 1, 3)
    padding: Any = sizes(draw, rank, 0, 2)
    if draw.random() < 0.2:
        padding, stride = "same", (1,) * rank
    return {
        "in_channels": channels,
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": stride,
        "padding": padding,
        "dilation": sizes(draw, rank, 1, 2),
        "groups": groups,
        "bias": draw.random() < 0.5,
        "padding_mode": draw.choice(["zeros", "zeros", "reflect", "replicate", "circular"]),
    }


def transposed_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    groups = draw.choice([1, 1, 2, channels])
    return {
        "in_channels": channels,
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 4),
        "stride": sizes(draw, rank, 1, 3),
        "padding": sizes(draw, rank, 0, 2),
        "output_padding": sizes(draw, rank, 0, 1),
        "groups": groups,
        "bias": draw.random() < 0.5,
        "dilation": sizes(draw, rank, 1, 3),
    }


def max_pool_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": draw.choice([None, sizes(draw, rank, 1, 3)]),
        "padding": sizes(draw, rank, 0, 1),
        "dilation": sizes(draw, rank, 1, 2),
        "return_indices": draw.random() < 0.5,
        "ceil_mode": draw.random() < 0.5,
    }


def avg_pool_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": draw.choice([None, sizes(draw, rank, 1, 3)]),
        "padding": sizes(draw, rank, 0, 1),
        "ceil_mode": draw.random() < 0.5,
        "count_include_pad": draw.random() < 0.5,
        **({"divisor_override": draw.choice([None, 3])} if rank > 1 else {}),
    }


def linear_fields(draw: random.Random, rank: int, features: int) -> Fields:
    return {"in_features": features, "out_features": draw.randint(1, 5), "bias": draw.random() < 0.5}


Draw = Callable[[random.Random, int, int], Fields]
RANKED: dict[str, Draw] = {
    "Conv": conv_fields,
    "ConvTranspose": transposed_fields,
    "MaxPool": max_pool_fields,
    "AvgPool": avg_pool_fields,
}
UNRANKED: dict[str, Draw] = {"Linear": linear_fields}
PLAIN: dict[str, Fields] = {"ReLU": {}, "Flatten": {}}


def layers(seed: int, count: int) -> Iterator[tuple[str, Fields, tuple[int, ...]]]:
    """A class of PyTorch's, its fields, and an input's shape; whether they fit is for PyTorch to say."""
    draw = random.Random(seed)
    for _ in range(count):
        name = draw.choice([*RANKED, *RANKED, *UNRANKED, *PLAIN])
        rank = draw.randint(1, 3)
        channels = draw.choice([2, 4, 6])
        shape = (draw.randint(1, 2), channels, *sizes(draw, rank, 1, 7))
        if name in RANKED:
            yield f"{name}{rank}d", RANKED[name](draw, rank, channels), shape
        elif name in UNRANKED:
            yield name, UNRANKED[name](draw, rank, shape[-1]), shape
        else:
            yield name, PLAIN[name], shape


def ours(name: str, fields: Fields) -> Layer:
    found = find_kind(name)
    assert found is not None, name
    kind, rank = found
    return kind.layer_class(rank)(**fields)


def compare(name: str, fields: Fields, shape: tuple[int, ...], seed: int) -> bool:
    """Run both in float64, forward and backward. Whether the layer could be run at all."""
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    try:
        module = getattr(torch.nn, name)(**fields).double().eval()
        theirs = module(x)
    except (RuntimeError, ValueError):
        # That both refuse the same is the business of the tests of shapes.
        return False
    wanted = theirs if isinstance(theirs, tuple) else (theirs,)
    layer = ours(name, fields)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    inputs = (x.detach().numpy(),)
    outputs = kernel_of(layer)(layer, inputs, weights)
    assert len(outputs) == len(wanted)
    for mine, their in zip(outputs, wanted, strict=True):
        assert mine.shape == tuple(their.shape)
        np.testing.assert_allclose(mine, their.detach().numpy(), rtol=1e-10, atol=1e-12)
        if np.isinf(mine).any():
            # Dilation can leave a window of padding alone; PyTorch's index for it points outside of the input.
            return True
    if not wanted[0].requires_grad:
        return True
    grad = torch.randn_like(wanted[0])
    wanted[0].backward(grad)
    grads = (grad.numpy(), *(np.zeros(0) for _ in wanted[1:]))
    grad_inputs, grad_weights = gradient_of(layer)(layer, inputs, outputs, weights, grads)
    assert grad_inputs[0] is not None
    np.testing.assert_allclose(grad_inputs[0], x.grad.numpy(), rtol=1e-9, atol=1e-11)
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(grad_weights[key], parameter.grad.numpy(), rtol=1e-9, atol=1e-11)
    return True


@pytest.mark.parametrize("part", range(10))
def test_random_layers_forward_and_backward(part: int) -> None:
    ran = 0
    for index, (name, fields, shape) in enumerate(layers(part, 150)):
        try:
            ran += compare(name, fields, shape, index)
        except (AssertionError, ConvcalcError) as error:
            raise AssertionError(f"{name}({fields}) on {shape}: {error}") from error
    assert ran > 75
