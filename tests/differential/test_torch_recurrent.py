"""Stacked recurrent layers and multi-head attention against PyTorch's modules: parameters, shapes and numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  after torch is known to be there

from convcalc.cli import run_command_line  # noqa: E402
from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402
from convcalc.layers.embedding import Embedding  # noqa: E402
from convcalc.layers.multihead import MultiheadAttention  # noqa: E402
from convcalc.layers.recurrent import GRU, LSTM, RNN  # noqa: E402

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
    ours, theirs = draw.choice([(LSTM, nn.LSTM), (GRU, nn.GRU), (RNN, nn.RNN)])
    size, hidden, length, batch = (draw.randint(2, 6) for _ in range(4))
    fields = {
        "num_layers": draw.randint(1, 3), "bias": draw.random() < 0.7, "batch_first": draw.random() < 0.5,
        "bidirectional": draw.random() < 0.5,
    }  # fmt: skip
    if ours is LSTM and draw.random() < 0.4:
        fields["proj_size"] = draw.randint(1, hidden - 1)
    if ours is RNN:
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
         LSTM(3, 6, 2, bidirectional=True, proj_size=2), (5, 4, 3)),
        (lambda: nn.GRU(3, 4, num_layers=2, batch_first=True), GRU(3, 4, 2, batch_first=True), (5, 4, 3)),
    ],
)  # fmt: skip
def test_products_are_those_of_the_cells(made, layer, shape):
    """Each weight matrix meets a vector once a step and sample."""
    module = made()
    steps = shape[0] * shape[1]
    matrices = sum(value.numel() for name, value in module.named_parameters() if name.startswith("weight"))
    assert layer.cost((shape,), layer.infer(shape)).macs == steps * matrices


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_pytorchs(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    count, size = draw.randint(1, 9), draw.randint(1, 5)
    fields = {"padding_idx": draw.choice([None, draw.randrange(-count, count)]), "max_norm": draw.choice([None, 1.5])}
    fields["norm_type"] = draw.choice([2.0, 1.0])
    module = nn.Embedding(count, size, **fields)
    weights = {"weight": module.weight.detach().numpy().copy()}
    layer = Embedding(count, size, **fields)
    x = torch.randint(0, count, (3, 4))
    found = kernel_of(layer)(layer, (x.numpy(),), weights)
    wanted = module(x)
    same(found, [wanted])
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    _, of_weights = gradient_of(layer)(layer, (x.numpy(),), found, weights, (grad.numpy(),))
    np.testing.assert_allclose(of_weights["weight"], module.weight.grad.numpy(), rtol=1e-12)


PRINTED = {
    "two layers in both directions": lambda first: [nn.LSTM(6, 5, 2, bidirectional=True, batch_first=first)],
    "projected": lambda first: [nn.LSTM(6, 5, proj_size=3, batch_first=first)],
    "gates": lambda first: [nn.GRU(6, 5, 2, bias=False, batch_first=first), nn.GRU(5, 4, batch_first=first)],
    "plain": lambda first: [nn.RNN(6, 5, bidirectional=True, batch_first=first)],
    "words": lambda first: [nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=first), nn.Linear(5, 2)],
}


@pytest.mark.parametrize("shape", [(7,), (3, 7)], ids=["alone", "batch"])
@pytest.mark.parametrize("first", [False, True], ids=["steps first", "batch first"])
@pytest.mark.parametrize("name", PRINTED)
def test_printed_text_is_run_as_pytorch_runs_it(name, first, shape, tmp_path, capsys):
    """print(model) and its weights: with a batch and without, as the module itself takes them."""
    torch.manual_seed(0)
    modules = PRINTED[name](first)
    (tmp_path / "model.txt").write_text(str(nn.Sequential(*modules)))
    np.savez(tmp_path / "w.npz", **{key: value.numpy() for key, value in nn.Sequential(*modules).state_dict().items()})
    words = isinstance(modules[0], nn.Embedding)
    x = torch.randint(0, 20, shape) if words else torch.randn(*shape, 6)
    np.save(tmp_path / "x.npy", x.numpy())
    wanted = x
    for module in modules:
        wanted = module(wanted)[0] if isinstance(module, nn.RNNBase) else module(wanted)
    paths = [str(tmp_path / file) for file in ("x.npy", "model.txt")]
    assert run_command_line(["run", *paths, "-w", str(tmp_path / "w.npz"), "-o", str(tmp_path / "y.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted.detach().numpy(), rtol=1e-9, atol=1e-12)
    said = capsys.readouterr().err
    stack = any(isinstance(module, nn.RNNBase) for module in modules)
    assert ("steps come first" in said) == (stack and not first and len(shape) == 2)
    if len(shape) == 2:  # samples along the first axis, each by itself
        batched = ["run", *paths, "-w", str(tmp_path / "w.npz"), "--batch", "2", "-o", str(tmp_path / "z.npy")]
        assert run_command_line(batched) == 0
        for sample, found in zip(x, np.load(tmp_path / "z.npy"), strict=True):
            for module in modules:
                sample = module(sample)[0] if isinstance(module, nn.RNNBase) else module(sample)  # noqa: PLW2901
            np.testing.assert_allclose(found, sample.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_an_expression_is_run_as_pytorch_runs_it(tmp_path):
    """A transformer's encoder layer in expressions, against PyTorch's own."""
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True).eval()
    own = {key: value.numpy() for key, value in module.state_dict().items()}
    names = {"self_attn": "attend", "linear1": "up", "linear2": "down", "norm1": "norm1", "norm2": "norm2"}
    weights = {f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": value for key, value in own.items()}
    np.savez(tmp_path / "w.npz", **weights)
    x = torch.randn(2, 5, 12)
    np.save(tmp_path / "x.npy", x.numpy())
    layers = (
        "@a mha:12,h3,batch_first,name=attend add:@a layernorm:name=norm1"
        " @b linear:20,name=up relu linear:12,name=down add:@b layernorm:name=norm2"
    )
    out = tmp_path / "y.npy"
    assert (
        run_command_line(
            ["run", str(tmp_path / "x.npy"), *layers.split(), "-w", str(tmp_path / "w.npz"), "-o", str(out)]
        )
        == 0
    )
    np.testing.assert_allclose(np.load(out), module(x).detach().numpy(), rtol=1e-9, atol=1e-12)
