"""What torch.fx prints of models with branches: parameters, shape and MACs are those that torch counts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402  after torch is known to be there

from convcalc.analysis.costs import costs  # noqa: E402
from convcalc.analysis.memory import memory  # noqa: E402
from convcalc.executor.run import compute, prepare  # noqa: E402
from convcalc.torch_text import PrintedModel  # noqa: E402

nn = torch.nn
F = nn.functional
pytestmark = pytest.mark.torch


class Residual(nn.Module):
    """One ReLU for all, a function, and an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.act(self.convs(x))
        y = F.relu(self.convs[1](y), inplace=True)
        y += x
        return self.act(y)


class UNet(nn.Module):
    """A concatenation, an upsampling to a size that is read off, and sizes computed from shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner, self.up = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(11, 4, 1)

    def forward(self, x):
        y = F.max_pool2d(F.relu(self.down(x)), 2)
        y = F.interpolate(self.inner(y), size=x.shape[-2:])
        y = torch.cat([y, x], dim=1)
        n, c = y.size(0), y.size(1)
        return self.up(y.view(n, c, y.size(2), -1)).mean([2, 3])


class Shuffled(nn.Module):
    """Halves, a channel shuffle by hand, arithmetic with numbers, and a product of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 5)

    def forward(self, x):
        one, two = x.chunk(2, dim=1)
        y = torch.cat((one, self.conv(two)), 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        y = 1 - torch.sigmoid(y * 0.5 + 1)
        y = F.adaptive_avg_pool2d(F.dropout(y, 0.2), 2).flatten(2)
        return self.linear(torch.matmul(y.transpose(1, 2), y).unsqueeze(1).squeeze(1).flatten(1).repeat(1, 4)[:, :64])


class Attending(nn.Module):
    """Attention to itself, and a token of the model's own that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.place = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, x):
        x = self.norm(x) + self.place
        return x + self.attend(x, x, x)[0]


def counted(model, shape: tuple[int, ...]):
    model = model.eval()
    text = str(torch.fx.symbolic_trace(model))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(torch.zeros(1, *shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return PrintedModel(text, "model").network(shape), parameters, counter.get_total_flops() // 2, tuple(output.shape)


@pytest.mark.parametrize(("model", "shape"), [(Residual, (8, 6, 6)), (UNet, (3, 33, 35))])
def test_models_with_branches_are_exact(model, shape: tuple[int, ...]) -> None:
    network, parameters, macs, output = counted(model(), shape)
    report = costs(network)
    assert (report.totals["params"], report.totals["macs"]) == (parameters, macs)
    assert (report.status, report.rows[-1].outputs) == ("complete", (output[1:],))
    assert [item.message for item in report.diagnostics] == [
        "the modules are wired as the code says that is printed below them"
    ]
    assert memory(network, train=True).status == "complete"


def test_a_module_that_is_called_twice_has_its_parameters_once() -> None:
    network, *_ = counted(Residual(), (8, 6, 6))
    assert [node.name for node in network.nodes] == [
        "convs.0", "convs.1", "act", "convs.1.2", "relu", "add", "act.2"
    ]  # fmt: skip
    assert [row.values["params"] for row in costs(network).rows] == [576, 16, 0, 0, 0, 0, 0]


def test_what_is_not_known_is_named_and_the_rest_counted() -> None:
    network, parameters, macs, _ = counted(Shuffled(), (8, 5, 5))
    report = costs(network)
    assert report.totals["params"] == parameters
    linear = 64 * 5
    assert report.totals["macs"] == macs - linear
    assert "not known, and counted nowhere: repeat (repeat)" in report.diagnostics[-1].message


def test_a_tensor_of_the_models_own_is_named() -> None:
    network, parameters, _, output = counted(Attending(), (5, 8))
    report = costs(network)
    assert report.totals["params"] == parameters - 8
    assert {"params", "flops"} <= report.partial
    assert any("the size of place is not printed" in item.message for item in report.diagnostics)
    assert report.rows[-1].outputs == (output[1:],)
    # torch counts neither attention's products nor its projections in its fast path; by hand:
    assert report.totals["macs"] == 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 64


@pytest.mark.parametrize(("model", "shape"), [(Residual, (8, 6, 6)), (UNet, (3, 33, 35))])
def test_what_torch_fx_prints_runs(model, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = model().eval()
    network, *_ = counted(module, shape)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    given = torch.randn(1, *shape)
    found = compute(prepare(network, given.numpy(), weights=weights)).output
    assert abs(found - module(given).detach().numpy()).max() < 1e-5


class Reading(nn.Module):
    """Words, recurrent layers that hand their states on, one of them called twice, and what they say last."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.reader, self.again = nn.LSTM(6, 5, batch_first=first), nn.LSTM(5, 5, batch_first=first)
        self.gates = nn.GRU(5, 4, 2, bidirectional=True, batch_first=first)
        self.last, self.cell = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x):
        y, states = self.reader(self.words(x))
        y, (hidden, cell) = self.again(y, states)
        y, _ = self.again(y, (hidden, cell))
        _, last = self.gates(y)
        return torch.cat([self.last(last[-1]), self.cell(cell[0] + hidden.squeeze(0))], 1)


@pytest.mark.parametrize("first", [True, False])
def test_states_of_recurrent_layers_go_where_the_code_says(first: bool) -> None:
    torch.manual_seed(0)
    module = Reading(first=first).eval()
    words = torch.randint(0, 20, (3, 7))
    network = PrintedModel(str(torch.fx.symbolic_trace(module)), "model").network((3, 7))
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    found = compute(prepare(network, words.numpy(), weights=weights)).output
    assert abs(found - module(words).detach().numpy()).max() < 1e-5
    assert costs(network).totals["params"] == sum(parameter.numel() for parameter in module.parameters())


def test_a_printed_attention_takes_pytorchs_weights() -> None:
    torch.manual_seed(0)

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 1, batch_first=True)

        def forward(self, x):
            return x + self.attend(x, x, x)[0]

    model = Looking().eval()
    x = torch.randn(2, 5, 8)
    network = PrintedModel(str(torch.fx.symbolic_trace(model)), "model").network((2, 5, 8))
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = compute(prepare(network, x.numpy(), weights=weights)).output
    assert abs(found - model(x).detach().numpy()).max() < 1e-5


class Scored(nn.Module):
    """Attention by PyTorch's function, with what may be said to it."""

    def __init__(self, **said) -> None:
        super().__init__()
        self.said, self.projection = said, nn.Linear(8, 24)

    def forward(self, x):
        parts = self.projection(x).chunk(3, -1)
        query, key, value = (parts[place].view(x.size(0), x.size(1), 2, 4).transpose(1, 2) for place in range(3))
        said = {"attn_mask": query @ key.transpose(-1, -2)} if "mask" in self.said else self.said
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, **said).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("said", [{}, {"is_causal": True}, {"scale": 0.3}, {"mask": True}], ids=str)
def test_attention_sees_what_the_code_says(said) -> None:
    torch.manual_seed(0)
    model = Scored(**said).eval()
    x = torch.randn(2, 5, 8)
    network = PrintedModel(str(torch.fx.symbolic_trace(model)), "model").network((5, 8)).with_batch(1)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for sample in x:
        found = compute(prepare(network, sample[None].numpy(), weights=weights)).output
        assert abs(found - model(sample[None]).detach().numpy()).max() < 1e-5
