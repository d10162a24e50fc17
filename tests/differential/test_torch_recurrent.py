"""Stacked recurrent layers and multi-head attention against PyTorch's modules: parameters, shapes and numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  after torch is known to be there

from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402
from convcalc.layers.multihead import MultiheadAttention  # noqa: E402
from convcalc.layers.recurrent import StackedGRU, StackedLSTM, StackedRNN  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def double():
    """Numbers in double precision, so that rounding hides nothing."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights_of(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == tuple(other.shape)
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-10, atol=1e-12)


def same_gradients(module, layer, tensors, wanted, found):
    """Those of the inputs and of every weight, from random ones of the outputs."""
    grads = [torch.randn_like(tensor) for tensor in wanted]
    torch.autograd.backward(wanted, grads)
    arrays = tuple(tensor.detach().numpy() for tensor in tensors)
    grads = tuple(grad.numpy() for grad in grads)
    of_inputs, of_weights = gradient_of(layer)(layer, arrays, found, weights_of(module), grads)
    for one, tensor in zip(of_inputs, tensors, strict=True):
        if tensor.requires_grad:
            np.testing.assert_allclose(one, tensor.grad.numpy(), rtol=1e-8, atol=1e-11)
    assert set(of_weights) == set(layer.parameters())
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(of_weights[name], parameter.grad.numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("seed", range(60))
def test_stacks_are_pytorchs(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    ours, theirs = draw.choice([(StackedLSTM, nn.LSTM), (StackedGRU, nn.GRU), (StackedRNN, nn.RNN)])
    size, hidden, length, batch = (draw.randint(2, 6) for _ in range(4))
    fields = {
        "num_layers": draw.randint(1, 3), "bias": draw.random() < 0.7, "batch_first": draw.random() < 0.5,
        "bidirectional": draw.random() < 0.5,
    }  # fmt: skip
    if ours is StackedLSTM and draw.random() < 0.4:
        fields["proj_size"] = draw.randint(1, hidden - 1)
    if ours is StackedRNN:
        fields["nonlinearity"] = draw.choice(["tanh", "relu"])
    module = theirs(size, hidden, **fields)
    layer = ours(None, hidden, **fields)
    x = torch.randn(batch, length, size) if fields["batch_first"] else torch.randn(length, batch, size)
    x.requires_grad_()
    layer = layer.bind(tuple(x.shape))
    assert dict(layer.parameters()) == {name: value.shape for name, value in weights_of(module).items()}
    first = fields["num_layers"] * (1 + fields["bidirectional"])
    sizes = [fields.get("proj_size", 0) or hidden, hidden][: layer.layer.states]
    states = [torch.randn(first, batch, size, requires_grad=True) for size in sizes] if draw.random() < 0.5 else []
    given = (tuple(states) if len(states) > 1 else states[0]) if states else None
    out, after = module(x, given)
    wanted = [out, *(after if isinstance(after, tuple) else [after])]
    arrays = tuple(array.detach().numpy() for array in (x, *states))
    found = kernel_of(layer)(layer, arrays, weights_of(module))
    assert [array.shape for array in found] == list(layer.infer(tuple(x.shape)))
    same(found, wanted)
    same_gradients(module, layer, [x, *states], wanted, found)


@pytest.mark.parametrize("seed", range(40))
def test_attention_is_pytorchs(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    heads = draw.randint(1, 4)
    size, length, keys, batch = heads * draw.randint(1, 4), *(draw.randint(1, 6) for _ in range(3))
    fields = {"bias": draw.random() < 0.7, "batch_first": draw.random() < 0.5}
    module = nn.MultiheadAttention(size, heads, **fields)
    with torch.no_grad():
        for parameter in module.parameters():  # biases begin as zeros
            parameter.normal_()
    layer = MultiheadAttention(size, heads, **fields)
    assert dict(layer.parameters()) == {name: value.shape for name, value in weights_of(module).items()}

    def tensor(count):
        lead = (batch, count) if fields["batch_first"] else (count, batch)
        return torch.randn(*lead, size, requires_grad=True)

    alone = draw.random() < 0.3
    three = [tensor(length)] * 3 if alone else [tensor(length), tensor(keys), tensor(keys)]
    mask = None
    kind = draw.choice(["", "float", "bool"])
    if kind and not alone:
        mask = torch.randn(length, keys) if kind == "float" else torch.rand(length, keys) < 0.3
        if kind == "bool":
            mask[:, 0] = False
    wanted, _ = module(*three, attn_mask=mask)
    given = [three[0]] if alone else [*three, *([] if mask is None else [mask])]
    found = kernel_of(layer)(layer, tuple(array.detach().numpy() for array in given), weights_of(module))
    same(found, [wanted])
    same_gradients(module, layer, given, [wanted], found)


@pytest.mark.parametrize(
    ("made", "layer", "shape"),
    [
        (lambda: nn.LSTM(3, 6, num_layers=2, bidirectional=True, proj_size=2),
         StackedLSTM(3, 6, 2, bidirectional=True, proj_size=2), (5, 4, 3)),
        (lambda: nn.GRU(3, 4, num_layers=2, batch_first=True), StackedGRU(3, 4, 2, batch_first=True), (5, 4, 3)),
    ],
)  # fmt: skip
def test_products_are_those_of_the_cells(made, layer, shape):
    """Each weight matrix meets a vector once a step and sample."""
    module = made()
    steps = shape[0] * shape[1]
    matrices = sum(value.numel() for name, value in module.named_parameters() if name.startswith("weight"))
    assert layer.cost((shape,), layer.infer(shape)).macs == steps * matrices
