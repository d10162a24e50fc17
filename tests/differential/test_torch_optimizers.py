"""Fitting a chain, step by step, beside PyTorch's optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convcalc.executor.fit import fit  # noqa: E402  after torch is known to be there
from convcalc.executor.run import prepare  # noqa: E402
from convcalc.executor.training import trained  # noqa: E402
from convcalc.layers import find_kind  # noqa: E402
from convcalc.nouns import read_program  # noqa: E402

pytestmark = pytest.mark.torch

CHAIN = "conv:4,k3,p1 batchnorm relu maxpool:2 conv:3,k3 gelu flatten linear:5"
THEIRS = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr),
}
RATES = {"sgd": 1e-3, "momentum": 3e-4, "adam": 1e-2, "adamw": 1e-2}
STEPS = 12


def twenty_losses(net: torch.nn.Module, optimizer: str, x: torch.Tensor, target: torch.Tensor) -> list[float]:
    """The losses before each of PyTorch's twenty steps."""
    theirs = THEIRS[optimizer](net.parameters(), RATES[optimizer])
    losses = []
    for _ in range(20):
        theirs.zero_grad()
        loss = ((net(x) - target) ** 2).sum()
        loss.backward()
        theirs.step()
        losses.append(loss.item())
    return losses


def module() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 3, 3),
        torch.nn.GELU(),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 5),
    ).double()


@pytest.mark.parametrize("optimizer", THEIRS)
def test_every_step_is_theirs(optimizer: str) -> None:
    torch.manual_seed(0)
    net = module().eval()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    x, target = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    weights = {name: array.detach().numpy().copy() for name, array in net.state_dict().items()}
    prepared = prepare(CHAIN, x.numpy(), weights)
    theirs = THEIRS[optimizer](net.parameters(), RATES[optimizer])
    losses = []
    for step in range(1, STEPS + 1):
        theirs.zero_grad()
        loss = ((net(x) - target) ** 2).sum()
        loss.backward()
        theirs.step()
        losses.append(loss.item())
        mine = fit(prepared, target.numpy(), optimizer=optimizer, lr=RATES[optimizer], steps=step)
        np.testing.assert_allclose(mine.losses[:-1], losses, rtol=1e-9)
        for name, parameter in net.named_parameters():
            np.testing.assert_allclose(
                mine.result.weights[name], parameter.detach().numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{name}, {step}"
            )
    assert losses[-1] < losses[0]


class Branches(torch.nn.Module):
    """A shortcut that is added and one that is joined; groups, dilation, a transposed convolution, a batch's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(8, track_running_stats=False)
        self.c2 = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up = torch.nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.pool = torch.nn.MaxPool2d(3, 2, 1)
        self.c3 = torch.nn.Conv2d(12, 6, 3, dilation=2, padding_mode="reflect", padding=1)
        self.depthwise = torch.nn.Conv2d(6, 6, 3, stride=2, groups=6)
        self.act = torch.nn.SiLU()
        self.fc = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.bn(self.c1(x)))
        b = self.c2(a) + a
        u = self.pool(self.up(b))
        c = self.act(self.c3(torch.cat([b, u], 1)))
        return self.fc(self.depthwise(self.act(self.depthwise(c) * 0.5 + 0.1)).mean((2, 3)))


EXPRESSIONS = (
    "conv:8,k3,p1,nobias,name=c1 bn:notrack,name=bn relu @a conv:8,k3,p1,g2,name=c2 add:@a @b"
    " convt:4,k4,s2,p1,name=up maxpool:3,s2,p1 @u from:@b concat:@u"
    " conv:6,k3,d2,p1,padding_mode=reflect,name=c3 silu {middle} globalavgpool flatten linear:5,name=fc"
)


class Once(Branches):
    """The same without the module that is called twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.bn(self.c1(x)))
        b = self.c2(a) + a
        c = self.act(self.c3(torch.cat([b, self.pool(self.up(b))], 1)))
        return self.fc(self.act(self.depthwise(c)).mean((2, 3)))


def as_expressions(net: torch.nn.Module, folder: Path) -> list[str]:
    return EXPRESSIONS.format(middle="conv:6,k3,s2,g6,name=depthwise silu").split()


def as_printed(net: torch.nn.Module, folder: Path) -> list[str]:
    path = folder / "net.txt"
    path.write_text(str(torch.fx.symbolic_trace(net)))
    return [str(path)]


def as_file(net: torch.nn.Module, folder: Path) -> list[str]:
    """Constants are not folded and names kept, so that the file's weights are those of the modules."""
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.float(), (torch.randn(4, 3, 13, 13),), str(path), dynamo=False, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    net.double()
    return [str(path)]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    ("module", "written"),
    [(Once, as_expressions), (Branches, as_printed), (Once, as_file)],
    ids=["expressions", "printed", "file"],
)
def test_twenty_steps_of_branches_are_theirs(
    module: type[Branches], written: Callable[..., list[str]], optimizer: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    net = module().double()
    x, target = torch.randn(4, 3, 13, 13, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    file = written is as_file
    program = read_program(written(net, tmp_path))
    array = x.numpy().astype(np.float32) if file else x.numpy()
    weights = {name: value.detach().numpy().copy() for name, value in net.named_parameters()}
    if file:
        net.float()
        x, target = x.float(), target.float()
    prepared = prepare(program, array, None if file else weights)
    mine = fit(prepared, target.numpy(), optimizer=optimizer, lr=RATES[optimizer], steps=20)
    losses = twenty_losses(net, optimizer, x, target)
    losses.append(((net(x) - target) ** 2).sum().item())
    # A file is in single precision, in which Adam divides by roots of what is nearly 0.
    np.testing.assert_allclose(mine.losses, losses, rtol=2e-4 if file else 1e-8)
    assert losses[-1] < 0.9 * losses[0]
    if not file:
        for name, parameter in net.named_parameters():
            np.testing.assert_allclose(
                mine.result.weights[name], parameter.detach().numpy(), rtol=1e-6, atol=1e-9, err_msg=name
            )


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_twenty_steps_of_batch_norms_in_training_are_theirs(optimizer: str, momentum: float | None) -> None:
    torch.manual_seed(2)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4, momentum=momentum),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 3, 3, bias=False),
        torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        torch.nn.SiLU(),  # else a bias before a norm has a gradient of rounding errors, which Adam makes large
        torch.nn.Flatten(),
        torch.nn.BatchNorm1d(3 * 16),
        torch.nn.Linear(48, 5),
    ).double()
    own = f"bn:momentum={momentum}".lower()
    chain = f"conv:4,k3,nobias {own} relu conv:3,k3,nobias instancenorm:affine,track silu flatten bn linear:5"
    x, target = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    weights = {name: array.detach().numpy().copy() for name, array in net.state_dict().items()}
    mine = fit(
        prepare(chain, x.numpy(), weights),
        target.numpy(),
        optimizer=optimizer,
        lr=RATES[optimizer],
        steps=20,
        train=True,
    )
    losses = twenty_losses(net, optimizer, x, target)
    losses.append(((net.eval()(x) - target) ** 2).sum().item())
    np.testing.assert_allclose(mine.losses, losses, rtol=1e-7)
    for name, array in net.state_dict().items():
        np.testing.assert_allclose(mine.result.weights[name], array.numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"])
def test_dropouts_in_training_give_what_theirs_may_give(name: str, p: float) -> None:
    """Of ones there are at most two different numbers, and as many of each as the odds say."""
    torch.manual_seed(0)
    ones = np.ones((40, 50, 3, 3))
    layer = find_kind(name)[0].layer_class(2 if name.endswith("2d") else None)(p).bind(ones.shape)
    found = trained(layer, (ones,), {}, np.random.default_rng(0))
    x = torch.ones(ones.shape, dtype=torch.float64, requires_grad=True)
    wanted = getattr(torch.nn, name)(p)(x)
    wanted.sum().backward()
    (of_x,), _ = found.back((ones,))
    for mine, their in ((found.outputs[0], wanted.detach().numpy()), (of_x, x.grad.numpy())):
        np.testing.assert_allclose(np.unique(mine), np.unique(their), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mine.mean(), their.mean(), atol=0.12)
    whole = found.outputs[0].reshape(2000, 9)
    if 0 < p < 1:
        assert (np.ptp(whole, axis=1) == 0).all() == (name not in ("Dropout", "AlphaDropout"))


def test_rrelu_in_training_draws_slopes() -> None:
    layer = find_kind("rrelu")[0].layer_class()(0.2, 0.4)
    x = np.random.default_rng(0).normal(size=(50, 60))
    found = trained(layer, (x,), {}, np.random.default_rng(1))
    (of_x,), _ = found.back((np.ones_like(x),))
    np.testing.assert_array_equal(of_x[x > 0], 1)
    below = of_x[x <= 0]
    assert below.min() >= 0.2
    assert below.max() <= 0.4
    assert below.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)
    np.testing.assert_allclose(found.outputs[0], of_x * x)
